//! A start behind retention: what was handed out stays, nothing is stated twice with different contents, and what is not stated is told.

use std::collections::BTreeMap;
use std::path::Path;

use settlement::{Book, CertifiedLock, KeptLock, LockId, Unstated};
use settler::{Desk, Mark, Missed, Shelf};
use surety_protocol::{
    Amount, ChangeBody, Code, Flags, Id, Kind, LockBody, MerchantId, QuoteId, Record, Seq, Time,
};

use crate::stream::{PARTITION, Stream, WHOLE, id, name};
use crate::{SHARD, check, check_signed, desk, shelf};

/// What a book that reads everything states, version by version.
fn truth(records: &[Record]) -> BTreeMap<(LockId, u16), CertifiedLock> {
    let mut book = Book::default();
    let stated = (1..).zip(records).filter_map(|(seq, record)| book.read(SHARD, Seq(seq), record));
    stated.map(|statement| ((statement.lock, statement.version), statement)).collect()
}

/// A service that may be killed at any moment, with all that it has ever said.
struct Service {
    directory: tempfile::TempDir,
    shelf: std::sync::Arc<Shelf>,
    desk: Desk,
    /// The last record that it has read.
    read: u64,
    checkpoint: (Mark, Book, u64),
    /// The newest version of each lock that anybody could have got.
    handed: BTreeMap<LockId, u16>,
    missed: Vec<Missed>,
}

impl Service {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shelf = shelf(directory.path(), 16, None);
        let mut desk = desk(Book::default(), &shelf, 8);
        let checkpoint = (desk.save().unwrap(), Book::default(), 0);
        let (handed, missed) = (BTreeMap::new(), Vec::new());
        Self { directory, shelf, desk, read: 0, checkpoint, handed, missed }
    }

    fn read(&mut self, stream: &Stream, until: u64) {
        while self.read < until {
            let record = &stream.records[usize::try_from(self.read).unwrap()];
            self.read += 1;
            self.desk.read(SHARD, Seq(self.read), record).unwrap();
            if self.read.is_multiple_of(3) {
                self.sign();
            }
        }
        self.sign();
    }

    fn sign(&mut self) {
        let (made, missed) = self.desk.sign().unwrap();
        self.hand_out(&made);
        self.missed.extend(missed);
    }

    fn hand_out(&mut self, made: &[LockId]) {
        for lock in made {
            let version = self.shelf.certificate(lock).unwrap().unwrap().certificate.lock.version;
            let newest = self.handed.entry(*lock).or_default();
            *newest = version.max(*newest);
        }
    }

    fn save(&mut self) {
        let mark = self.desk.save().unwrap();
        self.checkpoint = (mark, Book::restore(&self.desk.book().snapshot()).unwrap(), self.read);
        self.shelf.sweep(|_| Seq(self.read)).unwrap();
    }

    fn kill(&mut self) {
        let (mark, book, read) = self.checkpoint.clone();
        self.shelf = shelf(self.directory.path(), 16, Some(mark));
        self.desk = desk(book, &self.shelf, 8);
        self.read = read;
    }

    /// The engine has nothing between here and there.
    fn lose(&mut self, end: u64) {
        let restored = self.desk.lose(SHARD, Seq(self.read + 1), Seq(end)).unwrap();
        self.hand_out(&restored);
        self.read = end - 1;
    }
}

