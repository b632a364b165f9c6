//! Power cuts: of the files stays what was made durable, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod log;
#[path = "desk/stream.rs"]
mod stream;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};
use std::time::SystemTime;

use chain::{DigestSigner, LocalKey};
use log::{DOMAIN, HEAD, SHARD, settled};
use settlement::Book;
use settlement::life::Entry;
use settler::{Desk, Folded, Journal, JournalError, LOG_FILE, Mark, Note, Shelf};
use stream::Stream;
use surety_protocol::{Record, Seq, ShardId};
use tracing::field::{Field, Visit};
use tracing::span;

thread_local! {
    /// The disk of the test that this thread runs.
    static DISK: RefCell<Option<Disk>> = const { RefCell::new(None) };
}

/// A disk that forgets whatever was not synced: files by what they held at their last sync, names as they were at the directory's.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Durable>>);

/// Names, and of which file each is.
type Names = BTreeMap<PathBuf, u64>;
/// Files and what is in them.
type Files = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Debug, Default)]
struct Durable {
    held: BTreeMap<u64, Vec<u8>>,
    names: Names,
    /// Steps after which the power goes; none if it stays.
    steps_left: Option<usize>,
    /// What was there at each step, durable or not: what a killed process leaves.
    seen: Vec<Files>,
    /// The names as they were when the power went.
    names_then: Option<Names>,
}

impl Disk {
    /// Runs something, and sees what it makes durable.
    fn watch<T>(&self, run: impl FnOnce() -> T) -> T {
        static WATCHED: Once = Once::new();
        // One for the process: `tracing` may forget to ask those that threads have of their own.
        WATCHED.call_once(|| tracing::subscriber::set_global_default(Watch).unwrap());
        DISK.set(Some(self.clone()));
        let result = run();
        DISK.set(None);
        result
    }

