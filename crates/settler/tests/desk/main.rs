//! What states and signs, with hardly any memory and a kill at any moment: the same certificates as a book that has everything.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod gap;
mod stream;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chain::{DigestSigner, LocalKey};
use settlement::{Book, CertifiedLock, Domain, LockId, Unstated};
use settler::{CertificateFile, Desk, Mark, Missed, Shelf, ShelfError};
use stream::{PARTITION, Stream, id, name};
use surety_protocol::{
    Address, Amount, ChangeBody, EngineId, Flags, Id, Kind, LockBody, MerchantId, PartitionHandle, QuoteId,
    Record, Seq, ShardId, Time,
};

const SHARD: ShardId = ShardId(0);
const DOMAIN: Domain = Domain { chain_id: 1, contract: Address([9; 20]), engine: EngineId(7) };

fn key() -> LocalKey {
    LocalKey::from_bytes(&[5; 32]).unwrap()
}

fn shelf(directory: &Path, locks: usize, mark: Option<Mark>) -> Arc<Shelf> {
    Arc::new(Shelf::open(directory, DOMAIN, locks, mark).unwrap())
}

fn desk(book: Book, shelf: &Arc<Shelf>, locks: usize) -> Desk {
    Desk::new(Box::new(key()), DOMAIN, book, shelf.clone(), locks)
}

/// What a book that forgets nothing states last of each lock.
fn all_stated(records: &[Record]) -> BTreeMap<LockId, CertifiedLock> {
    let mut book = Book::default();
    let stated = (1..).zip(records).filter_map(|(seq, record)| book.read(SHARD, Seq(seq), record));
    stated.map(|statement| (statement.lock, statement)).collect()
}

fn check(shelf: &Shelf, records: &[Record]) {
    for (lock, stated) in all_stated(records) {
        let file = shelf.certificate(&lock).unwrap().unwrap();
        assert_eq!(file.certificate.lock, stated);
        check_signed(&file);
    }
}

fn check_signed(file: &CertificateFile) {
    assert_eq!(file.signer(), Some(key().address()), "{:?}", file.certificate.lock);
}

#[test]
fn a_desk_with_hardly_any_memory_states_the_same_through_kills() {
    let directory = tempfile::tempdir().unwrap();
    let mut stream = Stream::new();
    let mut shelf_now = shelf(directory.path(), 16, None);
    let mut now = desk(Book::default(), &shelf_now, 8);
    // The service writes a first checkpoint before it reads anything.
    let mut saved = (now.save().unwrap(), now.book().clone(), 0);
    let mut read = 0;
    for round in 0..400 {
        for _ in 0..stream.below(6) + 1 {
            if stream.versions.is_empty() || stream.below(3) == 0 {
                _ = stream.lock()
            } else {
                stream.change()
            }
        }
        while read < stream.records.len() {
            now.read(SHARD, Seq(read as u64 + 1), &stream.records[read]).unwrap();
            read += 1;
            if stream.below(2) == 0 {
                assert_eq!(now.sign().unwrap().1, []);
            }
        }
        now.sign().unwrap();
        if stream.below(20) == 0 {
            check(&shelf_now, &stream.records);
        }
        match stream.below(8) {
            0 => {
                let mark = now.save().unwrap();
                assert_eq!(now.book().certified_len(), 0);
                saved = (mark, now.book().clone(), read);
                shelf_now.sweep(|_| Seq(read as u64)).unwrap();
            }
            // Killed: what is behind the checkpoint is read again.
            1 => {
                drop(now);
                drop(shelf_now);
                let (mark, book, from) = saved.clone();
                shelf_now = shelf(directory.path(), 16, Some(mark));
                now = desk(book, &shelf_now, 8);
                read = from;
            }
            _ => {}
        }
        assert!(now.book().certified_len() <= 16, "round {round}");
    }
    check(&shelf_now, &stream.records[..read]);
    assert!(stream.versions.len() > 300, "many segments");
}

#[test]
fn a_lock_without_a_certificate_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = shelf(directory.path(), 16, None);
    let mut desk = desk(Book::default(), &shelf, 8);
    let mut stream = Stream::new();
    let lock = |stream: &mut Stream, quote, merchant| {
        let number = stream.versions.len() as u64 + 1;
        let body = LockBody { merchant: MerchantId(merchant), quote: QuoteId(quote), ..LockBody::default() };
        let record = Record::new(Kind::Lock, id(number), PARTITION, Amount(100), &body);
        stream.push(Record { result: Amount(100), ..record.with_flags(Flags::CERTIFIED) });
        stream.versions.insert(number, (1, 100));
        name(number)
    };
    let whys = [
        (lock(&mut stream, 0, 2), Unstated::Payee(MerchantId(2))),
        (lock(&mut stream, 978, 1), Unstated::Price(QuoteId(978))),
    ];
    let astray = lock(&mut stream, 0, 1);
    let last = stream.records.last_mut().unwrap();
    last.partition = PartitionHandle(2);
    let astray = LockId { partition: PartitionHandle(2), ..astray };
    let good = lock(&mut stream, 0, 1);
    for (seq, record) in (1..).zip(&stream.records) {
        desk.read(SHARD, Seq(seq), record).unwrap();
    }
    let (made, missed) = desk.sign().unwrap();
    assert_eq!(made, [good]);
    let mut expected: Vec<Missed> =
        whys.iter().map(|(lock, why)| Missed { lock: *lock, why: *why }).collect();
    expected.push(Missed { lock: astray, why: Unstated::Partition });
    assert_eq!(missed, expected);
    assert!(expected.iter().all(|missed| shelf.certificate(&missed.lock).unwrap().is_none()));
}

