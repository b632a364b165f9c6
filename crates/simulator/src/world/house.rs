//! Housekeeping: the graceful end, snapshots, retention, and what happens when the power goes meanwhile.

use engine::{Begin, BuildError, Durability};
use surety_protocol::Seq;
use wal::memory::{Fault as DiskFault, MemoryError};
use wal::{SnapshotError, Storage, TailError};

use super::coverage::{Branch, Fault};
use super::{NEVER, RECOVERS, World};
use crate::invariants::Violation;

impl World {
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
    pub(super) fn snapshot(&mut self) -> Result<(), Violation> {
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

    pub(super) fn crash_in_snapshot(&mut self) -> Result<(), Violation> {
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
}
