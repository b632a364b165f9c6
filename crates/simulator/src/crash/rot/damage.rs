//! The damages of one disk: bytes flipped; sectors and blocks lost, swapped, doubled, or from elsewhere.

use wal::FileName;

use super::left::Left;
use crate::random::Random;

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

/// One damage.
#[derive(Clone, Debug)]
pub(super) enum Damage {
    Flip { file: FileName, offset: usize },
    Put { file: FileName, offset: usize, bytes: Vec<u8>, how: &'static str },
    Swap { file: FileName, one: usize, other: usize, length: usize },
}

impl Damage {
    /// Its kind, for the tallies.
    pub(super) fn kind(&self) -> String {
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
    pub(super) fn writes(&self, left: &Left) -> Vec<(FileName, usize, Vec<u8>)> {
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

    /// The damage without its bytes.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Flip { file, offset } => format!("{file} byte {offset} flipped"),
            Self::Put { file, offset, bytes, how } => {
                format!("{file} at {offset}: {} bytes {how}", bytes.len())
            }
            Self::Swap { file, one, other, length } => {
                format!("{file}: {length} bytes at {one} and {other} swapped")
            }
        }
    }
}

/// All damages of one disk.
pub(super) fn damages(left: &Left, stranger: &Left, stride: usize) -> Vec<Damage> {
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
