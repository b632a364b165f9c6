//! The record: 128 bytes that are a request on the wire, and the same request with its outcome in the log.
//!
//! `WIRE.md` has the byte tables.

use rkyv::{Archive, Deserialize, Serialize};

use crate::archive;
use crate::limits::{AMOUNT_MAX, BODY_BYTES, CONTINUATION_BYTES, RECORD_BYTES, UNITS_MAX};
use crate::{
    ActorId, Address, Amount, AssetId, Code, Flags, Id, Kind, MerchantId, Origin, PartitionHandle, QuoteId,
    Seq, TenantId, Time,
};

/// A request, or the log's record of it.
///
/// The fields marked *engine* are zero on the wire and filled by the engine. Kind and code are bytes here because a
/// record is what arrived, not yet what is valid; see [`Record::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[repr(C)]
pub struct Record {
    /// Names the request; a lock is named by the id of its request.
    pub id: Id,
    /// What is asked, in base units (of the quote currency for a lock in one).
    pub amount: Amount,
    /// *Engine*: what was moved. Its sense belongs to the kind; see the table in `WIRE.md`.
    pub result: Amount,
    /// The kind's own part.
    pub body: [u8; BODY_BYTES],
    /// Where it happens.
    pub partition: PartitionHandle,
    /// *Engine*: the moment of the decision.
    pub time: Time,
    /// Whose id it is. 0 on the wire means "mine"; the operator's settlers and admins (tenant 0) may name another.
    pub tenant: TenantId,
    /// Marks of sender (low byte) and engine (high byte).
    pub flags: u16,
    /// A [`Kind`].
    pub kind: u8,
    /// *Engine*: a [`Code`].
    pub code: u8,
}

/// A request as it travels; the same bytes as its record.
pub type Request = Record;

const _: () = assert!(size_of::<ArchivedRecord>() == RECORD_BYTES);
const _: () = assert!(size_of::<Record>() == RECORD_BYTES);
const BODY_OFFSET: usize = core::mem::offset_of!(ArchivedRecord, body);

/// A kind-specific part of a record, at offset 48.
pub trait Body: Sized {
    /// Reads the part. Every pattern of bytes has a reading.
    fn from_bytes(bytes: &[u8; BODY_BYTES]) -> Self;
    /// Writes the part.
    fn to_bytes(&self) -> [u8; BODY_BYTES];
}

macro_rules! bodies {
    ($($name:ident),*) => {$(
        const _: () = assert!(size_of::<<$name as Archive>::Archived>() == BODY_BYTES);
        impl Body for $name {
            #[inline]
            fn from_bytes(bytes: &[u8; BODY_BYTES]) -> Self {
                match archive::read(bytes) {
                    Some(body) => body,
                    // Integers and byte arrays only: there is no invalid pattern.
                    None => Self::default(),
                }
            }
            #[inline]
            fn to_bytes(&self) -> [u8; BODY_BYTES] {
                archive::write(self)
            }
        }
    )*};
}

/// [`Kind::Lock`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LockBody {
    /// The least that is worth locking; 0 means all or nothing.
    pub floor: Amount,
    /// Who is guaranteed.
    pub merchant: MerchantId,
    /// *Engine*: when the lock ends by itself.
    pub deadline: Time,
    /// *Engine*: the price record that converted the amount; 0 for none.
    pub price_seq: u64,
    /// The sender's own, carried and not read.
    pub user: u64,
    /// Wanted life in milliseconds; 0 takes the policy's default.
    pub life_ms: u32,
    /// Merchant category code (ISO 18245).
    pub category: u16,
    /// Currency of `amount`; 0 for the collateral itself.
    pub quote: QuoteId,
}

/// [`Kind::Increase`], [`Kind::Decrease`], [`Kind::Capture`], [`Kind::Release`], [`Kind::Reverse`], [`Kind::Refund`],
/// [`Kind::Advice`], [`Kind::Lookup`], [`Kind::Settle`], [`Kind::Expire`], [`Kind::AutoSettle`], [`Kind::Mature`] and
/// the guarantees: something that happens to a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ChangeBody {
    /// The lock, or the id looked up.
    pub lock: Id,
    /// *Engine*: what went from locked (held, captured, pending) to free; negative when it was drawn from free.
    pub freed: i128,
    /// *Engine*: the lock's moved deadline (increase), the capture's settle-by time (capture, advice).
    pub deadline: Time,
    /// The sender's own, carried and not read.
    pub user: u64,
    /// Increase: wanted life from now in milliseconds, 0 leaves the deadline. Else the principal, by the engine.
    pub life_ms_or_actor: u32,
    /// The capture's index; [`ALL_CAPTURES`] for the lock as a whole. *Engine* fills it for captures and advices.
    pub capture: u16,
    /// The version that the sender has seen; 0 where it does not matter. An increase must name it.
    pub version: u16,
}

