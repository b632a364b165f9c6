//! `surety settle deploy`.

use std::path::PathBuf;
use std::time::Duration;

use alloy_primitives::Address;
use chain::{DigestSigner, Setup, Terms};
use clap::Args as ClapArgs;
use settler::Token;

use super::{DEPLOYER_KEY, key, node, place};
use crate::exit::{Exit, Failure, say};

/// Between two looks for a block.
const BLOCK_WAIT: Duration = Duration::from_millis(500);

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// A node of the chain
    #[arg(long, value_name = "URL")]
    rpc: String,
    /// The engine's id, as `surety init` and `surety ctl status` print it
    #[arg(long, value_name = "HEX", value_parser = engine)]
    engine: u128,
    /// Who commits batches: the address of the settler's key
    #[arg(long, value_name = "ADDRESS")]
    poster: Address,
    /// Who signs the certificates of locks
    #[arg(long, value_name = "ADDRESS")]
    signer: Address,
    /// Who appoints all others; where there is money of others, a timelock. Without it the deployer
    #[arg(long, value_name = "ADDRESS")]
    owner: Option<Address>,
    /// Who may pause payouts; without it the deployer
    #[arg(long, value_name = "ADDRESS")]
    guardian: Option<Address>,
    /// A token that is on the chain already, such as Amp; without it one for development is deployed
    #[arg(long, value_name = "ADDRESS", requires = "in_place_strategy")]
    amp: Option<Address>,
    /// That token's strategy for the partition prefix 0xAAAAAAAA
    #[arg(long, value_name = "ADDRESS", requires = "amp")]
    in_place_strategy: Option<Address>,
    /// The most new credit in an hour, in units of 10^9 base units
    #[arg(long, value_name = "N", default_value_t = Terms::default().credit_per_hour)]
    credit_per_hour: u64,
    /// Seconds that a root waits before its credits can be claimed
    #[arg(long, value_name = "SECONDS", default_value_t = Terms::default().claim_delay)]
    claim_delay: u32,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.out.exists() {
        let message =
            format!("{} exists already and is not replaced: choose another file", args.out.display());
        return Err(Failure::new(Exit::Failure, message));
    }
    let deployer = key(DEPLOYER_KEY)?;
    let terms =
        Terms { credit_per_hour: args.credit_per_hour, claim_delay: args.claim_delay, ..Terms::default() };
    let setup = Setup {
        engine_id: args.engine,
        owner: args.owner.unwrap_or_else(|| deployer.address()),
        guardian: args.guardian.unwrap_or_else(|| deployer.address()),
        poster: args.poster,
        signer: args.signer,
        terms,
    };
    let token = match (args.amp, args.in_place_strategy) {
        (Some(amp), Some(in_place_strategy)) => Some(Token { amp, in_place_strategy }),
        _ => None,
    };
    let mut chain = node(&args.rpc);
    let deployed = settler::deploy(&mut chain, &deployer, &setup, token, |_| std::thread::sleep(BLOCK_WAIT));
    let deployed = deployed.map_err(|error| Failure::caused(Exit::Unreachable, "not deployed", &error))?;
    let text = place::text(&deployed);
    std::fs::write(&args.out, format!("{text:#}\n"))?;
    say(text)?;
    Ok(())
}

fn engine(text: &str) -> Result<u128, String> {
    let is_one = text.len() == 32;
    u128::from_str_radix(text, 16)
        .ok()
        .filter(|_| is_one)
        .ok_or_else(|| "an engine id is 32 hexadecimal digits".to_owned())
}
