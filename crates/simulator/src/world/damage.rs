//! Silent damage of what was synced: lost, misdirected and rotten blocks and snapshots. It is done to a copy of the disk, which must
//! be refused or come back whole, and never with a shorter history; then the world goes on with the good one.

use engine::{Begin, Durability, RecoverError};
use surety_protocol::Seq;
use surety_protocol::limits::{BLOCK_ALIGN, BLOCK_HEADER_BYTES};
use wal::memory::{MemoryError, MemoryStorage};
use wal::{FileName, Header, Rot, Storage};

use super::World;
use super::coverage::{Branch, Fault};
use crate::invariants::Violation;

const NEVER_SHORTER: &str = "damage is refused, or harmless";

/// A block on the disk.
#[derive(Clone, Copy, Debug)]
struct Place {
    file: FileName,
    offset: usize,
    header: Header,
}

impl Place {
    fn len(&self) -> usize {
        self.header.block_bytes()
    }
}

impl World {
    /// Damages a copy of the durable disk in one of the ways that disks have.
    pub(super) fn damage(&mut self) -> Result<(), Violation> {
        self.flush()?;
        let good = self.disk.crash_losing_all();
        let blocks = blocks(&good);
        if blocks.len() < 3 {
            return Ok(());
        }
        let mut bad = good.clone();
        let victim = match self.random.below(3) {
            0 => blocks.len() - 1 - self.random.index(3),
            _ => self.random.index(blocks.len()),
        };
        let place = blocks[victim];
        let mut hurt = vec![victim];
        let fault = match self.random.below(8) {
            0 | 1 => {
                let at = place.offset + self.random.index(place.len());
                bad.flip(place.file, at, 1 << self.random.below(8));
                Fault::Rot
            }
            2 => {
                bad.bytes_mut(place.file)[place.offset..place.offset + place.len()].fill(0);
                Fault::LostWrite
            }
            3 => {
                // The end of the log never got to the disk, whatever the disk said.
                for (at, place) in blocks.iter().enumerate().skip(victim) {
                    bad.bytes_mut(place.file)[place.offset..place.offset + place.len()].fill(0);
                    hurt.push(at);
                }
                Fault::LostWrite
            }
            5 => {
                // The body of one block and the headers of those behind it: nothing is left that speaks for them, but that
                // there is more of them than one block in flight.
                let (body, behind) = (blocks[blocks.len() - 3], &blocks[blocks.len() - 2..]);
                let at = BLOCK_HEADER_BYTES + self.random.index(body.len() - BLOCK_HEADER_BYTES);
                bad.flip(body.file, body.offset + at, 1);
                for place in behind {
                    bad.flip(place.file, place.offset + self.random.index(BLOCK_HEADER_BYTES), 1);
                }
                hurt.extend(blocks.len() - 3..blocks.len());
                Fault::Rot
            }
            4 => {
                bad.lose(place.file);
                let same = |(at, block): (usize, &Place)| (block.file == place.file).then_some(at);
                hurt.extend(blocks.iter().enumerate().filter_map(same));
                Fault::LostWrite
            }
            _ => {
                let other = self.random.index(blocks.len());
                misdirect(&mut bad, place, blocks[other]);
                let target = blocks[other];
                let end = target.offset + place.len();
                let is_over = |(at, block): (usize, &Place)| {
                    let overlaps = block.file == target.file
                        && block.offset < end
                        && block.offset + block.len() > target.offset;
                    overlaps.then_some(at)
                };
                hurt.extend(blocks.iter().enumerate().filter_map(is_over));
                Fault::MisdirectedWrite
            }
        };
        self.outcome.coverage.fault(fault);
        self.tell(|| format!("damage: {} of block {}", fault.name(), place.header.number));
        self.judge(&good, bad, &blocks, &hurt, &format!("{} of {place:?}", fault.name()))
    }

    /// Whether something that was not hurt says that the first block which is missing behind a seq was durable.
    fn is_proven(&self, blocks: &[Place], hurt: &[usize], last: Seq) -> bool {
        let is_lost = |place: &Place| place.header.records > 0 && place.header.last_seq() > last;
        let Some(first) = blocks.iter().position(is_lost) else { return false };
        let lost = &blocks[first].header;
        let proves = |(at, place): (usize, &Place)| {
            at > first
                && !hurt.contains(&at)
                && (place.header.durable_upto >= lost.first_seq || place.header.durable_block >= lost.number)
        };
        let is_guarded = self.config.guard && self.config.durability == Durability::Fsync;
        is_guarded || blocks.iter().enumerate().any(proves)
    }

