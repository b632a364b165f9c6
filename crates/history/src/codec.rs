//! Bytes of the store: blocks of rows, zones, locks, positions. FORMAT.md is the description.

use std::collections::HashMap;

use ledger::CaptureState;
use surety_protocol::limits::{RECORD_BYTES, RELEASE_GROUP_ENTRIES_MAX};
use surety_protocol::{
    Address, Code, End, Epoch, Id, Kind, MerchantId, PartitionHandle, Record, Seq, ShardId, Time,
};

use crate::bytes::{Reader, put};
use crate::keys::BLOCK_ROWS_MAX;
use crate::row::{Balances, Lock, LockAfter, LockKey, MerchantTotals, Named, Row};

/// Bytes of a row before it is packed.
const STRIDE: usize = 602;
/// Bytes that a block unpacks to, at most: its rows, and the locks that its group releases name.
const UNPACKED_MAX: usize =
    BLOCK_ROWS_MAX as usize * (STRIDE + RELEASE_GROUP_ENTRIES_MAX * NAMED_BYTES_MAX) + 64;
/// Bytes of a lock that a group release names, at most.
const NAMED_BYTES_MAX: usize = 16 + 1 + 1 + 3 + 10 + 20 + 9 * 19;

mod at {
    use core::ops::Range;
    pub(super) const ID: Range<usize> = 0..16;
    pub(super) const AMOUNT: Range<usize> = 16..32;
    pub(super) const RESULT: Range<usize> = 32..48;
    /// The lock, where the kind names one.
    pub(super) const LOCK: Range<usize> = 48..64;
    /// The merchant of a lock request.
    pub(super) const ASKED_MERCHANT: Range<usize> = 64..72;
    pub(super) const PARTITION: Range<usize> = 104..112;
    pub(super) const TIME: Range<usize> = 112..120;
    pub(super) const KIND: usize = 126;
    pub(super) const FLAGS: usize = 128;
    pub(super) const END: usize = 129;
    pub(super) const VERSION: Range<usize> = 130..132;
    pub(super) const MERCHANT: Range<usize> = 132..140;
    pub(super) const PAYEE: Range<usize> = 140..160;
    pub(super) const APPROVED: Range<usize> = 160..176;
    pub(super) const CAPTURED: Range<usize> = 176..192;
    pub(super) const REMAINING: Range<usize> = 192..208;
    pub(super) const BALANCES: Range<usize> = 208..352;
    /// How many rows before this one the request stands that made the lock; 0: not in this block.
    pub(super) const BACK: Range<usize> = 352..354;
    /// What the time of the decision differs by from the record's bytes at that place: none but in continuations.
    pub(super) const ROW_TIME: Range<usize> = 354..362;
    pub(super) const RELEASED: Range<usize> = 362..378;
    pub(super) const EXPIRED: Range<usize> = 378..394;
    pub(super) const PENDING: Range<usize> = 394..410;
    pub(super) const SETTLED: Range<usize> = 410..426;
    pub(super) const REFUNDED: Range<usize> = 426..442;
    pub(super) const OPEN: Range<usize> = 442..458;
    pub(super) const TENANT: Range<usize> = 120..124;
    pub(super) const TOTALS: Range<usize> = 458..602;
}

const HAS_LOCK: u8 = 1;
const HAS_BALANCES: u8 = 2;
const IS_NEW: u8 = 4;
const HAS_TOTALS: u8 = 8;

type Image = [u8; STRIDE];

/// Packs consecutive rows of one shard.
pub(crate) fn encode_block(rows: &[Row]) -> Vec<u8> {
    let first = rows.first().map_or(0, |row| row.seq.0);
    let mut plain = Vec::with_capacity(16 + rows.len() * STRIDE);
    put(&mut plain, u128::from(first));
    put(&mut plain, rows.len() as u128);
    let mut mixer = Mixer::default();
    let images: Vec<Image> = rows.iter().map(|row| mixer.pack(image(row))).collect();
    put_columns(&mut plain, &images);
    for row in rows {
        put(&mut plain, row.named.len() as u128);
        row.named.iter().for_each(|named| put_named(&mut plain, named));
    }
    lz4_flex::compress_prepend_size(&plain)
}

