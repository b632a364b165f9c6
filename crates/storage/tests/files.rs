//! The log on real files: round trips in each mode, threads, locks, data directories, a full disk.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use storage::{
    CreateDirectoryError, DataDirectory, DirectoryLock, FileStorage, IoMode, LockError, LogWriter, Metadata,
    MetadataFault, OpenDirectoryError, Operation, StorageError, Syncer, WriterStopped,
};
use surety_protocol::{EngineId, Seq, ShardId, Time};
use tempfile::TempDir;
use wal::memory::{Fault, MemoryStorage};
use wal::{
    Anchor, Durability, FileName, Identity, Log, Options, PageBuffer, Recovery, SnapshotHeader,
    SnapshotWriter, Storage, TailReader,
};

const METADATA: Metadata = Metadata {
    engine: EngineId(0xabc),
    shards: 2,
    created: Time(5),
    id_window: Time::from_secs(300),
    is_forensic: false,
};
const IDENTITY: Identity = Identity { engine: EngineId(0xabc), shard: ShardId(0) };
const SEGMENT: FileName = FileName::Segment { first_seq: Seq(1) };

fn options(durability: Durability) -> Options {
    Options { durability, is_guarded: true, segment_bytes: 1 << 20 }
}

/// A directory on a file system that can do direct I/O, next to the sources.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn record(seq: u64) -> [u8; 128] {
    let mut record = [0x5a; 128];
    record[..8].copy_from_slice(&seq.to_le_bytes());
    record
}

fn create(parent: &Path) -> DataDirectory {
    DataDirectory::create(&parent.join("data"), METADATA, options(Durability::Fsync)).unwrap()
}

/// Reads the whole log; its last seq.
fn replay(storage: &mut FileStorage) -> (u64, wal::Recovered) {
    let mut recovery = Recovery::begin(storage, IDENTITY, Anchor::GENESIS).unwrap();
    let mut last = 0;
    while let Some(block) = recovery.next_block(storage).unwrap() {
        for item in block.records_from(Seq(1)) {
            assert_eq!((item.seq.0, *item.bytes), (last + 1, record(last + 1)));
            last += 1;
        }
    }
    (last, recovery.finish(storage).unwrap())
}

fn open(storage: &mut FileStorage, durability: Durability) -> Log {
    let (_, recovered) = replay(storage);
    recovered.open(storage, options(durability), Time(9)).unwrap()
}

fn append(log: &mut Log, records: u64) {
    for _ in 0..records {
        let seq = log.next_seq().0;
        log.append(&record(seq));
    }
}

fn reserve(log: &mut Log, storage: &mut FileStorage) {
    while let Some(name) = log.wants_reserve() {
        wal::create_reserve(storage, name, log.segment_bytes()).unwrap();
        log.reserve_created(name);
    }
}

#[test]
fn a_log_is_read_back_in_every_mode() {
    for mode in [IoMode::Direct, IoMode::Sync] {
        for durability in [Durability::Fsync, Durability::Os] {
            let parent = directory();
            let data = create(parent.path());
            let mut storage = data.storage(ShardId(0), mode).unwrap();
            let mut total = 0;
            for run in 1..4 {
                let mut log = open(&mut storage, durability);
                for records in [1, 500, 2046, run * 700, 2000] {
                    reserve(&mut log, &mut storage);
                    append(&mut log, records);
                    total += records;
                    while let Some(write) = log.poll_write(Time(10)) {
                        write.perform(&mut storage).unwrap();
                        log.on_written(write);
                    }
                }
                assert_eq!(log.acked_seq().0, total);
                drop(storage);
                storage = data.storage(ShardId(0), mode).unwrap();
                let (last, recovered) = replay(&mut storage);
                assert_eq!((last, recovered.chain()), (total, log.chain()));
            }
            assert!(wal::list_segments(&storage).unwrap().len() > 1);
        }
    }
}

