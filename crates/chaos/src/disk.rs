//! A full disk on a small tmpfs, and an error of a real write-back: an ext4 whose image lies on a tmpfs that is too small.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use surety_client::{Client, LockRef, LockRequest, SubmitError};
use surety_protocol::{Amount, Code, MerchantId};

use crate::bench::Bench;
use crate::engine::{PATIENCE, is_abort};
use crate::mounts::{self, Mount};
use crate::report::Report;
use crate::surety::Surety;
use crate::witness;

/// The small disk, in MiB.
const TMPFS_MIB: u64 = 256;
/// Below so much free space new locks are declined.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// Large enough that the two in reserve outlast the tenth of a second until the engine learns that there is no third, however
/// fast a tmpfs is.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Payments under way: few, a tmpfs is soon full.
const IN_FLIGHT: u32 = 8;
/// Locks that are kept to be released when there is no room for new ones.
const KEPT: usize = 64;
/// The ext4 that is larger than the tmpfs below it, in MiB.
const IMAGE_MIB: u64 = 256;
const BELOW_MIB: u64 = 24;
const SMALL_SEGMENT_BYTES: u64 = 1 << 20;

/// Runs both.
pub(crate) fn run(surety: &Surety, report: &mut Report) -> Result<()> {
    if let Some(why) = mounts::obstacle() {
        report.skip("full and failing disks", why);
        return Ok(());
    }
    full(surety, report)?;
    eprintln!("disk: full disk done, {} faults", report.faults());
    if mounts::has("mkfs.ext4") {
        write_back(surety, report)?;
        eprintln!("disk: write-back done, {} faults", report.faults());
    } else {
        report.skip("an error of a write-back", "needs mkfs.ext4 (e2fsprogs)");
    }
    Ok(())
}

/// New locks are declined while there is still room, releases go on, and locks come back with the space.
fn full(surety: &Surety, report: &mut Report) -> Result<()> {
    let home = tempfile::tempdir()?;
    let disk = Mount::tmpfs(&home.path().join("small"), TMPFS_MIB)?;
    let data = disk.path().join("data");
    surety.init(&data, 1, SEGMENT_BYTES)?;
    let mut bench = Bench::on(surety, &data, SEGMENT_BYTES)?;
    bench.in_flight = IN_FLIGHT;
    bench.serve.environment = vec![("SURETY__LOG__FREE_BYTES_MIN", FREE_BYTES_MIN.to_string())];
    let engine = bench.start()?;
    bench.load()?.wait_for(200, || Ok(false))?;
    let ballast = disk.path().join("ballast");
    let address = engine.address()?;
    let done = witness::runtime()?.block_on(async {
        let client = witness::connect(address, &data, "authorizer").await?;
        let kept = lock_some(&client, KEPT).await?;
        let (first, second) = kept.split_at(KEPT / 2);
        leave_free(&ballast, disk.path(), FREE_BYTES_MIN / 2)?;
        until(&client, true, "new locks are declined").await?;
        release_all(&client, first, "with a low disk", report).await;
        // Not a byte is left: what is in reserve has to do.
        leave_free(&ballast, disk.path(), 0)?;
        release_all(&client, second, "with a full disk", report).await;
        until(&client, true, "new locks stay declined").await?;
        report.add("storage_low", 1);
        std::fs::remove_file(&ballast)?;
        until(&client, false, "locks come back with the space").await?;
        report.add("recovered_while_running", 1);
        client.close();
        anyhow::Ok(())
    });
    done.with_context(|| bench.serve.last_words())?;
    let exit = engine.terminate()?;
    report.expect(exit == 0, || format!("SIGTERM after a full disk: exit {exit}"));
    bench.check("after a full disk", report)?;
    let engine = bench.start()?;
    let address = engine.address()?;
    witness::runtime()?.block_on(async {
        let client = witness::connect(address, &data, "authorizer").await?;
        until(&client, false, "locks after a restart").await
    })?;
    report.add("recovered_by_restart", 1);
    bench.load()?.wait_for(200, || Ok(false))?;
    bench.finish(engine, report)?;
    disk.unmount()
}

