//! A shard's log is copied whole, cut where it is asked for, or refused.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backup::{ArchiveError, Copied, CopyError, FetchError, FilePart, ShardPart, archive_segment};
use backup::{Cut, CutError, Depot, DirectoryDepot, Extent, Mark, Moment, Reach, Wanted, copy_shard, cut};
use storage::{FileStorage, IoMode};
use surety_protocol::limits::BLOCK_BYTES_MAX;
use surety_protocol::{
    Amount, ControlBody, EngineId, Epoch, Id, Kind, LossBody, PartitionHandle, Record, Seq, ShardId, Time,
};
use wal::{Anchor, FileName, Identity, Log, Options, Recovery, SnapshotHeader, SnapshotWriter, TailReader};

const IDENTITY: Identity = Identity { engine: EngineId(7), shard: ShardId(0) };
/// Segments as small as they can be: 64 small blocks.
const OPTIONS: Options =
    Options { durability: wal::Durability::Fsync, is_guarded: false, segment_bytes: BLOCK_BYTES_MAX as u64 };

/// Locked at a time behind all records.
const CLOSED: Mark = Mark::Closed(Time(1_000));

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
        self.copy_of(to, mark, Extent::Newest)
    }

    fn copy_of(&self, to: &str, mark: Mark, extent: Extent) -> Result<(ShardPart, Vec<FilePart>), CopyError> {
        let depot = DirectoryDepot::new(&self.directory.path().join(to));
        let copied = copy_shard(&self.shard(), IDENTITY, wanted(mark, extent), &depot, &mut |_| {})?;
        // No engine without a loss writes more, and a program before this one still reads it.
        assert_eq!(copied.log_format, 1);
        Ok((copied.part, copied.files))
    }

    /// A snapshot of the state after a record. Its chain is that after the record's block.
    fn snapshot(&self, seq: u64) -> FileName {
        let mut storage = self.storage();
        let mut reader = TailReader::new(IDENTITY, Seq(seq));
        let block = reader.next_block(&storage, Seq(u64::MAX)).unwrap().unwrap();
        let header = SnapshotHeader {
            version: 1,
            identity: IDENTITY,
            epoch: block.header.epoch,
            seq: Seq(seq),
            time: block.header.time,
            chain: block.chain_after,
            state_hash: 0,
        };
        SnapshotWriter::begin(&mut storage, header).unwrap().finish(&mut storage).unwrap();
        FileName::Snapshot { seq: Seq(seq) }
    }

    /// Removes the segments that end before a record, as retention does.
    fn forget_before(&self, seq: u64) {
        for span in wal::list_segments(&self.storage()).unwrap() {
            if span.last_seq.is_some_and(|last| last < Seq(seq)) {
                fs::remove_file(self.shard().join(span.file().to_text())).unwrap();
            }
        }
    }

    fn copied(&self, to: &str) -> PathBuf {
        self.directory.path().join(to).join("shard-0")
    }
}

/// However little room there is.
fn wanted(mark: Mark, extent: Extent) -> Wanted {
    Wanted { mark, extent, free_bytes_min: 0 }
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
    read_from(path, Anchor::GENESIS)
}

/// The anchor of a snapshot in a copy.
fn anchor(path: &Path, seq: u64) -> Anchor {
    let mut storage = FileStorage::open_read_only(path).unwrap();
    let summary = wal::verify_snapshot(&mut storage, FileName::Snapshot { seq: Seq(seq) }, IDENTITY).unwrap();
    Anchor { seq: Seq(seq), chain: summary.header.chain }
}

fn read_from(path: &Path, anchor: Anchor) -> Vec<u64> {
    let mut storage = FileStorage::open_read_only(path).unwrap();
    let mut recovery = Recovery::begin(&mut storage, IDENTITY, anchor).unwrap();
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
    let (part, files) = world.copy("backup", CLOSED).unwrap();
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
    for (to, mark) in [("closed", CLOSED), ("open", Mark::Synced(Seq(0)))] {
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
        for mark in [CLOSED, Mark::Synced(Seq(450))] {
            let error = world.copy("damaged", mark).unwrap_err();
            assert!(matches!(error, CopyError::Log(_) | CopyError::Tail(_)), "{error}");
        }
        flip(path, offset);
    }
    fs::remove_file(&second).unwrap();
    assert!(world.copy("hole", CLOSED).is_err());
    assert!(world.copy("hole", Mark::Synced(Seq(450))).is_err());
}

