//! The rule by which payments are judged: confirmed blocks in order, the chain's own clock, reorganizations of any depth.

#![allow(clippy::unwrap_used)]

mod support;

use alloy_primitives::B256;
use support::{ASSET, block, time_of, watch};
use surety_protocol::ReleaseRule;
use watcher::track::{AddError, Event, Progress, Track, Verdict};
use watcher::{Account, SeenBlock, Watch, WatchError};

/// A chain that is offered to a track block by block.
struct Chain {
    track: Track,
    blocks: Vec<SeenBlock>,
    events: Vec<String>,
}

impl Chain {
    /// A track with these watches that has read block 0.
    fn with(watches: &[Watch]) -> Self {
        let mut track = Track::new();
        for watch in watches {
            assert_eq!(track.add(watch.clone()), Ok(Vec::new()));
        }
        track.begin(0);
        let mut chain = Self { track, blocks: Vec::new(), events: Vec::new() };
        chain.mine("main", &[]);
        chain
    }

    fn mine(&mut self, branch: &str, payments: &[(&str, u128)]) {
        let parent = self.blocks.last().map_or(B256::ZERO, |block| block.at.hash);
        let next = block(self.blocks.len() as u64, branch, parent, payments);
        self.blocks.push(next);
        self.follow();
    }

    fn mine_to(&mut self, number: usize) {
        while self.blocks.len() <= number {
            self.mine("main", &[]);
        }
    }

    /// Offers what the track wants for as long as there is such a block.
    fn follow(&mut self) {
        while let Some(block) = self.blocks.get(usize::try_from(self.track.wanted().unwrap()).unwrap()) {
            let events = self.track.offer(block.clone()).unwrap();
            self.note(&events);
        }
    }

    fn note(&mut self, events: &[Event]) {
        let lock = |key: &watcher::WatchKey| key.lock.0;
        self.events.extend(events.iter().map(|event| match event {
            Event::Decided { key, verdict: Verdict::Settle, paid } => format!("{} settled {paid}", lock(key)),
            Event::Decided { key, verdict: Verdict::Consume, paid } => {
                format!("{} consumed {paid}", lock(key))
            }
            Event::Stray { key, amount, block } => {
                format!("{} stray {amount} in {}", lock(key), block.number)
            }
            Event::Undone { key, verdict } => format!("{} undone {verdict:?}", lock(key)),
            Event::TookBack { block } => format!("took back {}", block.number),
        }));
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }
}

/// Pays what is listed in the blocks that are listed, and says what came of it by block 40.
fn check(payments: &[(usize, &str, u128)], expect: &[&str]) {
    let mut chain = Chain::with(&[watch(1, "alice")]);
    for number in 1..=40 {
        let now: Vec<(&str, u128)> =
            payments.iter().filter(|(at, ..)| *at == number).map(|(_, to, amount)| (*to, *amount)).collect();
        chain.mine("main", &now);
    }
    assert_eq!(chain.told(), expect, "{payments:?}");
}

#[test]
fn payments_in_time_late_short_double_and_over() {
    check(&[(5, "alice", 100)], &["1 settled 100"]);
    check(&[(5, "alice", 60), (9, "alice", 40)], &["1 settled 100"]);
    check(&[(5, "alice", 60), (5, "alice", 40)], &["1 settled 100"]);
    check(&[(20, "alice", 100)], &["1 settled 100"]);
    check(&[(5, "alice", 170)], &["1 settled 170"]);
    check(&[], &["1 consumed 0"]);
    check(&[(5, "alice", 99)], &["1 consumed 99"]);
    check(&[(21, "alice", 100)], &["1 stray 100 in 21", "1 consumed 0"]);
    check(&[(5, "alice", 99), (30, "alice", 1)], &["1 consumed 99", "1 stray 1 in 30"]);
    check(&[(5, "alice", 100), (7, "alice", 100)], &["1 settled 100", "1 stray 100 in 7"]);
    check(&[(5, "alice", 100), (30, "alice", 100)], &["1 settled 100", "1 stray 100 in 30"]);
    check(&[(5, "bob", 100)], &["1 consumed 0"]);
    check(
        &[(5, "alice", u128::MAX), (5, "alice", u128::MAX)],
        &[&format!("1 settled {}", u128::MAX), &format!("1 stray {} in 5", u128::MAX)],
    );
}

