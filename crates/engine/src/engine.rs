//! One shard: decides requests, logs them, and lets a reply go only when its record may be told.

use alloc::vec::Vec;
use core::fmt;

use ledger::{Decision, FOLLOW_MAX, Intake, Ledger};
use surety_protocol::limits::{
    BLOCK_RECORDS_MAX, CHAIN_MAX, DUE_RECORDS_PER_TURN_MAX, LONG_RECORDS_MAX, RECORD_BYTES,
};
use surety_protocol::{
    ALL_CAPTURES, Amount, Caller, Code, ControlBody, Epoch, Id, Kind, PartitionHandle, Record, Reply, Seq,
    TenantId, Time, admit, sabotage,
};
use wal::{Durability, FileName, Log, Mark, SegmentSpan, Write};

use crate::Config;
use crate::gate::{Gate, Held};
use crate::quotas::{Pace, Place, Quotas};

/// Who gets a reply. The engine carries it and does not read it.
pub type Route = u64;

/// Room that the log must have before a request is decided: a turn of expiries, the longest operation with what follows
/// from it, and a checkpoint.
const LOG_ROOM_MIN: usize = DUE_RECORDS_PER_TURN_MAX + 2 * LONG_RECORDS_MAX + 1;
const _: () = {
    assert!(CHAIN_MAX <= LONG_RECORDS_MAX, "a long request is the longest operation");
    assert!(
        DUE_RECORDS_PER_TURN_MAX + LONG_RECORDS_MAX + FOLLOW_MAX < LOG_ROOM_MIN,
        "with one left for a checkpoint"
    );
    assert!(LOG_ROOM_MIN <= BLOCK_RECORDS_MAX, "a log that is drained has the room");
};

/// Requests in a frame that are worth being fetched for together.
const WARM_MIN: usize = 16;

/// How far the log has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Decided, and in memory.
    pub appended: Seq,
    /// Replies may speak of it.
    pub acked: Seq,
    /// A completed sync covers it.
    pub synced: Seq,
}

/// One shard of the engine.
///
/// The owner passes in time, requests and completions, and takes out writes and replies:
///
/// ```text
/// handle_timeout(now), handle(now, request)*   ->   poll_write() -> perform -> on_written, on_synced   ->   poll_reply()*
/// ```
pub struct Engine {
    config: Config,
    ledger: Ledger,
    log: Log,
    gate: Gate,
    quotas: Quotas,
    /// The moment of the batch at hand; it never falls.
    now: Time,
    /// Time has been told to the ledger up to here.
    advanced: Time,
    /// More expiries are due than one turn may log.
    is_behind: bool,
    is_storage_low: bool,
    is_stopping: bool,
    /// A block is in flight.
    is_writing: bool,
    /// When the last record was appended.
    appended_at: Time,
    records_since_checkpoint: u64,
    operation: Vec<Record>,
    replies: Vec<Reply>,
    internal: Vec<Record>,
    encoded: Vec<[u8; RECORD_BYTES]>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("config", &self.config)
            .field("marks", &self.marks())
            .finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn new(config: Config, ledger: Ledger, log: Log, now: Time) -> Self {
        let mut quotas = Quotas::default();
        quotas.read(&ledger);
        let mut engine = Self {
            config,
            ledger,
            log,
            gate: Gate::default(),
            quotas,
            now,
            advanced: Time::ZERO,
            is_behind: false,
            is_storage_low: false,
            is_stopping: false,
            is_writing: false,
            appended_at: now,
            records_since_checkpoint: 0,
            operation: Vec::new(),
            replies: Vec::new(),
            internal: Vec::new(),
            encoded: Vec::new(),
        };
        engine.append_start();
        engine
    }

    /// An engine whose ledger has just accepted a loss: its second record.
    pub(crate) fn after_loss(config: Config, ledger: Ledger, log: Log, now: Time, loss: &Record) -> Self {
        let mut engine = Self::new(config, ledger, log, now);
        engine.log.append(&loss.to_bytes());
        engine.note_appended(1);
        engine
    }

    /// Takes memory for so many locks, and for two remembered ids for each, before it is needed.
    pub fn reserve(&mut self, locks: usize) {
        let locks = locks.min(self.config.locks_max);
        if locks > 0 {
            self.ledger.reserve(locks, (2 * locks).min(self.config.ids_max));
        }
    }

