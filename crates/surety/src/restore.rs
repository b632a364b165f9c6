//! `surety restore`: puts a backup back, to look at how things stood at a moment, or to serve from it again.

mod serving;

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use backup::{Cut, CutError, Depot, DepotError, FilePart, Manifest, Moment, Reach, ShardPart};
use clap::{ArgGroup, Args as ClapArgs};
use engine::{Begin, Recovered};
use serde_json::{Value, json};
use storage::{COPIED_METADATA_FILE, Metadata, RestoringDirectory};
use surety_protocol::{Seq, ShardId, Time};
use wal::{Identity, TailError};

use crate::backup::check_end;
use crate::exit::{self, Exit, Failure};
use crate::{depots, directory, init, values, verify};

/// The file that tells people what the directory is; the engine goes by its metadata.
const FORENSIC_FILE: &str = "FORENSIC.txt";

/// An archive's metadata has no more than this.
const METADATA_BYTES_MAX: u64 = 1 << 16;

/// Puts a backup back: to look at a moment, or to serve from it again
///
/// With --until it makes a forensic copy: `surety verify`, `surety dump` and, once `surety history rebuild` was run on it, `surety history`
/// read it, `surety serve` refuses it. The moment is a seq of each shard (with several: 0:1200,1:900), or a time for all of them, by which the backup must be known to hold everything that
/// was decided.
///
/// With --accept-loss-after it makes a directory that is served again, where the newest data is gone for good. It states the last
/// seq that is kept of each shard, which is the end of the archive, and --lost-until when the former engine can last have decided
/// anything. With neither --until nor this nothing is made, and you are told where that end is. Everything after it is lost: ids of that
/// time are answered UNKNOWN_AFTER_RESTORE for ever, every partition is unreconciled, so that nothing moves in it until
/// `surety ctl partition reconcile`, the epoch leaps, and clients and readers that know what is lost are refused. Make sure first that the
/// former engine never runs again. Certificates are not in a backup: put them into DIR/pki.
///
/// Every file is compared with the manifest, and the result is replayed.
///
/// Example: surety restore --from /backup/surety/monday --to DIR --until 2026-11-22T14:00:00Z
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP, group(ArgGroup::new("purpose").args(["until", "accept_loss_after"])))]
pub(crate) struct Args {
    /// The backup
    #[arg(long, value_name = "PLACE")]
    from: String,
    /// The engine's archive (log.archive of `serve`), to go on from where the backup ends
    #[arg(long, value_name = "PLACE")]
    archive: Option<String>,
    /// The directory to make: empty or not there
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The last seq that is wanted of a shard, or the last moment
    #[arg(long, value_name = "[SHARD:]SEQ|TIME", value_delimiter = ',', value_parser = until)]
    until: Vec<Until>,
    /// To serve again: the last seq that is kept of a shard
    #[arg(long, value_name = "[SHARD:]SEQ", value_delimiter = ',', value_parser = kept)]
    accept_loss_after: Vec<Until>,
    /// The latest moment at which the engine that is lost can have decided anything: when it is known to have stopped, by its own
    /// clock, as its replies and records have it; if that was ahead of the wall, add by how much
    #[arg(long, value_name = "TIME", requires = "accept_loss_after", conflicts_with = "until", value_parser = values::moment)]
    lost_until: Option<Time>,
    /// There is no archive of this engine: keep no more than the backup
    #[arg(long, conflicts_with_all = ["until", "archive"])]
    no_archive: bool,
    /// Take the wall clock although it is more than 24 h after the last record
    #[arg(long, requires = "accept_loss_after", conflicts_with = "until")]
    accept_clock: bool,
    /// End with one JSON object on its own line
    #[arg(long)]
    pub(crate) json: bool,
}

/// A moment, and which shard it is for; without one for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Until {
    shard: Option<u16>,
    moment: Moment,
}

fn until(text: &str) -> Result<Until, String> {
    let wrong =
        || format!("`{text}` is no moment; write a seq, SHARD:SEQ, or a time like 2026-11-22T14:00:00Z");
    if text.contains('-') {
        return Ok(Until { shard: None, moment: Moment::Time(values::moment(text)?) });
    }
    let (shard, seq) = shard_and_seq(text).ok_or_else(wrong)?;
    Ok(Until { shard, moment: Moment::Seq(seq) })
}