/// The rows of a block; none if the bytes are not one.
pub(crate) fn decode_block(shard: ShardId, bytes: &[u8]) -> Option<Vec<Row>> {
    let size = u32::from_le_bytes(*bytes.first_chunk()?);
    if size as usize > UNPACKED_MAX {
        return None;
    }
    let plain = lz4_flex::decompress_size_prepended(bytes).ok()?;
    let mut reader = Reader(&plain);
    let first = reader.u64()?;
    let len = usize::from(reader.u16()?);
    if len > usize::from(BLOCK_ROWS_MAX) {
        return None;
    }
    let (columns, rest) = reader.0.split_at_checked(len * STRIDE)?;
    reader.0 = rest;
    let mut mixer = Mixer::default();
    let mut rows = Vec::with_capacity(len);
    for (index, packed) in take_columns(columns, len).into_iter().enumerate() {
        let image = mixer.unpack(packed)?;
        rows.push(row(shard, Seq(first.checked_add(index as u64)?), &image)?);
    }
    for row in &mut rows {
        for _ in 0..reader.u16()? {
            row.named.push(take_named(&mut reader)?);
        }
    }
    reader.0.is_empty().then_some(rows)
}

/// Column by column: what hardly changes from row to row packs to nothing. Most columns are zero in every row, and cost nothing either.
fn put_columns(out: &mut Vec<u8>, images: &[Image]) {
    let mut used = [0_u8; STRIDE];
    for image in images {
        used.iter_mut().zip(image).for_each(|(used, byte)| *used |= byte);
    }
    for (column, used) in used.iter().enumerate() {
        match used {
            0 => out.resize(out.len() + images.len(), 0),
            _ => out.extend(images.iter().map(|image| image[column])),
        }
    }
}

fn take_columns(columns: &[u8], len: usize) -> Vec<Image> {
    let mut images = vec![[0; STRIDE]; len];
    for (column, bytes) in columns.chunks_exact(len.max(1)).enumerate() {
        if bytes.iter().fold(0, |used, byte| used | byte) != 0 {
            images.iter_mut().zip(bytes).for_each(|(image, byte)| image[column] = *byte);
        }
    }
    images
}

fn put_named(out: &mut Vec<u8>, named: &Named) {
    out.extend_from_slice(&named.id.0.to_le_bytes());
    let Some(after) = &named.after else { return out.push(0) };
    out.extend([1, after.end as u8]);
    put(out, u128::from(after.version));
    put(out, u128::from(after.merchant.0));
    out.extend_from_slice(&after.payee.0);
    let amounts = [after.approved, after.captured, after.remaining, after.released, after.expired];
    amounts.into_iter().for_each(|amount| put(out, amount));
    let amounts = [after.pending, after.open, after.settled, after.refunded];
    amounts.into_iter().for_each(|amount| put(out, amount));
}

fn take_named(from: &mut Reader<'_>) -> Option<Named> {
    let id = Id(u128::from_le_bytes(from.take()?));
    let after = match from.byte()? {
        0 => None,
        1 => Some(LockAfter {
            end: End::from_byte(from.byte()?)?,
            version: from.u16()?,
            merchant: MerchantId(from.u64()?),
            payee: Address(from.take()?),
            approved: from.number()?,
            captured: from.number()?,
            remaining: from.number()?,
            released: from.number()?,
            expired: from.number()?,
            pending: from.number()?,
            open: from.number()?,
            settled: from.number()?,
            refunded: from.number()?,
            is_new: false,
        }),
        _ => return None,
    };
    Some(Named { id, after })
}

