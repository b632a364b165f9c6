//! What `surety settle proofs` has written, read by somebody who believes none of it: the trees are made again of the leaves, so
//! that none of them is altered or left out, and lead to the head that the contract has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use alloy_primitives::{Address, B256};
use serde_json::Value;
use settlement::{Batch, Hash, PartitionLeaf, PlainTree, Positions, Roots, SumNode, SumTree, SupplierLeaf};
use surety_protocol::Seq;

/// A published batch, and what it says of partitions and suppliers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchFile {
    /// What was committed. Its head is the one that the file names.
    pub batch: Batch,
    /// How far each shard of the engine's stream was read for it.
    pub positions: Positions,
    partitions: BTreeMap<Hash, u128>,
    suppliers: BTreeMap<(Hash, Address), BatchStake>,
}

/// What a batch says of a supplier in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchStake {
    /// Present units.
    pub units: u128,
    /// All that was ever withdrawn, in base units.
    pub paid_out: u128,
}

/// Why a text is no published batch, or not a sound one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchFileError {
    /// It is no JSON object.
    #[error("this is no published batch")]
    Format,
    /// A field is missing, or is none of its kind.
    #[error("`{0}` is missing, or does not read")]
    Field(&'static str),
    /// Its numbers do not hash to the head that it names.
    #[error("its batch does not hash to its head")]
    Head,
    /// Its parts do not join to the state root of its batch.
    #[error("its roots do not join to the state root of its batch")]
    Join,
    /// The leaves of a tree do not come to its root: one is altered, left out, or not in its place.
    #[error("its {0} do not come to their root")]
    Leaves(&'static str),
}

/// Why the published batches of a directory are no history.
#[derive(Debug, thiserror::Error)]
pub enum BatchesError {
    /// A file or the directory cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is not one `batch-N.json`.
    #[error("no batch-N.json in {}", .0.display())]
    None(PathBuf),
    /// A file is no sound batch.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: BatchFileError,
    },
    /// A file holds another batch than its name says.
    #[error("{} holds batch {found}", path.display())]
    Misnamed {
        /// Which.
        path: PathBuf,
        /// What is in it.
        found: u64,
    },
    /// There are later ones.
    #[error("{} is missing: `surety settle proofs --batch N` writes it", .0.display())]
    Missing(PathBuf),
    /// It does not follow from the one before.
    #[error("{} does not follow from the batch before it", .0.display())]
    OtherChain(PathBuf),
}

