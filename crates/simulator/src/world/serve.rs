//! The loop around the engine: requests in, blocks to the disk, replies out, each held against the oracle.

use std::collections::VecDeque;

use surety_protocol::limits::RECORD_BYTES;
use surety_protocol::{
    Amount, Code, ControlBody, Id, Kind, Operations, PartitionHandle, Record, Reply, Seq, Time,
};

use super::coverage::{Branch, Fault};
use super::traffic::{self, SHARD, Traffic, VOICES};
use super::{Awaited, Event, Happening, Packet, World};
use crate::invariants::{Reached, Violation};
use crate::oracle::Intake;

/// Differences from the oracle.
pub(super) const AGREES: &str = "the engine does what the table says";

impl World {
    /// The operator makes tenants, partitions, policies and prices.
    pub(super) fn furnish(&mut self) -> Result<(), Violation> {
        let mut random = self.random.fork();
        for operation in traffic::furniture(&mut random, self.now, self.settling.is_some()) {
            self.handle(traffic::OPERATOR, &operation)?;
        }
        self.flush()
    }

    /// One client says something, and the network does what it likes with it.
    pub(super) fn ask(&mut self) -> Result<(), Violation> {
        let mut random = self.random.fork();
        let client = *random.pick(&VOICES);
        let operation = Traffic {
            random: &mut random,
            oracle: &self.oracle,
            client: &self.clients[client],
            others: &self.clients,
            now: self.now,
            has_chain: self.settling.is_some(),
        }
        .draw();
        self.clients[client].note_sent(&operation);
        self.send(client, operation, &mut random);
        Ok(())
    }

    pub(super) fn send(&mut self, client: usize, operation: Vec<Record>, random: &mut crate::random::Random) {
        let step = self.step;
        let mut put = |at: u64, operation: Vec<Record>| {
            self.packets += 1;
            self.network.insert((at, self.packets), Packet { client, operation });
        };
        match random.below(40) {
            0 => {
                self.outcome.coverage.fault(Fault::RequestLost);
                // The client sends it again after a while.
                put(step + 5 + random.below(60), operation);
            }
            1 | 2 => {
                put(step, operation.clone());
                put(step + random.below(8), operation);
                self.outcome.coverage.fault(Fault::RequestDoubled);
            }
            3..6 => {
                put(step + 1 + random.below(30), operation);
                self.outcome.coverage.fault(Fault::RequestDelayed);
            }
            _ => put(step, operation),
        }
    }

    /// What has arrived is handled.
    pub(super) fn deliver(&mut self) -> Result<(), Violation> {
        while let Some((key, _)) = self.network.first_key_value().filter(|(key, _)| key.0 <= self.step) {
            let key = *key;
            if let Some(packet) = self.network.remove(&key) {
                self.handle(packet.client, &packet.operation)?;
            }
        }
        self.turn()
    }

    /// Hands one operation to the engine and to the oracle.
    pub(super) fn handle(&mut self, client: usize, operation: &[Record]) -> Result<(), Violation> {
        let bytes: Vec<[u8; RECORD_BYTES]> = operation.iter().map(Record::to_bytes).collect();
        if Operations::check(bytes.as_flattened()).is_err() {
            return Ok(());
        }
        self.turn()?;
        // The log has no place: the engine refuses what is new without telling the ledger the time. The frame counts as lost.
        if !self.engine.has_room() {
            return Ok(());
        }
        let caller = self.clients[client].caller;
        // An engine that is behind goes on with what is due before it decides.
        let before = self.engine.marks().appended;
        let due = if self.oracle.is_behind() && self.oracle.is_in_shape(&caller, operation) {
            self.oracle.turn(self.now)
        } else {
            Vec::new()
        };
        let first = Seq(before.0 + due.len() as u64 + 1);
        self.oracle.set_intake(if self.is_storage_low { Intake::NoLocks } else { Intake::All });
        let verdict = self.oracle.decide(self.now, &caller, first, operation);
        self.route += 1;
        self.outcome.operations += 1;
        let hash = self.engine.ledger().state_hash();
        self.engine.handle(self.now, &caller, self.route, &bytes);
        for reply in &verdict.replies {
            self.outcome.coverage.answer(reply.kind, reply.code);
        }
        let what = |verdict: &crate::oracle::Verdict| format!("{operation:?} comes to {verdict:?}");
        let logged = verdict.logged.len() + verdict.follow.len();
        let taken_up = due.len();
        let appended = self.engine.marks().appended;
        if self.plan.tells {
            let codes: Vec<_> = verdict.replies.iter().map(|reply| reply.code().name()).collect();
            let head = operation[0];
            let kind = head.kind().map_or("?", Kind::name);
            self.tell(|| {
                format!(
                    "client {client}: {kind} {} of {} in {}, {} records: {codes:?}",
                    head.amount,
                    head.id,
                    head.partition,
                    operation.len()
                )
            });
        }
        if appended.0 != before.0 + (taken_up + logged) as u64 {
            let found = appended.0 - before.0;
            let gives = self.replies_now();
            return Err(Violation::new(
                AGREES,
                format!("{found} records where {}; it says {gives:?}", what(&verdict)),
            ));
        }
        if taken_up > 0 {
            let last = Seq(before.0 + taken_up as u64);
            let what = Happening::Turn { now: self.now, first: before.next() };
            self.journal.push(Event { last, what });
        }
        for record in &due {
            self.note_record(record)?;
        }
        if logged + taken_up == 0
            && self.engine.ledger().state_hash() != hash
            && self.oracle.time() == self.advanced
        {
            return Err(Violation::new("what is not logged leaves no trace", what(&verdict)));
        }
        if logged > 0 {
            let what = Happening::Operation { now: self.now, caller, first, operation: operation.to_vec() };
            self.journal.push(Event { last: appended, what });
        }
        let mut replies: VecDeque<Reply> = verdict.replies.into();
        let epoch = self.engine.epoch();
        replies.iter_mut().for_each(|reply| reply.epoch = epoch);
        let awaited = Awaited { client, replies, is_loose: verdict.is_loose, appended };
        self.awaited.insert(self.route, awaited);
        for record in verdict.logged.iter().chain(&verdict.follow) {
            self.note_record(record)?;
        }
        self.check_totals(verdict.logged.iter().chain(&verdict.follow).map(|record| record.partition))?;
        self.drain()
    }

