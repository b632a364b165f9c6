//! Every leaf of a batch with its proof, made from the settler's log alone, so that nobody is stranded when a service is down.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use alloy_primitives::{B256, U256};
use chain::bindings;
use serde_json::{Value, json};
use settlement::life::Base;
use settlement::{
    Batch, BatchData, Hash, LockId, PayeeLeaf, Positions, Roots, Sealed, SumProof, Trees, Word,
};
use surety_protocol::Address;

use crate::contract::batch_of;
use crate::error::SettlerError;
use crate::journal::Journal;
use crate::recovery::replay;

/// A batch, and the trees that it commits to.
#[derive(Clone, Debug)]
pub struct Published {
    /// What was committed.
    pub batch: Batch,
    /// How far each shard of the engine's stream was read for it.
    pub positions: Positions,
    /// The roots that its state root joins.
    pub roots: Roots,
    /// All leaves.
    pub trees: Trees,
}

impl Published {
    /// A batch of a settler's directory, which may be in use; without a number the last sealed one. `None` if there is no such batch.
    ///
    /// # Errors
    /// The log cannot be read; [`SettlerError::LogGone`] if it was folded and taken elsewhere.
    pub fn read(directory: &Path, batch: Option<u64>) -> Result<Option<Self>, SettlerError> {
        let Some(scan) = Journal::read(directory)? else { return Ok(None) };
        let head = scan.head;
        let newest = replay(head.separator, scan.notes)?;
        let begins = |base: Option<&Base>| base.map_or(0, |base| base.batch.seq);
        let until = begins(newest.base.as_ref());
        let Some(wanted) = batch.filter(|batch| (1..until).contains(batch)) else {
            return Self::of(newest.base.as_ref(), &newest.sealed, batch);
        };
        let Some((_, scan)) = Journal::read_older(directory, wanted, &head)? else {
            return Err(SettlerError::LogGone { batch: wanted, until });
        };
        let older = replay(head.separator, scan.notes)?;
        let until = begins(older.base.as_ref());
        if wanted < until {
            return Err(SettlerError::LogGone { batch: wanted, until });
        }
        Self::of(older.base.as_ref(), &older.sealed, batch)
    }

    /// A batch of a log, without a number the last one.
    fn of(
        base: Option<&Base>,
        sealed: &BTreeMap<u64, Sealed>,
        batch: Option<u64>,
    ) -> Result<Option<Self>, SettlerError> {
        let last = sealed.last_key_value().map(|(seq, _)| *seq).or(base.map(|base| base.batch.seq));
        let Some(wanted) = batch.or(last) else { return Ok(None) };
        let begun = match base {
            Some(base) => Some((base.trees().ok_or(SettlerError::Diverged(base.batch.seq))?, base)),
            None => None,
        };
        let mut newest = begun.as_ref().map(|(_, base)| (base.batch, base.positions.clone()));
        let mut trees = begun.map(|(trees, _)| trees).unwrap_or_default();
        for sealed in sealed.range(..=wanted).map(|(_, sealed)| sealed) {
            let data = BatchData::from_bytes(&sealed.data)?;
            trees.update(&data);
            newest = Some((sealed.batch, data.positions));
        }
        Ok(newest.filter(|(batch, _)| batch.seq == wanted).map(|(batch, positions)| {
            let roots = trees.roots(&positions);
            Self { batch, positions, roots, trees }
        }))
    }