fn image(row: &Row) -> Image {
    let mut image = [0; STRIDE];
    image[..RECORD_BYTES].copy_from_slice(&row.record.to_bytes());
    if let Some(lock) = &row.lock {
        image[at::FLAGS] |= HAS_LOCK | if lock.is_new { IS_NEW } else { 0 };
        image[at::END] = lock.end as u8;
        image[at::VERSION].copy_from_slice(&lock.version.to_le_bytes());
        image[at::MERCHANT].copy_from_slice(&lock.merchant.0.to_le_bytes());
        image[at::PAYEE].copy_from_slice(&lock.payee.0);
        image[at::APPROVED].copy_from_slice(&lock.approved.to_le_bytes());
        image[at::CAPTURED].copy_from_slice(&lock.captured.to_le_bytes());
        image[at::REMAINING].copy_from_slice(&lock.remaining.to_le_bytes());
        image[at::RELEASED].copy_from_slice(&lock.released.to_le_bytes());
        image[at::EXPIRED].copy_from_slice(&lock.expired.to_le_bytes());
        image[at::PENDING].copy_from_slice(&lock.pending.to_le_bytes());
        image[at::SETTLED].copy_from_slice(&lock.settled.to_le_bytes());
        image[at::REFUNDED].copy_from_slice(&lock.refunded.to_le_bytes());
        image[at::OPEN].copy_from_slice(&lock.open.to_le_bytes());
    }
    if let Some(balances) = row.balances {
        image[at::FLAGS] |= HAS_BALANCES;
        for (place, amount) in image[at::BALANCES].chunks_exact_mut(16).zip(balances.to_array()) {
            place.copy_from_slice(&amount.to_le_bytes());
        }
    }
    if let Some(totals) = row.merchant {
        image[at::FLAGS] |= HAS_TOTALS;
        for (place, amount) in image[at::TOTALS].chunks_exact_mut(16).zip(totals.to_array()) {
            place.copy_from_slice(&amount.to_le_bytes());
        }
    }
    let differs = row.time.0 ^ u64::from_le_bytes(bytes(&image, at::TIME));
    image[at::ROW_TIME].copy_from_slice(&differs.to_le_bytes());
    image
}

fn row(shard: ShardId, seq: Seq, image: &Image) -> Option<Row> {
    let flags = image[at::FLAGS];
    let lock = (flags & HAS_LOCK != 0).then_some(()).map(|()| {
        Some(LockAfter {
            end: End::from_byte(image[at::END])?,
            version: u16::from_le_bytes(bytes(image, at::VERSION)),
            merchant: MerchantId(u64::from_le_bytes(bytes(image, at::MERCHANT))),
            payee: Address(bytes(image, at::PAYEE)),
            approved: amount(image, at::APPROVED),
            captured: amount(image, at::CAPTURED),
            remaining: amount(image, at::REMAINING),
            released: amount(image, at::RELEASED),
            expired: amount(image, at::EXPIRED),
            pending: amount(image, at::PENDING),
            open: amount(image, at::OPEN),
            settled: amount(image, at::SETTLED),
            refunded: amount(image, at::REFUNDED),
            is_new: flags & IS_NEW != 0,
        })
    });
    let lock = match lock {
        Some(lock) => Some(lock?),
        None => None,
    };
    let balances = (flags & HAS_BALANCES != 0).then(|| Balances::from_array(amounts(image, at::BALANCES)));
    let totals = || MerchantTotals::from_array(amounts(image, at::TOTALS));
    let merchant = (flags & HAS_TOTALS != 0).then(totals);
    let time = u64::from_le_bytes(bytes(image, at::TIME)) ^ u64::from_le_bytes(bytes(image, at::ROW_TIME));
    let record = Record::from_bytes(&bytes(image, 0..RECORD_BYTES));
    Some(Row { shard, seq, record, time: Time(time), lock, balances, merchant, named: Vec::new() })
}

fn bytes<const N: usize>(image: &Image, range: core::ops::Range<usize>) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&image[range]);
    bytes
}

fn amount(image: &Image, range: core::ops::Range<usize>) -> u128 {
    u128::from_le_bytes(bytes(image, range))
}

fn amounts<const N: usize>(image: &Image, range: core::ops::Range<usize>) -> [u128; N] {
    let mut amounts = [0; N];
    for (amount, place) in amounts.iter_mut().zip(image[range].as_chunks::<16>().0) {
        *amount = u128::from_le_bytes(*place);
    }
    amounts
}

/// Tells each row from what the rows before it let expect. Every step can be taken back with what is known by then.
#[derive(Default)]
struct Mixer {
    /// The rows so far, as they are.
    images: Vec<Image>,
    /// Where a request stands in them.
    requests: HashMap<[u8; 16], usize>,
    /// The last row of a partition that has balances.
    partitions: HashMap<[u8; 8], usize>,
    /// The last row of a tenant's merchant that has totals.
    merchants: HashMap<[u8; 12], usize>,
    /// The payee of a merchant, as of the last row about it.
    payees: HashMap<[u8; 8], [u8; 20]>,
}

