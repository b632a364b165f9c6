//! What a directory that is not as it should be comes to, and a file system that says no.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::mpsc;
use std::time::Duration;

use storage::{
    CreateDirectoryError, DataDirectory, DirectoryLock, FileStorage, IoMode, LOCK_FILE, LockError,
    METADATA_FILE, Metadata, MetadataFault, OpenDirectoryError, Operation, RestoringDirectory, StorageError,
    Syncer,
};
use surety_protocol::{EngineId, Seq, Time};
use tempfile::TempDir;
use wal::memory::MemoryStorage;
use wal::{Anchor, FileName, Identity, Options, Recovery, Storage};

const METADATA: Metadata = Metadata {
    engine: EngineId(0xabc),
    shards: 1,
    created: Time(5),
    id_window: Time::from_secs(300),
    is_forensic: false,
};

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

const fn segment(first_seq: u64) -> FileName {
    FileName::Segment { first_seq: Seq(first_seq) }
}

fn options() -> Options {
    Options { segment_bytes: 1 << 20, ..Options::default() }
}

fn operation_of(error: &StorageError) -> Operation {
    let StorageError::Io { operation, .. } = error else { panic!("{error}") };
    *operation
}

#[test]
fn a_lock_file_that_cannot_be_one_is_an_accident_and_not_another_process() {
    let parent = directory();
    let path = parent.path().join("data");
    drop(DataDirectory::create(&path, METADATA, options()).unwrap());
    fs::remove_file(path.join(LOCK_FILE)).unwrap();
    fs::create_dir(path.join(LOCK_FILE)).unwrap();
    let error = DataDirectory::open(&path).unwrap_err();
    assert!(matches!(error, OpenDirectoryError::Lock(LockError::Io { .. })), "{error}");
    assert!(!error.is_busy());
    assert!(error.to_string().contains(LOCK_FILE), "{error}");
}

#[test]
fn a_holder_that_left_no_id_is_unknown() {
    let parent = directory();
    let held = DirectoryLock::acquire(parent.path()).unwrap();
    for (bytes, expect) in
        [(&b"12\n"[..], "12"), (b"", "unknown"), (b"\n", "unknown"), (&[0xff, 0xfe], "unknown")]
    {
        fs::write(parent.path().join(LOCK_FILE), bytes).unwrap();
        let error = DirectoryLock::acquire(parent.path()).unwrap_err();
        assert!(matches!(&error, LockError::Busy { holder, .. } if holder == expect), "{error}");
    }
    drop(held);
}

#[test]
fn metadata_that_cannot_be_read_is_told_from_metadata_that_makes_no_sense() {
    let parent = directory();
    let path = parent.path().join("data");
    drop(DataDirectory::create(&path, METADATA, options()).unwrap());
    let file = path.join(METADATA_FILE);
    let text = fs::read_to_string(&file).unwrap();
    // Empty lines and remarks say nothing.
    fs::write(&file, text.replace('\n', "\n\n  # a remark\n")).unwrap();
    assert_eq!(DataDirectory::inspect(&path).unwrap(), METADATA);

    let fault = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        match DataDirectory::inspect(&path).unwrap_err() {
            OpenDirectoryError::Foreign { reason, .. } => reason,
            other => panic!("{other}"),
        }
    };
    assert_eq!(fault(&[0xff, 0xfe]), MetadataFault::Line(1));
    let hex = format!("{}", METADATA.engine);
    for (good, bad, key) in [
        (hex.as_str(), "0000000000000000000000000000g0bc", "engine"),
        ("engine = \"", "engine = ", "engine"),
        ("created = 5", "created = x", "created"),
        ("created = 5", "created = -5", "created"),
        ("id_window_s = 300", "id_window_s = 18446744073709551615", "id_window_s"),
        ("shards = 1", "shards = 257", "shards"),
    ] {
        assert!(text.contains(good), "{good}");
        assert_eq!(fault(text.replace(good, bad).as_bytes()), MetadataFault::Key(key), "{bad}");
    }

    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let error = DataDirectory::open(&path).unwrap_err();
    assert!(matches!(&error, OpenDirectoryError::Io { path, .. } if *path == file), "{error}");
}

