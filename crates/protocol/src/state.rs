//! Questions about a shard's state: partitions, suppliers, withdrawals and tenants as they are now, a page at a time.

use rkyv::{Archive, Deserialize, Serialize};

use crate::archive;
use crate::hello::QUOTAS_HAVE_CODES;
use crate::limits::{FRAME_RECORDS_MAX, RECORD_BYTES};
use crate::{
    Address, Amount, AssetId, Epoch, FrameError, FrameKind, Id, PartitionHandle, Policy, Seq, ShardId,
    TenantBody, TenantId, Time,
};

/// Bytes of a question.
pub const STATE_QUERY_BYTES: usize = 64;
/// Bytes before the rows of a page.
pub const STATE_HEAD_BYTES: usize = 32;

/// What is asked for. Rows come in the order of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StateKind {
    /// [`PartitionRow`]s from the handle `partition` on.
    Partitions = 1,
    /// [`SupplierRow`]s of `partition`, from the address `supplier` on.
    Suppliers = 2,
    /// [`WithdrawalRow`]s of `partition`, from the queue's `position` on.
    Withdrawals = 3,
    /// [`TenantRow`]s from `tenant` on.
    Tenants = 4,
}

impl StateKind {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Partitions,
            2 => Self::Suppliers,
            3 => Self::Withdrawals,
            4 => Self::Tenants,
            _ => return None,
        })
    }

    /// Bytes of a row, a multiple of a record's.
    #[must_use]
    pub const fn row_bytes(self) -> usize {
        match self {
            Self::Partitions => PARTITION_ROW_BYTES,
            Self::Suppliers | Self::Withdrawals | Self::Tenants => RECORD_BYTES,
        }
    }

    /// The most rows of a page.
    #[must_use]
    pub const fn rows_max(self) -> usize {
        FRAME_RECORDS_MAX * RECORD_BYTES / self.row_bytes()
    }
}

/// Asks for a page of a shard's state, on a stream that carries nothing but such questions. Fields that the kind does not use
/// are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StateQuery {
    /// Of [`StateKind::Partitions`] the first that is wanted; of the others, except tenants, which one.
    pub partition: PartitionHandle,
    /// The first position of the queue that is wanted.
    pub position: u64,
    /// The first supplier that is wanted.
    pub supplier: Address,
    /// The first tenant that is wanted.
    pub tenant: TenantId,
    /// The most rows that are wanted; 0 for as many as a page holds.
    pub limit: u32,
    /// Which shard: the one behind the port.
    pub shard: ShardId,
    /// A [`StateKind`].
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 17],
}

/// The first 32 bytes of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StateHead {
    /// The rows are as this record left them. It is as durable as the engine's replies are.
    pub seq: Seq,
    /// The engine's time.
    pub now: Time,
    /// The epoch that speaks.
    pub epoch: Epoch,
    /// Which shard.
    pub shard: ShardId,
    /// The [`StateKind`] that was asked for.
    pub kind: u8,
    /// 1 if there are more rows behind the last one, 0 if not.
    pub has_more: u8,
    /// Zero.
    pub reserved: [u8; 8],
}

/// Bytes of a partition's row: five records.
const PARTITION_ROW_BYTES: usize = 5 * RECORD_BYTES;

/// A partition's money, in base units of its asset, and its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PartitionRow {
    /// Its address.
    pub partition: PartitionHandle,
    /// Its id on chain.
    pub onchain: [u8; 32],
    /// K: collateral final on chain.
    pub collateral: Amount,
    /// D: deficit.
    pub deficit: Amount,
    /// F: free.
    pub free: Amount,
    /// H: held by live locks.
    pub held: Amount,
    /// U: captured, the payer's asset not yet final.
    pub captured: Amount,
    /// P: ended, but still claimable by a certificate.
    pub pending: Amount,
    /// W: owed to the chain.
    pub owed: Amount,
    /// X: exposure.
    pub exposure: Amount,
    /// Units of the present generation.
    pub units: Amount,
    /// Units that wait to be paid.
    pub units_queued: Amount,
    /// Fees that captures have earned for the suppliers.
    pub fees: Amount,
    /// Ceiling of H + U + P + W; counts if `cap_until` is not 0.
    pub cap: Amount,
    /// Until when the ceiling holds; 0 if the chain sets none.
    pub cap_until: Time,
    /// The last batch that was final.
    pub batch: u64,
    /// The record that set the policy; 0 for the rules that a partition starts with.
    pub policy_seq: Seq,
    /// Its collateral.
    pub asset: AssetId,
    /// Generation of units.
    pub generation: u32,
    /// 1 if new locks are declined.
    pub frozen: u8,
    /// 1 if the open value of each merchant is kept.
    pub track_merchants: u8,
    /// 1 if it was not reconciled since a loss: these are the sums of a backup.
    pub unreconciled: u8,
    /// Zero.
    pub reserved: [u8; 13],
    /// The rules.
    pub policy: Policy,
}

/// One supplier of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SupplierRow {
    /// Units held, queued ones included.
    pub units: Amount,
    /// Units that wait to be paid.
    pub queued: Amount,
    /// What the units are worth now, in base units.
    pub value: Amount,
    /// Who.
    pub supplier: Address,
    /// Zero.
    pub reserved: [u8; 60],
}

/// One queued withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct WithdrawalRow {
    /// The id of the withdrawal.
    pub id: Id,
    /// How many units.
    pub units: Amount,
    /// When it may be paid.
    pub due: Time,
    /// Its place in the queue, counted from the partition's first withdrawal.
    pub position: u64,
    /// Who.
    pub supplier: Address,
    /// Zero.
    pub reserved: [u8; 60],
}

