//! The command `rot`: bytes flip, sectors and blocks are lost, swapped, doubled or come from elsewhere. What was durable is
//! there, or the shard refuses to start; it never starts with less.

use std::collections::BTreeMap;

use engine::{Begin, Config, Durability};
use surety_protocol::Seq;
use wal::{Anchor, FileName, Recovery};

use super::disk::Disk;
use super::life::{Life, Shape, config};
use crate::random::Random;

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

/// Damages durable data in every way, one damage at a time
///
/// Example: simulator rot --json
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Of so many flipped bytes one is tried; 1 is every byte
    #[arg(long, default_value_t = 1)]
    stride: usize,
    /// Threads; 0 takes as many as there are cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print nothing but one JSON object
    #[arg(long)]
    json: bool,
}

/// What came of one kind of damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Damages tried.
    pub tried: u64,
    /// Of these, damages of what was durable.
    pub durable: u64,
    /// The shard refused to start.
    pub refused: u64,
    /// It started with the whole history: the damage was in nothing that counts, or there was another copy.
    pub whole: u64,
    /// It started without the last block, which nothing proves: no guard ring, no seal.
    pub unproven_lost: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.tried += other.tried;
        self.durable += other.durable;
        self.refused += other.refused;
        self.whole += other.whole;
        self.unproven_lost += other.unproven_lost;
    }
}

#[derive(Debug, serde::Serialize)]
struct Report {
    ok: bool,
    command: &'static str,
    stride: usize,
    log_bytes: usize,
    tried: u64,
    damaged_durable: u64,
    detected_percent: f64,
    tallies: BTreeMap<String, Tally>,
    failures: Vec<String>,
}

/// Runs the command; false if anything did not hold.
#[must_use]
pub fn run(args: &Args) -> bool {
    let threads = super::threads(args.threads);
    let (tallies, failures, log_bytes) = sweep(args.stride.max(1), threads);
    let sum = |of: fn(&Tally) -> u64| total(&tallies, of);
    let (durable, missed) = (sum(|tally| tally.durable), failures.len() as u64);
    let report = Report {
        ok: failures.is_empty() && durable > 0,
        command: "rot",
        stride: args.stride.max(1),
        log_bytes,
        tried: sum(|tally| tally.tried),
        damaged_durable: durable,
        detected_percent: 100.0 * durable.saturating_sub(missed) as f64 / durable.max(1) as f64,
        tallies,
        failures,
    };
    if !args.json {
        for (name, tally) in &report.tallies {
            println!("{name:40} {tally:?}");
        }
        report.failures.iter().take(20).for_each(|failure| println!("FAILED {failure}"));
    }
    crate::report::print(&report);
    report.ok
}

/// A disk that was left behind, and what is on it.
struct Left {
    name: &'static str,
    config: Config,
    disk: Disk,
    /// The state hash of all that is there.
    state: u128,
    last_seq: Seq,
    /// Of each block: file, place, end, and whether something else proves that it was durable.
    blocks: Vec<(FileName, usize, usize, bool)>,
    files: BTreeMap<FileName, Vec<u8>>,
}

/// One damage.
#[derive(Clone, Debug)]
enum Damage {
    Flip { file: FileName, offset: usize },
    Put { file: FileName, offset: usize, bytes: Vec<u8>, how: &'static str },
    Swap { file: FileName, one: usize, other: usize, length: usize },
}

impl Damage {
    fn kind(&self) -> String {
        let file = |file: &FileName| match file {
            FileName::Segment { .. } => "log",
            FileName::Reserve { .. } => "reserve",
            FileName::Guard => "guard ring",
            FileName::Snapshot { .. } | FileName::SnapshotTemp { .. } => "snapshot",
        };
        match self {
            Self::Flip { file: name, .. } => format!("{}, byte flipped", file(name)),
            Self::Put { file: name, bytes, how, .. } => {
                format!("{}, {} bytes {how}", file(name), bytes.len())
            }
            Self::Swap { file: name, length, .. } => format!("{}, {length} bytes swapped", file(name)),
        }
    }