    /// For reports of a difference: what the engine wants to say.
    fn replies_now(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        self.now = self.now.plus(Time(1));
        while let Some(write) = self.engine.poll_write(self.now) {
            self.engine.on_written(write);
        }
        while let Some((route, reply)) = self.engine.poll_reply() {
            if route == self.route {
                said.push(format!("{reply:?}"));
            }
        }
        said
    }

    /// Time is told to both.
    pub(super) fn turn(&mut self) -> Result<(), Violation> {
        if !self.engine.has_room() {
            return Ok(());
        }
        let before = self.engine.marks().appended;
        let due = if self.now != self.advanced || self.oracle.is_behind() {
            self.oracle.turn(self.now)
        } else {
            Vec::new()
        };
        self.advanced = self.now;
        self.engine.handle_timeout(self.now);
        let appended = self.engine.marks().appended.0 - before.0;
        if appended < due.len() as u64 || appended > due.len() as u64 + 1 {
            let what = format!("{appended} records are due at {:?} where {due:?}", self.now);
            return Err(Violation::new(AGREES, what));
        }
        if self.oracle.is_behind() {
            self.outcome.coverage.branch(Branch::Behind);
        }
        if !due.is_empty() {
            let last = Seq(before.0 + due.len() as u64);
            self.journal.push(Event { last, what: Happening::Turn { now: self.now, first: before.next() } });
        }
        for record in &due {
            self.note_record(record)?;
        }
        if appended > due.len() as u64 {
            self.note_checkpoint()?;
        }
        self.check_totals(due.iter().map(|record| record.partition))
    }

    /// A record that the log must hold.
    pub(super) fn note_record(&mut self, record: &Record) -> Result<(), Violation> {
        self.log.push(*record);
        let seq = Seq(self.log.len() as u64);
        self.invariants.on_record(seq, record)
    }

    pub(super) fn note_checkpoint(&mut self) -> Result<(), Violation> {
        let reference = self.engine.ledger().state_hash();
        let record = own_record(Kind::Checkpoint, self.engine.ledger().time(), reference, 0);
        self.note_record(&record)
    }

    pub(super) fn note_start(&mut self) -> Result<(), Violation> {
        let epoch = self.engine.epoch();
        self.invariants.on_epoch(epoch)?;
        self.invariants.on_clock(self.now, self.boot, true)?;
        let mut record = own_record(Kind::Start, self.now, super::ENGINE.0, epoch.0.into());
        let until = self.engine.config().id_window;
        record.set_body(&ControlBody { until, ..record.body() });
        self.note_record(&record)?;
        self.epochs.starts.push((epoch, Seq(self.log.len() as u64)));
        Ok(())
    }

    /// The engine's totals are the oracle's, and add up by themselves.
    pub(super) fn check_totals(
        &mut self,
        touched: impl Iterator<Item = PartitionHandle>,
    ) -> Result<(), Violation> {
        let mut last = None;
        for handle in touched {
            if handle.number() == 0 || last == Some(handle) {
                continue;
            }
            last = Some(handle);
            let Some(found) = self.engine.ledger().partition(handle) else { continue };
            self.invariants.on_totals(&found)?;
            compare_totals(&found, &self.oracle)?;
        }
        Ok(())
    }