    /// Something was made durable: a file, or the names in a directory. False if the power has gone before.
    fn is_on(&self, directory: &Path) -> bool {
        let mut durable = self.0.lock().unwrap();
        durable.seen.push(files(directory));
        match &mut durable.steps_left {
            Some(0) => {
                durable.names_then.get_or_insert_with(|| names(directory));
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    fn cut(&self, directory: &Path) {
        self.cut_with(directory, |_| false);
    }

    /// Of some names that were not synced more may be on the disk than was promised.
    fn cut_with(&self, directory: &Path, is_luckily_there: impl Fn(&Path) -> bool) {
        let mut durable = self.0.lock().unwrap();
        let then = durable.names_then.take().unwrap_or_else(|| names(directory));
        for (path, inode) in then.iter().filter(|(path, _)| is_luckily_there(path)) {
            // What was renamed has its old name no more.
            durable.names.retain(|old, found| found != inode || then.contains_key(old));
            durable.names.insert(path.clone(), *inode);
        }
        for entry in fs::read_dir(directory).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let files = durable.names.iter().map(|(path, inode)| (path, durable.held.get(inode).cloned()));
        let files: Files = files.map(|(path, held)| (path.clone(), held.unwrap_or_default())).collect();
        drop(durable);
        // What is there now is on the disk.
        *self.0.lock().unwrap() = Durable::default();
        put(&files);
        files.keys().for_each(|path| self.synced(path));
        self.named(directory);
    }

    fn synced(&self, path: &Path) {
        let inode = fs::metadata(path).unwrap().ino();
        self.0.lock().unwrap().held.insert(inode, fs::read(path).unwrap());
    }

    fn named(&self, directory: &Path) {
        let names = names(directory);
        let mut durable = self.0.lock().unwrap();
        // The number of a file that is gone may be another's tomorrow.
        durable.held.retain(|inode, _| names.values().any(|named| named == inode));
        durable.names = names;
    }
}

/// Hears what is made durable.
struct Watch;

impl tracing::Subscriber for Watch {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "settler::durable"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        if let Some(disk) = DISK.with_borrow(Clone::clone) {
            event.record(&mut Told(disk));
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Told(Disk);

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let path = PathBuf::from(format!("{value:?}"));
        match field.name() {
            "file" if self.0.is_on(path.parent().unwrap()) => self.0.synced(&path),
            "directory" if self.0.is_on(&path) => self.0.named(&path),
            "file" | "directory" => {}
            other => panic!("{other}"),
        }
    }
}

fn names(directory: &Path) -> Names {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.path(), entry.metadata().unwrap().ino())).collect()
}

/// Writes files. What is the same is one file with several names.
fn put(files: &Files) {
    let mut put: BTreeMap<&[u8], &Path> = BTreeMap::new();
    for (path, bytes) in files {
        match put.get(bytes.as_slice()).filter(|_| !bytes.is_empty()) {
            Some(same) => fs::hard_link(same, path).unwrap(),
            None => fs::write(path, bytes).unwrap(),
        }
        put.insert(bytes, path);
    }
}

fn files(directory: &Path) -> Files {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn key() -> LocalKey {
    LocalKey::from_bytes(&[5; 32]).unwrap()
}

/// With segments of 16 locks.
fn shelf(directory: &Path, mark: Option<Mark>) -> Arc<Shelf> {
    Arc::new(Shelf::open(directory, DOMAIN, 16, mark).unwrap())
}

fn desk(shelf: &Arc<Shelf>) -> Desk {
    Desk::new(Box::new(key()), DOMAIN, Book::default(), shelf.clone(), 1 << 20)
}

/// Everything that a stream states last of each lock is there, signed.
fn check(shelf: &Shelf, records: &[Record]) {
    let mut book = Book::default();
    for (seq, record) in (1..).zip(records) {
        book.read(SHARD, Seq(seq), record);
    }
    for stated in book.certified() {
        let file = shelf.certificate(&stated.lock).unwrap().unwrap();
        assert_eq!((file.certificate.lock, file.signer()), (stated, Some(key().address())));
    }
}

#[test]
fn a_power_cut_after_a_checkpoint_loses_no_certificate() {
    for locks in [3, 16, 20, 40] {
        let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        let mut stream = Stream::new();
        let mark = disk.watch(|| {
            let shelf = shelf(directory.path(), None);
            let mut desk = desk(&shelf);
            (0..locks).for_each(|_| _ = stream.lock());
            (0..locks).for_each(|_| stream.change());
            for (seq, record) in (1..).zip(&stream.records) {
                desk.read(SHARD, Seq(seq), record).unwrap();
                desk.sign().unwrap();
            }
            desk.save().unwrap()
        });
        disk.cut(directory.path());
        let shelf = shelf(directory.path(), Some(mark));
        assert!(shelf.len() >= locks);
        check(&shelf, &stream.records);
    }
}

#[test]
fn what_was_set_aside_outlives_a_power_cut() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let mut stream = Stream::new();
    let mark = disk.watch(|| {
        let shelf = shelf(directory.path(), None);
        let mut desk = desk(&shelf);
        let mark = desk.save().unwrap();
        (0..40).for_each(|_| _ = stream.lock());
        for (seq, record) in (1..).zip(&stream.records) {
            desk.read(SHARD, Seq(seq), record).unwrap();
        }
        desk.sign().unwrap();
        mark
    });
    // Killed: all of it is handed out, none of it in a checkpoint. It starts again, and the power fails.
    disk.watch(|| shelf(directory.path(), Some(mark.clone())));
    disk.cut(directory.path());
    let shelf = shelf(directory.path(), Some(mark.clone()));
    assert!(shelf.is_empty(), "the stream may come to something else");
    assert_eq!(shelf.restore(ShardId(1), Seq(1)).unwrap().locks, []);
    let restored = shelf.restore(SHARD, Seq(1)).unwrap();
    assert_eq!((restored.locks.len(), restored.through), (40, Seq(43)));
    check(&shelf, &stream.records);
    // It goes when a checkpoint has it, and not before.
    let behind = directory.path().join("behind");
    assert!(behind.exists());
    let mark = shelf.sync().unwrap();
    shelf.sweep(|_| Seq(0)).unwrap();
    assert!(!behind.exists());
    drop(shelf);
    check(&crate::shelf(directory.path(), Some(mark)), &stream.records);
}

#[test]
fn what_the_settler_has_read_of_its_log_outlives_a_power_cut() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let note = |seq| Note::Life(Entry::Booked { seq });
    let log = directory.path().join(LOG_FILE);
    disk.watch(|| {
        let mut journal = Journal::create(directory.path(), &HEAD).unwrap();
        (1..=2).for_each(|seq| journal.append(&note(seq)).unwrap());
    });
    // The sync of a third one failed: it was never promised, but whoever reads the file sees it.
    Journal::open(directory.path()).unwrap().unwrap().0.append(&note(3)).unwrap();
    let read = fs::read(&log).unwrap();
    // A sync alone would not bring it to the disk any more: only what is written again is.
    fs::File::open(&log).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let (_, scan) = disk.watch(|| Journal::open(directory.path()).unwrap().unwrap());
    assert_eq!(scan.notes, (1..=3).map(note).collect::<Vec<_>>());
    assert!(fs::metadata(&log).unwrap().modified().unwrap() > SystemTime::UNIX_EPOCH);
    disk.cut(directory.path());
    assert_eq!(fs::read(&log).unwrap(), read);
    assert_eq!(Journal::read(directory.path()).unwrap().unwrap().notes, scan.notes);
}