#[test]
fn nothing_is_decided_before_it_is_confirmed() {
    let mut chain = Chain::with(&[watch(1, "alice")]);
    chain.mine_to(4);
    chain.mine("main", &[("alice", 100)]);
    chain.mine("main", &[]);
    assert!(chain.told().is_empty(), "two confirmations");
    chain.mine("main", &[]);
    assert_eq!(chain.told(), ["1 settled 100"]);

    let mut chain = Chain::with(&[watch(1, "alice")]);
    chain.mine_to(22);
    assert!(chain.told().is_empty(), "the first late block, 21, has two");
    chain.mine_to(23);
    assert_eq!(chain.told(), ["1 consumed 0"]);
}

#[test]
fn a_reorganization_of_less_than_the_confirmations_changes_no_decision() {
    let mut chain = Chain::with(&[watch(1, "alice"), watch(2, "bob")]);
    chain.mine_to(4);
    chain.mine("main", &[("alice", 100), ("bob", 100)]);
    chain.mine("main", &[]);
    // Both blocks go; on the other branch only Bob has paid, and one block later.
    chain.blocks.truncate(5);
    chain.mine("other", &[]);
    chain.mine("other", &[("bob", 100)]);
    chain.mine("other", &[]);
    assert_eq!(chain.told(), ["took back 6", "took back 5"]);
    chain.mine("other", &[]);
    assert_eq!(chain.told(), ["2 settled 100"]);
    chain.mine_to(40);
    assert_eq!(chain.told(), ["1 consumed 0"]);
}

#[test]
fn a_deeper_one_takes_payments_back_and_tells_of_decisions_that_it_made_baseless() {
    let mut chain = Chain::with(&[watch(1, "alice"), watch(2, "bob"), watch(3, "carol")]);
    chain.mine_to(3);
    chain.mine("main", &[("carol", 60)]);
    chain.mine("main", &[("alice", 100), ("bob", 60), ("carol", 10)]);
    chain.mine_to(8);
    assert_eq!(chain.told(), ["1 settled 100"]);
    chain.blocks.truncate(5);
    for _ in 5..=10 {
        chain.mine("other", &[]);
    }
    assert_eq!(chain.told(), ["took back 8", "took back 7", "took back 6", "took back 5", "1 undone Settle"]);
    // Of what Bob and Carol had paid only that in block 4 is left.
    chain.mine("other", &[("bob", 99), ("carol", 40), ("alice", 100)]);
    chain.mine_to(40);
    assert_eq!(chain.told(), ["3 settled 100", "1 stray 100 in 11", "2 consumed 99"]);
}

#[test]
fn what_is_no_longer_kept_is_not_taken_back() {
    let mut chain = Chain::with(&[watch(1, "alice")]);
    chain.mine_to(100);
    let mut parent = B256::repeat_byte(1);
    let mut fork = Vec::new();
    for number in 0..=200 {
        fork.push(block(number, "fork", parent, &[]));
        parent = fork.last().unwrap().at.hash;
    }
    let halt = loop {
        let wanted = usize::try_from(chain.track.wanted().unwrap()).unwrap();
        if let Err(halt) = chain.track.offer(fork[wanted].clone()) {
            break halt;
        }
    };
    assert!(halt.0.number < 100 - 3, "{halt}");
}

#[test]
fn counts_of_confirmations_do_not_mind_each_other() {
    let quick = Watch { confirmations: 1, ..watch(1, "alice") };
    let slow = Watch { confirmations: 12, ..watch(2, "bob") };
    let mut chain = Chain::with(&[quick, slow]);
    chain.mine("main", &[("alice", 100), ("bob", 100)]);
    assert_eq!(chain.told(), ["1 settled 100"]);
    chain.mine_to(11);
    assert!(chain.told().is_empty());
    chain.mine_to(12);
    assert_eq!(chain.told(), ["2 settled 100"]);
}

#[test]
fn a_watch_that_comes_after_its_payment_finds_it_in_the_last_blocks() {
    for confirmations in [1, 3, 6] {
        let mut chain = Chain::with(&[watch(1, "alice")]);
        chain.mine_to(6);
        chain.mine("main", &[("bob", 100)]);
        chain.mine_to(15);
        let late = Watch { confirmations, ..watch(2, "bob") };
        let events = chain.track.add(late.clone()).unwrap();
        chain.note(&events);
        assert_eq!(chain.told(), ["2 settled 100"], "{confirmations}");
        assert_eq!(chain.track.add(late).unwrap(), [], "again");
    }
    // A deadline that has passed is found out at once.
    let mut chain = Chain::with(&[watch(1, "alice")]);
    chain.mine_to(19);
    let events = chain.track.add(Watch { deadline_s: time_of(10), ..watch(2, "bob") }).unwrap();
    chain.note(&events);
    assert_eq!(chain.told(), ["2 consumed 0"]);
}