#[test]
fn a_log_of_somebody_else_is_not_copied() {
    let world = World::with_blocks(2);
    let depot = DirectoryDepot::new(&world.directory.path().join("backup"));
    let foreign = Identity { engine: EngineId(8), ..IDENTITY };
    for mark in [CLOSED, Mark::Synced(Seq(6))] {
        assert!(
            copy_shard(&world.shard(), foreign, wanted(mark, Extent::Newest), &depot, &mut |_| {}).is_err()
        );
    }
}

#[test]
fn a_cut_copy_ends_with_its_moment_wherever_that_is() {
    let world = World::with_blocks(70);
    // The first blocks, and those where a segment ends.
    for last in (0..=7).chain(165..=185).chain(208..=210) {
        for moment in [Moment::Seq(Seq(last)), Moment::Time(Time(last))] {
            let to = format!("cut-{last}-{}", matches!(moment, Moment::Seq(_)));
            world.copy(&to, CLOSED).unwrap();
            let path = world.copied(&to);
            assert_eq!(
                cut(&path, IDENTITY, moment, Seq(210), Time(210)).unwrap(),
                Cut { last_seq: Seq(last) }
            );
            assert_eq!(read(&path), (1..=last).collect::<Vec<u64>>());
        }
    }
    world.copy("late", CLOSED).unwrap();
    let late = cut(&world.copied("late"), IDENTITY, Moment::Seq(Seq(211)), Seq(210), Time(210));
    assert!(matches!(late, Err(CutError::TooLate(Seq(210)))), "{late:?}");
}

#[test]
fn a_cut_between_a_start_and_what_was_lost_leaves_neither() {
    // The start stands in the middle of a segment, and at the beginning of one.
    for blocks in [0, 3, 5, 60, 61, 62, 63, 64, 65] {
        let world = World::with_blocks(blocks);
        let end = go_on_after_a_loss(&world);
        let start = end.0 - 3;
        for (until, expect) in
            [(start - 1, start - 1), (start, start - 1), (start + 1, start + 1), (end.0, end.0)]
        {
            let to = format!("cut-{until}");
            let depot = DirectoryDepot::new(&world.directory.path().join(&to));
            copy_shard(&world.shard(), IDENTITY, wanted(CLOSED, Extent::Newest), &depot, &mut |_| {})
                .unwrap();
            let path = world.copied(&to);
            let done = cut(&path, IDENTITY, Moment::Seq(Seq(until)), end, Time(end.0)).unwrap();
            assert_eq!(done, Cut { last_seq: Seq(expect) }, "{until} of {blocks} blocks");
            assert_eq!(read(&path).len() as u64, expect, "{until} of {blocks} blocks");
            // What goes back behind the loss is a log as it was before, and one that tells of it keeps its form.
            assert_eq!(version(&path), if expect < start { 1 } else { 2 }, "{until} of {blocks} blocks");
        }
    }
}

fn version(path: &Path) -> u16 {
    let mut storage = FileStorage::open_read_only(path).unwrap();
    let mut recovery = Recovery::begin(&mut storage, IDENTITY, Anchor::GENESIS).unwrap();
    while recovery.next_block(&storage).unwrap().is_some() {}
    recovery.finish(&storage).unwrap().version()
}

/// Opens the log once more as after a loss, and ends it two records later.
fn go_on_after_a_loss(world: &World) -> Seq {
    let mut storage = world.storage();
    let recovery = Recovery::begin(&mut storage, IDENTITY, Anchor::GENESIS).unwrap();
    let recovered = recovery.finish(&storage).unwrap();
    let now = Time(500);
    let mut log = recovered.open_after_loss(&mut storage, OPTIONS, now, Epoch(100_000)).unwrap();
    for kind in [Kind::Start, Kind::Loss] {
        let mut record = Record::new(kind, Id(0), PartitionHandle(0), Amount::ZERO, &LossBody::default());
        record.time = now;
        log.append(&record.to_bytes());
    }
    write(&mut log, &mut storage, |log| log.poll_write(now));
    for seq in [501, 502] {
        log.append(&record_at(seq).to_bytes());
    }
    write(&mut log, &mut storage, |log| log.poll_write(now));
    write(&mut log, &mut storage, |log| log.poll_seal(now));
    Seq(log.next_seq().0 - 1)
}

#[test]
fn what_retention_removes_during_a_copy_is_in_it() {
    for (to, mark) in [("closed", CLOSED), ("open", Mark::Synced(Seq(450)))] {
        let world = World::with_blocks(150);
        let depot = DirectoryDepot::new(&world.directory.path().join(to));
        let mut removed = 0;
        let mut remove_all = |_| {
            for span in wal::list_segments(&world.storage()).unwrap() {
                fs::remove_file(world.shard().join(span.file().to_text())).unwrap();
                removed += 1;
            }
        };
        let Copied { part, .. } =
            copy_shard(&world.shard(), IDENTITY, wanted(mark, Extent::Whole), &depot, &mut remove_all)
                .unwrap();
        assert!(removed > 2, "{removed} segments went while the first was copied");
        assert_eq!(part.last_seq, 450);
        assert_eq!(read(&world.copied(to)), (1..=450).collect::<Vec<u64>>());
    }
}

