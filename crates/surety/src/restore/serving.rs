//! A restore to serve from again: what came after the backup and its archive is lost, and an operator accepts it by saying where that
//! begins and ends.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use backup::{Moment, ShardPart};
use engine::clock::{Clock, ClockGap, Readings};
use engine::{AcceptedLoss, Engine, Recovered};
use serde_json::{Value, json};
use storage::{
    COPIED_METADATA_FILE, FileStorage, IoMode, LOCK_FILE, RESTORING_FILE, RestoringDirectory, StorageError,
};
use surety_protocol::{Epoch, Seq, ShardId, Time};
use wal::{Identity, Storage, TailError, TailReader};

use super::{Args, Source, extend, hash_of, moments, replay};
use crate::exit::{Exit, Failure};
use crate::{depots, directory, init, values};

/// How far the wall clock may be from the last record without a word.
const CLOCK_GAP_MAX: Duration = Duration::from_secs(24 * 3600);

/// One shard that was put back.
struct Restored {
    shard: ShardId,
    recovered: Recovered,
    /// Epochs that began behind the end of the backup, in the archive: its notes cannot have them.
    archived: Vec<(Epoch, Seq)>,
}

/// One shard that can be served again.
struct Opened {
    shard: ShardId,
    kept: Seq,
    /// When the last record was decided that is kept.
    kept_time: Time,
    epoch: Epoch,
    /// Of what was kept.
    state_hash: String,
    archived: Vec<(Epoch, Seq)>,
}

/// Further than this ahead of the clock nothing can have been lost.
const LOST_AHEAD_MAX: Time = Time::from_secs(24 * 3600);

/// Makes the directory, or says what it would lose.
pub(super) fn restore(args: &Args, source: &Source) -> Result<(), Failure> {
    if source.archive.is_none() && !args.no_archive {
        let message = "give the engine's archive with --archive: what is only there would be lost as well; \
                       if there is none, say so with --no-archive. Nothing was made";
        return Err(Failure::new(Exit::Usage, message));
    }
    let stated = match &args.accept_loss_after[..] {
        [] => None,
        stated => Some(moments(stated, source.metadata.shards)?),
    };
    if source.archive.is_none() {
        // Nothing has to be read to know it.
        let ends: Vec<End> =
            source.manifest.shards.iter().map(|part| (Seq(part.last_seq), Time(part.time))).collect();
        check_stated(stated.as_deref(), &ends)?;
    }
    if stated.is_some() {
        check_at_once(args, source)?;
    }
    let made = |error| init::failure(&server::InitError::Directory(error));
    let was_there = args.to.exists();
    let restoring = RestoringDirectory::begin(&args.to).map_err(made)?;
    let (opened, now) =
        make(args, source, restoring, stated.as_deref(), was_there).map_err(|failure| match failure {
            // Nothing is left.
            Unmade::Refused(refusal) => refusal,
            Unmade::Half(failure) => {
                let to = args.to.display();
                failure.with(&format!(
                    "; {to} is incomplete, and nothing serves it: remove it before you try again"
                ))
            }
        })?;
    tell(args, &opened, now)
}

/// What the records of the backup itself refuse already: everything would be fetched and replayed for nothing.
fn check_at_once(args: &Args, source: &Source) -> Result<(), Failure> {
    let ends: Vec<End> =
        source.manifest.shards.iter().map(|part| (Seq(part.last_seq), Time(part.time))).collect();
    let wall = server::readings().wall;
    let last = last_time(&ends);
    if wall < last {
        return Err(clock_behind(wall, last));
    }
    accepted(args, &ends, wall).map(|_| ())
}

/// Why no directory was made.
enum Unmade {
    /// It would be another one than was asked for; what was fetched was taken away again.
    Refused(Failure),
    /// It failed on the way, and what there was by then is still there.
    Half(Failure),
}

impl From<Failure> for Unmade {
    fn from(failure: Failure) -> Self {
        Self::Half(failure)
    }
}

