//! `surety backup`: copies a data directory, closed or beside the engine that serves it.

use std::fs;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backup::{
    Copied, CopyError, Depot, DepotError, Extent, FilePart, MANIFEST_FILE, MANIFEST_VERSION, Manifest, Mark,
    ShardPart, Wanted,
};
use clap::Args as ClapArgs;
use engine::{Begin, Epochs};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use storage::{COPIED_METADATA_FILE, DataDirectory, METADATA_FILE, Metadata};
use surety_protocol::{EngineId, Seq, ShardId, Time};
use wal::Identity;

use crate::ctl::Target;
use crate::exit::{self, Exit, Failure};
use crate::remote::{Role, Session};
use crate::{depots, directory, priority, remote, verify};

/// How often progress is shown on a terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// How often an engine is asked again for its mark, when snapshots overtake it.
const MARK_ATTEMPTS: usize = 8;
/// Twice what an engine keeps for itself unless it is told otherwise.
const FREE_BYTES_MIN: u64 = 512 << 20;

/// Copies a data directory to another place, also while an engine serves it
///
/// Of each shard the newest snapshot that holds and the log from there on are copied, up to what the engine says is on the
/// disk (asked for as `reader`), or to the log's end if nobody serves the directory, which is locked while it is copied. Every file is read back, and the copy is
/// replayed; its state hash is printed. manifest.json comes last: what has none is no backup. All of it stands behind whatever else runs on the
/// machine (nice 19; when memory is short it is ended first), and leaves the disk no more than 4 MiB at a time to write.
///
/// PLACE is a directory, or s3://BUCKET/PREFIX. The store, and who asks it, are said by the variables that every tool for S3 reads:
/// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL, AWS_CA_BUNDLE. Without TLS only a store on this
/// machine is asked. The store must keep an object from being written over (If-None-Match); one that does not is refused.
///
/// The copy holds everybody's payments and the key that signs rollback tokens: guard it as you guard the data directory.
/// Certificates and their private keys are not in it; keep them by other means.
///
/// Example: surety backup --data DIR --to /backup/surety/monday
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where the backup goes: a directory or a prefix that is empty or not there
    #[arg(long, value_name = "PLACE")]
    to: String,
    /// Copy the whole log that is there, so that any earlier moment can be restored
    #[arg(long)]
    whole: bool,
    /// Do not replay the copy; its state hash is then not known
    #[arg(long)]
    no_verify: bool,
    /// Where a copy in an object store is fetched to, shard by shard, for its replay [default: the system's directory for such files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Let go of files that retention has removed, and fail, when fewer bytes are free where the log is; more than the engine's own
    /// log.free_bytes_min, below which it declines
    #[arg(long, value_name = "BYTES", default_value_t = FREE_BYTES_MIN)]
    free_bytes_min: u64,
    /// Identity to ask a running engine with: a PEM file [default: DIR/pki/reader.pem]
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// End with one JSON object on its own line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    // Whoever pays meanwhile does not wait for it.
    priority::come_last();
    let metadata = DataDirectory::inspect(&args.data).map_err(|error| directory::open_failure(&error))?;
    if metadata.is_forensic {
        let data = args.data.display();
        let message =
            format!("{data} is a forensic copy, which is not backed up; copy its files if you want them");
        return Err(Failure::new(Exit::Forensic, message));
    }
    let depot = depots::open(&args.to)?;
    check_empty(&*depot)?;
    let source = Source::open(args, metadata)?;
    allow_open_files();
    let manifest = copy(args, metadata, source, &*depot)?;
    exit::done(tell(args, &manifest, &*depot))
}

/// Refuses to mix a backup with anything else.
fn check_empty(depot: &dyn Depot) -> Result<(), Failure> {
    let names = depot.names().map_err(|error| depots::failure(&error))?;
    if names.is_empty() {
        return Ok(());
    }
    let is_whole = names.iter().any(|name| name == MANIFEST_FILE);
    let what = if is_whole { "holds a backup already" } else { "is not empty: a backup that was cut short?" };
    Err(Failure::new(Exit::Failure, format!("{} {what}; give each backup a place of its own", depot.place())))
}

/// Whose files are copied.
enum Source {
    /// Nobody's but ours, since this time.
    Closed { _lock: DataDirectory, at: Time },
    /// An engine's.
    Served(Target),
}

