//! Every order of the threads: `RUSTFLAGS='--cfg loom' cargo test -p handoff --test loom --release`.
//!
//! Queues that crossbeam gives are stood in for by a mutex; what is tried is our use of them: leave, then ring.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use handoff::{Bell, Mailbox, Pending};
use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// Forced switches between threads that are tried at most; faults of this kind need two. Where it is not used, every order
/// there is is tried.
const SWITCHES: usize = 3;

fn bounded(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(SWITCHES);
    builder.check(model);
}

/// A queue and its bell, as a shard has them.
#[derive(Default)]
struct Inbox {
    items: Mutex<VecDeque<usize>>,
    bell: Bell,
}

impl Inbox {
    fn leave(&self, item: usize) {
        self.items.lock().unwrap().push_back(item);
        self.bell.ring();
    }

    /// Waits until so many have come; a wake-up that is lost is a deadlock, which loom reports.
    fn take(&self, count: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        while taken.len() < count {
            block_on(poll_fn(|cx| self.bell.poll_rung(cx)));
            taken.extend(self.items.lock().unwrap().drain(..));
        }
        taken
    }
}

#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let inbox = Arc::new(Inbox::default());
        let theirs = Arc::clone(&inbox);
        let other = thread::spawn(move || theirs.leave(7));
        assert_eq!(inbox.take(1), [7]);
        other.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost_between_two_that_ring() {
    bounded(|| {
        let inbox = Arc::new(Inbox::default());
        let others: Vec<_> = (0..2)
            .map(|item| {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || inbox.leave(item))
            })
            .collect();
        let mut taken = inbox.take(2);
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

#[test]
fn no_wake_up_is_lost_while_the_last_one_is_heard() {
    bounded(|| {
        let inbox = Arc::new(Inbox::default());
        let theirs = Arc::clone(&inbox);
        let other = thread::spawn(move || (0..2).for_each(|item| theirs.leave(item)));
        assert_eq!(inbox.take(2), [0, 1]);
        other.join().unwrap();
    });
}

/// The log's thread writes and tells; the shard replies. The order of memory is on trial: the disk is written relaxed.
#[test]
fn no_reply_leaves_before_its_block_is_written() {
    bounded(|| {
        let disk = Arc::new(AtomicUsize::new(0));
        let (to_writer, to_shard) = (Arc::new(Inbox::default()), Arc::new(Inbox::default()));
        let writer = {
            let (disk, orders, done) = (Arc::clone(&disk), Arc::clone(&to_writer), Arc::clone(&to_shard));
            thread::spawn(move || {
                for block in orders.take(1) {
                    disk.store(block, Ordering::Relaxed);
                    done.leave(block);
                }
            })
        };
        to_writer.leave(7);
        for block in to_shard.take(1) {
            assert_eq!(disk.load(Ordering::Relaxed), block, "an early reply");
        }
        writer.join().unwrap();
    });
}

#[test]
fn two_shards_that_forward_to_each_other_are_both_answered() {
    bounded(|| {
        let shards = [Arc::new(Inbox::default()), Arc::new(Inbox::default())];
        // Each has one request of the other's and one answer to its own to see.
        let serve = |own: Arc<Inbox>, other: Arc<Inbox>| {
            other.leave(1);
            let mut seen = 0;
            while seen < 2 {
                for item in own.take(1) {
                    seen += 1;
                    if item == 1 {
                        other.leave(2);
                    }
                }
            }
        };
        let (own, other) = (Arc::clone(&shards[1]), Arc::clone(&shards[0]));
        let second = thread::spawn(move || serve(own, other));
        serve(Arc::clone(&shards[0]), Arc::clone(&shards[1]));
        second.join().unwrap();
    });
}

#[test]
fn what_is_left_at_the_end_is_taken_or_dropped() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::new());
        let sign = Arc::new(());
        let theirs = (Arc::clone(&mailbox), Arc::clone(&sign));
        let other = thread::spawn(move || theirs.0.leave(theirs.1));
        drop(mailbox.take());
        mailbox.end();
        other.join().unwrap();
        assert_eq!(Arc::strong_count(&sign), 1, "nobody holds it");
        assert!(mailbox.take().is_none());
    });
}

#[test]
fn everything_noted_is_taken_before_the_end() {
    loom::model(|| {
        let pending = Arc::new(Pending::new());
        let theirs = Arc::clone(&pending);
        let taker = thread::spawn(move || {
            let (mut files, mut last) = (Vec::new(), 0);
            while let Some((some, mark)) = theirs.take() {
                assert!(mark > last, "marks rise");
                last = mark;
                files.extend(some);
                theirs.pause(Duration::ZERO);
            }
            (files, last)
        });
        pending.note('a', 1);
        pending.note('a', 2);
        pending.note('b', 3);
        pending.close();
        let (files, last) = taker.join().unwrap();
        assert!(files.contains(&'a') && files.ends_with(&['b']), "{files:?}");
        assert_eq!(last, 3);
    });
}
