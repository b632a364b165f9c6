//! A disk in memory that tells synced from unsynced, for tests and the simulator: it can lose power at any call, keep
//! any subset of unsynced sectors, fail calls, and rot.
//!
//! The model: a sector of 512 bytes is written whole or not at all, in any order, and any version that it had since the
//! last sync may be the one that stays. Creating, renaming and removing happen in order and stay up to some point. After
//! a failed sync the dirty sectors count as clean, as Linux has it: a later sync does not write them.

use alloc::{collections::BTreeMap, sync::Arc, vec, vec::Vec};

use crate::storage::SECTOR_BYTES;
use crate::{FileName, Storage};

/// What [`MemoryStorage`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// There is no such file.
    #[error("{0} does not exist")]
    NotFound(FileName),
    /// A read went beyond the end.
    #[error("{0} ends before offset {1}")]
    EndOfFile(FileName, u64),
    /// The device failed, as it was told to.
    #[error("input/output error (injected at call {0})")]
    Io(u64),
    /// There is no room left.
    #[error("no space left")]
    NoSpace,
    /// The power is off since an earlier call.
    #[error("the power is off")]
    PoweredOff,
}

/// What happens at a chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails; a write is done to its first half, a sync loses what it should have written.
    Io,
    /// The call fails for want of space, without effect.
    NoSpace,
    /// This call and all later ones fail, without effect: crash next.
    PowerOff,
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    names: BTreeMap<FileName, usize>,
    durable_names: BTreeMap<FileName, usize>,
    pending: Vec<NameChange>,
    /// Shared between clones until one of them writes.
    files: Vec<Arc<File>>,
    capacity: Option<u64>,
    calls: u64,
    fault: Option<(u64, Fault)>,
    is_off: bool,
}

#[derive(Clone, Copy, Debug)]
enum NameChange {
    Set(FileName, usize),
    Rename(FileName, FileName),
    Remove(FileName),
}

#[derive(Clone, Debug, Default)]
struct File {
    /// What is read.
    bytes: Vec<u8>,
    synced_len: usize,
    /// Of each sector written since the last sync: the versions before the present one, the synced one first.
    older: BTreeMap<usize, Vec<Vec<u8>>>,
    /// The same for sectors that a failed sync dropped.
    dropped: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl MemoryStorage {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the sum of all file lengths; creating or growing beyond it fails.
    pub fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    /// Calls of [`Storage`] so far that change something or sync.
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.calls
    }

    /// Makes the `nth` changing or syncing call from now on fail; 1 is the next.
    pub fn fail_nth(&mut self, nth: u64, fault: Fault) {
        self.fault = Some((self.calls + nth, fault));
    }

    /// The disk as it is found after a power cut.
    ///
    /// `choose(n)` returns a number below `n`: first how many of the unsynced changes of names stay, then, for each unsynced
    /// sector, which of its versions does (0 the synced one, `n - 1` the latest).
    #[must_use]
    pub fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let mut after = Self { names: self.durable_names.clone(), ..Self::default() };
        let kept = choose(self.pending.len() + 1);
        self.pending[..kept].iter().for_each(|change| change.apply(&mut after.names));
        after.files = self.files.iter().map(|file| File::crash(file, choose)).collect();
        after.durable_names = after.names.clone();
        after.capacity = self.capacity;
        after
    }

    /// The disk after a power cut that lost everything unsynced.
    #[must_use]
    pub fn crash_losing_all(&self) -> Self {
        self.crash(&mut |_| 0)
    }

    /// The disk after the process was killed: all that was written is still there.
    #[must_use]
    pub fn crash_keeping_all(&self) -> Self {
        self.crash(&mut |n| n - 1)
    }

    /// Unsynced sectors, over all files.
    #[must_use]
    pub fn unsynced_sectors(&self) -> usize {
        self.files.iter().map(|file| file.older.len() + file.dropped.len()).sum()
    }

    /// A file's contents, if it exists.
    #[must_use]
    pub fn bytes(&self, name: FileName) -> Option<&[u8]> {
        Some(&self.files[*self.names.get(&name)?].bytes)
    }

    /// Puts a file there, synced, name and all.
    pub fn insert(&mut self, name: FileName, bytes: Vec<u8>) {
        self.files.push(Arc::new(File { synced_len: bytes.len(), bytes, ..File::default() }));
        self.names.insert(name, self.files.len() - 1);
        self.durable_names.insert(name, self.files.len() - 1);
    }

    /// Takes a file away behind the back of its user.
    pub fn lose(&mut self, name: FileName) {
        self.names.remove(&name);
        self.durable_names.remove(&name);
    }

    /// Changes bits of a byte on the disk itself.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn flip(&mut self, name: FileName, offset: usize, mask: u8) {
        self.bytes_mut(name)[offset] ^= mask;
    }

    /// A file's bytes on the disk itself, to rot, swap or double them.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn bytes_mut(&mut self, name: FileName) -> &mut [u8] {
        let id = *self.names.get(&name).expect("the file exists");
        &mut Arc::make_mut(&mut self.files[id]).bytes
    }

    fn id(&self, name: FileName) -> Result<usize, MemoryError> {
        self.names.get(&name).copied().ok_or(MemoryError::NotFound(name))
    }

    /// Counts a call; the fault that is due at it, if any, as long as the power is on.
    fn call(&mut self) -> Result<Option<Fault>, MemoryError> {
        if self.is_off {
            return Err(MemoryError::PoweredOff);
        }
        self.calls += 1;
        let Some((_, fault)) = self.fault.take_if(|(at, _)| *at == self.calls) else { return Ok(None) };
        match fault {
            Fault::PowerOff => {
                self.is_off = true;
                Err(MemoryError::PoweredOff)
            }
            Fault::NoSpace => Err(MemoryError::NoSpace),
            Fault::Io => Ok(Some(fault)),
        }
    }

    /// As [`Self::call`], for calls that fail without effect.
    fn call_or_fail(&mut self) -> Result<(), MemoryError> {
        self.call()?.map_or(Ok(()), |_| Err(MemoryError::Io(self.calls)))
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn reserve_room(&self, more: u64) -> Result<(), MemoryError> {
        let used: u64 = self.names.values().map(|id| self.files[*id].bytes.len() as u64).sum();
        match self.capacity {
            Some(capacity) if used + more > capacity => Err(MemoryError::NoSpace),
            _ => Ok(()),
        }
    }
}