/// One tenant on this shard: its quotas and what it uses of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TenantRow {
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
    /// Open locks. Since version 2.
    pub open_locks: u64,
    /// Zero.
    pub reserved: [u8; 32],
}

impl TenantRow {
    /// What a version of the wire says of it.
    #[must_use]
    pub const fn in_version(mut self, version: u16) -> Self {
        if version < QUOTAS_HAVE_CODES {
            self.quotas.open_locks_max = 0;
            self.open_locks = 0;
        }
        self
    }
}

const _: () = assert!(size_of::<ArchivedStateQuery>() == STATE_QUERY_BYTES);
const _: () = assert!(size_of::<ArchivedStateHead>() == STATE_HEAD_BYTES);
const _: () = assert!(size_of::<ArchivedPartitionRow>() == PARTITION_ROW_BYTES);
const _: () = assert!(size_of::<ArchivedSupplierRow>() == RECORD_BYTES);
const _: () = assert!(size_of::<ArchivedWithdrawalRow>() == RECORD_BYTES);
const _: () = assert!(size_of::<ArchivedTenantRow>() == RECORD_BYTES);

/// A row of a page.
pub trait StateRow: Sized {
    /// The kind of page that it stands in.
    const KIND: StateKind;

    /// Appends the row's bytes to those of a page.
    fn write(&self, page: &mut alloc::vec::Vec<u8>);

    /// Reads a row from exactly its bytes.
    fn read(bytes: &[u8]) -> Option<Self>;

    /// The question whose first row is the one behind this; `None` behind the last key there can be.
    fn after(&self, query: StateQuery) -> Option<StateQuery>;
}

macro_rules! rows {
    ($($row:ident: $kind:ident, $bytes:expr, |$this:ident, $query:ident| $after:expr;)*) => {$(
        impl StateRow for $row {
            const KIND: StateKind = StateKind::$kind;

            fn write(&self, page: &mut alloc::vec::Vec<u8>) {
                page.extend_from_slice(&archive::write::<{ $bytes }, _>(self));
            }

            fn read(bytes: &[u8]) -> Option<Self> {
                let row: Self = archive::read(bytes)?;
                row.reserved.iter().all(|byte| *byte == 0).then_some(row)
            }

            fn after(&self, $query: StateQuery) -> Option<StateQuery> {
                let $this = self;
                $after
            }
        }
    )*};
}

rows! {
    PartitionRow: Partitions, PARTITION_ROW_BYTES, |row, query|
        Some(StateQuery { partition: PartitionHandle(row.partition.0.checked_add(1)?), ..query });
    SupplierRow: Suppliers, RECORD_BYTES, |row, query|
        Some(StateQuery { supplier: address_after(row.supplier)?, ..query });
    WithdrawalRow: Withdrawals, RECORD_BYTES, |row, query|
        Some(StateQuery { position: row.position.checked_add(1)?, ..query });
    TenantRow: Tenants, RECORD_BYTES, |row, query|
        Some(StateQuery { tenant: TenantId(row.quotas.tenant.0.checked_add(1)?), ..query });
}

fn address_after(mut address: Address) -> Option<Address> {
    for byte in address.0.iter_mut().rev() {
        let (next, is_carried) = byte.overflowing_add(1);
        *byte = next;
        if !is_carried {
            return Some(address);
        }
    }
    None
}

impl StateQuery {
    /// Asks a shard for the first page of a kind.
    #[must_use]
    pub fn new(shard: ShardId, kind: StateKind) -> Self {
        Self { shard, kind: kind as u8, ..Self::default() }
    }

    /// Writes the body of a query frame.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; STATE_QUERY_BYTES] {
        archive::write(self)
    }

    /// Reads the body of a query frame, and tells what is asked for.
    ///
    /// # Errors
    /// [`FrameError::Body`] if length or kind are wrong, [`FrameError::Padding`] if a reserved byte is not zero.
    pub fn from_body(body: &[u8]) -> Result<(Self, StateKind), FrameError> {
        let wrong = FrameError::Body(FrameKind::StateQuery);
        let query: Self = archive::read(body).ok_or(wrong)?;
        if query.reserved != [0; 17] {
            return Err(FrameError::Padding);
        }
        Ok((query, StateKind::from_byte(query.kind).ok_or(wrong)?))
    }
}

impl StateHead {
    /// Writes the first bytes of a page.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; STATE_HEAD_BYTES] {
        archive::write(self)
    }

    /// Reads the first bytes of a page.
    ///
    /// # Errors
    /// [`FrameError::Body`] if length, kind or `has_more` are wrong, [`FrameError::Padding`] if a reserved byte is not zero.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, FrameError> {
        let wrong = FrameError::Body(FrameKind::State);
        let head: Self = archive::read(bytes).ok_or(wrong)?;
        if head.reserved != [0; 8] {
            return Err(FrameError::Padding);
        }
        let is_known = StateKind::from_byte(head.kind).is_some() && head.has_more <= 1;
        if is_known { Ok(head) } else { Err(wrong) }
    }
}

/// Reads a page whose rows are of one kind.
///
/// # Errors
/// As [`StateHead::from_slice`]; [`FrameError::Body`] also if it is a page of another kind, or no page at all.
pub fn read_state_page<R: StateRow>(body: &[u8]) -> Result<(StateHead, alloc::vec::Vec<R>), FrameError> {
    let wrong = FrameError::Body(FrameKind::State);
    let (head, rows) = body.split_at_checked(STATE_HEAD_BYTES).ok_or(wrong)?;
    let head = StateHead::from_slice(head)?;
    let rows = rows.chunks(R::KIND.row_bytes()).map(R::read).collect::<Option<_>>();
    match rows {
        Some(rows) if head.kind == R::KIND as u8 => Ok((head, rows)),
        _ => Err(wrong),
    }
}
