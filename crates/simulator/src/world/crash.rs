//! What goes wrong around the engine, and the way back.

use engine::clock::Clock;
use engine::{Begin, BuildError, Durability, RecoverError, Recovered};
use surety_protocol::{PartitionHandle, Seq, Time, Token};
use wal::memory::{Fault as DiskFault, MemoryError};
use wal::{SnapshotError, Storage, TailError};

use super::coverage::{Branch, Fault};
use super::serve::compare_totals;
use super::traffic::Traffic;
use super::{Happening, OldCopy, World};
use crate::invariants::Violation;

const RECOVERS: &str = "a crash is survived";
const AGREES: &str = "what is recovered is what was there";
/// Blocks that fill a segment.
const BLOCKS_MAX: u64 = 70;
/// A call that never comes.
const NEVER: u64 = 1 << 40;

impl World {
    /// Now and then something goes wrong.
    pub(super) fn go_wrong(&mut self) -> Result<(), Violation> {
        if !self.random.chance(1, 110) {
            return Ok(());
        }
        match self.random.below(44) {
            0..3 => self.torn_write(),
            3 | 4 => self.crash(Fault::PowerCut),
            5..7 => self.crash(Fault::Kill),
            7..9 => self.disk_error(),
            9 => self.disk_full(),
            10 if self.random.chance(1, 6) => self.burst(),
            10 => self.room_again(),
            11..13 => self.crash_in_roll(),
            13..19 => self.snapshot(),
            19 | 20 => self.crash_in_snapshot(),
            21 | 22 => self.stop_gracefully(),
            23 => self.downtime(),
            24..27 => self.jump(),
            27..29 => self.drift(),
            29..31 => self.cut_connection(),
            31 | 32 => self.client_dies(),
            33 => self.take_copy(),
            34 | 35 => self.put_copy_back(),
            36..38 => self.damage_snapshot(),
            _ => self.damage(),
        }
    }

    /// The power goes in the middle of a block's write.
    fn torn_write(&mut self) -> Result<(), Violation> {
        if self.in_flight.is_none() {
            self.begin_write()?;
        }
        let Some((write, _)) = self.in_flight.take() else { return self.crash(Fault::PowerCut) };
        let nth = 1 + self.random.below(6);
        self.disk.fail_nth(nth, DiskFault::PowerOff);
        let _ = write.perform(&mut self.disk);
        self.in_flight = Some((write, 0));
        self.crash(Fault::TornWrite)
    }

    /// A call of the disk fails some time soon; the engine dies of it.
    fn disk_error(&mut self) -> Result<(), Violation> {
        let nth = 1 + self.random.below(6);
        self.disk.fail_nth(nth, DiskFault::Io);
        Ok(())
    }

    /// A write or sync has failed: nothing may be assumed and nothing repeated.
    pub(super) fn disk_failed(&mut self, error: &MemoryError) -> Result<(), Violation> {
        self.tell(|| format!("the disk fails: {error}"));
        self.crash(Fault::DiskError)
    }

    fn disk_full(&mut self) -> Result<(), Violation> {
        self.outcome.coverage.fault(Fault::DiskFull);
        let lens = self.disk.list().into_iter().flatten().filter_map(|name| self.disk.len(name).ok());
        self.disk.set_capacity(Some(lens.sum()));
        for _ in 0..self.random.below(2 * BLOCKS_MAX) {
            self.finish_write()?;
            self.small_locks(1, 1_000)?;
            self.begin_write()?;
        }
        Ok(())
    }

    fn room_again(&mut self) -> Result<(), Violation> {
        self.disk.set_capacity(None);
        Ok(())
    }

