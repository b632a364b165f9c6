//! What the threads of a server share: facts that do not change, mailboxes, counters, and one word about its life.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_queue::{ArrayQueue, SegQueue};
use engine::{Durability, Route};
use handoff::{Bell, Mailbox};
use parking_lot::RwLock;
use settlement::Domain;
use storage::IoMode;
use surety_protocol::limits::{RECORD_BYTES, SHARDS_MAX};
use surety_protocol::{Caller, EngineId, Reply, Seq, ShardId, Token, sabotage};
use wal::{Mark, Write};

use crate::config::{Config, Limits};
use crate::data::Secret;
use crate::embedded::LinkMessage;
use crate::history::Inquiries;
use crate::metrics::ShardMetrics;
use crate::shard::{Kept, MoneyGauges};
use crate::traces::Traces;
use engine::Epochs;

/// Orders from the server to a shard that wait.
const ORDERS_MAX: usize = 16;

/// How often who waits for somebody else during a start looks whether it is still wanted.
pub(crate) const LOOK_AROUND: Duration = Duration::from_millis(50);

/// What a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Life {
    /// Shards recover.
    Starting = 0,
    /// Requests are executed.
    Serving = 1,
    /// No request that arrives is executed; answers still leave.
    Draining = 2,
    /// A client has proved that this data directory is an old copy. Nothing is executed until somebody looks.
    Forked = 3,
}

/// What runs beside the shards, as the admin listener asks it.
#[derive(Default)]
pub(crate) struct Attached(pub(crate) RwLock<Vec<Arc<dyn telemetry::Source>>>);

impl core::fmt::Debug for Attached {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Attached").field("len", &self.0.read().len()).finish()
    }
}

/// Everything that is shared.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: EngineId,
    pub(crate) token_key: Secret,
    pub(crate) domain: Domain,
    pub(crate) durability: Durability,
    /// How the log is written.
    pub(crate) io: IoMode,
    pub(crate) limits: Limits,
    /// UDP port of each shard; none without a network.
    pub(crate) ports: Vec<u16>,
    pub(crate) shards: Vec<ShardShared>,
    /// None where no request is traced.
    pub(crate) traces: Option<Arc<Traces>>,
    /// Where questions to the history are left.
    pub(crate) inquiries: Inquiries,
    life: AtomicU8,
    /// What runs beside the shards and is told by the admin listener.
    pub(crate) attached: Attached,
}

/// One shard, as the other threads see it.
#[derive(Debug)]
pub(crate) struct ShardShared {
    pub(crate) inbox: Inbox,
    pub(crate) metrics: ShardMetrics,
    pub(crate) money: MoneyGauges,
    /// Set once, before the shard serves.
    pub(crate) epochs: OnceLock<Epochs>,
    synced: AtomicU64,
}

/// An operation on its way to the engine, by another shard or by a check of its signature.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) route: Route,
    pub(crate) caller: Caller,
    pub(crate) operation: Box<[[u8; RECORD_BYTES]]>,
}

/// What the server tells a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Say goodbye, answer what was taken, and report.
    Drain,
    /// Write the rest and the seal, close the connections, and end.
    Seal,
    /// End at once, as a killed process would.
    Kill,
    /// Read the certificates again.
    Reload,
}

/// Where other threads leave things for a shard. Everything in it is bounded.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) forwarded: ArrayQueue<Forwarded>,
    /// Answers to what this shard has forwarded; as many fit as may be outstanding.
    pub(crate) answers: ArrayQueue<(Route, Reply)>,
    /// The block that the log writer has finished; one is in flight.
    pub(crate) written: ArrayQueue<Write>,
    /// The newest mark that the syncer has reached.
    pub(crate) synced: ArrayQueue<Mark>,
    /// Bounded by the links themselves: each has only so many requests that were not answered.
    pub(crate) links: Mailbox<LinkMessage>,
    pub(crate) orders: ArrayQueue<Order>,
    /// Bounded by the jobs that the shard gives.
    pub(crate) kept: SegQueue<Kept>,
    /// Rung after something was left.
    pub(crate) bell: Bell,
}

impl Inbox {
    fn new(limits: &Limits) -> Self {
        Self {
            forwarded: ArrayQueue::new(limits.forwarded.max(1)),
            answers: ArrayQueue::new(limits.forwarded.max(1)),
            written: ArrayQueue::new(1),
            synced: ArrayQueue::new(1),
            links: Mailbox::new(),
            orders: ArrayQueue::new(ORDERS_MAX),
            kept: SegQueue::new(),
            bell: Bell::new(),
        }
    }

