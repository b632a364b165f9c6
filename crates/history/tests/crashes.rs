//! What a crash leaves of an index: all that some number of records led to, and nothing of the next ones, so that it goes on as if nothing
//! had been.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

#[path = "../../ledger/tests/world/events.rs"]
mod events;
mod scan;
#[path = "../../ledger/tests/world/mod.rs"]
mod world;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use history::{HistoryError, Indexer, NoRoom, Store, StoreOptions};
use scan::*;
use surety_protocol::*;

const SHARD: ShardId = ShardId(0);

/// The next record that a store wants.
fn wanted(store: &Store) -> Seq {
    store.reader().positions().unwrap().first().map_or(Seq(1), |(_, position)| position.next)
}

/// Checks that a store is that of a beginning of the log, and says how far it has come.
fn is_a_beginning(store: &Store, log: &[Record]) -> Seq {
    is_a_beginning_in_blocks(store, log, 128)
}

fn is_a_beginning_in_blocks(store: &Store, log: &[Record], rows: u16) -> Seq {
    let next = wanted(store);
    let kept = &log[..usize::try_from(next.0 - 1).unwrap()];
    if !kept.is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let fresh = Store::open_with(&directory.path().join("history"), ENGINE, small(rows)).unwrap();
        feed(&fresh, SHARD, kept, kept.len());
        assert_eq!(store.reader().digest().unwrap(), fresh.reader().digest().unwrap(), "up to {next}");
    }
    next
}

/// Goes on to the end of the log.
fn finish(store: &Store, log: &[Record], piece: usize, mut told: impl FnMut(Seq)) {
    let next = wanted(store);
    let mut indexer = Indexer::new(store.clone(), SHARD, replica(SHARD, log, next)).unwrap();
    for records in log[usize::try_from(next.0 - 1).unwrap()..].chunks(piece) {
        indexer.take(indexer.wanted(), Epoch(1), records).unwrap();
        indexer.commit().unwrap();
        told(indexer.stored());
    }
}

/// A store whose own log was cut off at any byte, as a power cut does, holds whole commits from the first one on, and goes on from there.
#[test]
fn an_index_that_is_cut_off_anywhere_is_a_beginning_of_the_stream() {
    let log = some_log(120);
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    let store = Store::open(&whole, ENGINE).unwrap();
    feed(&store, SHARD, &log, 9);
    let digest = store.reader().digest().unwrap();
    drop(store);
    let bytes = filled_bytes(&journal_of(&whole));
    let mut ends = BTreeSet::new();
    for cut in (0..12).map(|part| bytes * part / 12 + part % 7) {
        let copy = directory.path().join("copy");
        copy_all(&whole, &copy);
        let file = fs::File::options().write(true).open(journal_of(&copy)).unwrap();
        file.set_len(cut).unwrap();
        let store = Store::open(&copy, ENGINE).unwrap();
        ends.insert(is_a_beginning(&store, &log));
        finish(&store, &log, log.len(), |_| {});
        assert_eq!(store.reader().digest().unwrap(), digest, "cut at {cut} and gone on");
        drop(store);
        fs::remove_dir_all(&copy).unwrap();
    }
    assert!(ends.len() > 5, "the cuts meet different commits: {ends:?}");
}