    /// Decides one operation, as [`surety_protocol::Operations`] yields it. Its replies come out of
    /// [`Engine::poll_reply`], one for each request, under `route`.
    ///
    /// `now` is the moment of the batch; it never falls.
    pub fn handle(&mut self, now: Time, caller: &Caller, route: Route, operation: &[[u8; RECORD_BYTES]]) {
        self.operation.clear();
        self.operation.extend(operation.iter().map(Record::from_bytes));
        if let Err(code) = self.admit(caller) {
            return self.refuse(route, code);
        }
        if !sabotage!("expiries-wait-for-the-next-lock") {
            self.advance(now);
        }
        // The ledger refuses what is new, and still answers repeats: of those "not executed" would be untrue.
        let quotas = self.quotas.of(caller);
        self.ledger.set_intake(self.intake(quotas));
        self.replies.clear();
        self.internal.clear();
        let first = self.log.next_seq();
        let decision = self.ledger.decide(
            self.now,
            caller,
            first,
            &mut self.operation,
            &mut self.replies,
            &mut self.internal,
        );
        match decision {
            Decision::Logged => {
                self.append_operation(first);
                self.append_internal();
            }
            Decision::NotLogged => debug_assert!(self.internal.is_empty(), "nothing follows from nothing"),
        }
        self.hold_replies(route, quotas, decision == Decision::Logged);
        if self.operation.first().is_some_and(|record| record.kind() == Some(Kind::TenantSet)) {
            self.quotas.read(&self.ledger);
        }
    }

    /// A hint: these requests of one frame are handled next. What they touch is then fetched for all of them at once rather than
    /// for one after the other. Changes nothing.
    pub fn warm(&mut self, caller: &Caller, requests: &[[u8; RECORD_BYTES]]) {
        // Below this it costs more than it saves.
        if requests.len() < WARM_MIN {
            return;
        }
        self.operation.clear();
        self.operation.extend(requests.iter().map(|bytes| {
            let record = Record::from_bytes(bytes);
            let tenant = if record.tenant == TenantId(0) { caller.tenant } else { record.tenant };
            Record { tenant, ..record }
        }));
        self.ledger.warm(&self.operation);
    }