#[test]
fn a_track_goes_on_from_its_progress_as_if_it_had_never_stopped() {
    let run = |stop_after: Option<usize>| {
        let quick = Watch { confirmations: 1, ..watch(4, "dave") };
        let watches = [watch(1, "alice"), watch(2, "bob"), watch(3, "carol"), quick];
        let mut chain = Chain::with(&watches);
        let mut told = Vec::new();
        for number in 1..40 {
            let payments: &[(&str, u128)] = match number {
                3 => &[("alice", 50), ("bob", 70), ("dave", 20)],
                9 => &[("alice", 50), ("dave", 10)],
                12 => &[("dave", 70)],
                19 => &[("bob", 29)],
                _ => &[],
            };
            chain.mine("main", payments);
            told.extend(chain.told());
            if stop_after == Some(number) {
                let progress: Progress = chain.track.progress().unwrap();
                let mut track = Track::new();
                for watch in &watches {
                    track.add(watch.clone()).unwrap();
                }
                for (key, verdict) in decided(&told, &watches) {
                    track.mark_decided(key, verdict);
                }
                track.resume(&progress);
                chain.track = track;
                chain.follow();
                // What is confirmed with fewer blocks than others is read again; nothing is decided twice.
                told.extend(chain.told().into_iter().filter(|event| !event.contains("stray")));
            }
        }
        told
    };
    let whole = run(None);
    assert_eq!(whole, ["1 settled 100", "4 settled 100", "2 consumed 99", "3 consumed 0"]);
    for stop_after in 1..39 {
        // Where nothing has been read with every count yet, there is no progress to go on from.
        if stop_after >= 3 {
            assert_eq!(run(Some(stop_after)), whole, "{stop_after}");
        }
    }
}

fn decided(told: &[String], watches: &[Watch]) -> Vec<(watcher::WatchKey, Verdict)> {
    let verdict = |text: &str| if text.contains("settled") { Verdict::Settle } else { Verdict::Consume };
    let named = |text: &String| {
        let lock = text.split(' ').next().unwrap().parse::<u128>().unwrap();
        let watch = watches.iter().find(|watch| watch.key.lock.0 == lock).unwrap();
        (watch.key, verdict(text))
    };
    told.iter().map(named).collect()
}

#[test]
fn a_watch_that_cannot_be_judged_is_refused() {
    let mut track = Track::new();
    let first = watch(1, "alice");
    track.add(first.clone()).unwrap();
    assert_eq!(track.add(first.clone()), Ok(Vec::new()), "the same again");
    let check = |track: &mut Track, watch: Watch| track.add(watch).unwrap_err();
    assert_eq!(check(&mut track, Watch { amount: 99, ..first.clone() }), AddError::Conflict);
    assert_eq!(check(&mut track, watch(2, "alice")), AddError::AddressTaken);
    assert_eq!(check(&mut track, Watch { amount: 0, ..watch(2, "bob") }), WatchError::NoAmount.into());
    for confirmations in [0, watcher::CONFIRMATIONS_MAX + 1, u32::MAX] {
        let error = WatchError::Confirmations(confirmations).into();
        assert_eq!(check(&mut track, Watch { confirmations, ..watch(2, "bob") }), error);
    }
    track.forget(first.key);
    track.add(watch(2, "alice")).unwrap();
}

#[test]
fn the_release_rule_of_the_partition_decides() {
    let asked = watch(1, "alice");
    let by = |rule| asked.clone().by_rule(rule);
    let rule = ReleaseRule::Confirmations { asset: ASSET, count: 12 };
    assert_eq!(by(rule).unwrap().confirmations, 12);
    assert_eq!(by(ReleaseRule::Manual), Err(WatchError::Manual));
    assert_eq!(by(ReleaseRule::Timeout), Err(WatchError::Timeout));
    let other = surety_protocol::AssetId(1);
    assert_eq!(
        by(ReleaseRule::Confirmations { asset: other, count: 12 }),
        Err(WatchError::OtherAsset(other))
    );
    assert_eq!(by(ReleaseRule::Confirmations { asset: ASSET, count: 0 }), Err(WatchError::Confirmations(0)));
}

