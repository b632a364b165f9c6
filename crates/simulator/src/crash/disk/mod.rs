//! A disk for crash enumeration: copy-on-write pages, so that a state costs what it changes; every unsynced sector with
//! all its versions; a hash of the whole kept up to date; calls that fail when told to; and a view of itself after every call.
//!
//! The model is that of `wal::memory`: a sector of 512 bytes is written whole or not at all, in any order, and any version that it had
//! since the last sync may be the one that stays. Creating, renaming and removing stay up to some point.

mod file;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use wal::{FileName, Storage};

use file::{File, mix};

/// What the disk reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// There is no such file.
    #[error("{0} does not exist")]
    NotFound(FileName),
    /// A read went beyond the end.
    #[error("{0} ends before offset {1}")]
    EndOfFile(FileName, u64),
    /// The device failed, as it was told to.
    #[error("input/output error (injected at call {0})")]
    Io(u64),
    /// There is no room left, as it was told.
    #[error("no space left (injected at call {0})")]
    NoSpace(u64),
}

/// What happens at a chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The call fails. A sync loses what it should have written.
    Io,
    /// The call fails for want of space, without effect.
    NoSpace,
    /// A write is done to its first half and then fails, other calls just fail.
    Short,
    /// The call has its whole effect, and fails all the same.
    Late,
}

#[derive(Clone, Copy, Debug)]
enum NameChange {
    Set(FileName, usize),
    Rename(FileName, FileName),
    Remove(FileName),
}

/// Everything that a clone shares until one of the two writes.
#[derive(Clone, Debug, Default)]
struct State {
    names: BTreeMap<FileName, usize>,
    durable_names: BTreeMap<FileName, usize>,
    pending: Vec<NameChange>,
    files: Vec<Rc<File>>,
}

/// The disk. A clone costs little.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    state: State,
    calls: Cell<u64>,
    fault: Option<(u64, Fault)>,
    /// What was made to fail.
    failed: Cell<Option<&'static str>>,
    /// Changing calls after one that failed.
    calls_after_failure: u64,
    watch: Option<Vec<Disk>>,
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on keeps what the disk was after each call that changed or synced something.
    pub fn watch(&mut self) {
        self.watch = Some(Vec::new());
    }

    /// What was kept since the last time this was asked, in order.
    pub fn take_watched(&mut self) -> Vec<Disk> {
        self.watch.as_mut().map(core::mem::take).unwrap_or_default()
    }

    /// True if moments are kept.
    #[must_use]
    pub const fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// Calls so far, reads included.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// Makes the `nth` call from now on fail; 1 is the next.
    pub fn fail_nth(&mut self, nth: u64, fault: Fault) {
        self.fault = Some((self.calls.get() + nth, fault));
    }

    /// What was made to fail, if the call was reached.
    #[must_use]
    pub const fn failed(&self) -> Option<&'static str> {
        self.failed.get()
    }

    /// True if what was made to fail is a call that changes nothing.
    #[must_use]
    pub fn failed_to_look(&self) -> bool {
        matches!(self.failed.get(), Some("list" | "length" | "read"))
    }

    /// Calls that changed or synced something after the one that failed.
    #[must_use]
    pub const fn calls_after_failure(&self) -> u64 {
        self.calls_after_failure
    }

    /// How many ways there are to lose power now: the number of choices for names and for each unsynced sector.
    #[must_use]
    pub fn choices(&self) -> Vec<usize> {
        let mut choices = vec![self.state.pending.len() + 1];
        for file in &self.state.files {
            choices.extend(file.dirty().values().map(|versions| versions.len() + 1));
        }
        choices
    }

    /// The disk after a power cut. `chosen` has an entry for each of [`Disk::choices`]: how many changes of names stay, and
    /// which version of each sector does, the synced one being 0.
    #[must_use]
    pub fn crash(&self, chosen: &[usize]) -> Self {
        let (kept, mut sectors) = chosen.split_first().expect("names are the first choice");
        let mut names = self.state.durable_names.clone();
        self.state.pending[..*kept].iter().for_each(|change| change.apply(&mut names));
        let mut files = Vec::with_capacity(self.state.files.len());
        for file in &self.state.files {
            files.push(file.crash(&mut sectors));
        }
        let state = State { durable_names: names.clone(), names, pending: Vec::new(), files };
        Self { state, ..Self::default() }
    }

    /// The disk after the process was killed: all that was written is still there.
    #[must_use]
    pub fn crash_keeping_all(&self) -> Self {
        let chosen: Vec<usize> = self.choices().iter().map(|choices| choices - 1).collect();
        self.crash(&chosen)
    }

    /// A hash over the names and contents of all files.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let of_file = |(name, id): (&FileName, &usize)| mix(name_word(*name) ^ self.state.files[*id].hash());
        self.state.names.iter().map(of_file).fold(0, u64::wrapping_add)
    }

    /// A file's contents, if it exists.
    #[must_use]
    pub fn bytes(&self, name: FileName) -> Option<Vec<u8>> {
        let file = &self.state.files[*self.state.names.get(&name)?];
        let mut bytes = vec![0; file.len()];
        file.read(0, &mut bytes);
        Some(bytes)
    }

    /// Puts a file there, synced, name and all.
    pub fn insert(&mut self, name: FileName, bytes: &[u8]) {
        let mut file = File::default();
        file.write(0, bytes);
        file.sync();
        self.state.files.push(Rc::new(file));
        self.state.names.insert(name, self.state.files.len() - 1);
        self.state.durable_names.insert(name, self.state.files.len() - 1);
    }

    /// Takes a file away behind the back of its user.
    pub fn lose(&mut self, name: FileName) {
        self.state.names.remove(&name);
        self.state.durable_names.remove(&name);
    }

    /// Changes what is on the disk itself.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn overwrite(&mut self, name: FileName, offset: usize, bytes: &[u8]) {
        let file = Rc::make_mut(&mut self.state.files[self.state.names[&name]]);
        file.put(offset, bytes);
    }

    fn id(&self, name: FileName) -> Result<usize, DiskError> {
        self.state.names.get(&name).copied().ok_or(DiskError::NotFound(name))
    }

    /// Counts a call; the fault that is due at it, if any.
    fn call(&self, what: &'static str) -> Option<Fault> {
        let at = self.calls.get() + 1;
        self.calls.set(at);
        let fault = self.fault.filter(|(due, _)| *due == at).map(|(_, fault)| fault)?;
        self.failed.set(Some(what));
        Some(fault)
    }

    fn look(&self, what: &'static str) -> Result<(), DiskError> {
        self.call(what).map_or(Ok(()), |_| Err(DiskError::Io(self.calls())))
    }

    /// Does a call that changes something, whole, by half or not at all.
    fn change(
        &mut self,
        what: &'static str,
        act: impl FnOnce(&mut State, Option<Fault>) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        self.calls_after_failure += u64::from(self.failed.get().is_some());
        let fault = self.call(what);
        // Only what takes room can fail for want of it.
        let fault = match fault {
            Some(Fault::NoSpace) if !matches!(what, "create" | "write") => Some(Fault::Io),
            fault => fault,
        };
        if fault != Some(Fault::NoSpace) {
            act(&mut self.state, fault)?;
        }
        if let Some(watched) = &mut self.watch
            && watched.last().is_none_or(|last| !last.state.is_shared_with(&self.state))
        {
            watched.push(Self { state: self.state.clone(), ..Self::default() });
        }
        fault.map_or(Ok(()), |fault| Err(self.error(fault)))
    }

    fn error(&self, fault: Fault) -> DiskError {
        match fault {
            Fault::NoSpace => DiskError::NoSpace(self.calls()),
            Fault::Io | Fault::Short | Fault::Late => DiskError::Io(self.calls()),
        }
    }
}

