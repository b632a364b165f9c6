//! The netting's part of a snapshot. The configuration is not in it.

use alloc::collections::BTreeSet;

use surety_protocol::{Address, MerchantId, PartitionHandle, TenantId, sabotage};

use super::{Netting, NettingConfig, Partition, Payee, PayeeKey, Supplier};
use crate::batch::Positions;
use crate::book::Book;
use crate::bytes::{Reader, Truncated, Writer};
use crate::money::Money;

impl Netting {
    pub(crate) fn write(&self, to: &mut Writer) {
        self.positions.write(to);
        to.u32(self.count);
        self.book.write(to);
        to.map(&self.partitions, |to, handle, partition| {
            to.u64(handle.0);
            partition.write(to);
        });
        to.map(&self.suppliers, |to, key, supplier| {
            write_key(to, key);
            to.u128(supplier.units).u128(supplier.queued).u128(supplier.paid_out);
        });
        to.map(&self.payees, |to, key, payee| {
            write_key(to, key);
            to.u128(payee.credit).u128(payee.owed);
        });
        to.map(&self.unnamed, |to, (partition, tenant, merchant), amount| {
            to.u64(partition.0).u32(tenant.0).u64(merchant.0).u128(*amount);
        });
        for set in [&self.carried, &self.fresh, &self.changed_suppliers] {
            to.list(set.iter(), write_key);
        }
        to.list(self.changed_partitions.iter(), |to, handle| _ = to.u64(handle.0));
        to.list(self.losses.iter(), |to, (handle, reference)| _ = to.u64(handle.0).u128(*reference));
    }

    pub(crate) fn read_from(config: NettingConfig, from: &mut Reader<'_>) -> Result<Self, Truncated> {
        let positions = Positions::read(from)?;
        if positions.0.len() != usize::from(config.shards) {
            return Err(Truncated);
        }
        let count = from.u32()?;
        let book = Book::read_from(from)?;
        Ok(Self {
            config,
            positions,
            count,
            handles: book.homes().map(|(handle, home)| (home.onchain, *handle)).collect(),
            book,
            partitions: from.map(|from| Ok((PartitionHandle(from.u64()?), Partition::read(from)?)))?,
            suppliers: from.map(|from| {
                let key = read_key(from)?;
                Ok((key, Supplier { units: from.u128()?, queued: from.u128()?, paid_out: from.u128()? }))
            })?,
            payees: from.map(|from| {
                let key = read_key(from)?;
                let (credit, owed) = (from.u128()?, from.u128()?);
                let again = if sabotage!("counted-again-after-a-restart") { credit } else { 0 };
                Ok((key, Payee { credit, owed: owed + again }))
            })?,
            unnamed: from.map(|from| {
                let name = (PartitionHandle(from.u64()?), TenantId(from.u32()?), MerchantId(from.u64()?));
                Ok((name, from.u128()?))
            })?,
            carried: read_keys(from)?,
            fresh: read_keys(from)?,
            changed_suppliers: read_keys(from)?,
            changed_partitions: from
                .list(|from| from.u64().map(PartitionHandle))?
                .into_iter()
                .collect::<BTreeSet<_>>(),
            losses: from
                .list(|from| Ok::<_, Truncated>((PartitionHandle(from.u64()?), from.u128()?)))?
                .into_iter()
                .collect::<BTreeSet<_>>(),
        })
    }
}

impl Partition {
    fn write(&self, to: &mut Writer) {
        let Money { on_chain, deficit, free, locked, owed, exposure } = self.money;
        for amount in [on_chain, deficit, free, locked, owed, exposure] {
            to.u128(amount);
        }
        for amount in [self.credited, self.unpublished, self.guaranteed, self.exits, self.units] {
            to.u128(amount);
        }
        to.u64(self.exit_nonce);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Truncated> {
        let money = Money {
            on_chain: from.u128()?,
            deficit: from.u128()?,
            free: from.u128()?,
            locked: from.u128()?,
            owed: from.u128()?,
            exposure: from.u128()?,
        };
        let (credited, unpublished, guaranteed) = (from.u128()?, from.u128()?, from.u128()?);
        let (exits, units, exit_nonce) = (from.u128()?, from.u128()?, from.u64()?);
        Ok(Self { money, credited, unpublished, guaranteed, exits, exit_nonce, units })
    }
}

fn write_key(to: &mut Writer, key: &PayeeKey) {
    to.u64(key.0.0).raw(&key.1.0);
}

fn read_key(from: &mut Reader<'_>) -> Result<PayeeKey, Truncated> {
    Ok((PartitionHandle(from.u64()?), Address(from.array()?)))
}

fn read_keys(from: &mut Reader<'_>) -> Result<BTreeSet<PayeeKey>, Truncated> {
    Ok(from.list(read_key)?.into_iter().collect())
}
