//! Logs of every version, kept for ever: this program reads them, and writes the same bytes.
//!
//! `GOLDEN=write cargo test -p settler --test golden` writes what this program writes; if that changes a file, settlers in the field
//! cannot go on from their logs, and the log needs a new version.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod log;

use std::path::{Path, PathBuf};

use log::{DOMAIN, HEAD, settled};
use settlement::life::Entry;
use settler::{Folded, Journal, JournalError, LOG_FILE, Note, Published, SettlerError};

/// A log's version, and what it holds.
struct Version {
    file: &'static str,
    notes: fn() -> Vec<Note>,
}

const VERSIONS: [Version; 2] =
    [Version { file: "log-1.bin", notes: settled }, Version { file: "log-2.bin", notes: folded }];

/// The same, folded up to the first batch, and what came afterwards.
fn folded() -> Vec<Note> {
    let folded = Folded::of(DOMAIN.separator(), settled(), 1).unwrap().unwrap();
    vec![Note::Folded(Box::new(folded)), Entry::Final { seq: 3, block: 12, nonce: 4 }.into()]
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// What this program writes of some entries.
fn written(notes: Vec<Note>) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::create(directory.path(), &HEAD).unwrap();
    for note in notes {
        match note {
            Note::Folded(folded) => journal.fold(*folded).unwrap(),
            note => journal.append(&note).unwrap(),
        }
    }
    std::fs::read(directory.path().join(LOG_FILE)).unwrap()
}

#[test]
fn logs_of_all_versions_are_read_and_written_the_same() {
    for Version { file, notes } in VERSIONS {
        if std::env::var_os("GOLDEN").is_some() {
            std::fs::write(path(file), written(notes())).unwrap();
        }
        let golden = std::fs::read(path(file)).unwrap();
        assert!(written(notes()) == golden, "{file}: other bytes");
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(LOG_FILE), &golden).unwrap();
        let (_, scan) = Journal::open(directory.path()).unwrap().unwrap();
        assert_eq!((scan.head, scan.torn_bytes), (HEAD, 0));
        assert_eq!(scan.notes, notes());
    }
}

#[test]
fn a_fold_comes_to_what_the_entries_came_to() {
    let directory = tempfile::tempdir().unwrap();
    let head = settler::Head { separator: DOMAIN.separator(), ..HEAD };
    let mut journal = Journal::create(directory.path(), &head).unwrap();
    settled().iter().for_each(|note| journal.append(note).unwrap());
    let proofs = |batch| {
        let published = Published::read(directory.path(), batch).unwrap().unwrap();
        assert!(published.is_sound());
        published.to_json()
    };
    let all = [None, Some(1), Some(2), Some(3)];
    let before = all.map(proofs);
    for batch in [1, 2] {
        let notes = Journal::read(directory.path()).unwrap().unwrap().notes;
        journal.fold(Folded::of(head.separator, notes, batch).unwrap().unwrap()).unwrap();
        assert_eq!(all.map(proofs), before, "folded up to {batch}");
    }
    for nothing in [0, 4] {
        assert!(Published::read(directory.path(), Some(nothing)).unwrap().is_none(), "{nothing}");
    }
    // A log that was folded, of another settler.
    let older = directory.path().join("settlement-1.log");
    let own = std::fs::read(&older).unwrap();
    let other = tempfile::tempdir().unwrap();
    drop(Journal::create(other.path(), &HEAD).unwrap());
    std::fs::copy(other.path().join(LOG_FILE), &older).unwrap();
    let error = Published::read(directory.path(), Some(1)).unwrap_err();
    assert!(matches!(error, SettlerError::Journal(JournalError::Other(_))), "{error}");
    // None of those that have it.
    std::fs::remove_file(&older).unwrap();
    std::fs::remove_file(directory.path().join("settlement-2.log")).unwrap();
    let error = Published::read(directory.path(), Some(1)).unwrap_err();
    assert!(matches!(error, SettlerError::LogGone { batch: 1, until: 2 }), "{error}");
    std::fs::write(&older, &own).unwrap();
    assert!(Published::read(directory.path(), Some(1)).unwrap().is_some());
    let notes = Journal::read(directory.path()).unwrap().unwrap().notes;
    for batch in [1, 2, 3, 4] {
        assert!(
            Folded::of(head.separator, notes.clone(), batch).unwrap().is_none(),
            "{batch} is not to be folded"
        );
    }
}