#[test]
fn the_writer_thread_completes_in_order_while_a_reader_follows() {
    let parent = directory();
    let data = create(parent.path());
    let mut storage = data.storage(ShardId(0), IoMode::Direct).unwrap();
    let mut log = open(&mut storage, Durability::Fsync);
    let (sender, completions) = mpsc::channel();
    let theirs = data.storage(ShardId(0), IoMode::Direct).unwrap();
    let writer = LogWriter::spawn("log-0", theirs, move |done| sender.send(done).unwrap()).unwrap();
    let beside = FileStorage::open_read_only(&data.shard_path(ShardId(0))).unwrap();
    let mut reader = TailReader::new(IDENTITY, Seq(1));
    let mut followed = 0;
    for round in 0..300_u64 {
        reserve(&mut log, &mut storage);
        append(&mut log, 1 + round % 97);
        let write = log.poll_write(Time(10 + round)).unwrap();
        writer.submit(write).unwrap();
        append(&mut log, 1);
        assert!(log.poll_write(Time(10)).is_none());
        log.on_written(completions.recv().unwrap().unwrap());
        while let Some(block) = reader.next_block(&beside, log.synced_seq()).unwrap() {
            for item in block.records_from(Seq(1)) {
                assert_eq!((item.seq.0, *item.bytes), (followed + 1, record(followed + 1)));
                followed += 1;
            }
        }
        assert_eq!(followed, log.synced_seq().0);
    }
    drop(writer);
    assert_eq!(replay(&mut storage).0, followed);
}

#[test]
fn after_an_error_the_writer_does_nothing_more() {
    let mut disk = MemoryStorage::new();
    let fsync = Options { segment_bytes: 1 << 20, ..Options::default() };
    wal::create(&mut disk, IDENTITY, fsync, Time(1)).unwrap();
    let recovered = Recovery::begin(&mut disk, IDENTITY, Anchor::GENESIS).unwrap().finish(&disk).unwrap();
    let mut log = recovered.open(&mut disk, fsync, Time(2)).unwrap();
    disk.fail_nth(2, Fault::Io);
    let (sender, completions) = mpsc::channel();
    let writer = LogWriter::spawn("log-0", disk, move |done| sender.send(done).unwrap()).unwrap();
    append(&mut log, 1);
    writer.submit(log.poll_write(Time(3)).unwrap()).unwrap();
    assert!(completions.recv().unwrap().is_err());
    assert!(completions.recv().is_err(), "no second completion");
    assert_eq!(log.acked_seq(), Seq(0));
    // Another log's block will do to see that nothing is taken any more.
    let mut other = MemoryStorage::new();
    wal::create(&mut other, IDENTITY, fsync, Time(1)).unwrap();
    let recovered = Recovery::begin(&mut other, IDENTITY, Anchor::GENESIS).unwrap().finish(&other).unwrap();
    let mut log = recovered.open(&mut other, fsync, Time(2)).unwrap();
    append(&mut log, 1);
    assert_eq!(writer.submit(log.poll_write(Time(3)).unwrap()), Err(WriterStopped));
}

#[test]
fn the_syncer_moves_the_synced_mark_and_syncs_the_rest_when_dropped() {
    let parent = directory();
    let data = create(parent.path());
    let mut storage = data.storage(ShardId(0), IoMode::Sync).unwrap();
    let mut log = open(&mut storage, Durability::Os);
    let (sender, marks) = mpsc::channel();
    let theirs = data.storage(ShardId(0), IoMode::Sync).unwrap();
    let syncer =
        Syncer::spawn("sync-0", theirs, Duration::from_secs(3600), move |done| sender.send(done).unwrap())
            .unwrap();
    append(&mut log, 5);
    let mut write_next = |log: &mut Log| {
        let write = log.poll_write(Time(10)).unwrap();
        write.perform(&mut storage).unwrap();
        syncer.written(write.file(), write.mark());
        log.on_written(write);
    };
    write_next(&mut log);
    log.on_synced(marks.recv().unwrap().unwrap().mark);
    assert_eq!(log.synced_seq(), Seq(5));
    append(&mut log, 5);
    write_next(&mut log);
    assert_eq!((log.acked_seq(), log.synced_seq()), (Seq(10), Seq(5)));
    // The pause is an hour; dropping it does not wait for that, and leaves nothing behind.
    drop(syncer);
    log.on_synced(marks.recv().unwrap().unwrap().mark);
    assert_eq!(log.synced_seq(), Seq(10));
    assert!(marks.recv().is_err());
}

