//! Published batches: read and held against each other, and a statement made of them alone.

use std::collections::BTreeMap;
use std::path::Path;

use alloy_primitives::B256;
use serde_json::json;
use settler::{BatchFile, BatchStake, BatchesError};

use super::{Args, Only, end, say};
use crate::exit::{Exit, Failure};

/// All that are published in a directory.
pub(super) fn read(directory: &Path) -> Result<BTreeMap<u64, BatchFile>, Failure> {
    BatchFile::read_all(directory).map_err(|error| {
        let exit = match error {
            BatchesError::Io { .. } => Exit::Usage,
            BatchesError::None(_) | BatchesError::Missing(_) => Exit::Foreign,
            BatchesError::File { .. } | BatchesError::Misnamed { .. } | BatchesError::OtherChain(_) => {
                Exit::Corrupt
            }
        };
        Failure::new(exit, error)
    })
}

/// A statement of batches alone: what the supplier had, wherever that has changed.
pub(super) fn tell(args: &Args, batches: &BTreeMap<u64, BatchFile>) -> Result<(), Failure> {
    let supplier = args.supplier.0.into();
    let mut known: BTreeMap<[u8; 32], BatchStake> = BTreeMap::new();
    for (number, file) in batches {
        for (partition, stake) in file.stakes(supplier) {
            let is_meant = args.partition.is_none_or(|only| only == Only::Onchain(partition));
            let before = known.get(&partition).copied();
            if !is_meant || before == Some(stake) {
                continue;
            }
            // What has left never comes back: a root that says so is a fault of whoever posted it.
            if before.is_some_and(|before| before.paid_out > stake.paid_out) {
                let message = format!("batch {number} takes back what the supplier was paid out before");
                return Err(Failure::new(Exit::Corrupt, message));
            }
            let withdrawn = stake.paid_out - before.unwrap_or_default().paid_out;
            // Before the first file there may be others.
            let is_brought_forward = before.is_none() && Some(number) == batches.keys().next() && *number > 1;
            known.insert(partition, stake);
            let of_all = file.units_of(&partition).unwrap_or_default();
            let onchain = B256::from(partition).to_string();
            let what = if is_brought_forward { "brought forward" } else { "withdrawn" };
            let line =
                format!("batch {number}  {onchain}  units {} of {of_all}  {what} {withdrawn}", stake.units);
            let value = json!({
                "batch": number, "onchain": onchain, "units": stake.units.to_string(),
                "units_of_all": of_all.to_string(), "paid_out": stake.paid_out.to_string(),
                "withdrawn": withdrawn.to_string(), "brought_forward": is_brought_forward,
            });
            say(args.json, &value, &line)?;
        }
    }
    let (last, file) = batches.last_key_value().ok_or_else(|| Failure::new(Exit::Foreign, "no batch"))?;
    let head = B256::from(file.batch.head()).to_string();
    let line = format!("batches up to {last} are sound; the contract's head was {head}");
    end(args, json!({ "batches": batches.len(), "last": last, "head": head }), &line)
}