impl BatchFile {
    /// All `batch-N.json` of a directory, by number: they follow from each other without a gap.
    ///
    /// # Errors
    /// [`BatchesError`].
    pub fn read_all(directory: &Path) -> Result<BTreeMap<u64, Self>, BatchesError> {
        let io = |path: &Path, source| BatchesError::Io { path: path.to_owned(), source };
        let name = |number: u64| directory.join(format!("batch-{number}.json"));
        let mut batches: BTreeMap<u64, Self> = BTreeMap::new();
        for entry in std::fs::read_dir(directory).map_err(|source| io(directory, source))? {
            let path = entry.map_err(|source| io(directory, source))?.path();
            let number = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix("batch-")?.strip_suffix(".json")?.parse::<u64>().ok());
            let Some(number) = number else { continue };
            let text = std::fs::read(&path).map_err(|source| io(&path, source))?;
            let file =
                Self::from_json(&text).map_err(|error| BatchesError::File { path: path.clone(), error })?;
            if file.batch.seq != number {
                return Err(BatchesError::Misnamed { path, found: file.batch.seq });
            }
            batches.insert(number, file);
        }
        if batches.is_empty() {
            return Err(BatchesError::None(directory.to_owned()));
        }
        for ((number, file), (next, following)) in batches.iter().zip(batches.iter().skip(1)) {
            if *next != number + 1 {
                return Err(BatchesError::Missing(name(number + 1)));
            }
            if !file.is_followed_by(following) {
                return Err(BatchesError::OtherChain(name(*next)));
            }
        }
        Ok(batches)
    }

    /// Reads a file, and checks that its partitions and suppliers are all that its batch has committed to.
    ///
    /// # Errors
    /// [`BatchFileError`]: nothing of it is worth anything then.
    pub fn from_json(text: &[u8]) -> Result<Self, BatchFileError> {
        let value: Value = serde_json::from_slice(text).map_err(|_| BatchFileError::Format)?;
        let file = Fields(&value);
        let batch = batch(&Fields(&value["batch"]))?;
        if batch.head() != file.word("head")? {
            return Err(BatchFileError::Head);
        }
        let positions = value["positions"].as_array().ok_or(BatchFileError::Field("positions"))?;
        let positions = positions.iter().map(|seq| seq.as_str()?.parse().ok().map(Seq));
        let positions = positions.collect::<Option<Vec<Seq>>>().ok_or(BatchFileError::Field("positions"))?;
        let (positions, join) = (Positions(positions), Fields(&value["join"]));
        let sums = settlement::Sums {
            locked: batch.sum_locked,
            debit: batch.sum_credit.saturating_add(batch.guaranteed_ack),
        };
        let roots = Roots {
            partitions: SumNode { hash: join.word("top")?, sums },
            payees: join.word("payeesRoot")?,
            suppliers: join.word("suppliersRoot")?,
            consumed: join.word("consumedRoot")?,
            positions: positions.hash(),
        };
        if roots.state() != batch.state_root {
            return Err(BatchFileError::Join);
        }
        let partitions = file.list("partitions")?.iter().map(|leaf| partition(&Fields(leaf)));
        let partitions = partitions.collect::<Result<Vec<_>, _>>()?;
        let nodes = partitions.iter().map(|leaf| SumNode { hash: leaf.hash(), sums: leaf.sums() });
        if SumTree::new(nodes).root() != roots.partitions {
            return Err(BatchFileError::Leaves("partitions"));
        }
        let suppliers = file.list("suppliers")?.iter().map(|leaf| supplier(&Fields(leaf)));
        let suppliers = suppliers.collect::<Result<Vec<_>, _>>()?;
        if PlainTree::new(suppliers.iter().map(SupplierLeaf::hash)).root() != roots.suppliers {
            return Err(BatchFileError::Leaves("suppliers"));
        }
        let stake = |leaf: SupplierLeaf| {
            let name = (leaf.partition, Address::from(leaf.supplier.0));
            (name, BatchStake { units: leaf.units, paid_out: leaf.paid_out })
        };
        Ok(Self {
            batch,
            positions,
            partitions: partitions.into_iter().map(|leaf| (leaf.partition, leaf.units)).collect(),
            suppliers: suppliers.into_iter().map(stake).collect(),
        })
    }

    /// Units of all suppliers of a partition; `None` if the batch does not know the partition.
    #[must_use]
    pub fn units_of(&self, partition: &Hash) -> Option<u128> {
        self.partitions.get(partition).copied()
    }

    /// What it says of a supplier, for each partition.
    #[must_use]
    pub fn stakes(&self, supplier: Address) -> BTreeMap<Hash, BatchStake> {
        let own = self.suppliers.iter().filter(|((_, name), _)| *name == supplier);
        own.map(|((partition, _), stake)| (*partition, *stake)).collect()
    }

    /// True if the other batch comes right after this one.
    #[must_use]
    pub fn is_followed_by(&self, other: &Self) -> bool {
        other.batch.seq == self.batch.seq + 1 && other.batch.prev_head == self.batch.head()
    }
}

fn batch(fields: &Fields<'_>) -> Result<Batch, BatchFileError> {
    Ok(Batch {
        seq: fields.number("seq")?,
        lsn_to: fields.number("lsnTo")?,
        prev_head: fields.word("prevHead")?,
        state_root: fields.word("stateRoot")?,
        sum_locked: fields.decimal("sumLocked")?,
        sum_credit: fields.decimal("sumCredit")?,
        guaranteed_ack: fields.decimal("guaranteedAck")?,
        count: u32::try_from(fields.number("count")?).map_err(|_| BatchFileError::Field("count"))?,
        data_hash: fields.word("dataHash")?,
    })
}

fn partition(fields: &Fields<'_>) -> Result<PartitionLeaf, BatchFileError> {
    Ok(PartitionLeaf {
        partition: fields.word("partition")?,
        locked: fields.decimal("locked")?,
        debit: fields.decimal("debit")?,
        exits: fields.decimal("exits")?,
        exit_nonce: fields.number("exitNonce")?,
        units: fields.decimal("units")?,
        salt: fields.word("salt")?,
    })
}

fn supplier(fields: &Fields<'_>) -> Result<SupplierLeaf, BatchFileError> {
    Ok(SupplierLeaf {
        partition: fields.word("partition")?,
        supplier: surety_protocol::Address(fields.decimal::<Address>("supplier")?.into_array()),
        units: fields.decimal("units")?,
        paid_out: fields.decimal("paidOut")?,
    })
}

/// Fields by name.
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn number(&self, name: &'static str) -> Result<u64, BatchFileError> {
        self.0[name].as_u64().ok_or(BatchFileError::Field(name))
    }

    fn decimal<T: core::str::FromStr>(&self, name: &'static str) -> Result<T, BatchFileError> {
        let read = self.0[name].as_str().and_then(|text| text.parse().ok());
        read.ok_or(BatchFileError::Field(name))
    }

    fn word(&self, name: &'static str) -> Result<Hash, BatchFileError> {
        self.decimal::<B256>(name).map(|word| word.0)
    }

    fn list(&self, name: &'static str) -> Result<&'a Vec<Value>, BatchFileError> {
        self.0[name].as_array().ok_or(BatchFileError::Field(name))
    }
}
