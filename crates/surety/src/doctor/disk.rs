//! The directory: its file system, its disk, its space, and who may read it.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use storage::{DataDirectory, FileStorage, IoMode, StorageError};
use surety_protocol::Seq;
use wal::{FileName, PageBuffer, Storage};

use super::finding::{Finding, Grade};
use crate::exit::{self, Exit, Failure};

const FILE: FileName = FileName::Segment { first_seq: Seq(1) };
/// Each way of writing has a directory of its own: the file has the same name in both.
const DIRECT: &str = "direct";
const SYNC: &str = "sync";
/// What a durable write is measured with.
const BLOCK_BYTES: u64 = 4096;
const WRITES: u64 = 200;
const MEASURE_MAX: Duration = Duration::from_secs(3);
/// No disk writes a block sooner; a file system in memory, or one that only says so, does.
const SYNC_MIN: Duration = Duration::from_micros(5);
/// A disk that turns, or a network.
const SYNC_SLOW: Duration = Duration::from_millis(2);
const SYNC_TAIL_SLOW: Duration = Duration::from_millis(50);
const FREE_LITTLE: u64 = 10 << 30;
const FREE_TOO_LITTLE: u64 = 1 << 30;

/// Every check of the directory.
pub(super) fn examine(directory: &Path) -> Result<Vec<Finding>, Failure> {
    let failed = |error: &dyn core::error::Error| {
        Failure::caused(Exit::Failure, format!("{} cannot be examined", directory.display()), error)
    };
    let place = nearest(directory).map_err(|error| failed(&error))?;
    let metadata = fs::metadata(&place).map_err(|error| failed(&error))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = Mount::of(&place, &mounts);
    let space = rustix::fs::statvfs(&place).map_err(|error| failed(&error))?;
    let preload = std::env::var("LD_PRELOAD").unwrap_or_default();
    let mut findings =
        vec![judge_mount(mount.as_ref()), judge_space(space.f_bavail.saturating_mul(space.f_frsize))];
    findings.extend(judge_readers(&place, &metadata));
    if let Ok(engine) = DataDirectory::inspect(&place) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        findings.push(judge_shards(usize::from(engine.shards), cores));
    }
    let scratch = Scratch::below(&place).map_err(|error| failed(&error))?;
    let measured = measure_both(&scratch.0).map_err(|error| failed(&error))?;
    findings.push(judge_direct(measured.direct));
    findings.push(judge_sync(measured.best(), mount.as_ref(), &preload));
    Ok(findings)
}

/// The directory, or where it is not there yet, the nearest one above that is.
fn nearest(directory: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(directory)?;
    for place in absolute.ancestors() {
        match place.canonicalize() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(found) if place != absolute => {
                exit::tell(format_args!(
                    "{} is not there yet: this is of {}",
                    directory.display(),
                    found.display()
                ));
                return Ok(found);
            }
            found => return found,
        }
    }
    directory.canonicalize()
}

/// What lies below a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    kind: String,
    options: String,
}

impl Mount {
    /// The last mount on the longest path above; see proc_pid_mountinfo(5).
    fn of(place: &Path, mounts: &str) -> Option<Self> {
        let mut best: Option<(usize, Self)> = None;
        for line in mounts.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let fields: Vec<&str> = before.split(' ').collect();
            let (Some(point), Some(options)) = (fields.get(4), fields.get(5)) else { continue };
            // Blanks in paths are written in octal.
            let point = point.replace("\\040", " ");
            let mut after = after.split(' ');
            let (kind, super_options) = (after.next().unwrap_or_default(), after.nth(1).unwrap_or_default());
            if place.starts_with(&point) && best.as_ref().is_none_or(|(length, _)| point.len() >= *length) {
                let options = format!("{options},{super_options}");
                best = Some((point.len(), Self { kind: kind.to_owned(), options }));
            }
        }
        best.map(|(_, mount)| mount)
    }

    fn is_memory(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs")
    }
}

