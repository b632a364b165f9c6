//! Compares the ways to make a block durable: `O_DIRECT | O_DSYNC` against buffered writes with `fdatasync`.
//!
//! `cargo run --release -p storage --example sync_modes -- [DIRECTORY] [ROUNDS]` prints the median and the 99th percentile of
//! each block size on the file system of DIRECTORY (default: the current one). The default of `--io` follows from it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use storage::{FileStorage, IoMode, StorageError};
use surety_protocol::Seq;
use wal::{FileName, PageBuffer, Storage};

const FILE: FileName = FileName::Segment { first_seq: Seq(1) };
const FILE_BYTES: u64 = 64 << 20;
const BLOCK_KIB: [usize; 7] = [4, 8, 16, 32, 64, 128, 256];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let parent = arguments.next().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let rounds = match arguments.next() {
        Some(rounds) => rounds.to_str().and_then(|rounds| rounds.parse().ok()).ok_or("ROUNDS is a number")?,
        None => 20,
    };
    let directory = parent.join(format!("sync-modes-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let measured = measure_all(&directory, rounds);
    std::fs::remove_dir_all(&directory)?;
    Ok(measured?)
}

fn measure_all(directory: &std::path::Path, rounds: usize) -> Result<(), StorageError> {
    println!("{:>8} {:>22} {:>22}", "block", "direct p50 / p99", "fdatasync p50 / p99");
    for kib in BLOCK_KIB {
        let direct = measure(directory, IoMode::Direct, kib, rounds)?;
        let sync = measure(directory, IoMode::Sync, kib, rounds)?;
        println!("{kib:>4} KiB {:>22} {:>22}", show(direct), show(sync));
    }
    Ok(())
}

/// Median and 99th percentile of the time that a durable write takes.
fn measure(
    directory: &std::path::Path,
    mode: IoMode,
    kib: usize,
    rounds: usize,
) -> Result<(Duration, Duration), StorageError> {
    let mut storage = FileStorage::open(directory, mode)?;
    storage.create(FILE, FILE_BYTES)?;
    let mut block = PageBuffer::with_pages(kib / 4);
    block.as_mut_bytes().fill(0xab);
    let length = block.as_bytes().len() as u64;
    let mut times = Vec::new();
    for round in 0..rounds.max(1) as u64 {
        let offset = round * length % FILE_BYTES;
        let begin = Instant::now();
        storage.write_synced(FILE, offset, block.as_bytes())?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}

fn show((median, high): (Duration, Duration)) -> String {
    format!("{} / {} us", median.as_micros(), high.as_micros())
}