/// In [`ChangeBody::capture`] and [`ConsumeBody::capture`]: the lock itself rather than one of its captures.
pub const ALL_CAPTURES: u16 = u16::MAX;

/// [`Kind::Consume`] and [`Kind::AutoConsume`]: collateral is owed to the merchant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ConsumeBody {
    /// The lock.
    pub lock: Id,
    /// *Engine*: what went from locked to free beside the payment.
    pub freed: i128,
    /// *Engine*: who is paid: the lock's own merchant.
    pub merchant: MerchantId,
    /// The sender's own, carried and not read.
    pub user: u64,
    /// *Engine*: the principal.
    pub actor: ActorId,
    /// The capture's index; [`ALL_CAPTURES`] takes the amount from the held part.
    pub capture: u16,
    /// Zero.
    pub reserved: u16,
}

/// [`Kind::Deposit`], [`Kind::Reward`], [`Kind::Withdraw`] and [`Kind::WithdrawPaid`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StakeBody {
    /// *Engine*: units minted or burned. For a withdrawal the units are the record's amount.
    pub units: u128,
    /// Who stakes; zero for a reward.
    pub supplier: Address,
    /// *Engine*: the principal.
    pub actor: ActorId,
    /// Deposit and reward: the chain's own number, accepted once per partition.
    pub nonce: u64,
    /// *Engine*: the moment a withdrawal is due.
    pub due: Time,
}

/// [`Kind::Freeze`], [`Kind::Unfreeze`], [`Kind::Reconcile`], [`Kind::Cover`], [`Kind::WriteOff`], [`Kind::BatchFinal`],
/// [`Kind::Deficit`], [`Kind::RiskCap`], [`Kind::Start`], [`Kind::Checkpoint`] and the heads of long records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ControlBody {
    /// Checkpoint: the state hash. Start: the engine id. Deficit: which guarantee the chain has paid for no lock, else 0.
    pub reference: u128,
    /// Batch: its number. Start: the epoch. Long record: bytes of payload. Release group: the merchant in `user`.
    pub number: u64,
    /// Risk cap: until when it holds. Start: the span for which ids are remembered.
    pub until: Time,
    /// Freeze, reconcile: the operator's own code. Release group: the merchant.
    pub user: u64,
    /// *Engine*: the principal.
    pub actor: ActorId,
    /// Zero.
    pub reserved: [u8; 12],
}

/// [`Kind::Price`]; the price is the record's amount: quote base units for 10^18 collateral base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PriceBody {
    /// What is priced.
    pub asset: AssetId,
    /// In which currency.
    pub quote: QuoteId,
    /// Zero.
    pub reserved_a: u16,
    /// Collateral per value in basis points; 0 takes each policy's creation ratio.
    pub ratio_bps: u32,
    /// *Engine*: the principal.
    pub actor: ActorId,
    /// When the price was observed.
    pub observed: Time,
    /// Zero.
    pub reserved: [u8; 32],
}

/// [`Kind::PartitionCreate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PartitionBody {
    /// The on-chain id: `prefix4 | sub8 | owner20`.
    pub onchain: [u8; 32],
    /// The collateral.
    pub asset: AssetId,
    /// *Engine*: the principal.
    pub actor: ActorId,
    /// 1: keep the open value of each merchant, which a limit per merchant needs. For ever.
    pub track_merchants: u8,
    /// Zero.
    pub reserved: [u8; 15],
}

/// [`Kind::TenantSet`]; sent to every shard, the quotas hold per shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TenantBody {
    /// Which tenant.
    pub tenant: TenantId,
    /// *Engine*: the principal.
    pub actor: ActorId,
    /// Locks kept, open and finished.
    pub locks_max: u64,
    /// Ids remembered.
    pub ids_max: u64,
    /// Tombstones remembered.
    pub tombstones_max: u64,
    /// Advices and reversals remembered.
    pub advices_max: u64,
    /// Requests per second; 0 is no limit.
    pub rate_per_s: u32,
    /// Unanswered requests; 0 is no limit.
    pub in_flight_max: u32,
    /// 1 admits the tenant, 0 shuts it out.
    pub enabled: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Open locks; 0 is no limit. Since version 2.
    pub open_locks_max: u32,
}