fn make(
    args: &Args,
    source: &Source,
    restoring: RestoringDirectory,
    stated: Option<&[Moment]>,
    was_there: bool,
) -> Result<(Vec<Opened>, Time), Unmade> {
    let made = |error| init::failure(&server::InitError::Directory(error));
    let restored = put_back(source, &restoring)?;
    let reports = restored.iter().map(|shard| shard.recovered.report());
    let ends: Vec<End> = reports.map(|report| (report.last_seq, report.last_time)).collect();
    let agreed = check_losses(&restored).and_then(|()| {
        check_stated(stated, &ends)?;
        let now = now(args, &ends, server::readings())?;
        Ok((now, accepted(args, &ends, now)?))
    });
    let (now, accepted) = match agreed {
        Ok(agreed) => agreed,
        Err(refusal) => {
            drop(restored);
            return match take_away(source, &restoring, was_there) {
                Ok(()) => Err(Unmade::Refused(refusal)),
                Err(_) => Err(Unmade::Half(refusal)),
            };
        }
    };
    let mut opened = Vec::new();
    for shard in restored {
        opened.push(open(shard, &restoring, now, accepted)?);
    }
    let notes = opened.iter().map(|shard| server::RestoredEpochs {
        archived: shard.archived.clone(),
        opened: (shard.epoch, shard.kept.next()),
    });
    let notes: Vec<server::RestoredEpochs> = notes.collect();
    server::furnish_restored(restoring.path(), &notes).map_err(unfurnished)?;
    restoring.finish(source.metadata).map_err(made)?;
    Ok((opened, now))
}

/// Takes away what was fetched, and nothing that somebody else has put there meanwhile; the directory itself only if we made it. The
/// mark goes last: what is left by a cut is refused by everybody.
fn take_away(source: &Source, restoring: &RestoringDirectory, was_there: bool) -> std::io::Result<()> {
    let path = restoring.path();
    let mut directories = BTreeSet::new();
    for part in &source.manifest.files {
        remove(std::fs::remove_file(path.join(&part.name)))?;
        directories.extend(Path::new(&part.name).parent().filter(|above| !above.as_os_str().is_empty()));
    }
    for part in &source.manifest.shards {
        remove(std::fs::remove_dir_all(restoring.shard_path(ShardId(part.shard))))?;
    }
    for directory in directories.iter().rev() {
        remove(std::fs::remove_dir(path.join(directory)))?;
    }
    for file in [LOCK_FILE, RESTORING_FILE] {
        remove(std::fs::remove_file(path.join(file)))?;
    }
    if was_there { Ok(()) } else { std::fs::remove_dir(path) }
}