    /// What is written where.
    fn writes(&self, left: &Left) -> Vec<(FileName, usize, Vec<u8>)> {
        match self {
            Self::Flip { file, offset } => {
                // A mask that differs from byte to byte, so that all bits have their turn.
                vec![(*file, *offset, vec![left.files[file][*offset] ^ 1 << (offset % 8)])]
            }
            Self::Put { file, offset, bytes, .. } => vec![(*file, *offset, bytes.clone())],
            Self::Swap { file, one, other, length } => {
                let bytes = |at: usize| left.files[file][at..at + length].to_vec();
                vec![(*file, *one, bytes(*other)), (*file, *other, bytes(*one))]
            }
        }
    }
}

/// What a damage touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touched {
    /// Nothing changes at all.
    Nothing,
    /// What no record depends on: zeros behind the log, a seal, a ring, a snapshot, a reserve.
    Spare,
    /// The last block, with nothing to prove it.
    Unproven,
    /// A block that is known to have been durable.
    Durable,
}

impl Left {
    fn new(name: &'static str, shape: &Shape, seed: u64) -> Self {
        let mut life = Life::new(shape, seed, Disk::new());
        let ended = life.run(shape);
        assert!(ended.is_ok(), "a life without faults: {ended:?}");
        Self::of(name, config(shape, seed), life.disk.crash_keeping_all())
    }

    fn of(name: &'static str, config: Config, disk: Disk) -> Self {
        let mut disk = disk;
        let recovered = engine::recover(config, &mut disk, Begin::Snapshot, |_| {}).expect("a sound disk");
        let (state, last_seq) = (recovered.ledger().state_hash(), recovered.report().last_seq);
        let names = wal::Storage::list(&disk).expect("a sound disk");
        let files: BTreeMap<FileName, Vec<u8>> =
            names.iter().filter_map(|name| Some((*name, disk.bytes(*name)?))).collect();
        let blocks = read_blocks(config, &mut disk);
        Self { name, config, disk, state, last_seq, blocks, files }
    }

    fn segments(&self) -> Vec<FileName> {
        self.files.keys().copied().filter(|name| matches!(name, FileName::Segment { .. })).collect()
    }

    fn touched(&self, writes: &[(FileName, usize, Vec<u8>)]) -> Touched {
        let mut touched = Touched::Nothing;
        for (file, offset, bytes) in writes {
            let before = &self.files[file][*offset..offset + bytes.len()];
            if before == bytes {
                continue;
            }
            let of_block = |(name, from, to, is_proven): &(FileName, usize, usize, bool)| {
                let (from, to) = ((*from).max(*offset), (*to).min(offset + bytes.len()));
                let differs = name == file
                    && from < to
                    && before[from - offset..to - offset] != bytes[from - offset..to - offset];
                differs.then_some(*is_proven)
            };
            let hit: Vec<bool> = self.blocks.iter().filter_map(of_block).collect();
            let now = match (hit.iter().any(|is_proven| *is_proven), hit.is_empty()) {
                (true, _) => Touched::Durable,
                (false, false) => Touched::Unproven,
                (false, true) => Touched::Spare,
            };
            touched = match (touched, now) {
                (Touched::Durable, _) | (_, Touched::Durable) => Touched::Durable,
                (Touched::Unproven, _) | (_, Touched::Unproven) => Touched::Unproven,
                _ => Touched::Spare,
            };
        }
        touched
    }

    /// Does the damage and starts.
    fn check(&self, damage: &Damage, tally: &mut Tally) -> Result<(), String> {
        let writes = damage.writes(self);
        let touched = self.touched(&writes);
        if touched == Touched::Nothing {
            return Ok(());
        }
        let mut disk = self.disk.clone();
        for (file, offset, bytes) in &writes {
            disk.overwrite(*file, *offset, bytes);
        }
        tally.tried += 1;
        tally.durable += u64::from(touched == Touched::Durable);
        let Ok(recovered) = engine::recover(self.config, &mut disk, Begin::Snapshot, |_| {}) else {
            tally.refused += 1;
            return Ok(());
        };
        let is_whole =
            recovered.report().last_seq == self.last_seq && recovered.ledger().state_hash() == self.state;
        let found = recovered.report().last_seq.0;
        match (touched, is_whole) {
            // Before the snapshot that was begun with nobody looks, and nothing of the state depends on it.
            (Touched::Durable, true) if self.is_before_snapshot(&writes, &recovered) => tally.whole += 1,
            (Touched::Durable, _) => {
                return Err(format!("not noticed, found seq {found} of {}", self.last_seq.0));
            }
            (_, true) => tally.whole += 1,
            (Touched::Unproven, false) if found < self.last_seq.0 => tally.unproven_lost += 1,
            (_, false) => return Err(format!("another history, seq {found} of {}", self.last_seq.0)),
        }
        Ok(())
    }