    /// The damaged copy is refused or comes back whole; if nothing proves what is gone, it may come back shorter.
    fn judge(
        &mut self,
        good: &MemoryStorage,
        mut bad: MemoryStorage,
        blocks: &[Place],
        hurt: &[usize],
        what: &str,
    ) -> Result<(), Violation> {
        let mut good = good.clone();
        let whole = engine::recover(self.config, &mut good, Begin::Snapshot, |_| {})
            .map_err(|error| Violation::new(NEVER_SHORTER, format!("the good disk: {error}")))?;
        let full = (whole.report().last_seq, whole.ledger().state_hash());
        match engine::recover(self.config, &mut bad, Begin::Snapshot, |_| {}) {
            Err(error) => {
                if let Some(branch) = branch_of(&error) {
                    self.outcome.coverage.branch(branch);
                }
                Ok(())
            }
            Ok(found) => {
                let report = found.report();
                if report.snapshot.is_some() && !report.unsound_snapshots.is_empty() {
                    self.outcome.coverage.branch(Branch::FromOlderSnapshot);
                }
                let found = (found.report().last_seq, found.ledger().state_hash());
                if found == full {
                    self.outcome.coverage.branch(Branch::HarmlessDamage);
                    return Ok(());
                }
                if found.0 < full.0 && !self.is_proven(blocks, hurt, found.0) {
                    self.outcome.coverage.branch(Branch::UnprovenLastBlock);
                    return Ok(());
                }
                Err(Violation::new(NEVER_SHORTER, format!("{what}: {found:?} instead of {full:?}")))
            }
        }
    }

    /// A finished snapshot is damaged: an older one, or the log, stands in for it.
    pub(super) fn damage_snapshot(&mut self) -> Result<(), Violation> {
        self.flush()?;
        let good = self.disk.crash_losing_all();
        let mut snapshots =
            wal::list_snapshots(&good).map_err(|error| Violation::new(NEVER_SHORTER, error.to_string()))?;
        if snapshots.is_empty() {
            return Ok(());
        }
        self.outcome.coverage.fault(Fault::SnapshotRot);
        if !self.random.chance(1, 3) {
            snapshots.truncate(1);
        }
        let mut bad = good.clone();
        for seq in snapshots {
            let file = FileName::Snapshot { seq };
            let bytes = good.bytes(file).map_or(0, <[u8]>::len);
            bad.flip(file, self.random.index(bytes), 1 << self.random.below(8));
        }
        self.judge(&good, bad, &blocks(&good), &[], "damaged snapshots")
    }
}

/// The blocks of a log, by reading its segments one after the other.
fn blocks(disk: &MemoryStorage) -> Vec<Place> {
    let mut blocks: Vec<Place> = Vec::new();
    let mut segments: Vec<Seq> = disk
        .list()
        .unwrap_or_default()
        .into_iter()
        .filter_map(|name| if let FileName::Segment { first_seq } = name { Some(first_seq) } else { None })
        .collect();
    segments.sort_unstable();
    for first_seq in segments {
        let file = FileName::Segment { first_seq };
        let bytes = disk.bytes(file).unwrap_or_default();
        let mut offset = 0;
        while let Some(page) = bytes.get(offset..offset + BLOCK_HEADER_BYTES) {
            let Ok(header) = Header::decode(page) else { break };
            blocks.push(Place { file, offset, header });
            offset += header.block_bytes().max(BLOCK_ALIGN);
        }
    }
    blocks
}

/// A block is written where another one stands, and not where it belongs.
fn misdirect(disk: &mut MemoryStorage, from: Place, to: Place) {
    let bytes = disk.bytes(from.file).unwrap_or_default()[from.offset..from.offset + from.len()].to_vec();
    disk.bytes_mut(from.file)[from.offset..from.offset + from.len()].fill(0);
    let target = disk.bytes_mut(to.file);
    let end = (to.offset + bytes.len()).min(target.len());
    target[to.offset..end].copy_from_slice(&bytes[..end - to.offset]);
}

fn branch_of(error: &RecoverError<MemoryError>) -> Option<Branch> {
    let error = match error {
        RecoverError::NoSnapshot { .. } => return Some(Branch::RefusedNoSnapshot),
        RecoverError::Log(error) => error,
        RecoverError::Io(_) | RecoverError::Diverged { .. } | RecoverError::NoLoss => return None,
    };
    Some(match error {
        wal::RecoverError::Missing { .. } => Branch::RefusedMissing,
        wal::RecoverError::Gap { .. } => Branch::RefusedGap,
        wal::RecoverError::Rot { reason, .. } => match reason {
            Rot::LaterBlock { .. } => Branch::RefusedLaterBlock,
            Rot::Guard { .. } => Branch::RefusedGuard,
            Rot::Discontinuous => Branch::RefusedDiscontinuous,
            Rot::BeyondWindow { .. } => Branch::RefusedBeyondWindow,
            Rot::FirstBlock => Branch::RefusedFirstBlock,
            Rot::BeforeAnchor(_) => Branch::RefusedBeforeAnchor,
            // No world damages a snapshot's chain, or runs long enough for the other.
            Rot::AnchorChain | Rot::NoNextStart => return None,
        },
        _ => return None,
    })
}
