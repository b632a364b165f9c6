//! What goes wrong around the engine.

use engine::Begin;
use surety_protocol::{PartitionHandle, Time, Token};
use wal::Storage;
use wal::memory::{Fault as DiskFault, MemoryError};

use super::coverage::{Branch, Fault};
use super::traffic::Traffic;
use super::{OldCopy, RECOVERS, World};
use crate::invariants::Violation;

/// Blocks that fill a segment.
const BLOCKS_MAX: u64 = 70;

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
                has_chain: self.settling.is_some(),
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
        // Where certificates count, the clock is kept within what their margin allows.
        let most = if self.settling.is_some() { 20_000 } else { 200_000_000 };
        let by = 1_000_000 * i64::try_from(self.random.below(most)).unwrap_or(0);
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
        let token = token.of_life(&[9; 32], self.epochs.life());
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
}