fn judge_mount(mount: Option<&Mount>) -> Finding {
    let Some(mount) = mount else {
        return Finding::of("file system", Grade::Unknown, "not told", "see that it is a local one");
    };
    let kind = mount.kind.as_str();
    if mount.is_memory() {
        return Finding::of("file system", Grade::Fault, kind, "it is gone with the power: use a disk");
    }
    if mount.options.split(',').any(|option| matches!(option, "nobarrier" | "barrier=0")) {
        let found = format!("{kind}, mounted without barriers");
        return Finding::of(
            "file system",
            Grade::Fault,
            found,
            "mount it with barriers: syncs do not reach the disk",
        );
    }
    match kind {
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "virtiofs" | "ceph" => Finding::of(
            "file system",
            Grade::Advice,
            kind,
            "use a local one: what a sync, a lock and a rename mean is up to somebody else there",
        ),
        fuse if fuse.starts_with("fuse") => Finding::of(
            "file system",
            Grade::Advice,
            fuse,
            "use one of the kernel's: nobody knows what a sync means here",
        ),
        "overlay" => Finding::of(
            "file system",
            Grade::Advice,
            kind,
            "give the data directory a volume of its own: this one goes with the container",
        ),
        _ => Finding::fine("file system", kind),
    }
}

fn judge_space(free: u64) -> Finding {
    let found = format!("{} MiB free", free >> 20);
    let advice = "make room, or set `log.retain_records`: below `log.free_bytes_min` new locks are declined";
    match free {
        ..FREE_TOO_LITTLE => Finding::of("space", Grade::Fault, found, advice),
        FREE_TOO_LITTLE..FREE_LITTLE => Finding::of("space", Grade::Advice, found, advice),
        _ => Finding::fine("space", found),
    }
}

/// Keys lie in a data directory; nobody else should be able to read them.
fn judge_readers(place: &Path, directory: &Metadata) -> Option<Finding> {
    if !place.join(storage::METADATA_FILE).exists() {
        return None;
    }
    let mut open: Vec<PathBuf> = Vec::new();
    let keys =
        ["keys", "pki"].iter().filter_map(|name| fs::read_dir(place.join(name)).ok()).flatten().flatten();
    // Certificates may be read by anybody; what has a key in it may not.
    let has_key = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| holds_key(path, &bytes));
    open.extend(
        keys.map(|entry| entry.path()).filter(|path| path.is_file() && has_key(path)).filter(|path| {
            fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
        }),
    );
    if let Some(path) = open.first() {
        return Some(Finding::of(
            "readers",
            Grade::Fault,
            format!("{} with a key in it may be read by others, and {} more", path.display(), open.len() - 1),
            "`chmod -R go= DIR`, and think of that key as known",
        ));
    }
    let us = rustix::process::geteuid().as_raw();
    if directory.uid() != us {
        return Some(Finding::of(
            "readers",
            Grade::Advice,
            format!("the directory belongs to user {}, this is user {us}", directory.uid()),
            "run `surety doctor` as the user that serves it",
        ));
    }
    Some(Finding::fine("readers", "keys are readable by their owner alone"))
}

fn holds_key(path: &Path, bytes: &[u8]) -> bool {
    let is_secret = path.parent().is_some_and(|parent| parent.ends_with("keys"));
    is_secret || bytes.windows(11).any(|window| window == b"PRIVATE KEY")
}

fn judge_shards(shards: usize, cores: usize) -> Finding {
    let found = format!("{shards} on {cores} cores");
    if shards <= cores {
        return Finding::fine("shards", found);
    }
    let advice = "a shard without a core of its own waits for the others; move to a machine with more";
    Finding::of("shards", Grade::Advice, found, advice)
}

/// A directory that goes when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn below(place: &Path) -> std::io::Result<Self> {
        // In a container one process after another has the same number, and one that was killed leaves its directory.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = place.join(format!(".surety-doctor-{}-{}", std::process::id(), now.as_nanos()));
        fs::create_dir(&path)?;
        let scratch = Self(path);
        for name in [DIRECT, SYNC] {
            fs::create_dir(scratch.0.join(name))?;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!("{} could not be removed: {error}; remove it", self.0.display());
        }
    }
}

