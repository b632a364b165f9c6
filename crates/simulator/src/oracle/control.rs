//! Row 31: what the operator sets.

use surety_protocol::{
    ActorId, Amount, AssetId, Code, GrantBody, MerchantBody, MerchantId, PartitionBody, PartitionHandle,
    Policy, Record, Rights, TenantBody, long,
};

use super::state::Partition;
use super::{Ask, Oracle, Outcome};

impl Oracle {
    pub(super) fn partition_mut(&mut self, handle: PartitionHandle) -> &mut Partition {
        self.partitions.get_mut(&handle).expect("admitted requests name partitions that exist")
    }

    pub(super) fn freeze(&mut self, ask: &Ask) -> Outcome {
        self.partition_mut(ask.partition).is_frozen = true;
        Outcome::new(Code::Approved)
    }

    /// A deficit keeps a partition frozen.
    pub(super) fn unfreeze(&mut self, ask: &Ask) -> Outcome {
        let partition = self.partition_mut(ask.partition);
        if partition.d > 0 {
            return Outcome::new(Code::Insufficient);
        }
        partition.is_frozen = false;
        Outcome::new(Code::Approved)
    }

    pub(super) fn lower_exposure(&mut self, ask: &Ask, record: &mut Record) -> Outcome {
        let amount = record.amount.0;
        let partition = self.partition_mut(ask.partition);
        if amount > partition.x {
            return Outcome::new(Code::Insufficient);
        }
        partition.x -= amount;
        record.result = Amount(amount);
        Outcome { approved: amount, ..Outcome::new(Code::Approved) }
    }

    pub(super) fn policy(&mut self, ask: &Ask, head: &Record, parts: &[Record]) -> Result<Outcome, Code> {
        let records: Vec<Record> = std::iter::once(*head).chain(parts.iter().copied()).collect();
        let payload = long::join(&records).map_err(|_| Code::Malformed)?;
        let policy = Policy::from_bytes(&payload).filter(Policy::is_valid).ok_or(Code::Malformed)?;
        let partition = self.partition_mut(ask.partition);
        if policy.merchant_open_max != Amount::ZERO && !partition.tracks {
            return Err(Code::Malformed);
        }
        partition.policy = policy;
        partition.policy_seq = ask.seq;
        Ok(Outcome::new(Code::Approved))
    }

    pub(super) fn partition_create(&mut self, record: &Record) -> Result<Outcome, Code> {
        let body: PartitionBody = record.body();
        if record.partition.number() == 0 || body.asset == AssetId(0) || body.track_merchants > 1 {
            return Err(Code::Malformed);
        }
        let is_taken = self.partitions.contains_key(&record.partition)
            || self.partitions.values().any(|partition| partition.onchain == body.onchain);
        if is_taken {
            return Ok(Outcome::new(Code::Exists));
        }
        let mut partition = Partition::new(record.partition);
        partition.asset = body.asset;
        partition.onchain = body.onchain;
        partition.tracks = body.track_merchants == 1;
        partition.order = self.partitions.len();
        self.partitions.insert(record.partition, partition);
        // A life that is lost may have made the same.
        if self.losses() > 0 {
            self.suspend(record.partition);
        }
        Ok(Outcome::new(Code::Approved))
    }

    pub(super) fn tenant_set(&mut self, record: &Record) -> Result<Outcome, Code> {
        let body: TenantBody = record.body();
        if body.enabled > 1 {
            return Err(Code::Malformed);
        }
        self.tenants.insert(body.tenant, TenantBody { actor: ActorId(0), ..body });
        Ok(Outcome::new(Code::Approved))
    }

    pub(super) fn grant(&mut self, record: &Record) -> Result<Outcome, Code> {
        let body: GrantBody = record.body();
        if body.rights & !Rights::KNOWN.0 != 0 {
            return Err(Code::Malformed);
        }
        self.rights.insert((body.tenant, record.partition), Rights(body.rights));
        Ok(Outcome::new(Code::Approved))
    }

    pub(super) fn merchant_set(&mut self, ask: &Ask, record: &Record) -> Result<Outcome, Code> {
        let body: MerchantBody = record.body();
        if body.merchant == MerchantId(0) || body.enabled > 1 {
            return Err(Code::Malformed);
        }
        self.merchants.insert((ask.tenant, body.merchant.0), MerchantBody { actor: ActorId(0), ..body });
        Ok(Outcome::new(Code::Approved))
    }
}
