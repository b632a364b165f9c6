//! Redis: the payment in a Lua script, which is atomic there, behind an append-only file.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Script, Value};

use super::{COLLATERAL, Link, PARTITIONS, Payment, Peer, Process, free_port, program, wait_for};
use crate::echo::on_client;
use crate::locks::CLIENT_CORE;

/// Locks unless the id is known or too little is free. What was decided is kept for repeats, as long as Surety keeps it.
const LOCK: &str = "
local known = redis.call('GET', KEYS[1])
if known then return 'R' end
local free = tonumber(redis.call('HGET', KEYS[2], 'free'))
local amount = tonumber(ARGV[1])
if not free or free < amount then
  redis.call('SET', KEYS[1], 'declined', 'EX', 120)
  return 'D'
end
redis.call('HINCRBY', KEYS[2], 'free', -amount)
redis.call('HINCRBY', KEYS[2], 'held', amount)
redis.call('SET', KEYS[1], ARGV[1], 'EX', 600)
return 'A'";

/// Gives back what the id holds, once.
const RELEASE: &str = "
local held = redis.call('GET', KEYS[1])
if not held or held == 'released' or held == 'declined' then return 'N' end
redis.call('HINCRBY', KEYS[2], 'free', held)
redis.call('HINCRBY', KEYS[2], 'held', -tonumber(held))
redis.call('SET', KEYS[1], 'released', 'EX', 120)
return 'A'";

/// When the append-only file is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before each reply; replies that are ready together share a sync.
    Always,
    /// Once a second: a power cut takes a second of payments.
    EverySecond,
}

/// A server of its own.
pub struct Redis {
    port: u16,
    fsync: Fsync,
    _process: Process,
    _directory: tempfile::TempDir,
}

/// A connection.
pub struct RedisLink {
    connection: MultiplexedConnection,
    lock: Script,
    release: Script,
}

impl Redis {
    /// Starts a server with an empty file and furnishes it.
    ///
    /// # Errors
    /// If there is none on this machine, or it does not start.
    pub fn start(parent: &Path, fsync: Fsync) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in(parent)?;
        let (port, log) = (free_port()?, directory.path().join("redis.log"));
        let mut command = Command::new(program("redis-server", &[])?);
        command.arg("--port").arg(port.to_string()).args(["--bind", "127.0.0.1"]);
        command.arg("--dir").arg(directory.path());
        command.args(settings(fsync).split(' ')).args(["--save", ""]);
        let mut child =
            command.stdin(Stdio::null()).stdout(File::create(&log)?).spawn().context("redis-server")?;
        let ready = wait_for(port, &mut child, &log);
        let redis = Self { port, fsync, _process: Process(child), _directory: directory };
        ready.context("redis-server")?;
        redis.furnish()?;
        Ok(redis)
    }

    fn furnish(&self) -> anyhow::Result<()> {
        on_client(CLIENT_CORE, move || async move {
            let mut link = self.connect().await?;
            let mut pipe = Pipeline::new();
            for partition in 0..PARTITIONS {
                let fields = [("free", COLLATERAL), ("held", 0)];
                pipe.hset_multiple(partition_key(partition), &fields).ignore();
            }
            pipe.load_script(&link.lock).ignore().load_script(&link.release).ignore();
            Ok(pipe.query_async::<()>(&mut link.connection).await?)
        })
    }
}

fn settings(fsync: Fsync) -> &'static str {
    match fsync {
        Fsync::Always => "--appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0",
        Fsync::EverySecond => "--appendonly yes --appendfsync everysec --auto-aof-rewrite-percentage 0",
    }
}

impl Peer for Redis {
    type Link = RedisLink;

    async fn connect(&self) -> anyhow::Result<RedisLink> {
        let client = redis::Client::open(("127.0.0.1", self.port))?;
        let connection = client.get_multiplexed_async_connection().await?;
        Ok(RedisLink { connection, lock: Script::new(LOCK), release: Script::new(RELEASE) })
    }

    fn settings(&self) -> String {
        format!(
            "redis-server {} --save '', EVALSHA, requests of one connection pipelined",
            settings(self.fsync)
        )
    }
}

impl RedisLink {
    async fn run(&mut self, pipe: &Pipeline) -> anyhow::Result<()> {
        let answers: Vec<Value> = pipe.query_async(&mut self.connection).await?;
        let is_approved = |answer: &Value| matches!(answer, Value::BulkString(text) if text == b"A");
        let other = answers.iter().find(|answer| !is_approved(answer));
        ensure!(other.is_none(), "Redis answered {other:?}");
        Ok(())
    }
}

impl Link for RedisLink {
    async fn lock(&mut self, payments: &[Payment]) -> anyhow::Result<()> {
        let mut pipe = Pipeline::new();
        for payment in payments {
            let mut call = self.lock.key(lock_key(payment));
            pipe.invoke_script(call.key(partition_key(payment.partition)).arg(payment.amount));
        }
        self.run(&pipe).await
    }

    async fn release(&mut self, payments: &[Payment]) -> anyhow::Result<()> {
        let mut pipe = Pipeline::new();
        for payment in payments {
            pipe.invoke_script(self.release.key(lock_key(payment)).key(partition_key(payment.partition)));
        }
        self.run(&pipe).await
    }
}

/// Sixteen bytes and a letter: the shortest that Redis can be given.
fn lock_key(payment: &Payment) -> Vec<u8> {
    [b"l".as_slice(), &payment.id.to_be_bytes()].concat()
}

fn partition_key(partition: u64) -> Vec<u8> {
    [b"p".as_slice(), &partition.to_be_bytes()].concat()
}
