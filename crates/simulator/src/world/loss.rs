//! Everything behind a backup is lost, and the operator accepts it: what a restore to serve from does, without its files.

use engine::{AcceptedLoss, AfterLossError, Begin, Engine, Epochs};
use surety_protocol::{
    Amount, ChangeBody, Code, ControlBody, Id, Kind, LossBody, PartitionHandle, Record, Seq, Time, Token,
    limits,
};
use wal::memory::{Fault as DiskFault, MemoryError, MemoryStorage};

use super::coverage::{Branch, Fault};
use super::recover::is_power;
use super::traffic::{OPERATOR, PARTITIONS};
use super::{Event, NEVER, RECOVERS, World};
use crate::invariants::Violation;
use crate::oracle::Oracle;
use crate::random::Random;

const NAME: &str = "a loss that was accepted";
/// One world in so many loses an engine: what a loss makes of it is not what most worlds are for.
const EVERY: u64 = 5;
/// The client that tells of old payments.
const TELLER: usize = 0;
/// How many of them it remembers.
const OLD_LOCKS: usize = 12;
const TOKEN_KEY: [u8; 32] = [9; 32];

/// True for the worlds that lose engines; none of them settles.
pub(super) const fn loses(seed: u64) -> bool {
    seed % EVERY == 2
}

/// What a backup has, and what the oracle knew of it.
#[derive(Clone, Debug)]
pub(super) struct Backup {
    disk: MemoryStorage,
    epochs: Epochs,
    base: Oracle,
    journal: Vec<Event>,
}

impl World {
    /// Backups are taken, now and then all but one is lost, and the operator reconciles what it finds.
    pub(super) fn lose_now_and_then(&mut self, seed: u64) -> Result<(), Violation> {
        if !loses(self.plan.seed) || self.settling.is_some() {
            return Ok(());
        }
        self.random = Random::new(seed ^ 2);
        match self.random.below(1_200) {
            0..4 if self.in_flight.is_none() => self.back_up(),
            4 | 5 => self.lose()?,
            6..60 => self.reconcile()?,
            60..84 => self.ask_of_an_old_lock()?,
            _ => {}
        }
        Ok(())
    }

    fn back_up(&mut self) {
        let mut disk = self.disk.crash_keeping_all();
        // It goes to a disk with room.
        disk.set_capacity(None);
        let (epochs, base, journal) = (self.epochs.clone(), self.base.clone(), self.journal.clone());
        self.backup = Some(Backup { disk, epochs, base, journal });
    }

    /// One of them, so that reconciled partitions live beside others.
    fn reconcile(&mut self) -> Result<(), Violation> {
        let Some(partition) = self.oracle.unreconciled() else { return Ok(()) };
        let entropy = u128::from(self.random.next_u64()) << 64 | u128::from(self.random.next_u64());
        let id = Id::from_parts(self.now, entropy);
        let body = ControlBody { user: self.step, ..ControlBody::default() };
        let record = Record::new(Kind::Reconcile, id, partition, Amount::ZERO, &body);
        self.handle(OPERATOR, &[record])?;
        if self.oracle.unreconciled() != Some(partition) {
            self.outcome.coverage.branch(Branch::Reconciled);
        }
        Ok(())
    }

    /// A client tells of payments under ids that are older than any request's may be, and asks what became of them.
    fn ask_of_an_old_lock(&mut self) -> Result<(), Violation> {
        let kinds = [
            (Kind::Advice, 60),
            (Kind::Reverse, 0),
            (Kind::Refund, 5),
            (Kind::Release, 0),
            (Kind::Settle, 0),
            (Kind::Lookup, 0),
        ];
        let is_new = self.old_locks.len() < OLD_LOCKS || self.random.chance(1, 4);
        let (partition, lock) =
            if is_new { self.name_old_lock() } else { *self.random.pick(&self.old_locks) };
        let (kind, amount) = if is_new { kinds[0] } else { *self.random.pick(&kinds) };
        let entropy = u128::from(self.random.next_u64()) << 64 | u128::from(self.random.next_u64());
        let id = Id::from_parts(self.now, entropy);
        let body = ChangeBody { lock, ..ChangeBody::default() };
        self.handle(TELLER, &[Record::new(kind, id, partition, Amount(amount), &body)])?;
        if self.lost_old_locks.contains(&(partition, lock)) && !self.oracle.is_suspended(partition) {
            self.outcome.coverage.branch(Branch::OldLockLost);
        }
        Ok(())
    }