impl Mixer {
    fn pack(&mut self, mut image: Image) -> Image {
        let names_lock = names_lock(&image);
        let back = if names_lock { self.back(bytes(&image, at::LOCK)) } else { 0 };
        image[at::BACK].copy_from_slice(&back.to_le_bytes());
        let mut packed = image;
        let before = self.images.last().copied().unwrap_or([0; STRIDE]);
        let request = self.request(back);
        xor(&mut packed, at::ID, &before[at::ID]);
        xor(&mut packed, at::RESULT, &image[at::AMOUNT]);
        if names_lock {
            xor(&mut packed, at::LOCK, &request.unwrap_or(&image)[at::ID]);
        }
        xor(&mut packed, at::PARTITION, &before[at::PARTITION]);
        let time = u64::from_le_bytes(bytes(&image, at::TIME));
        let last = u64::from_le_bytes(bytes(&before, at::TIME));
        packed[at::TIME].copy_from_slice(&time.wrapping_sub(last).to_le_bytes());
        let merchant = self.merchant(&image, request);
        xor(&mut packed, at::MERCHANT, &merchant);
        xor(&mut packed, at::PAYEE, &self.payee(&image));
        let expected =
            request.map_or(bytes::<16>(&image, at::AMOUNT), |request| bytes(request, at::APPROVED));
        xor(&mut packed, at::APPROVED, &expected);
        if request.is_some() {
            xor(&mut packed, at::CAPTURED, &image[at::APPROVED]);
        }
        for (place, expected) in parts(&image) {
            xor(&mut packed, place, &expected.to_le_bytes());
        }
        let open = expected_open(&image);
        xor(&mut packed, at::OPEN, &open.to_le_bytes());
        tell_changes(&mut packed, at::BALANCES, self.balances(&image));
        tell_changes(&mut packed, at::TOTALS, self.totals(&image));
        self.note(image);
        packed
    }

    fn unpack(&mut self, packed: Image) -> Option<Image> {
        let mut image = packed;
        let back = u16::from_le_bytes(bytes(&packed, at::BACK));
        if usize::from(back) > self.images.len() {
            return None;
        }
        let names_lock = names_lock(&image);
        let before = self.images.last().copied().unwrap_or([0; STRIDE]);
        let request = self.request(back);
        xor(&mut image, at::ID, &before[at::ID]);
        let asked = image;
        xor(&mut image, at::RESULT, &asked[at::AMOUNT]);
        if names_lock {
            xor(&mut image, at::LOCK, &request.unwrap_or(&asked)[at::ID]);
        }
        xor(&mut image, at::PARTITION, &before[at::PARTITION]);
        let since = u64::from_le_bytes(bytes(&packed, at::TIME));
        let last = u64::from_le_bytes(bytes(&before, at::TIME));
        image[at::TIME].copy_from_slice(&since.wrapping_add(last).to_le_bytes());
        let merchant = self.merchant(&image, request);
        xor(&mut image, at::MERCHANT, &merchant);
        let payee = self.payee(&image);
        xor(&mut image, at::PAYEE, &payee);
        let expected =
            request.map_or(bytes::<16>(&image, at::AMOUNT), |request| bytes(request, at::APPROVED));
        xor(&mut image, at::APPROVED, &expected);
        if request.is_some() {
            let approved: [u8; 16] = bytes(&image, at::APPROVED);
            xor(&mut image, at::CAPTURED, &approved);
        }
        for (place, expected) in parts(&image) {
            xor(&mut image, place, &expected.to_le_bytes());
        }
        let open = expected_open(&image);
        xor(&mut image, at::OPEN, &open.to_le_bytes());
        let (balances, totals) = (self.balances(&image), self.totals(&image));
        add_changes(&mut image, at::BALANCES, balances);
        add_changes(&mut image, at::TOTALS, totals);
        self.note(image);
        Some(image)
    }

