//! Power cuts: an ext4 on a loop device is shut down in the middle of a full-rate load, mounted again, and read.
//!
//! What the shutdown ioctl leaves is what the file system had sent to its device: dirty pages are lost, and so is the
//! journal that was not written. The device itself loses nothing, so a disk that lies about its cache is not tested here.

use std::time::Duration;

use anyhow::Result;

use crate::bench::Bench;
use crate::engine::is_abort;
use crate::mounts::{self, Journal, Mount};
use crate::report::Report;
use crate::surety::Surety;

/// Cuts of one file system; then a new one is made.
const CUTS_PER_DISK: u64 = 10;
/// Bytes of a disk, in MiB.
const DISK_MIB: u64 = 512;
const SEGMENT_BYTES: u64 = 1 << 20;
/// How long an engine may go on without a disk.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// Runs so many cuts.
pub(crate) fn run(surety: &Surety, rounds: u64, report: &mut Report) -> Result<()> {
    if let Some(why) = mounts::obstacle() {
        report.skip("power cuts", why);
        return Ok(());
    }
    if !mounts::has("mkfs.ext4") || !mounts::has("perl") {
        report.skip("power cuts", "need mkfs.ext4 (e2fsprogs) and perl");
        return Ok(());
    }
    let mut done = 0;
    while done < rounds && report.is_ok() {
        let cuts = CUTS_PER_DISK.min(rounds - done);
        one_disk(surety, cuts, done, report)?;
        done += cuts;
        eprintln!("power: {done} of {rounds}, {} faults", report.faults());
    }
    Ok(())
}

fn one_disk(surety: &Surety, cuts: u64, before: u64, report: &mut Report) -> Result<()> {
    let home = tempfile::tempdir()?;
    let (image, at) = (home.path().join("disk"), home.path().join("mount"));
    mounts::make_ext4(&image, DISK_MIB)?;
    let mut disk = Mount::ext4(&image, &at)?;
    let data = at.join("data");
    surety.init(&data, 1, SEGMENT_BYTES)?;
    // What was promised by a command that has ended must be there, too.
    mounts::command("sync", &["-f", at.to_str().unwrap_or(".")])?;
    let mut bench = Bench::on(surety, &data, SEGMENT_BYTES)?;
    bench.serve.environment.push(("SURETY__LOG__SNAPSHOT_RECORDS", "2000".to_owned()));
    for cut in before..before + cuts {
        bench.serve.io = if cut % 2 == 0 { "sync" } else { "direct" };
        let mut engine = bench.start()?;
        let more = 200 + report.random.below(3_000);
        bench.load()?.wait_for(more, || Ok(false))?;
        let journal = if report.random.once_in(3) { Journal::Written } else { Journal::Lost };
        disk.cut_power(journal)?;
        match engine.wait_for_end(END_PATIENCE)? {
            Some(status) => report.expect(is_abort(status), || {
                format!("without its disk the engine ended with {status}: {}", bench.serve.last_words())
            }),
            None => report.fault("without its disk the engine goes on"),
        }
        drop(engine);
        report.add("cuts", 1);
        report.add(if bench.serve.io == "sync" { "cuts_sync" } else { "cuts_direct" }, 1);
        disk.unmount()?;
        disk = Mount::ext4(&image, &at)?;
        bench.check("after a power cut", report)?;
    }
    let engine = bench.start()?;
    bench.load()?.wait_for(200, || Ok(false))?;
    bench.finish(engine, report)?;
    disk.unmount()
}