impl Storage for Disk {
    type Error = DiskError;

    fn list(&self) -> Result<Vec<FileName>, DiskError> {
        self.look("list")?;
        Ok(self.state.names.keys().copied().collect())
    }

    fn create(&mut self, name: FileName, bytes: u64) -> Result<(), DiskError> {
        let length = to_usize(bytes);
        self.change("create", |state, fault| {
            if matches!(fault, None | Some(Fault::Late)) {
                state.files.push(Rc::new(File::zeros(length)));
                state.change_names(NameChange::Set(name, state.files.len() - 1));
            }
            Ok(())
        })
    }

    fn len(&self, name: FileName) -> Result<u64, DiskError> {
        self.look("length")?;
        Ok(self.state.files[self.id(name)?].len() as u64)
    }

    fn read_at(&self, name: FileName, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.look("read")?;
        let file = &self.state.files[self.id(name)?];
        let offset = to_usize(offset);
        if offset.checked_add(buffer.len()).is_none_or(|end| end > file.len()) {
            return Err(DiskError::EndOfFile(name, offset as u64));
        }
        file.read(offset, buffer);
        Ok(())
    }

    fn write_at(&mut self, name: FileName, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let id = self.id(name)?;
        let done = |fault| match fault {
            Some(Fault::Io) => 0,
            Some(Fault::Short) => bytes.len() / 2,
            _ => bytes.len(),
        };
        self.change("write", |state, fault| {
            Rc::make_mut(&mut state.files[id]).write(to_usize(offset), &bytes[..done(fault)]);
            Ok(())
        })
    }

    fn sync(&mut self, name: FileName) -> Result<(), DiskError> {
        let id = self.id(name)?;
        self.change("sync", |state, fault| {
            let file = &mut state.files[id];
            match fault {
                None | Some(Fault::Late) if file.is_clean() => {}
                None | Some(Fault::Late) => Rc::make_mut(file).sync(),
                Some(_) => Rc::make_mut(file).drop_dirty(),
            }
            Ok(())
        })
    }

    fn sync_directory(&mut self) -> Result<(), DiskError> {
        self.change("sync of the directory", |state, fault| {
            if matches!(fault, None | Some(Fault::Late)) {
                state.pending.clear();
                state.durable_names = state.names.clone();
            }
            Ok(())
        })
    }

