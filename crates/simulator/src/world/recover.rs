//! The way back: a crash, recovery with the power going again, and what must then be as it was.

use engine::clock::Clock;
use engine::{Begin, Durability, RecoverError, Recovered};
use surety_protocol::{Seq, Time, Token};
use wal::memory::{Fault as DiskFault, MemoryError};

use super::coverage::{Branch, Fault};
use super::serve::compare_totals;
use super::{Happening, NEVER, RECOVERS, World};
use crate::invariants::Violation;

const AGREES: &str = "what is recovered is what was there";

impl World {
    /// The engine is gone; what is on the disk is found again.
    pub(super) fn crash(&mut self, fault: Fault) -> Result<(), Violation> {
        self.outcome.coverage.fault(fault);
        self.tell(|| format!("crash: {}", fault.name()));
        let marks = self.engine.marks();
        let submitted = self.in_flight.take().map_or(self.written, |(write, _)| write.last_seq());
        let may_lose_told = self.config.durability == Durability::Os && fault != Fault::Kill;
        let floor = if may_lose_told { marks.synced } else { marks.acked };
        self.power_off(fault == Fault::Kill);
        self.come_back(floor, submitted, may_lose_told)
    }

    pub(super) fn power_off(&mut self, keeps_all: bool) {
        let random = &mut self.random;
        self.disk =
            if keeps_all { self.disk.crash_keeping_all() } else { self.disk.crash(&mut |n| random.index(n)) };
        self.disk.set_capacity(None);
        self.is_storage_low = false;
    }

    /// Recovers, maybe with the power going again, and opens a new epoch.
    pub(super) fn come_back(
        &mut self,
        floor: Seq,
        ceiling: Seq,
        may_lose_told: bool,
    ) -> Result<(), Violation> {
        self.awaited.clear();
        let mut tries = 0;
        loop {
            let cuts = tries < 3 && self.random.chance(1, 5);
            let nth = if cuts { 1 + self.random.below(9) } else { NEVER };
            self.disk.fail_nth(nth, DiskFault::PowerOff);
            match self.try_to_open(floor, ceiling, may_lose_told)? {
                true => break,
                false => {
                    self.outcome.coverage.fault(Fault::CrashInRecovery);
                    self.outcome.coverage.branch(Branch::RecoveredAgain);
                    self.power_off(false);
                    tries += 1;
                }
            }
        }
        self.note_start()?;
        self.honour_tokens()
    }

    /// One try; false if the power went.
    fn try_to_open(&mut self, floor: Seq, ceiling: Seq, may_lose_told: bool) -> Result<bool, Violation> {
        let recovered = match engine::recover(self.config, &mut self.disk, Begin::Snapshot, |_| {}) {
            Ok(recovered) => recovered,
            Err(error) if is_power(&error) => return Ok(false),
            Err(error) => return Err(Violation::new(RECOVERS, error.to_string())),
        };
        let last = recovered.report().last_seq;
        if last < floor || last > ceiling {
            let what = format!("the log ends at {last}, not within {floor} and {ceiling}");
            return Err(Violation::new(RECOVERS, what));
        }
        self.note_branches(&recovered, last, floor);
        self.take_back(last)?;
        self.oracle.pass_time(recovered.ledger().time());
        self.invariants.on_recovered(last, recovered.ledger(), may_lose_told)?;
        self.compare_all(recovered.ledger())?;
        if self.random.chance(1, 4) {
            self.read_whole_log(&recovered)?;
        }
        self.start_clock(recovered.report().last_time)?;
        match recovered.open(&mut self.disk, self.now) {
            Ok(engine) => {
                self.disk.fail_nth(NEVER, DiskFault::PowerOff);
                self.engine = engine;
                self.written = last;
                self.advanced = Time::ZERO;
                self.base = self.oracle.clone();
                self.journal.clear();
                self.trace(last.0);
                Ok(true)
            }
            Err(wal::OpenError::Io(MemoryError::PoweredOff)) => Ok(false),
            Err(error) => Err(Violation::new(RECOVERS, error.to_string())),
        }
    }

    fn note_branches(&mut self, recovered: &Recovered, last: Seq, floor: Seq) {
        let report = recovered.report().clone();
        let coverage = &mut self.outcome.coverage;
        match &report.torn {
            None => coverage.branch(Branch::CleanEnd),
            Some(torn) => {
                coverage.branch(Branch::TornTail);
                if torn.last_seq.is_some() {
                    coverage.branch(Branch::TornRecords);
                }
            }
        }
        if last > floor {
            coverage.branch(Branch::UnackedKept);
        }
        let is_short = wal::list_segments(&self.disk)
            .is_ok_and(|segments| segments.first().is_some_and(|span| span.first_seq > Seq(1)));
        match report.snapshot {
            None => coverage.branch(Branch::FromGenesis),
            Some(_) if is_short => coverage.branch(Branch::FromShortenedLog),
            Some(_) => coverage.branch(Branch::FromSnapshot),
        }
        if report.snapshot.is_some() && !report.unsound_snapshots.is_empty() {
            coverage.branch(Branch::FromOlderSnapshot);
        }
    }

