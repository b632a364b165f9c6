//! What settler and certificate service read at a start: log, book, checkpoint, and the files of the shelf.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use settlement::{Book, Domain, KeptLock, LockId, NettingConfig, Sealer, life::Entry};
use settler::{
    Certifier, Extent, Folded, Head, Journal, LOG_FILE, Mark, Note, PaidOnChain, Shelf, ShelfError,
};
use surety_protocol::{
    Address, Amount, AssetId, ChangeBody, Code, EngineId, Flags, Id, Kind, LockBody, MerchantBody,
    MerchantId, PartitionBody, PartitionHandle, PriceBody, QuoteId, Record, Seq, ShardId, TenantId, Time,
};

use crate::seeds::flagged;

const SHARD: ShardId = ShardId(0);
const PARTITION: PartitionHandle = PartitionHandle(1);
const DOMAIN: Domain = Domain { chain_id: 1, contract: Address([9; 20]), engine: EngineId(7) };
/// Locks of a segment, and of memory.
const SEGMENT_LOCKS: usize = 3;
/// Locks of the sound files.
const LOCKS: u64 = 5;
/// Where a segment's groups begin, and what a group is beside its locks and its path.
const SEGMENT_HEAD: usize = 56;
const GROUP_HEAD: usize = 8;
const GROUP_REST: usize = 65 + 4;
/// The fixed part of an index's head; 10 bytes for each shard, and the sum.
const INDEX_HEAD: usize = 46;
const LOG_HEAD: usize = 128;
const ENTRY_HEAD: usize = 24;

/// A settler's log: what is read is written as it was, and goes on.
///
/// Input: flags (1 checksums are put right), then the file.
pub(crate) fn log(input: &[u8]) {
    let Some((flags, file)) = input.split_first() else { return };
    let mut file = file.to_vec();
    if flags & 1 != 0 {
        repair_log(&mut file);
    }
    let directory = Directory::new();
    fs::write(directory.0.join(LOG_FILE), &file).expect("a file");
    let Ok(Some(scan)) = Journal::read(&directory.0) else { return };
    for note in &scan.notes {
        assert_eq!(Note::from_bytes(&note.to_bytes()).as_ref(), Ok(note));
    }
    let (mut journal, opened) = Journal::open(&directory.0).expect("it was read").expect("it is there");
    assert_eq!(opened.notes, scan.notes);
    journal.append(&Note::Resumed).expect("a disk without faults");
    let again = Journal::read(&directory.0).expect("it was opened").expect("it is there");
    assert_eq!(again.notes.split_last(), Some((&Note::Resumed, &scan.notes[..])));
    // Whatever the entries say of each other, a fold of them is read back.
    let batches = 0..4;
    for batch in batches {
        if let Ok(Some(folded)) = Folded::of(scan.head.separator, scan.notes.clone(), batch) {
            let note = Note::Folded(Box::new(folded));
            assert_eq!(Note::from_bytes(&note.to_bytes()), Ok(note));
        }
    }
}

/// A book's snapshot: what holds is written to the same bytes.
pub(crate) fn book(input: &[u8]) {
    let Some(book) = Book::restore(input) else { return };
    let snapshot = book.snapshot();
    assert_eq!(Book::restore(&snapshot).as_ref(), Some(&book));
    // One of the version before has nothing of losses.
    let same = if input[0] == snapshot[0] { snapshot.len() } else { snapshot.len() - size_of::<u32>() };
    assert_eq!(snapshot[1..same], input[1..]);
}