#[test]
fn files_are_allocated_before_they_are_used() {
    let parent = directory();
    let mut storage = FileStorage::open(parent.path(), IoMode::Direct).unwrap();
    let name = FileName::Reserve { number: 1 };
    storage.create(name, 1 << 20).unwrap();
    let metadata = fs::metadata(parent.path().join(name.to_text())).unwrap();
    assert_eq!(metadata.len(), 1 << 20);
    assert!(metadata.blocks() * 512 >= 1 << 20, "{} blocks", metadata.blocks());
    assert!(storage.free_bytes().unwrap() > 1 << 20);
    assert_eq!(storage.list().unwrap(), [name]);
}

#[test]
fn direct_writes_of_odd_buffers_go_the_other_way() {
    let parent = directory();
    let mut storage = FileStorage::open(parent.path(), IoMode::Direct).unwrap();
    storage.create(SEGMENT, 1 << 20).unwrap();
    let mut page = PageBuffer::with_pages(2);
    page.as_mut_bytes().fill(7);
    storage.write_synced(SEGMENT, 4096, page.as_bytes()).unwrap();
    storage.write_synced(SEGMENT, 100, &page.as_bytes()[1..50]).unwrap();
    // Only the length is odd, then only the place in memory.
    storage.write_synced(SEGMENT, 16_384, &page.as_bytes()[..50]).unwrap();
    storage.write_synced(SEGMENT, 20_480, &page.as_bytes()[1..4097]).unwrap();
    storage.sync(SEGMENT).unwrap();
    let mut read = vec![0; 32_768];
    storage.read_at(SEGMENT, 0, &mut read).unwrap();
    let written = [100..149, 4096..12_288, 16_384..16_434, 20_480..24_576];
    let expected = |at: usize| u8::from(written.iter().any(|range| range.contains(&at))) * 7;
    assert!(read.iter().enumerate().all(|(at, byte)| *byte == expected(at)));
}

#[test]
fn errors_name_the_file_and_say_whether_to_abort() {
    let parent = directory();
    let mut storage = FileStorage::open(parent.path(), IoMode::Sync).unwrap();
    let error = storage.write_at(SEGMENT, 0, &[1]).unwrap_err();
    assert!(matches!(error, StorageError::Io { operation: Operation::Open, .. }) && !error.is_fatal());
    assert!(error.to_string().contains("00000000000000000001.wal"), "{error}");
    storage.create(SEGMENT, 4096).unwrap();
    let error = storage.read_at(SEGMENT, 4000, &mut [0; 200]).unwrap_err();
    assert!(matches!(error, StorageError::Io { operation: Operation::Read, offset: 4000, .. }));
    let mut read_only = FileStorage::open_read_only(parent.path()).unwrap();
    let error = read_only.write_at(SEGMENT, 0, &[1]).unwrap_err();
    assert!(matches!(error, StorageError::Io { operation: Operation::Write, .. }) && error.is_fatal());
    read_only.sync(SEGMENT).unwrap();
}