impl Source {
    fn open(args: &Args, metadata: Metadata) -> Result<Self, Failure> {
        let error = match DataDirectory::open(&args.data) {
            Ok(directory) => return Ok(Self::Closed { _lock: directory, at: remote::now() }),
            Err(error) => error,
        };
        if !error.is_busy() {
            return Err(directory::open_failure(&error));
        }
        let target = Target { data: Some(args.data.clone()), connect: None, identity: args.identity.clone() };
        let source = Self::Served(target);
        match source.mark(metadata, ShardId(0)) {
            // Whoever has the lock is no engine, or one that does not serve yet.
            Err(failure) if failure.exit() == Exit::Unreachable => {
                let message =
                    format!("{error}; and no engine answers that could be copied beside: {failure}");
                Err(Failure::new(Exit::InUse, message))
            }
            mark => mark.map(|_| source),
        }
    }

    /// How far the log of a shard is copied: asked for just before its files are looked for.
    fn mark(&self, metadata: Metadata, shard: ShardId) -> Result<Mark, Failure> {
        match self {
            Self::Closed { at, .. } => Ok(Mark::Closed(*at)),
            Self::Served(target) => remote::run(synced_mark(target, metadata.engine, shard)),
        }
    }
}

/// What the engine that serves the directory says is on the disk.
async fn synced_mark(target: &Target, engine: EngineId, shard: ShardId) -> Result<Mark, Failure> {
    let session = Session::open(target, Role::Reader).await?;
    let found = session.client().hello().engine;
    if found != engine {
        let message = format!("engine {found} answers where {engine} should; is another one on its port?");
        return Err(Failure::new(Exit::Foreign, message));
    }
    Ok(Mark::Synced(session.hello(shard).await?.synced))
}

/// The files of a copy are held open all the time.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Without it a log of very many segments is refused with a clear error.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Copies and publishes. A closed directory is let go before the replay: an engine need not wait for it.
fn copy(args: &Args, metadata: Metadata, source: Source, depot: &dyn Depot) -> Result<Manifest, Failure> {
    let created = remote::now().0;
    let (mut shards, files, log_format) = copy_files(args, metadata, &source, depot)?;
    drop(source);
    if !args.no_verify {
        for part in &mut shards {
            part.state_hash = Some(replay(args, depot, metadata, part, &files)?);
        }
    }
    let manifest = Manifest {
        format: MANIFEST_VERSION,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        engine: metadata.engine.to_string(),
        log_format,
        created,
        shards,
        files,
    };
    let text = manifest.to_json();
    backup::copy_file(MANIFEST_FILE, text.as_bytes(), depot)
        .map_err(|error| depots::copy_failure(&args.data, &error))?;
    Ok(manifest)
}

fn copy_files(
    args: &Args,
    metadata: Metadata,
    source: &Source,
    depot: &dyn Depot,
) -> Result<(Vec<ShardPart>, Vec<FilePart>, u16), Failure> {
    let mut files = vec![claim(args, depot)?];
    let (mut shards, mut log_format) = (Vec::new(), wal::format::VERSION_FIRST);
    let mut progress = Progress::new();
    for shard in (0..metadata.shards).map(ShardId) {
        let copied = copy_shard(args, metadata, source, shard, depot, &mut progress)?;
        shards.push(copied.part);
        files.extend(copied.files);
        log_format = log_format.max(copied.log_format);
    }
    progress.clear();
    files.extend(beside(args, metadata, &shards, depot)?);
    Ok((shards, files, log_format))
}

/// The first file: it makes the place none of a data directory, and ours. Of several backups to one place at once, one gets here.
fn claim(args: &Args, depot: &dyn Depot) -> Result<FilePart, Failure> {
    let path = args.data.join(METADATA_FILE);
    let contents = fs::read(&path).map_err(|error| Failure::caused(Exit::Failure, path.display(), &error))?;
    match backup::copy_file(COPIED_METADATA_FILE, &contents, depot) {
        Err(CopyError::Depot(DepotError::Exists { place, .. })) => {
            let message =
                format!("another backup is being taken to {place}; give each backup a place of its own");
            Err(Failure::new(Exit::InUse, message))
        }
        copied => {
            let part = copied.map_err(|error| depots::copy_failure(&path, &error))?;
            // Else all that keeps others away is that they look first.
            let kept = depot.check_keeps(COPIED_METADATA_FILE, &contents);
            kept.map_err(|error| depots::failure(&error))?;
            Ok(part)
        }
    }
}