async fn lock_some(client: &Client, count: usize) -> Result<Vec<LockRef>> {
    let partition = witness::partition(0)?;
    let mut kept = Vec::new();
    for _ in 0..count {
        let reply = client.send(LockRequest::new(partition, Amount(5), MerchantId(3))).await?;
        if reply.code() != Code::Approved {
            bail!("a lock is answered {}", reply.code());
        }
        kept.push(LockRef::new(partition, reply.id));
    }
    Ok(kept)
}

async fn release_all(client: &Client, locks: &[LockRef], when: &str, report: &mut Report) {
    for lock in locks {
        match client.send(lock.release()).await {
            Ok(reply) if reply.code() == Code::Approved && reply.approved == Amount(5) => {
                report.add("released_without_space", 1);
            }
            Ok(reply) => report.fault(format!("{when} a release is answered {}", reply.code())),
            Err(error) => report.fault(format!("{when} a release is not answered: {error}")),
        }
    }
}

/// Waits until locks are declined for want of space, or no longer.
async fn until(client: &Client, is_declined: bool, what: &str) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match client.send(LockRequest::new(witness::partition(0)?, Amount(1), MerchantId(3))).await {
            Err(error) if error.refusal() == Some(Code::StorageLow) && is_declined => return Ok(()),
            Ok(reply) if reply.code() == Code::Approved && !is_declined => return Ok(()),
            Ok(_) | Err(SubmitError::NotExecuted { .. }) => {}
            Err(error) => bail!("{what}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("{what}: not within {} s", PATIENCE.as_secs())
}

/// Fills the disk until so much is left.
fn leave_free(ballast: &Path, disk: &Path, bytes: u64) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(ballast)?;
    let zeros = vec![0; 64 << 10];
    loop {
        let stat = rustix::fs::statvfs(disk)?;
        let free = stat.f_bavail * stat.f_frsize;
        let part = usize::try_from(free.saturating_sub(bytes)).unwrap_or(usize::MAX).min(zeros.len());
        if part == 0 {
            return Ok(());
        }
        match file.write(&zeros[..part]) {
            Ok(_) => {}
            // The engine may have been faster.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error).context("the ballast"),
        }
    }
}

/// The blocks of the log that the page cache holds cannot be written: the kernel finds out after `write` has returned.
fn write_back(surety: &Surety, report: &mut Report) -> Result<()> {
    let home = tempfile::tempdir()?;
    let below = Mount::tmpfs(&home.path().join("below"), BELOW_MIB)?;
    let (image, at) = (below.path().join("disk"), home.path().join("mount"));
    mounts::make_ext4(&image, IMAGE_MIB)?;
    let disk = Mount::ext4(&image, &at)?;
    let data = at.join("data");
    surety.init(&data, 1, SMALL_SEGMENT_BYTES)?;
    mounts::command("sync", &["-f", at.to_str().context("a path in UTF-8")?])?;
    let mut bench = Bench::on(surety, &data, SMALL_SEGMENT_BYTES)?;
    let mut engine = bench.start()?;
    bench.load()?.wait_for(200, || Ok(false))?;
    // The log grows until the tmpfs has no room for what the ext4 believes to have.
    match engine.wait_for_end(PATIENCE)? {
        Some(status) => {
            report.expect(is_abort(status), || {
                format!("an error of write-back: ended with {status}: {}", bench.serve.last_words())
            });
            report.add("write_back_errors", 1);
        }
        None => report.fault("the tmpfs is full, and the engine has not noticed"),
    }
    drop(engine);
    disk.unmount()?;
    below.resize(2 * IMAGE_MIB)?;
    let disk = Mount::ext4(&image, &at)?;
    bench.check("after an error of write-back", report)?;
    let engine = bench.start()?;
    bench.load()?.wait_for(200, || Ok(false))?;
    bench.finish(engine, report)?;
    disk.unmount()?;
    below.unmount()
}
