//! Bytes of the store: blocks of rows, zones, locks, positions. FORMAT.md is the description.

use ledger::CaptureState;
use rustc_hash::FxHashMap;
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
    BLOCK_ROWS_MAX as usize * (STRIDE + RELEASE_GROUP_ENTRIES_MAX * NAMED_BYTES_MAX) + COLUMNS_BYTES + 64;
/// Bytes that say which columns are there.
const COLUMNS_BYTES: usize = STRIDE.div_ceil(8);
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
    let images: Vec<Image> = rows.iter().map(image).collect();
    put_columns(&mut plain, &pack(&images));
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
    let mut images = take_columns(&mut reader, len)?;
    unpack(&mut images)?;
    let mut rows = Vec::with_capacity(len);
    for (index, image) in images.iter().enumerate() {
        rows.push(row(shard, Seq(first.checked_add(index as u64)?), image)?);
    }
    for row in &mut rows {
        for _ in 0..reader.u16()? {
            row.named.push(take_named(&mut reader)?);
        }
    }
    reader.0.is_empty().then_some(rows)
}

/// Column by column: what hardly changes from row to row packs to nothing. Most columns are zero in every row, and are left out: a bit for
/// each says which are there.
fn put_columns(out: &mut Vec<u8>, images: &[Image]) {
    let mut used = [0_u8; STRIDE];
    for image in images {
        used.iter_mut().zip(image).for_each(|(used, byte)| *used |= byte);
    }
    let mut is_there = [0_u8; COLUMNS_BYTES];
    for (column, _) in used.iter().enumerate().filter(|(_, used)| **used != 0) {
        is_there[column / 8] |= 1 << (column % 8);
    }
    out.extend_from_slice(&is_there);
    for (column, _) in used.iter().enumerate().filter(|(_, used)| **used != 0) {
        out.extend(images.iter().map(|image| image[column]));
    }
}

fn take_columns(from: &mut Reader<'_>, len: usize) -> Option<Vec<Image>> {
    let is_there: [u8; COLUMNS_BYTES] = from.take()?;
    let mut images = vec![NOTHING; len];
    for column in (0..8 * is_there.len()).filter(|column| is_there[column / 8] & 1 << (column % 8) != 0) {
        let (bytes, rest) = from.0.split_at_checked(len).filter(|_| column < STRIDE)?;
        from.0 = rest;
        images.iter_mut().zip(bytes).for_each(|(image, byte)| image[column] = *byte);
    }
    Some(images)
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
    let differs = row.time.0 ^ number(&image, at::TIME);
    image[at::ROW_TIME].copy_from_slice(&differs.to_le_bytes());
    image
}