fn kept(text: &str) -> Result<Until, String> {
    let wrong = || format!("`{text}` is no seq; write the last seq that is kept, or SHARD:SEQ");
    let (shard, seq) = shard_and_seq(text).ok_or_else(wrong)?;
    Ok(Until { shard, moment: Moment::Seq(seq) })
}

fn shard_and_seq(text: &str) -> Option<(Option<u16>, Seq)> {
    let (shard, seq) = match text.split_once(':') {
        Some((shard, seq)) => (Some(shard.parse().ok()?), seq),
        None => (None, text),
    };
    Some((shard, Seq(seq.parse().ok()?)))
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let depot = depots::open(&args.from)?;
    let manifest = backup::read_manifest(&*depot).map_err(|error| depots::fetch_failure(&error))?;
    let metadata = metadata_of(&*depot, &manifest)?;
    let archive = args.archive.as_deref().map(|place| open_archive(place, metadata)).transpose()?;
    let source = Source { depot, manifest, metadata, archive };
    if args.until.is_empty() { serving::restore(args, &source) } else { look(args, &source) }
}

/// What is put back.
struct Source {
    depot: Box<dyn Depot>,
    manifest: Manifest,
    metadata: Metadata,
    archive: Option<Box<dyn Depot>>,
}

/// Makes a forensic copy.
fn look(args: &Args, source: &Source) -> Result<(), Failure> {
    let Source { depot, manifest, metadata, archive } = source;
    let metadata = *metadata;
    let moments = moments(&args.until, metadata.shards)?;
    if archive.is_none() {
        judge(manifest, &moments)?;
    }
    let restoring = RestoringDirectory::begin(&args.to)
        .map_err(|error| init::failure(&server::InitError::Directory(error)))?;
    for part in manifest.files.iter().filter(|part| part.name.starts_with("shard-")) {
        backup::fetch(&**depot, part, restoring.path()).map_err(|error| depots::fetch_failure(&error))?;
    }
    let mut shards = Vec::new();
    for (part, moment) in manifest.shards.iter().zip(moments) {
        let shard = ShardId(part.shard);
        let path = restoring.shard_path(shard);
        let identity = Identity { engine: metadata.engine, shard };
        let end = match archive {
            None => Seq(part.last_seq),
            Some(archive) => extend(&**archive, metadata, part, &restoring)?,
        };
        let complete_until = Time(part.complete_until);
        let cut = backup::cut(&path, identity, moment, end, complete_until);
        let Cut { last_seq } = cut.map_err(|error| cut_failure(shard, &error))?;
        let known = part.state_hash.as_ref().filter(|_| last_seq == Seq(part.last_seq));
        let recovered = replay(&path, metadata, shard, last_seq, known)?;
        shards.push((shard, recovered));
    }
    write_notice(&restoring, &**depot)?;
    restoring
        .finish(Metadata { is_forensic: true, ..metadata })
        .map_err(|error| init::failure(&server::InitError::Directory(error)))?;
    exit::done(tell(args, &shards))
}

/// Refuses moments that the backup alone cannot show, before anything of it is read.
fn judge(manifest: &Manifest, moments: &[Moment]) -> Result<(), Failure> {
    for (part, moment) in manifest.shards.iter().zip(moments) {
        let judged = Reach::of(part).check(*moment);
        judged.map_err(|error| cut_failure(ShardId(part.shard), &error))?;
    }
    Ok(())
}

/// Opens an archive, which must be of the same engine.
fn open_archive(place: &str, metadata: Metadata) -> Result<Box<dyn Depot>, Failure> {
    let archive = depots::open(place)?;
    depots::refuse_backup(&*archive)?;
    let mut text = String::new();
    let from = archive.get(COPIED_METADATA_FILE);
    let from = from.map_err(|error| match error {
        DepotError::Missing { .. } => Failure::new(Exit::Foreign, format!("{error}: it is no archive")),
        error => depots::failure(&error),
    })?;
    from.take(METADATA_BYTES_MAX).read_to_string(&mut text)?;
    let theirs = Metadata::parse(Path::new(place), &text).map_err(|error| directory::open_failure(&error))?;
    if theirs.engine == metadata.engine {
        return Ok(archive);
    }
    let (theirs, ours) = (theirs.engine, metadata.engine);
    let message = format!(
        "{place} is the archive of engine {theirs}, the backup is of engine {ours}; give the right one"
    );
    Err(Failure::new(Exit::Foreign, message))
}

