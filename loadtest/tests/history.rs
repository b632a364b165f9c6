//! The history of many clients against one partition of a real engine that is killed on the way: in the order of the log it
//! is a history of the money rules, that order respects real time, and the change stream tells the same.
#![allow(clippy::unwrap_used)]

mod port;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use server::{Config, Durability, Limits, Running, pki_path};
use surety_client::{Client, DefiniteError, Draft, Identity, LockRef, LockRequest, Outcome, request};
use surety_protocol::{
    Address, Amount, AssetId, Code, Id, Kind, MerchantId, PartitionHandle, Policy, Record, Reply, Rights,
    Seq, ShardId, TenantBody, TenantId,
};
use tempfile::TempDir;

const COLLATERAL: u128 = 1_000;
const CLIENTS: u64 = 8;
const OPERATIONS: u64 = 150;
const KILLS: u64 = 2;

fn partition() -> PartitionHandle {
    PartitionHandle::new(ShardId(0), 1)
}

/// What one request came to, and when, on a clock that all clients share.
struct Event {
    request: Record,
    reply: Reply,
    begun: u64,
    ended: u64,
}

struct World {
    clock: AtomicU64,
    events: Mutex<Vec<Event>>,
}

impl World {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Sends a request until its outcome is definite. None if it was not executed.
    async fn perform(&self, client: &Client, request: Record) -> Option<Reply> {
        let begun = self.tick();
        let outcome = loop {
            match client.submit_definite(request).await {
                Ok(outcome) => break outcome,
                Err(DefiniteError::NotExecuted(_)) => {}
                Err(DefiniteError::Unresolved(error)) => panic!("{error}"),
            }
        };
        let ended = self.tick();
        let (Outcome::Executed(reply) | Outcome::Declined(reply)) = outcome else { return None };
        self.events.lock().push(Event { request, reply, begun, ended });
        Some(reply)
    }
}

/// Locks and releases at random; a seed for each client.
async fn trade(world: Arc<World>, client: Client, seed: u64) {
    let mut random = seed;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut held = Vec::new();
    for _ in 0..OPERATIONS {
        let draft: Draft = if held.is_empty() || draw(2) == 0 {
            LockRequest::new(partition(), Amount(u128::from(1 + draw(300))), MerchantId(seed)).into()
        } else {
            let position = usize::try_from(draw(held.len() as u64)).unwrap();
            LockRef::new(partition(), held.swap_remove(position)).release()
        };
        let request = draft.into_record(|| client.new_id());
        let reply = world.perform(&client, request).await;
        let is_lock = request.kind() == Some(Kind::Lock);
        if is_lock && reply.is_some_and(|reply| reply.code().is_success()) {
            held.push(request.id);
        }
    }
}

struct Rig {
    directory: TempDir,
    port: u16,
}

