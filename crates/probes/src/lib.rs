//! Probes: one function for each decoder of the project. It takes whatever bytes and fails by a panic.
//!
//! The fuzz targets in `fuzz/` feed them with what libFuzzer makes up; `tests/corpus.rs` replays the committed corpus, and
//! changes of it, under the normal test command. What every probe demands: no panic; what was decoded is encoded to the
//! same bytes; memory in proportion to the input.
#![forbid(unsafe_code)]

mod cards;
mod disk;
mod history;
mod log;
mod made;
mod money;
mod seeds;
mod settling;
mod texts;
mod wire;

pub use seeds::{Random, mutate, seeds};

/// A probe.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its name; also that of its fuzz target and of its folder in the corpus.
    pub name: &'static str,
    /// What it does with bytes.
    pub run: fn(&[u8]),
}

/// Every probe.
pub const PROBES: &[Probe] = &[
    Probe { name: "frames_server", run: wire::frames_server },
    Probe { name: "frames_client", run: wire::frames_client },
    Probe { name: "records", run: wire::records },
    Probe { name: "hello", run: wire::hello },
    Probe { name: "tail", run: wire::tail },
    Probe { name: "query", run: wire::query },
    Probe { name: "release_group", run: wire::release_group },
    Probe { name: "acks", run: wire::acks },
    Probe { name: "operations", run: money::operations },
    Probe { name: "replay", run: money::replay },
    Probe { name: "entries", run: money::entries },
    Probe { name: "block", run: log::block },
    Probe { name: "segment", run: log::segment },
    Probe { name: "guard", run: log::guard },
    Probe { name: "snapshot", run: log::snapshot },
    Probe { name: "iso_message", run: cards::message },
    Probe { name: "iso_stream", run: cards::stream },
    Probe { name: "iso_work", run: cards::work },
    Probe { name: "settler_log", run: settling::log },
    Probe { name: "book", run: settling::book },
    Probe { name: "shelf", run: settling::shelf },
    Probe { name: "settings", run: texts::settings },
    Probe { name: "policy", run: texts::policy },
];

/// Runs one probe.
///
/// # Panics
/// If there is no such probe, and where the probe finds a fault.
pub fn run(name: &str, bytes: &[u8]) {
    let probe = PROBES.iter().find(|probe| probe.name == name);
    (probe.unwrap_or_else(|| panic!("no probe {name}")).run)(bytes);
}
