//! The state of one shard, and the loop's turn: requests in, blocks to the log, replies out. Nothing here waits.

use std::rc::Rc;
use std::sync::Arc;

use engine::{Engine, Marks, Route};
use surety_protocol::limits::{CONNECTION_IN_FLIGHT_MAX, RECORD_BYTES};
use surety_protocol::{
    ALL_CAPTURES, Caller, CloseCode, Code, FrameError, Kind, Operations, Record, Reply, Roles, Seq, ShardId,
    TenantBody, TenantId, Time, Token, sabotage,
};

use crate::clock::{boot_now, readings};
use crate::embedded::LinkEnd;
use crate::metrics::ShardMetrics;
use crate::shard::journal::Journal;
use crate::shard::money::MoneyScan;
use crate::shard::outlet::{Outlet, Peer, Sent, Sink};
use crate::shard::replies::TokenBytes;
use crate::shard::slots::{SlotNumber, Slots};
use crate::shard::tracer::Tracer;
use crate::shared::{Forwarded, Life, Shared};
use engine::clock::Clock;

/// The number of an outlet.
pub(super) type OutletNumber = SlotNumber;

/// One shard's engine, its log's performer, and its peers.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) id: ShardId,
    pub(super) shared: Arc<Shared>,
    pub(super) engine: Engine,
    journal: Journal,
    clock: Clock,
    /// The moment of the batch at hand.
    batch: Option<Time>,
    pub(super) outlets: Slots<Outlet>,
    /// Outlets that got replies since they were last sent.
    dirty: Vec<OutletNumber>,
    token: TokenBytes,
    token_synced: Option<Seq>,
    /// What tokens say of the life that runs; 0 where there was no loss.
    life: u16,
    /// Requests that other shards have not answered.
    forwarded: usize,
    /// Releases whose signatures are being checked.
    releases: usize,
    /// Those of them that nobody checks yet.
    unchecked: Vec<Forwarded>,
    /// Shards that got something since their bell was last rung.
    rung: Vec<ShardId>,
    /// When the block in flight was submitted, on the boot clock.
    submitted: Time,
    money: MoneyScan,
    /// None where no request is traced.
    tracer: Option<Tracer>,
    /// Locks that had ended by their deadline when the shard began to serve.
    expired_before: u64,
}

/// What the caller of a turn has to do.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Outlets whose backlog needs a task that waits for room.
    pub(super) waiters: Vec<OutletNumber>,
    /// Releases whose signatures are to be checked.
    pub(super) releases: Vec<Forwarded>,
    /// The synced mark has moved.
    pub(super) is_synced_further: bool,
}

impl Core {
    pub(super) fn new(
        id: ShardId,
        shared: Arc<Shared>,
        engine: Engine,
        journal: Journal,
        clock: Clock,
    ) -> Self {
        let expired_before = engine.ledger().expired_locks();
        let life = engine.ledger().losses_accepted().last().map_or(0, |(_, life)| Token::mark_of(life));
        let tracer = shared.traces.as_ref().map(|traces| Tracer::new(Arc::clone(traces), id));
        let mut core = Self {
            id,
            shared,
            engine,
            journal,
            clock,
            batch: None,
            outlets: Slots::default(),
            dirty: Vec::new(),
            token: [0; _],
            token_synced: None,
            life,
            forwarded: 0,
            releases: 0,
            unchecked: Vec::new(),
            rung: Vec::new(),
            submitted: Time::ZERO,
            money: MoneyScan::new(),
            tracer,
            expired_before,
        };
        core.renew_token();
        core
    }

    /// Executes a request frame's body for the peer behind an outlet.
    ///
    /// # Errors
    /// The reason to close the connection; nothing of the frame was executed then.
    pub(super) fn execute(
        &mut self,
        outlet: OutletNumber,
        peer: &Peer,
        body: &[u8],
    ) -> Result<(), FrameFault> {
        match self.shared.life() {
            Life::Serving => {}
            // Goodbye was said; what still arrives is not executed.
            Life::Starting | Life::Draining => return Ok(()),
            Life::Forked => return Err(FrameFault::Forked),
        }
        if !sabotage!("bad-frame-executed-in-part") {
            Operations::check(body)?;
        }
        let now = self.begin_batch();
        self.metrics().frames.add(1);
        self.engine.warm(&peer.caller, body.as_chunks().0);
        for operation in Operations::new(body).flatten() {
            self.dispatch(now, outlet, peer, operation);
        }
        Ok(())
    }