/// [`Kind::Grant`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct GrantBody {
    /// Who gets the rights.
    pub tenant: TenantId,
    /// [`crate::Rights`]; 0 takes all away.
    pub rights: u32,
    /// *Engine*: the principal.
    pub actor: ActorId,
    /// Zero.
    pub reserved_a: [u8; 12],
    /// Zero.
    pub reserved: [u8; 32],
}

/// [`Kind::MerchantSet`]; the merchant belongs to the record's tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct MerchantBody {
    /// Which merchant.
    pub merchant: MerchantId,
    /// Who is paid on chain.
    pub payee: Address,
    /// Whose signature releases certified locks.
    pub release_key: Address,
    /// *Engine*: the principal.
    pub actor: ActorId,
    /// 1 admits the merchant, 0 shuts it out.
    pub enabled: u32,
}

/// [`Kind::Loss`]: the facts of a loss that an operator has accepted. The engine's own, right behind its [`Kind::Start`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LossBody {
    /// Names the life that begins: drawn at random, so that two restores of one backup differ.
    pub life: u128,
    /// The last record that is kept; what came after it is lost.
    pub after: Seq,
    /// When that was logged: nothing earlier is lost.
    pub from: Time,
    /// Ids up to this time may have been decided by the life that is lost.
    pub until: Time,
    /// How far every lock's version leaps.
    pub version_leap: u16,
    /// How many indices of captures are passed over.
    pub capture_leap: u16,
    /// Zero.
    pub reserved: [u8; 12],
}

bodies!(
    LockBody,
    ChangeBody,
    ConsumeBody,
    StakeBody,
    ControlBody,
    PriceBody,
    PartitionBody,
    TenantBody,
    GrantBody,
    MerchantBody,
    LossBody
);

/// Why a frame's record is not a request at all. The connection that sent it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No such kind, or one that only the engine writes.
    #[error("unknown kind {0}")]
    UnknownKind(u8),
    /// A mark without a meaning.
    #[error("unknown flags {0:#06x}")]
    UnknownFlags(u16),
    /// A reserved byte is not zero.
    #[error("non-zero padding in a {0} request")]
    Padding(Kind),
    /// A continuation without its head, or a head with too few of them.
    #[error("a long request is cut: {expected} continuations expected, {found} found")]
    Cut {
        /// What the head announces.
        expected: usize,
        /// What follows it.
        found: usize,
    },
}

impl Record {
    /// An empty request.
    #[must_use]
    pub fn new<B: Body>(kind: Kind, id: Id, partition: PartitionHandle, amount: Amount, body: &B) -> Self {
        Self {
            id,
            amount,
            result: Amount::ZERO,
            body: body.to_bytes(),
            partition,
            time: Time::ZERO,
            tenant: TenantId(0),
            flags: 0,
            kind: kind as u8,
            code: 0,
        }
    }

    /// The same with marks.
    #[must_use]
    pub const fn with_flags(mut self, flags: Flags) -> Self {
        self.flags |= flags.0;
        self
    }

    /// Views 128 bytes as a record, without a copy.
    #[must_use]
    #[inline]
    pub fn view(bytes: &[u8; RECORD_BYTES]) -> &ArchivedRecord {
        match archive::view::<ArchivedRecord>(bytes) {
            Some(record) => record,
            None => unreachable!("128 bytes of integers have no invalid pattern"),
        }
    }

    /// Reads 128 bytes.
    #[must_use]
    #[inline]
    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Self {
        match archive::read(bytes) {
            Some(record) => record,
            None => unreachable!("128 bytes of integers have no invalid pattern"),
        }
    }

