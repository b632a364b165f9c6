//! `surety cert`: development certificates, tenants and roles.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use server::identity::parse_roles;
use server::pki::{self, DevelopmentPki, PkiError};
use surety_protocol::{Roles, TenantId};

use crate::exit::{self, Exit, Failure, say};
use crate::{cert_verify, directory};

/// Makes development certificates: an authority, servers, clients with tenant and roles
///
/// A client's identity is one PEM file: certificate, private key, authority. Tenant and roles stand in the certificate.
/// These are certificates of TLS. `verify` is about another sort: the certificate of a lock, which `surety settle certify` signs.
///
/// Example: surety cert client --data DIR --tenant 7 --role authorizer --out router-1.pem
#[derive(Debug, ClapArgs)]
#[command(after_help = exit::HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes an authority of its own in a directory, with a server's certificate and first identities
    ///
    /// `surety init` has made one in DIR/pki already; this is for tests and for engines that share an authority.
    ///
    /// Example: surety cert ca --out my-pki
    #[command(after_help = exit::HELP)]
    Ca {
        /// Directory to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Signs a server's certificate for the loopback and for more names
    ///
    /// Writes FILE.pem and FILE.key.
    ///
    /// Example: surety cert server --data DIR --host pay.example.org --out server
    #[command(after_help = exit::HELP)]
    Server {
        #[command(flatten)]
        authority: Authority,
        /// A host name or address that clients dial; may be repeated
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// File name without its ending
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Signs a client's identity
    ///
    /// Example: surety cert client --data DIR --tenant 7 --role authorizer,reader --out r1.pem
    #[command(after_help = exit::HELP)]
    Client {
        #[command(flatten)]
        authority: Authority,
        /// Whose requests the client sends; 0 is the operator
        #[arg(long, value_name = "N")]
        tenant: u32,
        /// Roles: authorizer, settler, admin, reader; several with commas
        #[arg(long, value_name = "ROLE", value_parser = roles)]
        role: Roles,
        /// A name for people; the engine does not read it
        #[arg(long, default_value = "client")]
        name: String,
        /// The file to write; one that exists is never replaced
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Checks the certificate of a lock, without asking the operator
    ///
    /// By itself: that it reads, whose signature it bears, and that its deadline is not past. With a node the contract is asked
    /// whether it would take the certificate now. Anybody can sign for a contract of his own, so say which is your network's: with
    /// --contract or --signer, as the network has published it. Exit code 0 if so; 1 if it is worth nothing or has been used; 3 if it is no
    /// certificate; 4 if it is for another chain or contract; 9 if the node does not answer.
    ///
    /// Example: surety cert verify certificate.json --contract settlement.json --rpc http://127.0.0.1:8545
    #[command(after_help = exit::HELP)]
    Verify(cert_verify::Args),
}

impl Args {
    /// True if the last line is to be a JSON object.
    pub(crate) const fn wants_json(&self) -> bool {
        matches!(&self.command, Command::Verify(args) if args.json)
    }
}

/// Which authority signs.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
struct Authority {
    /// The authority of a data directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A directory with ca.pem and ca.key
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Verify(args) => return cert_verify::run(args),
        Command::Ca { out } => {
            std::fs::create_dir_all(out)
                .map_err(|error| Failure::caused(Exit::Failure, out.display(), &error))?;
            DevelopmentPki::create(out).map_err(|error| failure(&error))?;
            say(out.display())?;
        }
        Command::Server { authority, hosts, out } => {
            let (certificate, key) = authority.open()?.server(hosts).map_err(|error| failure(&error))?;
            pki::write_secret(&out.with_extension("key"), &key).map_err(|error| failure(&error))?;
            pki::write_secret(&out.with_extension("pem"), &certificate).map_err(|error| failure(&error))?;
            say(out.with_extension("pem").display())?;
        }
        Command::Client { authority, tenant, role, name, out } => {
            let pem =
                authority.open()?.client(TenantId(*tenant), *role, name).map_err(|error| failure(&error))?;
            pki::write_secret(out, &pem).map_err(|error| failure(&error))?;
            say(out.display())?;
        }
    }
    Ok(())
}

impl Authority {
    fn open(&self) -> Result<DevelopmentPki, Failure> {
        let directory = match (&self.data, &self.pki) {
            (Some(data), _) => directory::pki(data),
            (None, pki) => pki.clone().unwrap_or_default(),
        };
        DevelopmentPki::open(&directory).map_err(|error| no_authority(&directory, &error))
    }
}

fn roles(text: &str) -> Result<Roles, String> {
    parse_roles(text).map_err(|_| format!("`{text}`: the roles are authorizer, settler, admin, reader"))
}

fn no_authority(directory: &Path, error: &PkiError) -> Failure {
    let advice = "`surety init` or `surety cert ca` makes an authority";
    Failure::new(Exit::Foreign, format!("no authority in {}: {error}; {advice}", directory.display()))
}

fn failure(error: &PkiError) -> Failure {
    match error {
        PkiError::File { path, source } if source.kind() == std::io::ErrorKind::AlreadyExists => {
            let path = path.display();
            Failure::new(
                Exit::Failure,
                format!("{path} exists already and is not replaced: choose another file"),
            )
        }
        _ => Failure::caused(Exit::Failure, "no certificate", error),
    }
}