    /// Lets time pass: call it at the start of every batch, and when [`Engine::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance(now);
        // A log that is never drained gets its state hash inside a block.
        let is_overdue = self.records_since_checkpoint >= 2 * self.config.checkpoint_records;
        let is_quiet = self.quiet_due().is_some_and(|due| self.now >= due);
        if (is_overdue || is_quiet) && self.has_room() {
            self.append_checkpoint();
        }
    }

    /// When [`Engine::handle_timeout`] is next needed although nothing arrives.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if !self.has_room() {
            // Nothing can be logged before the block in flight is done, and its completion turns the loop.
            return None;
        }
        if self.is_behind {
            return Some(self.now);
        }
        // A seal waits for the sync of what it seals; its completion turns the loop.
        let is_sealable = !self.log.is_sealed() && self.log.is_idle() && self.log.is_synced();
        let seal = is_sealable.then(|| self.seal_due());
        [self.ledger.next_due(), seal, self.quiet_due()].into_iter().flatten().min()
    }

    /// The next block to write. None while one is in flight, or if there is nothing to write, or if it needs a new segment
    /// and there is no reserve.
    pub fn poll_write(&mut self, now: Time) -> Option<Write> {
        self.now = self.now.max(now);
        if self.is_checkpoint_due() {
            self.append_checkpoint();
        }
        let is_seal_due = self.is_stopping || self.now >= self.seal_due();
        let write = match self.log.poll_write(self.now) {
            None if is_seal_due => self.log.poll_seal(self.now),
            write => write,
        };
        self.is_writing |= write.is_some();
        write
    }

    /// A block is with the operating system (`os`) or on the disk (`fsync`).
    ///
    /// # Panics
    /// If it is not the block in flight.
    pub fn on_written(&mut self, write: Write) {
        self.log.on_written(write);
        self.is_writing = false;
    }

    /// A sync that was begun when [`Engine::acked`] was `mark` is complete (`os`).
    ///
    /// # Panics
    /// If `mark` was not written yet.
    pub fn on_synced(&mut self, mark: Mark) {
        self.log.on_synced(mark);
    }

    /// The next reply that may leave.
    pub fn poll_reply(&mut self) -> Option<(Route, Reply)> {
        let (route, reply, counted) = self.gate.next(self.log.acked_seq())?;
        if let Some(tenant) = counted {
            self.quotas.answered(tenant);
        }
        Some((route, reply))
    }

    /// Decides nothing new any more: every further request but a repeat or look-up is answered `OVERLOADED`. Ends the log with a state hash, and
    /// [`Engine::poll_write`] then with a seal.
    pub fn stop(&mut self, now: Time) {
        self.advance(now);
        if !self.is_stopping {
            self.append_checkpoint();
            self.is_stopping = true;
        }
    }

    /// True if everything is written and sealed, after [`Engine::stop`].
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopping && self.log.is_idle() && self.log.is_sealed() && self.gate.len() == 0
    }

    /// How far the log has come.
    #[must_use]
    pub fn marks(&self) -> Marks {
        Marks {
            appended: Seq(self.log.next_seq().0 - 1),
            acked: self.log.acked_seq(),
            synced: self.log.synced_seq(),
        }
    }

    /// What a sync that begins now will cover.
    #[must_use]
    pub const fn acked(&self) -> Mark {
        self.log.acked()
    }

    /// What the last completed sync covers.
    #[must_use]
    pub const fn synced(&self) -> Mark {
        self.log.synced()
    }

    /// The epoch of this start.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.log.epoch()
    }

    /// What this engine was told at its start.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The money, to read.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// True if more expiries are due than a turn may log, and the log has room for them: call [`Engine::handle_timeout`] again
    /// soon, since locks are answered `OVERLOADED` meanwhile.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.is_behind && self.has_room()
    }

    /// Replies that wait for the disk.
    #[must_use]
    pub fn replies_waiting(&self) -> usize {
        self.gate.len()
    }

    /// Records that wait for the disk.
    #[must_use]
    pub fn records_waiting(&self) -> usize {
        self.log.waiting()
    }

    /// The segment to create in reserve, if there are too few, and its length; tell [`Engine::reserve_created`].
    #[must_use]
    pub fn wants_reserve(&self) -> Option<(FileName, u64)> {
        self.log.wants_reserve().map(|name| (name, self.log.segment_bytes()))
    }

    /// A segment was created in reserve, and its name is durable.
    ///
    /// # Panics
    /// If it is not the one that was wanted.
    pub fn reserve_created(&mut self, name: FileName) {
        self.log.reserve_created(name);
    }

    /// The segments of the log, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentSpan> {
        self.log.segments()
    }

    /// Segments were removed: all that end before `first_kept`.
    pub fn on_segments_removed(&mut self, first_kept: Seq) {
        self.log.on_segments_removed(first_kept);
    }

    /// The disk is near its reserve, or no longer: new locks are answered `STORAGE_LOW`.
    pub const fn set_storage_low(&mut self, is_low: bool) {
        self.is_storage_low = is_low;
    }

    fn admit(&self, caller: &Caller) -> Result<(), Code> {
        admit(&self.operation, caller)?;
        let is_mine = |record: &Record| {
            record.kind() == Some(Kind::Continuation) || record.partition.shard() == self.config.shard
        };
        if !self.operation.iter().all(is_mine) {
            return Err(Code::UnknownPartition);
        }
        Ok(())
    }

    /// True if the log takes what one more request may lead to: in memory, and on the disk as it is now. While it is not,
    /// whatever is new is answered `OVERLOADED`.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.log.room() >= LOG_ROOM_MIN && self.log.has_place_for(LOG_ROOM_MIN)
    }

    fn intake(&self, quotas: Option<Place>) -> Intake {
        if let Some(pace) = quotas.and_then(|quotas| self.quotas.used_up(quotas, self.now)) {
            match pace {
                Pace::TooFast => Intake::TooFast,
                Pace::TooManyInFlight => Intake::TooManyInFlight,
            }
        } else if self.is_stopping || !self.has_room() {
            Intake::Nothing
        } else if (self.is_storage_low) && !sabotage!("locks-on-a-full-disk") {
            Intake::NoLocks
        } else {
            Intake::All
        }
    }

    fn refuse(&mut self, route: Route, code: Code) {
        let is_request = |record: &&Record| record.kind() != Some(Kind::Continuation);
        for record in self.operation.iter().filter(is_request) {
            let reply = Reply {
                id: record.id,
                time: self.now,
                epoch: self.log.epoch(),
                shard: self.config.shard,
                capture: ALL_CAPTURES,
                code: code as u8,
                kind: record.kind,
                ..Reply::default()
            };
            self.gate.pass(route, reply);
        }
    }

    /// Tells the ledger the time, and logs what has become due.
    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        if self.now == self.advanced && !self.is_behind || !self.has_room() {
            return;
        }
        self.internal.clear();
        self.is_behind = self.ledger.advance(self.now, self.log.next_seq(), &mut self.internal);
        self.advanced = self.now;
        self.append_internal();
    }

    fn append_operation(&mut self, first: Seq) {
        self.encoded.clear();
        self.encoded.extend(self.operation.iter().map(Record::to_bytes));
        let seq = self.log.append_group(&self.encoded);
        assert_eq!(seq, first, "the ledger and the log count alike");
        self.note_appended(self.operation.len());
    }

    fn append_internal(&mut self) {
        for record in &self.internal {
            self.log.append(&record.to_bytes());
        }
        self.note_appended(self.internal.len());
    }

    fn note_appended(&mut self, records: usize) {
        self.records_since_checkpoint += records as u64;
        if records > 0 {
            self.appended_at = self.now;
        }
    }

    fn hold_replies(&mut self, route: Route, quotas: Option<Place>, is_new: bool) {
        // A reply may tell of anything decided so far, so it waits for all of it, even if it is a repeat or a look-up.
        let seq = Seq(self.log.next_seq().0 - 1);
        let epoch = self.log.epoch();
        for mut reply in self.replies.drain(..) {
            reply.epoch = epoch;
            let is_look_up = reply.kind == Kind::Lookup as u8;
            let is_early = sabotage!("repeat-told-before-it-is-durable") && !is_new;
            if (reply.code().is_recorded() || is_look_up) && !is_early {
                let counted = quotas.map(|quotas| self.quotas.count(quotas, is_new, self.now));
                self.gate.hold(Held { seq, route, reply, counted });
            } else {
                self.gate.pass(route, reply);
            }
        }
    }

    /// Tells readers of the log that the engine was away.
    fn append_start(&mut self) {
        let number = u64::from(self.log.epoch().0);
        // Whoever replays the stream forgets ids when the engine does.
        let until = self.config.id_window;
        let body = ControlBody { reference: self.config.engine.0, number, until, ..ControlBody::default() };
        let shard = PartitionHandle::new(self.config.shard, 0);
        let mut record = Record::new(Kind::Start, Id(0), shard, Amount::ZERO, &body);
        record.time = self.now;
        record.code = Code::Approved as u8;
        self.log.append(&record.to_bytes());
        self.note_appended(1);
    }

    fn append_checkpoint(&mut self) {
        let record = self.ledger.checkpoint(self.now);
        self.log.append(&record.to_bytes());
        self.note_appended(1);
        self.records_since_checkpoint = 0;
    }

    /// A state hash is due, and would be the last record of the next block. Snapshots begin behind such a block, so that the
    /// chain hash of the log ties them to it.
    fn is_checkpoint_due(&self) -> bool {
        let waiting = self.log.waiting();
        // A full block that waits holds more than this: the longest group is all that may not have fitted.
        let one_block_waits = (1..BLOCK_RECORDS_MAX - LONG_RECORDS_MAX).contains(&waiting);
        self.records_since_checkpoint >= self.config.checkpoint_records && !self.is_writing && one_block_waits
    }

    const fn seal_due(&self) -> Time {
        self.appended_at.plus(self.config.seal_idle)
    }

    /// When a log to which nothing comes tells that time has passed. One that is short of room keeps it for what has to be said.
    fn quiet_due(&self) -> Option<Time> {
        let is_quiet = self.log.is_sealed() && !self.is_stopping && !self.is_storage_low;
        is_quiet.then(|| self.appended_at.plus(self.config.checkpoint_idle))
    }

    /// Which durability mode this engine runs in.
    #[must_use]
    pub const fn durability(&self) -> Durability {
        self.config.durability
    }
}
