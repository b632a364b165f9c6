//! `surety gateway`: front doors of a running engine, as processes of their own.

mod doors;
mod run;
mod simulate;

use clap::{Args as ClapArgs, Subcommand};
use rest::{TokenHash, new_token};
use serde_json::json;

use crate::exit::{self, Exit, Failure, say};

pub(crate) use doors::link_failure;
pub(crate) use run::Settings;

/// Serves acquirers and applications in front of a running engine
///
/// Not for real money yet: what is known to be wrong stands in VERIFICATION.md under "Not covered".
///
/// Example: surety gateway run --data DIR --config front.toml
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves one acquirer's hosts over ISO 8583, or applications over REST, or both
    ///
    /// Prints one JSON line {"ready":true,...} with its addresses once hosts and applications are taken. SIGTERM and SIGINT
    /// answer what is being served, close every socket, and exit with 0. The engine may go away meanwhile: requests are repeated
    /// under their ids until it is back. What has no certain outcome in time is not answered over ISO 8583, and answered 504 over REST.
    ///
    /// SIGHUP reads the file again: routes, merchants, currencies and marks change for the messages that come then, tokens, secrets of
    /// webhooks and certificates of TLS for the connections, whoever could not come in any more is cut off, and the engine is shown the identities of now by the next connections; where anything else differs, a
    /// line on stderr says so and that front door stays as it was.
    ///
    /// --config FILE (TOML) has for ISO 8583 name, listen, header (binary2, ascii4, bcd2), edition (1987, 1993), profile (ascii,
    /// ascii_raw, binary, ebcdic), id_key_file (64 hexadecimal digits, beside FILE: keep it for as long as repeats may come),
    /// [[currency]] number, asset_decimals, edge_decimals, [[route]] prefix, partitions, and, if you like, needs_sign_on,
    /// book_file (totals by business day, beside FILE: without it days are those of the calendar), [mac] algorithm (retail, hmac_sha256, aes_cmac),
    /// key_file or key_env, [tls] certificate, key, client_ca, client_revoked, [merchants], [partial_mark], [increase_mark], [limits].
    ///
    /// For REST it has [rest] listen, [[rest.asset]] name, id, decimals, scale, [[rest.tenant]] with [[rest.tenant.token]] name, hash
    /// (see `surety gateway token`) and, if its identity is not that of the command line, identity, and, if you like, certificates, [rest.tls],
    /// [rest.webhooks] with [[rest.tenant.webhook]], [rest.limits]. All of it is in deploy/README.md.
    ///
    /// Example: surety gateway run --connect 127.0.0.1:7400 --identity acquirer.pem --config front.toml
    #[command(after_help = exit::HELP)]
    Run(run::Run),
    /// Draws a token for an application, and prints it with the hash that the settings keep
    ///
    /// Prints one JSON line {"token":"srty_...","hash":"..."}. Give the token to the application, which shows it with every request
    /// (Authorization: Bearer srty_...), and put the hash into the file of `surety gateway run`:
    ///
    ///   [[rest.tenant]]
    ///   token = [{ name = "shop", hash = "..." }]
    ///
    /// The token is shown this once, and cannot be made out of its hash. A tenant may have many: to renew one, add another, SIGHUP, change
    /// over, take the first out, SIGHUP.
    ///
    /// Example: surety gateway token
    #[command(after_help = exit::HELP, verbatim_doc_comment)]
    Token,
    /// Plays an acquirer towards a host, and reports what it answers as it should
    ///
    /// Says the messages of a scenario, one after another, and compares each reply with what the scenario expects. Prints a report of
    /// passed and failed cases; exits with 1 if one has failed. Two scenarios come along, `1987` and `1993`, which have every row of the
    /// message table; --print shows one, to be changed and given as a file. A file may have [mac] as a link's settings have it, and [tls] ca, name and, where the
    /// link asks for them, certificate and key, beside it.
    ///
    /// They capture and hold small amounts: point them at a link for tests.
    ///
    /// Example: surety gateway simulate --host 127.0.0.1:8583 --scenario 1987 --set 2=4111111111111111 --set 42=501
    #[command(after_help = exit::HELP)]
    Simulate(simulate::Simulate),
}

impl Args {
    /// True if the last line on standard output is to be a JSON object.
    pub(crate) const fn wants_json(&self) -> bool {
        matches!(&self.command, Command::Simulate(args) if args.json)
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Run(args) => run::run(args),
        Command::Token => token(),
        Command::Simulate(args) => simulate::run(args),
    }
}

fn token() -> Result<(), Failure> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| Failure::new(Exit::Failure, error))?;
    let token = new_token(random);
    say(json!({"token": token, "hash": TokenHash::of(&token).to_string()}))?;
    Ok(())
}
