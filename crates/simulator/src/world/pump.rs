//! The way to the disk: blocks are handed over, checked, written fast or slowly, and synced.

use engine::Durability;
use surety_protocol::limits::{BLOCK_HEADER_BYTES, RECORD_BYTES};
use surety_protocol::{Kind, Record, Seq};
use wal::Write;
use wal::memory::MemoryError;

use super::coverage::{Branch, Fault};
use super::serve::AGREES;
use super::{Sabotage, World};
use crate::invariants::Violation;

impl World {
    /// The disk takes blocks, fast or slowly.
    pub(super) fn pump(&mut self) -> Result<(), Violation> {
        match &self.in_flight {
            Some((_, due)) if *due <= self.step => self.finish_write()?,
            Some(_) => {}
            None if self.random.chance(2, 5) => self.begin_write()?,
            None => {}
        }
        if self.config.durability == Durability::Os && self.in_flight.is_none() && self.random.chance(1, 6) {
            self.sync()?;
        }
        self.drain()
    }

    pub(super) fn begin_write(&mut self) -> Result<(), Violation> {
        self.begin_write_slowly()?;
        match &self.in_flight {
            Some((_, due)) if *due <= self.step => self.finish_write(),
            _ => Ok(()),
        }
    }

    /// A block is handed to the disk, and not yet done.
    pub(super) fn begin_write_slowly(&mut self) -> Result<(), Violation> {
        if self.in_flight.is_some() {
            return Ok(());
        }
        self.keep_reserves()?;
        let before = self.engine.marks().appended;
        let write = self.engine.poll_write(self.now);
        if self.engine.marks().appended > before {
            self.oracle.pass_time(self.now);
            self.note_checkpoint()?;
        }
        let Some(write) = write else { return Ok(()) };
        if write.roll().is_some() {
            self.outcome.coverage.branch(Branch::Rolled);
        }
        self.check_block(&write)?;
        let last = write.last_seq();
        if last == self.engine.marks().appended && last > Seq(0) {
            let time = self.log[self.log.len() - 1].time;
            self.invariants.note_state(last, time, self.engine.ledger());
        }
        let mut due = self.step;
        if self.random.chance(1, 12) {
            self.outcome.coverage.fault(Fault::SlowDisk);
            due += 2 + self.random.below(40);
        } else if self.random.chance(1, 3) {
            due += 1;
        }
        self.in_flight = Some((write, due));
        Ok(())
    }

    /// Every record of a block is the one that the oracle told.
    pub(super) fn check_block(&mut self, write: &Write) -> Result<(), Violation> {
        let records = write.bytes()[BLOCK_HEADER_BYTES..].as_chunks::<RECORD_BYTES>().0;
        let count = usize::try_from(write.header().records).unwrap_or(0);
        for (seq, bytes) in (write.first_seq().0..).zip(&records[..count]) {
            self.put_payment_in_place(seq, bytes);
            let expected = usize::try_from(seq - 1).ok().and_then(|at| self.log.get(at));
            let Some(expected) = expected.filter(|expected| expected.to_bytes() == *bytes) else {
                let found = Record::from_bytes(bytes);
                return Err(Violation::new(
                    AGREES,
                    format!("record {seq} is {found:?}, should be {expected:?}"),
                ));
            };
            debug_assert!(expected.kind != 0, "the log holds records");
            self.seen = Seq(seq);
            self.trace_bytes(bytes);
        }
        Ok(())
    }

    /// Withdrawals of several partitions that become payable in one moment are paid in any order of the partitions; in each of them
    /// the oldest comes first.
    pub(super) fn put_payment_in_place(&mut self, seq: u64, bytes: &[u8; RECORD_BYTES]) {
        let Some(from) = usize::try_from(seq - 1).ok().filter(|from| *from < self.log.len()) else { return };
        let found = Record::from_bytes(bytes);
        let is_payment =
            |record: &&Record| record.kind() == Some(Kind::WithdrawPaid) && record.time == found.time;
        let run = self.log[from..].iter().take_while(is_payment);
        let own = run.enumerate().find(|(_, record)| record.partition == found.partition);
        if let Some((at, _)) = own.filter(|(_, record)| **record == found) {
            self.log[from..=from + at].rotate_right(1);
        }
    }

    pub(super) fn finish_write(&mut self) -> Result<(), Violation> {
        let Some((write, _)) = self.in_flight.take() else { return Ok(()) };
        if self.plan.sabotage == Some(Sabotage::EarlyAck) {
            self.engine.on_written(write);
            return self.drain();
        }
        let performed = match self.plan.sabotage {
            // Told as done, and lost.
            Some(Sabotage::DiskLies) if self.step % 50 == 49 => Ok(()),
            _ => write.perform(&mut self.disk),
        };
        if let Err(error) = performed {
            self.in_flight = Some((write, 0));
            return self.disk_failed(&error);
        }
        self.written = write.last_seq();
        self.engine.on_written(write);
        Ok(())
    }

    /// Segments in reserve are made; where there is no room, new locks are refused.
    pub(super) fn keep_reserves(&mut self) -> Result<(), Violation> {
        while let Some((name, bytes)) = self.engine.wants_reserve() {
            match wal::create_reserve(&mut self.disk, name, bytes) {
                Ok(()) => self.engine.reserve_created(name),
                Err(MemoryError::NoSpace) => break,
                Err(error) => return self.disk_failed(&error),
            }
        }
        self.is_storage_low = self.engine.wants_reserve().is_some();
        if self.is_storage_low {
            self.outcome.coverage.branch(Branch::StorageLow);
        }
        self.engine.set_storage_low(self.is_storage_low);
        Ok(())
    }

    /// `os` mode: everything that was written becomes durable.
    pub(super) fn sync(&mut self) -> Result<(), Violation> {
        let mark = self.engine.acked();
        for span in self.engine.segments() {
            if let Err(error) = wal::Storage::sync(&mut self.disk, span.file()) {
                return self.disk_failed(&error);
            }
        }
        self.engine.on_synced(mark);
        Ok(())
    }
}