#[test]
fn whatever_was_handed_out_is_there_behind_a_gap() {
    let (mut gaps, mut restored) = (0, 0);
    for seed in 1..=24 {
        let mut stream = Stream::new();
        stream.random = seed;
        let mut service = Service::new();
        // The engine no longer has what is before this.
        let mut oldest = 1;
        for _ in 0..60 {
            for _ in 0..stream.below(8) + 1 {
                match stream.below(20) {
                    0 => stream.set_merchant(),
                    1..4 => {
                        let price = WHOLE / (1 + u128::from(stream.below(4)));
                        stream.set_price(price);
                    }
                    4..12 => _ = stream.lock(),
                    _ if stream.versions.is_empty() => _ = stream.lock(),
                    _ => stream.change(),
                }
            }
            let synced = stream.records.len() as u64;
            if service.read + 1 < oldest {
                service.lose(oldest);
                (gaps, restored) = (gaps + 1, restored + service.handed.len());
            }
            let until = service.read + stream.below(synced - service.read + 1);
            service.read(&stream, until);
            match stream.below(8) {
                0 => service.save(),
                // Killed, and again while it starts.
                1 => (0..=stream.below(2)).for_each(|_| service.kill()),
                2 => {
                    service.kill();
                    oldest = oldest.max(service.read + 1 + stream.below(synced - service.read + 1));
                }
                _ => {}
            }
        }
        if service.read + 1 < oldest {
            service.lose(oldest);
        }
        let synced = stream.records.len() as u64;
        service.read(&stream, synced);
        let truth = truth(&stream.records);
        for (lock, version) in &service.handed {
            let file =
                service.shelf.certificate(lock).unwrap().unwrap_or_else(|| panic!("seed {seed}: {lock:?}"));
            let statement = file.certificate.lock;
            assert!(statement.version >= *version, "seed {seed}: {statement:?}, not {version}");
            assert_eq!(truth.get(&(*lock, statement.version)), Some(&statement), "seed {seed}");
            check_signed(&file);
        }
        // Of what it has read, what it has not stated was told.
        for statement in truth.values().filter(|statement| statement.seq.0 >= oldest) {
            let is_stated =
                service.handed.get(&statement.lock).is_some_and(|newest| *newest >= statement.version);
            let is_told = service.missed.iter().any(|missed| missed.lock == statement.lock);
            assert!(is_stated || is_told, "seed {seed}: {statement:?}");
        }
    }
    assert!(gaps > 24 && restored > 240, "{gaps} gaps, {restored} locks");
}

fn approved(record: Record, amount: u128, secs: u64) -> Record {
    let time = Time::from_secs(1_700_000_000 + secs);
    Record { code: Code::Approved as u8, tenant: name(1).tenant, time, result: Amount(amount), ..record }
}

fn raise(number: u64, version: u16, total: u128) -> Record {
    let body = ChangeBody { lock: id(number), version, ..ChangeBody::default() };
    approved(Record::new(Kind::Increase, Id(7), PARTITION, Amount(total), &body), 1 << 40, 120_000)
}

fn lock(number: u64, quote: u16, amount: u128) -> Record {
    let body = LockBody { merchant: MerchantId(1), quote: QuoteId(quote), ..LockBody::default() };
    let record = Record::new(Kind::Lock, id(number), PARTITION, Amount(amount), &body);
    approved(record.with_flags(Flags::CERTIFIED), 1 << 40, number)
}

