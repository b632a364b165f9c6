//! The bytes of records that every request touches, read and written in place.
//!
//! The protocol's bodies do the same for any kind, by way of an archive of the whole body; these few fields are touched
//! millions of times a second. A test compares the two.

use surety_protocol::limits::BODY_BYTES;
use surety_protocol::{ActorId, Amount, Id, Kind, LockBody, MerchantId, QuoteId, Record, Time};

use crate::mix::fold;

/// Offsets within the body.
mod offset {
    pub(super) const LOCK: usize = 0;
    pub(super) const FREED: usize = 16;
    pub(super) const CHANGE_DEADLINE: usize = 32;
    pub(super) const CHANGE_CAPTURE: usize = 52;
    pub(super) const LOCK_DEADLINE: usize = 24;
    pub(super) const LOCK_PRICE_SEQ: usize = 32;
    pub(super) const FLOOR: usize = 0;
    pub(super) const MERCHANT: usize = 16;
    pub(super) const USER: usize = 40;
    pub(super) const LIFE: usize = 48;
    pub(super) const CATEGORY: usize = 52;
    pub(super) const QUOTE: usize = 54;
    pub(super) const VERSION: usize = 54;
    /// Of changes and consumptions.
    pub(super) const ACTOR: usize = 48;
}

/// The lock of a change or a consumption.
#[inline]
pub(crate) fn lock_of(record: &Record) -> Id {
    Id(u128::from_le_bytes(part(record, offset::LOCK)))
}

/// The least that a lock request wants.
#[inline]
pub(crate) fn floor_of(record: &Record) -> Amount {
    Amount(u128::from_le_bytes(part(record, offset::FLOOR)))
}

/// The body of a lock request as it was sent: what the engine fills in is zero.
#[inline]
pub(crate) fn lock_body(record: &Record) -> LockBody {
    LockBody {
        floor: floor_of(record),
        merchant: MerchantId(u64::from_le_bytes(part(record, offset::MERCHANT))),
        deadline: Time::ZERO,
        price_seq: 0,
        user: u64::from_le_bytes(part(record, offset::USER)),
        life_ms: u32::from_le_bytes(part(record, offset::LIFE)),
        category: u16::from_le_bytes(part(record, offset::CATEGORY)),
        quote: QuoteId(u16::from_le_bytes(part(record, offset::QUOTE))),
    }
}

/// The version that a change names.
#[inline]
pub(crate) fn version_of(record: &Record) -> u16 {
    u16::from_le_bytes(part(record, offset::VERSION))
}

#[inline(always)]
fn part<const N: usize>(record: &Record, at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&record.body[at..at + N]);
    bytes
}

/// Completes a change.
#[inline]
pub(crate) fn set_freed(record: &mut Record, freed: i128) {
    put(&mut record.body, offset::FREED, &freed.to_le_bytes());
}

/// Completes a capture or an advice.
#[inline]
pub(crate) fn set_capture(record: &mut Record, freed: i128, settle_by: Time, capture: u16) {
    set_freed(record, freed);
    put(&mut record.body, offset::CHANGE_DEADLINE, &settle_by.0.to_le_bytes());
    put(&mut record.body, offset::CHANGE_CAPTURE, &capture.to_le_bytes());
}

/// Completes a lock.
#[inline]
pub(crate) fn set_lock(record: &mut Record, deadline: Time, price_seq: u64) {
    put(&mut record.body, offset::LOCK_DEADLINE, &deadline.0.to_le_bytes());
    put(&mut record.body, offset::LOCK_PRICE_SEQ, &price_seq.to_le_bytes());
}

/// Notes the principal, as [`Record::set_actor`] does.
#[inline]
pub(crate) fn set_actor(record: &mut Record, kind: Kind, actor: ActorId) {
    match kind {
        Kind::Lock | Kind::Increase | Kind::Lookup => {}
        Kind::Consume => put(&mut record.body, offset::ACTOR, &actor.0.to_le_bytes()),
        _ if kind.changes_a_lock() => put(&mut record.body, offset::ACTOR, &actor.0.to_le_bytes()),
        _ => record.set_actor(kind, actor),
    }
}