    fn note(&mut self, image: Image) {
        let index = self.images.len();
        self.requests.entry(bytes(&image, at::ID)).or_insert(index);
        if image[at::FLAGS] & HAS_BALANCES != 0 {
            self.partitions.insert(bytes(&image, at::PARTITION), index);
        }
        if image[at::FLAGS] & HAS_TOTALS != 0 {
            self.merchants.insert(merchant_key(&image), index);
        }
        self.payees.insert(bytes(&image, at::MERCHANT), bytes(&image, at::PAYEE));
        self.images.push(image);
    }

    fn back(&self, lock: [u8; 16]) -> u16 {
        let distance = self.requests.get(&lock).map_or(0, |index| self.images.len() - index);
        u16::try_from(distance).unwrap_or(0)
    }

    fn request(&self, back: u16) -> Option<&Image> {
        let index = self.images.len().checked_sub(usize::from(back)).filter(|_| back > 0)?;
        self.images.get(index)
    }

    fn merchant(&self, image: &Image, request: Option<&Image>) -> [u8; 8] {
        match request {
            Some(request) => bytes(request, at::MERCHANT),
            None if image[at::KIND] == Kind::Lock as u8 => bytes(image, at::ASKED_MERCHANT),
            None => [0; 8],
        }
    }

    fn payee(&self, image: &Image) -> [u8; 20] {
        self.payees.get(&bytes(image, at::MERCHANT)).copied().unwrap_or_default()
    }

    fn balances(&self, image: &Image) -> [u128; Balances::LEN] {
        let last = self.partitions.get(&bytes::<8>(image, at::PARTITION));
        // A row without balances has zeros, which are told as they are.
        let last = last.filter(|_| image[at::FLAGS] & HAS_BALANCES != 0);
        last.map_or([0; Balances::LEN], |index| amounts(&self.images[*index], at::BALANCES))
    }

    fn totals(&self, image: &Image) -> [u128; MerchantTotals::LEN] {
        let last = self.merchants.get(&merchant_key(image));
        let last = last.filter(|_| image[at::FLAGS] & HAS_TOTALS != 0);
        last.map_or([0; MerchantTotals::LEN], |index| amounts(&self.images[*index], at::TOTALS))
    }
}

/// What R, V, E and s mostly are, told from the kind, the lock's state, A and C.
fn parts(image: &Image) -> [(core::ops::Range<usize>, u128); 4] {
    let captured = amount(image, at::CAPTURED);
    let rest = amount(image, at::APPROVED).wrapping_sub(captured);
    let end = End::from_byte(image[at::END]);
    let is_settled = end == Some(End::Settled) || image[at::KIND] == Kind::AutoSettle as u8;
    let when = |holds: bool, amount: u128| if holds { amount } else { 0 };
    [
        (at::REMAINING, when(end == Some(End::Live), rest)),
        (at::RELEASED, when(matches!(end, Some(End::Released | End::Final | End::Settled)), rest)),
        (at::EXPIRED, when(end == Some(End::Expired), rest)),
        (at::SETTLED, when(is_settled, captured)),
    ]
}

/// What u mostly is: all that was captured and has not become something else.
fn expected_open(image: &Image) -> u128 {
    let gone = amount(image, at::SETTLED).wrapping_add(amount(image, at::REFUNDED));
    let is_consumed = matches!(Kind::from_byte(image[at::KIND]), Some(Kind::Consume | Kind::AutoConsume));
    if is_consumed { 0 } else { amount(image, at::CAPTURED).wrapping_sub(gone) }
}

/// True if the body begins with the id of a lock. The kind is never packed, so it can be told before anything else is known.
fn names_lock(image: &Image) -> bool {
    Kind::from_byte(image[at::KIND]).is_some_and(|kind| {
        kind.changes_a_lock() || matches!(kind, Kind::Lookup | Kind::Consume | Kind::AutoConsume)
    })
}

fn merchant_key(image: &Image) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&image[at::MERCHANT]);
    key[8..].copy_from_slice(&image[at::TENANT]);
    key
}