    /// Takes the time, once for each batch, and tells it to the engine.
    pub(super) fn begin_batch(&mut self) -> Time {
        if let Some(now) = self.batch {
            return now;
        }
        let (now, is_correction_due) = self.clock.now(boot_now());
        if is_correction_due {
            self.clock.correct(readings());
        }
        self.batch = Some(now);
        self.engine.handle_timeout(now);
        now
    }

    /// True if time alone gives the engine something to do.
    pub(super) fn is_timeout_due(&mut self) -> bool {
        let (now, _) = self.clock.now(boot_now());
        self.engine.poll_timeout().is_some_and(|at| at <= now)
    }

    /// The rest of a turn, after all ready streams have been read: one write, then the replies that may leave.
    pub(super) fn turn(&mut self) -> Turn {
        let mut turn = Turn::default();
        let now = self.begin_batch();
        let synced = self.engine.marks().synced;
        self.take_completions();
        self.write(now);
        self.trace_marks();
        if self.engine.marks().synced != synced {
            self.renew_token();
            turn.is_synced_further = true;
        }
        if let Some(first) = self.engine.poll_reply() {
            self.deliver_all(first);
            self.trace_marks();
        }
        self.send(&mut turn);
        self.ring_others();
        turn.releases = std::mem::take(&mut self.unchecked);
        self.batch = None;
        turn
    }

    /// What other shards have left here: requests of their connections, and answers for ours.
    pub(super) fn take_mail(&mut self) {
        let shared = Arc::clone(&self.shared);
        let inbox = &shared.shards[usize::from(self.id.0)].inbox;
        while let Some((route, reply)) = inbox.answers.pop() {
            self.forwarded -= 1;
            self.deliver_here(outlet_of(route), &reply);
        }
        while let Some(Forwarded { route, caller, operation }) = inbox.forwarded.pop() {
            // A fork closes every connection; nobody is owed an answer then, and nothing may be executed.
            if shared.life() == Life::Forked {
                continue;
            }
            let now = self.begin_batch();
            self.handle(now, &caller, route, &operation);
        }
    }

    /// Stops deciding, so that the next turns write the rest and the seal.
    pub(super) fn stop(&mut self) {
        let now = self.begin_batch();
        self.engine.stop(now);
    }

    /// Gives an outlet a place.
    pub(super) fn attach(&mut self, outlet: Outlet) -> OutletNumber {
        self.outlets.insert(outlet)
    }

    /// The reader of an outlet's requests has ended and forgets its number. The outlet goes when nothing is owed to it.
    pub(super) fn detach(&mut self, number: OutletNumber, is_lost: bool) {
        if let Some(outlet) = self.outlets.get_mut(number) {
            outlet.is_detached = true;
            if is_lost {
                outlet.lose();
            }
        }
        self.remove_if_done(number);
    }

    /// The task that waited for room has ended and forgets the outlet's number.
    pub(super) fn end_wait(&mut self, number: OutletNumber) {
        if let Some(outlet) = self.outlets.get_mut(number) {
            outlet.is_waited_for = false;
        }
        self.remove_if_done(number);
    }

    /// Frees an outlet's place if nothing is owed to it and nobody holds its number; dropping a stream ends it.
    pub(super) fn remove_if_done(&mut self, number: OutletNumber) {
        if self.outlets.get_mut(number).is_some_and(|outlet| outlet.is_done()) {
            self.outlets.remove(number);
        }
    }

    /// The outlet of a link, if that is what is in a place.
    pub(super) fn link_at(&mut self, index: u32, end: &Arc<LinkEnd>) -> Option<OutletNumber> {
        let number = self.outlets.number_at(index)?;
        let outlet = self.outlets.get_mut(number)?;
        matches!(&outlet.sink, Sink::Link(sink) if sink.is_of(end)).then_some(number)
    }