impl Storage for MemoryStorage {
    type Error = MemoryError;

    fn list(&self) -> Result<Vec<FileName>, MemoryError> {
        Ok(self.names.keys().copied().collect())
    }

    fn create(&mut self, name: FileName, bytes: u64) -> Result<(), MemoryError> {
        self.call_or_fail()?;
        self.reserve_room(bytes)?;
        let length = usize::try_from(bytes).map_err(|_| MemoryError::NoSpace)?;
        self.files.push(Arc::new(File { bytes: vec![0; length], synced_len: length, ..File::default() }));
        self.change_names(NameChange::Set(name, self.files.len() - 1));
        Ok(())
    }

    fn len(&self, name: FileName) -> Result<u64, MemoryError> {
        Ok(self.files[self.id(name)?].bytes.len() as u64)
    }

    fn read_at(&self, name: FileName, offset: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
        let bytes = &self.files[self.id(name)?].bytes;
        let source =
            usize::try_from(offset).ok().and_then(|from| bytes.get(from..from.checked_add(buffer.len())?));
        buffer.copy_from_slice(source.ok_or(MemoryError::EndOfFile(name, offset))?);
        Ok(())
    }

    fn write_at(&mut self, name: FileName, offset: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let fault = self.call()?;
        let id = self.id(name)?;
        let from = usize::try_from(offset).map_err(|_| MemoryError::NoSpace)?;
        let growth = (from + bytes.len()).saturating_sub(self.files[id].bytes.len());
        self.reserve_room(growth as u64)?;
        let done = if fault.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
        Arc::make_mut(&mut self.files[id]).write(from, done);
        fault.map_or(Ok(()), |_| Err(MemoryError::Io(self.calls)))
    }

    fn sync(&mut self, name: FileName) -> Result<(), MemoryError> {
        let fault = self.call()?;
        let id = self.id(name)?;
        let is_clean =
            self.files[id].older.is_empty() && self.files[id].synced_len == self.files[id].bytes.len();
        match fault {
            _ if is_clean => {}
            None => Arc::make_mut(&mut self.files[id]).sync(),
            Some(_) => Arc::make_mut(&mut self.files[id]).drop_dirty(),
        }
        fault.map_or(Ok(()), |_| Err(MemoryError::Io(self.calls)))
    }

    fn sync_directory(&mut self) -> Result<(), MemoryError> {
        self.call_or_fail()?;
        self.pending.clear();
        self.durable_names = self.names.clone();
        Ok(())
    }

    fn rename(&mut self, from: FileName, to: FileName) -> Result<(), MemoryError> {
        self.call_or_fail()?;
        self.id(from)?;
        self.change_names(NameChange::Rename(from, to));
        Ok(())
    }

    fn remove(&mut self, name: FileName) -> Result<(), MemoryError> {
        self.call_or_fail()?;
        self.id(name)?;
        self.change_names(NameChange::Remove(name));
        Ok(())
    }

    /// As `O_DSYNC` has it: nothing but what is written here becomes durable.
    fn write_synced(&mut self, name: FileName, offset: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        self.write_at(name, offset, bytes)?;
        self.call_or_fail()?;
        let id = self.id(name)?;
        let from = usize::try_from(offset).map_err(|_| MemoryError::NoSpace)?;
        Arc::make_mut(&mut self.files[id]).sync_range(from, bytes.len());
        Ok(())
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<FileName, usize>) {
        match self {
            Self::Set(name, id) => {
                names.insert(name, id);
            }
            Self::Rename(from, to) => {
                if let Some(id) = names.remove(&from) {
                    names.insert(to, id);
                }
            }
            Self::Remove(name) => {
                names.remove(&name);
            }
        }
    }
}