    pub(crate) fn order(&self, order: Order) {
        // Orders are few and given once; a shard that takes none any more needs none.
        let _ = self.orders.push(order);
        self.bell.ring();
    }
}

impl ShardShared {
    /// What a completed sync covers; read by everyone who judges a token.
    pub(crate) fn synced(&self) -> Seq {
        Seq(self.synced.load(Ordering::Acquire))
    }

    /// Set by the shard before any token says so.
    pub(crate) fn set_synced(&self, seq: Seq) {
        self.synced.store(seq.0, Ordering::Release);
    }
}

impl Shared {
    pub(crate) fn new(
        domain: Domain,
        token_key: Secret,
        config: &Config,
        io: IoMode,
        ports: Vec<u16>,
        shards: u16,
    ) -> Self {
        let shard = |_| ShardShared {
            inbox: Inbox::new(&config.limits),
            metrics: ShardMetrics::default(),
            money: MoneyGauges::default(),
            epochs: OnceLock::new(),
            synced: AtomicU64::new(0),
        };
        Self {
            engine: domain.engine,
            token_key,
            domain,
            durability: config.durability,
            io,
            limits: config.limits,
            ports,
            shards: (0..shards).map(shard).collect(),
            traces: config.traces.as_ref().map(|traces| Arc::new(Traces::new(traces.sampling))),
            inquiries: Inquiries::new(config.history.clone(), &config.limits),
            life: AtomicU8::new(Life::Starting as u8),
            attached: Attached::default(),
        }
    }

    pub(crate) fn shard(&self, shard: ShardId) -> Option<&ShardShared> {
        self.shards.get(usize::from(shard.0))
    }

    pub(crate) fn life(&self) -> Life {
        match self.life.load(Ordering::Acquire) {
            0 => Life::Starting,
            1 => Life::Serving,
            2 => Life::Draining,
            _ => Life::Forked,
        }
    }

    /// Moves on; a proven fork is never taken back.
    pub(crate) fn set_life(&self, life: Life) {
        self.life.fetch_max(life as u8, Ordering::AcqRel);
    }

    /// Leaves something of a link for a shard. After the end it is dropped, which tells whoever waits for an answer.
    pub(crate) fn tell(&self, shard: ShardId, message: LinkMessage) {
        let inbox = &self.shards[usize::from(shard.0)].inbox;
        inbox.links.leave(message);
        inbox.bell.ring();
    }

    /// No shard reads its inbox any more.
    pub(crate) fn end(&self) {
        self.shards.iter().for_each(|shard| shard.inbox.links.end());
    }

    /// Tells every shard.
    pub(crate) fn order(&self, order: Order) {
        self.shards.iter().for_each(|shard| shard.inbox.order(order));
    }

    /// The shard map for a hello reply.
    pub(crate) fn shard_map(&self) -> [u16; SHARDS_MAX] {
        surety_protocol::shard_map(&self.ports)
    }

    /// Judges the tokens of a hello.
    pub(crate) fn judge(&self, tokens: &[Token]) -> Verdict {
        for token in tokens {
            let shard = self.shard(token.shard);
            let epochs = shard.and_then(|shard| shard.epochs.get().map(|epochs| (shard, epochs)));
            let is_genuine = token.is_genuine(&self.token_key) || sabotage!("token-tag-not-checked");
            let (true, Some((shard, epochs)), true) = (token.engine == self.engine, epochs, is_genuine)
            else {
                return Verdict::BadToken;
            };
            if epochs.prove_fork(token, shard.synced()) {
                return Verdict::Fork(*token);
            }
            if epochs.is_of_a_loss(token) && !sabotage!("lost-token-taken") {
                return Verdict::LostLife;
            }
        }
        Verdict::Sound
    }

    /// Stops everything: a client has seen what this data directory does not know.
    pub(crate) fn declare_fork(&self, token: &Token) {
        tracing::error!(
            shard = token.shard.0,
            epoch = token.epoch.0,
            synced = token.synced.0,
            "a client holds a token that this data directory cannot have issued: it is an old copy or a fork; \
             nothing is executed any more; put the newest copy back"
        );
        if !sabotage!("fork-told-and-served-on") {
            self.set_life(Life::Forked);
        }
        self.shards.iter().for_each(|shard| shard.inbox.bell.ring());
    }
}

/// What tokens say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing against this engine.
    Sound,
    /// One that this engine has not signed.
    BadToken,
    /// One that proves that this engine's state is older than what it has said.
    Fork(Token),
    /// One of a life that is lost, which the operator has accepted.
    LostLife,
}