    fn is_before_snapshot(
        &self,
        writes: &[(FileName, usize, Vec<u8>)],
        recovered: &engine::Recovered,
    ) -> bool {
        let Some(snapshot) = recovered.report().snapshot else { return false };
        // Reading begins with the segment that holds the snapshot's record.
        let begin = self
            .segments()
            .into_iter()
            .rev()
            .find(|name| matches!(name, FileName::Segment { first_seq } if *first_seq <= snapshot));
        writes.iter().all(|(file, ..)| Some(*file) < begin)
    }
}

fn read_blocks(config: Config, disk: &mut Disk) -> Vec<(FileName, usize, usize, bool)> {
    let first = wal::list_segments(disk).expect("a sound disk").first().map_or(Seq(1), |span| span.first_seq);
    // Any hash will do for an anchor inside the first block; the first seq of a segment never ends one.
    let anchor = if first == Seq(1) { Anchor::GENESIS } else { Anchor { seq: first, chain: [0; 32] } };
    let mut recovery = Recovery::begin(disk, config.identity(), anchor).expect("a sound disk");
    let mut blocks = Vec::new();
    let mut headers = Vec::new();
    while let Some(block) = recovery.next_block(disk).expect("a sound log") {
        let from = usize::try_from(block.header.offset).expect("a small log");
        blocks.push((block.file, from, from + block.header.block_bytes(), false));
        headers.push(block.header);
    }
    let is_guarded = config.guard && config.durability == Durability::Fsync;
    let proven = headers.iter().map(|header| header.durable_block).max().unwrap_or(0);
    for (block, header) in blocks.iter_mut().zip(&headers) {
        block.3 = is_guarded || header.number <= proven;
    }
    if !is_guarded && headers.last().is_some_and(|header| header.kind == wal::Kind::Seal) {
        // It holds nothing that could be lost.
        blocks.pop();
    }
    blocks
}

/// The disks that are damaged. Each thread makes them anew: they are the same.
fn lefts() -> Vec<Left> {
    let shape = Shape {
        durability: Durability::Fsync,
        guard: true,
        blocks: 45,
        requests_max: 24,
        snapshot_every: 0,
        restart_every: 20,
        cut_from: 0,
    };
    let large = Shape { blocks: 170, requests_max: 12, restart_every: 50, ..shape };
    vec![
        Left::new("a log of one segment, guarded", &shape, 1),
        Left::new("a log of one segment, sealed", &Shape { guard: false, blocks: 38, ..shape }, 2),
        without_seal(Left::new(
            "a log of one segment, its end unproven",
            &Shape { guard: false, ..shape },
            3,
        )),
        Left::new("a log of several segments, guarded", &large, 4),
        Left::new("os mode", &Shape { durability: Durability::Os, ..large }, 5),
        Left::new("snapshots and retention", &Shape { snapshot_every: 31, ..large }, 6),
    ]
}

/// The same disk as if the power had gone before the seal.
fn without_seal(left: Left) -> Left {
    let mut disk = left.disk.clone();
    let Some((file, _, end, _)) = left.blocks.last().copied() else { return left };
    disk.overwrite(file, end, &[0; PAGE_BYTES]);
    Left::of(left.name, left.config, disk)
}

/// All damages of one disk.
fn damages(left: &Left, stranger: &Left, stride: usize) -> Vec<Damage> {
    let mut damages = Vec::new();
    let is_small = left.segments().len() == 1;
    for (file, bytes) in &left.files {
        let step = match file {
            FileName::Segment { .. } if is_small => stride,
            FileName::Segment { .. } => 97 * stride,
            FileName::Guard | FileName::Snapshot { .. } if left.name.starts_with("snapshots") => 3 * stride,
            FileName::Guard => 5 * stride,
            _ => 4096,
        };
        damages.extend((0..bytes.len()).step_by(step).map(|offset| Damage::Flip { file: *file, offset }));
    }
    let mut random = Random::new(left.last_seq.0);
    for file in left.segments() {
        for unit in [SECTOR_BYTES, PAGE_BYTES] {
            damages.extend(of_units(left, stranger, file, unit, stride, &mut random));
        }
    }
    damages
}

