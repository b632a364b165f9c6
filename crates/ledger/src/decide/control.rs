//! Row 31: what the operator sets.

use surety_protocol::{
    Amount, AssetId, Code, GrantBody, Kind, MerchantBody, MerchantId, PartitionBody, Record, Rights,
    TenantBody,
};

use super::{Ask, Outcome};
use crate::ledger::Ledger;
use crate::partition::Partition;

impl Ledger {
    pub(super) fn freeze(&mut self, ask: &Ask, _record: &mut Record) -> Result<Outcome, Code> {
        self.partition_mut(ask.partition).is_frozen = true;
        self.touched(ask.partition);
        Ok(Outcome::new(Code::Approved))
    }

    /// A partition with a deficit stays frozen.
    pub(super) fn unfreeze(&mut self, ask: &Ask, _record: &mut Record) -> Result<Outcome, Code> {
        if self.partitions[ask.partition as usize].money.deficit > 0 {
            return Ok(Outcome::new(Code::Insufficient));
        }
        self.partition_mut(ask.partition).is_frozen = false;
        self.touched(ask.partition);
        Ok(Outcome::new(Code::Approved))
    }

    /// The operator's word that the books of a partition say again what chain and merchants say.
    pub(super) fn reconcile(&mut self, ask: &Ask, _record: &mut Record) -> Result<Outcome, Code> {
        if self.losses.is_empty() {
            return Err(Code::Malformed);
        }
        if self.partitions[ask.partition as usize].is_unreconciled {
            self.resume(ask.partition);
        }
        Ok(Outcome::new(Code::Approved))
    }

    /// Exposure was made good from outside, or given up.
    pub(super) fn lower_exposure(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let amount = record.amount.0;
        let money = &mut self.partition_mut(ask.partition).money;
        if amount > money.exposure {
            return Ok(Outcome::new(Code::Insufficient));
        }
        money.exposure -= amount;
        self.touched(ask.partition);
        record.result = Amount(amount);
        Ok(Outcome::new(Code::Approved).moving(amount))
    }

    pub(super) fn partition_create(&mut self, _ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: PartitionBody = record.body();
        if record.partition.number() == 0 || body.asset == AssetId(0) || body.track_merchants > 1 {
            return Err(Code::Malformed);
        }
        if self.partition_names.contains_key(&body.onchain) || self.partition_slot(record.partition).is_some()
        {
            return Ok(Outcome::new(Code::Exists));
        }
        let mut partition = Partition::new(record.partition);
        partition.asset = body.asset;
        partition.onchain = body.onchain;
        partition.tracks_merchants = body.track_merchants == 1;
        let slot = self.add_partition(partition);
        self.touched(slot);
        // The life that is lost may have made the same, and used it.
        if !self.losses.is_empty() {
            self.unsettle(slot);
        }
        Ok(Outcome::new(Code::Approved))
    }

    pub(super) fn tenant_set(&mut self, _ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: TenantBody = record.body();
        if body.enabled > 1 {
            return Err(Code::Malformed);
        }
        let slot = self.make_tenant(body.tenant);
        let mut tenant = self.tenants[slot as usize];
        if tenant.is_set {
            self.hash_out(self.tenant_hash(&tenant));
        }
        // Who set it is in the log, not in the state.
        tenant.quotas = TenantBody { actor: surety_protocol::ActorId(0), ..body };
        tenant.is_set = true;
        self.hash_in(self.tenant_hash(&tenant));
        self.tenants[slot as usize] = tenant;
        Ok(Outcome::new(Code::Approved))
    }

    pub(super) fn grant(&mut self, _ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: GrantBody = record.body();
        if body.rights & !Rights::KNOWN.0 != 0 {
            return Err(Code::Malformed);
        }
        let account = self.make_account(body.tenant, record.partition).ok_or(Code::UnknownPartition)?;
        if self.account(account).rights != Rights::default() {
            self.hash_out(self.grant_hash(account));
        }
        self.set_rights(account, Rights(body.rights));
        if body.rights != 0 {
            self.hash_in(self.grant_hash(account));
        }
        Ok(Outcome::new(Code::Approved))
    }

    pub(super) fn merchant_set(&mut self, ask: &Ask, record: &mut Record) -> Result<Outcome, Code> {
        let body: MerchantBody = record.body();
        if body.merchant == MerchantId(0) || body.enabled > 1 {
            return Err(Code::Malformed);
        }
        let body = MerchantBody { actor: surety_protocol::ActorId(0), ..body };
        let key = (ask.tenant.0, body.merchant.0);
        if let Some(old) = self.merchants.get(&key).copied() {
            self.hash_out(self.merchant_hash(ask.tenant, &old));
        }
        self.hash_in(self.merchant_hash(ask.tenant, &body));
        self.merchants.insert(key, body);
        debug_assert!(ask.kind == Kind::MerchantSet, "called for its own kind");
        Ok(Outcome::new(Code::Approved))
    }
}
