//! How fast the ledger decides, how fast a log is replayed, and what locks and ids take in memory.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use engine::{Begin, Config, Durability};
use ledger::{Decision, Ledger};
use storage::{FileStorage, IoMode};
use surety_protocol::{Caller, EngineId, Record, Reply, Seq, ShardId, Time};

use crate::machine::resident_bytes;
use crate::mix::{AUTHORIZER, Mix, OPERATOR, furnish};

/// Partitions of the mix.
pub const PARTITIONS: u64 = 1_000;
/// Requests decided at one moment.
const BATCH: usize = 64;
/// Logical time between batches: that of five million requests a second.
const BATCH_TIME: Time = Time(12_800);

/// A ledger with its buffers.
struct Bench {
    ledger: Ledger,
    now: Time,
    seq: Seq,
    replies: Vec<Reply>,
    follow: Vec<Record>,
}

impl Bench {
    fn new() -> anyhow::Result<Self> {
        let now = Time::from_secs(1_800_000_000);
        let ledger = Ledger::new(Config::new(EngineId(1), ShardId(0)).ledger());
        let mut bench = Self { ledger, now, seq: Seq(1), replies: Vec::new(), follow: Vec::new() };
        for mut operation in furnish(PARTITIONS, now) {
            bench.decide(&OPERATOR, &mut operation);
            let is_done = bench.replies.drain(..).all(|reply| reply.code().is_success());
            ensure!(is_done, "furnishing the ledger failed");
        }
        Ok(bench)
    }

    fn decide(&mut self, caller: &Caller, operation: &mut [Record]) {
        let decision =
            self.ledger.decide(self.now, caller, self.seq, operation, &mut self.replies, &mut self.follow);
        if decision == Decision::Logged {
            self.seq.0 += (operation.len() + self.follow.len()) as u64;
            self.follow.clear();
        }
    }

    fn run(&mut self, requests: &mut [Record]) {
        for batch in requests.chunks_mut(BATCH) {
            self.now = self.now.plus(BATCH_TIME);
            while self.ledger.advance(self.now, self.seq, &mut self.follow) {}
            self.seq.0 += self.follow.len() as u64;
            self.follow.clear();
            // As the engine does with a frame.
            batch.iter_mut().for_each(|request| request.tenant = AUTHORIZER.tenant);
            self.ledger.warm(batch);
            for request in batch {
                self.decide(&AUTHORIZER, std::slice::from_mut(request));
            }
            self.replies.clear();
        }
    }
}

/// Requests per second that a ledger with so many open locks decides.
///
/// # Errors
/// If the ledger refuses what it should take.
pub fn apply_rate(open_locks: usize, requests: usize) -> anyhow::Result<f64> {
    let mut bench = Bench::new()?;
    // As a server with `limits.reserve_locks`: a steady state, in which memory is used again, not growth, which waits for pages.
    bench.ledger.reserve(open_locks + requests, open_locks + requests);
    let mut mix = Mix::new(7, PARTITIONS);
    let mut made = Vec::with_capacity(1 << 16);
    let mut left = open_locks;
    let mut at = bench.now;
    while left > 0 {
        made.clear();
        made.extend((0..left.min(1 << 16)).map(|_| mix.open_lock(at)));
        left -= made.len();
        bench.run(&mut made);
        at = bench.now;
    }
    let mut asked: Vec<Record> = Vec::with_capacity(requests);
    for index in 0..requests {
        asked.push(mix.next(at.plus(Time((index / BATCH) as u64 * BATCH_TIME.0))));
    }
    let start = Instant::now();
    bench.run(&mut asked);
    let rate = requests as f64 / start.elapsed().as_secs_f64();
    bench.ledger.verify().map_err(|violation| anyhow::anyhow!("{violation}"))?;
    Ok(rate)
}

/// Bytes of memory for each open lock, its id included.
///
/// # Errors
/// If the ledger refuses a lock.
pub fn bytes_per_lock(locks: usize) -> anyhow::Result<f64> {
    let mut mix = Mix::new(8, PARTITIONS);
    bytes_per_entry(locks, |at| mix.lock(at))
}

