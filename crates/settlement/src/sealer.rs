//! The sealer: reads the change stream of all shards, and seals what it has netted into a batch when told to.

use alloc::vec::Vec;

use surety_protocol::{PartitionHandle, Record, Seq, ShardId};

use crate::batch::{Batch, Positions};
use crate::bytes::{Reader, Truncated, Writer};
use crate::certificate::CertifiedLock;
use crate::data::{BatchData, DataError};
use crate::hash::{Hash, keccak};
use crate::netting::{Netting, NettingConfig, NettingError};
use crate::trees::Trees;
use crate::typed_data::Domain;

const SNAPSHOT_VERSION: u8 = 3;

/// A batch and all that belongs to it. The same positions and limit always give the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What is committed.
    pub batch: Batch,
    /// The most of new credit that it was allowed, in base units.
    pub credit_max: u128,
    /// What it credits, for each partition: the ledger books it when the batch is final.
    pub finals: Vec<(PartitionHandle, u128)>,
    /// See [`BatchData`].
    pub data: Vec<u8>,
}

/// Why bytes are no snapshot of a sealer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Another version than this one.
    #[error("a snapshot of version {0}")]
    Version(u8),
    /// They are damaged, or of an engine with other shards.
    #[error("the snapshot does not read as one")]
    Damaged,
}

impl From<Truncated> for SnapshotError {
    fn from(Truncated: Truncated) -> Self {
        Self::Damaged
    }
}

impl From<DataError> for SnapshotError {
    fn from(_: DataError) -> Self {
        Self::Damaged
    }
}

/// Netting, trees, and the chain of heads.
#[derive(Clone, Debug)]
pub struct Sealer {
    /// Of the last sealed batch; 0 before the first.
    seq: u64,
    head: Hash,
    lsn: u64,
    netting: Netting,
    trees: Trees,
}

impl Sealer {
    /// Before the first batch of an engine on a contract.
    #[must_use]
    pub fn new(config: NettingConfig, domain: &Domain) -> Self {
        Self {
            seq: 0,
            head: domain.separator(),
            lsn: 0,
            netting: Netting::new(config),
            trees: Trees::default(),
        }
    }

    /// The last sealed batch and its head.
    #[must_use]
    pub const fn head(&self) -> (u64, Hash) {
        (self.seq, self.head)
    }

    /// What has been read and netted.
    #[must_use]
    pub const fn netting(&self) -> &Netting {
        &self.netting
    }

    /// The trees as the last sealed batch left them: proofs for its state root.
    #[must_use]
    pub const fn trees(&self) -> &Trees {
        &self.trees
    }

    /// Takes the next synced record of a shard; see [`Netting::read`].
    ///
    /// # Errors
    /// The stream is not one that a ledger writes: halt.
    pub fn read(
        &mut self,
        shard: ShardId,
        seq: Seq,
        record: &Record,
    ) -> Result<Option<CertifiedLock>, NettingError> {
        self.netting.read(shard, seq, record)
    }

    /// What a batch sealed now could credit with a limit of `credit_max`. Nothing while nothing was read since the last one: the
    /// contract takes only a batch that has read further.
    #[must_use]
    pub fn creditable(&self, credit_max: u128) -> u128 {
        if self.has_read_on() { self.netting.publishable().min(credit_max) } else { 0 }
    }

    /// Seals what was read since the last batch, with at most `credit_max` of new credit. `None` if nothing was read.
    pub fn seal(&mut self, credit_max: u128) -> Option<Sealed> {
        if !self.has_read_on() {
            return None;
        }
        let lsn_to = self.netting.positions().lsn();
        let net = self.netting.close(credit_max);
        self.trees.update(&net.data);
        let roots = self.trees.roots(&net.data.positions);
        let data = net.data.to_bytes();
        let sums = roots.partitions.sums;
        let batch = Batch {
            seq: self.seq + 1,
            lsn_to,
            prev_head: self.head,
            state_root: roots.state(),
            sum_locked: sums.locked,
            sum_credit: sums.debit - net.guaranteed,
            guaranteed_ack: net.guaranteed,
            count: net.count,
            data_hash: keccak(&[&data]),
        };
        (self.seq, self.head, self.lsn) = (batch.seq, batch.head(), lsn_to);
        Some(Sealed { batch, credit_max, finals: net.finals, data })
    }

    fn has_read_on(&self) -> bool {
        self.netting.positions().lsn() > self.lsn
    }

    /// The whole state. Snapshots of equal states are equal, so their hash is the state's.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.u8(SNAPSHOT_VERSION).u64(self.seq).raw(&self.head).u64(self.lsn);
        self.netting.write(&mut to);
        self.trees.write(&mut to);
        to.0
    }

    /// The hash of [`Sealer::snapshot`].
    #[must_use]
    pub fn state_hash(&self) -> Hash {
        keccak(&[&self.snapshot()])
    }

    /// The state of a snapshot, whose integrity the caller has checked.
    ///
    /// # Errors
    /// The bytes are none of this version and engine.
    pub fn restore(config: NettingConfig, snapshot: &[u8]) -> Result<Self, SnapshotError> {
        let mut from = Reader(snapshot);
        let version = from.u8()?;
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version(version));
        }
        let (seq, head, lsn) = (from.u64()?, from.array()?, from.u64()?);
        let netting = Netting::read_from(config, &mut from)?;
        let trees = Trees::read(&mut from)?;
        from.end()?;
        Ok(Self { seq, head, lsn, netting, trees })
    }
}

impl Sealed {
    /// How far the stream was read for it: where a replay has to stop to seal the same again.
    ///
    /// # Errors
    /// The data are not those of a batch.
    pub fn positions(&self) -> Result<Positions, DataError> {
        BatchData::from_bytes(&self.data).map(|data| data.positions)
    }
}