#[test]
fn snapshots_are_written_to_real_files() {
    let parent = directory();
    let mut storage = FileStorage::open(parent.path(), IoMode::Direct).unwrap();
    let header = SnapshotHeader {
        version: 1,
        identity: IDENTITY,
        epoch: surety_protocol::Epoch(1),
        seq: Seq(9),
        time: Time(1),
        chain: [0; 32],
        state_hash: 1,
    };
    let mut writer = SnapshotWriter::begin(&mut storage, header).unwrap();
    for _ in 0..5000 {
        writer.push(&mut storage, 1, &[3; 100]).unwrap();
    }
    let summary = writer.finish(&mut storage).unwrap();
    let name = FileName::Snapshot { seq: Seq(9) };
    assert_eq!(storage.list().unwrap(), [name]);
    assert_eq!(wal::verify_snapshot(&mut storage, name, IDENTITY).unwrap(), summary);
}

#[test]
fn a_directory_has_one_user() {
    let parent = directory();
    let lock = DirectoryLock::acquire(parent.path()).unwrap();
    let Err(LockError::Busy { holder, .. }) = DirectoryLock::acquire(parent.path()) else {
        panic!("not busy")
    };
    assert_eq!(holder, std::process::id().to_string());
    drop(lock);
    DirectoryLock::acquire(parent.path()).unwrap();

    let data = create(parent.path());
    let error = DataDirectory::open(data.path()).unwrap_err();
    assert!(error.is_busy(), "{error}");
    assert_eq!(DataDirectory::inspect(data.path()).unwrap(), METADATA);
    let path = data.path().to_owned();
    drop(data);
    DataDirectory::open(&path).unwrap();
}

#[test]
fn a_data_directory_knows_itself() {
    let parent = directory();
    let path = create(parent.path()).path().to_owned();
    let data = DataDirectory::open(&path).unwrap();
    assert_eq!(data.metadata(), METADATA);
    assert_eq!(data.shards().collect::<Vec<_>>(), [ShardId(0), ShardId(1)]);
    assert_eq!(data.identity(ShardId(1)), Identity { engine: METADATA.engine, shard: ShardId(1) });
    drop(data);
    let error = DataDirectory::create(&path, METADATA, Options::default()).unwrap_err();
    assert!(matches!(error, CreateDirectoryError::Exists(_)), "{error}");
    for shards in [0, 257] {
        let metadata = Metadata { shards, ..METADATA };
        let error =
            DataDirectory::create(&parent.path().join("x"), metadata, Options::default()).unwrap_err();
        assert!(matches!(error, CreateDirectoryError::Shards(_)), "{error}");
    }
    for id_window in [Time::ZERO, Time::from_secs(9), Time::from_millis(10_500), Time::from_secs(86_401)] {
        let metadata = Metadata { id_window, ..METADATA };
        let error =
            DataDirectory::create(&parent.path().join("x"), metadata, Options::default()).unwrap_err();
        assert!(matches!(error, CreateDirectoryError::IdWindow(_)), "{error}");
    }
}

#[test]
fn a_directory_without_a_window_of_ids_is_refused() {
    let parent = directory();
    let path = create(parent.path()).path().to_owned();
    let file = path.join(storage::METADATA_FILE);
    let text = fs::read_to_string(&file).unwrap();
    for lie in ["", "id_window_s = 5\n", "id_window_s = x\n"] {
        fs::write(&file, text.replace("id_window_s = 300\n", lie)).unwrap();
        let error = DataDirectory::inspect(&path).unwrap_err();
        let OpenDirectoryError::Foreign { reason, .. } = error else { panic!("{error}") };
        assert_eq!(reason, MetadataFault::Key("id_window_s"));
    }
}

#[test]
fn a_layout_that_was_never_released_is_refused() {
    let parent = directory();
    let path = create(parent.path()).path().to_owned();
    let file = path.join(storage::METADATA_FILE);
    let text = fs::read_to_string(&file).unwrap();
    for version in [0, 1] {
        fs::write(&file, text.replace("format = 2", &format!("format = {version}"))).unwrap();
        let error = DataDirectory::inspect(&path).unwrap_err();
        let OpenDirectoryError::Foreign { reason, .. } = error else { panic!("{error}") };
        assert_eq!(reason, MetadataFault::Unreleased(version));
    }
}