/// Three segments of 16 locks, the last one open, all of it saved.
fn full(directory: &Path) -> (Stream, Mark) {
    let mut stream = Stream::new();
    let shelf = shelf(directory, 16, None);
    let mut desk = desk(Book::default(), &shelf, 1 << 20);
    (0..40).for_each(|_| _ = stream.lock());
    for (seq, record) in (1..).zip(&stream.records) {
        desk.read(SHARD, Seq(seq), record).unwrap();
        desk.sign().unwrap();
    }
    let mark = desk.save().unwrap();
    assert_eq!((mark.sealed.len(), mark.open.segment, shelf.len()), (2, 3, 40));
    (stream, mark)
}

#[test]
fn what_is_behind_the_mark_is_cut_off_and_what_is_before_must_be_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (stream, mark) = full(directory.path());
    let file = |name: &str| directory.path().join(name);
    let open = || Shelf::open(directory.path(), DOMAIN, 16, Some(mark.clone()));
    check(&open().unwrap(), &stream.records);
    // A torn group, and a segment and an index that no checkpoint knows.
    let sound = std::fs::read(file("shelf-3")).unwrap();
    std::fs::write(file("shelf-3"), [&sound[..], b"SLG1 torn"].concat()).unwrap();
    std::fs::write(file("shelf-3.index"), "of another time").unwrap();
    std::fs::write(file("shelf-4"), "of another time").unwrap();
    check(&open().unwrap(), &stream.records);
    assert_eq!(std::fs::read(file("shelf-3")).unwrap(), sound);
    assert!(!file("shelf-4").exists());
    for (at, bytes) in [(0, &sound[..sound.len() - 1]), (1, &sound[..10])] {
        std::fs::write(file("shelf-3"), bytes).unwrap();
        assert!(matches!(open(), Err(ShelfError::Damaged { .. })), "{at}");
    }
    for at in (0..sound.len()).step_by(97) {
        let mut rotten = sound.clone();
        rotten[at] ^= 4;
        std::fs::write(file("shelf-3"), &rotten).unwrap();
        assert!(matches!(open(), Err(ShelfError::Damaged { .. })), "byte {at}");
    }
    std::fs::write(file("shelf-3"), &sound).unwrap();
    // Rot in a complete segment is told to whoever asks for what it held, and to nobody else.
    let first = std::fs::read(file("shelf-1")).unwrap();
    let mut rotten = first.clone();
    rotten[100] ^= 4;
    std::fs::write(file("shelf-1"), &rotten).unwrap();
    let shelf = open().unwrap();
    assert!(matches!(shelf.certificate(&name(1)), Err(ShelfError::Damaged { .. })));
    assert!(shelf.certificate(&name(40)).unwrap().is_some());
    let other = Domain { chain_id: 2, ..DOMAIN };
    assert!(matches!(
        Shelf::open(directory.path(), other, 16, Some(mark.clone())),
        Err(ShelfError::Damaged { .. })
    ));
}

#[test]
fn an_index_that_is_missing_or_damaged_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let (stream, mark) = full(directory.path());
    let index = directory.path().join("shelf-1.index");
    let sound = std::fs::read(&index).unwrap();
    std::fs::remove_file(&index).unwrap();
    check(&shelf(directory.path(), 16, Some(mark.clone())), &stream.records);
    assert_eq!(std::fs::read(&index).unwrap(), sound);
    for at in (0..sound.len()).step_by(13) {
        let mut rotten = sound.clone();
        rotten[at] ^= 4;
        std::fs::write(&index, &rotten).unwrap();
        check(&shelf(directory.path(), 16, Some(mark.clone())), &stream.records);
        assert_eq!(std::fs::read(&index).unwrap(), sound, "byte {at}");
    }
}

#[test]
fn a_segment_that_is_missing_or_short_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (stream, mark) = full(directory.path());
    let segment = directory.path().join("shelf-1");
    let sound = std::fs::read(&segment).unwrap();
    let refused = || match Shelf::open(directory.path(), DOMAIN, 16, Some(mark.clone())).unwrap_err() {
        ShelfError::Damaged { path, .. } => assert_eq!(path, segment),
        other => panic!("{other}"),
    };
    std::fs::remove_file(&segment).unwrap();
    refused();
    std::fs::write(&segment, &sound[..sound.len() - 1]).unwrap();
    refused();
    std::fs::write(&segment, [&sound[..], b"x"].concat()).unwrap();
    refused();
    std::fs::write(&segment, &sound).unwrap();
    let shelf = shelf(directory.path(), 16, Some(mark));
    check(&shelf, &stream.records);
    // It goes while somebody has it open.
    std::fs::remove_file(&segment).unwrap();
    assert!(matches!(shelf.certificate(&name(1)), Err(ShelfError::Damaged { .. })));
}