    /// Replies leave; each is the one that was awaited.
    pub(super) fn drain(&mut self) -> Result<(), Violation> {
        while let Some((route, mut reply)) = self.engine.poll_reply() {
            let Some(awaited) = self.awaited.get_mut(&route) else {
                return Err(Violation::new(AGREES, format!("nobody awaits {reply:?}")));
            };
            let (client, is_loose, appended) = (awaited.client, awaited.is_loose, awaited.appended);
            // Refusals do not wait, so replies to one chain come in any order.
            let same = |expected: &Reply| expected.id == reply.id && expected.code == reply.code;
            let at = awaited.replies.iter().position(same).unwrap_or(0);
            let Some(mut expected) = awaited.replies.remove(at) else {
                return Err(Violation::new(AGREES, format!("one reply too many: {reply:?}")));
            };
            if awaited.replies.is_empty() {
                self.awaited.remove(&route);
            }
            let caller = self.clients[client].caller;
            self.invariants.on_reply(&reply, &caller, Reached { written: self.written, appended })?;
            self.trace_bytes(&reply.to_bytes());
            if is_loose {
                for reply in [&mut reply, &mut expected] {
                    (reply.approved, reply.extra, reply.deadline) = (Amount(0), Amount(0), Time::ZERO);
                }
            }
            if reply != expected {
                let what = format!("it answers {reply:?}, should answer {expected:?}");
                return Err(Violation::new(AGREES, what));
            }
            self.arrive(client, &reply);
        }
        Ok(())
    }

    /// A reply on its way to its client, with the token in front of it.
    fn arrive(&mut self, client: usize, reply: &Reply) {
        let lot = self.outcome.trace % 50;
        if lot == 0 {
            self.outcome.coverage.fault(Fault::ReplyLost);
            // The client sends the same again, or makes sure by a look-up.
            let sent = &self.clients[client].sent;
            if let Some(again) = sent.iter().find(|operation| operation[0].id == reply.id).cloned() {
                self.packets += 1;
                self.network.insert((self.step + 3, self.packets), Packet { client, operation: again });
            }
            return;
        }
        let token = (self.engine.epoch(), self.engine.marks().synced);
        self.token = self.token.max(Some(token));
    }

    /// Everything is written and answered.
    pub(super) fn flush(&mut self) -> Result<(), Violation> {
        loop {
            self.finish_write()?;
            self.begin_write()?;
            if self.in_flight.is_none() && self.engine.records_waiting() == 0 {
                break;
            }
            if self.in_flight.is_none() && self.is_storage_low {
                break;
            }
        }
        self.drain()
    }

    /// The end of the world: whatever was asked is answered, and the log reads back.
    pub(super) fn end(&mut self) -> Result<(), Violation> {
        self.disk.fail_nth(super::NEVER, wal::memory::Fault::Io);
        self.disk.set_capacity(None);
        self.flush()?;
        self.settle_all()?;
        if let Some((route, awaited)) = self.awaited.first_key_value() {
            return Err(Violation::new("everything is answered", format!("route {route}: {awaited:?}")));
        }
        self.stop_gracefully()
    }
}

/// A record that the engine writes about itself.
fn own_record(kind: Kind, time: Time, reference: u128, number: u64) -> Record {
    let body = ControlBody { reference, number, ..ControlBody::default() };
    let shard = PartitionHandle::new(SHARD, 0);
    let mut record = Record::new(kind, Id(0), shard, Amount(0), &body);
    record.time = time;
    record.code = Code::Approved as u8;
    record
}

/// Holds a partition's totals against the oracle's.
pub(super) fn compare_totals(
    found: &ledger::Totals,
    oracle: &crate::oracle::Oracle,
) -> Result<(), Violation> {
    let Some(it) = oracle.partitions().get(&found.handle) else {
        return Err(Violation::new(AGREES, format!("{} should not exist", found.handle)));
    };
    let queued: u128 = it.queue.iter().map(|queued| queued.units).sum();
    let left = [it.k, it.d, it.f, it.h, it.u, it.p, it.w, it.x, it.units, queued, it.fees];
    let right = [
        found.on_chain,
        found.deficit,
        found.free,
        found.held,
        found.captured,
        found.pending,
        found.owed,
        found.exposure,
        found.units,
        found.units_queued,
        found.fees,
    ];
    let is_same = left == right
        && it.is_stopped() == found.is_frozen
        && it.cap == found.risk_cap
        && (it.batch, it.generation, it.policy_seq) == (found.batch, found.generation, found.policy_seq);
    if is_same {
        return Ok(());
    }
    Err(Violation::new(
        AGREES,
        format!(
            "{}: K D F H U P W X units queued fees are {right:?}, should be {left:?}; {:?} {:?}",
            found.handle, found.risk_cap, it.cap
        ),
    ))
}