    /// True if the trees lead to the batch's state root: the log is whole.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.roots.state() == self.batch.state_root
    }

    /// What proofs of partitions, suppliers and consumed locks carry beside their path.
    #[must_use]
    pub fn join(&self) -> bindings::Join {
        bindings::Join {
            payeesRoot: self.roots.payees.into(),
            top: self.roots.partitions.hash.into(),
            suppliersRoot: self.roots.suppliers.into(),
            consumedRoot: self.roots.consumed.into(),
            positionsHash: self.roots.positions.into(),
        }
    }

    /// A payee's credit, as `claim` takes it.
    #[must_use]
    pub fn credit(&self, partition: Hash, payee: Address) -> Option<bindings::Credit> {
        let proof = self.trees.prove_payee(partition, payee)?;
        let PayeeLeaf { partition, payee, credit } = proof.leaf;
        Some(bindings::Credit {
            partition: partition.into(),
            payee: payee.0.into(),
            credit,
            path: words(&proof.path),
        })
    }

    /// A partition, as `completeExit`, `provePartition` and `openExit` take it.
    #[must_use]
    pub fn partition(&self, partition: Hash) -> Option<bindings::PartitionLeaf> {
        let SumProof { leaf, index, path } = self.trees.prove_partition(partition)?;
        Some(bindings::PartitionLeaf {
            partition: leaf.partition.into(),
            locked: leaf.locked,
            debit: leaf.debit,
            exits: leaf.exits,
            exitNonce: leaf.exit_nonce,
            units: leaf.units,
            salt: leaf.salt.into(),
            index: u32::try_from(index).ok()?,
            path: path
                .iter()
                .map(|node| bindings::SumNode {
                    hash: node.hash.into(),
                    sums: U256::from_be_bytes(node.sums.word()),
                })
                .collect(),
        })
    }

    /// A supplier's position, as `frozenExit` takes it.
    #[must_use]
    pub fn supplier(&self, partition: Hash, supplier: Address) -> Option<bindings::SupplierLeaf> {
        let proof = self.trees.prove_supplier(partition, supplier)?;
        Some(bindings::SupplierLeaf {
            partition: proof.leaf.partition.into(),
            supplier: supplier.0.into(),
            units: proof.leaf.units,
            paidOut: proof.leaf.paid_out,
            path: words(&proof.path),
        })
    }

    /// What was credited for a certified lock, as `dismissPaid` takes it.
    #[must_use]
    pub fn consumed(&self, lock: LockId) -> Option<bindings::ConsumedLeaf> {
        let proof = self.trees.prove_consumed(lock)?;
        Some(bindings::ConsumedLeaf {
            lockId: lock.word().into(),
            partition: proof.leaf.partition.into(),
            payee: proof.leaf.payee.0.into(),
            amount: proof.leaf.amount,
            path: words(&proof.path),
        })
    }

    /// All of it. Amounts are decimal texts, since they have more digits than a number of JSON is read with.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let trees = &self.trees;
        let partitions = trees.partitions().iter().filter_map(|leaf| self.partition(leaf.partition));
        let payees = trees.payees().iter().filter_map(|leaf| self.credit(leaf.partition, leaf.payee));
        let suppliers =
            trees.suppliers().iter().filter_map(|leaf| self.supplier(leaf.partition, leaf.supplier));
        let consumed = trees.consumed().iter().filter_map(|leaf| self.consumed(leaf.lock));
        json!({
            "batch": batch_json(&self.batch),
            "head": hex(&self.batch.head()),
            "join": {
                "payeesRoot": hex(&self.roots.payees),
                "top": hex(&self.roots.partitions.hash),
                "suppliersRoot": hex(&self.roots.suppliers),
                "consumedRoot": hex(&self.roots.consumed),
                "positionsHash": hex(&self.roots.positions),
            },
            "rest": hex(&self.roots.rest()),
            "positions": self.positions.0.iter().map(|seq| text(&seq.0)).collect::<Vec<_>>(),
            "partitions": partitions.map(|leaf| partition_json(&leaf)).collect::<Vec<_>>(),
            "payees": payees.map(|leaf| json!({
                "partition": text(&leaf.partition), "payee": text(&leaf.payee), "credit": text(&leaf.credit),
                "path": texts(&leaf.path),
            })).collect::<Vec<_>>(),
            "suppliers": suppliers.map(|leaf| json!({
                "partition": text(&leaf.partition), "supplier": text(&leaf.supplier), "units": text(&leaf.units),
                "paidOut": text(&leaf.paidOut), "path": texts(&leaf.path),
            })).collect::<Vec<_>>(),
            "consumed": consumed.map(|leaf| json!({
                "lockId": text(&leaf.lockId), "partition": text(&leaf.partition), "payee": text(&leaf.payee),
                "amount": text(&leaf.amount), "path": texts(&leaf.path),
            })).collect::<Vec<_>>(),
        })
    }
}

fn batch_json(batch: &Batch) -> Value {
    let batch = batch_of(batch);
    json!({
        "seq": batch.seq,
        "lsnTo": batch.lsnTo,
        "prevHead": text(&batch.prevHead),
        "stateRoot": text(&batch.stateRoot),
        "sumLocked": text(&batch.sumLocked),
        "sumCredit": text(&batch.sumCredit),
        "guaranteedAck": text(&batch.guaranteedAck),
        "count": batch.count,
        "dataHash": text(&batch.dataHash),
    })
}

fn partition_json(leaf: &bindings::PartitionLeaf) -> Value {
    let node = |node: &bindings::SumNode| json!({ "hash": text(&node.hash), "sums": text(&node.sums) });
    json!({
        "partition": text(&leaf.partition),
        "locked": text(&leaf.locked),
        "debit": text(&leaf.debit),
        "exits": text(&leaf.exits),
        "exitNonce": leaf.exitNonce,
        "units": text(&leaf.units),
        "salt": text(&leaf.salt),
        "index": leaf.index,
        "path": leaf.path.iter().map(node).collect::<Vec<_>>(),
    })
}

fn text(value: &impl Display) -> String {
    value.to_string()
}

fn texts(path: &[B256]) -> Vec<String> {
    path.iter().map(text).collect()
}

fn words(path: &[Hash]) -> Vec<B256> {
    path.iter().map(|hash| B256::from(*hash)).collect()
}

fn hex(hash: &Hash) -> String {
    B256::from(*hash).to_string()
}
