//! The command line: which commands there are. Each command's options stand with the command.

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser, Subcommand};

use crate::exit::{Exit, Failure};
use crate::{
    backup, cert, ctl, demo, doctor, dump, exit, front, history, init, load, restore, serve, settle, top,
    verify,
};

/// Answers one question, very fast and never wrongly: may this payment be guaranteed, and by which collateral?
///
/// Two commands to begin with:
///
///   surety demo                      a whole engine in one process, ending in a money check
///   surety init --data DIR && surety serve --data DIR
#[derive(Debug, Parser)]
#[command(name = "surety", version, verbatim_doc_comment, after_help = exit::HELP, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One command each.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::Args),
    Init(init::Args),
    Serve(serve::Args),
    Verify(verify::Args),
    Dump(dump::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Ctl(ctl::Args),
    Cert(cert::Args),
    Load(load::Args),
    Gateway(front::Args),
    Settle(settle::Args),
    Doctor(doctor::Args),
    Top(top::Args),
    History(history::Args),
    /// Prints completions for a shell
    ///
    /// Example: surety completions bash > /etc/bash_completion.d/surety
    #[command(after_help = exit::HELP)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Writes a page for `man` of each command
    ///
    /// Example: surety man /usr/local/share/man/man1
    #[command(after_help = exit::HELP)]
    Man {
        /// An existing directory; pages of that name are replaced
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

impl Command {
    /// True if the last line on standard output is to be a JSON object, also after a failure.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Self::Demo(args) => args.json,
            Self::Verify(args) => args.json,
            Self::Backup(args) => args.json,
            Self::Restore(args) => args.json,
            Self::Ctl(args) => args.json,
            Self::Load(args) => args.wants_json(),
            Self::Cert(args) => args.wants_json(),
            Self::Gateway(args) => args.wants_json(),
            Self::Settle(args) => args.wants_json(),
            Self::Doctor(args) => args.json,
            Self::Top(args) => args.json,
            Self::History(args) => args.wants_json(),
            // They print a line of JSON for whatever happens, or none at all.
            Self::Init(_) | Self::Serve(_) | Self::Dump(_) | Self::Completions { .. } | Self::Man { .. } => {
                false
            }
        }
    }
}

/// Prints completions on standard output.
pub(crate) fn completions(shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "surety", &mut script);
    // Nobody is told if nobody reads.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
}

/// Writes the pages.
pub(crate) fn man(directory: &Path) -> Result<(), Failure> {
    let failed =
        |error| Failure::caused(Exit::Failure, format!("no pages in {}", directory.display()), &error);
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        man(directory.path()).unwrap();
        for page in ["surety.1", "surety-serve.1", "surety-ctl-partition-create.1"] {
            let text = std::fs::read_to_string(directory.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS") && text.contains("Exit codes"), "{page}: {text}");
        }
        let made = directory.path().join("not/yet");
        man(&made).unwrap();
        assert!(made.join("surety.1").exists());
        assert!(man(&made.join("surety.1")).is_err(), "a file is no directory");
    }

    #[test]
    fn every_help_teaches_with_an_example_and_lists_the_exit_codes() {
        fn check(command: &mut clap::Command) {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            assert!(help.contains("Exit codes:"), "{name}");
            assert!(name == "surety" || help.contains("Example"), "{name}");
            for inner in command.get_subcommands_mut() {
                if inner.get_name() != "help" {
                    check(inner);
                }
            }
        }
        let mut root = Cli::command();
        check(&mut root);
    }
}
