//! A segment of the shelf: groups one after the other in a file that is only appended to.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use settlement::Hash;
use surety_protocol::sabotage;

use super::group::{Group, HEAD_BYTES as GROUP_HEAD_BYTES};
use super::{Extent, ShelfError, open};
use crate::codec::Put;
use crate::durable::{sync_directory, sync_file};

const MAGIC: &[u8; 8] = b"SURETYSH";
const VERSION: u32 = 1;
/// Magic, version, number, domain separator, sum.
pub(super) const HEAD_BYTES: usize = 8 + 4 + 8 + 32 + 4;
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
        file.write_all_at(&head(number, separator), 0).and_then(|()| sync_file(&file, &path)).map_err(io)?;
        if !sabotage!("segment-of-certificates-not-named") {
            sync_directory(directory).map_err(io)?;
        }
        Ok(Self { file: Arc::new(file), path, number, end: HEAD_BYTES as u64 })
    }

    /// Goes on with the newest one of a mark. What stands behind that is left for [`Segment::cut`].
    pub(super) fn open(directory: &Path, extent: Extent, separator: &Hash) -> Result<Self, ShelfError> {
        let path = path(directory, extent.segment);
        let io = |source| ShelfError::Io { path: path.clone(), source };
        let Some(len) = len(&path)? else { return Err(ShelfError::Damaged { path, offset: 0 }) };
        let file = File::options().read(true).write(true).open(&path).map_err(io)?;
        let is_whole = len >= extent.bytes && extent.bytes >= HEAD_BYTES as u64;
        if !is_whole || !has_head(&file, extent.segment, separator) {
            return Err(ShelfError::Damaged { path, offset: len.min(extent.bytes) });
        }
        Ok(Self { file: Arc::new(file), path, number: extent.segment, end: extent.bytes })
    }

    /// Cuts off what stands behind its end.
    pub(super) fn cut(&self) -> Result<(), ShelfError> {
        let cut = self.file.set_len(self.end).and_then(|()| sync_file(&self.file, &self.path));
        cut.map_err(|source| ShelfError::Io { path: self.path.clone(), source })
    }

    /// Makes it durable up to where it ends now, without keeping anybody from appending to it.
    pub(super) fn syncing(&self) -> impl FnOnce() -> Result<(), ShelfError> + use<> {
        let (file, path) = (self.file.clone(), self.path.clone());
        move || sync_file(&file, &path).map_err(|source| ShelfError::Io { path, source })
    }

    pub(super) const fn extent(&self) -> Extent {
        Extent { segment: self.number, bytes: self.end }
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

    /// Its groups up to its end.
    pub(super) fn groups(&self) -> Groups {
        let (path, file) = (self.path.clone(), self.file.clone());
        Groups { path, file, at: HEAD_BYTES as u64, until: self.end }
    }

    /// What stands behind its end.
    pub(super) fn rest(&self) -> Groups {
        Groups { at: self.end, until: u64::MAX, ..self.groups() }
    }
}

/// Groups of a file, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    path: PathBuf,
    file: Arc<File>,
    at: u64,
    until: u64,
}

impl Groups {
    /// Those of a whole file. `None` if it is gone; damaged if it is not of this number and domain.
    pub(super) fn open(path: &Path, number: u64, separator: &Hash) -> Result<Option<Self>, ShelfError> {
        let Some(file) = open(path)? else { return Ok(None) };
        let until = file.metadata().map_err(|source| ShelfError::Io { path: path.to_owned(), source })?.len();
        if !has_head(&file, number, separator) {
            return Err(ShelfError::Damaged { path: path.to_owned(), offset: 0 });
        }
        Ok(Some(Self { path: path.to_owned(), file: Arc::new(file), at: HEAD_BYTES as u64, until }))
    }

    /// The next sound one, and where it begins.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Group)>, ShelfError> {
        if self.at >= self.until {
            return Ok(None);
        }
        let Some((group, len)) = read_at(&self.path, &self.file, self.at)? else { return Ok(None) };
        let offset = self.at;
        if offset + len as u64 > self.until {
            return Ok(None);
        }
        self.at += len as u64;
        Ok(Some((offset, group)))
    }

    /// Each of them; all must be sound.
    pub(super) fn each(mut self, mut take: impl FnMut(u64, Group)) -> Result<(), ShelfError> {
        while let Some((offset, group)) = self.next()? {
            take(offset, group);
        }
        if self.at == self.until {
            return Ok(());
        }
        Err(ShelfError::Damaged { path: self.path, offset: self.at })
    }
}

/// The group at a place of a segment; `None` if the segment is not there.
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

pub(super) fn remove_file(path: &Path) -> Result<(), ShelfError> {
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

/// How long a file is, if it is there.
pub(super) fn len(path: &Path) -> Result<Option<u64>, ShelfError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ShelfError::Io { path: path.to_owned(), source }),
    }
}

/// All of a file, if it is there.
pub(super) fn whole(path: &Path) -> Result<Option<Vec<u8>>, ShelfError> {
    let Some(mut file) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|source| ShelfError::Io { path: path.to_owned(), source })?;
    Ok(Some(bytes))
}

fn has_head(file: &File, number: u64, separator: &Hash) -> bool {
    let mut found = [0; HEAD_BYTES];
    file.read_exact_at(&mut found, 0).is_ok() && found == head(number, separator)[..]
}

pub(super) fn head(number: u64, separator: &Hash) -> Vec<u8> {
    let mut to = Put::default();
    to.raw(MAGIC).u32(VERSION).u64(number).raw(separator);
    let checksum = crc32c::crc32c(&to.0);
    to.u32(checksum);
    to.0
}