/// Bytes of memory for each remembered id.
///
/// # Errors
/// If the ledger refuses to remember.
pub fn bytes_per_id(ids: usize) -> anyhow::Result<f64> {
    let mut mix = Mix::new(9, PARTITIONS);
    bytes_per_entry(ids, |at| {
        let mut declined = mix.lock(at);
        declined.amount.0 = 1 << 61;
        declined
    })
}

fn bytes_per_entry(count: usize, mut next: impl FnMut(Time) -> Record) -> anyhow::Result<f64> {
    let mut bench = Bench::new()?;
    let mut chunk: Vec<Record> = Vec::with_capacity(BATCH * 16);
    // Everything that does not grow with the entries is there before the first measurement.
    chunk.extend((0..BATCH * 16).map(|_| next(bench.now)));
    bench.run(&mut chunk);
    let before = resident_bytes();
    let held = bench.ledger.locks_len() + bench.ledger.ids_len();
    while bench.ledger.locks_len() + bench.ledger.ids_len() < held + count {
        chunk.clear();
        let at = bench.now;
        chunk.extend((0..BATCH * 16).map(|_| next(at)));
        bench.run(&mut chunk);
    }
    Ok((resident_bytes() - before) as f64 / count as f64)
}

/// What a restart costs.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// Records of the log read, checked and replayed per second.
    pub per_s: f64,
    /// From the start of recovery to a shard that may serve.
    pub recovery_s: f64,
    /// Records in the log.
    pub records: u64,
}

/// Writes a log of the mix into `directory`, and recovers a shard from it.
///
/// # Errors
/// If the disk fails.
pub fn replay(directory: &Path, requests: usize) -> anyhow::Result<Replay> {
    let config = Config { durability: Durability::Os, ..Config::new(EngineId(1), ShardId(0)) };
    let mut storage = FileStorage::open(directory, IoMode::Sync)?;
    let mut now = Time::from_secs(1_800_000_000);
    engine::create(config, &mut storage, now)?;
    let mut shard = engine::recover(config, &mut storage, Begin::Oldest, |_| {})?.open(&mut storage, now)?;
    let mut mix = Mix::new(10, PARTITIONS);
    let furnish = furnish(PARTITIONS, now).into_iter().map(|operation| (OPERATOR, operation));
    let asked = (0..requests).map(|index| {
        now = now.plus(if index.is_multiple_of(BATCH) { BATCH_TIME } else { Time::ZERO });
        (AUTHORIZER, vec![mix.next(now)])
    });
    let mut at = Time::ZERO;
    for (index, (caller, operation)) in furnish.chain(asked).enumerate() {
        at = at.max(operation[0].id.time()).plus(Time(100));
        let bytes: Vec<_> = operation.iter().map(Record::to_bytes).collect();
        shard.handle(at, &caller, 0, &bytes);
        if index % 256 == 255 {
            write_out(&mut shard, &mut storage, at)?;
        }
    }
    shard.stop(at);
    write_out(&mut shard, &mut storage, at)?;
    let expected = shard.ledger().state_hash();
    drop(shard);

    let start = Instant::now();
    let recovered = engine::recover(config, &mut storage, Begin::Oldest, |_| {})?;
    let took = start.elapsed();
    ensure!(recovered.ledger().state_hash() == expected, "replay came to another state");
    let records = recovered.report().replayed;
    recovered.open(&mut storage, at)?;
    Ok(Replay {
        per_s: records as f64 / took.as_secs_f64(),
        recovery_s: start.elapsed().as_secs_f64(),
        records,
    })
}

fn write_out(shard: &mut engine::Engine, storage: &mut FileStorage, now: Time) -> anyhow::Result<()> {
    use wal::Storage;
    shard.handle_timeout(now);
    loop {
        while let Some((name, bytes)) = shard.wants_reserve() {
            storage.create(name, bytes)?;
            storage.sync_directory()?;
            shard.reserve_created(name);
        }
        let Some(write) = shard.poll_write(now) else { break };
        write.perform(storage).context("writing the log")?;
        let mark = write.mark();
        shard.on_written(write);
        // A log in the making: nobody is told of it before it is whole.
        shard.on_synced(mark);
    }
    while shard.poll_reply().is_some() {}
    Ok(())
}