    /// Writes 128 bytes.
    #[must_use]
    #[inline]
    pub fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        archive::write(self)
    }

    /// The kind-specific part.
    #[must_use]
    #[inline]
    pub fn body<B: Body>(&self) -> B {
        B::from_bytes(&self.body)
    }

    /// Replaces the kind-specific part.
    #[inline]
    pub fn set_body<B: Body>(&mut self, body: &B) {
        self.body = body.to_bytes();
    }

    /// The lock that the request makes or names; zero for none. For logs and traces.
    #[must_use]
    pub fn lock(&self) -> Id {
        match self.kind() {
            Some(Kind::Lock) => self.id,
            // Its own id is the lock's, unless it names one.
            Some(Kind::Advice) => match self.body::<ChangeBody>().lock {
                Id(0) => self.id,
                named => named,
            },
            Some(
                Kind::Increase
                | Kind::Decrease
                | Kind::Capture
                | Kind::Release
                | Kind::Reverse
                | Kind::Refund
                | Kind::Lookup
                | Kind::Settle
                | Kind::GuaranteeCalled
                | Kind::GuaranteePaid
                | Kind::GuaranteeDismissed
                | Kind::Expire
                | Kind::AutoSettle
                | Kind::Mature,
            ) => self.body::<ChangeBody>().lock,
            Some(Kind::Consume | Kind::AutoConsume) => self.body::<ConsumeBody>().lock,
            _ => Id(0),
        }
    }

    /// The kind; `None` for a byte without a meaning.
    #[must_use]
    pub const fn kind(&self) -> Option<Kind> {
        Kind::from_byte(self.kind)
    }

    /// The outcome.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        Code::from_byte(self.code)
    }

    /// The marks.
    #[must_use]
    pub const fn flags(&self) -> Flags {
        Flags(self.flags)
    }

    /// True if another request of the frame belongs to the same chain and follows.
    #[must_use]
    pub const fn is_linked(&self) -> bool {
        self.flags().has(Flags::LINKED)
    }

    /// Continuations that must follow this head; 0 for a record that stands alone.
    #[must_use]
    pub fn continuations(&self) -> usize {
        self.kind().map_or(0, |kind| continuations(kind, &self.body))
    }

    /// Checks what makes the bytes a request: a kind that may arrive on the wire, known marks, zero padding.
    ///
    /// # Errors
    /// The reason to close the connection.
    #[inline]
    pub fn check(&self) -> Result<Kind, RecordError> {
        check(self.kind, self.code, self.flags, self.tenant.0, &self.body)
    }

    /// True if every field that the engine fills is zero and every amount is one that a request may carry.
    #[must_use]
    #[inline]
    pub fn is_well_formed(&self, kind: Kind) -> bool {
        if kind == Kind::Continuation {
            return true;
        }
        let sender_flags = self.flags & !Flags::SENDER.0 == 0;
        let common = self.result == Amount::ZERO && self.time == Time::ZERO && self.code == 0 && sender_flags;
        let amount_max = if kind == Kind::Withdraw { UNITS_MAX } else { AMOUNT_MAX };
        let amounts = self.amount.0 <= amount_max
            && (kind != Kind::Lock || self.body::<LockBody>().floor.is_in_range());
        common && amounts && are_zero(&self.body, Places::of(kind).engine)
    }

    /// The request as it was sent: every field that the engine fills is zero again.
    ///
    /// Two requests under one id are the same request if and only if these are equal.
    #[must_use]
    #[inline]
    pub fn as_sent(&self) -> Self {
        let mut sent = *self;
        let Some(kind) = self.kind() else { return sent };
        if kind == Kind::Continuation {
            // All payload: nothing of it is the engine's.
            return sent;
        }
        sent.result = Amount::ZERO;
        sent.time = Time::ZERO;
        sent.code = 0;
        sent.flags &= Flags::SENDER.0;
        for (from, to) in Places::of(kind).engine {
            sent.body[*from..*to].fill(0);
        }
        sent
    }

    /// Notes who sent the request, in kinds that keep it. Locks and increases are attributed to their tenant.
    pub fn set_actor(&mut self, kind: Kind, actor: ActorId) {
        macro_rules! stamp {
            ($body:ty) => {{
                let mut body = self.body::<$body>();
                body.actor = actor;
                self.set_body(&body);
            }};
        }
        match kind {
            Kind::Lock | Kind::Increase | Kind::Continuation | Kind::Lookup | Kind::Loss => {}
            Kind::Consume | Kind::AutoConsume => stamp!(ConsumeBody),
            Kind::Deposit | Kind::Reward | Kind::Withdraw | Kind::WithdrawPaid => stamp!(StakeBody),
            Kind::Price => stamp!(PriceBody),
            Kind::PartitionCreate => stamp!(PartitionBody),
            Kind::TenantSet => stamp!(TenantBody),
            Kind::Grant => stamp!(GrantBody),
            Kind::MerchantSet => stamp!(MerchantBody),
            _ if kind.changes_a_lock() => {
                let mut body = self.body::<ChangeBody>();
                body.life_ms_or_actor = actor.0;
                self.set_body(&body);
            }
            _ => stamp!(ControlBody),
        }
    }
}

