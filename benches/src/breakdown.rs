//! Where the time of a request goes in a shard: each step alone, over the same requests, as the server takes them.
//!
//! What QUIC, TLS and the kernel take is not here but in the bare echo, which does nothing else.

use std::time::{Duration, Instant};

use anyhow::ensure;
use engine::{Begin, Config, Durability, Engine};
use storage::{FileStorage, IoMode};
use surety_protocol::limits::RECORD_BYTES;
use surety_protocol::{EngineId, Operations, Record, Reply, ShardId, Time};
use wal::Storage as _;

use crate::ledger_rate::PARTITIONS;
use crate::mix::{AUTHORIZER, Mix, OPERATOR, furnish};

/// Nanoseconds of each step for each request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    /// The frame is read without being executed: one bad record, and nothing of it is.
    pub check_ns: f64,
    /// What the frame will touch is fetched.
    pub warm_ns: f64,
    /// Decided, and put into the open block.
    pub decide_ns: f64,
    /// The block is closed: checksums, chain hash.
    pub close_ns: f64,
    /// The block goes to the operating system; not the shard's thread but one beside it does this.
    pub write_ns: f64,
    /// The replies are taken from the gate and written out.
    pub reply_ns: f64,
}

/// Blocks before the first that counts.
const WARM_UP: usize = 16;

/// Runs locks through a shard, `frame` requests at a time, `frames` of them to a block, and takes the time of each step.
///
/// # Errors
/// If the disk fails, or a lock is not approved.
pub fn steps(
    directory: &std::path::Path,
    frame: usize,
    frames: usize,
    blocks: usize,
) -> anyhow::Result<Steps> {
    let config = Config { durability: Durability::Os, ..Config::new(EngineId(1), ShardId(0)) };
    let mut storage = FileStorage::open(directory, IoMode::Sync)?;
    let mut now = Time::from_secs(1_800_000_000);
    engine::create(config, &mut storage, now)?;
    let mut shard = engine::recover(config, &mut storage, Begin::Oldest, |_| {})?.open(&mut storage, now)?;
    let requests = frame * frames * (blocks + WARM_UP);
    shard.reserve(requests);
    for operation in furnish(PARTITIONS, now) {
        let bytes: Vec<_> = operation.iter().map(Record::to_bytes).collect();
        now = now.plus(Time(100));
        shard.handle(now, &OPERATOR, 0, &bytes);
        // Furnished before anything is measured.
        let _ = turn(&mut shard, &mut storage, now, &mut Spent::default())?;
    }
    let mut mix = Mix::new(11, PARTITIONS);
    let mut spent = Spent::default();
    for block in 0..blocks + WARM_UP {
        if block == WARM_UP {
            spent = Spent::default();
        }
        now = now.plus(Time(500_000));
        let bodies: Vec<Vec<u8>> =
            (0..frames).map(|_| (0..frame).flat_map(|_| mix.lock(now).to_bytes()).collect()).collect();
        shard.handle_timeout(now);
        for body in &bodies {
            let at = Instant::now();
            Operations::check(body)?;
            spent.check += at.elapsed();
            let at = Instant::now();
            shard.warm(&AUTHORIZER, body.as_chunks::<RECORD_BYTES>().0);
            spent.warm += at.elapsed();
            let at = Instant::now();
            for operation in Operations::new(body).flatten() {
                shard.handle(now, &AUTHORIZER, 0, operation);
            }
            spent.decide += at.elapsed();
        }
        let answered = turn(&mut shard, &mut storage, now, &mut spent)?;
        ensure!(answered == frame * frames, "{answered} of {} locks were approved", frame * frames);
    }
    Ok(spent.each(frame * frames * blocks))
}

#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    check: Duration,
    warm: Duration,
    decide: Duration,
    close: Duration,
    write: Duration,
    reply: Duration,
}

impl Spent {
    fn each(&self, requests: usize) -> Steps {
        let ns = |spent: Duration| spent.as_nanos() as f64 / requests as f64;
        Steps {
            check_ns: ns(self.check),
            warm_ns: ns(self.warm),
            decide_ns: ns(self.decide),
            close_ns: ns(self.close),
            write_ns: ns(self.write),
            reply_ns: ns(self.reply),
        }
    }
}

/// Writes what is open, and takes the replies. Says how many were approved.
fn turn(
    shard: &mut Engine,
    storage: &mut FileStorage,
    now: Time,
    spent: &mut Spent,
) -> anyhow::Result<usize> {
    while let Some((name, bytes)) = shard.wants_reserve() {
        storage.create(name, bytes)?;
        storage.sync_directory()?;
        shard.reserve_created(name);
    }
    loop {
        let at = Instant::now();
        let write = shard.poll_write(now);
        spent.close += at.elapsed();
        let Some(write) = write else { break };
        let at = Instant::now();
        write.perform(storage)?;
        spent.write += at.elapsed();
        let mark = write.mark();
        shard.on_written(write);
        shard.on_synced(mark);
    }
    let at = Instant::now();
    let mut out: Vec<u8> = Vec::with_capacity(shard.replies_waiting() * RECORD_BYTES);
    let mut approved = 0;
    while let Some((_, reply)) = shard.poll_reply() {
        approved += usize::from(Reply::code(&reply).is_success());
        out.extend_from_slice(&reply.to_bytes());
    }
    std::hint::black_box(&out);
    spent.reply += at.elapsed();
    Ok(approved)
}