/// Median and 99th percentile of a durable write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Latency {
    median: Duration,
    high: Duration,
}

/// Both ways of making a block durable.
struct Measured {
    /// `None` if the file system takes no direct writes.
    direct: Option<Latency>,
    sync: Latency,
}

impl Measured {
    /// That of the mode which `serve` takes by itself.
    fn best(&self) -> Latency {
        self.direct.unwrap_or(self.sync)
    }
}

fn measure_both(directory: &Path) -> Result<Measured, StorageError> {
    let direct = match measure(&directory.join(DIRECT), IoMode::Direct) {
        Err(StorageError::DirectRefused { .. }) => None,
        direct => Some(direct?),
    };
    Ok(Measured { direct, sync: measure(&directory.join(SYNC), IoMode::Sync)? })
}

fn measure(directory: &Path, mode: IoMode) -> Result<Latency, StorageError> {
    let mut storage = FileStorage::open(directory, mode)?;
    storage.create(FILE, BLOCK_BYTES * WRITES)?;
    let mut block = PageBuffer::with_pages(1);
    block.as_mut_bytes().fill(0xab);
    let begin = Instant::now();
    let mut times = Vec::new();
    for write in 0..WRITES {
        let before = Instant::now();
        storage.write_synced(FILE, write * BLOCK_BYTES, block.as_bytes())?;
        times.push(before.elapsed());
        if begin.elapsed() > MEASURE_MAX {
            break;
        }
    }
    times.sort_unstable();
    Ok(Latency { median: times[times.len() / 2], high: times[times.len() * 99 / 100] })
}

fn judge_direct(direct: Option<Latency>) -> Finding {
    match direct {
        Some(_) => Finding::fine("direct writes", "taken"),
        None => Finding::of(
            "direct writes",
            Grade::Advice,
            "refused by the file system",
            "ext4 and XFS take them; without, `serve` goes through the page cache and `fdatasync`",
        ),
    }
}