    /// Who is behind an outlet.
    pub(super) fn peer(&mut self, number: OutletNumber) -> Option<Rc<Peer>> {
        self.outlets.get_mut(number).map(|outlet| Rc::clone(&outlet.peer))
    }

    /// Says goodbye on every stream.
    pub(super) fn say_goodbye(&mut self) -> Turn {
        let mut turn = Turn::default();
        for number in self.outlets.numbers() {
            if let Some(outlet) = self.outlets.get_mut(number) {
                outlet.say_goodbye(&self.token);
                self.dirty.push(number);
            }
        }
        self.send(&mut turn);
        turn
    }

    /// True if every request that was taken is answered, and every answer has left.
    pub(super) fn is_quiet(&mut self) -> bool {
        let numbers = self.outlets.numbers();
        let mut outlets = numbers.filter_map(|number| self.outlets.get_mut(number).map(|o| o.is_quiet()));
        outlets.all(|is_quiet| is_quiet) && self.forwarded == 0
    }

    /// How far the log has come.
    pub(super) fn marks(&self) -> Marks {
        self.engine.marks()
    }

    /// The engine's time, without beginning a batch.
    pub(super) fn now(&mut self) -> Time {
        self.clock.now(boot_now()).0
    }

    /// True if a tenant was shut out by a logged order. The operator cannot be, and one that was never set is not.
    pub(super) fn is_shut_out(&self, tenant: TenantId) -> bool {
        self.engine
            .ledger()
            .tenants()
            .iter()
            .any(|state| state.quotas.tenant == tenant && shuts_out(&state.quotas))
    }

    /// The tenants that were shut out.
    pub(super) fn shut_out(&self) -> Vec<TenantId> {
        let tenants = self.engine.ledger().tenants().into_iter().map(|state| state.quotas);
        tenants.filter(shuts_out).map(|quotas| quotas.tenant).collect()
    }

    /// Ends every stream that has got everything. Each future is ready when the peer has all of its stream, or is gone.
    pub(super) fn finish_streams(&mut self) -> Vec<impl Future<Output = ()> + use<>> {
        let numbers = self.outlets.numbers();
        numbers.filter_map(|number| self.outlets.get_mut(number).and_then(Outlet::finish)).collect()
    }

    pub(super) fn metrics(&self) -> &ShardMetrics {
        &self.shared.shards[usize::from(self.id.0)].metrics
    }

    fn dispatch(&mut self, now: Time, number: OutletNumber, peer: &Peer, operation: &[[u8; RECORD_BYTES]]) {
        let requests = requests_of(operation);
        let Some(outlet) = self.outlets.get_mut(number) else { return };
        outlet.outstanding += requests;
        let in_flight = peer.in_flight.get() + requests;
        peer.in_flight.set(in_flight);
        let owner = Record::from_bytes(&operation[0]).partition.shard();
        let route = route_to(self.id, number);
        if in_flight > CONNECTION_IN_FLIGHT_MAX {
            self.refuse(now, route, operation, Code::Overloaded);
        } else if owner == self.id {
            self.handle(now, &peer.caller, route, operation);
        } else if self.shared.shard(owner).is_none() {
            self.refuse(now, route, operation, Code::UnknownPartition);
        } else if !self.forward(owner, &peer.caller, route, operation, requests) {
            self.refuse(now, route, operation, Code::Overloaded);
        }
    }

    /// Hands an operation to this shard's engine, or first to those who check a merchant's signature.
    fn handle(&mut self, now: Time, caller: &Caller, route: Route, operation: &[[u8; RECORD_BYTES]]) {
        let is_release = operation[0][RECORD_BYTES - 2] == Kind::ReleaseGroup as u8;
        if !is_release || !caller.roles.allow(Kind::ReleaseGroup) {
            self.decide(now, caller, route, operation);
        } else if self.releases >= self.shared.limits.releases {
            self.refuse(now, route, operation, Code::Overloaded);
        } else {
            self.releases += 1;
            self.unchecked.push(Forwarded { route, caller: *caller, operation: operation.into() });
        }
    }

