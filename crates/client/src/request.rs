//! Requests as values: what is asked, by its name, before it has an id.

use std::time::Duration;

use surety_protocol::{
    ALL_CAPTURES, Address, Amount, AssetId, Body, ChangeBody, ConsumeBody, ControlBody, Flags, GrantBody, Id,
    Kind, LockBody, MerchantBody, MerchantId, PartitionBody, PartitionHandle, Policy, PriceBody, QuoteId,
    Record, Rights, StakeBody, TenantBody, TenantId, Time, long,
};

/// A request that may still lack its id. [`crate::Client::send`] gives it one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft {
    record: Record,
    has_id: bool,
}

impl Draft {
    /// Wraps a request of any kind, without an id.
    #[must_use]
    pub fn new<B: Body>(kind: Kind, partition: PartitionHandle, amount: Amount, body: &B) -> Self {
        Self { record: Record::new(kind, Id(0), partition, amount, body), has_id: false }
    }

    /// Names the request. Without this it gets a new id when it is sent, and only the reply tells which.
    #[must_use]
    pub const fn id(mut self, id: Id) -> Self {
        self.record.id = id;
        self.has_id = true;
        self
    }

    /// Acts for another tenant: for settlers and admins.
    #[must_use]
    pub const fn tenant(mut self, tenant: TenantId) -> Self {
        self.record.tenant = tenant;
        self
    }

    /// Sets marks.
    #[must_use]
    pub const fn flags(mut self, flags: Flags) -> Self {
        self.record = self.record.with_flags(flags);
        self
    }

    /// The request, with the id that it has or the one that `new_id` makes.
    #[must_use]
    pub fn into_record(mut self, new_id: impl FnOnce() -> Id) -> Record {
        if !self.has_id {
            self.record.id = new_id();
        }
        self.record
    }
}

impl From<Record> for Draft {
    fn from(record: Record) -> Self {
        Self { record, has_id: true }
    }
}

/// Asks to lock collateral for a payment (rows 1 to 5 of the transition table).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRequest {
    /// Which collateral.
    pub partition: PartitionHandle,
    /// How much, in base units of the collateral, or of `quote` if that is set.
    pub amount: Amount,
    /// The least that is worth locking; zero means all or nothing.
    pub floor: Amount,
    /// Who is guaranteed.
    pub merchant: MerchantId,
    /// Merchant category code (ISO 18245).
    pub category: u16,
    /// Currency of `amount`; 0 for the collateral itself.
    pub quote: QuoteId,
    /// How long the lock lives by itself, to the millisecond; zero takes the policy's default.
    pub life: Duration,
    /// Carried and not read by the engine.
    pub user: u64,
    /// Asks for a certificate that can be enforced on chain.
    pub is_certified: bool,
    /// Captures it whole at once.
    pub is_sale: bool,
    /// The payment's id; none for a new one.
    pub id: Option<Id>,
}

impl LockRequest {
    /// A plain lock: all or nothing, the policy's life.
    #[must_use]
    pub const fn new(partition: PartitionHandle, amount: Amount, merchant: MerchantId) -> Self {
        Self {
            partition,
            amount,
            floor: Amount::ZERO,
            merchant,
            category: 0,
            quote: QuoteId(0),
            life: Duration::ZERO,
            user: 0,
            is_certified: false,
            is_sale: false,
            id: None,
        }
    }
}

impl From<LockRequest> for Draft {
    fn from(request: LockRequest) -> Self {
        let body = LockBody {
            floor: request.floor,
            merchant: request.merchant,
            user: request.user,
            life_ms: u32::try_from(request.life.as_millis()).unwrap_or(u32::MAX),
            category: request.category,
            quote: request.quote,
            ..LockBody::default()
        };
        let mut flags = Flags(0);
        if request.is_certified {
            flags = flags | Flags::CERTIFIED;
        }
        if request.is_sale {
            flags = flags | Flags::SALE;
        }
        let draft = Self::new(Kind::Lock, request.partition, request.amount, &body).flags(flags);
        match request.id {
            Some(id) => draft.id(id),
            None => draft,
        }
    }
}