fn judge_sync(latency: Latency, mount: Option<&Mount>, preload: &str) -> Finding {
    let micros = |time: Duration| time.as_micros();
    let found = format!(
        "a durable write of 4 KiB takes {} us, one in a hundred {} us",
        micros(latency.median),
        micros(latency.high)
    );
    if preload.contains("eatmydata") {
        let advice = "take `libeatmydata` out of LD_PRELOAD: it makes syncs do nothing";
        return Finding::of("durable write", Grade::Fault, found, advice);
    }
    if latency.median < SYNC_MIN || mount.is_some_and(Mount::is_memory) {
        let advice = "no disk is that quick: what is acknowledged here is lost with the power; use another disk, or find out who \
                      swallows the syncs";
        return Finding::of("durable write", Grade::Fault, found, advice);
    }
    if latency.median > SYNC_SLOW || latency.high > SYNC_TAIL_SLOW {
        let advice = "every answer waits for one: use an SSD with power-loss protection, for the log alone";
        return Finding::of("durable write", Grade::Advice, found, advice);
    }
    // A disk that only says so looks the same: nothing but cutting its power can show that.
    Finding::fine("durable write", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /dev/shm rw,nosuid - tmpfs tmpfs rw,size=1g
31 22 8:1 / /data rw shared:1 - xfs /dev/sdb1 rw,nobarrier
32 22 8:2 / /with\\040blank rw - btrfs /dev/sdc rw
33 22 8:3 / /data rw - ext4 /dev/sdd rw,barrier=1";

    fn mount(place: &str) -> Mount {
        Mount::of(Path::new(place), MOUNTS).unwrap()
    }

    fn micros(median: u64, high: u64) -> Latency {
        Latency { median: Duration::from_micros(median), high: Duration::from_micros(high) }
    }

    #[test]
    fn the_mount_is_the_last_on_the_longest_path() {
        assert_eq!(mount("/var/lib").kind, "ext4");
        assert_eq!(mount("/dev/shm/x").kind, "tmpfs");
        assert_eq!(mount("/with blank/x").kind, "btrfs");
        assert_eq!(mount("/database").kind, "ext4", "a name that begins alike is another");
        assert_eq!(mount("/data/x").options, "rw,rw,barrier=1", "the later mount hides the earlier");
        assert_eq!(Mount::of(Path::new("/"), "no mounts"), None);
    }

    #[test]
    fn file_systems_that_lose_what_was_synced_are_faults() {
        let of = |kind: &str, options: &str| Mount { kind: kind.to_owned(), options: options.to_owned() };
        for (mount, grade) in [
            (of("ext4", "rw"), Grade::Fine),
            (of("xfs", "rw"), Grade::Fine),
            (of("tmpfs", "rw"), Grade::Fault),
            (of("ext4", "rw,nobarrier"), Grade::Fault),
            (of("ext4", "rw,barrier=0"), Grade::Fault),
            (of("nfs4", "rw"), Grade::Advice),
            (of("fuse.sshfs", "rw"), Grade::Advice),
            (of("overlay", "rw"), Grade::Advice),
        ] {
            assert_eq!(judge_mount(Some(&mount)).grade, grade, "{mount:?}");
        }
        assert_eq!(judge_mount(None).grade, Grade::Unknown);
    }

    #[test]
    fn a_write_that_is_too_quick_was_none() {
        let ext4 = Mount { kind: "ext4".to_owned(), options: String::new() };
        let tmpfs = Mount { kind: "tmpfs".to_owned(), options: String::new() };
        let grade = |latency, mount, preload| judge_sync(latency, Some(mount), preload).grade;
        assert_eq!(grade(micros(70, 300), &ext4, ""), Grade::Fine);
        assert_eq!(grade(micros(2, 300), &ext4, ""), Grade::Fault);
        assert_eq!(grade(micros(70, 300), &tmpfs, ""), Grade::Fault);
        assert_eq!(grade(micros(70, 300), &ext4, "/usr/lib/libeatmydata.so"), Grade::Fault);
        assert_eq!(grade(micros(9_000, 12_000), &ext4, ""), Grade::Advice);
        assert_eq!(grade(micros(100, 80_000), &ext4, ""), Grade::Advice);
    }

    #[test]
    fn space_and_shards_are_judged_at_their_bounds() {
        assert_eq!(judge_space(FREE_TOO_LITTLE - 1).grade, Grade::Fault);
        assert_eq!(judge_space(FREE_TOO_LITTLE).grade, Grade::Advice);
        assert_eq!(judge_space(FREE_LITTLE).grade, Grade::Fine);
        assert_eq!(judge_shards(2, 2).grade, Grade::Fine);
        assert_eq!(judge_shards(3, 2).grade, Grade::Advice);
        assert_eq!(judge_direct(None).grade, Grade::Advice);
    }

    #[test]
    fn keys_that_others_may_read_are_a_fault_and_certificates_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        assert_eq!(judge_readers(place, &fs::metadata(place).unwrap()), None, "not a data directory");
        for name in ["keys", "pki"] {
            fs::create_dir(place.join(name)).unwrap();
        }
        let write = |name: &str, text: &str, mode: u32| {
            fs::write(place.join(name), text).unwrap();
            fs::set_permissions(place.join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        write(storage::METADATA_FILE, "", 0o644);
        write("keys/token.key", "00", 0o600);
        write("pki/ca.pem", "-----BEGIN CERTIFICATE-----", 0o644);
        write("pki/admin.pem", "-----BEGIN PRIVATE KEY-----", 0o600);
        let judged = || judge_readers(place, &fs::metadata(place).unwrap()).unwrap();
        assert_eq!(judged().grade, Grade::Fine);
        write("pki/admin.pem", "-----BEGIN PRIVATE KEY-----", 0o640);
        assert_eq!(judged().grade, Grade::Fault);
        assert!(judged().found.contains("admin.pem"));
    }

    #[test]
    fn nothing_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let findings = examine(directory.path()).unwrap();
        assert!(findings.iter().any(|finding| finding.check == "durable write"));
        assert!(!examine(&directory.path().join("not/yet")).unwrap().is_empty());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(examine(Path::new("/dev/null/not/yet")).is_err());
    }
}
