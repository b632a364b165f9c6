//! Logs of every format version, kept for ever: they replay, and this program still writes the same bytes.
//!
//! `GOLDEN=write cargo test -p wal --test golden` writes the files of the current version; a change of these is a change of
//! the format and needs a new version.
#![allow(clippy::unwrap_used, reason = "test code")]

mod world;

use std::path::{Path, PathBuf};

use surety_protocol::{EngineId, Epoch, Seq, ShardId, Time};
use wal::memory::MemoryStorage;
use wal::{
    Anchor, Durability, FileName, Header, Identity, Kind, OpenError, SnapshotHeader, SnapshotWriter, Storage,
    format, verify_snapshot,
};
use world::{GUARDED, IDENTITY, World, replay, replay_from};

/// Chain hash of the golden log of version 1.
const CHAIN_1: &str = "f18f93e289fcf11b1e6507b1bd9cbada8506347080bf1862d1b03274bcab3afe";
/// The same of version 2.
const CHAIN_2: &str = "db3607a76c78c9774c13badc58f07476a91d0aaf0cfd98e4dd72278b813b01e2";

fn directory(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("format-{version}"))
}

/// The disk that the golden files were taken from: two epochs, a seal, a torn tail, a ring and a snapshot. In version 2 the last
/// epoch begins after a loss, and there is a snapshot of it, too.
fn golden_disk(version: u16) -> MemoryStorage {
    let mut world = World::new(GUARDED);
    for records in [1, 2, 40] {
        world.block(records);
    }
    let (seq, chain) = (world.log.synced_seq(), world.log.chain());
    world.seal();
    let header = SnapshotHeader {
        version: 1,
        identity: IDENTITY,
        epoch: world.log.epoch(),
        seq,
        time: Time(7),
        chain,
        state_hash: 0x0123_4567_89ab_cdef,
    };
    let mut snapshot = SnapshotWriter::begin(&mut world.disk, header).unwrap();
    for (kind, length) in [(1, 0), (2, 100), (9, 255)] {
        snapshot.push(&mut world.disk, kind, &vec![kind; length]).unwrap();
    }
    snapshot.finish(&mut world.disk).unwrap();
    world = match version {
        1 => World::start(world.disk, GUARDED).unwrap(),
        _ => World::start_after_loss(world.disk, GUARDED, Epoch(70_000)),
    };
    world.block(3);
    if version == 2 {
        let (seq, chain) = (world.log.synced_seq(), world.log.chain());
        let header = SnapshotHeader { version, epoch: world.log.epoch(), seq, chain, ..header };
        let mut snapshot = SnapshotWriter::begin(&mut world.disk, header).unwrap();
        snapshot.push(&mut world.disk, 12, &[12; 60]).unwrap();
        snapshot.finish(&mut world.disk).unwrap();
    }
    world.append(5);
    let write = world.poll().unwrap();
    world.disk.write_at(write.file(), write.offset(), &write.bytes()[..512]).unwrap();
    world.disk
}

/// Its files without the zeros at their end, which `load` puts back.
fn golden_files(version: u16) -> Vec<(FileName, Vec<u8>)> {
    files_of(&golden_disk(version))
}

fn files_of(disk: &MemoryStorage) -> Vec<(FileName, Vec<u8>)> {
    let names = disk.list().unwrap();
    let kept = names.into_iter().filter(|name| !matches!(name, FileName::Reserve { .. }));
    kept.map(|name| {
        let bytes = disk.bytes(name).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        (name, bytes[..used].to_vec())
    })
    .collect()
}