#[test]
fn without_a_choice_direct_is_taken_where_it_is_there() {
    let directory = directory();
    let explicit = FileStorage::open(directory.path(), IoMode::Direct);
    let chosen = IoMode::for_directory(directory.path()).unwrap();
    assert_eq!(chosen == IoMode::Direct, explicit.is_ok());
    let nowhere = IoMode::for_directory(&directory.path().join("nowhere"));
    assert!(matches!(nowhere, Err(StorageError::Io { .. })));
    // No direct I/O, and no nameless files either.
    assert_eq!(IoMode::for_directory(Path::new("/proc/self")).unwrap(), IoMode::Sync);
}

#[test]
fn other_directories_are_refused() {
    let parent = directory();
    let path = create(parent.path()).path().to_owned();
    let missing = DataDirectory::open(&parent.path().join("nowhere")).unwrap_err();
    assert!(matches!(missing, OpenDirectoryError::Missing(_)));
    let fault = |text: Option<&str>| {
        let file = path.join(storage::METADATA_FILE);
        match text {
            Some(text) => fs::write(&file, text).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        match DataDirectory::open(&path).unwrap_err() {
            OpenDirectoryError::Foreign { reason, .. } => reason,
            other => panic!("{other}"),
        }
    };
    let engine = "engine = \"00000000000000000000000000000abc\"\n";
    assert_eq!(fault(Some("")), MetadataFault::Key("format"));
    assert_eq!(fault(Some("hello")), MetadataFault::Key("format"));
    assert_eq!(fault(Some("format = 2\nhello")), MetadataFault::Line(2));
    assert_eq!(fault(Some("format = 2\nother = 3")), MetadataFault::Line(2));
    assert_eq!(fault(Some("format = 2\nshards = 2\nshards = 2")), MetadataFault::Line(3));
    assert_eq!(
        fault(Some("format = 2\nengine = \"abc\"\nshards = 1\ncreated = 1")),
        MetadataFault::Key("engine")
    );
    let text = format!("format = 2\n{engine}shards = 0\ncreated = 1");
    assert_eq!(fault(Some(&text)), MetadataFault::Key("shards"));
    let text = format!("format = 2\n{engine}shards = 1\n");
    assert_eq!(fault(Some(&text)), MetadataFault::Key("created"));
    assert_eq!(fault(None), MetadataFault::Absent);

    fs::write(path.join(storage::METADATA_FILE), "format = 3\nwhatever = true\n").unwrap();
    let newer = DataDirectory::open(&path).unwrap_err();
    assert!(matches!(newer, OpenDirectoryError::Newer { version: 3, .. }), "{newer}");
    let text = format!("format = 2\n{engine}shards = 3\ncreated = 1\nid_window_s = 300");
    fs::write(path.join(storage::METADATA_FILE), text).unwrap();
    let missing = DataDirectory::open(&path).unwrap_err();
    assert!(matches!(missing, OpenDirectoryError::ShardMissing(_)), "{missing}");
}

#[test]
fn a_creation_that_is_cut_short_leaves_no_data_directory() {
    let parent = directory();
    let path = parent.path().join("data");
    let furnish = |path: &Path| {
        assert!(path.join("shard-1").is_dir() && !path.join("engine.toml").exists());
        Err(CreateDirectoryError::Shards(7))
    };
    let error = DataDirectory::create_with(&path, METADATA, options(Durability::Fsync), furnish).unwrap_err();
    assert!(matches!(error, CreateDirectoryError::Shards(7)), "{error}");
    let error = DataDirectory::open(&path).unwrap_err();
    assert!(matches!(error, OpenDirectoryError::Foreign { reason: MetadataFault::Absent, .. }), "{error}");
    let error = DataDirectory::create(&path, METADATA, options(Durability::Fsync)).unwrap_err();
    assert!(matches!(error, CreateDirectoryError::HalfMade(_)), "{error}");
    fs::remove_dir_all(&path).unwrap();
    create(parent.path());
}