    fn name_old_lock(&mut self) -> (PartitionHandle, Id) {
        let days = 8 + self.random.below(60);
        let at = self.now.minus(Time::from_secs(days * 24 * 3600));
        let name = (
            PartitionHandle::new(self.config.shard, 1 + self.random.below(PARTITIONS)),
            Id::from_parts(at, u128::from(self.random.next_u64()) << 64 | u128::from(self.random.next_u64())),
        );
        if self.old_locks.len() == OLD_LOCKS {
            self.old_locks.remove(0);
        }
        self.old_locks.push(name);
        name
    }

    /// Those of them that the engine knows.
    fn known_old_locks(&self) -> Vec<(PartitionHandle, Id)> {
        let tenant = self.clients[TELLER].caller.tenant;
        let is_known =
            |(partition, id): &&(PartitionHandle, Id)| self.oracle.lock((tenant, *partition), *id).is_some();
        self.old_locks.iter().filter(is_known).copied().collect()
    }

    /// Disk and mirror are gone; the backup is put back, maybe with the power going meanwhile, and lives on.
    fn lose(&mut self) -> Result<(), Violation> {
        let is_full = self.oracle.losses() == limits::LOSSES_MAX;
        let Some(backup) = self.backup.take().filter(|_| !is_full) else { return Ok(()) };
        self.outcome.coverage.fault(Fault::AcceptedLoss);
        if self.oracle.losses() > 0 {
            self.outcome.coverage.branch(Branch::LostAgain);
        }
        self.tell(|| "everything behind the backup is lost".to_owned());
        let theirs = (self.epochs.clone(), self.engine.marks().synced);
        let had = self.known_old_locks();
        self.in_flight = None;
        self.is_storage_low = false;
        self.awaited.clear();
        let until = self.now;
        let life = u128::from(self.random.next_u64()) << 64 | u128::from(self.random.next_u64());
        let (engine, disk, last) = self.restore(&backup, AcceptedLoss { life, until })?;
        let kept = usize::try_from(last.0).unwrap_or(usize::MAX);
        self.invariants.on_accepted_loss(&self.log, kept);
        (self.base, self.journal) = (backup.base, backup.journal);
        self.take_back(last)?;
        self.go_on(engine, disk, backup.epochs, (last, life, until))?;
        let kept_old = self.known_old_locks();
        self.lost_old_locks.extend(had.iter().filter(|name| !kept_old.contains(name)));
        self.compare_lives(&theirs.0, theirs.1)
    }

    /// Until it comes to its end, each time from the backup again.
    fn restore(
        &mut self,
        backup: &Backup,
        accepted: AcceptedLoss,
    ) -> Result<(Engine, MemoryStorage, Seq), Violation> {
        for tries in 0.. {
            let mut disk = backup.disk.clone();
            let cuts = tries < 3 && self.random.chance(1, 4);
            disk.fail_nth(if cuts { 1 + self.random.below(12) } else { NEVER }, DiskFault::PowerOff);
            match self.try_to_restore(&mut disk, accepted)? {
                Some((engine, last)) => return Ok((engine, disk, last)),
                None => self.outcome.coverage.fault(Fault::CutInRestore),
            }
        }
        unreachable!("the power stays after three tries")
    }

