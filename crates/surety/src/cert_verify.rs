//! `surety cert verify`: what a merchant's file is worth, without a word from whoever has made it.

use std::path::PathBuf;
use std::time::Duration;

use alloy_primitives::{Address, keccak256};
use chain::{At, Backend, BackendError, RpcChain, Tag};
use clap::Args as ClapArgs;
use serde_json::json;
use settler::{CertificateFile, Place, Standing};

use crate::exit::{Exit, Failure, say};
use crate::remote;
use crate::settle::place;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The certificate
    file: PathBuf,
    /// A node of the chain: asks the contract itself whether it would take the certificate now
    #[arg(long, value_name = "URL")]
    rpc: Option<String>,
    /// Whose signature it has to be
    #[arg(long, value_name = "ADDRESS")]
    signer: Option<Address>,
    /// Where your network's contracts are, as it has published it: the file that `surety settle deploy` has written
    #[arg(long, value_name = "FILE")]
    contract: Option<PathBuf>,
    /// Tell it as one JSON object on its own line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let text = std::fs::read(&args.file)
        .map_err(|error| Failure::caused(Exit::Usage, args.file.display(), &error))?;
    let file = CertificateFile::from_json(&text)
        .map_err(|error| Failure::caused(Exit::Corrupt, args.file.display(), &error))?;
    let place = args.contract.as_deref().map(place::read).transpose()?;
    let standing = match &args.rpc {
        Some(url) => {
            let asked = stands(&file, place.as_ref(), &RpcChain::new(url, PATIENCE));
            Some(asked.map_err(|error| Failure::caused(Exit::Unreachable, url, &error))?)
        }
        None => None,
    };
    let signer = file.signer();
    let verdict = match place.filter(|place| !is_of(&file, place)) {
        Some(place) => Err(Failure::new(
            Exit::Foreign,
            format!("it is not for the contract {} on chain {}", place.manager, place.chain_id),
        )),
        None => judge(&file, signer, args.signer, standing.as_ref()),
    };
    let told = tell(args, &file, signer, standing.as_ref(), &verdict);
    // Whether anybody reads it or not, the exit code is the verdict.
    verdict.map_err(Failure::told)?;
    Ok(told?)
}

/// True if a certificate is for the contract of a network.
fn is_of(file: &CertificateFile, place: &Place) -> bool {
    file.domain.chain_id == place.chain_id && Address::from(file.domain.contract.0) == place.manager
}

/// How it stands on chain. A contract whose code is not the network's may say anything.
fn stands(
    file: &CertificateFile,
    place: Option<&Place>,
    chain: &dyn Backend,
) -> Result<Standing, BackendError> {
    if let Some(place) = place {
        let code = chain.code(place.manager, At::Tag(Tag::Latest))?;
        if keccak256(&code) != place.code_hash {
            return Ok(Standing::Elsewhere);
        }
    }
    file.standing(chain)
}

/// The first thing that is wrong with it.
fn judge(
    file: &CertificateFile,
    signer: Option<Address>,
    wanted: Option<Address>,
    standing: Option<&Standing>,
) -> Result<(), Failure> {
    let fails = |exit, what: String| Err(Failure::new(exit, what));
    let Some(signer) = signer else { return fails(Exit::Failure, "its signature is none".to_owned()) };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != signer) {
        return fails(Exit::Failure, format!("it is signed by {signer}, not by {wanted}"));
    }
    let lock = &file.certificate.lock;
    if lock.amount == 0 || lock.payee.0 == [0; 20] {
        return fails(Exit::Failure, "it promises nothing to anybody".to_owned());
    }
    match standing {
        Some(Standing::Enforceable) => Ok(()),
        Some(Standing::Called) => fails(Exit::Failure, "the lock was called already, and waits".to_owned()),
        Some(Standing::Dismissed) => {
            fails(Exit::Failure, "the lock was called, and nothing of it is owed any more".to_owned())
        }
        Some(Standing::Paid) => fails(Exit::Failure, "the lock was paid by guarantee already".to_owned()),
        Some(Standing::Refused(reason)) => fails(Exit::Failure, format!("the contract refuses it: {reason}")),
        Some(Standing::Elsewhere) => {
            fails(Exit::Foreign, "chain or contract are not those that it is for".to_owned())
        }
        None if file.certificate.lock.deadline_secs < remote::now().0 / 1_000_000_000 => {
            fails(Exit::Failure, "its deadline is past".to_owned())
        }
        None => Ok(()),
    }
}

/// True if something that the caller knows of the network was held against the certificate.
const fn is_trusted(args: &Args) -> bool {
    args.signer.is_some() || (args.contract.is_some() && args.rpc.is_some())
}

fn tell(
    args: &Args,
    file: &CertificateFile,
    signer: Option<Address>,
    standing: Option<&Standing>,
    verdict: &Result<(), Failure>,
) -> std::io::Result<()> {
    let lock = &file.certificate.lock;
    let (payee, signer) = (Address::from(lock.payee.0).to_string(), signer.map(|signer| signer.to_string()));
    let on_chain = standing.map(|standing| match standing {
        Standing::Enforceable => "enforceable",
        Standing::Called => "called",
        Standing::Dismissed => "dismissed",
        Standing::Paid => "paid",
        Standing::Refused(_) => "refused",
        Standing::Elsewhere => "elsewhere",
    });
    if args.json {
        let error = verdict.as_ref().err().map(ToString::to_string);
        say(json!({
            "ok": verdict.is_ok(), "error": error, "signer": signer, "on_chain": on_chain,
            "lock": file.lock_id().to_string(), "version": lock.version, "payee": payee,
            "amount": lock.amount.to_string(), "deadline": lock.deadline_secs,
            "chain_id": file.domain.chain_id,
            "contract": Address::from(file.domain.contract.0).to_string(),
            "engine": file.domain.engine.to_string(),
            "trusted": is_trusted(args),
        }))?;
    } else if verdict.is_ok() {
        let signer = signer.unwrap_or_default();
        say(format_args!(
            "{} base units for {payee}, until {}, signed by {signer}",
            lock.amount, lock.deadline_secs
        ))?;
        let (contract, chain) = (Address::from(file.domain.contract.0), file.domain.chain_id);
        match on_chain {
            Some(_) => say(format_args!("the contract {contract} on chain {chain} takes it"))?,
            None => say(format_args!(
                "whether the contract {contract} on chain {chain} takes it only a node can tell: --rpc URL"
            ))?,
        }
        if !is_trusted(args) {
            say(format_args!(
                "NOT CHECKED: that signer and contract are your network's; anybody can sign a file for a contract of \
                 his own. Compare them, or give --contract FILE or --signer ADDRESS as the network has published it"
            ))?;
        }
    }
    Ok(())
}