/// Where in a body the bytes are that a request leaves zero.
struct Places {
    /// Reserved: anything else closes the connection.
    reserved: &'static [(usize, usize)],
    /// The engine's: anything else is malformed.
    engine: &'static [(usize, usize)],
}

impl Places {
    /// The tables of `WIRE.md`, less 48.
    const fn of(kind: Kind) -> Self {
        let (reserved, engine): (&[_], &[_]) = match kind {
            Kind::Lock => (&[], &[(24, 40)]),
            Kind::Increase => (&[], &[(16, 40), (52, 54)]),
            Kind::Capture | Kind::Advice => (&[], &[(16, 40), (48, 54)]),
            Kind::Consume | Kind::AutoConsume => (&[(54, 56)], &[(16, 40), (48, 52)]),
            Kind::Deposit | Kind::Reward | Kind::Withdraw | Kind::WithdrawPaid => {
                (&[], &[(0, 16), (36, 40), (48, 56)])
            }
            Kind::Price => (&[(6, 8), (24, 56)], &[(12, 16)]),
            Kind::PartitionCreate => (&[(41, 56)], &[(36, 40)]),
            Kind::TenantSet => (&[(49, 52)], &[(4, 8)]),
            Kind::Grant => (&[(12, 56)], &[(8, 12)]),
            Kind::MerchantSet => (&[], &[(48, 52)]),
            Kind::Continuation => (&[], &[]),
            Kind::Loss => (&[(44, 56)], &[(0, 44)]),
            _ if kind.changes_a_lock() => (&[], &[(16, 40), (48, 52)]),
            _ => (&[(44, 56)], &[(40, 44)]),
        };
        Self { reserved, engine }
    }
}

#[inline]
fn are_zero(body: &[u8; BODY_BYTES], places: &[(usize, usize)]) -> bool {
    const ZEROS: [u8; BODY_BYTES] = [0; BODY_BYTES];
    places.iter().all(|(from, to)| body[*from..*to] == ZEROS[..to - from])
}

#[inline]
fn check(kind: u8, code: u8, flags: u16, tenant: u32, body: &[u8; BODY_BYTES]) -> Result<Kind, RecordError> {
    let unknown = RecordError::UnknownKind(kind);
    let kind = Kind::from_byte(kind).ok_or(unknown)?;
    match kind.origin() {
        Origin::Engine => Err(unknown),
        // The payload fills 120 bytes; behind it stand only the kind and zeros.
        Origin::Part if tenant == 0 && flags == 0 && code == 0 => Ok(kind),
        Origin::Part => Err(RecordError::Padding(kind)),
        _ if flags & !Flags::KNOWN.0 != 0 => Err(RecordError::UnknownFlags(flags)),
        _ if are_zero(body, Places::of(kind).reserved) => Ok(kind),
        _ => Err(RecordError::Padding(kind)),
    }
}

#[inline]
fn continuations(kind: Kind, body: &[u8; BODY_BYTES]) -> usize {
    if !kind.is_long() {
        return 0;
    }
    let bytes = usize::try_from(ControlBody::from_bytes(body).number).unwrap_or(usize::MAX);
    bytes.div_ceil(CONTINUATION_BYTES)
}

/// What the grouping of a frame needs to know of a record, read without a copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The kind, which may arrive on the wire.
    pub(crate) kind: Kind,
    /// See [`Record::continuations`].
    pub(crate) continuations: usize,
    /// See [`Record::is_linked`].
    pub(crate) is_linked: bool,
}

impl Shape {
    /// Reads and checks 128 bytes; see [`Record::check`].
    #[inline]
    pub(crate) fn read(bytes: &[u8; RECORD_BYTES]) -> Result<Self, RecordError> {
        let [rest @ .., t0, t1, t2, t3, f0, f1, kind, code] = bytes;
        let Some((_, body)) = rest[..BODY_OFFSET + BODY_BYTES].split_last_chunk::<BODY_BYTES>() else {
            unreachable!("a body lies within its record")
        };
        let flags = u16::from_le_bytes([*f0, *f1]);
        let kind = check(*kind, *code, flags, u32::from_le_bytes([*t0, *t1, *t2, *t3]), body)?;
        let is_linked = kind != Kind::Continuation && Flags(flags).has(Flags::LINKED);
        Ok(Self { kind, continuations: continuations(kind, body), is_linked })
    }
}
