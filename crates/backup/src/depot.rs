//! Where backups are kept: named files that are there whole or not at all, and never written twice. Nobody but their owner reads those of
//! a directory: a log tells of everybody's payments, and one of the files is a key.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Advice, CWD, RenameFlags, fadvise, renameat_with};
use surety_protocol::sabotage;

use crate::copy::Hashed;

/// Bytes that are read and written at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of a file that wait for the disk, at most.
const UNSYNCED_BYTES_MAX: usize = 4 << 20;

/// A place for files.
pub trait Depot: fmt::Debug + Send + Sync {
    /// Keeps a file under a name, durably, whole and read back when this returns. Of several that put one name at once, one does.
    ///
    /// # Errors
    /// [`DepotError::Exists`] if the name is taken: what has it stays as it is. Otherwise why it could not be kept; an object store that
    /// has not answered may have it all the same.
    fn put(&self, name: &str, from: &mut dyn Read) -> Result<(), DepotError>;

    /// The contents of a file, from the medium rather than from memory.
    ///
    /// # Errors
    /// [`DepotError::Missing`] if there is none of this name.
    fn get(&self, name: &str) -> Result<Box<dyn Read>, DepotError>;

    /// The names of all files, in any order, finished or not.
    ///
    /// # Errors
    /// [`DepotError::Io`].
    fn names(&self) -> Result<Vec<String>, DepotError>;

    /// Those below a directory, with its name before theirs. A place of many directories need not name the others.
    ///
    /// # Errors
    /// As [`Depot::names`].
    fn names_in(&self, directory: &str) -> Result<Vec<String>, DepotError> {
        let is_below = |name: &String| name.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
        Ok(self.names()?.into_iter().filter(is_below).collect())
    }

    /// True if there is a file with such a name. What has many files need not name them all.
    ///
    /// # Errors
    /// As [`Depot::names`].
    fn has_any(&self, is_meant: &dyn Fn(&str) -> bool) -> Result<bool, DepotError> {
        Ok(self.names()?.iter().any(|name| is_meant(name)))
    }

    /// Makes sure that the place keeps what it has: tries to put `contents` over a file that has exactly these, which does no harm where it
    /// succeeds. A file system is known to refuse; of an object store it is found out once.
    ///
    /// # Errors
    /// [`DepotError::Overwrites`] if nothing was refused; otherwise why that is not known.
    fn check_keeps(&self, name: &str, contents: &[u8]) -> Result<(), DepotError> {
        let _ = (name, contents);
        Ok(())
    }

    /// The place, to be shown.
    fn place(&self) -> String;

    /// The directory that the files are in, if they can be read there.
    fn directory(&self) -> Option<&Path> {
        None
    }
}

/// Why a place for files does not do what is asked.
#[derive(Debug, thiserror::Error)]
pub enum DepotError {
    /// There is no such file.
    #[error("{place} has no {name}")]
    Missing {
        /// Where.
        place: String,
        /// Which.
        name: String,
    },
    /// The name is taken.
    #[error("{place} has {name} already, and nothing is written twice")]
    Exists {
        /// Where.
        place: String,
        /// Which.
        name: String,
    },
    /// What is there can be lost.
    #[error(
        "{place}: the store writes over what it has, though it was asked not to (If-None-Match), so two writers could take each other's files away; it is not used: take a store that honours this when an object is written and when an upload in pieces ends"
    )]
    Overwrites {
        /// Where.
        place: String,
    },
    /// There is no bucket of this name.
    #[error("{place}: there is no such bucket; create it, or check its name and AWS_ENDPOINT_URL")]
    NoBucket {
        /// Where.
        place: String,
    },
    /// The object store knows the caller not at all, or as one who may not do this.
    #[error(
        "{doing} {name} in {place} is refused: {reason}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and what they may do there"
    )]
    Denied {
        /// What was tried.
        doing: &'static str,
        /// Where.
        place: String,
        /// On which file; empty for the place itself.
        name: String,
        /// What the store says.
        reason: String,
    },
    /// What was written is not what is read.
    #[error("{name} in {place} is not what was written: its hash differs; the medium is not to be trusted")]
    Differs {
        /// Where.
        place: String,
        /// Which.
        name: String,
    },
    /// There is no room.
    #[error("{place} is full: {name} was not kept; make room there, or give another place")]
    Full {
        /// Where.
        place: String,
        /// Which.
        name: String,
    },
    /// The file system or the network.
    #[error("{doing} {name} in {place} failed: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        place: String,
        /// On which file; empty for the place itself.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// A directory of a file system.
#[derive(Debug)]
pub struct DirectoryDepot {
    path: PathBuf,
}