/// What is not there need not be taken away.
fn remove(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Until when what is lost can have been decided, and the name of the life that begins.
fn accepted(args: &Args, ends: &[End], now: Time) -> Result<AcceptedLoss, Failure> {
    let usage = |message: String| Err(Failure::new(Exit::Usage, message));
    let kept = last_time(ends);
    let Some(until) = args.lost_until else {
        return usage(
            "say with --lost-until when the engine that is lost can last have decided anything; \
             if you do not know, the present moment and by how much its clock was ahead of this one. Nothing was made"
                .to_owned(),
        );
    };
    let (stated, kept_text, now_text) =
        (values::moment_text(until), values::moment_text(kept), values::moment_text(now));
    if until < kept {
        return usage(format!(
            "--lost-until {stated} lies before the last record that is kept, of {kept_text}: the engine has decided later than that. \
             If it did not run then, its clock was ahead of yours: the moment is meant by the engine's clock, as replies and records \
             have it, so add by how much it was ahead, to the present moment too. Nothing was made"
        ));
    }
    if until > now.plus(LOST_AHEAD_MAX) {
        return usage(format!(
            "--lost-until {stated} lies more than a day after the present moment, {now_text}: nothing new would be accepted before \
             then. Nothing was made"
        ));
    }
    let mut life = [0; 16];
    getrandom::fill(&mut life).map_err(|error| {
        Failure::new(Exit::Failure, format!("no randomness to name a life with: {error}"))
    })?;
    Ok(AcceptedLoss { life: u128::from_le_bytes(life), until })
}

/// Nobody is asked to accept what cannot be. How many losses a log has is known when it was read.
fn check_losses(restored: &[Restored]) -> Result<(), Failure> {
    restored.iter().try_for_each(|Restored { shard, recovered, .. }| {
        let refused =
            |error| Failure::new(Exit::Failure, format!("shard {shard}: {error}. Nothing was made"));
        recovered.ledger().check_another_loss().map_err(refused)
    })
}

/// The last record that a shard keeps, and when it was decided.
type End = (Seq, Time);

/// The operator must know what is lost: no number, or one that was guessed, is refused with the right one.
fn check_stated(stated: Option<&[Moment]>, ends: &[End]) -> Result<(), Failure> {
    let is_end = |(stated, (last_seq, _)): (&Moment, &End)| *stated == Moment::Seq(*last_seq);
    if stated.is_some_and(|stated| stated.iter().zip(ends).all(is_end)) {
        return Ok(());
    }
    let kept = |(shard, (last_seq, time)): (usize, &End)| {
        let time = values::moment_text(*time);
        format!(
            "shard {shard}: kept to seq {last_seq}, {time}; what was acknowledged after that until now is lost"
        )
    };
    let kept: Vec<String> = ends.iter().enumerate().map(kept).collect();
    let option: Vec<String> =
        ends.iter().enumerate().map(|(shard, (last_seq, _))| format!("{shard}:{last_seq}")).collect();
    let why = if stated.is_some() { "that is not where it ends" } else { "a loss has to be accepted" };
    let message = format!(
        "{why}. {}. To serve all the same: --accept-loss-after {}; to look only: --until. Nothing was made",
        kept.join(". "),
        option.join(",")
    );
    Err(Failure::new(Exit::Usage, message))
}

/// Fetches everything, and replays it.
fn put_back(source: &Source, restoring: &RestoringDirectory) -> Result<Vec<Restored>, Failure> {
    let Source { depot, manifest, metadata, archive } = source;
    // What the directory is stands in its metadata, which comes last.
    for part in manifest.files.iter().filter(|part| part.name != COPIED_METADATA_FILE) {
        backup::fetch(&**depot, part, restoring.path()).map_err(|error| depots::fetch_failure(&error))?;
    }
    let mut shards = Vec::new();
    for part in &manifest.shards {
        let shard = ShardId(part.shard);
        let end = match archive {
            None => Seq(part.last_seq),
            Some(archive) => extend(&**archive, *metadata, part, restoring)?,
        };
        let known = part.state_hash.as_ref().filter(|_| end == Seq(part.last_seq));
        let path = restoring.shard_path(shard);
        let recovered = replay(&path, *metadata, shard, end, known)?;
        let identity = Identity { engine: metadata.engine, shard };
        let archived = epochs_behind(&path, identity, part, end)
            .map_err(|error| Failure::caused(Exit::Corrupt, format!("shard {shard}"), &error))?;
        shards.push(Restored { shard, recovered, archived });
    }
    Ok(shards)
}

/// The epochs that the log opens behind the end of a backup, each with its first seq.
fn epochs_behind(
    path: &Path,
    identity: Identity,
    part: &ShardPart,
    end: Seq,
) -> Result<Vec<(Epoch, Seq)>, TailError<StorageError>> {
    let (mut last, mut epochs) = (Epoch(part.epoch), Vec::new());
    let storage = FileStorage::open_read_only(path)?;
    let mut reader = TailReader::new(identity, Seq(part.last_seq).next());
    while reader.next_seq() <= end
        && let Some(block) = reader.next_block(&storage, end)?
    {
        if block.header.epoch > last {
            last = block.header.epoch;
            epochs.push((last, block.header.first_seq));
        }
    }
    Ok(epochs)
}

/// The engine's time now: that of the wall clock, which must not be behind the last record, whatever anybody says, and not far ahead
/// of it unless somebody has looked at it.
fn now(args: &Args, ends: &[End], readings: Readings) -> Result<Time, Failure> {
    let last = last_time(ends);
    if readings.wall < last {
        return Err(clock_behind(readings.wall, last));
    }
    let gap_max = if args.accept_clock { Duration::MAX } else { CLOCK_GAP_MAX };
    let clock = Clock::start(last, readings, gap_max);
    let mut clock = clock.map_err(|ClockGap { gap, is_ahead, .. }| {
        let (gap, side) = (gap.as_secs(), if is_ahead { "after" } else { "before" });
        let message = format!(
            "the wall clock reads {gap} s {side} the last record that is kept; if the clock is right, give --accept-clock as well. Nothing was made"
        );
        Failure::new(Exit::Clock, message)
    })?;
    Ok(clock.now(readings.boot).0)
}

fn last_time(ends: &[End]) -> Time {
    ends.iter().map(|(_, time)| *time).max().unwrap_or_default()
}

fn clock_behind(wall: Time, last: Time) -> Failure {
    let (wall, last) = (values::moment_text(wall), values::moment_text(last));
    let message = format!(
        "the wall clock reads {wall}, the last record that is kept is of {last}: set the clock right, then try again. Nothing was made"
    );
    Failure::new(Exit::Clock, message)
}

/// Opens the life that goes on from here, and closes it again, all of it on the disk: its start, and what was lost. No time passes.
fn open(
    restored: Restored,
    restoring: &RestoringDirectory,
    now: Time,
    accepted: AcceptedLoss,
) -> Result<Opened, Failure> {
    let Restored { shard, recovered, archived } = restored;
    let path = restoring.shard_path(shard);
    let noted =
        server::last_noted_epoch(restoring.path(), shard).map_err(|error| unfurnished(error.into()))?;
    let (kept, kept_time) = (recovered.report().last_seq, recovered.report().last_time);
    let state_hash = hash_of(&recovered);
    let mut storage =
        FileStorage::open(&path, IoMode::Sync).map_err(|error| directory::storage_failure(&error))?;
    let engine = recovered.open_after_loss(&mut storage, now, accepted, noted);
    let mut engine = engine.map_err(|error| Failure::caused(Exit::Failure, path.display(), &error))?;
    engine.stop(now);
    write_all(&mut engine, &mut storage, now).map_err(|error| directory::storage_failure(&error))?;
    Ok(Opened { shard, kept, kept_time, epoch: engine.epoch(), state_hash, archived })
}

fn unfurnished(error: server::RestoredError) -> Failure {
    Failure::caused(Exit::Failure, "the restored directory cannot be furnished", &error)
}

fn write_all(
    engine: &mut Engine,
    storage: &mut FileStorage,
    now: Time,
) -> Result<(), <FileStorage as Storage>::Error> {
    while !engine.is_stopped() {
        if let Some(write) = engine.poll_write(now) {
            write.perform(storage)?;
            engine.on_written(write);
        } else if let Some((name, bytes)) = engine.wants_reserve() {
            wal::create_reserve(storage, name, bytes)?;
            engine.reserve_created(name);
        }
    }
    Ok(())
}

fn tell(args: &Args, opened: &[Opened], now: Time) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let to = args.to.display();
    if args.json {
        let shards: Vec<Value> = opened.iter().map(shard_json).collect();
        let value = json!({ "ok": true, "to": to.to_string(), "forensic": false, "shards": shards });
        writeln!(out, "{value}")?;
        return Ok(());
    }
    for Opened { shard, kept, kept_time, epoch, state_hash, .. } in opened {
        let time = values::moment_text(*kept_time);
        writeln!(out, "shard {shard}: kept to seq {kept}, {time}, state hash {state_hash}, epoch {epoch}")?;
    }
    if let Some(until) = args.lost_until.filter(|until| *until > now) {
        let until = values::moment_text(until);
        writeln!(
            out,
            "until {until} nothing new is accepted, not from you either: ids up to then may be of what is lost"
        )?;
    }
    writeln!(out, "next: put the certificates into {to}/pki, then surety serve --data {to}")?;
    Ok(())
}

