//! `surety ctl policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use surety_protocol::{Kind, PartitionHandle, long};

use super::{answer, partition::unknown};
use crate::exit::{self, Exit, Failure};
use crate::policy_text::{PolicyError, PolicyText};
use crate::remote::Session;
use crate::values;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prints a partition's policy as TOML that `policy set --file` reads
    ///
    /// Example: surety ctl --data DIR policy get 0:1 > policy.toml
    #[command(after_help = exit::HELP)]
    Get {
        /// Which: shard:number
        #[arg(value_parser = values::partition)]
        partition: PartitionHandle,
    },
    /// Sets a partition's policy: from a file, or single rules of the present one
    ///
    /// Example: surety ctl --data DIR policy set 0:1 life_default=30s lock_max=1e24 late_capture=true
    #[command(after_help = exit::HELP)]
    Set(Set),
}

/// What to set.
#[derive(Debug, Args)]
pub(crate) struct Set {
    /// Which: shard:number
    #[arg(value_parser = values::partition)]
    partition: PartitionHandle,
    /// A TOML or JSON file; rules that it leaves out take their defaults
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Single rules; on top of the file, or of the present policy
    #[arg(value_name = "KEY=VALUE", required_unless_present = "file")]
    settings: Vec<String>,
}

/// `get`.
pub(crate) async fn get(session: &Session, partition: PartitionHandle, json: bool) -> Result<(), Failure> {
    let (text, seq) = present(session, partition).await?;
    let value = json!({
        "ok": true,
        "partition": partition.to_string(),
        "policy_seq": seq,
        "policy": text.to_json(),
    });
    let lines: Vec<String> = text.to_toml().lines().map(str::to_owned).collect();
    answer::show(json, &value, &lines)
}

/// `set`.
pub(crate) async fn set(reader: &Session, admin: &Session, set: &Set, json: bool) -> Result<(), Failure> {
    let base = match &set.file {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failure::new(Exit::Usage, format!("cannot read {}: {error}", file.display()))
            })?;
            PolicyText::parse(&text).map_err(|error| wrong(&error))?
        }
        None => present(reader, set.partition).await?.0,
    };
    let text = base.with_settings(&set.settings).map_err(|error| wrong(&error))?;
    let policy = text.to_policy().map_err(|error| wrong(&error))?;
    let records = long::split(Kind::Policy, admin.id(), set.partition, 0, &policy.to_bytes());
    let reply = admin.ask_long(records).await?;
    answer::tell(json, &format!("partition {} has the policy", set.partition), &[reply])
}

async fn present(session: &Session, partition: PartitionHandle) -> Result<(PolicyText, u64), Failure> {
    let found = session.partition(partition).await?.ok_or_else(|| unknown(partition))?;
    Ok((PolicyText::from(&found.policy), found.policy_seq.0))
}

fn wrong(error: &PolicyError) -> Failure {
    Failure::new(Exit::Usage, format!("no policy: {error}; `surety ctl policy get` prints one to begin with"))
}
