//! Which crate may know which: arrows point down only, and pure crates have a handful of reasoned dependencies.

use toml::{Table, Value};

use crate::Finding;

/// A member of the workspace and what it may depend on.
pub struct Layer {
    /// The package.
    pub package: &'static str,
    /// Its directory.
    pub directory: &'static str,
    /// True if it is `no_std`, without clock, file, socket or randomness.
    pub is_pure: bool,
    /// Members below it.
    pub members: &'static [&'static str],
    /// Foreign crates that a pure member may use, each with its reason.
    pub foreign: &'static [(&'static str, &'static str)],
    /// Members that its tests and examples may use beside those below.
    pub members_in_tests: &'static [&'static str],
}

/// The whole map, bottom up. A new member gets its line here first.
pub const LAYERS: &[Layer] = &[
    Layer {
        package: "memory",
        directory: "crates/memory",
        is_pure: true,
        members: &[],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "surety-protocol",
        directory: "crates/protocol",
        is_pure: true,
        members: &[],
        foreign: &[
            ("rkyv", "fixed-size archives of wire and log, validated and read without a copy"),
            ("thiserror", "error enums"),
            ("blake3", "the tag of rollback tokens"),
        ],
        members_in_tests: &[],
    },
    Layer {
        package: "ledger",
        directory: "crates/ledger",
        is_pure: true,
        members: &["memory", "surety-protocol"],
        foreign: &[
            ("ruint", "256-bit products of units and prices"),
            ("hashbrown", "hash tables of slots, with hashes of our own"),
            ("thiserror", "error enums"),
        ],
        members_in_tests: &[],
    },
    Layer {
        package: "wal",
        directory: "crates/wal",
        is_pure: true,
        members: &["surety-protocol"],
        foreign: &[
            ("blake3", "the chain hash over blocks"),
            ("crc32c", "checksums of header and body"),
            ("zerocopy", "page-aligned buffers seen as bytes"),
            ("thiserror", "error enums"),
        ],
        members_in_tests: &[],
    },
    Layer {
        package: "engine",
        directory: "crates/engine",
        is_pure: true,
        members: &["surety-protocol", "ledger", "wal"],
        foreign: &[("thiserror", "error enums")],
        members_in_tests: &[],
    },
    Layer {
        package: "settlement",
        directory: "crates/settlement",
        is_pure: true,
        members: &["surety-protocol"],
        foreign: &[
            ("sha3", "Keccak-256, which contracts hash with"),
            ("ruint", "256-bit products of values and prices"),
            ("thiserror", "error enums"),
        ],
        // What is netted is held against the ledger itself.
        members_in_tests: &["ledger"],
    },
    Layer {
        package: "iso8583",
        directory: "crates/iso8583",
        is_pure: true,
        members: &["surety-protocol"],
        foreign: &[
            ("blake3", "the keyed hash that makes ids"),
            ("hashbrown", "the table of payments"),
            ("thiserror", "error enums"),
        ],
        // What messages ask for is decided by the ledger itself.
        members_in_tests: &["ledger"],
    },
    Layer {
        package: "simulator",
        directory: "crates/simulator",
        // Its worlds are pure; its commands use threads, the clock and the terminal.
        is_pure: false,
        members: &["surety-protocol", "ledger", "wal", "engine", "settlement"],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "handoff",
        directory: "crates/handoff",
        is_pure: false,
        members: &[],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "storage",
        directory: "crates/storage",
        is_pure: false,
        members: &["surety-protocol", "wal", "handoff"],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "backup",
        directory: "crates/backup",
        is_pure: false,
        // Of the ledger only how many records an operation takes.
        members: &["surety-protocol", "ledger", "wal", "storage"],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "surety-client",
        directory: "crates/client",
        is_pure: false,
        members: &["surety-protocol"],
        foreign: &[],
        // The examples run against an engine that they start themselves.
        members_in_tests: &["server", "engine", "storage"],
    },
    Layer {
        package: "texts",
        directory: "crates/texts",
        is_pure: false,
        members: &["surety-protocol"],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "telemetry",
        directory: "crates/telemetry",
        is_pure: false,
        members: &[],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "server",
        directory: "crates/server",
        is_pure: false,
        members: &[
            "surety-protocol",
            "surety-client",
            "ledger",
            "wal",
            "engine",
            "settlement",
            "handoff",
            "storage",
            "backup",
            "telemetry",
        ],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "history",
        directory: "crates/history",
        is_pure: false,
        // The ledger decides what a record did; the engine reads snapshots; the client follows the change stream.
        members: &[
            "surety-protocol",
            "surety-client",
            "ledger",
            "wal",
            "engine",
            "storage",
            "backup",
            "texts",
        ],
        foreign: &[],
        // An engine in the same process.
        members_in_tests: &["server"],
    },
    Layer {
        package: "trust",
        directory: "crates/trust",
        is_pure: false,
        members: &[],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "gateway",
        directory: "crates/gateway",
        is_pure: false,
        members: &["surety-protocol", "surety-client", "iso8583", "telemetry", "trust"],
        foreign: &[],
        // The engine behind the front door.
        members_in_tests: &["server"],
    },
    Layer {
        package: "rest",
        directory: "crates/rest",
        is_pure: false,
        // Of the messages only their table of codes, which is that of every front door.
        members: &["surety-protocol", "surety-client", "iso8583", "telemetry", "texts", "trust"],
        foreign: &[],
        // The engine behind the front door.
        members_in_tests: &["server"],
    },
    Layer {
        package: "console",
        directory: "crates/console",
        is_pure: false,
        // The engine is in the same process: its numbers, and whom its authority vouches for. The history is asked over its socket.
        members: &["surety-protocol", "surety-client", "server", "history", "texts", "trust"],
        foreign: &[],
        // What a data directory says of its engine, for a history beside it.
        members_in_tests: &["storage"],
    },
    Layer {
        package: "chain",
        directory: "crates/chain",
        is_pure: false,
        members: &[],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "settler",
        directory: "crates/settler",
        is_pure: false,
        members: &["surety-protocol", "settlement", "storage", "surety-client", "chain"],
        foreign: &[],
        // An engine in the same process.
        members_in_tests: &["server"],
    },
    Layer {
        package: "watcher",
        directory: "crates/watcher",
        is_pure: false,
        members: &["surety-protocol", "surety-client", "chain"],
        foreign: &[],
        // What is decided is told to an engine that the tests start themselves.
        members_in_tests: &["server", "engine", "storage"],
    },
    Layer {
        package: "loadtest",
        directory: "loadtest",
        is_pure: false,
        // TLS towards a front door is that of front doors.
        members: &["surety-protocol", "surety-client", "wal", "storage", "iso8583", "trust"],
        foreign: &[],
        members_in_tests: &["server", "rest", "gateway"],
    },
    Layer {
        package: "surety",
        directory: "crates/surety",
        is_pure: false,
        members: &[
            "memory",
            "surety-protocol",
            "surety-client",
            "ledger",
            "wal",
            "engine",
            "storage",
            "backup",
            "server",
            "console",
            "history",
            "gateway",
            "rest",
            "settlement",
            "chain",
            "settler",
            "watcher",
            "loadtest",
            "texts",
            "telemetry",
            // What a load's host says.
            "iso8583",
        ],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "benches",
        directory: "benches",
        is_pure: false,
        members: &[
            "memory",
            "surety-protocol",
            // Moments, as questions name them.
            "texts",
            "surety-client",
            "ledger",
            "wal",
            "engine",
            "storage",
            "server",
            "history",
            "chain",
            "loadtest",
            // What an acquirer's host says.
            "iso8583",
        ],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "chaos",
        directory: "crates/chaos",
        is_pure: false,
        // Nothing that decides: what it checks are processes, from outside.
        members: &["surety-protocol", "surety-client", "wal", "storage", "loadtest"],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "probes",
        directory: "crates/probes",
        is_pure: false,
        members: &[
            "surety-protocol",
            "surety-client",
            "ledger",
            "wal",
            "iso8583",
            "server",
            "loadtest",
            "surety",
            "settlement",
            "settler",
        ],
        foreign: &[],
        members_in_tests: &[],
    },
    Layer {
        package: "tidy",
        directory: "crates/tidy",
        is_pure: false,
        members: &[],
        foreign: &[],
        members_in_tests: &[],
    },
];

