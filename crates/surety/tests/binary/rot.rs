//! Damage below the durable mark is found wherever it is; what a crash leaves behind is not taken for damage.

use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::process::Signal;

use crate::process::{Data, Engine, ctl, surety};

const PAGE: u64 = 4096;

/// A directory with some history, closed by a seal.
fn history() -> Data {
    let data = Data::init(1);
    let engine = Engine::start(&data, "fsync");
    for number in 1..=6 {
        ctl(&data, &["partition", "create", &format!("0:{number}")]);
    }
    assert_eq!(engine.terminate(Signal::TERM), 0);
    data
}

/// Where the last page ends that is not all zeros.
fn used(segment: &Path) -> u64 {
    let bytes = std::fs::read(segment).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    (last / PAGE + 1) * PAGE
}

fn flip(segment: &Path, offset: u64) {
    let file = std::fs::File::options().read(true).write(true).open(segment).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[test]
fn a_flipped_byte_anywhere_below_the_durable_mark_is_told_with_its_place() {
    let data = history();
    let segment = data.segments(0)[0].clone();
    // The last block is the seal: the proof of what lies before it, and itself without one.
    let end = used(&segment) - PAGE;
    assert!(end > 8 * PAGE, "a history of several blocks");
    surety(&["verify", "--data", data.path()]).exits(0);
    // Headers, records and padding of every block.
    let places = (0..end / PAGE).flat_map(|page| [page * PAGE + page % 256, page * PAGE + 256 + 7 * page]);
    for place in places.chain([0, 255, 4095, end - 1]) {
        flip(&segment, place);
        let before = data.fingerprint();
        let ended = surety(&["verify", "--data", data.path(), "--json"]).fails(3, "offset");
        assert_eq!(ended.json()["exit"], 3, "byte {place}");
        assert!(ended.stderr.contains(".wal") && ended.stderr.contains("seq"), "{}", ended.stderr);
        assert_eq!(data.fingerprint(), before, "nothing is repaired behind anybody's back");
        flip(&segment, place);
    }
    let place = 5 * PAGE + 300;
    flip(&segment, place);
    let before = data.fingerprint();
    surety(&["serve", "--data", data.path(), "--listen", "127.0.0.1:0"]).fails(3, "offset 20480");
    let dumped = surety(&["dump", "--data", data.path()]).fails(3, "offset 20480");
    assert!(dumped.stdout.lines().count() > 0, "what lies before the damage is shown");
    assert_eq!(data.fingerprint(), before);
    flip(&segment, place);
    surety(&["verify", "--data", data.path()]).exits(0);
}

#[test]
fn a_missing_segment_is_damage() {
    let data = history();
    std::fs::remove_file(&data.segments(0)[0]).unwrap();
    surety(&["verify", "--data", data.path()]).fails(3, "seq 1");
    surety(&["serve", "--data", data.path(), "--listen", "127.0.0.1:0"]).fails(3, "seq 1");
}

#[test]
fn a_torn_tail_is_reported_and_left_alone() {
    let data = history();
    let segment = data.segments(0)[0].clone();
    // The seal, half written: the block in flight when the power went.
    flip(&segment, used(&segment) - PAGE + 100);
    let before = data.fingerprint();
    let value = surety(&["verify", "--data", data.path(), "--json"]).exits(0).json();
    assert_eq!(value["shards"][0]["torn"]["offset"].as_u64(), Some(used(&segment) - PAGE));
    assert!(surety(&["verify", "--data", data.path()]).exits(0).stdout.contains("torn tail"));
    assert_eq!(data.fingerprint(), before);
    let engine = Engine::start(&data, "fsync");
    assert_eq!(ctl(&data, &["partition", "list"])["partitions"].as_array().unwrap().len(), 6);
    assert_eq!(engine.terminate(Signal::TERM), 0);
}