fn tell_changes<const N: usize>(image: &mut Image, range: core::ops::Range<usize>, before: [u128; N]) {
    for (place, before) in image[range].as_chunks_mut::<16>().0.iter_mut().zip(before) {
        *place = zigzag(u128::from_le_bytes(*place).wrapping_sub(before).cast_signed()).to_le_bytes();
    }
}

fn add_changes<const N: usize>(image: &mut Image, range: core::ops::Range<usize>, before: [u128; N]) {
    for (place, before) in image[range].as_chunks_mut::<16>().0.iter_mut().zip(before) {
        *place = before.wrapping_add(unzigzag(u128::from_le_bytes(*place)).cast_unsigned()).to_le_bytes();
    }
}

fn xor(image: &mut Image, range: core::ops::Range<usize>, with: &[u8]) {
    image[range].iter_mut().zip(with).for_each(|(byte, with)| *byte ^= with);
}

const fn zigzag(number: i128) -> u128 {
    ((number << 1) ^ (number >> 127)).cast_unsigned()
}

const fn unzigzag(number: u128) -> i128 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// What is known of a block without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    pub(crate) rows: u16,
    pub(crate) time_min: Time,
    pub(crate) time_max: Time,
    pub(crate) amount_min: u128,
    pub(crate) amount_max: u128,
}

impl Zone {
    /// The zone of rows; times rise within a shard, amounts are those of all but continuations.
    pub(crate) fn of(rows: &[Row]) -> Self {
        let amounts = || rows.iter().filter(|row| !row.is_part()).map(|row| row.record.amount.0);
        Self {
            rows: u16::try_from(rows.len()).unwrap_or(u16::MAX),
            time_min: rows.first().map_or(Time::ZERO, |row| row.time),
            time_max: rows.last().map_or(Time::ZERO, |row| row.time),
            amount_min: amounts().min().unwrap_or(u128::MAX),
            amount_max: amounts().max().unwrap_or(0),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        put(&mut out, u128::from(self.rows));
        put(&mut out, u128::from(self.time_min.0));
        put(&mut out, u128::from(self.time_max.0));
        put(&mut out, self.amount_min);
        put(&mut out, self.amount_max);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let zone = Self {
            rows: reader.u16()?,
            time_min: Time(reader.u64()?),
            time_max: Time(reader.u64()?),
            amount_min: reader.number()?,
            amount_max: reader.number()?,
        };
        reader.0.is_empty().then_some(zone)
    }
}

/// How far a shard is indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The next record that is wanted.
    pub next: Seq,
    /// The time of the last one.
    pub time: Time,
    /// The epoch of the last record that was taken; 0 if it is not known.
    pub epoch: Epoch,
    /// The state hash of the ledger after the last record.
    pub state_hash: u128,
}

impl Position {
    /// Nothing is indexed.
    pub const START: Self = Self { next: Seq(1), time: Time::ZERO, epoch: Epoch(0), state_hash: 0 };

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        put(&mut out, u128::from(self.next.0));
        put(&mut out, u128::from(self.time.0));
        put(&mut out, u128::from(self.epoch.0));
        out.extend_from_slice(&self.state_hash.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let position = Self {
            next: Seq(reader.u64()?),
            time: Time(reader.u64()?),
            epoch: Epoch(reader.number()?.try_into().ok()?),
            state_hash: u128::from_le_bytes(reader.take()?),
        };
        (reader.0.is_empty() && position.next > Seq(0)).then_some(position)
    }
}

pub(crate) fn encode_lock(lock: &Lock) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend([
        lock.end as u8,
        lock.code as u8,
        u8::from(lock.is_certified) | u8::from(lock.is_called) << 1,
    ]);
    out.extend_from_slice(&lock.payee_bytes());
    for number in [
        u128::from(lock.merchant.0),
        u128::from(lock.created.0),
        u128::from(lock.seq.0),
        // It follows the creation, mostly at once.
        u128::from(lock.changed.0.wrapping_sub(lock.created.0)),
        u128::from(lock.changed_seq.0.wrapping_sub(lock.seq.0)),
        u128::from(lock.deadline.0.wrapping_sub(lock.created.0)),
        lock.asked,
        u128::from(lock.quote),
        u128::from(lock.category),
        u128::from(lock.user),
        u128::from(lock.version),
        lock.approved ^ lock.asked,
        lock.headroom,
        lock.captured ^ lock.approved,
        lock.released,
        lock.expired,
        lock.remaining,
        lock.pending,
    ] {
        put(&mut out, number);
    }
    for capture in &lock.captures {
        put(&mut out, u128::from(capture.index));
        for part in [capture.open, capture.settled, capture.refunded, capture.consumed] {
            put(&mut out, part);
        }
        put(&mut out, u128::from(capture.settle_by.0.wrapping_sub(lock.created.0)));
    }
    out
}

