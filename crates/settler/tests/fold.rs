//! A log that is put into one entry again and again: starts, proofs and lost snapshots behind that.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

mod world;

use std::path::{Path, PathBuf};

use settler::{Journal, LOG_FILE, Note, Notice, Published, Report, Settler, SettlerError};
use world::{ALICE, MERCHANT_KEY, TOKENS, World, on_chain};

/// Payments, each settled by a batch of its own.
async fn pay(world: &mut World, settler: &mut Settler, times: usize) {
    for _ in 0..times {
        let lock = world.lock(3 * TOKENS).await;
        world.consume(lock, TOKENS).await;
        world.settle_all(settler).await;
    }
}

/// Every file of its name in the settler's directory.
fn files(world: &World, is_meant: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(world.own.path()).unwrap().map(|entry| entry.unwrap());
    entries.filter(|entry| is_meant(entry.file_name().to_str().unwrap())).map(|entry| entry.path()).collect()
}

fn is_folded(world: &World) -> bool {
    let notes = Journal::read(world.own.path()).unwrap().unwrap().notes;
    matches!(notes.first(), Some(Note::Folded(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_reads_what_was_settled_since_and_proofs_of_all_batches_stay() {
    let mut world = World::new().await;
    let mut settler = world.settler().await;
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    let mut proofs = Vec::new();
    for _ in 0..12 {
        pay(&mut world, &mut settler, 1).await;
        let batch = settler.progress().0;
        proofs.push((batch, world.published(Some(batch)).to_json()));
        if proofs.len() % 3 == 0 {
            drop(settler);
            settler = world.settler().await;
            assert_eq!(settler.progress().0, batch);
        }
    }
    assert!(is_folded(&world));
    let length = |path: &Path| std::fs::metadata(path).unwrap().len();
    let all: u64 =
        files(&world, |name| name.starts_with("settlement-")).iter().map(|path| length(path)).sum();
    assert!(length(&world.own.path().join(LOG_FILE)) < all / 2, "it does not grow with what was settled");
    for (batch, proof) in &proofs {
        assert_eq!(world.published(Some(*batch)).to_json(), *proof, "batch {batch}");
    }
    assert!(Published::read(world.own.path(), Some(settler.progress().0 + 1)).unwrap().is_none());
    world.settle_all(&mut settler).await;
    assert_eq!(on_chain(&settler), 988 * TOKENS);
    world.claim(settler.progress().0);
    assert_eq!(world.purse(MERCHANT_KEY), 12 * TOKENS);
    // The oldest one is taken elsewhere: the next begins behind its batches.
    let until = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.trim_start_matches("settlement-").trim_end_matches(".log").parse::<u64>().unwrap()
    };
    let mut older = files(&world, |name| name.starts_with("settlement-"));
    older.sort_by_key(|path| until(path));
    let (first, second) = (until(&older[0]), until(&older[1]));
    std::fs::remove_file(&older[0]).unwrap();
    for (batch, _) in proofs {
        match Published::read(world.own.path(), Some(batch)) {
            Ok(Some(published)) => assert!(batch >= first && published.is_sound()),
            Err(SettlerError::LogGone { batch: gone, until }) => {
                assert!(gone == batch && batch < first && until == first && until < second);
            }
            other => panic!("batch {batch}: {other:?}"),
        }
    }
    let gone = Published::read(world.own.path(), Some(first - 1));
    assert!(first == 1 || matches!(gone, Err(SettlerError::LogGone { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_snapshot_all_is_sealed_again_as_long_as_the_logs_are_there() {
    let mut world = World::new().await;
    let mut settler = world.settler().await;
    world.supply(ALICE, 1, 1000 * TOKENS);
    world.settle_until_credited(&mut settler, 1000 * TOKENS).await;
    pay(&mut world, &mut settler, 6).await;
    let (batch, hash) = (settler.progress().0, settler.sealer().state_hash());
    assert!(is_folded(&world));
    drop(settler);
    files(&world, |name| name.starts_with("snapshot-"))
        .iter()
        .for_each(|path| std::fs::remove_file(path).unwrap());
    let mut settler = world.settler().await;
    world.read_all(&mut settler).await;
    assert_eq!(settler.progress().0, batch);
    pay(&mut world, &mut settler, 1).await;
    assert_ne!(settler.sealer().state_hash(), hash);
    assert_eq!(on_chain(&settler), 993 * TOKENS);
    drop(settler);
    files(&world, |name| name.starts_with("snapshot-"))
        .iter()
        .for_each(|path| std::fs::remove_file(path).unwrap());
    files(&world, |name| name.starts_with("settlement-"))
        .iter()
        .for_each(|path| std::fs::remove_file(path).unwrap());
    let refused = world.try_settler(world.config()).await.unwrap_err();
    assert!(matches!(refused, SettlerError::NoSnapshot { missing: 1, .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_log_cannot_be_folded_the_settler_says_so_and_goes_on() {
    let mut world = World::new().await;
    let mut settler = world.settler().await;
    // A new log cannot be written.
    let obstacle = world.own.path().join("settlement.tmp");
    std::fs::create_dir(&obstacle).unwrap();
    world.supply(ALICE, 1, 1000 * TOKENS);
    let mut told = 0;
    let is_credited = |_: &World, settler: &Settler, report: &Report| {
        told += report.notices.iter().filter(|notice| matches!(notice, Notice::NotFolded(_))).count();
        on_chain(settler) == 1000 * TOKENS && told > 0
    };
    world.settle_until(&mut settler, is_credited).await.unwrap();
    pay(&mut world, &mut settler, 4).await;
    assert_eq!(on_chain(&settler), 996 * TOKENS);
    assert!(!is_folded(&world));
    drop(settler);
    std::fs::remove_dir(&obstacle).unwrap();
    let mut settler = world.settler().await;
    pay(&mut world, &mut settler, 2).await;
    assert!(is_folded(&world));
    assert_eq!(on_chain(&settler), 994 * TOKENS);
}