/// Brings a shard up to the last record of the archive, and says which that is. The archive cannot end before the backup does.
fn extend(
    archive: &dyn Depot,
    metadata: Metadata,
    part: &ShardPart,
    restoring: &RestoringDirectory,
) -> Result<Seq, Failure> {
    let shard = ShardId(part.shard);
    backup::extend(archive, shard, restoring.path()).map_err(|error| depots::fetch_failure(&error))?;
    let path = restoring.shard_path(shard);
    let recovered =
        verify::replay_at(&path, metadata, shard, Begin::Oldest, std::io::stderr().is_terminal())?;
    let found = recovered.report().last_seq;
    if recovered.report().torn.is_some() {
        // What is archived was complete: nothing of it can be what a crash leaves behind.
        let message = format!(
            "shard {shard}: {} is damaged behind seq {found}; do not use this archive",
            archive.place()
        );
        return Err(Failure::new(Exit::Corrupt, message));
    }
    if found >= Seq(part.last_seq) {
        return Ok(found);
    }
    let (place, last) = (archive.place(), part.last_seq);
    let message = format!(
        "shard {shard}: with {place} the log ends at seq {found}, the backup alone has {last}: do not use this archive"
    );
    Err(Failure::new(Exit::Corrupt, message))
}

/// What the backup's engine is; read and compared with the manifest before anything is made.
fn metadata_of(depot: &dyn Depot, manifest: &Manifest) -> Result<Metadata, Failure> {
    let place = depot.place();
    let corrupt = |what: &str| Failure::new(Exit::Corrupt, format!("{place}: {what}; take another backup"));
    if manifest.log_format > wal::format::VERSION {
        let (theirs, ours) = (manifest.log_format, wal::format::VERSION);
        let message = format!(
            "{place} holds logs of format {theirs}, this program reads up to {ours}; run the newer program"
        );
        return Err(Failure::new(Exit::Newer, message));
    }
    let part = manifest.files.iter().find(|part| part.name == COPIED_METADATA_FILE);
    let part: &FilePart =
        part.ok_or_else(|| corrupt(&format!("the manifest has no {COPIED_METADATA_FILE}")))?;
    let bytes = backup::contents(depot, part).map_err(|error| depots::fetch_failure(&error))?;
    let text =
        String::from_utf8(bytes).map_err(|_| corrupt(&format!("{COPIED_METADATA_FILE} is no text")))?;
    let metadata =
        Metadata::parse(Path::new(&place), &text).map_err(|error| directory::open_failure(&error))?;
    let is_same = metadata.engine.to_string() == manifest.engine
        && usize::from(metadata.shards) == manifest.shards.len();
    if is_same { Ok(metadata) } else { Err(corrupt("manifest and metadata speak of different engines")) }
}

/// One moment for each shard.
fn moments(untils: &[Until], shards: u16) -> Result<Vec<Moment>, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let mut moments = vec![None; usize::from(shards)];
    for until in untils {
        let chosen: Vec<usize> = match until.shard {
            Some(shard) if shard >= shards => {
                return Err(usage(format!("no shard {shard}: there are {shards}, counted from 0")));
            }
            Some(shard) => vec![usize::from(shard)],
            None if shards > 1 && matches!(until.moment, Moment::Seq(_)) => {
                return Err(usage(format!(
                    "a seq is of one shard, and there are {shards}: write 0:SEQ,1:SEQ"
                )));
            }
            None => (0..usize::from(shards)).collect(),
        };
        for shard in chosen {
            if moments[shard].replace(until.moment).is_some() {
                return Err(usage(format!("two moments for shard {shard}")));
            }
        }
    }
    let found = moments.iter().position(Option::is_none);
    match found {
        Some(shard) => {
            Err(usage(format!("no moment for shard {shard}: write 0:SEQ,1:SEQ, or a time for all")))
        }
        None => Ok(moments.into_iter().flatten().collect()),
    }
}

/// Replays what was put back: to the seq that it must end with, and to the hash that the backup states, where that is of the same seq.
fn replay(
    path: &Path,
    metadata: Metadata,
    shard: ShardId,
    last_seq: Seq,
    known: Option<&String>,
) -> Result<Recovered, Failure> {
    let recovered = verify::replay_at(path, metadata, shard, Begin::Oldest, std::io::stderr().is_terminal())?;
    check_end(path, recovered.report().last_seq, last_seq)?;
    let hash = hash_of(&recovered);
    match known {
        Some(known) if *known != hash => {
            let place = path.display();
            let message =
                format!("{place}: the state hash is {hash}, the backup says {known}: do not use it");
            Err(Failure::new(Exit::Corrupt, message))
        }
        _ => Ok(recovered),
    }
}