fn row(shard: ShardId, seq: Seq, image: &Image) -> Option<Row> {
    let flags = image[at::FLAGS];
    let lock = (flags & HAS_LOCK != 0).then_some(()).map(|()| {
        Some(LockAfter {
            end: End::from_byte(image[at::END])?,
            version: u16::from_le_bytes(bytes(image, at::VERSION)),
            merchant: MerchantId(number(image, at::MERCHANT)),
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
    let time = number(image, at::TIME) ^ number(image, at::ROW_TIME);
    let record = Record::from_bytes(&bytes(image, 0..RECORD_BYTES));
    Some(Row { shard, seq, record, time: Time(time), lock, balances, merchant, named: Vec::new() })
}

fn bytes<const N: usize>(image: &Image, range: core::ops::Range<usize>) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&image[range]);
    bytes
}

fn place<const N: usize>(image: &Image, range: core::ops::Range<usize>) -> &[u8; N] {
    image[range].first_chunk().unwrap_or(&[0; N])
}

fn number(image: &Image, range: core::ops::Range<usize>) -> u64 {
    u64::from_le_bytes(bytes(image, range))
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

/// Tells each row from what the rows before it let expect.
fn pack(images: &[Image]) -> Vec<Image> {
    let mut seen = Seen::default();
    let mut requests: FxHashMap<u128, usize> = FxHashMap::default();
    let mut all = Vec::with_capacity(images.len());
    for (index, image) in images.iter().enumerate() {
        let known = &images[..index];
        let names_lock = names_lock(image);
        let mut packed = *image;
        let made_at = requests.get(&amount(image, at::LOCK)).filter(|_| names_lock);
        let back = made_at.and_then(|made_at| u16::try_from(index - made_at).ok()).unwrap_or(0);
        packed[at::BACK].copy_from_slice(&back.to_le_bytes());
        let before = known.last().unwrap_or(&NOTHING);
        let request = request(known, back);
        xor(&mut packed, at::ID, &before[at::ID]);
        xor(&mut packed, at::RESULT, &image[at::AMOUNT]);
        if names_lock {
            xor(&mut packed, at::LOCK, &request.unwrap_or(image)[at::ID]);
        }
        xor(&mut packed, at::PARTITION, &before[at::PARTITION]);
        let since = number(image, at::TIME).wrapping_sub(number(before, at::TIME));
        packed[at::TIME].copy_from_slice(&since.to_le_bytes());
        xor(&mut packed, at::MERCHANT, &merchant(image, request));
        xor(&mut packed, at::PAYEE, seen.payee(known, image));
        xor(&mut packed, at::APPROVED, approved(image, request));
        if request.is_some() {
            xor(&mut packed, at::CAPTURED, &image[at::APPROVED]);
        }
        for (place, expected) in parts(image) {
            xor(&mut packed, place, &expected.to_le_bytes());
        }
        xor(&mut packed, at::OPEN, &expected_open(image).to_le_bytes());
        tell_changes(&mut packed, at::BALANCES, seen.balances(known, image));
        tell_changes(&mut packed, at::TOTALS, seen.totals(known, image));
        seen.note(index, image);
        requests.entry(amount(image, at::ID)).or_insert(index);
        all.push(packed);
    }
    all
}

/// Takes that back, row by row: each step needs nothing but what is known by then. None if a row names one before the first.
fn unpack(images: &mut [Image]) -> Option<()> {
    let mut seen = Seen::default();
    for index in 0..images.len() {
        let (known, rest) = images.split_at_mut(index);
        let image = rest.first_mut()?;
        let back = u16::from_le_bytes(bytes(image, at::BACK));
        if usize::from(back) > index {
            return None;
        }
        let before = known.last().unwrap_or(&NOTHING);
        let request = request(known, back);
        xor(image, at::ID, &before[at::ID]);
        let asked: [u8; 16] = bytes(image, at::AMOUNT);
        xor(image, at::RESULT, &asked);
        if names_lock(image) {
            let own: [u8; 16] = bytes(image, at::ID);
            xor(image, at::LOCK, request.map_or(&own, |request| &request[at::ID]));
        }
        xor(image, at::PARTITION, &before[at::PARTITION]);
        let time = number(image, at::TIME).wrapping_add(number(before, at::TIME));
        image[at::TIME].copy_from_slice(&time.to_le_bytes());
        let expected = merchant(image, request);
        xor(image, at::MERCHANT, &expected);
        let expected: [u8; 20] = *seen.payee(known, image);
        xor(image, at::PAYEE, &expected);
        let expected: [u8; 16] = *approved(image, request);
        xor(image, at::APPROVED, &expected);
        if request.is_some() {
            let approved: [u8; 16] = bytes(image, at::APPROVED);
            xor(image, at::CAPTURED, &approved);
        }
        for (place, expected) in parts(image) {
            xor(image, place, &expected.to_le_bytes());
        }
        let open = expected_open(image);
        xor(image, at::OPEN, &open.to_le_bytes());
        add_changes(image, at::BALANCES, seen.balances(known, image));
        add_changes(image, at::TOTALS, seen.totals(known, image));
        seen.note(index, image);
    }
    Some(())
}

/// What stands before the first row.
const NOTHING: Image = [0; STRIDE];

/// The row of the request that made a lock, so many rows before the next one.
fn request(known: &[Image], back: u16) -> Option<&Image> {
    let index = known.len().checked_sub(usize::from(back)).filter(|_| back > 0)?;
    known.get(index)
}

fn merchant(image: &Image, request: Option<&Image>) -> [u8; 8] {
    match request {
        Some(request) => bytes(request, at::MERCHANT),
        None if image[at::KIND] == Kind::Lock as u8 => bytes(image, at::ASKED_MERCHANT),
        None => [0; 8],
    }
}

fn approved<'a>(image: &'a Image, request: Option<&'a Image>) -> &'a [u8; 16] {
    request.map_or_else(|| place(image, at::AMOUNT), |request| place(request, at::APPROVED))
}

/// Where in a block the last row stands that tells something, and so lets expect what the next one tells.
#[derive(Default)]
struct Seen {
    /// Of a partition: its balances.
    partitions: FxHashMap<u64, usize>,
    /// Of a merchant of a tenant: its totals.
    merchants: FxHashMap<(u64, u32), usize>,
    /// Of a merchant: its payee.
    payees: FxHashMap<u64, usize>,
}

impl Seen {
    fn note(&mut self, index: usize, image: &Image) {
        if image[at::FLAGS] & HAS_BALANCES != 0 {
            self.partitions.insert(number(image, at::PARTITION), index);
        }
        if image[at::FLAGS] & HAS_TOTALS != 0 {
            self.merchants.insert(merchant_of_tenant(image), index);
        }
        self.payees.insert(number(image, at::MERCHANT), index);
    }

    fn payee<'a>(&self, known: &'a [Image], image: &Image) -> &'a [u8; 20] {
        let last = self.payees.get(&number(image, at::MERCHANT));
        last.map_or(&[0; 20], |index| place(&known[*index], at::PAYEE))
    }

    /// A row without balances has zeros, which are told as they are.
    fn balances<'a>(&self, known: &'a [Image], image: &Image) -> Option<&'a Image> {
        let has = image[at::FLAGS] & HAS_BALANCES != 0;
        has.then(|| self.partitions.get(&number(image, at::PARTITION)))?.map(|index| &known[*index])
    }

    fn totals<'a>(&self, known: &'a [Image], image: &Image) -> Option<&'a Image> {
        let has = image[at::FLAGS] & HAS_TOTALS != 0;
        has.then(|| self.merchants.get(&merchant_of_tenant(image)))?.map(|index| &known[*index])
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