#[test]
fn a_lock_that_is_raised_behind_a_gap_is_certified_rightly_or_told() {
    // Locks 1 and 2 were read; the gap is of records 10 to 19, in which anything may have become of them; lock 330,000 has an id of that time.
    let check = |before: &[Record], behind: &[Record], amounts: &[u128], missed: &[(u64, Unstated)]| {
        let directory = tempfile::tempdir().unwrap();
        let shelf = shelf(directory.path(), 16, None);
        let mut desk = desk(Book::default(), &shelf, 8);
        let stream = Stream::new();
        for (seq, record) in (1..).zip(stream.records.iter().chain(before)) {
            desk.read(SHARD, Seq(seq), record).unwrap();
        }
        desk.sign().unwrap();
        assert_eq!(desk.lose(SHARD, Seq(10), Seq(20)).unwrap(), []);
        // A checkpoint forgets nothing of it.
        desk.save().unwrap();
        let book = Book::restore(&desk.book().snapshot()).unwrap();
        assert_eq!(book, *desk.book());
        desk = crate::desk(book, &shelf, 8);
        for (seq, record) in (20..).zip(behind) {
            desk.read(SHARD, Seq(seq), record).unwrap();
        }
        let (made, told) = desk.sign().unwrap();
        let expected: Vec<Missed> =
            missed.iter().map(|(lock, why)| Missed { lock: name(*lock), why: *why }).collect();
        assert_eq!(told, expected);
        let amount = |lock: &LockId| shelf.certificate(lock).unwrap().unwrap().certificate.lock.amount;
        assert_eq!(made.iter().map(amount).collect::<Vec<_>>(), amounts);
        made.len()
    };
    let price = |amount| {
        let mut stream = Stream::new();
        stream.set_price(amount);
        *stream.records.last().unwrap()
    };
    let merchant = Stream::new().records[1];
    let (own, quoted) = (lock(1, 0, 100), lock(2, 840, 100));
    // In collateral the total says it all, whatever happened in between.
    check(&[own], &[raise(1, 5, 300)], &[300], &[]);
    // In a currency its old amount is not known, with a price or without.
    check(&[quoted], &[raise(2, 5, 300)], &[], &[(2, Unstated::Lost)]);
    check(
        &[quoted],
        &[price(WHOLE), raise(2, 5, 300), raise(2, 6, 400)],
        &[],
        &[(2, Unstated::Lost), (2, Unstated::Lost)],
    );
    // One that nobody has read of, with an id of the time of the gap; one that is older than any window was not certified.
    let plain = Record::new(Kind::Lock, id(100_000), PARTITION, Amount(100), &LockBody::default());
    let late = approved(plain, 100, 100_000);
    check(&[late], &[raise(330_000, 1, 300), raise(1, 1, 300)], &[], &[(330_000, Unstated::Lost)]);
    // What was made behind it is raised as always.
    let made = [merchant, price(WHOLE / 2), lock(40_000, 840, 100), raise(40_000, 1, 150)];
    check(&[], &made, &[300, 300], &[]);
}

#[test]
fn two_gaps_with_nothing_read_between_them_are_one_that_ends() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = shelf(directory.path(), 16, None);
    let mut desk = desk(Book::default(), &shelf, 8);
    let stream = Stream::new();
    for (seq, record) in (1..).zip(&stream.records) {
        desk.read(SHARD, Seq(seq), record).unwrap();
    }
    desk.lose(SHARD, Seq(4), Seq(20)).unwrap();
    desk.lose(SHARD, Seq(20), Seq(30)).unwrap();
    let behind = [approved(stream.records[1], 0, 10), raise(300_000, 1, 300), raise(15, 1, 300)];
    for (seq, record) in (30..).zip(&behind) {
        desk.read(SHARD, Seq(seq), record).unwrap();
    }
    let (made, told) = desk.sign().unwrap();
    // The first was made long after both of them.
    assert_eq!((made, told), (vec![], vec![Missed { lock: name(15), why: Unstated::Lost }]));
}