    /// Writes until a block needs a new segment, and takes the power away meanwhile.
    fn crash_in_roll(&mut self) -> Result<(), Violation> {
        for _ in 0..BLOCKS_MAX {
            self.finish_write()?;
            self.small_locks(1, 1_000)?;
            self.begin_write_slowly()?;
            let is_roll = self.in_flight.as_ref().is_some_and(|(write, _)| write.roll().is_some());
            if !is_roll {
                continue;
            }
            let Some((write, _)) = self.in_flight.take() else { continue };
            let nth = 1 + self.random.below(3);
            self.disk.fail_nth(nth, DiskFault::PowerOff);
            let _ = write.perform(&mut self.disk);
            self.in_flight = Some((write, 0));
            return self.crash(Fault::CrashInRoll);
        }
        Ok(())
    }

    /// Locks that hardly anything forbids.
    fn small_locks(&mut self, count: u64, life_ms: u32) -> Result<(), Violation> {
        for at in 0..count {
            let mut random = self.random.fork();
            let client = if at % 2 == 0 { 0 } else { 2 };
            let partition = PartitionHandle::new(self.config.shard, 1);
            let lock = Traffic {
                random: &mut random,
                oracle: &self.oracle,
                client: &self.clients[client],
                others: &self.clients,
                now: self.now,
            }
            .small_lock(partition, life_ms);
            self.handle(client, &[lock])?;
        }
        Ok(())
    }

    /// So many locks end in one moment that a turn cannot log it.
    fn burst(&mut self) -> Result<(), Violation> {
        self.flush()?;
        self.small_locks(1_700, 9_000)?;
        self.flush()?;
        self.boot = self.boot.plus(Time::from_secs(12));
        self.read_clock()?;
        self.turn()?;
        self.small_locks(3, 1_000)
    }

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

    fn power_off(&mut self, keeps_all: bool) {
        let random = &mut self.random;
        self.disk =
            if keeps_all { self.disk.crash_keeping_all() } else { self.disk.crash(&mut |n| random.index(n)) };
        self.disk.set_capacity(None);
        self.is_storage_low = false;
    }

