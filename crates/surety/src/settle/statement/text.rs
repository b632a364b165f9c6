//! Lines and sums of a statement as people and programs read them.

use alloy_primitives::B256;
use serde_json::{Value, json};
use settlement::{StakeEvent, StatementLine, StatementSum};
use surety_protocol::PartitionHandle;

use crate::values;

/// For people.
pub(super) fn line(line: &StatementLine) -> String {
    let (name, numbers) = event(&line.event);
    let numbers: String = numbers.iter().map(|(name, number)| format!("{name} {number}  ")).collect();
    let (at, stake) = (values::moment_text(line.time), &line.stake);
    format!(
        "{at}  {}  seq {}  {name:<9}  {numbers}gain {}  ->  units {}  value {}",
        line.partition, line.seq, line.gain, stake.units, stake.value
    )
}

/// For programs. Amounts are decimal texts.
pub(super) fn line_json(line: &StatementLine) -> Value {
    let (name, numbers) = event(&line.event);
    let mut value = json!({
        "partition": line.partition.to_string(), "seq": line.seq.0, "time": values::moment_text(line.time),
        "event": name, "gain": line.gain.to_string(),
        "has": {
            "units": line.stake.units.to_string(), "queued": line.stake.queued.to_string(),
            "value": line.stake.value.to_string(), "withdrawn": line.stake.paid_out.to_string(),
        },
    });
    for (name, number) in numbers {
        value[name] = json!(number);
    }
    value
}

/// What happened, and the numbers of it.
fn event(event: &StakeEvent) -> (&'static str, Vec<(&'static str, String)>) {
    match event {
        StakeEvent::Supplied { amount, units } => {
            ("supplied", vec![("amount", amount.to_string()), ("units", units.to_string())])
        }
        StakeEvent::Unbonding { units, due } => {
            ("unbonding", vec![("units", units.to_string()), ("due", values::moment_text(*due))])
        }
        StakeEvent::Withdrawn { amount, units } => {
            ("withdrawn", vec![("amount", amount.to_string()), ("units", units.to_string())])
        }
        StakeEvent::Rewarded { amount } => ("rewarded", vec![("amount", amount.to_string())]),
        StakeEvent::Lost { amount } => ("lost", vec![("amount", amount.to_string())]),
        StakeEvent::Rounded => ("rounded", Vec::new()),
        StakeEvent::Forgotten { units } => ("forgotten", vec![("units", units.to_string())]),
    }
}

/// What it comes to in one partition, in one line.
pub(super) fn sum_line(partition: PartitionHandle, sum: &StatementSum) -> String {
    format!(
        "{partition}  supplied {} + gained {} = withdrawn {} + lost {} + value {} ({} units, {} of them queued)",
        sum.supplied,
        sum.gained,
        sum.stake.paid_out,
        sum.lost,
        sum.stake.value,
        sum.stake.units,
        sum.stake.queued
    )
}

/// What it comes to in one partition.
pub(super) fn sum_json(partition: PartitionHandle, sum: &StatementSum) -> Value {
    json!({
        "partition": partition.to_string(), "onchain": B256::from(sum.onchain).to_string(),
        "supplied": sum.supplied.to_string(), "gained": sum.gained.to_string(), "lost": sum.lost.to_string(),
        "withdrawn": sum.stake.paid_out.to_string(), "units": sum.stake.units.to_string(),
        "queued": sum.stake.queued.to_string(), "value": sum.stake.value.to_string(),
    })
}