pub(crate) fn decode_lock(key: LockKey, bytes: &[u8]) -> Option<Lock> {
    let mut reader = Reader(bytes);
    let [end, code, flags] = reader.take()?;
    let payee = match reader.byte()? {
        0 => Address([0; 20]),
        1 => Address(reader.take()?),
        _ => return None,
    };
    let merchant = MerchantId(reader.u64()?);
    let created = reader.u64()?;
    let seq = reader.u64()?;
    let changed = Time(reader.u64()?.wrapping_add(created));
    let changed_seq = Seq(reader.u64()?.wrapping_add(seq));
    let deadline = Time(reader.u64()?.wrapping_add(created));
    let asked = reader.number()?;
    let (quote, category, user, version) = (reader.u16()?, reader.u16()?, reader.u64()?, reader.u16()?);
    let approved = reader.number()? ^ asked;
    let headroom = reader.number()?;
    let captured = reader.number()? ^ approved;
    let mut lock = Lock {
        key,
        merchant,
        payee,
        created: Time(created),
        seq: Seq(seq),
        changed,
        changed_seq,
        asked,
        quote,
        category,
        user,
        deadline,
        end: End::from_byte(end)?,
        code: Code::from_byte(code)?,
        version,
        approved,
        headroom,
        captured,
        released: reader.number()?,
        expired: reader.number()?,
        remaining: reader.number()?,
        pending: reader.number()?,
        is_certified: flags & 1 != 0,
        is_called: flags & 2 != 0,
        captures: Vec::new(),
    };
    while !reader.0.is_empty() {
        lock.captures.push(CaptureState {
            index: reader.u16()?,
            open: reader.number()?,
            settled: reader.number()?,
            refunded: reader.number()?,
            consumed: reader.number()?,
            settle_by: Time(reader.u64()?.wrapping_add(created)),
        });
    }
    Some(lock)
}

impl Lock {
    fn payee_bytes(&self) -> Vec<u8> {
        if self.payee == Address([0; 20]) { vec![0] } else { [&[1][..], &self.payee.0].concat() }
    }

    pub(crate) const fn shard(&self) -> ShardId {
        PartitionHandle(self.key.partition.0).shard()
    }
}

pub(crate) fn encode_merchant(totals: &MerchantTotals) -> Vec<u8> {
    encode_amounts(totals.to_array())
}

pub(crate) fn decode_merchant(bytes: &[u8]) -> Option<MerchantTotals> {
    decode_amounts(bytes).map(MerchantTotals::from_array)
}

pub(crate) fn encode_money(money: &Balances) -> Vec<u8> {
    encode_amounts(money.to_array())
}

pub(crate) fn decode_money(bytes: &[u8]) -> Option<Balances> {
    decode_amounts(bytes).map(Balances::from_array)
}

fn encode_amounts<const N: usize>(amounts: [u128; N]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    amounts.into_iter().for_each(|amount| put(&mut out, amount));
    out
}

fn decode_amounts<const N: usize>(bytes: &[u8]) -> Option<[u128; N]> {
    let mut reader = Reader(bytes);
    let mut amounts = [0; N];
    for amount in &mut amounts {
        *amount = reader.number()?;
    }
    reader.0.is_empty().then_some(amounts)
}

/// Units of a supplier, and those of them that are queued.
pub(crate) fn encode_stake(units: u128, queued: u128) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    put(&mut out, units);
    put(&mut out, queued);
    out
}

pub(crate) fn decode_stake(bytes: &[u8]) -> Option<(u128, u128)> {
    let mut reader = Reader(bytes);
    let stake = (reader.number()?, reader.number()?);
    reader.0.is_empty().then_some(stake)
}