    /// None if the power went.
    fn try_to_restore(
        &mut self,
        disk: &mut MemoryStorage,
        accepted: AcceptedLoss,
    ) -> Result<Option<(Engine, Seq)>, Violation> {
        let broken = |error: String| Err(Violation::new(RECOVERS, error));
        let recovered = match engine::recover(self.config, disk, Begin::Snapshot, |_| {}) {
            Ok(recovered) => recovered,
            Err(error) if is_power(&error) => return Ok(None),
            Err(error) => return broken(error.to_string()),
        };
        let last = recovered.report().last_seq;
        self.start_clock(recovered.report().last_time.max(accepted.until))?;
        let noted = recovered.report().epoch;
        let mut engine = match recovered.open_after_loss(disk, self.now, accepted, noted) {
            Ok(engine) => engine,
            Err(AfterLossError::Open(wal::OpenError::Io(MemoryError::PoweredOff))) => return Ok(None),
            Err(error) => return broken(error.to_string()),
        };
        // Nobody is served before what was lost is on the disk.
        while engine.marks().synced < Seq(last.0 + 2) {
            while let Some((name, bytes)) = engine.wants_reserve() {
                match wal::create_reserve(disk, name, bytes) {
                    Ok(()) => engine.reserve_created(name),
                    Err(MemoryError::PoweredOff) => return Ok(None),
                    Err(error) => return broken(error.to_string()),
                }
            }
            let Some(write) = engine.poll_write(self.now) else {
                match engine.segments().iter().try_for_each(|span| wal::Storage::sync(disk, span.file())) {
                    Ok(()) => engine.on_synced(engine.acked()),
                    Err(MemoryError::PoweredOff) => return Ok(None),
                    Err(error) => return broken(error.to_string()),
                }
                continue;
            };
            match write.perform(disk) {
                Ok(()) => engine.on_written(write),
                Err(MemoryError::PoweredOff) => return Ok(None),
                Err(error) => return broken(error.to_string()),
            }
        }
        disk.fail_nth(NEVER, DiskFault::PowerOff);
        Ok(Some((engine, last)))
    }

    /// The world is that of the life which begins.
    fn go_on(
        &mut self,
        engine: Engine,
        disk: MemoryStorage,
        epochs: Epochs,
        (last, life, until): (Seq, u128, Time),
    ) -> Result<(), Violation> {
        (self.engine, self.disk, self.epochs) = (engine, disk, epochs);
        let kept = self.oracle.time();
        self.oracle.lose(self.now, until);
        self.written = self.engine.marks().synced;
        self.advanced = Time::ZERO;
        self.note_start()?;
        let record = loss_record(self.config.shard, self.now, (kept, last, life, until));
        self.note_record(&record)?;
        self.base = self.oracle.clone();
        self.journal.clear();
        self.epochs
            .note_losses(self.engine.ledger().losses_accepted())
            .map_err(|error| Violation::new(NAME, error.to_string()))?;
        self.compare_all(self.engine.ledger())?;
        self.trace(last.0);
        self.drain()
    }

    /// A client of the lost life is told so and proves nothing; and the life itself, had it run on, would learn of this one.
    fn compare_lives(&mut self, theirs: &Epochs, synced: Seq) -> Result<(), Violation> {
        let ours = self.engine.marks().synced;
        let last = Seq(ours.0 - 2);
        if let Some((epoch, told)) = self.token.take() {
            let token = Token::sign(&TOKEN_KEY, super::ENGINE, self.config.shard, epoch, told);
            let token = token.of_life(&TOKEN_KEY, theirs.life());
            let is_told = self.epochs.is_of_a_loss(&token);
            if self.epochs.prove_fork(&token, ours) || is_told != (told > last) {
                let what = format!("{token:?} against {:?}, kept to {last}", self.epochs);
                return Err(Violation::new(NAME, what));
            }
            if is_told {
                self.outcome.coverage.branch(Branch::LostLifeTold);
            }
        }
        let token = Token::sign(&TOKEN_KEY, super::ENGINE, self.config.shard, self.engine.epoch(), ours);
        let token = token.of_life(&TOKEN_KEY, self.epochs.life());
        if !theirs.prove_fork(&token, synced) {
            return Err(Violation::new(NAME, format!("{token:?} against the lost {theirs:?}")));
        }
        self.outcome.coverage.branch(Branch::ZombieProven);
        Ok(())
    }
}

/// The record of a loss, as the log must hold it.
fn loss_record(
    shard: surety_protocol::ShardId,
    now: Time,
    (kept, after, life, until): (Time, Seq, u128, Time),
) -> Record {
    let body = LossBody {
        life,
        after,
        from: kept,
        until: until.max(now).plus(limits::ID_FUTURE_MAX),
        version_leap: limits::VERSION_LEAP,
        capture_leap: u16::try_from(limits::CAPTURES_PER_LOCK_MAX).unwrap_or(u16::MAX),
        ..LossBody::default()
    };
    let mut record = Record::new(Kind::Loss, Id(0), PartitionHandle::new(shard, 0), Amount::ZERO, &body);
    record.time = now;
    record.code = Code::Approved as u8;
    record
}