/// A sector or block lost, swapped, doubled, or recycled from another place.
fn of_units(
    left: &Left,
    stranger: &Left,
    file: FileName,
    unit: usize,
    stride: usize,
    random: &mut Random,
) -> Vec<Damage> {
    let bytes = &left.files[&file];
    let units = bytes.len() / unit;
    let put = |offset, bytes: &[u8], how| Damage::Put { file, offset, bytes: bytes.to_vec(), how };
    let mut damages = Vec::new();
    let step = if left.segments().len() == 1 { 1 } else { 3 };
    for at in (0..units).step_by(step * stride).map(|at| at * unit) {
        let other = random.index(units) * unit;
        damages.push(put(at, &vec![0; unit], "lost"));
        damages.push(put(at, &bytes[other..other + unit], "doubled"));
        damages.push(put(at, &vec![0xa5; unit], "of garbage"));
        if at + 2 * unit <= bytes.len() {
            damages.push(put(at + unit, &bytes[at..at + unit], "doubled onto the next"));
            damages.push(Damage::Swap { file, one: at, other: at + unit, length: unit });
        }
        damages.push(Damage::Swap { file, one: at, other, length: unit });
        if let Some(elsewhere) = left.files.iter().find(|(name, _)| **name != file).map(|(_, bytes)| bytes)
            && at + unit <= elsewhere.len()
        {
            damages.push(put(at, &elsewhere[at..at + unit], "from another file"));
        }
        let foreign = &stranger.files[&stranger.segments()[0]];
        if at + unit <= foreign.len() {
            damages.push(put(at, &foreign[at..at + unit], "from another engine"));
        }
        // An earlier epoch of the same log: its first blocks, where later ones should be.
        let early = at % (16 * PAGE_BYTES).min(bytes.len() - unit + 1) / unit * unit;
        damages.push(put(at, &bytes[early..early + unit], "from an earlier epoch"));
    }
    damages
}

fn sweep(stride: usize, threads: usize) -> (BTreeMap<String, Tally>, Vec<String>, usize) {
    let share = |thread: usize| {
        let (mut tallies, mut failures) = (BTreeMap::<String, Tally>::new(), Vec::new());
        let lefts = lefts();
        for (index, left) in lefts.iter().enumerate() {
            let stranger = &lefts[(index + 1) % lefts.len()];
            assert_ne!(left.config.engine, stranger.config.engine);
            let all = damages(left, stranger, stride);
            for damage in all.iter().skip(thread).step_by(threads) {
                let mut tally = Tally::default();
                let checked = left.check(damage, &mut tally);
                for name in [damage.kind(), format!("all of {}", left.name)] {
                    tallies.entry(name).or_default().add(tally);
                }
                if let Err(failure) = checked {
                    failures.push(format!("{}: {}: {failure}", left.name, told(damage)));
                }
            }
        }
        assert!(lefts[..3].iter().all(|left| left.segments().len() == 1), "as they are named");
        let log_bytes = lefts[0].files[&lefts[0].segments()[0]].len();
        (tallies, failures, log_bytes)
    };
    let mut total = (BTreeMap::<String, Tally>::new(), Vec::new(), 0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || share(thread))).collect();
        for worker in workers {
            let (tallies, failures, log_bytes) = worker
                .join()
                .unwrap_or_else(|_| (BTreeMap::new(), vec!["a panic; its place is told above".into()], 0));
            for (name, more) in tallies {
                total.0.entry(name).or_default().add(more);
            }
            total.1.extend(failures);
            total.2 = log_bytes.max(total.2);
        }
    });
    total
}

/// The sum over all disks.
fn total(tallies: &BTreeMap<String, Tally>, of: fn(&Tally) -> u64) -> u64 {
    tallies.iter().filter(|(name, _)| name.starts_with("all of ")).map(|(_, tally)| of(tally)).sum()
}

/// A damage without its bytes.
fn told(damage: &Damage) -> String {
    match damage {
        Damage::Flip { file, offset } => format!("{file} byte {offset} flipped"),
        Damage::Put { file, offset, bytes, how } => {
            format!("{file} at {offset}: {} bytes {how}", bytes.len())
        }
        Damage::Swap { file, one, other, length } => {
            format!("{file}: {length} bytes at {one} and {other} swapped")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rot_of_what_was_durable_is_always_refused() {
        // A prime; the command flips every byte.
        let (tallies, failures, log_bytes) = sweep(211, 2);
        assert_eq!(failures, Vec::<String>::new());
        assert_eq!(log_bytes, 256 * 1024);
        let sum = |of: fn(&Tally) -> u64| total(&tallies, of);
        assert!(sum(|tally| tally.durable) > 1000 && sum(|tally| tally.refused) > 1000, "{tallies:?}");
        assert!(sum(|tally| tally.unproven_lost) > 0, "the known gap is told, not hidden");
    }
}