    /// Has the engine decide, and notes it if it is traced.
    fn decide(&mut self, now: Time, caller: &Caller, route: Route, operation: &[[u8; RECORD_BYTES]]) {
        let chosen = match &self.tracer {
            None => None,
            Some(tracer) => tracer.choose(Record::from_bytes(&operation[0]).id),
        };
        let Some(chosen) = chosen else { return self.engine.handle(now, caller, route, operation) };
        let before = self.engine.marks().appended;
        self.engine.handle(now, caller, route, operation);
        let (end, decided) = (self.engine.marks().appended, self.now());
        let (end, record) = ((end > before).then_some(end), Record::from_bytes(&operation[0]));
        if let Some(tracer) = &mut self.tracer {
            tracer.on_decided(chosen, caller, &record, end, (now, decided));
        }
    }

    /// Notes how far the log has come, for what is traced.
    fn trace_marks(&mut self) {
        if self.tracer.as_ref().is_none_or(Tracer::is_idle) {
            return;
        }
        let (marks, now) = (self.engine.marks(), self.now());
        if let Some(tracer) = &mut self.tracer {
            tracer.on_marks(marks, now);
        }
    }

    /// Takes a release back whose signature was checked.
    pub(super) fn take_checked(&mut self, release: &Forwarded, is_genuine: bool) {
        self.releases -= 1;
        let now = self.begin_batch();
        if is_genuine || sabotage!("forged-release-applied") {
            self.decide(now, &release.caller, release.route, &release.operation);
        } else {
            self.refuse(now, release.route, &release.operation, Code::NoRight);
        }
    }

    /// Leaves an operation with the shard that owns its partition; false if there is no room.
    fn forward(
        &mut self,
        owner: ShardId,
        caller: &Caller,
        route: Route,
        operation: &[[u8; RECORD_BYTES]],
        requests: usize,
    ) -> bool {
        if self.forwarded + requests > self.shared.limits.forwarded {
            return false;
        }
        let caller = if sabotage!("forwarded-as-the-operator") {
            Caller { tenant: TenantId(0), roles: Roles::KNOWN, ..*caller }
        } else {
            *caller
        };
        let forwarded = || Forwarded { route, caller, operation: operation.into() };
        let queue = &self.shared.shards[usize::from(owner.0)].inbox.forwarded;
        let is_taken = sabotage!("forward-lost") || queue.push(forwarded()).is_ok();
        if sabotage!("forwarded-twice") {
            let _ = queue.push(forwarded());
        }
        if is_taken {
            self.forwarded += requests;
            self.metrics().forwarded.add(requests as u64);
            self.ring_later(owner);
        }
        is_taken
    }

    /// Answers every request of an operation at once: not executed.
    fn refuse(&mut self, now: Time, route: Route, operation: &[[u8; RECORD_BYTES]], code: Code) {
        for record in operation.iter().map(Record::from_bytes) {
            if record.kind() == Some(Kind::Continuation) {
                continue;
            }
            let reply = Reply {
                id: record.id,
                time: now,
                epoch: self.engine.epoch(),
                shard: self.id,
                capture: ALL_CAPTURES,
                code: code as u8,
                kind: record.kind,
                ..Reply::default()
            };
            self.deliver(route, &reply);
        }
    }

    fn deliver_all(&mut self, first: (Route, Reply)) {
        let now = self.now();
        let mut next = Some(first);
        while let Some((route, reply)) = next {
            if !reply.is_replayed() {
                self.metrics().latency.record(now.minus(reply.time).0);
            }
            self.deliver(route, &reply);
            next = self.engine.poll_reply();
        }
    }

    fn deliver(&mut self, route: Route, reply: &Reply) {
        let origin = shard_of(route);
        self.metrics().count_answer(reply);
        if self.tracer.as_ref().is_some_and(|tracer| tracer.awaits(reply)) {
            let now = self.now();
            if let Some(tracer) = &mut self.tracer {
                tracer.on_reply(reply, now);
            }
        }
        if origin == self.id {
            return self.deliver_here(outlet_of(route), reply);
        }
        let pushed = self.shared.shards[usize::from(origin.0)].inbox.answers.push((route, *reply));
        assert!(pushed.is_ok(), "a shard has room for the answers to all that it forwards");
        self.ring_later(origin);
    }

