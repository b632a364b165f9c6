//! File systems of our own: ext4 on a loop device, tmpfs. They go when their value goes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The shutdown ioctl of ext4 (`EXT4_IOC_SHUTDOWN`) as perl calls it: this program has no `unsafe`, and perl is on every
/// Debian. The flag is 1 to write the journal first, 2 not to.
const SHUTDOWN: &str =
    "open(my $d, '<', $ARGV[0]) or die $!; my $f = pack('L', $ARGV[1]); ioctl($d, 0x8004587d, $f) or die $!";

/// A mounted file system.
#[derive(Debug)]
pub(crate) struct Mount {
    path: PathBuf,
    is_mounted: bool,
}

/// What is left of a journal when the power goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Journal {
    /// It is written first.
    Written = 1,
    /// It is not.
    Lost = 2,
}

/// Why mounts cannot be made here, if they cannot.
pub(crate) fn obstacle() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    let scratch = tempfile::tempdir().ok()?;
    match Mount::tmpfs(&scratch.path().join("m"), 1) {
        Ok(_) => None,
        Err(_) => Some("this machine allows no mounts"),
    }
}

/// Makes an ext4 in a file.
pub(crate) fn make_ext4(image: &Path, mib: u64) -> Result<()> {
    std::fs::File::create(image)?.set_len(mib << 20)?;
    command("mkfs.ext4", &["-q", "-F", path(image)?])
}

impl Mount {
    /// A tmpfs of so many MiB.
    pub(crate) fn tmpfs(at: &Path, mib: u64) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        command("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", path(at)?])?;
        Ok(Self { path: at.to_owned(), is_mounted: true })
    }

    /// An ext4 in a file, through a loop device that goes with the mount.
    pub(crate) fn ext4(image: &Path, at: &Path) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        command("mount", &["-o", "loop", path(image)?, path(at)?])?;
        Ok(Self { path: at.to_owned(), is_mounted: true })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a tmpfs another size.
    pub(crate) fn resize(&self, mib: u64) -> Result<()> {
        command("mount", &["-o", &format!("remount,size={mib}m"), path(&self.path)?])
    }

    /// What a power cut does to an ext4: from now on nothing reaches the disk, and what has not is lost.
    pub(crate) fn cut_power(&self, journal: Journal) -> Result<()> {
        command("perl", &["-e", SHUTDOWN, path(&self.path)?, &(journal as u8).to_string()])
    }

    /// Ends it in order.
    pub(crate) fn unmount(mut self) -> Result<()> {
        self.is_mounted = false;
        command("umount", &[path(&self.path)?])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Somebody may still look into it: it goes from the tree at once, and for good with the last of them.
        if self.is_mounted && command("umount", &["-l", &self.path.to_string_lossy()]).is_err() {
            eprintln!("cannot unmount {}", self.path.display());
        }
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// Runs a program that is expected to do well.
pub(crate) fn command(program: &str, args: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(args).stdin(Stdio::null()).output().context(program.to_owned())?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// True if a program is there.
pub(crate) fn has(program: &str) -> bool {
    Command::new(program)
        .arg("-V")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}
