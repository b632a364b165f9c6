//! Larger models than loom can exhaust, in random orders of the threads:
//! `RUSTFLAGS='--cfg shuttle' cargo test -p handoff --test shuttle --release`.
//!
//! A whole engine's threads as the server has them: shards that forward to each other, each with a writer and a syncer of its
//! log, and clients. A failure prints the schedule that replays it.
#![cfg(shuttle)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use handoff::{Bell, Mailbox, Pending};
use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

/// Orders that are tried, of each kind.
const ORDERS: usize = 5_000;
/// Forced switches at chosen places, in the half of the orders that is drawn so; faults of hand-offs need two or three.
const SWITCHES: usize = 3;
const SHARDS: usize = 3;
const REQUESTS: usize = 4;

fn tried(model: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(model.clone(), ORDERS);
    shuttle::check_pct(model, ORDERS, SWITCHES);
}

/// A queue and the bell of whoever empties it.
struct Inbox<T> {
    items: Mutex<VecDeque<T>>,
    bell: Bell,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self { items: Mutex::new(VecDeque::new()), bell: Bell::new() }
    }
}

impl<T> Inbox<T> {
    fn leave(&self, item: T) {
        self.items.lock().unwrap().push_back(item);
        self.bell.ring();
    }

    /// Waits until something has come; a wake-up that is lost is a deadlock, which shuttle reports.
    fn take(&self) -> Vec<T> {
        loop {
            let taken: Vec<T> = self.items.lock().unwrap().drain(..).collect();
            if !taken.is_empty() {
                return taken;
            }
            block_on(poll_fn(|cx| self.bell.poll_rung(cx)));
        }
    }
}

/// What reaches a shard.
enum Message {
    /// A request for the shard of this number; the answer goes to the inbox.
    Request { owner: usize, reply: Arc<Inbox<usize>> },
    /// So many blocks are written.
    Written(usize),
    /// Nothing comes any more.
    Stop,
}

/// A shard's thread: forwards what is another's; one block in flight; replies leave when their block is written.
fn shard(own: usize, inboxes: &[Arc<Inbox<Message>>], log: &Inbox<Option<usize>>, written: &AtomicUsize) {
    let (mut waiting, mut in_flight, mut blocks) = (Vec::new(), Vec::new(), 0);
    let mut is_stopping = false;
    while !is_stopping || !waiting.is_empty() || !in_flight.is_empty() {
        for message in inboxes[own].take() {
            match message {
                Message::Request { owner, reply } if owner != own => {
                    inboxes[owner].leave(Message::Request { owner, reply });
                }
                Message::Request { reply, .. } => waiting.push(reply),
                Message::Written(block) => {
                    assert!(written.load(Ordering::SeqCst) >= block, "an early reply");
                    in_flight.drain(..).for_each(|reply: Arc<Inbox<usize>>| reply.leave(block));
                }
                Message::Stop => is_stopping = true,
            }
        }
        if in_flight.is_empty() && !waiting.is_empty() {
            blocks += 1;
            in_flight = std::mem::take(&mut waiting);
            log.leave(Some(blocks));
        }
    }
    log.leave(None);
}

/// The log's thread: writes, notes what is to be synced, tells the shard.
fn writer(
    log: &Inbox<Option<usize>>,
    written: &AtomicUsize,
    shard: &Inbox<Message>,
    unsynced: &Pending<usize, usize>,
) {
    loop {
        for block in log.take() {
            let Some(block) = block else { return unsynced.close() };
            written.store(block, Ordering::SeqCst);
            // A new segment every other block.
            unsynced.note(block / 2, block);
            shard.leave(Message::Written(block));
        }
    }
}

/// The syncer's thread: how far it has come in the end.
fn syncer(unsynced: &Pending<usize, usize>, written: &AtomicUsize) -> usize {
    let mut synced = 0;
    while let Some((files, mark)) = unsynced.take() {
        assert!(
            mark > synced && mark <= written.load(Ordering::SeqCst),
            "marks rise, behind what is written"
        );
        assert!(files.contains(&(mark / 2)), "the mark's file is among what is synced");
        synced = mark;
        unsynced.pause(Duration::ZERO);
    }
    synced
}

#[test]
fn every_request_to_any_shard_is_answered_and_all_is_synced_in_the_end() {
    tried(|| {
        let inboxes: Vec<Arc<Inbox<Message>>> = (0..SHARDS).map(|_| Arc::default()).collect();
        let mut threads = Vec::new();
        let mut syncers = Vec::new();
        for own in 0..SHARDS {
            let log = Arc::new(Inbox::default());
            let written = Arc::new(AtomicUsize::new(0));
            let unsynced = Arc::new(Pending::new());
            let (all, to, disk) = (inboxes.clone(), Arc::clone(&log), Arc::clone(&written));
            threads.push(thread::spawn(move || shard(own, &all, &to, &disk)));
            let (disk, to, notes) = (Arc::clone(&written), Arc::clone(&inboxes[own]), Arc::clone(&unsynced));
            threads.push(thread::spawn(move || writer(&log, &disk, &to, &notes)));
            syncers
                .push(thread::spawn(move || (syncer(&unsynced, &written), written.load(Ordering::SeqCst))));
        }
        // Each client sends all of its requests to one shard, whoever owns them.
        let clients: Vec<_> = (0..2)
            .map(|client| {
                let to = Arc::clone(&inboxes[client]);
                thread::spawn(move || {
                    let replies = Arc::new(Inbox::default());
                    for request in 0..REQUESTS {
                        let reply = Arc::clone(&replies);
                        to.leave(Message::Request { owner: (client + request) % SHARDS, reply });
                    }
                    let mut answered = 0;
                    while answered < REQUESTS {
                        answered += replies.take().len();
                    }
                    assert_eq!(answered, REQUESTS, "each is answered once");
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        inboxes.iter().for_each(|inbox| inbox.leave(Message::Stop));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        for syncer in syncers {
            let (synced, written) = syncer.join().unwrap();
            assert_eq!(synced, written, "what was written last is synced too");
        }
    });
}

#[test]
fn whoever_leaves_at_the_end_hears_of_it() {
    tried(|| {
        let mailbox = Arc::new(Mailbox::new());
        let sign = Arc::new(());
        let leavers: Vec<_> = (0..3)
            .map(|_| {
                let (mailbox, sign) = (Arc::clone(&mailbox), Arc::clone(&sign));
                thread::spawn(move || (0..3).for_each(|_| mailbox.leave(Arc::clone(&sign))))
            })
            .collect();
        let taken = (0..4).filter_map(|_| mailbox.take()).count();
        mailbox.end();
        leavers.into_iter().for_each(|leaver| leaver.join().unwrap());
        assert!(taken <= 4 && mailbox.take().is_none());
        assert_eq!(Arc::strong_count(&sign), 1, "nobody holds what was left");
    });
}
