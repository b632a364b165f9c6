//! Housekeeping of a life: snapshots and retention, as the server's thread for them does it.

use engine::BuildError;
use surety_protocol::Seq;
use wal::{FileName, SnapshotError, Storage, TailError};

use super::disk::DiskError;
use super::life::{Halt, Life};

impl Life {
    /// A snapshot, then retention, as the server's thread for them.
    pub(super) fn keep_house(&mut self) -> Result<(), Halt> {
        let synced = self.engine().marks().synced;
        loop {
            let built = engine::build_snapshot(&self.config, &mut self.disk, synced);
            self.watch_moments();
            match built {
                Ok(Some(_)) => self.figures.snapshots += 1,
                Ok(None) => break,
                Err(
                    BuildError::Snapshot(SnapshotError::Io(error)) | BuildError::Log(TailError::Io(error)),
                ) => {
                    self.survive(error)?;
                    self.remove_drafts()?;
                    break;
                }
                Err(error) => return Err(Halt::Wrong(format!("no snapshot: {error}"))),
            }
        }
        match self.remove_old() {
            Err(Halt::Disk(error)) => self.survive(error),
            other => other,
        }
    }

    /// Goes on after an error that leaves the disk as it was, and ends after any other.
    fn survive(&mut self, error: DiskError) -> Result<(), Halt> {
        if self.disk.failed_to_look() || matches!(error, DiskError::NoSpace(_)) {
            self.figures.survived += 1;
            return Ok(());
        }
        Err(error.into())
    }

    fn remove_drafts(&mut self) -> Result<(), Halt> {
        for name in self.disk.list()? {
            if matches!(name, FileName::SnapshotTemp { .. }) {
                self.disk.remove(name)?;
            }
        }
        self.watch_moments();
        Ok(())
    }

    fn remove_old(&mut self) -> Result<(), Halt> {
        let sound = wal::sound_snapshots(&mut self.disk, self.config.identity())?;
        let removal = wal::removable(&wal::list_segments(&self.disk)?, &sound, Seq(u64::MAX));
        for name in removal.segments.iter().chain(&removal.snapshots) {
            let removed = self.disk.remove(*name);
            self.watch_moments();
            removed?;
        }
        self.figures.segments_removed += removal.segments.len() as u64;
        let synced = self.disk.sync_directory();
        self.watch_moments();
        synced?;
        if let Some(first) = wal::list_segments(&self.disk)?.first() {
            self.engine().on_segments_removed(first.first_seq);
        }
        Ok(())
    }
}
