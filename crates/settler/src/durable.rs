//! What makes files outlive a power cut.
//!
//! Each step is told to `tracing` once it is done: the tests of power cuts keep what was made durable, and throw the rest away.

use std::fs::File;
use std::io::{ErrorKind, Result, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Makes what a file holds durable.
pub(crate) fn sync_file(file: &File, path: &Path) -> Result<()> {
    file.sync_all().map(|()| tell(path))
}

/// The same, without the moment of the change.
pub(crate) fn sync_data(file: &File, path: &Path) -> Result<()> {
    file.sync_data().map(|()| tell(path))
}

fn tell(path: &Path) {
    tracing::trace!(target: "settler::durable", file = %path.display());
}

/// Makes a directory if it is not there, and its name durable, which may have been made by one that was killed before it was.
pub(crate) fn make_directory(directory: &Path) -> Result<()> {
    make_directories(directory, sync_directory)
}

/// From the top, each durable before the next is made: only of the last one that is there the name may not be.
fn make_directories(directory: &Path, sync: impl Fn(&Path) -> Result<()>) -> Result<()> {
    let named: Vec<&Path> = directory.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    let last = named.iter().position(|path| path.exists()).unwrap_or(named.len());
    for path in named.iter().take(last.saturating_add(1)).rev() {
        let Some(parent) = path.parent() else { continue };
        let is_new = !path.exists();
        if is_new {
            std::fs::create_dir(path)?;
        }
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        if !is_new && is_mounted(path, parent)? {
            continue;
        }
        match sync(parent) {
            // Whoever may not read it is not who has made a directory in it.
            Err(error) if error.kind() == ErrorKind::PermissionDenied && !is_new => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// True if another file system begins here: its name is none in the directory above, which may be one that cannot be synced.
fn is_mounted(path: &Path, parent: &Path) -> Result<bool> {
    Ok(std::fs::metadata(path)?.dev() != std::fs::metadata(parent)?.dev())
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)?.sync_all()?;
    tracing::trace!(target: "settler::durable", directory = %directory.display());
    Ok(())
}

/// Puts a file in the place of another, at once or not at all.
pub(crate) fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(bytes)?;
    sync_file(&file, temporary)?;
    std::fs::rename(temporary, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;
    use std::io::Error;

    use super::*;

    #[test]
    fn a_directory_is_durable_wherever_its_making_was_cut_off() {
        let all = ["a", "a/b", "a/b/c"];
        for steps in 0..=all.len() {
            let top = tempfile::tempdir().expect("a directory");
            let whole = top.path().join("a/b/c");
            let (durable, left) = (RefCell::new(BTreeSet::new()), Cell::new(steps));
            let sync = |parent: &Path| {
                // Killed between a directory and its name on the disk.
                left.set(left.get().checked_sub(1).ok_or_else(|| Error::other("killed"))?);
                for entry in std::fs::read_dir(parent)? {
                    durable.borrow_mut().insert(entry?.path());
                }
                Ok(())
            };
            assert!(make_directories(&whole, sync).is_err(), "{steps}");
            left.set(usize::MAX);
            make_directories(&whole, sync).expect("made");
            for path in all {
                assert!(durable.borrow().contains(&top.path().join(path)), "{steps}: {path}");
            }
        }
    }

    #[test]
    fn a_file_system_of_its_own_has_no_name_above() {
        let mounted = |path: &str| is_mounted(Path::new(path), Path::new("/")).expect("both are there");
        assert!(mounted("/proc") && !mounted("/"));
        let failed = |_: &Path| Err(Error::other("this one cannot be synced"));
        make_directories(Path::new("/proc"), failed).expect("it is there");
    }

    #[test]
    fn nobody_has_made_a_directory_where_nobody_may_look() {
        let top = tempfile::tempdir().expect("a directory");
        let refused = |_: &Path| Err(Error::from(ErrorKind::PermissionDenied));
        make_directories(top.path(), refused).expect("it is there");
        assert!(make_directories(&top.path().join("new"), refused).is_err());
        let failed = |_: &Path| Err(Error::other("the disk"));
        assert!(make_directories(top.path(), failed).is_err());
    }
}