impl DirectoryDepot {
    /// A directory, which is made when the first file comes.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn list(&self, path: &Path, before: &str) -> Result<Vec<String>, DepotError> {
        let mut names = Vec::new();
        match list(path, before, &mut names) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.error("listing", before, error)),
            Ok(()) => Ok(names),
        }
    }

    fn error(&self, doing: &'static str, name: &str, source: io::Error) -> DepotError {
        let (place, name) = (self.place(), name.to_owned());
        match source.kind() {
            io::ErrorKind::NotFound if doing == "reading" => DepotError::Missing { place, name },
            io::ErrorKind::AlreadyExists if doing == "writing" => DepotError::Exists { place, name },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded if doing == "writing" => {
                DepotError::Full { place, name }
            }
            _ => DepotError::Io { doing, place, name, source },
        }
    }

    /// False if what came onto the disk is something else; it has no name then.
    fn write(&self, name: &str, from: &mut dyn Read) -> io::Result<bool> {
        let path = self.path.join(name);
        let directory = path.parent().unwrap_or(&self.path);
        make_directory(directory)?;
        if path.exists() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (temp, mut file) = Temporary::beside(&path)?;
        let mut hashed = Hashed::new(from);
        write_steadily(&mut hashed, &mut file)?;
        file.sync_all()?;
        // What is read back is then what is on the disk.
        forget(&file);
        let mut back = Hashed::new(File::open(&temp.0)?);
        io::copy(&mut back, &mut io::sink())?;
        if back.finish() != hashed.finish() && !sabotage!("copy-not-read-back") {
            return Ok(false);
        }
        name_once(&temp.0, &path)?;
        drop(temp);
        File::open(directory)?.sync_all()?;
        Ok(true)
    }
}

/// Writes a file piece by piece, each on the disk before the next: what waits for the disk all at once has an engine that syncs to it
/// wait as long.
fn write_steadily(from: &mut impl Read, file: &mut File) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut unsynced = 0;
    loop {
        let left = PIECE_BYTES.min(UNSYNCED_BYTES_MAX - unsynced);
        let read = match from.read(&mut piece[..left]) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        file.write_all(&piece[..read])?;
        unsynced += read;
        if unsynced == UNSYNCED_BYTES_MAX {
            file.sync_data()?;
            forget(file);
            unsynced = 0;
        }
    }
}

/// Has the system let go of what it holds of a file in memory. Advice: where it is not taken, nothing is lost but that.
fn forget(file: &File) {
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

/// Names of this process so far.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// A file that goes with this: its second name, or what was begun and came to nothing.
struct Temporary(PathBuf);

impl Temporary {
    /// A new file of a name that no other writer has, in this process or another. One that was killed may have left some, and a
    /// container gives each of its processes the same number.
    fn beside(path: &Path) -> io::Result<(Self, File)> {
        loop {
            let mut temp = path.to_owned().into_os_string();
            temp.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
            match File::options().write(true).create_new(true).mode(0o600).open(&temp) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                file => return Ok((Self(temp.into()), file?)),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Renamed, it is not there any more.
        let _ = fs::remove_file(&self.0);
    }
}

/// Gives a file its name, unless another has it. A plain rename would take that away.
fn name_once(temp: &Path, path: &Path) -> io::Result<()> {
    if sabotage!("copy-over-another") {
        return fs::rename(temp, path);
    }
    match fs::hard_link(temp, path) {
        // File systems without hard links (FAT, some of FUSE) can do this at least.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) =>
        {
            Ok(renameat_with(CWD, temp, CWD, path, RenameFlags::NOREPLACE)?)
        }
        linked => linked,
    }
}

/// Makes a directory with those above it; what is new is durable.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        make_directory(above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    File::open(above.unwrap_or(Path::new(".")))?.sync_all()
}

impl Depot for DirectoryDepot {
    fn put(&self, name: &str, from: &mut dyn Read) -> Result<(), DepotError> {
        match self.write(name, from) {
            Ok(true) => Ok(()),
            Ok(false) => Err(DepotError::Differs { place: self.place(), name: name.to_owned() }),
            Err(source) => Err(self.error("writing", name, source)),
        }
    }

    fn get(&self, name: &str) -> Result<Box<dyn Read>, DepotError> {
        let file = File::open(self.path.join(name)).map_err(|source| self.error("reading", name, source))?;
        forget(&file);
        Ok(Box::new(file))
    }

    fn names(&self) -> Result<Vec<String>, DepotError> {
        self.list(&self.path, "")
    }

    fn names_in(&self, directory: &str) -> Result<Vec<String>, DepotError> {
        self.list(&self.path.join(directory), &format!("{directory}/"))
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.path)
    }
}