fn load(version: u16) -> MemoryStorage {
    let mut disk = MemoryStorage::new();
    for entry in std::fs::read_dir(directory(version)).unwrap() {
        let path = entry.unwrap().path();
        let name = FileName::parse(path.file_name().unwrap().to_str().unwrap()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        match name {
            FileName::Segment { .. } => bytes.resize(256 * 1024, 0),
            FileName::Guard => bytes.resize(8 * 4096, 0),
            _ => {}
        }
        disk.insert(name, bytes);
    }
    disk
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_logs_replay_to_their_known_hash() {
    let mut disk = load(1);
    let found = replay(&mut disk).unwrap();
    assert_eq!(hex(&found.recovered.chain()), CHAIN_1);
    assert_eq!((found.last_seq, found.recovered.epoch()), (Seq(46), Epoch(3)));
    let torn = found.recovered.torn().unwrap();
    assert_eq!((torn.first_seq, torn.last_seq), (Seq(47), Some(Seq(51))));
    let snapshot = verify_snapshot(&mut disk, FileName::Snapshot { seq: Seq(43) }, IDENTITY).unwrap();
    assert_eq!(snapshot.entries, 3);
    let anchor = Anchor { seq: snapshot.header.seq, chain: snapshot.header.chain };
    assert_eq!(replay_from(&mut disk, anchor).unwrap().last_seq, Seq(46));
    World::start(disk, GUARDED).unwrap().block(1);
    let mut disk = load(2);
    let found = replay(&mut disk).unwrap();
    assert_eq!(hex(&found.recovered.chain()), CHAIN_2);
    assert_eq!((found.last_seq, found.recovered.epoch()), (Seq(46), Epoch(70_000)));
    let versions: Vec<u16> = found.headers.iter().map(|header| header.version).collect();
    assert!(versions.is_sorted() && versions.contains(&1) && versions.ends_with(&[2, 2]), "{versions:?}");
    let snapshot = verify_snapshot(&mut disk, FileName::Snapshot { seq: Seq(46) }, IDENTITY).unwrap();
    assert_eq!((snapshot.entries, snapshot.header.version), (1, 2));
    let mut world = World::start(disk, GUARDED).unwrap();
    world.block(1);
    let found = replay(&mut world.disk).unwrap();
    assert_eq!(found.recovered.epoch(), Epoch(70_001));
    assert_eq!(found.headers.last().unwrap().version, 2, "a log that has had a loss keeps its version");
}

#[test]
fn a_log_goes_on_after_a_loss_only_with_a_later_epoch_that_fits() {
    for (epoch, is_taken) in
        [(0, false), (2, false), (3, true), (u32::MAX / 2 - 1, true), (u32::MAX / 2, false)]
    {
        let mut disk = World::new(GUARDED).disk;
        let before = files_of(&disk);
        let recovered = replay(&mut disk).unwrap().recovered;
        assert_eq!(recovered.epoch(), Epoch(2));
        let opened = recovered.open_after_loss(&mut disk, GUARDED, Time(9), Epoch(epoch));
        match opened {
            Ok(log) => assert!(is_taken && log.epoch() == Epoch(epoch)),
            Err(OpenError::Epoch { last, .. }) => {
                assert!(!is_taken && last == Epoch(2), "{epoch}");
                assert!(files_of(&disk) == before, "nothing has changed");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn only_a_start_block_raises_the_version_and_nothing_lowers_it() {
    let check = |at: usize, version: u8| {
        let mut disk = load(2);
        let file = FileName::Segment { first_seq: Seq(1) };
        let headers = replay(&mut disk).unwrap().headers;
        let offset = usize::try_from(headers[at].offset).unwrap();
        let bytes = &mut disk.bytes_mut(file)[offset..offset + 256];
        bytes[8] = version;
        let crc = crc32c::crc32c(&bytes[..252]);
        bytes[252..].copy_from_slice(&crc.to_le_bytes());
        replay(&mut disk).err()
    };
    let headers = replay(&mut load(2)).unwrap().headers;
    let first_data = headers.iter().position(|header| header.kind == Kind::Data).unwrap();
    let raised = headers.iter().position(|header| header.version == 2).unwrap();
    assert_eq!(headers[raised].kind, Kind::Start);
    assert!(check(first_data, 2).is_some());
    assert!(check(raised, 1).is_some());
    assert!(check(raised + 1, 1).is_some());
    assert!(check(raised, 0).is_some());
}

#[test]
fn the_current_version_writes_the_golden_bytes() {
    for version in format::VERSION_FIRST..=format::VERSION {
        the_golden_bytes_are_written(version);
    }
}

fn the_golden_bytes_are_written(version: u16) {
    let directory = directory(version);
    let files = golden_files(version);
    if std::env::var_os("GOLDEN").is_some() {
        std::fs::create_dir_all(&directory).unwrap();
        for (name, bytes) in &files {
            std::fs::write(directory.join(name.to_text()), bytes).unwrap();
        }
    }
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), files.len());
    for (name, bytes) in files {
        let golden = std::fs::read(directory.join(name.to_text())).unwrap();
        assert!(golden == bytes, "{name} differs from what this program writes");
    }
}

/// The block of the worked example in `FORMAT.md`.
fn example() -> Vec<u8> {
    let mut block = vec![0; 4096];
    block[256..384].fill(0xab);
    let header = Header {
        version: 1,
        kind: Kind::Data,
        durability: Durability::Fsync,
        identity: Identity { engine: EngineId(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f), shard: ShardId(3) },
        epoch: Epoch(2),
        records: 1,
        segment: 1,
        offset: 4096,
        number: 2,
        first_seq: Seq(1),
        time: Time(1_700_000_000_000_000_000),
        durable_upto: Seq(0),
        durable_block: 1,
        chain: [0x11; 32],
        body_crc: crc32c::crc32c(&block[256..]),
    };
    header.encode(&mut block);
    block
}

/// The text between a fence and its end.
fn fenced<'a>(text: &'a str, fence: &str) -> &'a str {
    let begin = text.find(fence).unwrap() + fence.len();
    &text[begin..begin + text[begin..].find("```").unwrap()]
}

#[test]
fn the_worked_example_of_the_format_page_is_right() {
    let page = include_str!("../FORMAT.md");
    let block = example();
    let is_shown = |line: &(usize, &[u8])| line.1.iter().any(|byte| *byte != 0);
    let lines: String = (0..)
        .step_by(16)
        .zip(block.chunks(16))
        .filter(is_shown)
        .map(|(offset, bytes)| format!("{offset:04x}  {}\n", hex(bytes)))
        .collect();
    assert_eq!(fenced(page, "```hex\n"), lines);
    let chain = format::chain_after(&block[..384]);
    assert_eq!(fenced(page, "```hash\n").trim(), hex(&chain));
    assert!(Header::decode(&block).unwrap().body_holds(&block));
}