    /// The oracle, the log and the invariants go back to what survived.
    pub(super) fn take_back(&mut self, last: Seq) -> Result<(), Violation> {
        let end = usize::try_from(last.0).unwrap_or(usize::MAX);
        let lost = self.log.len().saturating_sub(end);
        self.oracle = self.base.clone();
        self.oracle.set_intake(crate::oracle::Intake::All);
        let mut events = std::mem::take(&mut self.journal);
        let kept = events.partition_point(|event| event.last <= last);
        // A turn may be cut between two blocks.
        let cut = events.get(kept).and_then(|event| match event.what {
            Happening::Turn { now, first } if first <= last => Some((now, last.0 + 1 - first.0)),
            _ => None,
        });
        events.truncate(kept);
        for event in &events {
            match &event.what {
                Happening::Turn { now, .. } => drop(self.oracle.turn(*now)),
                Happening::Operation { now, caller, first, operation } => {
                    drop(self.oracle.decide(*now, caller, *first, operation));
                }
            }
        }
        if let Some((now, count)) = cut {
            self.oracle.turn_up_to(now, usize::try_from(count).unwrap_or(0));
            self.base = self.oracle.clone();
            events.clear();
        }
        // A try that is cut short begins here again.
        self.journal = events;
        if lost > 0 {
            self.log.truncate(end);
            let survivors: Vec<_> = (1..).map(Seq).zip(self.log.iter().copied()).collect();
            self.invariants.on_lost(&survivors);
        }
        if self.log.len() != end {
            let what = format!("the log ends at {last}, only {} were ever appended", self.log.len());
            return Err(Violation::new(RECOVERS, what));
        }
        Ok(())
    }

    /// Everything that the oracle knows is in the ledger, and nothing else.
    pub(super) fn compare_all(&self, ledger: &ledger::Ledger) -> Result<(), Violation> {
        let oracle = &self.oracle;
        for totals in ledger.partitions() {
            self.invariants.on_totals(&totals)?;
            compare_totals(&totals, oracle)?;
        }
        let counts = (ledger.partitions().len(), ledger.locks_len(), ledger.ids_len());
        let expected = (oracle.partitions().len(), oracle.locks().len(), oracle.ids_len());
        if counts != expected {
            let what = format!("partitions, locks, ids: {counts:?}, should be {expected:?}");
            return Err(Violation::new(AGREES, what));
        }
        for (((tenant, partition), id), it) in oracle.locks() {
            let found = ledger.lock(*tenant, *partition, *id);
            let is_same = found.as_ref().is_some_and(|found| {
                let captures = it.captures.iter().map(|c| (c.u, c.s, c.b, c.q, c.settle_by));
                let theirs =
                    found.captures.iter().map(|c| (c.open, c.settled, c.refunded, c.consumed, c.settle_by));
                (found.end, found.version, found.deadline, found.merchant)
                    == (it.end, it.version, it.deadline, it.merchant)
                    && (found.approved, found.headroom, found.captured, found.released, found.expired)
                        == (it.a, it.g, it.c, it.v, it.e)
                    && (found.pending, found.remaining, found.is_called, found.is_certified)
                        == (it.p, it.remaining(), it.is_called, it.is_certified)
                    && captures.eq(theirs)
            });
            if !is_same {
                return Err(Violation::new(AGREES, format!("lock {id} is {found:?}, should be {it:?}")));
            }
        }
        Ok(())
    }

    /// From its beginning the log comes to the same state as from its snapshot.
    fn read_whole_log(&mut self, recovered: &Recovered) -> Result<(), Violation> {
        let mut copy = self.disk.crash_keeping_all();
        let whole = engine::recover(self.config, &mut copy, Begin::Oldest, |_| {})
            .map_err(|error| Violation::new("a snapshot and its tail are the log", error.to_string()))?;
        let (left, right) = (whole.ledger().state_hash(), recovered.ledger().state_hash());
        if left == right && whole.report().last_seq == recovered.report().last_seq {
            return Ok(());
        }
        let what = format!("{left:032x} from the beginning, {right:032x} from the snapshot");
        Err(Violation::new("a snapshot and its tail are the log", what))
    }

    /// T0 = the later of log and wall; too far apart needs somebody who accepts it.
    pub(super) fn start_clock(&mut self, last_logged: Time) -> Result<(), Violation> {
        let readings = self.readings();
        let day = std::time::Duration::from_secs(24 * 3600);
        self.clock = match Clock::start(last_logged, readings, day) {
            Ok(clock) => clock,
            Err(_) => {
                self.outcome.coverage.branch(Branch::ClockGap);
                Clock::start(last_logged, readings, std::time::Duration::MAX)
                    .map_err(|gap| Violation::new(RECOVERS, gap.to_string()))?
            }
        };
        self.now = self.clock.now(self.boot).0;
        if self.now < last_logged {
            return Err(Violation::new(
                "the clock rule",
                format!("{:?} is before {last_logged:?}", self.now),
            ));
        }
        Ok(())
    }

    /// Tokens of our own past prove nothing against us.
    fn honour_tokens(&mut self) -> Result<(), Violation> {
        let Some((epoch, synced)) = self.token else { return Ok(()) };
        let token = Token::sign(&[9; 32], super::ENGINE, self.config.shard, epoch, synced);
        let token = token.of_life(&[9; 32], self.epochs.life());
        if self.epochs.prove_fork(&token, self.engine.marks().synced) {
            let what = format!("{token:?} against {:?}", self.epochs);
            return Err(Violation::new("an honest engine is believed", what));
        }
        self.outcome.coverage.branch(Branch::TokenHonoured);
        Ok(())
    }
}

pub(super) fn is_power(error: &RecoverError<MemoryError>) -> bool {
    matches!(
        error,
        RecoverError::Io(MemoryError::PoweredOff)
            | RecoverError::Log(wal::RecoverError::Io(MemoryError::PoweredOff))
    )
}