fn shard_json(opened: &Opened) -> Value {
    json!({
        "shard": opened.shard.0,
        "seq": opened.kept.0,
        "epoch": opened.epoch.0,
        "time": values::moment_text(opened.kept_time),
        "state_hash": opened.state_hash,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(more: &[&str]) -> Args {
        let line = ["restore", "--from", "a", "--to", "b", "--accept-loss-after", "1"];
        Line::try_parse_from([&line[..], more].concat()).expect("arguments").args
    }

    #[test]
    fn a_clock_that_is_a_day_off_needs_a_word_and_time_never_goes_back() {
        let ends = [(Seq(5), Time::from_secs(900_000)), (Seq(7), Time::from_secs(1_000_000))];
        let at = |wall: u64| Readings { wall: Time::from_secs(wall), boot: Time::from_secs(1) };
        let check =
            |more: &[&str], wall: u64| now(&args(more), &ends, at(wall)).map(|time| time.0 / 1_000_000_000);
        const DAY: u64 = 24 * 3600;
        assert_eq!(check(&[], 1_000_000 + DAY).ok(), Some(1_000_000 + DAY));
        assert_eq!(check(&[], 1_000_000).ok(), Some(1_000_000));
        let refused = check(&[], 1_000_001 + DAY).expect_err("refused").to_string();
        assert!(refused.contains("--accept-clock"), "{refused}");
        assert_eq!(check(&["--accept-clock"], 1_000_001 + DAY).ok(), Some(1_000_001 + DAY));
        // Behind it there is nothing to accept.
        for wall in [999_999, 999_999 - DAY, 1] {
            for more in [&[][..], &["--accept-clock"]] {
                let refused = check(more, wall).expect_err("refused").to_string();
                assert!(refused.contains("set the clock right"), "{refused}");
            }
        }
    }

    #[test]
    fn a_loss_ends_between_what_is_kept_and_a_day_ahead() {
        let ends = [(Seq(5), Time::from_secs(900_000)), (Seq(7), Time::from_secs(1_000_000))];
        let now = Time::from_secs(1_000_100);
        let check = |more: &[&str]| accepted(&args(more), &ends, now).map(|accepted| accepted.until);
        let until = |text: &'static str| check(&["--lost-until", text]);
        assert!(check(&[]).expect_err("refused").to_string().contains("--lost-until"));
        assert_eq!(until("1970-01-12T13:46:40Z").ok(), Some(Time::from_secs(1_000_000)));
        assert_eq!(until("1970-01-13T13:48:20Z").ok(), Some(Time::from_secs(1_086_500)));
        assert!(
            until("1970-01-12T13:46:39Z")
                .expect_err("refused")
                .to_string()
                .contains("before the last record")
        );
        assert!(until("1970-01-13T13:48:21Z").expect_err("refused").to_string().contains("a day after"));
    }

    #[test]
    fn a_loss_is_accepted_where_it_begins_and_nowhere_else() {
        let ends = [(Seq(5), Time::from_secs(1_000)), (Seq(0), Time::ZERO)];
        let right = [Moment::Seq(Seq(5)), Moment::Seq(Seq(0))];
        assert!(check_stated(Some(&right), &ends).is_ok());
        let wrong = [[Moment::Seq(Seq(4)), right[1]], [Moment::Seq(Seq(6)), right[1]], [right[0], right[0]]];
        for stated in wrong.iter().map(|stated| Some(&stated[..])).chain([None]) {
            let refused = check_stated(stated, &ends).expect_err("refused").to_string();
            for named in ["shard 0: kept to seq 5, 1970-01-01T00:16:40", "--accept-loss-after 0:5,1:0"] {
                assert!(refused.contains(named), "{refused}");
            }
        }
    }
}