#[test]
fn a_copy_with_a_snapshot_begins_with_it_and_goes_to_the_end_of_the_log() {
    // One that ends its block, and one that does not.
    for base in [300, 301] {
        let world = World::with_blocks(150);
        world.snapshot(base);
        world.forget_before(base);
        for (to, mark) in [("closed", CLOSED), ("open", Mark::Synced(Seq(450)))] {
            let (part, _) = world.copy(to, mark).unwrap();
            assert_eq!((part.snapshot, part.last_seq), (Some(base), 450));
            assert!(part.first_seq > 1 && part.first_seq <= base, "{part:?}");
            let found = read_from(&world.copied(to), anchor(&world.copied(to), base));
            assert_eq!(found.last(), Some(&450));
            assert!(found.first() <= Some(&(base + 1)) && found.windows(2).all(|two| two[0] + 1 == two[1]));
        }
    }
}

#[test]
fn the_whole_log_is_copied_whatever_snapshots_there_are() {
    let world = World::with_blocks(150);
    world.snapshot(300);
    let (part, _) = world.copy_of("whole", CLOSED, Extent::Whole).unwrap();
    assert_eq!((part.first_seq, part.last_seq, part.snapshot), (1, 450, None));
    assert_eq!(read(&world.copied("whole")), (1..=450).collect::<Vec<u64>>());
    // Of what is left the oldest snapshot shows the most.
    world.snapshot(330);
    world.forget_before(300);
    let (part, _) = world.copy_of("left", CLOSED, Extent::Whole).unwrap();
    assert_eq!((part.snapshot, part.last_seq), (Some(300), 450));
}

#[test]
fn a_snapshot_that_is_newer_than_the_mark_is_not_begun_with() {
    let world = World::with_blocks(150);
    world.snapshot(240);
    world.snapshot(301);
    let (part, _) = world.copy("older", Mark::Synced(Seq(300))).unwrap();
    assert_eq!((part.snapshot, part.last_seq), (Some(240), 300));
    let (part, _) = world.copy("newer", Mark::Synced(Seq(303))).unwrap();
    assert_eq!((part.snapshot, part.last_seq), (Some(301), 303));
    fs::remove_file(world.shard().join(FileName::Snapshot { seq: Seq(240) }.to_text())).unwrap();
    world.forget_before(300);
    let error = world.copy("none", Mark::Synced(Seq(300))).unwrap_err();
    assert!(matches!(error, CopyError::Behind { synced: Seq(300), .. }), "{error}");
    assert!(!world.directory.path().join("none").exists(), "nothing is copied yet: the next mark may do");
}

#[test]
fn without_a_snapshot_that_holds_the_log_is_copied_from_its_beginning() {
    let world = World::with_blocks(150);
    let snapshot = world.snapshot(300);
    flip(&world.shard().join(snapshot.to_text()), 20);
    let (part, _) = world.copy("beginning", CLOSED).unwrap();
    assert_eq!((part.first_seq, part.last_seq, part.snapshot), (1, 450, None));
    assert_eq!(read(&world.copied("beginning")), (1..=450).collect::<Vec<u64>>());
    world.forget_before(300);
    assert!(matches!(world.copy("none", CLOSED), Err(CopyError::NoBase { .. })));
}

#[test]
fn a_cut_at_a_snapshot_within_a_block_has_none_or_is_refused() {
    let moment = Moment::Seq(Seq(301));
    let world = World::with_blocks(150);
    world.snapshot(301);
    world.copy_of("whole", CLOSED, Extent::Whole).unwrap();
    let name = FileName::Snapshot { seq: Seq(301) }.to_text();
    fs::copy(world.shard().join(&name), world.copied("whole").join(&name)).unwrap();
    assert_eq!(
        cut(&world.copied("whole"), IDENTITY, moment, Seq(450), Time(450)).unwrap().last_seq,
        Seq(301)
    );
    assert!(!world.copied("whole").join(&name).exists(), "it is of more than is left of its block");
    assert_eq!(read(&world.copied("whole")), (1..=301).collect::<Vec<u64>>());
    world.forget_before(301);
    world.copy("part", CLOSED).unwrap();
    let refused = cut(&world.copied("part"), IDENTITY, moment, Seq(450), Time(450));
    assert!(matches!(refused, Err(CutError::TooEarly(Seq(302)))), "{refused:?}");
    let next = Moment::Seq(Seq(302));
    assert_eq!(cut(&world.copied("part"), IDENTITY, next, Seq(450), Time(450)).unwrap().last_seq, Seq(302));
    assert_eq!(read_from(&world.copied("part"), anchor(&world.copied("part"), 301)).last(), Some(&302));
}

