//! Power cuts: of the files stays what was made durable, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

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
use settlement::life::Entry;
use settlement::{Book, Domain};
use settler::{Desk, Head, Journal, LOG_FILE, Mark, Note, Shelf};
use stream::Stream;
use surety_protocol::{Address, EngineId, Record, Seq, ShardId, Time};
use tracing::field::{Field, Visit};
use tracing::span;

const SHARD: ShardId = ShardId(0);
const DOMAIN: Domain = Domain { chain_id: 1, contract: Address([9; 20]), engine: EngineId(7) };

thread_local! {
    /// The disk of the test that this thread runs.
    static DISK: RefCell<Option<Disk>> = const { RefCell::new(None) };
}

/// A disk that forgets whatever was not synced: files by what they held at their last sync, names as they were at the directory's.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Durable>>);

#[derive(Debug, Default)]
struct Durable {
    held: BTreeMap<u64, Vec<u8>>,
    names: BTreeMap<PathBuf, u64>,
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

    fn cut(&self, directory: &Path) {
        let durable = self.0.lock().unwrap();
        for entry in fs::read_dir(directory).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let files = durable.names.iter().map(|(path, inode)| (path, durable.held.get(inode).cloned()));
        let files: Vec<_> = files.map(|(path, held)| (path.clone(), held.unwrap_or_default())).collect();
        drop(durable);
        // What is there now is on the disk.
        *self.0.lock().unwrap() = Durable::default();
        for (path, held) in files {
            fs::write(&path, &held).unwrap();
            self.synced(&path);
        }
        self.named(directory);
    }

    fn synced(&self, path: &Path) {
        let inode = fs::metadata(path).unwrap().ino();
        self.0.lock().unwrap().held.insert(inode, fs::read(path).unwrap());
    }

    fn named(&self, directory: &Path) {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
        let names = entries.map(|entry| (entry.path(), entry.metadata().unwrap().ino()));
        let names: BTreeMap<_, _> = names.collect();
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
            "file" => self.0.synced(&path),
            "directory" => self.0.named(&path),
            other => panic!("{other}"),
        }
    }
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
    let head = Head { shards: 1, claim_span: Time(77), separator: [3; 32], salt_key: [4; 32] };
    let note = |seq| Note::Life(Entry::Booked { seq });
    let log = directory.path().join(LOG_FILE);
    disk.watch(|| {
        let mut journal = Journal::create(directory.path(), &head).unwrap();
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