/// The same where most of it is in tables' files long since: a power cut takes what was written to the store's own log after the last of
/// them. The store makes that log durable before it writes such a file, so no less than that is lost.
#[test]
fn an_index_that_loses_the_end_of_its_log_behind_files_is_a_beginning_of_the_stream() {
    let log = some_log(3000);
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    let options = || StoreOptions { memtable_bytes: 64 << 10, ..small(4) };
    let mut store = Store::open_with(&whole, ENGINE, options()).unwrap();
    let mut tables = tables_of(&whole);
    let (mut filled, mut commits, mut changes) = (0, 0, 0);
    while wanted(&store) <= Seq(log.len() as u64) {
        let from = usize::try_from(wanted(&store).0 - 1).unwrap();
        let mut indexer = Indexer::new(store.clone(), SHARD, replica(SHARD, &log, wanted(&store))).unwrap();
        for records in log[from..].chunks(3) {
            indexer.take(indexer.wanted(), Epoch(1), records).unwrap();
            indexer.commit().unwrap();
            commits += 1;
            if tables_of(&whole) != tables {
                (tables, commits, changes) = (tables_of(&whole), 0, changes + 1);
            }
            if commits == 1 {
                filled = filled_bytes(&journal_of(&whole));
            }
            if commits == 12 && changes > 8 && indexer.stored() == indexer.wanted() {
                break;
            }
        }
        drop((indexer, store));
        if commits == 12 && tables_of(&whole) == tables {
            break;
        }
        // A file was written meanwhile, and with it the log: on to the next place.
        commits = 0;
        store = Store::open_with(&whole, ENGINE, options()).unwrap();
    }
    assert_eq!((commits, tables_of(&whole)), (12, tables), "a stretch without a file being written");
    assert!(changes > 8, "and files before it: {changes}");
    let bytes = filled_bytes(&journal_of(&whole));
    let mut ends = BTreeSet::new();
    for cut in (0..=24).map(|part| filled + (bytes - filled) * part / 24) {
        let copy = directory.path().join("copy");
        copy_all(&whole, &copy);
        fs::File::options().write(true).open(journal_of(&copy)).unwrap().set_len(cut).unwrap();
        let store = Store::open_with(&copy, ENGINE, options()).unwrap();
        ends.insert(is_a_beginning_in_blocks(&store, &log, 4));
        drop(store);
        fs::remove_dir_all(&copy).unwrap();
    }
    assert!(ends.len() > 5, "the cuts meet different commits: {ends:?}");
}

/// A power cut leaves the sectors of the store's own log that were not durable in any order: holes between whole ones, and inside of values, over
/// which the store would not open.
#[test]
fn an_index_whose_log_has_holes_is_a_beginning_of_the_stream() {
    const SECTOR: usize = 512;
    let log = some_log(400);
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    let store = Store::open(&whole, ENGINE).unwrap();
    feed(&store, SHARD, &log, 9);
    let digest = store.reader().digest().unwrap();
    drop(store);
    let bytes = fs::read(journal_of(&whole)).unwrap();
    let sectors = usize::try_from(filled_bytes(&journal_of(&whole))).unwrap() / SECTOR;
    assert!(sectors > 200, "{sectors}");
    let (mut refused, mut ends) = (0, BTreeSet::new());
    for round in 0..40_usize {
        // The first hole, and whatever of the sectors behind it: the last ones alone, none, or some.
        let first = (round + 1) * sectors / 41;
        let is_lost = |sector: usize| match round % 4 {
            0 => sector == first,
            1 => sector >= first,
            _ => sector == first || sector > first && (sector * 7 + round).is_multiple_of(3),
        };
        let mut torn = bytes.clone();
        for sector in (first..=sectors).filter(|sector| is_lost(*sector)) {
            let end = torn.len().min((sector + 1) * SECTOR);
            torn[sector * SECTOR..end].fill(0);
        }
        let copies = [directory.path().join("plain"), directory.path().join("copy")];
        for copy in &copies {
            copy_all(&whole, copy);
            fs::write(journal_of(copy), &torn).unwrap();
        }
        refused += u32::from(fjall::Database::builder(&copies[0]).open().is_err());
        let store = Store::open(&copies[1], ENGINE).unwrap();
        ends.insert(is_a_beginning(&store, &log));
        finish(&store, &log, log.len(), |_| {});
        assert_eq!(store.reader().digest().unwrap(), digest, "round {round}, and gone on");
        drop(store);
        assert_eq!(Store::open(&copies[1], ENGINE).unwrap().reader().digest().unwrap(), digest);
        copies.iter().for_each(|copy| fs::remove_dir_all(copy).unwrap());
    }
    assert!(refused > 0, "the store itself would not have opened {refused} of them");
    assert!(ends.len() > 5, "the holes are in different commits: {ends:?}");
}

/// An index of a format before this one is told apart from a damaged one.
#[test]
fn an_index_of_another_format_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    drop(Store::open(&path, ENGINE).unwrap());
    let note = |format: u16| {
        let database = fjall::Database::builder(&path).open().unwrap();
        let meta = database.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
        meta.insert("format", format.to_le_bytes()).unwrap();
    };
    note(1);
    let older = Store::open(&path, ENGINE);
    let Err(HistoryError::Older { found: 1, known, .. }) = older else { panic!("{older:?}") };
    note(known + 1);
    let newer = Store::open(&path, ENGINE);
    let is_told = matches!(newer, Err(HistoryError::Newer { found, known: own, .. }) if (found, own) == (known + 1, known));
    assert!(is_told, "{newer:?}");
    note(known);
    assert!(Store::open(&path, ENGINE).is_ok());
}