#[test]
fn addresses_are_what_chains_write() {
    let checksummed = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
    assert_eq!(Account::new(checksummed).unwrap().as_str(), checksummed.to_lowercase());
    assert_eq!(Account::new("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq").unwrap().as_str().len(), 42);
    // Bitcoin's readable ones may be large; those with a checksum in their letters are as they are.
    let large = "BC1QAR0SRRR7XFKVY5L643LYDNW9RE59GTZZWF5MDQ";
    assert_eq!(Account::new(large).unwrap().as_str(), large.to_lowercase());
    let mixed = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2";
    assert_eq!(Account::new(mixed).unwrap().as_str(), mixed);
    let mistyped = "0xf39fd6e51aad88F6F4ce6aB8827279cffFb92266";
    let short = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb9226";
    for wrong in ["", " ", "a b", "../x", "\u{e9}", &"a".repeat(129), mistyped, short, "0xzz"] {
        assert_eq!(Account::new(wrong), None, "{wrong}");
    }
}

#[test]
fn a_restart_keeps_the_look_back_and_counts_nothing_twice() {
    let chain: Vec<_> = {
        let mut parent = B256::ZERO;
        let paid = |number| match number {
            8 => vec![("alice", 60)],
            17 => vec![("bob", 100), ("alice", 10)],
            _ => Vec::new(),
        };
        let block_of = |number| {
            let block = block(number, "main", parent, &paid(number));
            parent = block.at.hash;
            block
        };
        (0..24).map(block_of).collect()
    };
    let read_all = |track: &mut Track| {
        let mut events = Vec::new();
        while let Some(block) = track.wanted().and_then(|wanted| chain.get(usize::try_from(wanted).unwrap()))
        {
            events.extend(track.offer(block.clone()).unwrap());
        }
        events
    };
    let alice = Watch { deadline_s: time_of(1_000), ..watch(1, "alice") };
    let bob = Watch { deadline_s: time_of(1_000), ..watch(2, "bob") };
    let carol = Watch { deadline_s: time_of(1_000), amount: 1, ..watch(3, "carol") };
    let mut track = Track::new();
    track.add(alice.clone()).unwrap();
    track.add(carol.clone()).unwrap();
    track.begin(0);
    read_all(&mut track);
    for _ in 0..3 {
        // Killed, and started from what it had noted, again and again.
        let progress = track.progress().unwrap();
        track = Track::new();
        track.add(alice.clone()).unwrap();
        track.add(carol.clone()).unwrap();
        track.resume(&progress);
        assert_eq!(read_all(&mut track), []);
    }
    // A watch that comes late is paid by a block that was read before the restart.
    let events = track.add(bob.clone()).unwrap();
    assert_eq!(events, [Event::Decided { key: bob.key, verdict: Verdict::Settle, paid: 100 }]);
    // Alice's sixty and ten are seventy, however often they were read.
    let progress = track.progress().unwrap();
    let mut track = Track::new();
    track.add(Watch { amount: 70, ..alice.clone() }).unwrap();
    track.resume(&progress);
    let events = read_all(&mut track);
    assert_eq!(events, [Event::Decided { key: alice.key, verdict: Verdict::Settle, paid: 70 }]);
}

#[test]
fn a_restart_reads_a_first_block_that_nobody_had_read() {
    let blocks: Vec<_> = {
        let mut parent = B256::repeat_byte(7);
        let block_of = |number| {
            let paid: &[(&str, u128)] = if number == 5 { &[("alice", 100)] } else { &[] };
            let block = block(number, "main", parent, paid);
            parent = block.at.hash;
            block
        };
        (5..30).map(block_of).collect()
    };
    let alice = Watch { deadline_s: time_of(1_000), confirmations: 6, ..watch(1, "alice") };
    for stop in 1..8 {
        let mut track = Track::new();
        track.add(alice.clone()).unwrap();
        track.begin(5);
        let mut events = Vec::new();
        for block in &blocks[..stop] {
            events.extend(track.offer(block.clone()).unwrap());
        }
        let progress = track.progress().unwrap();
        let mut again = Track::new();
        again.add(alice.clone()).unwrap();
        again.resume(&progress);
        if !events.is_empty() {
            again.mark_decided(alice.key, Verdict::Settle);
        }
        while let Some(block) = blocks.get(usize::try_from(again.wanted().unwrap() - 5).unwrap()) {
            events.extend(again.offer(block.clone()).unwrap());
        }
        let settled = Event::Decided { key: alice.key, verdict: Verdict::Settle, paid: 100 };
        assert_eq!(events, [settled], "stopped after {stop}");
    }
}