    fn deliver_here(&mut self, number: OutletNumber, reply: &Reply) {
        let first = if sabotage!("reply-to-another-stream") { self.outlets.number_at(0) } else { None };
        let number = first.unwrap_or(number);
        let Some(outlet) = self.outlets.get_mut(number) else { return };
        assert!(outlet.outstanding > 0, "one reply for each request");
        outlet.outstanding -= 1;
        let in_flight = &outlet.peer.in_flight;
        in_flight.set(in_flight.get() - 1);
        outlet.push(reply, &self.token);
        if !std::mem::replace(&mut outlet.is_dirty, true) {
            self.dirty.push(number);
        }
    }

    fn send(&mut self, turn: &mut Turn) {
        let backlog_max = self.shared.limits.backlog_bytes;
        let mut dirty = std::mem::take(&mut self.dirty);
        for number in dirty.drain(..) {
            let Some(outlet) = self.outlets.get_mut(number) else { continue };
            match outlet.flush(&self.token, backlog_max) {
                Sent::All | Sent::Waits => {}
                Sent::NeedsWaiter => turn.waiters.push(number),
                Sent::Gone => outlet.lose(),
                Sent::SlowReader => {
                    tracing::warn!(shard = self.id.0, "a client does not read its replies; closing it");
                    outlet.peer.close(CloseCode::SlowReader);
                    outlet.lose();
                    self.metrics().closed_slow_readers.add(1);
                }
            }
            self.remove_if_done(number);
        }
        self.dirty = dirty;
    }

    fn take_completions(&mut self) {
        let shared = Arc::clone(&self.shared);
        let inbox = &shared.shards[usize::from(self.id.0)].inbox;
        if let Some(write) = inbox.written.pop() {
            self.journal.note_written(&write);
            self.finish_write(write);
        }
        if let Some(mark) = inbox.synced.pop() {
            self.engine.on_synced(mark);
        }
    }

    fn write(&mut self, now: Time) {
        while let Some(write) = self.engine.poll_write(now) {
            self.submitted = boot_now();
            match self.journal.submit(self.id, write) {
                Some(written) => self.finish_write(written),
                None => return,
            }
        }
    }

    fn finish_write(&mut self, write: wal::Write) {
        let metrics = self.metrics();
        metrics.blocks.add(1);
        metrics.records.add(u64::from(write.header().records));
        metrics.write.record(boot_now().minus(self.submitted).0);
        self.engine.on_written(write);
    }

    /// Signs what may now be told. The mark is public before any token says it.
    fn renew_token(&mut self) {
        let synced = self.engine.marks().synced;
        if self.token_synced == Some(synced) {
            return;
        }
        self.shared.shards[usize::from(self.id.0)].set_synced(synced);
        let token =
            Token::sign(&self.shared.token_key, self.shared.engine, self.id, self.engine.epoch(), synced);
        let token = if self.life == 0 { token } else { token.of_life(&self.shared.token_key, self.life) };
        self.token = token.to_bytes();
        self.token_synced = Some(synced);
    }

    fn ring_later(&mut self, shard: ShardId) {
        if !self.rung.contains(&shard) {
            self.rung.push(shard);
        }
    }

    fn ring_others(&mut self) {
        for shard in self.rung.drain(..) {
            self.shared.shards[usize::from(shard.0)].inbox.bell.ring();
        }
    }

    /// Counters that are cheaper to copy now and then than to keep.
    pub(super) fn publish_gauges(&mut self) {
        let marks = self.marks();
        let waiting = self.engine.records_waiting() as u64;
        let ledger = self.engine.ledger();
        let (kept, live) = (ledger.locks_len() as u64, ledger.live_locks() as u64);
        let expired = ledger.expired_locks() - self.expired_before;
        let shard = &self.shared.shards[usize::from(self.id.0)];
        let violations = self.money.step(ledger, &shard.money);
        let in_flight: usize = {
            let numbers = self.outlets.numbers();
            numbers.filter_map(|number| self.outlets.get_mut(number).map(|outlet| outlet.outstanding)).sum()
        };
        let metrics = self.metrics();
        metrics.appended.set(marks.appended.0);
        metrics.acked.set(marks.acked.0);
        metrics.synced.set(marks.synced.0);
        metrics.waiting_records.set(waiting);
        metrics.kept_locks.set(kept);
        metrics.open_locks.set(live);
        metrics.expired.set(expired);
        metrics.violations.add(violations);
        metrics.in_flight.set(in_flight as u64);
    }

