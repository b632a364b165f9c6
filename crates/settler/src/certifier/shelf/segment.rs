//! A segment of the shelf: groups one after the other in a file that is only appended to.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use settlement::Hash;

use super::group::{Group, HEAD_BYTES as GROUP_HEAD_BYTES};
use super::{Mark, ShelfError, open};
use crate::codec::Put;
use crate::journal::sync_directory;

const MAGIC: &[u8; 8] = b"SURETYSH";
const VERSION: u32 = 1;
/// Magic, version, number, domain separator, sum.
const HEAD_BYTES: usize = 8 + 4 + 8 + 32 + 4;
const PREFIX: &str = "shelf-";
const INDEX: &str = ".index";

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Segment {
    file: Arc<File>,
    path: PathBuf,
    number: u64,
    end: u64,
}

impl Segment {
    /// Begins one.
    pub(super) fn create(directory: &Path, number: u64, separator: &Hash) -> Result<Self, ShelfError> {
        let path = path(directory, number);
        let io = |source| ShelfError::Io { path: path.clone(), source };
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(io)?;
        file.write_all_at(&head(number, separator), 0).and_then(|()| file.sync_all()).map_err(io)?;
        sync_directory(directory).map_err(io)?;
        Ok(Self { file: Arc::new(file), path, number, end: HEAD_BYTES as u64 })
    }

    /// Goes on with the one of a mark, from there.
    pub(super) fn open_at(directory: &Path, mark: Mark, separator: &Hash) -> Result<Self, ShelfError> {
        let path = path(directory, mark.segment);
        let io = |source| ShelfError::Io { path: path.clone(), source };
        let file = File::options().read(true).write(true).open(&path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let mut found = [0; HEAD_BYTES];
        let is_whole = len >= mark.bytes && mark.bytes >= HEAD_BYTES as u64;
        if !is_whole
            || file.read_exact_at(&mut found, 0).is_err()
            || found != head(mark.segment, separator)[..]
        {
            return Err(ShelfError::Damaged { path, offset: len.min(mark.bytes) });
        }
        if len > mark.bytes {
            file.set_len(mark.bytes).and_then(|()| file.sync_all()).map_err(io)?;
        }
        Ok(Self { file: Arc::new(file), path, number: mark.segment, end: mark.bytes })
    }

    pub(super) fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    pub(super) const fn mark(&self) -> Mark {
        Mark { segment: self.number, bytes: self.end }
    }

    /// Appends a group; says where. It is durable after the next sync.
    pub(super) fn append(&mut self, group: &Group) -> Result<u32, ShelfError> {
        let io = |source| ShelfError::Io { path: self.path.clone(), source };
        let bytes = group.to_bytes();
        let too_long = || io(std::io::Error::from(std::io::ErrorKind::FileTooLarge));
        let offset = u32::try_from(self.end).map_err(|_| too_long())?;
        self.file.write_all_at(&bytes, self.end).map_err(io)?;
        self.end += bytes.len() as u64;
        Ok(offset)
    }

    /// Reads every group up to its end; each must be sound.
    pub(super) fn each_group(&self, take: impl FnMut(u32, Group)) -> Result<(), ShelfError> {
        each_group(&self.path, &self.file, self.end, take)
    }
}

/// Reads every group of a segment that is complete.
pub(super) fn each_group_of(
    directory: &Path,
    number: u64,
    separator: &Hash,
    take: impl FnMut(u32, Group),
) -> Result<(), ShelfError> {
    let path = path(directory, number);
    let Some(file) = open(&path)? else { return Ok(()) };
    let len = file.metadata().map_err(|source| ShelfError::Io { path: path.clone(), source })?.len();
    let mut found = [0; HEAD_BYTES];
    if file.read_exact_at(&mut found, 0).is_err() || found != head(number, separator)[..] {
        return Err(ShelfError::Damaged { path, offset: 0 });
    }
    each_group(&path, &file, len, take)
}

fn each_group(
    path: &Path,
    file: &File,
    until: u64,
    mut take: impl FnMut(u32, Group),
) -> Result<(), ShelfError> {
    let mut at = HEAD_BYTES as u64;
    while at < until {
        let damaged = ShelfError::Damaged { path: path.to_owned(), offset: at };
        let (Some((group, len)), Ok(offset)) = (read_at(path, file, at)?, u32::try_from(at)) else {
            return Err(damaged);
        };
        at += len as u64;
        if at > until {
            return Err(damaged);
        }
        take(offset, group);
    }
    Ok(())
}

/// The group at a place of a segment; `None` if the segment was thrown away.
pub(super) fn read(directory: &Path, number: u64, offset: u32) -> Result<Option<Group>, ShelfError> {
    let path = path(directory, number);
    let Some(file) = open(&path)? else { return Ok(None) };
    match read_at(&path, &file, offset.into())? {
        Some((group, _)) => Ok(Some(group)),
        None => Err(ShelfError::Damaged { path, offset: offset.into() }),
    }
}

/// A group and its length; `None` if there is none that is sound.
fn read_at(path: &Path, file: &File, at: u64) -> Result<Option<(Group, usize)>, ShelfError> {
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::UnexpectedEof => Ok(None),
        _ => Err(ShelfError::Io { path: path.to_owned(), source }),
    };
    let mut head = [0; GROUP_HEAD_BYTES];
    if let Err(error) = file.read_exact_at(&mut head, at) {
        return io(error);
    }
    let Some(body) = Group::body_bytes(&head) else { return Ok(None) };
    let mut bytes = vec![0; GROUP_HEAD_BYTES + body];
    if let Err(error) = file.read_exact_at(&mut bytes, at) {
        return io(error);
    }
    Ok(Group::from_bytes(&bytes).ok().map(|group| (group, bytes.len())))
}

/// Numbers of all segments of a directory, and of indexes without one.
pub(super) fn found(directory: &Path) -> Result<Vec<u64>, ShelfError> {
    let io = |source| ShelfError::Io { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let number = number.map(|number| number.strip_suffix(INDEX).unwrap_or(number));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Takes a segment away, first what is certified by it: an index without a segment is nothing.
pub(super) fn remove(directory: &Path, number: u64) -> Result<(), ShelfError> {
    remove_file(&path(directory, number))?;
    remove_index(directory, number)
}

/// Takes the index of a segment away that is to be written again.
pub(super) fn remove_index(directory: &Path, number: u64) -> Result<(), ShelfError> {
    remove_file(&index_path(directory, number))
}

fn remove_file(path: &Path) -> Result<(), ShelfError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(ShelfError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

pub(super) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{number}"))
}

pub(super) fn index_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{PREFIX}{number}{INDEX}"))
}

/// All of a file, if it is there.
pub(super) fn whole(path: &Path) -> Result<Option<Vec<u8>>, ShelfError> {
    let Some(mut file) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|source| ShelfError::Io { path: path.to_owned(), source })?;
    Ok(Some(bytes))
}

fn head(number: u64, separator: &Hash) -> Vec<u8> {
    let mut to = Put::default();
    to.raw(MAGIC).u32(VERSION).u64(number).raw(separator);
    let checksum = crc32c::crc32c(&to.0);
    to.u32(checksum);
    to.0
}
