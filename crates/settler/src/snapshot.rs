//! The sealer as it was when it sealed a batch, on disk, so that a restart reads the stream from there. `FORMAT.md` has the bytes.

use std::path::{Path, PathBuf};

use surety_protocol::limits::TOKEN_BYTES;
use surety_protocol::{Epoch, Token};

use crate::codec::{Damaged, Put, Take};
use crate::durable;
use crate::facts::Facts;
use crate::scan::Scan;

const MAGIC: &[u8; 8] = b"SURETYSS";
const VERSION: u32 = 4;
/// It knows no epochs.
const VERSION_WITHOUT_EPOCHS: u32 = 3;
const PREFIX: &str = "snapshot-";
const TEMPORARY: &str = "snapshot.tmp";
/// How many are kept.
const KEPT: usize = 2;

/// Everything that a restart begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The batch that was sealed last.
    pub(crate) batch: u64,
    /// The sealer's own bytes.
    pub(crate) sealer: Vec<u8>,
    pub(crate) facts: Facts,
    pub(crate) scan: Scan,
    /// The engine's newest rollback tokens.
    pub(crate) tokens: Vec<Token>,
    /// Of each shard the epoch of the record at the sealer's position; none of a shard that is not there, 0 of one that is not known.
    pub(crate) epochs: Vec<Epoch>,
}

impl Snapshot {
    /// Puts it on the disk, and takes the oldest away.
    pub(crate) fn write(&self, directory: &Path) -> std::io::Result<()> {
        let temporary = directory.join(TEMPORARY);
        durable::replace(&directory.join(format!("{PREFIX}{}", self.batch)), &temporary, &self.to_bytes())?;
        for (_, path) in found(directory)?.iter().rev().skip(KEPT) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }

    /// The newest one that is sound.
    pub(crate) fn newest(directory: &Path) -> std::io::Result<Option<Self>> {
        for (batch, path) in found(directory)?.into_iter().rev() {
            match Self::from_bytes(&std::fs::read(&path)?) {
                Ok(snapshot) if snapshot.batch == batch => return Ok(Some(snapshot)),
                Ok(_) | Err(Damaged) => {
                    tracing::warn!(path = %path.display(), "a damaged snapshot is passed over");
                }
            }
        }
        Ok(None)
    }

    /// The batch of the oldest one.
    pub(crate) fn oldest(directory: &Path) -> std::io::Result<Option<u64>> {
        Ok(found(directory)?.first().map(|(batch, _)| *batch))
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Put::default();
        body.u64(self.batch).u64(self.sealer.len() as u64).raw(&self.sealer);
        self.facts.write(&mut body);
        self.scan.write(&mut body);
        body.list(self.tokens.iter(), |to, token| _ = to.raw(&token.to_bytes()));
        body.list(self.epochs.iter(), |to, epoch| _ = to.u32(epoch.0));
        let mut to = Put::default();
        to.raw(MAGIC).u32(VERSION).u64(body.0.len() as u64).raw(&body.0).u32(crc32c::crc32c(&body.0));
        to.0
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut from = Take(bytes);
        let (magic, version) = (from.array::<8>()?, from.u32()?);
        if magic != *MAGIC || !(VERSION_WITHOUT_EPOCHS..=VERSION).contains(&version) {
            return Err(Damaged);
        }
        let len = usize::try_from(from.u64()?).map_err(|_| Damaged)?;
        let body = from.slice(len)?;
        if from.u32()? != crc32c::crc32c(body) {
            return Err(Damaged);
        }
        from.end()?;
        let mut from = Take(body);
        let (batch, len) = (from.u64()?, usize::try_from(from.u64()?).map_err(|_| Damaged)?);
        let sealer = from.slice(len)?.to_vec();
        let (facts, scan) = (Facts::take(&mut from)?, Scan::take(&mut from)?);
        let tokens = from.list(|from| Token::from_slice(&from.array::<TOKEN_BYTES>()?).ok_or(Damaged))?;
        let epochs = match version {
            VERSION_WITHOUT_EPOCHS => Vec::new(),
            _ => from.list(|from| from.u32().map(Epoch))?,
        };
        from.end()?;
        Ok(Self { batch, sealer, facts, scan, tokens, epochs })
    }
}

/// All that have the name of one, the oldest first.
fn found(directory: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let batch =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|batch| batch.parse().ok());
        if let Some(batch) = batch {
            found.push((batch, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(batch: u64) -> Snapshot {
        let supply = crate::scan::Supply {
            partition: [1; 32],
            supplier: surety_protocol::Address([2; 20]),
            amount: 7,
            nonce: 3,
        };
        let scan = Scan {
            block: 9,
            nonce: 3,
            supplied: [([1; 32], 7)].into(),
            supplies: vec![supply],
            touched: [[5; 32]].into(),
            ..Scan::default()
        };
        Snapshot {
            batch,
            sealer: vec![5; 40],
            facts: Facts::default(),
            scan,
            tokens: Vec::new(),
            epochs: vec![Epoch(7), Epoch(0)],
        }
    }

    #[test]
    fn one_of_the_version_before_knows_no_epochs() {
        let now = snapshot(8).to_bytes();
        // Without the list at the end of the body: its length, and two epochs.
        let body = &now[20..now.len() - 4 - 16];
        let mut then = Put::default();
        then.raw(MAGIC)
            .u32(VERSION_WITHOUT_EPOCHS)
            .u64(body.len() as u64)
            .raw(body)
            .u32(crc32c::crc32c(body));
        assert_eq!(Snapshot::from_bytes(&then.0), Ok(Snapshot { epochs: Vec::new(), ..snapshot(8) }));
        then.0[11] = 2;
        assert_eq!(Snapshot::from_bytes(&then.0), Err(Damaged));
    }

    #[test]
    fn two_are_kept_and_a_damaged_one_does_not_count() {
        let directory = tempfile::tempdir().expect("a directory");
        for batch in [8, 9, 10] {
            snapshot(batch).write(directory.path()).expect("written");
        }
        let names: Vec<u64> =
            found(directory.path()).expect("read").into_iter().map(|(batch, _)| batch).collect();
        assert_eq!(names, [9, 10]);
        assert_eq!(Snapshot::newest(directory.path()).expect("read"), Some(snapshot(10)));
        let newest = directory.path().join("snapshot-10");
        let sound = std::fs::read(&newest).expect("read");
        for place in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[place] ^= 1;
            assert_eq!(Snapshot::from_bytes(&bytes), Err(Damaged), "byte {place}");
        }
        std::fs::write(&newest, &sound[..sound.len() - 1]).expect("written");
        assert_eq!(Snapshot::newest(directory.path()).expect("read"), Some(snapshot(9)));
    }
}