fn hash_of(recovered: &Recovered) -> String {
    format!("{:032x}", recovered.ledger().state_hash())
}

/// For whoever looks into the directory.
fn write_notice(restoring: &RestoringDirectory, depot: &dyn Depot) -> Result<(), Failure> {
    let mut file = File::create(restoring.path().join(FORENSIC_FILE))?;
    writeln!(
        file,
        "A forensic copy out of {}: how things stood at a moment. What came after it has happened all the same.\n\
         `surety verify` and `surety dump` read it, and so does `surety history` once `surety history rebuild` was run on it (with --archive\n\
         where the log begins with a snapshot). `surety serve` refuses it: engine.toml says forensic.",
        depot.place()
    )?;
    file.sync_all()?;
    Ok(())
}

fn tell(args: &Args, shards: &[(ShardId, Recovered)]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let shards: Vec<Value> =
            shards.iter().map(|(shard, recovered)| shard_json(*shard, recovered)).collect();
        let value =
            json!({ "ok": true, "to": args.to.display().to_string(), "forensic": true, "shards": shards });
        writeln!(out, "{value}")?;
        return Ok(());
    }
    for (shard, recovered) in shards {
        let report = recovered.report();
        let time = values::moment_text(report.last_time);
        writeln!(out, "shard {shard}: seq {}, {time}, state hash {}", report.last_seq, hash_of(recovered))?;
    }
    writeln!(out, "forensic copy in {}: `surety dump --data {0}`", args.to.display())?;
    Ok(())
}

fn shard_json(shard: ShardId, recovered: &Recovered) -> Value {
    let report = recovered.report();
    json!({
        "shard": shard.0,
        "seq": report.last_seq.0,
        "epoch": report.epoch.0,
        "time": values::moment_text(report.last_time),
        "state_hash": hash_of(recovered),
    })
}

fn cut_failure(shard: ShardId, error: &CutError) -> Failure {
    let exit = match error {
        CutError::Incomplete { end, complete_until } => {
            let until = values::moment_text(*complete_until);
            let message = format!(
                "shard {shard}: the copy ends at seq {end}, and what was decided after {until} may be missing from it; ask for seq {end} if its end is wanted, or take a newer backup"
            );
            return Failure::new(Exit::Usage, message);
        }
        CutError::TooEarly(_) | CutError::TooLate(_) => Exit::Usage,
        CutError::Tail(TailError::Rot { .. } | TailError::Removed { .. }) => Exit::Corrupt,
        CutError::Storage(_) | CutError::Tail(TailError::Io(_)) => Exit::Failure,
    };
    Failure::caused(exit, format!("shard {shard}"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(shard: Option<u16>, seq: u64) -> Until {
        Until { shard, moment: Moment::Seq(Seq(seq)) }
    }

    #[test]
    fn moments_are_read_as_people_write_them() {
        assert_eq!(until("12"), Ok(seq(None, 12)));
        assert_eq!(until("3:12"), Ok(seq(Some(3), 12)));
        let time = Moment::Time(Time::from_secs(1));
        assert_eq!(until("1970-01-01T00:00:01Z"), Ok(Until { shard: None, moment: time }));
        for bad in ["", "x", "1:", ":1", "1:2:3", "1970-01-01", "70000:1"] {
            assert!(until(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_shard_gets_one_moment() {
        let of = |untils: &[Until], shards| moments(untils, shards).map_err(|failure| failure.to_string());
        assert_eq!(of(&[seq(None, 5)], 1).unwrap(), [Moment::Seq(Seq(5))]);
        assert_eq!(
            of(&[seq(Some(1), 5), seq(Some(0), 6)], 2).unwrap(),
            [Moment::Seq(Seq(6)), Moment::Seq(Seq(5))]
        );
        let time = Until { shard: None, moment: Moment::Time(Time(7)) };
        assert_eq!(of(&[time], 2).unwrap(), [Moment::Time(Time(7)); 2]);
        for (untils, named) in [
            (&[seq(None, 5)][..], "of one shard"),
            (&[seq(Some(0), 5)], "shard 1"),
            (&[seq(Some(2), 5)], "no shard 2"),
            (&[time, seq(Some(1), 5)], "two moments for shard 1"),
        ] {
            assert!(of(untils, 2).unwrap_err().contains(named), "{named}");
        }
    }
}