/// A lock, addressed: what happens to it later is a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRef {
    /// Where it is held.
    pub partition: PartitionHandle,
    /// The id of its lock request.
    pub id: Id,
}

impl LockRef {
    /// Addresses a lock.
    #[must_use]
    pub const fn new(partition: PartitionHandle, id: Id) -> Self {
        Self { partition, id }
    }

    /// Raises the lock to a total; `version` is the one last seen (row 6).
    #[must_use]
    pub fn increase(self, total: Amount, version: u16) -> Draft {
        self.change(Kind::Increase, total, ChangeBody { version, ..self.body() })
    }

    /// Lowers the lock to a total (row 7).
    #[must_use]
    pub fn decrease(self, total: Amount, version: u16) -> Draft {
        self.change(Kind::Decrease, total, ChangeBody { version, ..self.body() })
    }

    /// Claims a part; more captures may follow (row 8).
    #[must_use]
    pub fn capture(self, amount: Amount) -> Draft {
        self.change(Kind::Capture, amount, self.body())
    }

    /// Claims a part for the last time; the rest is released (row 9).
    #[must_use]
    pub fn capture_last(self, amount: Amount) -> Draft {
        self.capture(amount).flags(Flags::FINAL)
    }

    /// Gives the rest of the lock back (rows 11, 12, 15).
    #[must_use]
    pub fn release(self) -> Draft {
        self.change(Kind::Release, Amount::ZERO, self.body())
    }

    /// Takes a capture back whole (rows 13, 14).
    #[must_use]
    pub fn reverse(self, capture: u16) -> Draft {
        self.change(Kind::Reverse, Amount::ZERO, ChangeBody { capture, ..self.body() })
    }

    /// Gives a part of a capture back (row 21).
    #[must_use]
    pub fn refund(self, capture: u16, amount: Amount) -> Draft {
        self.change(Kind::Refund, amount, ChangeBody { capture, ..self.body() })
    }

    /// Records a capture that happened without asking (row 20).
    #[must_use]
    pub fn advise(self, amount: Amount) -> Draft {
        self.change(Kind::Advice, amount, self.body())
    }

    /// The payer's asset is final for one capture (row 22).
    #[must_use]
    pub fn settle_capture(self, capture: u16) -> Draft {
        self.change(Kind::Settle, Amount::ZERO, ChangeBody { capture, ..self.body() })
    }

    /// The payer's asset is final for the whole lock (row 22).
    #[must_use]
    pub fn settle(self) -> Draft {
        self.settle_capture(ALL_CAPTURES)
    }

    /// The payer's asset failed: the merchant is owed this capture (row 23).
    #[must_use]
    pub fn consume_capture(self, capture: u16) -> Draft {
        self.consume(capture, Amount::ZERO)
    }

    /// The payment failed before its capture: the merchant is owed a part of what is held (row 23).
    #[must_use]
    pub fn consume_held(self, amount: Amount) -> Draft {
        self.consume(ALL_CAPTURES, amount)
    }

    fn consume(self, capture: u16, amount: Amount) -> Draft {
        let body = ConsumeBody { lock: self.id, capture, ..ConsumeBody::default() };
        Draft::new(Kind::Consume, self.partition, amount, &body)
    }

    fn body(self) -> ChangeBody {
        ChangeBody { lock: self.id, ..ChangeBody::default() }
    }

    fn change(self, kind: Kind, amount: Amount, body: ChangeBody) -> Draft {
        Draft::new(kind, self.partition, amount, &body)
    }
}

/// Makes a partition. `track_merchants` keeps the open value of each merchant, which a limit per merchant needs.
#[must_use]
pub fn create_partition(
    partition: PartitionHandle,
    onchain: [u8; 32],
    asset: AssetId,
    track_merchants: bool,
) -> Draft {
    let body = PartitionBody {
        onchain,
        asset,
        track_merchants: u8::from(track_merchants),
        ..PartitionBody::default()
    };
    Draft::new(Kind::PartitionCreate, partition, Amount::ZERO, &body)
}

/// Sets the rules of a partition: a long request, for [`crate::Client::submit_long`].
#[must_use]
pub fn set_policy(id: Id, partition: PartitionHandle, policy: &Policy) -> Vec<Record> {
    long::split(Kind::Policy, id, partition, 0, &policy.to_bytes())
}

