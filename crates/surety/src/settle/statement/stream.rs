//! A statement of the engine's records, and what batches say held against it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use alloy_primitives::B256;
use settlement::{Statement, StatementSum};
use settler::{BatchFile, BatchStake};
use surety_protocol::{PartitionHandle, Record, Seq, ShardId};

use super::{Args, Only, end, say, text};
use crate::exit::{Exit, Failure};
use crate::remote::{Role, Session};
use crate::{directory, dump};

/// From a data directory, or a copy of one.
pub(super) fn of_files(args: &Args, log: &Path, batches: &BTreeMap<u64, BatchFile>) -> Result<(), Failure> {
    let directory = directory::open(log)?;
    let shards = u16::try_from(directory.shards().count()).unwrap_or(u16::MAX);
    let mut teller = Teller::new(args, shards, batches)?;
    for shard in directory.shards() {
        if teller.wants(shard) {
            dump::records(&directory, shard, Seq(1), |seq, record, _| teller.read(shard, seq, record))?;
        }
    }
    teller.end()
}

/// From a running engine, as far as it has acknowledged.
pub(super) async fn of_engine(args: &Args, batches: &BTreeMap<u64, BatchFile>) -> Result<(), Failure> {
    let session = Session::open(&args.target, Role::Reader).await?;
    let shards = session.shards();
    let mut teller = Teller::new(args, shards, batches)?;
    for shard in (0..shards).map(ShardId) {
        if !teller.wants(shard) {
            continue;
        }
        let read = session.read(shard, Some(Seq(1)), |batch| {
            for (seq, record) in (batch.first.0..).zip(batch.records) {
                teller.read(shard, Seq(seq), record)?;
            }
            Ok(true)
        });
        read.await?;
    }
    teller.end()
}

/// Reads records, prints lines, and compares wherever a batch was sealed.
struct Teller<'a> {
    args: &'a Args,
    statement: Statement,
    batches: &'a BTreeMap<u64, BatchFile>,
    /// What each batch says of the supplier.
    stakes: BTreeMap<u64, BTreeMap<[u8; 32], BatchStake>>,
    /// For each shard the batches that are still to be compared, by the seq up to which they have read it.
    due: BTreeMap<ShardId, BTreeSet<(Seq, u64)>>,
}

impl<'a> Teller<'a> {
    fn new(args: &'a Args, shards: u16, batches: &'a BTreeMap<u64, BatchFile>) -> Result<Self, Failure> {
        let mut due: BTreeMap<ShardId, BTreeSet<(Seq, u64)>> = BTreeMap::new();
        for (number, file) in batches {
            if file.positions.0.len() != usize::from(shards) {
                let message =
                    format!("batch {number} is of an engine with {} shards", file.positions.0.len());
                return Err(Failure::new(Exit::Foreign, message));
            }
            for (shard, seq) in (0..).map(ShardId).zip(&file.positions.0) {
                due.entry(shard).or_default().insert((*seq, *number));
            }
        }
        let supplier = args.supplier.0.into();
        let stakes = batches.iter().map(|(number, file)| (*number, file.stakes(supplier))).collect();
        Ok(Self { args, statement: Statement::new(shards, args.supplier), batches, stakes, due })
    }

    fn wants(&self, shard: ShardId) -> bool {
        match self.args.partition {
            Some(Only::Handle(partition)) => partition.shard() == shard,
            _ => true,
        }
    }

    fn is_meant(&self, partition: PartitionHandle) -> bool {
        match self.args.partition {
            None => true,
            Some(Only::Handle(handle)) => handle == partition,
            Some(Only::Onchain(onchain)) => self.statement.onchain_of(partition) == Some(onchain),
        }
    }

    fn read(&mut self, shard: ShardId, seq: Seq, record: &Record) -> Result<(), Failure> {
        let position = self.statement.positions().0.get(usize::from(shard.0)).copied().unwrap_or_default();
        if position == Seq(0) && seq > Seq(1) {
            let message = format!(
                "the log of shard {shard} begins at seq {seq}: a statement needs all of it, so give a copy that has it"
            );
            return Err(Failure::new(Exit::Failure, message));
        }
        let line = self.statement.read(shard, seq, record);
        let line = line.map_err(|error| Failure::caused(Exit::Corrupt, format!("shard {shard}"), &error))?;
        if let Some(line) = line.filter(|line| self.is_meant(line.partition)) {
            say(self.args.json, &text::line_json(&line), &text::line(&line))?;
        }
        self.compare(shard, seq)
    }

    /// Whatever batches were sealed at this record say what the records come to.
    fn compare(&mut self, shard: ShardId, seq: Seq) -> Result<(), Failure> {
        let Some(due) = self.due.get_mut(&shard) else { return Ok(()) };
        while let Some((_, batch)) = due.first().copied().filter(|(at, _)| *at <= seq) {
            due.pop_first();
            let Some(stakes) = self.stakes.get(&batch) else { continue };
            for (partition, sum) in self.statement.sums().filter(|(of, _)| of.shard() == shard) {
                let told = stakes.get(&sum.onchain).copied().unwrap_or_default();
                if told != (BatchStake { units: sum.stake.units, paid_out: sum.stake.paid_out }) {
                    return Err(differs(batch, &partition.to_string(), told, &sum));
                }
            }
        }
        Ok(())
    }

    fn end(self) -> Result<(), Failure> {
        for (shard, due) in self.due.iter().filter(|(shard, _)| self.wants(**shard)) {
            if let Some((at, batch)) = due.iter().find(|(at, _)| *at > Seq(0)) {
                let message = format!(
                    "batch {batch} was sealed at seq {at} of shard {shard}, which these records do not reach"
                );
                return Err(Failure::new(Exit::Failure, message));
            }
        }
        self.check_partitions()?;
        let mut sums = Vec::new();
        for (partition, sum) in self.statement.sums().filter(|(partition, _)| self.is_meant(*partition)) {
            if !sum.adds_up() {
                let message = format!("the lines of partition {partition} do not add up: {sum:?}");
                return Err(Failure::new(Exit::Corrupt, message));
            }
            if !self.args.json {
                say(false, &serde_json::Value::Null, &text::sum_line(partition, &sum))?;
            }
            sums.push(text::sum_json(partition, &sum));
        }
        let count = self.batches.len();
        let line = match count {
            0 => "the lines add up".to_owned(),
            count => format!("the lines add up, and {count} batches say the same"),
        };
        end(self.args, serde_json::json!({ "partitions": sums, "batches": count }), &line)
    }

    /// No batch has the supplier in a partition in which the records never had it.
    fn check_partitions(&self) -> Result<(), Failure> {
        if matches!(self.args.partition, Some(Only::Handle(_))) {
            return Ok(());
        }
        let known: Vec<[u8; 32]> = self.statement.sums().map(|(_, sum)| sum.onchain).collect();
        for (batch, stakes) in &self.stakes {
            if let Some(partition) = stakes.keys().find(|partition| !known.contains(*partition)) {
                let partition = B256::from(*partition);
                let message = format!("batch {batch} has the supplier in {partition}, and no record has");
                return Err(Failure::new(Exit::Failure, message));
            }
        }
        Ok(())
    }
}

fn differs(batch: u64, partition: &str, told: BatchStake, sum: &StatementSum) -> Failure {
    let message = format!(
        "batch {batch} says {} units and {} withdrawn in partition {partition}, the records {} and {}",
        told.units, told.paid_out, sum.stake.units, sum.stake.paid_out
    );
    Failure::new(Exit::Failure, message)
}