fn copy_shard(
    args: &Args,
    metadata: Metadata,
    source: &Source,
    shard: ShardId,
    depot: &dyn Depot,
    progress: &mut Progress,
) -> Result<Copied, Failure> {
    let path = args.data.join(format!("shard-{shard}"));
    let identity = Identity { engine: metadata.engine, shard };
    let extent = if args.whole { Extent::Whole } else { Extent::Newest };
    let free_bytes_min = args.free_bytes_min;
    let mut attempts = MARK_ATTEMPTS;
    loop {
        attempts -= 1;
        let mark = source.mark(metadata, shard)?;
        let wanted = Wanted { mark, extent, free_bytes_min };
        match backup::copy_shard(&path, identity, wanted, depot, &mut |bytes| progress.add(bytes)) {
            // Nothing is copied yet, and the next mark is a newer one.
            Err(CopyError::Behind { .. }) if attempts > 0 => {}
            copied => return copied.map_err(|error| depots::copy_failure(&path, &error)),
        }
    }
}

/// The other files beside the shards, each as of the logs that were copied.
fn beside(
    args: &Args,
    metadata: Metadata,
    shards: &[ShardPart],
    depot: &dyn Depot,
) -> Result<Vec<FilePart>, Failure> {
    let mut files = Vec::new();
    for name in server::backup_files(metadata.shards) {
        let path = args.data.join(&name);
        let part = shards.iter().find(|part| name == server::epochs_file(ShardId(part.shard)));
        let contents = match fs::read(&path) {
            Ok(contents) => contents,
            // The notes of a shard that was never served.
            Err(error) if error.kind() == ErrorKind::NotFound && part.is_some() => continue,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let message =
                    format!("{} is missing: without it nothing is served from a backup", path.display());
                return Err(Failure::new(Exit::Corrupt, message));
            }
            Err(error) => return Err(Failure::caused(Exit::Failure, path.display(), &error)),
        };
        let contents = match part {
            Some(part) => notes_of(&contents, part).ok_or_else(|| {
                let path = path.display();
                Failure::new(
                    Exit::Corrupt,
                    format!("{path} holds no notes of epochs; restore it from a backup"),
                )
            })?,
            None => contents,
        };
        let copied = backup::copy_file(&name, &contents, depot);
        files.push(copied.map_err(|error: CopyError| depots::copy_failure(&path, &error))?);
    }
    Ok(files)
}

/// Notes of the epochs that the copied log knows of: a start may have noted its epoch and not have logged anything yet, or have begun after
/// the log was copied. With its note a copy would look older than itself.
fn notes_of(notes: &[u8], part: &ShardPart) -> Option<Vec<u8>> {
    let mut epochs = Epochs::parse(std::str::from_utf8(notes).ok()?)?;
    epochs.starts.retain(|(epoch, _)| epoch.0 <= part.epoch);
    Some(epochs.to_text().into_bytes())
}

/// Replays the copy of a shard; returns its state hash. What is not in a directory is fetched into one.
fn replay(
    args: &Args,
    depot: &dyn Depot,
    metadata: Metadata,
    part: &ShardPart,
    files: &[FilePart],
) -> Result<String, Failure> {
    if let Some(place) = depot.directory() {
        return replay_in(place, metadata, part);
    }
    let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let scratch =
        tempfile::Builder::new().prefix("surety-backup-").tempdir_in(&scratch).map_err(|error| {
            let scratch = scratch.display();
            Failure::new(
                Exit::Failure,
                format!("{scratch}: {error}; give --scratch a directory with room for a shard"),
            )
        })?;
    let prefix = format!("shard-{}/", part.shard);
    for file in files.iter().filter(|file| file.name.starts_with(&prefix)) {
        backup::fetch(depot, file, scratch.path()).map_err(|error| depots::fetch_failure(&error))?;
    }
    replay_in(scratch.path(), metadata, part)
}

fn replay_in(place: &Path, metadata: Metadata, part: &ShardPart) -> Result<String, Failure> {
    let shard = ShardId(part.shard);
    let path = place.join(format!("shard-{shard}"));
    let recovered =
        verify::replay_at(&path, metadata, shard, Begin::Oldest, std::io::stderr().is_terminal())?;
    check_end(&path, recovered.report().last_seq, Seq(part.last_seq))?;
    recovered.ledger().verify().map_err(|violation| {
        Failure::new(Exit::Corrupt, format!("{}: {violation}: this is no sound backup", path.display()))
    })?;
    Ok(format!("{:032x}", recovered.ledger().state_hash()))
}