#[test]
fn a_log_that_is_folded_is_whole_wherever_that_was_cut_off() {
    let notes = settled();
    let folded = Folded::of(DOMAIN.separator(), notes.clone(), 2).unwrap().unwrap();
    let after = [Note::Folded(Box::new(folded.clone()))];
    let later = [after[0].clone(), Note::Resumed];
    let lucks: [fn(&Path) -> bool; 3] = [|_| false, |_| true, |path| path.ends_with(LOG_FILE)];
    let mut steps = 0;
    loop {
        let mut taken = 0;
        for luck in lucks {
            let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::default());
            let mut journal = disk.watch(|| {
                let mut journal = Journal::create(directory.path(), &HEAD).unwrap();
                notes.iter().for_each(|note| journal.append(note).unwrap());
                journal
            });
            disk.0.lock().unwrap().seen = vec![files(directory.path())];
            disk.0.lock().unwrap().steps_left = Some(steps);
            disk.watch(|| {
                journal.fold(folded.clone()).unwrap();
                journal.append(&Note::Resumed).unwrap();
            });
            let killed = std::mem::take(&mut disk.0.lock().unwrap().seen);
            taken = killed.len() - 1;
            disk.cut_with(directory.path(), luck);
            // What was appended with the power on is there, whatever luck the names have.
            let cut = files(directory.path());
            // Killed at any step, and cut off at this one.
            let mut whole = 0;
            for (is_cut, files) in killed.into_iter().map(|files| (false, files)).chain([(true, cut)]) {
                for entry in fs::read_dir(directory.path()).unwrap() {
                    fs::remove_file(entry.unwrap().path()).unwrap();
                }
                put(&files);
                let (mut journal, mut scan) = Journal::open(directory.path()).unwrap().unwrap();
                let is_folded = scan.notes != notes;
                assert!(
                    !is_folded || scan.notes == after || scan.notes == later,
                    "{steps}: {:?}",
                    scan.notes
                );
                assert!(!is_cut || steps < taken || scan.notes == later, "{:?}", scan.notes);
                whole += u32::from(!is_folded);
                // The log that it was is there as well.
                let older =
                    Journal::read_older(directory.path(), 1, &HEAD).unwrap().map(|(_, scan)| scan.notes);
                assert!(!is_folded || older == Some(notes.clone()), "{steps}");
                // Either goes on, and comes to the same when it is folded again.
                journal.append(&Note::Resumed).unwrap();
                if !is_folded {
                    journal.fold(folded.clone()).unwrap();
                    journal.append(&Note::Resumed).unwrap();
                    scan.notes = after.to_vec();
                }
                scan.notes.push(Note::Resumed);
                assert_eq!(Journal::read(directory.path()).unwrap().unwrap().notes, scan.notes);
            }
            assert!(whole > 0);
        }
        if steps > taken {
            break;
        }
        steps += 1;
    }
    assert!(steps >= 4);
}