    fn rename(&mut self, from: FileName, to: FileName) -> Result<(), DiskError> {
        self.id(from)?;
        self.change_name("rename", NameChange::Rename(from, to))
    }

    fn remove(&mut self, name: FileName) -> Result<(), DiskError> {
        self.id(name)?;
        self.change_name("remove", NameChange::Remove(name))
    }

    /// As `O_DSYNC` has it: nothing but what is written here becomes durable.
    fn write_synced(&mut self, name: FileName, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.write_at(name, offset, bytes)?;
        let id = self.id(name)?;
        self.change("sync of a range", |state, fault| {
            if matches!(fault, None | Some(Fault::Late)) {
                Rc::make_mut(&mut state.files[id]).sync_range(to_usize(offset), bytes.len());
            }
            Ok(())
        })
    }
}

impl Disk {
    fn change_name(&mut self, what: &'static str, change: NameChange) -> Result<(), DiskError> {
        self.change(what, |state, fault| {
            if matches!(fault, None | Some(Fault::Late)) {
                state.change_names(change);
            }
            Ok(())
        })
    }
}

impl State {
    /// True if nothing at all was changed since one was cloned from the other.
    fn is_shared_with(&self, other: &Self) -> bool {
        self.pending.len() == other.pending.len()
            && self.files.len() == other.files.len()
            && self.files.iter().zip(&other.files).all(|(a, b)| Rc::ptr_eq(a, b))
            && self.names == other.names
            && self.durable_names == other.durable_names
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
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

fn name_word(name: FileName) -> u64 {
    let (kind, number) = match name {
        FileName::Segment { first_seq } => (1, first_seq.0),
        FileName::Reserve { number } => (2, number),
        FileName::Guard => (3, 0),
        FileName::Snapshot { seq } => (4, seq.0),
        FileName::SnapshotTemp { seq } => (5, seq.0),
    };
    mix(number ^ kind << 56)
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("files are smaller than memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use wal::memory::MemoryStorage;

    const NAMES: [FileName; 3] =
        [FileName::Guard, FileName::Reserve { number: 1 }, FileName::Reserve { number: 2 }];

    /// The same calls on both disks; reads must agree after every one, and after a cut that loses or keeps all.
    #[test]
    fn it_behaves_as_the_disk_that_the_other_tests_use() {
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let (mut ours, mut theirs) = (Disk::new(), MemoryStorage::new());
            for _ in 0..60 {
                let name = *random.pick(&NAMES);
                let (offset, bytes) =
                    (random.below(9000), vec![random.below(4).to_le_bytes()[0]; random.index(5000)]);
                let (a, b) = match random.below(7) {
                    0 => (ours.create(name, offset).is_ok(), theirs.create(name, offset).is_ok()),
                    1 | 2 => (
                        ours.write_at(name, offset, &bytes).is_ok(),
                        theirs.write_at(name, offset, &bytes).is_ok(),
                    ),
                    3 => (ours.sync(name).is_ok(), theirs.sync(name).is_ok()),
                    4 => (ours.sync_directory().is_ok(), theirs.sync_directory().is_ok()),
                    5 => {
                        let to = *random.pick(&NAMES);
                        (ours.rename(name, to).is_ok(), theirs.rename(name, to).is_ok())
                    }
                    _ => (ours.remove(name).is_ok(), theirs.remove(name).is_ok()),
                };
                assert_eq!(a, b, "seed {seed}");
                let zero = vec![0; ours.choices().len()];
                same(&ours, &theirs);
                same(&ours.crash_keeping_all(), &theirs.crash_keeping_all());
                same(&ours.crash(&zero), &theirs.crash_losing_all());
            }
        }
    }

    fn same(ours: &Disk, theirs: &MemoryStorage) {
        for name in NAMES {
            assert_eq!(ours.bytes(name).as_deref(), theirs.bytes(name));
        }
    }

    #[test]
    fn equal_disks_have_equal_hashes_and_others_do_not() {
        let mut one = Disk::new();
        one.insert(NAMES[0], &[1; 5000]);
        let mut two = Disk::new();
        two.insert(NAMES[0], &[0; 5000]);
        assert_ne!(one.hash(), two.hash());
        two.overwrite(NAMES[0], 0, &[1; 5000]);
        assert_eq!(one.hash(), two.hash());
        two.insert(NAMES[1], &[]);
        assert_ne!(one.hash(), two.hash());
    }

    #[test]
    fn a_fault_comes_at_its_call_and_calls_after_it_are_counted() {
        let mut disk = Disk::new();
        disk.insert(NAMES[0], &[0; 1024]);
        disk.fail_nth(2, Fault::Short);
        disk.write_at(NAMES[0], 0, &[1]).expect("the first call");
        assert_eq!(disk.write_at(NAMES[0], 0, &[2; 1024]), Err(DiskError::Io(2)));
        let bytes = disk.bytes(NAMES[0]).expect("it exists");
        assert_eq!((bytes[511], bytes[512]), (2, 0));
        assert_eq!(disk.calls_after_failure(), 0);
        disk.sync(NAMES[0]).expect("faults come once");
        assert_eq!(disk.calls_after_failure(), 1);
    }
}