#[test]
fn a_group_on_the_shelf_has_its_locks_as_of_its_own_statements() {
    const LOCKS: u64 = 300;
    let mut records = Stream::new().records;
    let (merchant, price) = (records[1], records[2]);
    // 4 and 5 are going to be dropped.
    records.extend([merchant, price, merchant, price, lock(1, 840, 100)]);
    records.extend((2..=LOCKS).map(|number| lock(number, 0, 100)));
    // Of both groups one: 256 statements, and the rest.
    records.push(raise(1, 1, 150));
    let directory = tempfile::tempdir().unwrap();
    let read = |desk: &mut Desk, from: usize, until: usize| {
        for (seq, record) in (1..).zip(&records).skip(from - 1).take(until - from) {
            desk.read(SHARD, Seq(seq), record).unwrap();
        }
        desk.sign().unwrap()
    };
    let (mark, book) = {
        let shelf = shelf(directory.path(), 1 << 20, None);
        let mut desk = desk(Book::default(), &shelf, 1 << 20);
        read(&mut desk, 1, 4);
        let mark = desk.save().unwrap();
        let book = desk.book().clone();
        let (made, missed) = read(&mut desk, 4, records.len() + 1);
        assert_eq!((made.len(), missed), (301, vec![]));
        (mark, book)
    };
    // The process ends between the two groups.
    let first = mark.open.bytes + 8 + 256 * KeptLock::BYTES as u64 + 65 + 4;
    let segment = directory.path().join("shelf-1");
    std::fs::OpenOptions::new().write(true).open(segment).unwrap().set_len(first).unwrap();
    let shelf = shelf(directory.path(), 1 << 20, Some(mark));
    let mut desk = desk(book, &shelf, 1 << 20);
    assert_eq!(desk.lose(SHARD, Seq(4), Seq(6)).unwrap().len(), 256);
    let (made, missed) = read(&mut desk, 6, records.len() + 1);
    assert_eq!((made.len(), missed), (45, vec![]), "all others, and the first anew");
    let truth = truth(&records);
    assert_eq!(truth.len(), 301);
    for number in 1..=LOCKS {
        let statement = shelf.certificate(&name(number)).unwrap().unwrap();
        let version = if number == 1 { 2 } else { 1 };
        assert_eq!(Some(&statement.certificate.lock), truth.get(&(name(number), version)));
        check_signed(&statement);
    }
}

/// Every file of a directory.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn a_start_that_is_killed_between_any_of_its_steps_comes_to_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut stream = Stream::new();
    let mark = {
        let shelf = shelf(directory.path(), 16, None);
        let mut desk = desk(Book::default(), &shelf, 1 << 20);
        let mut read = 0;
        let mut all = |stream: &Stream, desk: &mut Desk| {
            for record in &stream.records[read..] {
                read += 1;
                desk.read(SHARD, Seq(read as u64), record).unwrap();
                if read.is_multiple_of(3) {
                    desk.sign().unwrap();
                }
            }
            desk.sign().unwrap();
        };
        (0..20).for_each(|_| _ = stream.lock());
        all(&stream, &mut desk);
        let mark = desk.save().unwrap();
        for _ in 0..40 {
            stream.lock();
            stream.change();
        }
        all(&stream, &mut desk);
        mark
    };
    let put_back = |now: &BTreeMap<String, Vec<u8>>| {
        for name in files(directory.path()).keys() {
            std::fs::remove_file(directory.path().join(name)).unwrap();
        }
        now.iter().for_each(|(name, bytes)| std::fs::write(directory.path().join(name), bytes).unwrap());
    };
    let before = files(directory.path());
    drop(shelf(directory.path(), 16, Some(mark.clone())));
    let after = files(directory.path());
    assert!(after.contains_key("behind"));
    // What was cut off or taken away: all of it may still be there, or any part.
    let tail: Vec<_> = before.iter().filter(|(name, bytes)| after.get(*name) != Some(bytes)).collect();
    assert!(tail.len() > 3, "{:?}", before.keys());
    for part in 0..1_u32 << tail.len() {
        let mut now = after.clone();
        let is_there = |(at, _): &(usize, _)| part & 1 << at != 0;
        now.extend(
            tail.iter()
                .enumerate()
                .filter(is_there)
                .map(|(_, (name, bytes))| ((*name).clone(), (*bytes).clone())),
        );
        put_back(&now);
        drop(shelf(directory.path(), 16, Some(mark.clone())));
        assert!(files(directory.path()) == after, "part {part:b}");
    }
    // Killed while it was writing what it sets aside.
    let mut now = before.clone();
    now.insert("behind.tmp".to_owned(), b"torn".to_vec());
    put_back(&now);
    let shelf = shelf(directory.path(), 16, Some(mark));
    assert!(files(directory.path()) == after);
    // The checkpoint is behind three records that furnish, and twenty locks.
    shelf.restore(SHARD, Seq(24)).unwrap();
    check(&shelf, &stream.records);
}
