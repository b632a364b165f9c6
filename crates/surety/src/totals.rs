//! A partition's money as people and programs read it.

use ledger::Totals;
use serde_json::{Value, json};
use surety_protocol::Seq;

use crate::policy_text::PolicyText;
use crate::values::{hex_text, moment_text};

/// The sums by the names of the documents, with their letters.
const fn sums(totals: &Totals) -> [(&'static str, u128); 8] {
    [
        ("collateral", totals.on_chain),
        ("free", totals.free),
        ("held", totals.held),
        ("captured", totals.captured),
        ("pending", totals.pending),
        ("owed", totals.owed),
        ("deficit", totals.deficit),
        ("exposure", totals.exposure),
    ]
}

/// A partition as JSON, amounts as decimal strings.
pub(crate) fn to_json(totals: &Totals) -> Value {
    let mut value = json!({
        "partition": totals.handle.to_string(),
        "onchain": hex_text(&totals.onchain),
        "asset": totals.asset.0,
        "frozen": totals.is_frozen,
        "unreconciled": totals.is_unreconciled,
        "tracks_merchants": totals.tracks_merchants,
        "units": totals.units.to_string(),
        "units_queued": totals.units_queued.to_string(),
        "generation": totals.generation,
        "fees": totals.fees.to_string(),
        "batch": totals.batch,
        "policy_seq": totals.policy_seq.0,
    });
    for (name, sum) in sums(totals) {
        value[name] = json!(sum.to_string());
    }
    if let Some((cap, until)) = totals.risk_cap {
        value["risk_cap"] = json!({ "cap": cap.to_string(), "until": moment_text(until) });
    }
    value
}

/// A partition in one line; sums of zero are left out.
pub(crate) fn to_line(totals: &Totals) -> String {
    let mut line = format!("partition {}", totals.handle);
    for (name, sum) in sums(totals).into_iter().filter(|(name, sum)| *sum > 0 || *name == "collateral") {
        line.push_str(&format!("  {name} {sum}"));
    }
    if totals.is_frozen {
        line.push_str("  FROZEN");
    }
    if totals.is_unreconciled {
        line.push_str("  UNRECONCILED");
    }
    line
}

/// A partition with everything, in lines.
pub(crate) fn to_lines(totals: &Totals) -> Vec<String> {
    let mut lines = vec![
        format!("partition     {}{}", totals.handle, if totals.is_frozen { "  FROZEN" } else { "" }),
        format!("asset         {}", totals.asset),
        format!("on-chain id   {}", hex_text(&totals.onchain)),
    ];
    lines.extend(sums(totals).map(|(name, sum)| format!("{name:<13} {sum}")));
    lines.push(format!("units         {} (queued {})", totals.units, totals.units_queued));
    let source = if totals.policy_seq == Seq(0) {
        "as created".to_owned()
    } else {
        format!("of seq {}", totals.policy_seq)
    };
    lines.push(format!("policy        {source}"));
    lines.extend(PolicyText::from(&totals.policy).to_toml().lines().map(|line| format!("  {line}")));
    lines
}