/// The layer whose directory this is.
#[must_use]
pub fn layer(directory: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.directory == directory)
}

/// Holds one manifest against the map.
#[must_use]
pub fn arrows_point_down(path: &str, manifest: &Table) -> Vec<Finding> {
    let directory = path.trim_end_matches("/Cargo.toml");
    let package = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str);
    let Some(layer) = layer(directory).filter(|layer| Some(layer.package) == package) else {
        return vec![Finding::of(path, "a member that tidy's map of layers does not know: add it there")];
    };
    let names = |section: &str| -> Vec<String> {
        let table = manifest.get(section).and_then(Value::as_table);
        table.into_iter().flat_map(|table| table.keys().cloned()).collect()
    };
    let is_member = |name: &str| LAYERS.iter().any(|layer| layer.package == name);
    let mut findings = Vec::new();
    for name in names("dependencies").into_iter().chain(names("build-dependencies")) {
        if is_member(&name) && !layer.members.contains(&name.as_str()) {
            findings
                .push(Finding::of(path, format!("{} may not know {name}: arrows point down", layer.package)));
        }
        let is_reasoned = layer.foreign.iter().any(|(foreign, _)| *foreign == name);
        if layer.is_pure && !is_member(&name) && !is_reasoned {
            let message =
                format!("{name} in a pure crate: give the reason in tidy's map of layers, or do without");
            findings.push(Finding::of(path, message));
        }
    }
    let may_test_with = |name: &str| layer.members.contains(&name) || layer.members_in_tests.contains(&name);
    for name in names("dev-dependencies").iter().filter(|name| is_member(name) && !may_test_with(name)) {
        findings.push(Finding::of(path, format!("the tests of {} may not know {name}", layer.package)));
    }
    findings
}