/// One of the shelf's files, whatever it is, beside sound ones: what a merchant gets is of its own lock, and a shelf that opens
/// opens again to the same.
///
/// Input: flags (1 checksums are put right), which file, then what is in it.
pub(crate) fn shelf(input: &[u8]) {
    let Some((&[flags, which], given)) = input.split_first_chunk() else { return };
    let mut given = given.to_vec();
    let directory = Directory::new();
    let (mut mark, name) = (made_shelf(&directory.0), NAMES[usize::from(which) % NAMES.len()]);
    if flags & 1 != 0 {
        repair(name, &mut given);
    }
    fs::write(directory.0.join(name), &given).expect("a file");
    match name {
        "book" => return drop(Certifier::tokens(&directory.0)),
        "shelf-1" => {
            fs::remove_file(directory.0.join("shelf-1.index")).expect("a file");
            mark.sealed[0].bytes = given.len() as u64;
        }
        "shelf-2" => mark.open.bytes = given.len() as u64,
        _ => {}
    }
    let Some(shelf) = opened(&directory.0, mark) else { return };
    check(&shelf);
    if shelf.restore(SHARD, Seq(1)).is_ok() {
        check(&shelf);
    }
    let Ok(mark) = shelf.sync() else { return };
    let len = shelf.len();
    drop(shelf);
    let shelf = opened(&directory.0, mark).expect("it was open");
    assert_eq!(shelf.len(), len);
    check(&shelf);
}

/// What the probe `shelf` can be given.
const NAMES: [&str; 5] = ["shelf-1", "shelf-1.index", "shelf-2", "behind", "book"];

