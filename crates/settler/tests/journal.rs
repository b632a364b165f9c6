//! The settler's log on disk: torn, rotten, in use, killed in the middle.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use settlement::life::Entry;
use settler::{Head, Journal, JournalError, LOG_FILE, Note};
use surety_protocol::{PartitionHandle, Time};

const HEAD: Head = Head { shards: 2, claim_span: Time(77), separator: [3; 32], salt_key: [4; 32] };

fn note(number: u64) -> Note {
    match number % 3 {
        0 => Note::Life(Entry::Booked { seq: number }),
        1 => Note::ExitAnswered { partition: PartitionHandle(number), nonce: number },
        _ => Note::Life(Entry::Final { seq: number, block: 2 * number, nonce: 3 }),
    }
}

fn written(directory: &Path, count: u64) -> Vec<u8> {
    let mut journal = Journal::create(directory, &HEAD).unwrap();
    (0..count).for_each(|number| journal.append(&note(number)).unwrap());
    std::fs::read(directory.join(LOG_FILE)).unwrap()
}

#[test]
fn what_was_appended_is_read_back_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    assert!(Journal::open(directory.path()).unwrap().is_none());
    written(directory.path(), 5);
    let (mut journal, scan) = Journal::open(directory.path()).unwrap().unwrap();
    assert_eq!((scan.head, scan.torn_bytes), (HEAD, 0));
    assert_eq!(scan.notes, (0..5).map(note).collect::<Vec<_>>());
    journal.append(&note(5)).unwrap();
    let scan = Journal::read(directory.path()).unwrap().unwrap();
    assert_eq!(scan.notes, (0..6).map(note).collect::<Vec<_>>());
}

#[test]
fn a_log_is_made_once() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(Journal::whose(directory.path()).unwrap(), None);
    let whole = written(directory.path(), 3);
    let error = Journal::create(directory.path(), &HEAD).unwrap_err();
    let JournalError::Io { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(directory.path().join(LOG_FILE)).unwrap(), whole);
    assert_eq!(Journal::whose(directory.path()).unwrap(), Some(HEAD));
    std::fs::write(directory.path().join(LOG_FILE), &whole[..127]).unwrap();
    assert!(matches!(Journal::whose(directory.path()), Err(JournalError::NoLog(_))));
}

#[test]
fn a_torn_last_entry_is_cut_off_wherever_it_was_torn() {
    let directory = tempfile::tempdir().unwrap();
    let whole = written(directory.path(), 4);
    let five = {
        let other = tempfile::tempdir().unwrap();
        written(other.path(), 5)
    };
    for end in whole.len()..five.len() {
        std::fs::write(directory.path().join(LOG_FILE), &five[..end]).unwrap();
        let (mut journal, scan) = Journal::open(directory.path()).unwrap().unwrap();
        assert_eq!((scan.notes.len(), scan.torn_bytes), (4, (end - whole.len()) as u64));
        journal.append(&note(4)).unwrap();
        assert_eq!(std::fs::read(directory.path().join(LOG_FILE)).unwrap(), five);
    }
}

#[test]
fn rot_is_refused_with_its_place_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let whole = written(directory.path(), 4);
    let three = {
        let other = tempfile::tempdir().unwrap();
        written(other.path(), 3).len()
    };
    let file = directory.path().join(LOG_FILE);
    for place in 0..three {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        std::fs::write(&file, &bytes).unwrap();
        let error = Journal::open(directory.path()).unwrap_err();
        match error {
            JournalError::NoLog(_) => assert!(place < 128, "byte {place}"),
            JournalError::Rot { number, offset, .. } => {
                assert!(place >= 128 && (1..=3).contains(&number));
                assert!(offset <= place as u64);
            }
            other => panic!("byte {place}: {other}"),
        }
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "nothing was changed");
    }
}

#[test]
fn only_one_entry_can_be_torn() {
    let directory = tempfile::tempdir().unwrap();
    let ends: Vec<usize> = (2..=4)
        .map(|count| {
            let other = tempfile::tempdir().unwrap();
            written(other.path(), count).len()
        })
        .collect();
    let whole = written(directory.path(), 4);
    let file = directory.path().join(LOG_FILE);
    // Something of the third and something of the fourth, but for the magic and the number of the latter.
    for third in ends[0]..ends[1] {
        for fourth in (ends[1] + 16)..ends[2] {
            let mut bytes = whole.clone();
            bytes[third] ^= 0x10;
            bytes[fourth] ^= 0x10;
            std::fs::write(&file, &bytes).unwrap();
            let error = Journal::read(directory.path()).unwrap_err();
            assert!(matches!(error, JournalError::Rot { number: 3, .. }), "{third} {fourth}: {error}");
        }
        // The fourth cut off as well.
        let mut bytes = whole[..ends[2] - 1].to_vec();
        bytes[third] ^= 0x10;
        std::fs::write(&file, &bytes).unwrap();
        assert!(
            matches!(Journal::read(directory.path()), Err(JournalError::Rot { number: 3, .. })),
            "{third}"
        );
    }
}

#[test]
fn a_log_of_a_newer_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = written(directory.path(), 1);
    bytes[11] = 3;
    let checksum = crc32c::crc32c(&bytes[..124]).to_be_bytes();
    bytes[124..128].copy_from_slice(&checksum);
    std::fs::write(directory.path().join(LOG_FILE), &bytes).unwrap();
    assert!(matches!(Journal::open(directory.path()), Err(JournalError::Newer { version: 3, .. })));
}

/// Not a test of its own: what `killed_at_any_moment` runs in another process.
#[test]
fn writer_for_the_kill_test() {
    let Ok(directory) = std::env::var("SETTLER_JOURNAL_TO_WRITE") else { return };
    let (mut journal, scan) = Journal::open(Path::new(&directory)).unwrap().unwrap();
    for number in scan.notes.len() as u64.. {
        journal.append(&note(number)).unwrap();
        println!("on disk: {number}");
    }
}

#[test]
fn killed_at_any_moment_nothing_that_was_on_disk_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    drop(Journal::create(directory.path(), &HEAD).unwrap());
    let mut seen = 0;
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer_for_the_kill_test", "--nocapture"])
            .env("SETTLER_JOURNAL_TO_WRITE", directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut told = lines.filter_map(|line| line.split("on disk: ").nth(1)?.trim().parse::<u64>().ok());
        let last = told.by_ref().nth(round % 5).unwrap();
        // SIGKILL, while it writes on.
        child.kill().unwrap();
        let last = told.last().unwrap_or(last);
        child.wait().unwrap();
        let scan = Journal::read(directory.path()).unwrap().unwrap();
        assert!(scan.notes.len() as u64 > last, "{} entries, {last} was told", scan.notes.len());
        assert!(scan.notes.iter().zip(0..).all(|(found, number)| *found == note(number)));
        seen = scan.notes.len();
    }
    assert!(seen > 12);
}