#[test]
fn a_time_of_which_the_copy_need_not_hold_everything_is_refused() {
    let world = World::with_blocks(150);
    let check = |part: &ShardPart, time| Reach::of(part).check(Moment::Time(Time(time)));
    // Beside a writer the next record may be of the last one's moment.
    let (open, _) = world.copy("open", Mark::Synced(Seq(300))).unwrap();
    assert_eq!(open.complete_until, 299);
    check(&open, 299).unwrap();
    assert!(matches!(check(&open, 300), Err(CutError::Incomplete { end: Seq(300), .. })));
    // A closed log knows that nothing came until it was locked.
    let (closed, _) = world.copy("closed", CLOSED).unwrap();
    assert_eq!(closed.complete_until, 999);
    check(&closed, 999).unwrap();
    assert!(matches!(check(&closed, 1_000), Err(CutError::Incomplete { .. })));
    assert!(matches!(Reach::of(&closed).check(Moment::Seq(Seq(451))), Err(CutError::TooLate(Seq(450)))));
    // The copy says the same: what it holds counts, where it goes on behind what the manifest knows.
    let of = |time: u64, known: u64| {
        cut(&world.copied("closed"), IDENTITY, Moment::Time(Time(time)), Seq(450), Time(known))
    };
    assert!(matches!(of(450, 299), Err(CutError::Incomplete { complete_until: Time(449), .. })));
    assert_eq!(of(999, 999).unwrap(), Cut { last_seq: Seq(450) });
    assert_eq!(of(449, 299).unwrap(), Cut { last_seq: Seq(449) });
}

#[test]
fn a_copy_that_fills_the_disk_with_removed_files_lets_go_of_them() {
    let world = World::with_blocks(150);
    let wanted = Wanted { free_bytes_min: u64::MAX, ..wanted(CLOSED, Extent::Whole) };
    // Nothing was removed: what the disk has left is the engine's own business.
    let depot = DirectoryDepot::new(&world.directory.path().join("kept"));
    copy_shard(&world.shard(), IDENTITY, wanted, &depot, &mut |_| {}).unwrap();
    let depot = DirectoryDepot::new(&world.directory.path().join("removed"));
    let mut forget = |_| world.forget_before(400);
    let refused = copy_shard(&world.shard(), IDENTITY, wanted, &depot, &mut forget).unwrap_err();
    assert!(matches!(refused, CopyError::LowSpace { .. }), "{refused}");
}