fn opened(directory: &Path, mark: Mark) -> Option<Shelf> {
    match Shelf::open(directory, DOMAIN, SEGMENT_LOCKS, Some(mark)) {
        Ok(shelf) => Some(shelf),
        Err(ShelfError::Damaged { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

fn check(shelf: &Shelf) {
    for lock in (1..=LOCKS).map(lock_name) {
        match shelf.certificate(&lock) {
            Ok(file) => assert!(file.is_none_or(|file| file.certificate.lock.lock == lock)),
            Err(ShelfError::Damaged { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A directory that is gone afterwards; in memory where there is such a place, since everything is synced.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        /// Threads have directories of their own.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("surety-probe-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn put_sum(bytes: &mut [u8]) {
    if let Some((body, sum)) = bytes.split_last_chunk_mut::<4>() {
        *sum = crc32c::crc32c(body).to_be_bytes();
    }
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    bytes[at..].first_chunk::<2>().map_or(0, |number| u16::from_be_bytes(*number).into())
}

/// Right sums, as far as the file has the form of one.
fn repair(name: &str, file: &mut [u8]) {
    match name {
        "book" => put_sum(file),
        "shelf-1.index" => {
            if let Some(count) = file.get(INDEX_HEAD - 2..INDEX_HEAD).map(|count| u16_at(count, 0)) {
                let head = INDEX_HEAD + 10 * count + 4;
                file.get_mut(..head).map(put_sum);
            }
            put_sum(file);
        }
        _ => {
            file.get_mut(..SEGMENT_HEAD).map(put_sum);
            let mut at = SEGMENT_HEAD;
            while let Some(group) = group_at(file, at) {
                put_sum(&mut file[group.clone()]);
                at = group.end;
            }
        }
    }
}

fn group_at(file: &[u8], at: usize) -> Option<Range<usize>> {
    let head = file.get(at..at + GROUP_HEAD)?;
    let (locks, path) = (u16_at(head, 4), u16_at(head, 6));
    let end = at + GROUP_HEAD + locks * KeptLock::BYTES + path * 32 + GROUP_REST;
    (end <= file.len()).then_some(at..end)
}

fn repair_log(file: &mut [u8]) {
    file.get_mut(..LOG_HEAD).map(put_sum);
    let mut at = LOG_HEAD;
    while let Some(head) = file.get(at..).and_then(|rest| rest.first_chunk::<ENTRY_HEAD>()) {
        let len = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let body = at + ENTRY_HEAD;
        let end = usize::try_from(len).ok().and_then(|len| body.checked_add(len));
        let Some(end) = end.filter(|end| *end <= file.len()) else { break };
        let sum = crc32c::crc32c(&file[body..end]);
        file[at + 16..at + 20].copy_from_slice(&sum.to_be_bytes());
        put_sum(&mut file[at..body]);
        at = end;
    }
}

/// Sound logs: with all of its entries, and folded.
pub(crate) fn logs() -> Vec<Vec<u8>> {
    let directory = Directory::new();
    let head = Head { shards: 1, claim_span: Time(77), separator: DOMAIN.separator(), salt_key: [4; 32] };
    let mut journal = Journal::create(&directory.0, &head).expect("an empty directory");
    let notes = notes();
    notes.iter().for_each(|note| journal.append(note).expect("a disk without faults"));
    let read = || flagged(1, fs::read(directory.0.join(LOG_FILE)).expect("a log"));
    let whole = read();
    let folded = Folded::of(head.separator, notes, 2).expect("entries in order").expect("two are booked");
    journal.fold(folded).expect("a disk without faults");
    journal.append(&Note::Life(Entry::Final { seq: 3, block: 12, nonce: 3 })).expect("a disk without faults");
    vec![whole, read()]
}

/// Four batches, of which two are booked, and one of each other entry.
fn notes() -> Vec<Note> {
    let config = NettingConfig { shards: 1, salt_key: [4; 32], claim_span: Time(77) };
    let mut sealer = Sealer::new(config, &DOMAIN);
    let mut notes = Vec::new();
    // Without a deposit there is no lock.
    for (seq, record) in (1..5).zip(records()[..3].iter().chain([&Record::from_bytes(&[0; 128])])) {
        sealer.read(SHARD, Seq(seq), record).expect("a stream in order");
        let sealed = Box::new(sealer.seal(u128::MAX).expect("something was read"));
        notes.push(Entry::Sealed { sealed, at: Time(seq) }.into());
    }
    for seq in [1, 2] {
        notes.push(Entry::Final { seq, block: 9, nonce: seq }.into());
        notes.push(Entry::Booked { seq }.into());
    }
    notes.push(Note::Loss(PaidOnChain { partition: [1; 32], lock: [2; 32], amount: 3 }));
    notes.push(Note::LossTold { lock: [2; 32] });
    notes.push(Note::Spent { at: Time(5), transaction: [6; 32], wei: 7 });
    notes.push(Note::Asked(Box::new(records()[0])));
    notes.push(Note::ExitAnswered { partition: PARTITION, nonce: 4 });
    notes
}

/// Sound books: empty, with locks, with losses.
pub(crate) fn books() -> Vec<Vec<u8>> {
    let whole = made_book();
    let mut lost = whole.clone();
    lost.lose(SHARD, Seq(50), Seq(40));
    [Book::default(), whole, lost].iter().map(Book::snapshot).collect()
}

/// Each file of a sound shelf.
pub(crate) fn shelves() -> Vec<Vec<u8>> {
    let directory = Directory::new();
    let mark = made_shelf(&directory.0);
    let seed = |which: usize| {
        let file = fs::read(directory.0.join(NAMES[which])).expect("a file of the shelf");
        [vec![1, u8::try_from(which).unwrap_or_default()], file].concat()
    };
    let mut seeds = vec![seed(0), seed(1), seed(2)];
    // What is behind a checkpoint is set aside at the next start.
    let open = Extent { bytes: SEGMENT_HEAD as u64, ..mark.open };
    fs::write(directory.0.join("book"), checkpoint(&mark)).expect("a file");
    drop(opened(&directory.0, Mark { open, ..mark }).expect("a sound shelf"));
    seeds.extend([seed(3), seed(4)]);
    seeds
}

/// A shelf with a complete segment and an open one.
fn made_shelf(directory: &Path) -> Mark {
    let shelf = Shelf::open(directory, DOMAIN, SEGMENT_LOCKS, None).expect("an empty directory");
    let book = made_book();
    let kept = |number| *book.kept(&lock_name(number)).expect("a certified lock");
    // In the order of their newest records.
    for group in [&[1, 3, 2][..], &[4], &[5]] {
        let group = group.iter().map(|number| kept(*number)).collect();
        shelf.put(group, [7; 65]).expect("a disk without faults");
    }
    shelf.sync().expect("a disk without faults")
}

/// A checkpoint, by its format: nobody but a service writes one.
fn checkpoint(mark: &Mark) -> Vec<u8> {
    let book = made_book().snapshot();
    let mut file = b"SURETYSB\0\0\0\x03".to_vec();
    file.extend(DOMAIN.separator());
    let extents = [mark.sealed[0], mark.open];
    let extents = extents.iter().flat_map(|extent| [extent.segment, extent.bytes]);
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    file.extend(words(&[1, 9, book.len() as u64]));
    file.extend(&book);
    file.extend(words(&[2]));
    file.extend(words(&extents.collect::<Vec<_>>()));
    file.extend(words(&[0]));
    file.extend([0; 4]);
    put_sum(&mut file);
    file
}

fn made_book() -> Book {
    let mut book = Book::default();
    for (seq, record) in (1..).zip(records()) {
        book.read(SHARD, Seq(seq), &record);
    }
    book
}

/// A partition, a merchant, a price, locks of which every other is in a currency, and one that was raised.
fn records() -> Vec<Record> {
    let home = PartitionBody { onchain: [0xcc; 32], asset: AssetId(1), ..PartitionBody::default() };
    let payee = Address([4; 20]);
    let merchant =
        MerchantBody { merchant: MerchantId(1), payee, release_key: payee, ..MerchantBody::default() };
    let price = PriceBody { asset: AssetId(1), quote: QuoteId(840), ..PriceBody::default() };
    let raise = ChangeBody { lock: lock_name(2).id, version: 1, ..ChangeBody::default() };
    let mut records = vec![
        Record::new(Kind::PartitionCreate, Id(1), PARTITION, Amount(0), &home),
        Record::new(Kind::MerchantSet, Id(2), PARTITION, Amount(0), &merchant),
        Record::new(Kind::Price, Id(3), PARTITION, Amount(1 << 60), &price),
    ];
    for number in 1..=LOCKS {
        let quote = QuoteId(if number % 2 == 0 { 840 } else { 0 });
        let deadline = Time::from_secs(1_800_000_000);
        let body = LockBody { merchant: MerchantId(1), deadline, quote, ..LockBody::default() };
        let lock = Record::new(Kind::Lock, lock_name(number).id, PARTITION, Amount(1000), &body);
        records.push(Record { result: Amount(2000), ..lock.with_flags(Flags::CERTIFIED) });
    }
    let raise = Record::new(Kind::Increase, Id(9), PARTITION, Amount(1500), &raise);
    records.push(Record { result: Amount(2000), ..raise });
    let time = Time::from_secs(1_700_000_000);
    let approved = |record| Record { code: Code::Approved as u8, tenant: TenantId(1), time, ..record };
    records.into_iter().map(approved).collect()
}

fn lock_name(number: u64) -> LockId {
    let id = Id::from_parts(Time::from_secs(1_700_000_000 + number), number.into());
    LockId { tenant: TenantId(1), partition: PARTITION, id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_sound_and_what_was_changed_and_put_right_is_believed() {
        for seed in logs() {
            let directory = Directory::new();
            fs::write(directory.0.join(LOG_FILE), &seed[1..]).expect("a file");
            let notes = Journal::read(&directory.0).expect("a sound log").expect("it is there").notes;
            let mut file = seed[1..].to_vec();
            let last = file.len() - 1;
            file[last] ^= 1;
            repair_log(&mut file);
            fs::write(directory.0.join(LOG_FILE), &file).expect("a file");
            let changed = Journal::read(&directory.0).expect("a sound log").expect("it is there").notes;
            assert!(notes.len() > 1 && notes.len() == changed.len() && notes != changed);
        }
        assert!(books().iter().all(|book| Book::restore(book).is_some()));
        let directory = Directory::new();
        let mark = made_shelf(&directory.0);
        for (name, place) in [("shelf-1", SEGMENT_HEAD + GROUP_HEAD + 60), ("shelf-1.index", 30)] {
            let path = directory.0.join(name);
            let mut file = fs::read(&path).expect("a file");
            file[place] ^= 1;
            repair(name, &mut file);
            fs::write(&path, &file).expect("a file");
        }
        assert_eq!(opened(&directory.0, mark).map(|shelf| shelf.len()), Some(5));
        fs::write(directory.0.join("book"), &shelves()[4][2..]).expect("a file");
        assert!(Certifier::tokens(&directory.0).is_ok());
    }
}
