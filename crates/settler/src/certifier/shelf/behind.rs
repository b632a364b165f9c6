//! Certificates that were handed out behind the last checkpoint, set aside while nobody knows whether the stream tells them again.
//!
//! Behind a checkpoint's mark stands what was signed, and perhaps handed out, of records that a restart reads again. It is cut off the
//! shelf, since the stream may come to something else; but should the engine have dropped those records, there is no other copy. So
//! whatever is sound of it is written to a file of its own first, durably. From there it comes back if a gap is accepted, and the
//! file goes when a checkpoint has passed all of it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use settlement::{Hash, LockId};
use surety_protocol::{Seq, ShardId, sabotage};

use super::ShelfError;
use super::group::Group;
use super::segment::{self, Groups};
use crate::codec::Damaged;
use crate::durable::{sync_directory, sync_file};

pub(super) const FILE: &str = "behind";
const TEMPORARY: &str = "behind.tmp";
/// It is a segment by its bytes, with a number that no segment of the shelf has.
const NUMBER: u64 = 0;

/// The file, if there is one.
#[derive(Clone, Debug)]
pub(super) struct Behind {
    path: PathBuf,
    separator: Hash,
    /// The last record that something in it is about, of each shard that was not restored.
    through: BTreeMap<ShardId, Seq>,
}

/// Which group has the newest statement of a lock, and where in that: version, group, index.
type Newest = HashMap<LockId, (u16, u64, usize)>;

impl Behind {
    /// Writes the groups of a tail to what was set aside before. When this returns the tail can be cut off.
    ///
    /// A kill before that leaves tail and file, which come to the same file once more.
    pub(super) fn set_aside(
        directory: &Path,
        separator: &Hash,
        tail: Vec<Groups>,
    ) -> Result<Option<Self>, ShelfError> {
        let path = directory.join(FILE);
        let before = Groups::open(&path, NUMBER, separator)?;
        if let Some(before) = before.clone() {
            before.each(|_, _| ())?;
        }
        let has_tail = tail
            .iter()
            .cloned()
            .try_fold(false, |found, mut groups| Ok::<_, ShelfError>(found || groups.next()?.is_some()))?;
        let sources: Vec<Groups> = before.into_iter().chain(tail).collect();
        if sources.is_empty() || !has_tail && !path.exists() {
            return Ok(None);
        }
        let mut through = BTreeMap::<ShardId, Seq>::new();
        let mut newest = Newest::new();
        each(&sources, |number, group| {
            for (index, kept) in group.kept.iter().enumerate() {
                let statement = kept.statement();
                let last = through.entry(statement.shard).or_default();
                *last = statement.seq.max(*last);
                note(&mut newest, number, index, statement.lock, statement.version);
            }
            Ok(())
        })?;
        if has_tail && !sabotage!("handed-out-and-not-set-aside") {
            write(directory, separator, &sources, &newest)?;
        }
        Ok(Some(Self { path, separator: *separator, through }))
    }

    /// True if no shard has anything in it that is still to come.
    pub(super) fn is_passed(&self, positions: impl Fn(ShardId) -> Seq) -> bool {
        self.through.iter().all(|(shard, seq)| *seq <= positions(*shard))
    }

    /// All of a shard that is still to come is on the shelf.
    pub(super) fn restored(&mut self, shard: ShardId) {
        self.through.remove(&shard);
    }

    /// The newest certificates of a shard's locks whose records stand at a position or after it, in their groups where all of one are.
    pub(super) fn each_since(
        &self,
        shard: ShardId,
        from: Seq,
        mut take: impl FnMut(Group) -> Result<(), ShelfError>,
    ) -> Result<(), ShelfError> {
        let sources: Vec<Groups> = Groups::open(&self.path, NUMBER, &self.separator)?.into_iter().collect();
        let is_wanted = |group: &Group, index: usize| {
            group.statement(index).is_some_and(|it| it.shard == shard && it.seq >= from)
        };
        let mut newest = Newest::new();
        each(&sources, |number, group| {
            for (index, kept) in group.kept.iter().enumerate().filter(|(index, _)| is_wanted(group, *index)) {
                note(&mut newest, number, index, kept.statement().lock, kept.statement().version);
            }
            Ok(())
        })?;
        each(&sources, |number, group| {
            let is_newest = |index: usize| {
                let lock = group.statement(index).map(|statement| statement.lock);
                lock.and_then(|lock| newest.get(&lock))
                    .is_some_and(|(_, of, at)| (*of, *at) == (number, index))
            };
            if (0..group.kept.len()).all(is_newest) {
                return take(group.clone());
            }
            if !(0..group.kept.len()).any(is_newest) {
                return Ok(());
            }
            let damaged = |Damaged| ShelfError::Damaged { path: self.path.clone(), offset: 0 };
            let single = group.single().map_err(damaged)?;
            single
                .into_iter()
                .enumerate()
                .filter(|(index, _)| is_newest(*index))
                .try_for_each(|(_, one)| take(one))
        })
    }

    /// Takes the file away.
    pub(super) fn remove(&self) -> Result<(), ShelfError> {
        segment::remove_file(&self.path)
    }
}

/// Each sound group of some sources, with a number of its own.
fn each(
    sources: &[Groups],
    mut take: impl FnMut(u64, &Group) -> Result<(), ShelfError>,
) -> Result<(), ShelfError> {
    let mut number = 0;
    for source in sources {
        let mut source = source.clone();
        while let Some((_, group)) = source.next()? {
            take(number, &group)?;
            number += 1;
        }
    }
    Ok(())
}

/// The first of equals stays: what comes later is told once more of the same records. What was noted beside a statement may have been
/// newer in a later one; but nothing is ever stated over it unless all records behind the statement are read again, which tell
/// each change with its total.
fn note(newest: &mut Newest, group: u64, index: usize, lock: LockId, version: u16) {
    if newest.get(&lock).is_none_or(|(known, ..)| *known < version) {
        newest.insert(lock, (version, group, index));
    }
}

/// Each group that has the newest of some lock: whatever is repeated is written once.
fn write(directory: &Path, separator: &Hash, sources: &[Groups], newest: &Newest) -> Result<(), ShelfError> {
    let (path, temporary) = (directory.join(FILE), directory.join(TEMPORARY));
    let io = |source| ShelfError::Io { path: path.clone(), source };
    let mut to = BufWriter::new(File::create(&temporary).map_err(io)?);
    to.write_all(&segment::head(NUMBER, separator)).map_err(io)?;
    let holders: std::collections::HashSet<u64> = newest.values().map(|(_, group, _)| *group).collect();
    each(sources, |number, group| {
        if !holders.contains(&number) {
            return Ok(());
        }
        to.write_all(&group.to_bytes()).map_err(io)
    })?;
    let file = to.into_inner().map_err(|error| io(error.into_error()))?;
    if !sabotage!("set-aside-and-not-synced") {
        sync_file(&file, &temporary).map_err(io)?;
    }
    std::fs::rename(&temporary, &path).map_err(io)?;
    sync_directory(directory).map_err(io)
}