fn list(path: &Path, before: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = format!("{before}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;

    #[test]
    fn what_is_put_is_there_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let depot = DirectoryDepot::new(&directory.path().join("a/b"));
        assert!(depot.names().unwrap().is_empty());
        assert!(matches!(depot.get("x"), Err(DepotError::Missing { .. })));
        depot.put("x", &mut &b"one"[..]).unwrap();
        depot.put("d/y", &mut &b"two"[..]).unwrap();
        assert!(matches!(depot.put("x", &mut &b"three"[..]), Err(DepotError::Exists { .. })));
        let mut names = depot.names().unwrap();
        names.sort();
        assert_eq!(names, ["d/y", "x"]);
        depot.put("dd/z", &mut &b"z"[..]).unwrap();
        assert_eq!(depot.names_in("d").unwrap(), ["d/y"]);
        assert!(depot.names_in("e").unwrap().is_empty());
        let mut text = String::new();
        depot.get("x").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one", "nothing is written twice");
    }

    /// What comes in pieces of any length, some of them late, is whole, also where it was synced on the way.
    #[test]
    fn a_large_file_is_kept_as_it_comes() {
        struct Odd<'a>(&'a [u8], usize);
        impl Read for Odd<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.1 += 1;
                if self.1.is_multiple_of(3) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let length = (self.1 * 99_991 % PIECE_BYTES).max(1).min(buffer.len());
                self.0.read(&mut buffer[..length])
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let depot = DirectoryDepot::new(directory.path());
        let bytes: Vec<u8> = (0..=250).cycle().take(2 * UNSYNCED_BYTES_MAX + 7).collect();
        depot.put("x", &mut Odd(&bytes, 0)).unwrap();
        assert!(fs::read(directory.path().join("x")).unwrap() == bytes);
    }

    #[test]
    fn of_several_that_put_one_name_at_once_one_does() {
        /// Ends when all have begun.
        struct Together<'a>(&'a Barrier, &'a [u8]);
        impl Read for Together<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.1.is_empty() {
                    self.0.wait();
                }
                self.1.read(buffer)
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let depot = DirectoryDepot::new(directory.path());
        let begun = Barrier::new(4);
        let put = |number: u8| depot.put("x", &mut Together(&begun, &[number; 10]));
        let kept: Vec<u8> = thread::scope(|scope| {
            let puts = [1, 2, 3, 4].map(|number| (number, scope.spawn(move || put(number))));
            puts.into_iter()
                .filter_map(|(number, done)| match done.join().unwrap() {
                    Ok(()) => Some(number),
                    Err(DepotError::Exists { .. }) => None,
                    Err(error) => panic!("{error}"),
                })
                .collect()
        });
        let &[kept] = &kept[..] else { panic!("{kept:?}") };
        assert_eq!(fs::read(directory.path().join("x")).unwrap(), [kept; 10]);
        assert_eq!(depot.names().unwrap(), ["x"], "nothing of the others is left");
    }

    #[test]
    fn what_is_read_back_otherwise_gets_no_name() {
        /// A disk that changes what it was given: at the end of what is copied all of it is written.
        struct Lying<'a>(&'a Path, &'a [u8]);
        impl Read for Lying<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.1.is_empty() {
                    let file = fs::read_dir(self.0).unwrap().next().unwrap().unwrap().path();
                    fs::write(file, b"twp").unwrap();
                }
                self.1.read(buffer)
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let depot = DirectoryDepot::new(directory.path());
        let put = depot.put("x", &mut Lying(directory.path(), b"two"));
        assert!(matches!(put, Err(DepotError::Differs { .. })), "{put:?}");
        assert!(depot.names().unwrap().is_empty());
    }

    #[test]
    fn what_a_killed_process_left_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let next = COUNT.load(Ordering::Relaxed);
        // Other tests take some of these numbers meanwhile.
        for number in next..next + 1_000 {
            let name = format!("x.{}-{number}.tmp", std::process::id());
            fs::write(directory.path().join(name), b"left").unwrap();
        }
        let depot = DirectoryDepot::new(directory.path());
        depot.put("x", &mut &b"one"[..]).unwrap();
        assert_eq!(fs::read(directory.path().join("x")).unwrap(), b"one");
        assert_eq!(depot.names().unwrap().len(), 1_001, "nobody else's file is touched");
    }

    #[test]
    fn a_full_place_says_so() {
        // Writes to it fail as those to a full disk do.
        let full = Path::new("/dev/full");
        if !full.exists() {
            eprintln!("SKIPPED: no /dev/full here");
            return;
        }
        let depot = DirectoryDepot::new(full);
        let error = depot.error("writing", "x", fs::write(full, b"x").unwrap_err());
        assert!(matches!(error, DepotError::Full { .. }), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_read_to_its_end_is_not_kept() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("for the test"))
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let depot = DirectoryDepot::new(directory.path());
        assert!(matches!(depot.put("x", &mut Broken), Err(DepotError::Io { .. })));
        assert!(matches!(depot.get("x"), Err(DepotError::Missing { .. })));
    }
}
