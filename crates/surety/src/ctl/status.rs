//! `surety ctl status` and `clock`.

use clap::Subcommand;
use serde_json::json;
use surety_protocol::ShardId;

use super::{Target, answer};
use crate::exit::{self, Exit, Failure};
use crate::remote::{Session, now};
use crate::{directory, values};

#[derive(Debug, Subcommand)]
pub(crate) enum ClockCommand {
    /// Lets the next start take the wall clock, however far it is from the last record
    ///
    /// After more than `clock.max_gap` (24 h) down, or a wrong clock, `serve` exits with 8 rather than let every lock
    /// expire by mistake. Check the clock, then accept it once. Needs --data; nobody may serve it.
    ///
    /// Example: surety ctl --data DIR clock accept
    #[command(after_help = exit::HELP)]
    Accept,
}

/// `status`.
pub(crate) async fn status(session: &Session, json: bool) -> Result<(), Failure> {
    let (mut values, mut lines) = (Vec::new(), Vec::new());
    for shard in 0..session.shards() {
        let hello = session.hello(ShardId(shard)).await?;
        let durability = if hello.durability == 1 { "os" } else { "fsync" };
        values.push(json!({
            "shard": shard,
            "port": hello.shard_map().get(usize::from(shard)),
            "epoch": hello.epoch.0,
            "acked": hello.acked.0,
            "synced": hello.synced.0,
            "now": values::moment_text(hello.now),
            "durability": durability,
        }));
        lines.push(format!(
            "shard {shard}  epoch {}  acked {}  synced {}  durability {durability}  time {}",
            hello.epoch,
            hello.acked,
            hello.synced,
            values::moment_text(hello.now)
        ));
    }
    let hello = session.client().hello();
    lines.insert(0, format!("engine {}, {} shard(s)", hello.engine, hello.shards));
    let value = json!({ "ok": true, "engine": hello.engine.to_string(), "shards": values });
    answer::show(json, &value, &lines)
}

/// `clock accept`.
pub(crate) fn clock(command: &ClockCommand, target: &Target, json: bool) -> Result<(), Failure> {
    let ClockCommand::Accept = command;
    let Some(data) = &target.data else {
        return Err(Failure::new(Exit::Usage, "which data directory? give --data DIR"));
    };
    // Opened for the lock alone: a running engine has its time already.
    let _directory = directory::open(data)?;
    server::accept_clock(data, &format!("by {} at {}", person(), values::moment_text(now())))
        .map_err(|error| Failure::new(Exit::Failure, format!("{}: {error}", data.display())))?;
    // What stays of it is this file, until a start has taken it and logged what it says.
    let line = "the next start takes the wall clock as it is".to_owned();
    answer::show(json, &json!({ "ok": true }), &[line])
}

/// Who runs this process: the user, and who had logged in where that is somebody else (`sudo`).
fn person() -> String {
    let user = rustix::process::getuid().as_raw();
    // Nobody has logged in to a service: then it is the highest number.
    let login = std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse().ok());
    match login.filter(|login| ![user, u32::MAX].contains(login)) {
        Some(login) => format!("user {user}, logged in as {login}"),
        None => format!("user {user}"),
    }
}