/// A copy that replays to another seq than was copied is none.
pub(crate) fn check_end(path: &Path, found: Seq, expected: Seq) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    let message =
        format!("{}: replay ends at seq {found} instead of {expected}: do not use it", path.display());
    Err(Failure::new(Exit::Corrupt, message))
}

fn tell(args: &Args, manifest: &Manifest, depot: &dyn Depot) -> Result<(), Failure> {
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let mut out = std::io::stdout().lock();
    if args.json {
        let mut value =
            json!({ "ok": true, "to": depot.place(), "bytes": bytes, "files": manifest.files.len() });
        value["engine"] = Value::String(manifest.engine.clone());
        value["shards"] = serde_json::to_value(&manifest.shards).map_err(std::io::Error::from)?;
        writeln!(out, "{value}")?;
        return Ok(());
    }
    for part in &manifest.shards {
        let hash = part.state_hash.as_ref();
        let hash = hash.map_or_else(|| "not replayed".to_owned(), |hash| format!("state hash {hash}"));
        let (shard, first, last) = (part.shard, part.first_seq, part.last_seq);
        writeln!(out, "shard {shard}: seq {first} to {last}, epoch {}, {hash}", part.epoch)?;
    }
    writeln!(out, "{bytes} bytes in {} files: {}", manifest.files.len(), depot.place())?;
    Ok(())
}

/// A line on a terminal that says how much was copied.
struct Progress {
    is_shown: bool,
    bytes: u64,
    told: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { is_shown: std::io::stderr().is_terminal(), bytes: 0, told: Instant::now() }
    }

    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.is_shown && self.told.elapsed() >= PROGRESS_INTERVAL {
            self.told = Instant::now();
            exit::tell_over(format_args!("{} MiB copied ", self.bytes >> 20));
        }
    }

    fn clear(&self) {
        if self.is_shown {
            exit::clear_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup::DirectoryDepot;
    use std::io::Read;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Looks, when the copy is to be replayed, whether the directory that it is of can be served again.
    #[derive(Debug)]
    struct Watching {
        inner: DirectoryDepot,
        data: PathBuf,
        replays: AtomicUsize,
    }

    impl Depot for Watching {
        fn put(&self, name: &str, from: &mut dyn Read) -> Result<(), DepotError> {
            assert!(
                DataDirectory::open(&self.data).is_err_and(|error| error.is_busy()) || name == MANIFEST_FILE
            );
            self.inner.put(name, from)
        }

        fn get(&self, name: &str) -> Result<Box<dyn Read>, DepotError> {
            self.inner.get(name)
        }

        fn names(&self) -> Result<Vec<String>, DepotError> {
            self.inner.names()
        }

        fn place(&self) -> String {
            self.inner.place()
        }

        fn directory(&self) -> Option<&Path> {
            drop(DataDirectory::open(&self.data).expect("let go before the replay"));
            self.replays.fetch_add(1, Ordering::Relaxed);
            self.inner.directory()
        }
    }

    #[test]
    fn a_closed_directory_is_locked_while_it_is_copied_and_let_go_before_the_replay() {
        let beside = tempfile::tempdir().unwrap();
        let data = beside.path().join("data");
        server::init_with(&data, &server::InitOptions::new(1)).unwrap();
        let args = Args {
            data: data.clone(),
            to: String::new(),
            whole: false,
            no_verify: false,
            scratch: None,
            free_bytes_min: 0,
            identity: None,
            json: false,
        };
        let metadata = DataDirectory::inspect(&data).unwrap();
        let depot = Watching {
            inner: DirectoryDepot::new(&beside.path().join("to")),
            data,
            replays: AtomicUsize::new(0),
        };
        let source = Source::open(&args, metadata).unwrap();
        copy(&args, metadata, source, &depot).unwrap();
        assert!(depot.replays.into_inner() > 0);
    }

    #[test]
    fn notes_are_of_the_copied_log() {
        let part = |epoch| ShardPart {
            shard: 0,
            epoch,
            first_seq: 1,
            last_seq: 20,
            time: 0,
            complete_until: 0,
            snapshot: None,
            state_hash: None,
        };
        let notes = b"1 1\n2 10\n3 21\n";
        assert_eq!(notes_of(notes, &part(3)).unwrap(), notes);
        assert_eq!(notes_of(notes, &part(2)).unwrap(), b"1 1\n2 10\n");
        assert_eq!(notes_of(b"nonsense", &part(2)), None);
    }
}
