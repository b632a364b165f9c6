//! The gas table: what settlement costs on chain, measured by running it.
//!
//! `cargo run --release -p benches --bin gas -- --json`

use anyhow::{anyhow, ensure};
use benches::gas::{self, CLAIMS};
use clap::Parser;
use serde_json::json;

/// The most that a commit may take, whatever the number of changes.
const COMMIT_MAX: u64 = 66_000;

/// Measures the gas of every transaction of settlement on the development chain, by the rules of Osaka.
#[derive(Parser)]
struct Options {
    /// Print one JSON object on the last line.
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let gas = gas::measure().map_err(|error| anyhow!("{error}"))?;
    println!("{:<46} {:>9}", "transaction", "gas");
    let claim_many = format!("{CLAIMS} claims in one");
    for (name, used) in [
        ("commit of 1 change", gas.commit_1),
        ("commit of 500 changes", gas.commit_500),
        ("commit of 10,000 changes", gas.commit_10000),
        ("claim, out of 10,000 payees", gas.claim),
        (&claim_many, gas.claim_many),
        ("call of a guarantee, out of a group of 256", gas.guarantee),
        ("supply", gas.supply),
    ] {
        println!("{name:<46} {used:>9}");
    }
    if options.json {
        let figures = json!({
            "commit_gas_1": gas.commit_1,
            "commit_gas_500": gas.commit_500,
            "commit_gas_10000": gas.commit_10000,
            "claim_gas": gas.claim,
            "claim_many_gas": gas.claim_many,
            "claim_many_count": CLAIMS,
            "guarantee_gas": gas.guarantee,
            "supply_gas": gas.supply,
        });
        println!("{figures}");
    }
    let dearest = gas.commit_1.max(gas.commit_500).max(gas.commit_10000);
    ensure!(dearest <= COMMIT_MAX, "a commit takes {dearest} gas, more than {COMMIT_MAX}");
    Ok(())
}