impl Rig {
    fn serve(&mut self) -> Running {
        let running = port::start(&Config {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], self.port))),
            durability: Durability::Os,
            segment_bytes: 1 << 20,
            pin_threads: false,
            free_bytes_min: 0,
            limits: Limits { connections_per_s_address: 0, ..Limits::default() },
            ..Config::new(self.directory.path())
        });
        self.port = running.addresses()[0].port();
        running
    }

    async fn connect(&self, who: &str) -> Client {
        let file = pki_path(self.directory.path()).join(who).with_extension("pem");
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        Client::connect(address, Identity::from_file(file).unwrap()).await.unwrap()
    }

    async fn furnish(&self) {
        let admin = self.connect("admin").await;
        let tenant = TenantBody {
            tenant: TenantId(1),
            locks_max: 100_000,
            ids_max: 100_000,
            tombstones_max: 1_000,
            enabled: 1,
            ..TenantBody::default()
        };
        let policy = request::set_policy(admin.new_id(), partition(), &Policy::default());
        let steps = [
            request::set_tenant(PartitionHandle::new(ShardId(0), 0), &tenant),
            request::create_partition(partition(), [9; 32], AssetId(1), false),
            request::grant(partition(), TenantId(1), Rights::KNOWN),
            request::deposit(partition(), Address([1; 20]), Amount(COLLATERAL), 1),
        ];
        for step in steps {
            assert_eq!(admin.send(step).await.unwrap().code(), Code::Approved);
        }
        assert_eq!(admin.submit_long(&policy).await.unwrap().code(), Code::Approved);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_make_one_history() {
    let directory = tempfile::tempdir().unwrap();
    server::init(directory.path(), 1, 1 << 20).unwrap();
    let mut rig = Rig { directory, port: 0 };
    let mut running = rig.serve();
    rig.furnish().await;
    let world = Arc::new(World { clock: AtomicU64::new(0), events: Mutex::default() });
    let mut traders = tokio::task::JoinSet::new();
    for seed in 1..=CLIENTS {
        let client = rig.connect("authorizer").await;
        traders.spawn(trade(world.clone(), client, seed));
    }
    for kill in 1..=KILLS {
        let due = kill * CLIENTS * OPERATIONS / (KILLS + 1);
        while (world.events.lock().len() as u64) < due {
            tokio::task::yield_now().await;
        }
        tokio::task::spawn_blocking(move || running.kill()).await.unwrap();
        running = rig.serve();
    }
    while let Some(trader) = traders.join_next().await {
        trader.unwrap();
    }
    let mut events = std::mem::take(&mut *world.events.lock());
    assert!(
        events.len() as u64 > CLIENTS * OPERATIONS * 9 / 10,
        "{} of the outcomes are recorded",
        events.len()
    );
    events.sort_by_key(|event| event.reply.seq);
    check_money(&events);
    check_real_time(&events);
    check_stream(&rig.connect("reader").await, &events).await;
    running.shutdown();
}

/// In the order of the log every outcome is the one that the money rules give.
fn check_money(events: &[Event]) {
    let mut free = COLLATERAL;
    let mut locks: HashMap<Id, u128> = HashMap::new();
    let mut last = Seq(0);
    let mut declines = 0;
    for Event { request, reply, .. } in events {
        assert!(reply.seq > last, "one record for each request");
        last = reply.seq;
        match (request.kind().unwrap(), reply.code()) {
            (Kind::Lock, Code::Approved) => {
                free = free.checked_sub(request.amount.0).expect("no more is locked than there is");
                locks.insert(request.id, request.amount.0);
            }
            (Kind::Lock, Code::Insufficient) => {
                assert!(request.amount.0 > free, "declined although there was room");
                declines += 1;
            }
            (Kind::Release, Code::Approved) => {
                let lock = request.body::<surety_protocol::ChangeBody>().lock;
                free += locks.remove(&lock).expect("released once, after it was locked");
            }
            (kind, code) => panic!("{kind} was answered {code}"),
        }
        // Repeats and look-ups tell what is free when they are answered.
        if !reply.is_replayed() && reply.kind == request.kind {
            assert_eq!(reply.free.0, free, "at seq {}", reply.seq);
        }
    }
    assert!(declines > 0, "the collateral was contended");
}

/// What had ended before another began stands before it in the log.
fn check_real_time(events: &[Event]) {
    let mut by_end: Vec<(u64, Seq)> = events.iter().map(|event| (event.ended, event.reply.seq)).collect();
    by_end.sort_unstable();
    let mut by_begin: Vec<&Event> = events.iter().collect();
    by_begin.sort_unstable_by_key(|event| event.begun);
    let mut ended = by_end.into_iter().peekable();
    let mut highest = Seq(0);
    for event in by_begin {
        while let Some((_, seq)) = ended.next_if(|(end, _)| *end < event.begun) {
            highest = highest.max(seq);
        }
        assert!(event.reply.seq > highest, "seq {} began after seq {highest} had ended", event.reply.seq);
    }
}

/// The change stream tells of the same requests at the same places, in order.
async fn check_stream(reader: &Client, events: &[Event]) {
    let mut tail = reader.tail(ShardId(0), Seq(0));
    let mut last = Seq(0);
    for event in events {
        let record = loop {
            let (seq, record) = tail.next().await.unwrap();
            assert!(seq > last);
            last = seq;
            if seq == event.reply.seq {
                break record;
            }
        };
        assert_eq!((record.id, record.amount), (event.request.id, event.request.amount));
        assert_eq!(record.code, event.reply.code);
    }
}
