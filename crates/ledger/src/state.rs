//! What the ledger shows of itself: totals, locks, suppliers, snapshot entries, and what `verify` can find wrong.

use alloc::vec::Vec;
use surety_protocol::{
    Address, AssetId, Code, End, Id, MerchantId, PartitionHandle, Policy, Seq, TenantBody, TenantId, Time,
};

/// A partition's money, in base units of its asset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Its address.
    pub handle: PartitionHandle,
    /// Its on-chain id.
    pub onchain: [u8; 32],
    /// Its collateral.
    pub asset: AssetId,
    /// K: collateral final on chain.
    pub on_chain: u128,
    /// D: deficit.
    pub deficit: u128,
    /// F: free.
    pub free: u128,
    /// H: held by live locks.
    pub held: u128,
    /// U: captured, the payer's asset not yet final.
    pub captured: u128,
    /// P: ended, but still claimable by a certificate.
    pub pending: u128,
    /// W: owed to the chain.
    pub owed: u128,
    /// X: exposure.
    pub exposure: u128,
    /// Units of the present generation.
    pub units: u128,
    /// Units that wait to be paid.
    pub units_queued: u128,
    /// Generation of units.
    pub generation: u32,
    /// Fees that captures have earned for the suppliers.
    pub fees: u128,
    /// True if new locks are declined.
    pub is_frozen: bool,
    /// True if it was not reconciled since a loss.
    pub is_unreconciled: bool,
    /// True if the open value of each merchant is kept.
    pub tracks_merchants: bool,
    /// Ceiling of H + U + P + W, and until when it holds; `None` if the chain sets none.
    pub risk_cap: Option<(u128, Time)>,
    /// The last batch that was final.
    pub batch: u64,
    /// The rules.
    pub policy: Policy,
    /// The record that set them; 0 for the rules that a partition starts with.
    pub policy_seq: Seq,
}

impl Totals {
    /// True if `K + D = F + H + U + P + W`.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let sum = |parts: &[u128]| parts.iter().try_fold(0_u128, |sum, part| sum.checked_add(*part));
        let backing = sum(&[self.on_chain, self.deficit]);
        backing.is_some() && backing == sum(&[self.free, self.held, self.captured, self.pending, self.owed])
    }
}

/// One lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockState {
    /// Its id.
    pub id: Id,
    /// Whose it is.
    pub tenant: TenantId,
    /// Where it is.
    pub partition: PartitionHandle,
    /// Who is guaranteed; 0 if nobody was named.
    pub merchant: MerchantId,
    /// How it ended.
    pub end: End,
    /// The first answer.
    pub code: Code,
    /// Rises with each change.
    pub version: u16,
    /// When it ends by itself.
    pub deadline: Time,
    /// Its record.
    pub seq: Seq,
    /// A: approved, increases included.
    pub approved: u128,
    /// G: headroom left.
    pub headroom: u128,
    /// C: captured.
    pub captured: u128,
    /// V: released.
    pub released: u128,
    /// E: expired.
    pub expired: u128,
    /// R: still held.
    pub remaining: u128,
    /// P: ended, but still claimable.
    pub pending: u128,
    /// True if a certificate was asked for.
    pub is_certified: bool,
    /// True while a guarantee is called on chain.
    pub is_called: bool,
    /// The captures, by index.
    pub captures: Vec<CaptureState>,
}

/// One capture of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureState {
    /// Its index.
    pub index: u16,
    /// u: the payer's asset is not yet final.
    pub open: u128,
    /// s: settled.
    pub settled: u128,
    /// b: given back.
    pub refunded: u128,
    /// q: consumed.
    pub consumed: u128,
    /// When the settle-by action is due; 0 for never.
    pub settle_by: Time,
}

/// One supplier of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupplierState {
    /// Who.
    pub supplier: Address,
    /// Units held, queued ones included.
    pub units: u128,
    /// Units that wait to be paid.
    pub queued: u128,
    /// What the units are worth now, in base units.
    pub value: u128,
}

/// One queued withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuedState {
    /// The id of the withdrawal.
    pub id: Id,
    /// Who.
    pub supplier: Address,
    /// How many units.
    pub units: u128,
    /// When it may be paid.
    pub due: Time,
}

/// One tenant: its quotas and what it uses of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantState {
    /// As set.
    pub quotas: TenantBody,
    /// Locks kept.
    pub locks: u64,
    /// Ids remembered.
    pub ids: u64,
    /// Tombstones remembered.
    pub tombstones: u64,
    /// Advices and reversals remembered.
    pub advices: u64,
    /// Open locks.
    pub open_locks: u64,
}

/// What kind of thing a snapshot entry is, in the order in which entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A tenant.
    Tenant = 1,
    /// A partition.
    Partition = 2,
    /// A tenant's rights on a partition.
    Grant = 3,
    /// A merchant.
    Merchant = 4,
    /// A price.
    Price = 5,
    /// A supplier's units.
    Position = 6,
    /// A queued withdrawal.
    Queued = 7,
    /// A deposit's or reward's number.
    Nonce = 8,
    /// A merchant's open value.
    Open = 9,
    /// A lock with its captures.
    Lock = 10,
    /// A remembered id.
    Op = 11,
    /// A loss that was accepted.
    Loss = 12,
    /// A partition that was not reconciled since.
    Unreconciled = 13,
}

/// Names a lock or an id across ledgers and snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    /// Whose.
    pub tenant: TenantId,
    /// Where.
    pub partition: PartitionHandle,
    /// Which.
    pub id: Id,
}

/// One thing of the state as canonical bytes: what snapshots hold and what the state hash covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub(crate) bytes: Vec<u8>,
}

/// Why bytes are not an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// No such kind.
    #[error("unknown kind {0} of a snapshot entry")]
    Kind(u8),
    /// Too short, too long, or a field without a meaning.
    #[error("a snapshot entry of kind {0:?} is damaged")]
    Damaged(EntryKind),
    /// The entry refers to another that did not come before it.
    #[error("a snapshot entry of kind {0:?} refers to a partition or tenant that is not there")]
    Orphan(EntryKind),
    /// The same thing twice.
    #[error("a snapshot entry of kind {0:?} is there twice")]
    Twice(EntryKind),
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: partition {partition}, lock {lock:?}: expected {expected}, found {found}")]
pub struct Violation {
    /// Which one.
    pub invariant: &'static str,
    /// Where.
    pub partition: PartitionHandle,
    /// On which lock, if on one.
    pub lock: Option<Id>,
    /// What it should be.
    pub expected: u128,
    /// What it is.
    pub found: u128,
}
