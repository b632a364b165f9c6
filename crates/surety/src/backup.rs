//! `surety backup`: copies a data directory, closed or beside the engine that serves it.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backup::{
    CopyError, Depot, Extent, FilePart, MANIFEST_FILE, MANIFEST_VERSION, Manifest, Mark, ShardPart,
};
use clap::Args as ClapArgs;
use engine::Begin;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use storage::{DataDirectory, METADATA_FILE, Metadata};
use surety_protocol::{EngineId, Seq, ShardId};
use wal::Identity;

use crate::ctl::Target;
use crate::exit::{self, Exit, Failure};
use crate::remote::{Role, Session};
use crate::{depots, directory, remote, verify};

/// How often progress is shown on a terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Copies a data directory to another place, also while an engine serves it
///
/// Of each shard the newest snapshot that holds and the log from there on are copied, up to what the engine says is on the
/// disk (asked for as `reader`), or to the log's end if nobody serves the directory. Every file is read back, and the copy is
/// replayed; its state hash is printed. manifest.json comes last: what has none is no backup.
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
    /// Where the backup goes: a directory that is empty or not there
    #[arg(long, value_name = "PLACE")]
    to: String,
    /// Copy the whole log that is there, so that any earlier moment can be restored
    #[arg(long)]
    whole: bool,
    /// Do not replay the copy; its state hash is then not known
    #[arg(long)]
    no_verify: bool,
    /// Identity to ask a running engine with: a PEM file [default: DIR/pki/reader.pem]
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// End with one JSON object on its own line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
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
    let manifest = copy(args, metadata, &source, &*depot)?;
    tell(args, &manifest, &*depot)
}

/// Refuses to mix a backup with anything else.
fn check_empty(depot: &dyn Depot) -> Result<(), Failure> {
    let names = depot.names().map_err(|error| Failure::new(Exit::Failure, error))?;
    if names.is_empty() {
        return Ok(());
    }
    let is_whole = names.iter().any(|name| name == MANIFEST_FILE);
    let what = if is_whole { "holds a backup already" } else { "is not empty: a backup that was cut short?" };
    Err(Failure::new(Exit::Failure, format!("{} {what}; give each backup a place of its own", depot.place())))
}

/// Whose files are copied, and how far each log goes.
struct Source {
    marks: Vec<Mark>,
    // Held to the end of the copy, if nobody serves the directory.
    _closed: Option<DataDirectory>,
}

impl Source {
    fn open(args: &Args, metadata: Metadata) -> Result<Self, Failure> {
        match DataDirectory::open(&args.data) {
            Ok(directory) => {
                let marks = directory.shards().map(|_| Mark::Closed).collect();
                Ok(Self { marks, _closed: Some(directory) })
            }
            Err(error) if error.is_busy() => {
                let target =
                    Target { data: Some(args.data.clone()), connect: None, identity: args.identity.clone() };
                let marks = remote::run(synced_marks(&target, metadata.engine))?;
                Ok(Self { marks, _closed: None })
            }
            Err(error) => Err(directory::open_failure(&error)),
        }
    }
}

/// What the engine that serves the directory says is on the disk.
async fn synced_marks(target: &Target, engine: EngineId) -> Result<Vec<Mark>, Failure> {
    let session = Session::open(target, Role::Reader).await?;
    let found = session.client().hello().engine;
    if found != engine {
        let message = format!("engine {found} answers where {engine} should; is another one on its port?");
        return Err(Failure::new(Exit::Foreign, message));
    }
    let mut marks = Vec::new();
    for shard in 0..session.shards() {
        marks.push(Mark::Synced(session.hello(ShardId(shard)).await?.synced));
    }
    Ok(marks)
}

/// The files of a copy are held open all the time.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Without it a log of very many segments is refused with a clear error.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn copy(args: &Args, metadata: Metadata, source: &Source, depot: &dyn Depot) -> Result<Manifest, Failure> {
    let created = remote::now().0;
    let extent = if args.whole { Extent::Whole } else { Extent::Newest };
    let (mut shards, mut files) = (Vec::new(), beside(args, metadata, depot)?);
    let mut progress = Progress::new();
    for (shard, mark) in (0..metadata.shards).map(ShardId).zip(&source.marks) {
        let path = args.data.join(format!("shard-{shard}"));
        let identity = Identity { engine: metadata.engine, shard };
        let copied =
            backup::copy_shard(&path, identity, *mark, extent, depot, &mut |bytes| progress.add(bytes));
        let (part, parts) = copied.map_err(|error| depots::copy_failure(&path, &error))?;
        shards.push(part);
        files.extend(parts);
    }
    progress.clear();
    if !args.no_verify {
        for part in &mut shards {
            part.state_hash = Some(replay(depot, metadata, part)?);
        }
    }
    let manifest = Manifest {
        format: MANIFEST_VERSION,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        engine: metadata.engine.to_string(),
        log_format: wal::format::VERSION,
        created,
        shards,
        files,
    };
    let text = manifest.to_json();
    backup::copy_file(MANIFEST_FILE, text.as_bytes(), depot)
        .map_err(|error| depots::copy_failure(&args.data, &error))?;
    Ok(manifest)
}

/// The files beside the shards.
fn beside(args: &Args, metadata: Metadata, depot: &dyn Depot) -> Result<Vec<FilePart>, Failure> {
    let mut files = Vec::new();
    for name in [METADATA_FILE.to_owned()].into_iter().chain(server::backup_files(metadata.shards)) {
        let path = args.data.join(&name);
        let contents = match fs::read(&path) {
            Ok(contents) => contents,
            // The notes of a shard that was never served.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Failure::caused(Exit::Failure, path.display(), &error)),
        };
        let copied = backup::copy_file(&name, &contents, depot);
        files.push(copied.map_err(|error: CopyError| depots::copy_failure(&path, &error))?);
    }
    Ok(files)
}

/// Replays the copy of a shard; returns its state hash.
fn replay(depot: &dyn Depot, metadata: Metadata, part: &ShardPart) -> Result<String, Failure> {
    let Some(place) = depot.directory() else {
        let message = format!("{} cannot be replayed where it is; give --no-verify", depot.place());
        return Err(Failure::new(Exit::Usage, message));
    };
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
            eprint!("\r{} MiB copied ", self.bytes >> 20);
        }
    }

    fn clear(&self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}