    /// Closes every connection.
    pub(super) fn close_all(&mut self, code: CloseCode) {
        for number in self.outlets.numbers() {
            if let Some(outlet) = self.outlets.get_mut(number) {
                outlet.peer.close(code);
                if let Sink::Link(sink) = &mut outlet.sink {
                    sink.close(code);
                }
                outlet.lose();
            }
            self.remove_if_done(number);
        }
    }
}

/// True if these quotas were set, and set to shut their tenant out.
fn shuts_out(quotas: &TenantBody) -> bool {
    let never_set = TenantBody { tenant: quotas.tenant, ..TenantBody::default() };
    quotas.tenant != TenantId(0) && quotas.enabled == 0 && *quotas != never_set
}

/// Why a connection is closed over a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameFault {
    /// Not a frame, or not the next.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A record in it is no request.
    #[error(transparent)]
    Record(#[from] surety_protocol::RecordError),
    /// This kind of frame does not belong here.
    #[error("a {0:?} frame does not belong here")]
    Misplaced(surety_protocol::FrameKind),
    /// The first frame is not a hello that makes sense.
    #[error("the first frame is not a hello of this protocol")]
    NoHello,
    /// No common version.
    #[error(
        "the client speaks versions {0} to {1} of the wire, this engine {oldest} to {newest}",
        oldest = surety_protocol::PROTOCOL_VERSION_MIN,
        newest = surety_protocol::PROTOCOL_VERSION
    )]
    Version(u16, u16),
    /// The certificate is of another tenant.
    #[error("the hello names tenant {named}, the certificate tenant {certified}")]
    Tenant {
        /// By the hello.
        named: TenantId,
        /// By the certificate.
        certified: TenantId,
    },
    /// The tenant was shut out.
    #[error("the tenant is shut out")]
    ShutOut,
    /// A token without this engine's tag.
    #[error("a rollback token of the hello was not signed by this engine")]
    BadToken,
    /// A token of what was lost.
    #[error("a rollback token of the hello is of a life that is lost; forget it, and what was made of it")]
    LostLife,
    /// A subscription or a question to a shard that is not behind this port.
    #[error("a subscription or a question to shard {0}, which is behind another port")]
    WrongShard(ShardId),
    /// This engine's data is an old copy.
    #[error("this engine runs on an old copy of its data")]
    Forked,
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// A frame, or the hello, took too long.
    #[error("a frame took too long to arrive")]
    TooSlow,
}

impl From<FrameFault> for CloseCode {
    fn from(fault: FrameFault) -> Self {
        match fault {
            FrameFault::Frame(error) => error.into(),
            FrameFault::Record(error) => error.into(),
            FrameFault::Misplaced(_) | FrameFault::WrongShard(_) => Self::BadFrame,
            FrameFault::NoHello => Self::BadHello,
            FrameFault::Version(..) => Self::UnknownVersion,
            FrameFault::Tenant { .. } => Self::TenantMismatch,
            FrameFault::ShutOut => Self::BadCertificate,
            FrameFault::BadToken => Self::BadToken,
            FrameFault::Forked => Self::Fork,
            FrameFault::LostLife => Self::LostLife,
            FrameFault::Truncated => Self::Truncated,
            FrameFault::TooSlow => Self::FrameDeadline,
        }
    }
}

/// A route names the shard whose connection asked, and the outlet there.
fn route_to(shard: ShardId, outlet: OutletNumber) -> Route {
    u64::from(shard.0) << SlotNumber::BITS | outlet.to_bits()
}

fn shard_of(route: Route) -> ShardId {
    ShardId((route >> SlotNumber::BITS) as u16)
}

fn outlet_of(route: Route) -> OutletNumber {
    SlotNumber::from_bits(route)
}

/// Requests in an operation: each gets a reply.
fn requests_of(operation: &[[u8; RECORD_BYTES]]) -> usize {
    operation.iter().filter(|bytes| bytes[RECORD_BYTES - 2] != Kind::Continuation as u8).count()
}