#[test]
fn nothing_is_created_beside_the_files_of_others() {
    let parent = directory();
    fs::write(parent.path().join("file"), "here").unwrap();
    let error = DataDirectory::create(parent.path(), METADATA, options()).unwrap_err();
    assert!(matches!(error, CreateDirectoryError::Exists(_)), "{error}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
}

#[test]
fn nothing_is_created_below_a_file() {
    let parent = directory();
    let file = parent.path().join("file");
    fs::write(&file, "here").unwrap();
    let error = DataDirectory::create(&file.join("data"), METADATA, options()).unwrap_err();
    assert!(matches!(error, CreateDirectoryError::Io { .. }), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "here");
}

#[test]
fn what_the_file_system_refuses_is_named_by_operation_and_says_whether_to_abort() {
    let parent = directory();
    let path = parent.path().join("shard");
    fs::create_dir(&path).unwrap();
    let mut storage = FileStorage::open(&path, IoMode::Sync).unwrap();
    for (error, operation, is_fatal) in [
        (storage.len(segment(1)).unwrap_err(), Operation::Open, false),
        (storage.sync(segment(1)).unwrap_err(), Operation::Open, false),
        (storage.rename(segment(1), segment(2)).unwrap_err(), Operation::Rename, true),
        (storage.remove(segment(1)).unwrap_err(), Operation::Remove, false),
    ] {
        assert_eq!((operation_of(&error), error.is_fatal()), (operation, is_fatal), "{error}");
    }
    // More than any file may hold: nothing is left of it.
    let reserve = FileName::Reserve { number: 1 };
    let error = storage.create(reserve, 1 << 60).unwrap_err();
    assert!(error.is_no_space() && error.is_survivable(), "{error}");
    assert!(error.to_string().contains("reserve-"), "{error}");
    assert_eq!(storage.list().unwrap(), []);

    fs::remove_dir(&path).unwrap();
    let error = storage.create(reserve, 4096).unwrap_err();
    assert_eq!((operation_of(&error), error.is_no_space()), (Operation::Create, false), "{error}");
    assert_eq!(operation_of(&storage.list().unwrap_err()), Operation::List);
    assert_eq!(operation_of(&FileStorage::open(&path, IoMode::Sync).unwrap_err()), Operation::Open);
}

#[test]
fn a_log_of_many_segments_is_read_with_few_files_open() {
    let parent = directory();
    let mut storage = FileStorage::open(parent.path(), IoMode::Sync).unwrap();
    for first in 1..=30 {
        storage.create(segment(first), 4096).unwrap();
        storage.write_synced(segment(first), 0, &first.to_le_bytes()).unwrap();
    }
    let reader = FileStorage::open_read_only(parent.path()).unwrap();
    let mut bytes = [0; 8];
    for first in (1..=30).chain(1..=30) {
        reader.read_at(segment(first), 0, &mut bytes).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), first);
    }
    let path = parent.path().canonicalize().unwrap();
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.ok()?.path().read_link().ok());
    let ours = open.filter(|file| file.starts_with(&path) && file.extension().is_some()).count();
    assert!(ours <= 16, "{ours} files are open");
}

#[test]
fn the_syncer_tells_of_an_error_once_and_ends() {
    let parent = directory();
    let mut disk = MemoryStorage::new();
    let identity = Identity { engine: METADATA.engine, shard: surety_protocol::ShardId(0) };
    wal::create(&mut disk, identity, options(), Time(1)).unwrap();
    let recovered = Recovery::begin(&mut disk, identity, Anchor::GENESIS).unwrap().finish(&disk).unwrap();
    let mark = recovered.open(&mut disk, options(), Time(2)).unwrap().acked();
    let (sender, marks) = mpsc::channel();
    let theirs = FileStorage::open(parent.path(), IoMode::Sync).unwrap();
    let syncer =
        Syncer::spawn("sync-0", theirs, Duration::from_millis(1), move |done| sender.send(done).unwrap())
            .unwrap();
    // There is no such file.
    syncer.written(segment(1), mark);
    assert_eq!(operation_of(&marks.recv().unwrap().unwrap_err()), Operation::Open);
    syncer.written(segment(1), mark);
    assert!(marks.recv().is_err(), "no second completion");
    drop(syncer);
}

#[test]
fn what_a_backup_is_put_into_is_its_owners_alone() {
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let parent = directory();
    let (new, open) = (parent.path().join("above/new"), parent.path().join("open"));
    drop(RestoringDirectory::begin(&new).unwrap());
    assert_eq!(mode(&new), 0o700);
    // One that was there, for everybody to write to.
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    drop(RestoringDirectory::begin(&open).unwrap());
    assert_eq!(mode(&open), 0o700);
    let other = parent.path().join("other");
    fs::create_dir(&other).unwrap();
    if chown(&other, Some(12_345), None).is_err() {
        eprintln!("SKIPPED: only root can give a directory to another user");
        return;
    }
    let error = RestoringDirectory::begin(&other).unwrap_err();
    assert!(matches!(error, CreateDirectoryError::Owner { owner: 12_345, .. }), "{error}");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0, "nothing is changed");
}