impl File {
    fn write(&mut self, from: usize, bytes: &[u8]) {
        let end = from + bytes.len();
        if bytes.is_empty() {
            return;
        }
        self.bytes.resize(self.bytes.len().max(end), 0);
        for sector in from / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            let version = self.bytes[self.range(sector)].to_vec();
            self.older.entry(sector).or_default().push(version);
        }
        self.bytes[from..end].copy_from_slice(bytes);
    }

    fn range(&self, sector: usize) -> core::ops::Range<usize> {
        let from = sector * SECTOR_BYTES;
        from..(from + SECTOR_BYTES).min(self.bytes.len())
    }

    fn sync(&mut self) {
        self.older.clear();
        self.synced_len = self.bytes.len();
    }

    fn sync_range(&mut self, from: usize, length: usize) {
        let end = from + length;
        self.older.retain(|sector, _| *sector < from / SECTOR_BYTES || *sector >= end.div_ceil(SECTOR_BYTES));
        self.synced_len = self.synced_len.max(end);
    }

    fn drop_dirty(&mut self) {
        for (sector, versions) in core::mem::take(&mut self.older) {
            self.dropped.entry(sector).or_default().extend(versions);
        }
    }

    fn crash(file: &Arc<Self>, choose: &mut dyn FnMut(usize) -> usize) -> Arc<Self> {
        if file.older.is_empty() && file.dropped.is_empty() && file.synced_len == file.bytes.len() {
            return Arc::clone(file);
        }
        file.crash_dirty(choose).into()
    }

    fn crash_dirty(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let mut bytes = self.bytes.clone();
        let mut length = self.synced_len;
        let mut dirty = self.dropped.clone();
        for (sector, versions) in &self.older {
            dirty.entry(*sector).or_default().extend(versions.iter().cloned());
        }
        for (sector, versions) in &dirty {
            let range = self.range(*sector);
            let chosen = choose(versions.len() + 1);
            match versions.get(chosen) {
                Some(version) => bytes[range.start..range.start + version.len()].copy_from_slice(version),
                None => length = length.max(range.end),
            }
        }
        bytes.truncate(length);
        Self { bytes, synced_len: length, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: FileName = FileName::Guard;

    #[test]
    fn a_crash_keeps_what_was_synced_and_any_version_of_the_rest() {
        let mut disk = MemoryStorage::new();
        disk.create(NAME, 1024).unwrap();
        assert_eq!(disk.crash_losing_all().bytes(NAME), None);
        assert_eq!(disk.crash_keeping_all().bytes(NAME), Some(&[0; 1024][..]));
        disk.sync_directory().unwrap();
        disk.write_at(NAME, 500, &[1; 24]).unwrap();
        disk.write_at(NAME, 0, &[2; 10]).unwrap();
        assert_eq!(disk.unsynced_sectors(), 2);
        assert_eq!(disk.crash_losing_all().bytes(NAME), Some(&[0; 1024][..]));
        assert_eq!(disk.crash_keeping_all().bytes(NAME), disk.bytes(NAME));
        let torn = disk.crash(&mut |n| 1.min(n - 1));
        let torn = torn.bytes(NAME).unwrap();
        assert_eq!((torn[0], torn[511], torn[512]), (0, 1, 1));
        disk.sync(NAME).unwrap();
        assert_eq!(disk.crash_losing_all().bytes(NAME), disk.bytes(NAME));
    }

    #[test]
    fn what_a_failed_sync_dropped_is_not_written_by_the_next() {
        let mut disk = MemoryStorage::new();
        disk.insert(NAME, vec![0; 512]);
        disk.write_at(NAME, 0, &[1]).unwrap();
        disk.fail_nth(1, Fault::Io);
        assert_eq!(disk.sync(NAME), Err(MemoryError::Io(2)));
        disk.sync(NAME).unwrap();
        assert_eq!(disk.crash_losing_all().bytes(NAME), Some(&[0; 512][..]));
    }

    #[test]
    fn faults_come_when_they_were_asked_for() {
        let mut disk = MemoryStorage::new();
        disk.insert(NAME, vec![0; 512]);
        disk.fail_nth(2, Fault::PowerOff);
        disk.write_at(NAME, 0, &[1]).unwrap();
        assert_eq!(disk.write_at(NAME, 0, &[1]), Err(MemoryError::PoweredOff));
        assert_eq!(disk.sync(NAME), Err(MemoryError::PoweredOff));
        let mut disk = disk.crash_losing_all();
        disk.set_capacity(Some(1000));
        assert_eq!(disk.create(FileName::Reserve { number: 1 }, 600), Err(MemoryError::NoSpace));
        assert_eq!(disk.write_at(NAME, 1000, &[1]), Err(MemoryError::NoSpace));
    }
}
