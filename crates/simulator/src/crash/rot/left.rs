//! The disks that are damaged, what of them is known to have been durable, and what a start makes of a damage.

use std::collections::BTreeMap;

use engine::{Begin, Config, Durability};
use surety_protocol::Seq;
use wal::{Anchor, FileName, Recovery};

use super::Tally;
use super::damage::Damage;
use crate::crash::disk::Disk;
use crate::crash::life::{Life, Shape, config};

const PAGE_BYTES: usize = 4096;

/// A disk that was left behind, and what is on it.
pub(super) struct Left {
    pub(super) name: &'static str,
    pub(super) config: Config,
    disk: Disk,
    /// The state hash of all that is there.
    state: u128,
    pub(super) last_seq: Seq,
    /// Of each block: file, place, end, and whether something else proves that it was durable.
    blocks: Vec<(FileName, usize, usize, bool)>,
    pub(super) files: BTreeMap<FileName, Vec<u8>>,
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
    pub(super) fn new(name: &'static str, shape: &Shape, seed: u64) -> Self {
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

    /// The segments of its log, oldest first.
    pub(super) fn segments(&self) -> Vec<FileName> {
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
    pub(super) fn check(&self, damage: &Damage, tally: &mut Tally) -> Result<(), String> {
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
pub(super) fn lefts() -> Vec<Left> {
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
