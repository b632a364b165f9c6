//! A shard's log is copied whole, cut where it is asked for, or refused.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backup::{CopyError, FilePart, ShardPart};
use backup::{Cut, CutError, Depot, DirectoryDepot, Extent, Mark, Moment, copy_shard, cut};
use storage::{FileStorage, IoMode};
use surety_protocol::limits::BLOCK_BYTES_MAX;
use surety_protocol::{Amount, ControlBody, EngineId, Id, Kind, PartitionHandle, Record, Seq, ShardId, Time};
use wal::{Anchor, Identity, Log, Options, Recovery};

const IDENTITY: Identity = Identity { engine: EngineId(7), shard: ShardId(0) };
/// Segments as small as they can be: 64 small blocks.
const OPTIONS: Options =
    Options { durability: wal::Durability::Fsync, is_guarded: false, segment_bytes: BLOCK_BYTES_MAX as u64 };

struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(world.shard()).unwrap();
        wal::create(&mut world.storage(), IDENTITY, OPTIONS, Time(1)).unwrap();
        world
    }

    /// A log of `blocks` blocks of three records each, over several starts.
    fn with_blocks(blocks: u64) -> Self {
        let world = Self::new();
        let mut storage = world.storage();
        let mut log = open(&mut storage);
        for block in 0..blocks {
            if block % 10 == 9 {
                drop(log);
                log = open(&mut storage);
            }
            for record in 0..3 {
                log.append(&record_at(block * 3 + record + 1).to_bytes());
            }
            write(&mut log, &mut storage, |log| log.poll_write(Time(1)));
        }
        write(&mut log, &mut storage, |log| log.poll_seal(Time(1)));
        world
    }

    fn shard(&self) -> PathBuf {
        self.directory.path().join("shard")
    }

    fn storage(&self) -> FileStorage {
        FileStorage::open(&self.shard(), IoMode::Sync).unwrap()
    }

    fn copy(&self, to: &str, mark: Mark) -> Result<(ShardPart, Vec<FilePart>), CopyError> {
        let depot = DirectoryDepot::new(&self.directory.path().join(to));
        copy_shard(&self.shard(), IDENTITY, mark, Extent::Newest, &depot, &mut |_| {})
    }

    fn copied(&self, to: &str) -> PathBuf {
        self.directory.path().join(to).join("shard-0")
    }
}

fn open(storage: &mut FileStorage) -> Log {
    let recovery = Recovery::begin(storage, IDENTITY, Anchor::GENESIS).unwrap();
    recovery.finish(storage).unwrap().open(storage, OPTIONS, Time(1)).unwrap()
}

/// Performs the next write, with a segment in reserve where it needs one.
fn write(log: &mut Log, storage: &mut FileStorage, poll: impl Fn(&mut Log) -> Option<wal::Write>) {
    let write = match poll(log) {
        Some(write) => write,
        None => {
            let name = log.wants_reserve().unwrap();
            wal::create_reserve(storage, name, log.segment_bytes()).unwrap();
            log.reserve_created(name);
            poll(log).unwrap()
        }
    };
    write.perform(storage).unwrap();
    log.on_written(write);
}

/// A record of its own, decided at the time that is its seq.
fn record_at(seq: u64) -> Record {
    let body = ControlBody { number: seq, ..ControlBody::default() };
    let mut record = Record::new(Kind::Checkpoint, Id(0), PartitionHandle(0), Amount::ZERO, &body);
    record.time = Time(seq);
    record
}

/// The numbers of all records that recovery finds.
fn read(path: &Path) -> Vec<u64> {
    let mut storage = FileStorage::open_read_only(path).unwrap();
    let mut recovery = Recovery::begin(&mut storage, IDENTITY, Anchor::GENESIS).unwrap();
    let mut numbers = Vec::new();
    while let Some(block) = recovery.next_block(&storage).unwrap() {
        let records = block.records().iter().map(Record::from_bytes);
        numbers.extend(records.map(|record| record.body::<ControlBody>().number));
    }
    numbers
}