/// How many events the killed writer's log has.
const EVENTS: usize = 4000;

/// Not a test of its own: what the test below runs in another process.
#[test]
fn writer_for_the_kill_test() {
    let Ok(path) = std::env::var("HISTORY_TO_WRITE") else { return };
    let store = Store::open_with(Path::new(&path), ENGINE, small(128)).unwrap();
    finish(&store, &some_log(EVENTS), 3, |stored| println!("stored: {}", stored.0));
}

/// Tables of a few kB, so that the kills meet journals that are turned over and tables that are written and merged.
#[test]
fn an_index_that_is_killed_at_any_moment_is_a_beginning_of_the_stream() {
    let log = some_log(EVENTS);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let mut last = Seq(1);
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer_for_the_kill_test", "--nocapture"])
            .env("HISTORY_TO_WRITE", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut told = lines.filter_map(|line| line.split("stored: ").nth(1)?.trim().parse::<u64>().ok());
        let seen = told.by_ref().nth(20 + round * 37 % 90);
        // SIGKILL, while it writes on.
        child.kill().unwrap();
        let seen = told.last().or(seen).map_or(last, Seq);
        child.wait().unwrap();
        let store = Store::open_with(&path, ENGINE, small(128)).unwrap();
        let next = is_a_beginning(&store, &log);
        assert!(next >= seen, "{seen} was with the operating system, {next} is there");
        last = next;
    }
    assert!(last.0 > 400, "the kills met a store that grew: {last}");
    let store = Store::open_with(&path, ENGINE, small(128)).unwrap();
    let in_tables: u64 = store.reader().table_bytes().unwrap().iter().map(|(_, bytes)| bytes).sum();
    assert!(in_tables > 0, "tables were written");
    finish(&store, &log, 1000, |_| {});
    assert_eq!(is_a_beginning(&store, &log), Seq(log.len() as u64 + 1));
}

/// An index never fills the disk of its engine, nor grows past what it may; there is room again once it may be larger.
#[test]
fn an_index_without_room_says_so() {
    let log = some_log(60);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let room = |options: StoreOptions| Store::open_with(&path, ENGINE, options).unwrap().room();
    feed(&Store::open_with(&path, ENGINE, small(128)).unwrap(), SHARD, &log, log.len());
    assert_eq!(room(small(128)), Ok(()));
    let full = room(StoreOptions { bytes_max: Some(1), ..small(128) });
    assert!(matches!(full, Err(NoRoom::Full { bytes: 2.., bytes_max: 1 })), "{full:?}");
    let low = room(StoreOptions { free_bytes_min: u64::MAX, ..small(128) });
    assert!(matches!(low, Err(NoRoom::Disk { free: 1.., .. })), "{low:?}");
    assert_eq!(room(StoreOptions { bytes_max: Some(1 << 40), ..small(128) }), Ok(()));
    // What an engine keeps free decides, and what the store writes after it was asked.
    for engine in [0, 256 << 20, 1 << 30] {
        let floor = StoreOptions::beside(engine).free_bytes_min;
        assert!(floor > 2 * engine + (700 << 20), "{floor}");
    }
    assert_eq!(StoreOptions::beside(u64::MAX).free_bytes_min, u64::MAX);
}

fn journal_of(store: &Path) -> PathBuf {
    let mut journals: Vec<_> =
        files(store).into_iter().filter(|file| file.extension().is_some_and(|e| e == "jnl")).collect();
    assert_eq!(journals.len(), 1, "{journals:?}");
    journals.remove(0)
}

/// A journal is made longer than it is filled.
fn filled_bytes(journal: &Path) -> u64 {
    fs::read(journal).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

/// Everything but the journal.
fn tables_of(store: &Path) -> BTreeSet<PathBuf> {
    files(store).into_iter().filter(|file| file.extension().is_none_or(|e| e != "jnl")).collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}
