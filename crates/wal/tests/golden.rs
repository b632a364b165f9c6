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
    Anchor, Durability, FileName, Header, Identity, Kind, SnapshotHeader, SnapshotWriter, Storage, format,
    verify_snapshot,
};
use world::{GUARDED, IDENTITY, World, replay, replay_from};

/// Chain hash of the golden log of version 1.
const CHAIN_1: &str = "f18f93e289fcf11b1e6507b1bd9cbada8506347080bf1862d1b03274bcab3afe";

fn directory(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("format-{version}"))
}

/// The disk that the golden files were taken from: two epochs, a seal, a torn tail, a ring and a snapshot.
fn golden_disk() -> MemoryStorage {
    let mut world = World::new(GUARDED);
    for records in [1, 2, 40] {
        world.block(records);
    }
    let (seq, chain) = (world.log.synced_seq(), world.log.chain());
    world.seal();
    let header = SnapshotHeader {
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
    world = World::start(world.disk, GUARDED).unwrap();
    world.block(3);
    world.append(5);
    let write = world.poll().unwrap();
    world.disk.write_at(write.file(), write.offset(), &write.bytes()[..512]).unwrap();
    world.disk
}

/// Its files without the zeros at their end, which `load` puts back.
fn golden_files() -> Vec<(FileName, Vec<u8>)> {
    let disk = golden_disk();
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
}

#[test]
fn the_current_version_writes_the_golden_bytes() {
    let directory = directory(format::VERSION);
    let files = golden_files();
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