    /// Recovers, maybe with the power going again, and opens a new epoch.
    fn come_back(&mut self, floor: Seq, ceiling: Seq, may_lose_told: bool) -> Result<(), Violation> {
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
    fn take_back(&mut self, last: Seq) -> Result<(), Violation> {
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
    fn start_clock(&mut self, last_logged: Time) -> Result<(), Violation> {
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

    /// The engine ends its log, seals it, and begins again.
    pub(super) fn stop_gracefully(&mut self) -> Result<(), Violation> {
        self.outcome.coverage.fault(Fault::GracefulStop);
        self.disk.fail_nth(NEVER, DiskFault::PowerOff);
        self.disk.set_capacity(None);
        self.flush()?;
        self.tell(|| "a graceful stop".to_owned());
        self.turn()?;
        self.engine.stop(self.now);
        self.note_checkpoint()?;
        for _ in 0..64 {
            self.finish_write()?;
            // In `os` mode a seal waits for the sync of what it seals.
            if self.config.durability == Durability::Os {
                self.sync()?;
            }
            self.drain()?;
            if self.engine.is_stopped() {
                break;
            }
            self.begin_write()?;
        }
        self.drain()?;
        if !self.engine.is_stopped() {
            return Err(Violation::new("a graceful stop ends", format!("{:?}", self.engine)));
        }
        let hash = self.engine.ledger().state_hash();
        let last = self.engine.marks().appended;
        self.sync()?;
        self.outcome.coverage.branch(Branch::SealedEnd);
        self.power_off(false);
        let mut copy = self.disk.crash_keeping_all();
        let again = engine::recover(self.config, &mut copy, Begin::Snapshot, |_| {})
            .map_err(|error| Violation::new(RECOVERS, error.to_string()))?;
        if again.ledger().state_hash() != hash || again.report().torn.is_some() {
            let what = format!("another state after a graceful stop: {:?}", again.report());
            return Err(Violation::new("replay is live", what));
        }
        self.come_back(last, last, false)
    }

    /// A snapshot, and retention behind it.
    fn snapshot(&mut self) -> Result<(), Violation> {
        let synced = self.engine.marks().synced;
        match engine::build_snapshot(&self.config, &mut self.disk, synced) {
            Ok(None) => return Ok(()),
            Ok(Some(summary)) => {
                self.outcome.coverage.branch(Branch::SnapshotMade);
                self.tell(|| format!("a snapshot of {}", summary.header.seq));
            }
            Err(error) => return self.snapshot_failed(&error),
        }
        self.retain(synced)
    }

    fn snapshot_failed(&mut self, error: &BuildError<MemoryError>) -> Result<(), Violation> {
        match error {
            BuildError::Snapshot(SnapshotError::Io(MemoryError::NoSpace)) => self.remove_drafts(),
            BuildError::Snapshot(SnapshotError::Io(error)) | BuildError::Log(TailError::Io(error)) => {
                self.disk_failed(error)
            }
            error => Err(Violation::new("snapshots are sound", error.to_string())),
        }
    }

    /// Snapshots that were begun take the room that is wanted.
    fn remove_drafts(&mut self) -> Result<(), Violation> {
        for name in self.disk.list().unwrap_or_default() {
            if matches!(name, wal::FileName::SnapshotTemp { .. })
                && let Err(error) = self.disk.remove(name)
            {
                return self.disk_failed(&error);
            }
        }
        Ok(())
    }

    fn retain(&mut self, synced: Seq) -> Result<(), Violation> {
        let floor = if self.random.chance(1, 2) { synced } else { Seq(synced.0 / 2) };
        match self.remove_old(floor) {
            Ok(Some(first)) => {
                self.outcome.coverage.branch(Branch::SegmentsRemoved);
                self.engine.on_segments_removed(first);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => self.disk_failed(&error),
        }
    }

    fn remove_old(&mut self, floor: Seq) -> Result<Option<Seq>, MemoryError> {
        let segments = wal::list_segments(&self.disk)?;
        let snapshots = wal::sound_snapshots(&mut self.disk, self.config.identity())?;
        let removal = wal::removable(&segments, &snapshots, floor);
        for name in removal.segments.iter().chain(&removal.snapshots) {
            self.disk.remove(*name)?;
        }
        self.disk.sync_directory()?;
        let first = wal::list_segments(&self.disk)?.first().map(|span| span.first_seq);
        Ok(first.filter(|_| !removal.segments.is_empty()))
    }

    fn crash_in_snapshot(&mut self) -> Result<(), Violation> {
        let nth = 1 + self.random.below(8);
        self.disk.fail_nth(nth, DiskFault::PowerOff);
        let synced = self.engine.marks().synced;
        let is_cut = match engine::build_snapshot(&self.config, &mut self.disk, synced) {
            Ok(None) => false,
            Ok(Some(_)) => self.remove_old(synced).is_err(),
            Err(_) => true,
        };
        if is_cut {
            return self.crash(Fault::CrashInSnapshot);
        }
        self.disk.fail_nth(NEVER, DiskFault::PowerOff);
        let first =
            wal::list_segments(&self.disk).ok().and_then(|all| all.first().map(|span| span.first_seq));
        if let Some(first) = first {
            self.engine.on_segments_removed(first);
        }
        Ok(())
    }

    /// The engine is away for minutes or days.
    fn downtime(&mut self) -> Result<(), Violation> {
        self.outcome.coverage.fault(Fault::Downtime);
        self.stop_before_leaving()?;
        let hours = if self.random.chance(1, 3) { 24 + self.random.below(72) } else { 0 };
        self.boot = self.boot.plus(Time::from_secs(hours * 3600 + self.random.below(600)));
        self.crash(Fault::Kill)
    }

    fn stop_before_leaving(&mut self) -> Result<(), Violation> {
        self.network.clear();
        self.flush()
    }

    fn jump(&mut self) -> Result<(), Violation> {
        let by = 1_000_000 * i64::try_from(self.random.below(200_000_000)).unwrap_or(0);
        if self.random.chance(1, 2) {
            self.outcome.coverage.fault(Fault::ClockAhead);
            self.wall_ahead += by;
        } else {
            self.outcome.coverage.fault(Fault::ClockBack);
            self.wall_ahead -= by;
        }
        self.tell(|| "the wall clock jumps".to_owned());
        Ok(())
    }

    fn drift(&mut self) -> Result<(), Violation> {
        self.outcome.coverage.fault(Fault::ClockDrift);
        self.drift_ppm = i64::try_from(self.random.below(4_000)).unwrap_or(0) - 2_000;
        if self.random.chance(1, 3) {
            self.wall_ahead = 0;
        }
        Ok(())
    }

    fn cut_connection(&mut self) -> Result<(), Violation> {
        let client = self.random.index(self.clients.len());
        self.outcome.coverage.fault(Fault::ConnectionCut);
        self.network.retain(|_, packet| packet.client != client);
        Ok(())
    }

    fn client_dies(&mut self) -> Result<(), Violation> {
        let client = self.random.index(self.clients.len());
        self.outcome.coverage.fault(Fault::ClientDeath);
        self.clients[client].die();
        Ok(())
    }

    fn take_copy(&mut self) -> Result<(), Violation> {
        if self.in_flight.is_none() {
            self.copy = Some(OldCopy { disk: self.disk.crash_keeping_all(), epochs: self.epochs.clone() });
        }
        Ok(())
    }

    /// An old copy is put back and started: what clients remember proves it, whenever anything was told since.
    fn put_copy_back(&mut self) -> Result<(), Violation> {
        let (Some(copy), Some((epoch, synced))) = (self.copy.take(), self.token) else { return Ok(()) };
        self.outcome.coverage.fault(Fault::OldCopy);
        let mut disk = copy.disk;
        // It goes to a disk with room.
        disk.set_capacity(None);
        let recovered = engine::recover(self.config, &mut disk, Begin::Snapshot, |_| {})
            .map_err(|error| Violation::new(RECOVERS, error.to_string()))?;
        let last = recovered.report().last_seq;
        let engine = recovered
            .open(&mut disk, self.now)
            .map_err(|error| Violation::new(RECOVERS, error.to_string()))?;
        let mut epochs = copy.epochs;
        epochs.starts.push((engine.epoch(), last.next()));
        let token = Token::sign(&[9; 32], super::ENGINE, self.config.shard, epoch, synced);
        // Beside the record of its own start, which both histories have, the copy never said anything.
        let was_told_more = synced > last.next();
        let is_proven = epochs.prove_fork(&token, engine.marks().synced);
        if was_told_more && !is_proven {
            let what = format!("{token:?} against a copy that ends at {last}, {epochs:?}");
            return Err(Violation::new("an old copy is noticed", what));
        }
        if is_proven {
            self.outcome.coverage.branch(Branch::ForkProven);
        }
        Ok(())
    }

    /// Tokens of our own past prove nothing against us.
    fn honour_tokens(&mut self) -> Result<(), Violation> {
        let Some((epoch, synced)) = self.token else { return Ok(()) };
        let token = Token::sign(&[9; 32], super::ENGINE, self.config.shard, epoch, synced);
        if self.epochs.prove_fork(&token, self.engine.marks().synced) {
            let what = format!("{token:?} against {:?}", self.epochs);
            return Err(Violation::new("an honest engine is believed", what));
        }
        self.outcome.coverage.branch(Branch::TokenHonoured);
        Ok(())
    }
}

fn is_power(error: &RecoverError<MemoryError>) -> bool {
    matches!(
        error,
        RecoverError::Io(MemoryError::PoweredOff)
            | RecoverError::Log(wal::RecoverError::Io(MemoryError::PoweredOff))
    )
}