fn merchant_of_tenant(image: &Image) -> (u64, u32) {
    (number(image, at::MERCHANT), u32::from_le_bytes(bytes(image, at::TENANT)))
}

/// Tells amounts by how much they are above those of the row before, if there is one.
fn tell_changes(image: &mut Image, range: core::ops::Range<usize>, before: Option<&Image>) {
    let before = &before.unwrap_or(&NOTHING)[range.clone()];
    for (place, before) in image[range].as_chunks_mut::<16>().0.iter_mut().zip(before.as_chunks::<16>().0) {
        let change = u128::from_le_bytes(*place).wrapping_sub(u128::from_le_bytes(*before));
        *place = zigzag(change.cast_signed()).to_le_bytes();
    }
}

fn add_changes(image: &mut Image, range: core::ops::Range<usize>, before: Option<&Image>) {
    let before = &before.unwrap_or(&NOTHING)[range.clone()];
    for (place, before) in image[range].as_chunks_mut::<16>().0.iter_mut().zip(before.as_chunks::<16>().0) {
        let change = unzigzag(u128::from_le_bytes(*place)).cast_unsigned();
        *place = u128::from_le_bytes(*before).wrapping_add(change).to_le_bytes();
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows of any bytes, of few locks, merchants and partitions, so that rows follow from others.
    fn images() -> impl Strategy<Value = Vec<Image>> {
        let image = (any::<[u8; 32]>(), prop::sample::select(Kind::ALL.to_vec()), 0..16_u8, 1..9_u8);
        let image = image.prop_map(|(bytes, kind, flags, end)| {
            let mut image = NOTHING;
            image.iter_mut().zip(bytes.iter().cycle()).for_each(|(place, byte)| *place = *byte);
            for (place, byte) in
                [at::ID, at::LOCK, at::ASKED_MERCHANT, at::PARTITION, at::MERCHANT].iter().zip(bytes)
            {
                image[place.clone()].fill(byte % 4);
            }
            (image[at::KIND], image[at::FLAGS], image[at::END]) = (kind as u8, flags, end);
            image[at::BACK].fill(0);
            image
        });
        prop::collection::vec(image, 1..=usize::from(BLOCK_ROWS_MAX))
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(images in images()) {
            let mut found = pack(&images);
            unpack(&mut found).unwrap();
            found.iter_mut().for_each(|image| image[at::BACK].fill(0));
            prop_assert_eq!(found, images);
        }

        #[test]
        fn columns_read_back(images in images(), zeroed in prop::collection::vec(0..STRIDE, 0..2 * STRIDE)) {
            let mut images = images;
            images.iter_mut().for_each(|image| zeroed.iter().for_each(|column| image[*column] = 0));
            let mut bytes = Vec::new();
            put_columns(&mut bytes, &images);
            let mut reader = Reader(&bytes);
            prop_assert_eq!(take_columns(&mut reader, images.len()), Some(images.clone()));
            prop_assert!(reader.0.is_empty());
            prop_assert_eq!(take_columns(&mut Reader(&bytes[..bytes.len() - 1]), images.len()), None);
        }

        /// What was changed on a disk is rows, or none, and stops nobody.
        #[test]
        fn a_block_of_other_bytes_stops_nobody(
            images in images(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            len in any::<prop::sample::Index>(),
        ) {
            let mut plain = Vec::new();
            [1, images.len() as u128].into_iter().for_each(|number| put(&mut plain, number));
            put_columns(&mut plain, &pack(&images));
            plain.extend(vec![0; images.len()]);
            for (place, byte) in changes {
                *place.get_mut(&mut plain) = byte;
            }
            plain.truncate(plain.len() - len.index(plain.len()) / 8);
            let _ = decode_block(ShardId(0), &lz4_flex::compress_prepend_size(&plain));
            let _ = decode_block(ShardId(0), &plain);
        }
    }

    #[test]
    fn a_column_behind_the_last_is_damage() {
        let mut bytes = vec![0; COLUMNS_BYTES + 1];
        bytes[STRIDE / 8] = 1 << (STRIDE % 8);
        assert_eq!(take_columns(&mut Reader(&bytes), 1), None);
        bytes[STRIDE / 8] = 1 << (STRIDE % 8 - 1);
        assert!(take_columns(&mut Reader(&bytes), 1).is_some_and(|images| images == [NOTHING]));
    }
}