/// Admits or shuts out a tenant and sets its quotas, on one shard: address the shard itself as the partition.
#[must_use]
pub fn set_tenant(shard: PartitionHandle, body: &TenantBody) -> Draft {
    Draft::new(Kind::TenantSet, shard, Amount::ZERO, body)
}

/// Sets what a tenant may do in a partition.
#[must_use]
pub fn grant(partition: PartitionHandle, tenant: TenantId, rights: Rights) -> Draft {
    let body = GrantBody { tenant, rights: rights.0, ..GrantBody::default() };
    Draft::new(Kind::Grant, partition, Amount::ZERO, &body)
}

/// Sets a merchant's payee and release key, on one shard.
#[must_use]
pub fn set_merchant(shard: PartitionHandle, tenant: TenantId, body: &MerchantBody) -> Draft {
    Draft::new(Kind::MerchantSet, shard, Amount::ZERO, body).tenant(tenant)
}

/// A supplier's collateral is final on chain (row 26). `nonce` is the chain's own number.
#[must_use]
pub fn deposit(partition: PartitionHandle, supplier: Address, amount: Amount, nonce: u64) -> Draft {
    let body = StakeBody { supplier, nonce, ..StakeBody::default() };
    Draft::new(Kind::Deposit, partition, amount, &body)
}

/// A supplier takes units out (row 28).
#[must_use]
pub fn withdraw(partition: PartitionHandle, supplier: Address, units: Amount) -> Draft {
    Draft::new(Kind::Withdraw, partition, units, &StakeBody { supplier, ..StakeBody::default() })
}

/// A price: quote base units for 10^18 collateral base units, on one shard.
#[must_use]
pub fn price(shard: PartitionHandle, asset: AssetId, quote: QuoteId, price: Amount, observed: Time) -> Draft {
    Draft::new(Kind::Price, shard, price, &PriceBody { asset, quote, observed, ..PriceBody::default() })
}

/// Stops new locks of a partition, for a reason code of the operator's own (row 31).
#[must_use]
pub fn freeze(partition: PartitionHandle, reason: u64) -> Draft {
    let body = ControlBody { user: reason, ..ControlBody::default() };
    Draft::new(Kind::Freeze, partition, Amount::ZERO, &body)
}

/// Ends a freeze (row 31).
#[must_use]
pub fn unfreeze(partition: PartitionHandle) -> Draft {
    Draft::new(Kind::Unfreeze, partition, Amount::ZERO, &ControlBody::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_draft_is_a_request_that_an_engine_reads() {
        let partition = PartitionHandle(7);
        let lock = LockRef::new(partition, Id(1));
        let some = Amount(5);
        let drafts = [
            LockRequest {
                is_sale: true,
                is_certified: true,
                ..LockRequest::new(partition, some, MerchantId(1))
            }
            .into(),
            lock.increase(some, 1),
            lock.decrease(some, 1),
            lock.capture(some),
            lock.capture_last(some),
            lock.release(),
            lock.reverse(0),
            lock.refund(0, some),
            lock.advise(some),
            lock.settle(),
            lock.settle_capture(3),
            lock.consume_capture(0),
            lock.consume_held(some),
            create_partition(partition, [1; 32], AssetId(1), true),
            set_tenant(partition, &TenantBody::default()),
            grant(partition, TenantId(1), Rights::KNOWN),
            set_merchant(partition, TenantId(1), &MerchantBody::default()),
            deposit(partition, Address([1; 20]), some, 1),
            withdraw(partition, Address([1; 20]), some),
            price(partition, AssetId(1), QuoteId(978), some, Time(1)),
            freeze(partition, 3),
            unfreeze(partition),
        ];
        for draft in drafts {
            let record = draft.into_record(|| Id(42));
            let kind = record.check().unwrap();
            assert!(record.is_well_formed(kind), "{kind}");
            assert_eq!(record.id, Id(42));
            assert_eq!(draft.id(Id(43)).into_record(|| Id(42)).id, Id(43));
        }
    }
}