#[test]
fn a_log_that_cannot_be_folded_goes_on_as_it_is() {
    let notes = settled();
    let folded = Folded::of(DOMAIN.separator(), notes.clone(), 2).unwrap().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(directory.path(), &HEAD).unwrap();
    notes.iter().for_each(|note| journal.append(note).unwrap());
    let (temporary, older) =
        (directory.path().join("settlement.tmp"), directory.path().join("settlement-2.log"));
    let mut expected = notes;
    let mut fails = |journal: &mut Journal, why: &str| {
        let error = journal.fold(folded.clone()).unwrap_err();
        assert!(matches!(error, JournalError::NotFolded(_)), "{why}: {error}");
        journal.append(&Note::Resumed).unwrap();
        expected.push(Note::Resumed);
        assert_eq!(Journal::read(directory.path()).unwrap().unwrap().notes, expected, "{why}");
    };
    // A disk without room, which the symbolic link leads to.
    std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
    fails(&mut journal, "no room");
    assert!(!temporary.is_symlink(), "what was begun is taken away");
    fs::create_dir(&temporary).unwrap();
    fails(&mut journal, "no file");
    fs::remove_dir(&temporary).unwrap();
    // Its second name is another file's, which nobody may lose.
    fs::write(&older, b"another").unwrap();
    fails(&mut journal, "no name");
    assert!(!temporary.exists(), "what was begun is taken away");
    assert_eq!(fs::read(&older).unwrap(), b"another");
    fs::remove_file(&older).unwrap();
    // By one that was cut short.
    fs::hard_link(directory.path().join(LOG_FILE), &older).unwrap();
    journal.fold(folded.clone()).unwrap();
    let after = [Note::Folded(Box::new(folded.clone()))];
    assert_eq!(Journal::read(directory.path()).unwrap().unwrap().notes, after);
    assert_eq!(Journal::read_older(directory.path(), 2, &HEAD).unwrap().unwrap().1.notes, expected);
}

#[test]
fn after_a_refusal_a_log_is_folded_when_it_has_doubled() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(directory.path(), &HEAD).unwrap();
    let length = || fs::metadata(directory.path().join(LOG_FILE)).unwrap().len();
    assert!(!journal.is_fold_due(0), "not before it is twice as long as with one entry");
    while !journal.is_fold_due(1000) {
        journal.append(&Note::Resumed).unwrap();
    }
    assert!(length() >= 1128);
    journal.put_fold_off();
    let refused = length();
    while !journal.is_fold_due(1000) {
        assert!(length() < 2 * refused);
        journal.append(&Note::Resumed).unwrap();
    }
    assert!(length() >= 2 * refused);
}

#[test]
fn the_entry_that_stands_for_others_is_never_taken_for_a_torn_one() {
    let notes = settled();
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(directory.path(), &HEAD).unwrap();
    notes.iter().for_each(|note| journal.append(note).unwrap());
    let folded = Folded::of(DOMAIN.separator(), notes, 2).unwrap().unwrap();
    journal.fold(folded.clone()).unwrap();
    let log = directory.path().join(LOG_FILE);
    let sound = fs::read(&log).unwrap();
    for place in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[place] ^= 1;
        fs::write(&log, &bytes).unwrap();
        assert!(Journal::open(directory.path()).is_err(), "byte {place}");
        fs::write(&log, &sound[..place]).unwrap();
        assert!(Journal::open(directory.path()).is_err(), "{place} bytes");
    }
    // Nor does it stand anywhere but at the beginning, or at that of an old log.
    fs::write(&log, &sound).unwrap();
    let (mut journal, _) = Journal::open(directory.path()).unwrap().unwrap();
    journal.append(&Note::Folded(Box::new(folded))).unwrap();
    assert!(Journal::open(directory.path()).is_err());
}