fn flip(path: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

#[test]
fn a_closed_log_is_copied_whole_and_without_what_it_does_not_use() {
    let world = World::with_blocks(150);
    let (part, files) = world.copy("backup", Mark::Closed).unwrap();
    assert_eq!((part.first_seq, part.last_seq, part.snapshot), (1, 450, None));
    assert!(files.len() > 2, "several segments: {files:?}");
    assert_eq!(read(&world.copied("backup")), (1..=450).collect::<Vec<u64>>());
    let depot = DirectoryDepot::new(&world.directory.path().join("backup"));
    for file in &files {
        backup::check(&depot, file).unwrap();
    }
    assert_eq!(depot.names().unwrap().len(), files.len());
    let length = fs::metadata(world.copied("backup").join("00000000000000000001.wal")).unwrap().len();
    assert!(length <= OPTIONS.segment_bytes);
}

#[test]
fn a_log_without_a_record_is_copied_too() {
    let world = World::new();
    for (to, mark) in [("closed", Mark::Closed), ("open", Mark::Synced(Seq(0)))] {
        let (part, files) = world.copy(to, mark).unwrap();
        assert_eq!((part.last_seq, part.epoch, files.len()), (0, 1, 1));
        assert!(read(&world.copied(to)).is_empty());
    }
}

#[test]
fn beside_a_writer_the_copy_ends_with_what_is_synced() {
    let world = World::with_blocks(150);
    for last in [3, 27, 30, 60, 177, 180, 447, 450] {
        let to = format!("to-{last}");
        let (part, _) = world.copy(&to, Mark::Synced(Seq(last))).unwrap();
        assert_eq!(part.last_seq, last);
        assert_eq!(read(&world.copied(&to)), (1..=last).collect::<Vec<u64>>());
    }
    let error = world.copy("beyond", Mark::Synced(Seq(451))).unwrap_err();
    assert!(matches!(error, CopyError::Tail(_) | CopyError::Short { .. }), "{error}");
}

#[test]
fn damage_below_the_mark_is_never_a_shorter_copy() {
    let world = World::with_blocks(150);
    let first = world.shard().join("00000000000000000001.wal");
    let second = {
        let spans = wal::list_segments(&world.storage()).unwrap();
        world.shard().join(spans[1].file().to_text())
    };
    for (path, offset) in [(&first, 4096 + 300), (&first, 2 * 4096 + 8), (&second, 40)] {
        flip(path, offset);
        for mark in [Mark::Closed, Mark::Synced(Seq(450))] {
            let error = world.copy("damaged", mark).unwrap_err();
            assert!(matches!(error, CopyError::Log(_) | CopyError::Tail(_)), "{error}");
        }
        flip(path, offset);
    }
    fs::remove_file(&second).unwrap();
    assert!(world.copy("hole", Mark::Closed).is_err());
    assert!(world.copy("hole", Mark::Synced(Seq(450))).is_err());
}

#[test]
fn a_log_of_somebody_else_is_not_copied() {
    let world = World::with_blocks(2);
    let depot = DirectoryDepot::new(&world.directory.path().join("backup"));
    let foreign = Identity { engine: EngineId(8), ..IDENTITY };
    for mark in [Mark::Closed, Mark::Synced(Seq(6))] {
        assert!(copy_shard(&world.shard(), foreign, mark, Extent::Newest, &depot, &mut |_| {}).is_err());
    }
}

#[test]
fn a_cut_copy_ends_with_its_moment_wherever_that_is() {
    let world = World::with_blocks(70);
    // The first blocks, and those where a segment ends.
    for last in (0..=7).chain(165..=185).chain(208..=210) {
        for moment in [Moment::Seq(Seq(last)), Moment::Time(Time(last))] {
            let to = format!("cut-{last}-{}", matches!(moment, Moment::Seq(_)));
            world.copy(&to, Mark::Closed).unwrap();
            let path = world.copied(&to);
            assert_eq!(cut(&path, IDENTITY, moment, Seq(210)).unwrap(), Cut { last_seq: Seq(last) });
            assert_eq!(read(&path), (1..=last).collect::<Vec<u64>>());
        }
    }
    world.copy("late", Mark::Closed).unwrap();
    let late = cut(&world.copied("late"), IDENTITY, Moment::Seq(Seq(211)), Seq(210));
    assert!(matches!(late, Err(CutError::TooLate(Seq(210)))), "{late:?}");
}