#[inline(always)]
fn put(body: &mut [u8; BODY_BYTES], at: usize, bytes: &[u8]) {
    body[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Words of a body.
const WORDS: usize = BODY_BYTES / 8;

/// What of a body the sender fills, in the kinds that come most often; other kinds are taken apart.
const fn sent_bits(kind: Kind) -> Option<[u64; WORDS]> {
    const ALL: u64 = u64::MAX;
    // The last word of a change: life or principal, capture, version.
    const VERSION: u64 = 0xffff_0000_0000_0000;
    const CAPTURE_AND_VERSION: u64 = 0xffff_ffff_0000_0000;
    match kind {
        Kind::Lock => Some([ALL, ALL, ALL, 0, 0, ALL, ALL]),
        Kind::Capture => Some([ALL, ALL, 0, 0, 0, ALL, VERSION]),
        Kind::Release | Kind::Settle | Kind::Refund | Kind::Reverse => {
            Some([ALL, ALL, 0, 0, 0, ALL, CAPTURE_AND_VERSION])
        }
        _ => None,
    }
}

/// Mixes a request as it was sent, word by word. Whatever the engine fills in does not count.
#[inline]
pub(crate) fn fingerprint(record: &Record, kind: Kind) -> u64 {
    match sent_bits(kind) {
        Some(bits) => mix(record, &bits),
        None => mix(&record.as_sent(), &[u64::MAX; WORDS]),
    }
}

#[inline(always)]
fn mix(record: &Record, bits: &[u64; WORDS]) -> u64 {
    const SECRETS: [u64; 4] =
        [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3];
    let halves = |value: u128| {
        let bytes = value.to_le_bytes();
        (word(&bytes[..8]), word(&bytes[8..]))
    };
    let (id_low, id_high) = halves(record.id.0);
    let (amount_low, amount_high) = halves(record.amount.0);
    let flags = record.flags & surety_protocol::Flags::SENDER.0;
    let rest = u64::from(record.tenant.0) << 32 | u64::from(flags) << 16 | u64::from(record.kind) << 8;
    let body = |at: usize| word(&record.body[at * 8..at * 8 + 8]) & bits[at];
    let mut state = fold(id_low ^ SECRETS[0], id_high ^ SECRETS[1]);
    state = fold(amount_low ^ SECRETS[2] ^ state, amount_high ^ SECRETS[3]);
    state = fold(body(0) ^ SECRETS[0] ^ state, body(1) ^ SECRETS[1]);
    state = fold(body(2) ^ SECRETS[2] ^ state, body(3) ^ SECRETS[3]);
    state = fold(body(4) ^ SECRETS[0] ^ state, body(5) ^ SECRETS[1]);
    state = fold(body(6) ^ SECRETS[2] ^ state, record.partition.0 ^ SECRETS[3]);
    fold(state ^ SECRETS[0], rest ^ SECRETS[1])
}

#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::{
        ChangeBody, ConsumeBody, Flags, Origin, PartitionHandle, TenantId, limits::RECORD_BYTES,
    };

    fn record(kind: Kind) -> Record {
        let mut bytes = [0; RECORD_BYTES];
        bytes.iter_mut().zip(1..).for_each(|(byte, n)| *byte = n);
        bytes[RECORD_BYTES - 2] = kind as u8;
        Record::from_bytes(&bytes)
    }

    #[test]
    fn fields_in_place_are_those_of_the_bodies() {
        let mut capture = record(Kind::Capture);
        assert_eq!(lock_of(&capture), capture.body::<ChangeBody>().lock);
        let body = ChangeBody { freed: -7, deadline: Time(8), capture: 9, ..capture.body() };
        set_capture(&mut capture, -7, Time(8), 9);
        assert_eq!(capture.body::<ChangeBody>(), body);
        let mut lock = record(Kind::Lock);
        let body = LockBody { deadline: Time(8), price_seq: 9, ..lock.body() };
        set_lock(&mut lock, Time(8), 9);
        assert_eq!(lock.body::<LockBody>(), body);
        assert_eq!(version_of(&capture), capture.body::<ChangeBody>().version);
        let sent = LockBody { deadline: Time::ZERO, price_seq: 0, ..lock.body() };
        assert_eq!((lock_body(&lock), floor_of(&lock)), (sent, sent.floor));
        let consume = record(Kind::Consume);
        assert_eq!(lock_of(&consume), consume.body::<ConsumeBody>().lock);
        for kind in Kind::ALL {
            let (mut ours, mut theirs) = (record(*kind), record(*kind));
            set_actor(&mut ours, *kind, ActorId(77));
            theirs.set_actor(*kind, ActorId(77));
            assert_eq!(ours, theirs, "{kind}");
        }
    }

    #[test]
    fn every_byte_that_was_sent_counts_and_no_other() {
        let requests = Kind::ALL.iter().copied().filter(|kind| kind.origin() != Origin::Engine);
        for kind in requests.filter(|kind| *kind != Kind::Continuation) {
            let of = |bytes: &[u8; RECORD_BYTES]| fingerprint(&Record::from_bytes(bytes), kind);
            let mut sent = record(kind).as_sent();
            sent.flags = Flags::FINAL.0;
            let bytes = sent.to_bytes();
            for at in (0..RECORD_BYTES - 2).chain([RECORD_BYTES - 1]) {
                let mut other = bytes;
                other[at] ^= 1;
                let is_same_request = Record::from_bytes(&other).as_sent() == sent;
                assert_eq!(of(&other) == of(&bytes), is_same_request, "{kind}, byte {at}");
            }
        }
        let a = Record::new(Kind::Lock, Id(1), PartitionHandle(1), Amount(1), &LockBody::default());
        let b = Record { tenant: TenantId(1), ..a };
        assert_ne!(fingerprint(&a, Kind::Lock), fingerprint(&b, Kind::Lock));
    }
}