/// The map itself is sound: every arrow points to a line above its own, so there is no circle.
#[must_use]
pub fn map_is_sound(layers: &[Layer]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let above = &layers[..at];
        for member in
            layer.members.iter().filter(|member| !above.iter().any(|lower| lower.package == **member))
        {
            findings.push(Finding::of(
                layer.directory,
                format!("{member} does not stand below {}", layer.package),
            ));
        }
        let impure = |member: &&&str| above.iter().any(|lower| lower.package == **member && !lower.is_pure);
        for member in layer.members.iter().filter(|member| layer.is_pure && impure(member)) {
            findings.push(Finding::of(layer.directory, format!("pure {} stands on {member}", layer.package)));
        }
        let is_short = |reason: &str| reason.len() < 10;
        for (name, _) in layer.foreign.iter().filter(|(_, reason)| is_short(reason)) {
            findings.push(Finding::of(layer.directory, format!("{name} without a reason")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, manifest: &str, expect: usize) {
        let findings = arrows_point_down(path, &manifest.parse().unwrap());
        assert_eq!(findings.len(), expect, "{manifest}: {findings:?}");
    }

    #[test]
    fn arrows() {
        let manifest = |name: &str, rest: &str| format!("[package]\nname = \"{name}\"\n{rest}");
        let down = manifest("ledger", "[dependencies]\nsurety-protocol = {}\nhashbrown = {}\n");
        check("crates/ledger/Cargo.toml", &down, 0);
        let up = manifest("ledger", "[dependencies]\nengine = {}\n");
        check("crates/ledger/Cargo.toml", &up, 1);
        let built = manifest("wal", "[build-dependencies]\nstorage = {}\n");
        check("crates/wal/Cargo.toml", &built, 1);
        let foreign = manifest("ledger", "[dependencies]\ntokio = {}\nrand = {}\n");
        check("crates/ledger/Cargo.toml", &foreign, 2);
        let edge = manifest("server", "[dependencies]\ntokio = {}\n");
        check("crates/server/Cargo.toml", &edge, 0);
        let tests = manifest("surety-client", "[dev-dependencies]\nserver = {}\nsurety = {}\n");
        check("crates/client/Cargo.toml", &tests, 1);
        check("crates/unknown/Cargo.toml", &manifest("unknown", ""), 1);
        check("crates/ledger/Cargo.toml", &manifest("leger", ""), 1);
    }

    #[test]
    fn circles() {
        let layer = |package, is_pure, members| Layer {
            package,
            directory: "x",
            is_pure,
            members,
            foreign: &[],
            members_in_tests: &[],
        };
        assert!(map_is_sound(&[layer("a", true, &[]), layer("b", false, &["a"])]).is_empty());
        assert_eq!(map_is_sound(&[layer("a", true, &["b"]), layer("b", true, &["a"])]).len(), 1);
        assert_eq!(map_is_sound(&[layer("a", false, &[]), layer("b", true, &["a"])]).len(), 1);
        let unreasoned = Layer { foreign: &[("x", "because")], ..layer("a", true, &[]) };
        assert_eq!(map_is_sound(&[unreasoned]).len(), 1);
    }
}