#[test]
fn a_block_of_a_newer_program_is_told_from_damage() {
    let world = World::with_blocks(10);
    let first = world.shard().join("00000000000000000001.wal");
    let mut bytes = fs::read(&first).unwrap();
    // Behind the empty block that the log begins with.
    let header = &mut bytes[4096..];
    let at = header_crc_at(header);
    let newer = wal::format::VERSION + 1;
    header[8..10].copy_from_slice(&newer.to_le_bytes());
    let crc = crc32c::crc32c(&header[..at]);
    header[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    fs::write(&first, &bytes).unwrap();
    let refused = world.copy("to", Mark::Synced(Seq(30))).unwrap_err();
    assert!(
        matches!(refused, CopyError::Newer { offset: 4096, version, .. } if version == newer),
        "{refused}"
    );
    assert!(matches!(world.copy("to", CLOSED), Err(CopyError::Log(wal::RecoverError::Newer { .. }))));
}

/// Where a header's checksum is: over all that is before it.
fn header_crc_at(header: &[u8]) -> usize {
    let is_crc = |at: &usize| header[*at..at + 4] == crc32c::crc32c(&header[..*at]).to_le_bytes();
    (16..256).find(is_crc).unwrap()
}

/// The segments of a log that are complete, each with its last record.
fn complete(world: &World) -> Vec<(FileName, Seq)> {
    let spans = wal::list_segments(&world.storage()).unwrap();
    spans.into_iter().filter_map(|span| Some((span.file(), span.last_seq?))).collect()
}

#[test]
fn a_segment_is_archived_once_and_never_over_another() {
    let world = World::with_blocks(150);
    let depot = DirectoryDepot::new(&world.directory.path().join("archive"));
    let (segment, last_seq) = complete(&world)[0];
    let archive = || archive_segment(&depot, IDENTITY, &world.shard(), segment, last_seq);
    archive().unwrap();
    archive().unwrap();
    let kept = world.copied("archive").join(segment.to_text());
    let (ours, theirs) = (fs::read(world.shard().join(segment.to_text())).unwrap(), fs::read(&kept).unwrap());
    assert!(ours.starts_with(&theirs) && ours[theirs.len()..].iter().all(|byte| *byte == 0));
    flip(&kept, 100);
    let other = fs::read(&kept).unwrap();
    assert!(matches!(archive(), Err(ArchiveError::Differs { .. })));
    assert_eq!(fs::read(&kept).unwrap(), other, "what is kept stays");
    fs::remove_file(world.shard().join(segment.to_text())).unwrap();
    assert!(matches!(archive(), Err(ArchiveError::Copy(_) | ArchiveError::Storage(_))));
}

#[test]
fn a_segment_that_has_rotted_is_not_archived() {
    let world = World::with_blocks(150);
    let segments = complete(&world);
    assert!(segments.len() > 1, "{segments:?}");
    let depot = DirectoryDepot::new(&world.directory.path().join("archive"));
    for &(segment, last_seq) in &segments {
        let path = world.shard().join(segment.to_text());
        let used = fs::read(&path).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
        let archive = || archive_segment(&depot, IDENTITY, &world.shard(), segment, last_seq);
        // In its first block, in a record, and in the last block that it has.
        for offset in [40, 4096 + 300, used as u64 / 4096 * 4096 + 20] {
            flip(&path, offset);
            let refused = archive().unwrap_err();
            assert!(matches!(refused, ArchiveError::Rot { .. }), "{segment} {offset}: {refused}");
            flip(&path, offset);
        }
        let foreign = Identity { engine: EngineId(8), ..IDENTITY };
        assert!(archive_segment(&depot, foreign, &world.shard(), segment, last_seq).is_err());
        assert!(depot.names().unwrap().iter().all(|name| !name.contains(&segment.to_text())));
        archive().unwrap();
    }
}

#[test]
fn an_archive_must_have_what_the_backup_has() {
    let world = World::with_blocks(150);
    let archive = DirectoryDepot::new(&world.directory.path().join("archive"));
    for (segment, last_seq) in complete(&world) {
        archive_segment(&archive, IDENTITY, &world.shard(), segment, last_seq).unwrap();
    }
    let (part, _) = world.copy("sound", Mark::Synced(Seq(60))).unwrap();
    assert_eq!(part.last_seq, 60);
    let extend = |to: &str| backup::extend(&archive, ShardId(0), &world.directory.path().join(to));
    extend("sound").unwrap();
    let archived = complete(&world).last().unwrap().1;
    assert_eq!(read(&world.copied("sound")), (1..=archived.0).collect::<Vec<u64>>());
    // A sound log of another life of the engine, which a replay of the archive alone would take.
    let first = world.copied("archive").join("00000000000000000001.wal");
    let sound = fs::read(&first).unwrap();
    for (name, change) in [
        ("flipped", Box::new(|bytes: &mut Vec<u8>| bytes[4096 + 300] ^= 1) as Box<dyn Fn(&mut Vec<u8>)>),
        ("short", Box::new(|bytes: &mut Vec<u8>| bytes.truncate(8192))),
    ] {
        let mut bytes = sound.clone();
        change(&mut bytes);
        fs::write(&first, bytes).unwrap();
        world.copy(name, Mark::Synced(Seq(60))).unwrap();
        let refused = extend(name).unwrap_err();
        assert!(matches!(refused, FetchError::Diverges { .. }), "{name}: {refused}");
    }
}

#[test]
fn a_file_that_was_changed_is_not_put_back() {
    let world = World::with_blocks(10);
    let (_, files) = world.copy("to", CLOSED).unwrap();
    let depot = DirectoryDepot::new(&world.directory.path().join("to"));
    let path = world.directory.path().join("to").join(&files[0].name);
    let sound = fs::read(&path).unwrap();
    let fetch = |to: &str| backup::fetch(&depot, &files[0], &world.directory.path().join(to));
    fetch("back").unwrap();
    let changes: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes[4096 + 300] ^= 1, |bytes| _ = bytes.pop(), |bytes| bytes.push(0)];
    for (number, change) in changes.into_iter().enumerate() {
        let mut bytes = sound.clone();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let refused = fetch(&format!("back-{number}"));
        assert!(matches!(refused, Err(FetchError::Damaged { .. })), "{number}: {refused:?}");
    }
}
