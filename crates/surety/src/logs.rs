//! Logs: `tracing` on standard error, text on a terminal and JSON otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::Command;
use crate::exit;

/// Starts logging. `SURETY_LOG` sets the level, for example `info` or `warn,server=debug`.
pub(crate) fn start(command: &Command) {
    // A server tells what it does; a tool tells only what is wrong.
    let is_server = match command {
        Command::Serve(_) | Command::Settle(_) | Command::Gateway(_) => true,
        Command::History(args) => args.is_service(),
        _ => false,
    };
    // Each repeat of a question to an object store is no news, nor is every file that the store of the history writes.
    let level = if is_server { "info,object_store=warn,fjall=warn,lsm_tree=warn" } else { "error" };
    let filter = EnvFilter::try_from_env("SURETY_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A line that nobody takes would be complained of where nobody takes it either, which is a panic.
    let logs = logs.log_internal_errors(false);
    let started = if std::io::stderr().is_terminal() {
        logs.try_init()
    } else {
        logs.json().flatten_event(true).try_init()
    };
    if let Err(error) = started {
        exit::tell(format_args!("warning: no logs: {error}"));
    }
}