#[test]
fn a_shelf_without_a_checkpoint_is_not_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Shelf::open(directory.path(), DOMAIN, 16, None);
    drop(open().unwrap());
    std::fs::write(directory.path().join("shelf-1"), "torn").unwrap();
    drop(open().unwrap());
    full(directory.path());
    let before = std::fs::read(directory.path().join("shelf-1")).unwrap();
    assert!(matches!(open(), Err(ShelfError::Damaged { path, .. }) if path.ends_with("book")));
    assert_eq!(std::fs::read(directory.path().join("shelf-1")).unwrap(), before);
}

#[test]
fn an_index_that_leads_to_another_lock_is_damage() {
    let directory = tempfile::tempdir().unwrap();
    let (_, mark) = full(directory.path());
    let index = directory.path().join("shelf-1.index");
    let mut bytes = std::fs::read(&index).unwrap();
    // Two entries of 40 bytes behind a head of 60 change places, all but their names.
    let (first, second) = (60 + 32, 60 + 40 + 32);
    for at in 0..8 {
        bytes.swap(first + at, second + at);
    }
    let end = bytes.len() - 4;
    let sum = crc32c::crc32c(&bytes[..end]).to_be_bytes();
    bytes[end..].copy_from_slice(&sum);
    std::fs::write(&index, bytes).unwrap();
    let shelf = shelf(directory.path(), 16, Some(mark));
    assert!(matches!(shelf.certificate(&name(1)), Err(ShelfError::Damaged { .. })));
    assert!(shelf.certificate(&name(3)).unwrap().is_some());
}

#[test]
fn segments_are_thrown_away_when_nothing_in_them_can_be_called() {
    let directory = tempfile::tempdir().unwrap();
    let (_, mark) = full(directory.path());
    let shelf = shelf(directory.path(), 16, Some(mark.clone()));
    let (deadline, keep) = (Time::from_secs(1_800_000_000), Time::from_secs(3600));
    shelf.forget(|_| deadline.plus(keep), keep);
    assert_eq!(shelf.len(), 40);
    shelf.forget(|_| deadline.plus(keep).plus(Time(1)), keep);
    assert_eq!(shelf.len(), 8, "the open segment stays");
    assert!(shelf.certificate(&name(1)).unwrap().is_none());
    assert!(shelf.certificate(&name(40)).unwrap().is_some());
    let names = || std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(names(), 5, "the checkpoint still counts on them");
    let now = shelf.sync().unwrap();
    shelf.sweep(|_| Seq(0)).unwrap();
    assert_eq!(names(), 1, "and its files are the only ones");
    drop(shelf);
    // Killed before the last one was taken away.
    std::fs::write(directory.path().join("shelf-2"), "of no use any more").unwrap();
    assert_eq!(self::shelf(directory.path(), 16, Some(now)).len(), 8);
    assert_eq!(names(), 1);
}

#[test]
fn a_shard_that_was_read_on_throws_nothing_of_another_away() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = shelf(directory.path(), 16, None);
    let mut desk = desk(Book::default(), &shelf, 8);
    let mut stream = Stream::new();
    (0..20).for_each(|_| _ = stream.lock());
    let there =
        |shard: ShardId, record: &Record| Record { partition: PartitionHandle::new(shard, 1), ..*record };
    let shards = [ShardId(0), ShardId(1)];
    for (seq, record) in (1..).zip(&stream.records) {
        for shard in shards {
            desk.read(shard, Seq(seq), &there(shard, record)).unwrap();
        }
        desk.sign().unwrap();
    }
    desk.save().unwrap();
    assert_eq!(shelf.len(), 40);
    // Days later one shard is read before the other: nothing of that has come to an end.
    let keep = Time::from_secs(3600);
    // What was made then is not certified, and shows that all that fell due before was read.
    let late =
        Record { id: Id(1 << 91), flags: 0, time: Time::from_secs(1_900_000_000), ..stream.records[3] };
    desk.read(shards[0], Seq(100), &there(shards[0], &late)).unwrap();
    shelf.forget(|shard| desk.book().read_until(shard), keep);
    assert_eq!(shelf.len(), 40);
    let body = ChangeBody { lock: id(1), version: 1, ..ChangeBody::default() };
    let raise = Record::new(Kind::Increase, Id(7), PARTITION, Amount(1 << 40), &body);
    stream.push(Record { result: Amount(1 << 60), ..raise });
    desk.read(shards[1], Seq(100), &there(shards[1], stream.records.last().unwrap())).unwrap();
    let lock = LockId { partition: PartitionHandle::new(shards[1], 1), ..name(1) };
    assert_eq!(desk.sign().unwrap(), (vec![lock], vec![]));
    desk.read(shards[1], Seq(101), &there(shards[1], &late)).unwrap();
    shelf.forget(|shard| desk.book().read_until(shard), keep);
    assert!(shelf.len() <= 16, "the open segment stays");
}
