//! Settings of `serve`: a TOML file, then `SURETY__SECTION__KEY` in the environment, then flags. The last one wins.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};
use crate::values::{AddressText, CollectorText, ShareText, SpanText, toml_value};

/// Every setting, by section. A key that is not here is an error, wherever it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where the engine lives and listens.
    pub(crate) server: ServerSettings,
    /// The console for people with a browser.
    pub(crate) console: ConsoleSettings,
    /// The log of each shard.
    pub(crate) log: LogSettings,
    /// How far the clock may have moved while the engine was down.
    pub(crate) clock: ClockSettings,
    /// The chain that merchants sign releases for.
    pub(crate) chain: ChainSettings,
    /// Which requests are traced.
    pub(crate) trace: TraceSettings,
    /// The index of everything that happened.
    pub(crate) history: HistorySettings,
    /// What peers may use.
    pub(crate) limits: LimitSettings,
}

/// `[server]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerSettings {
    /// The data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<PathBuf>,
    /// UDP address of shard 0; shard *i* listens *i* ports above. Port 0 takes free ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// TCP address of the admin listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin: Option<std::net::SocketAddr>,
    /// `fsync` or `os`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) durability: Option<DurabilityName>,
    /// `direct` or `sync`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) io: Option<IoName>,
    /// How old an id may be, if somebody wants to be sure; the data directory has it from `init`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id_window: Option<SpanText>,
    /// Writes proof of each block before its replies leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) guard: Option<bool>,
    /// Pins each shard to a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pin: Option<bool>,
    /// How long a shard looks for the next request before it goes to sleep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) busy_poll: Option<SpanText>,
}

/// `[console]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConsoleSettings {
    /// TCP address, of the loopback where there is no certificate; without it there is no console.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// Its certificate in PEM, for TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<PathBuf>,
    /// The certificate's key in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
    /// The metrics listener of this engine's settler (`surety settle run --metrics`), which is asked how batches stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) settler: Option<std::net::SocketAddr>,
    /// How assets are called and written: `NUMBER=NAME/DECIMALS` each; `1=AMP/18` without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) assets: Option<Vec<String>>,
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogSettings {
    /// Bytes of a segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) segment_bytes: Option<u64>,
    /// Records between two snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) snapshot_records: Option<u64>,
    /// Records that are kept behind the snapshots, at least; without it all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retain_records: Option<u64>,
    /// Records that are kept beyond that for readers who are behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor_records: Option<u64>,
    /// Where each segment is kept once it is complete, before retention may remove it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) archive: Option<String>,
    /// Below this much free space new locks are declined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) free_bytes_min: Option<u64>,
}

/// `[limits]`: what peers may use. Counts hold per shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitSettings {
    /// Connections at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<usize>,
    /// Connections at a time of one tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections_tenant: Option<usize>,
    /// Readers of the change stream at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subscriptions: Option<usize>,
    /// Readers of the change stream at a time of one tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subscriptions_tenant: Option<usize>,
    /// Handshakes at a time; past it new ones are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handshakes: Option<usize>,
    /// Handshakes at a time above which an address must prove itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_above: Option<usize>,
    /// New connections per second and address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections_per_s_address: Option<u32>,
    /// New connections per second and certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections_per_s_certificate: Option<u32>,
    /// Streams of one connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) streams: Option<u32>,
    /// Time for a handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handshake: Option<SpanText>,
    /// Time for a frame to arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) frame: Option<SpanText>,
    /// Time for a drain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) drain: Option<SpanText>,
    /// Bytes of replies that one connection may leave unread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backlog_bytes: Option<usize>,
    /// Requests that wait for another shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) forwarded: Option<usize>,
    /// Releases signed by merchants whose signatures are being checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) releases: Option<usize>,
    /// Questions to the history at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queries: Option<usize>,
    /// Questions to the history at a time of one tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queries_tenant: Option<usize>,
    /// Questions to the history per second and tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queries_per_s_tenant: Option<u32>,
    /// Locks for which memory is taken at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reserve_locks: Option<usize>,
    /// Handshakes at a time of one address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handshakes_address: Option<usize>,
}

impl LimitSettings {
    /// Refuses limits of 0 that would leave an engine which nobody can reach.
    fn check(&self) -> Result<(), Failure> {
        let is_zero =
            |span: &Option<SpanText>| span.is_some_and(|span| span.0 == surety_protocol::Time::ZERO);
        let zeros = [
            ("connections", self.connections == Some(0)),
            ("connections_tenant", self.connections_tenant == Some(0)),
            ("handshakes", self.handshakes == Some(0)),
            ("handshakes_address", self.handshakes_address == Some(0)),
            ("streams", self.streams == Some(0)),
            ("handshake", is_zero(&self.handshake)),
            ("frame", is_zero(&self.frame)),
            ("backlog_bytes", self.backlog_bytes == Some(0)),
        ];
        match zeros.iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => {
                let message =
                    format!("limits.{name} is 0: nobody could use the engine; leave it out for its default");
                Err(Failure::new(Exit::Usage, message))
            }
            None => Ok(()),
        }
    }
}

/// `[chain]`: what merchants' signatures name beside the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ChainSettings {
    /// The settlement's chain; 0 without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chain_id: Option<u64>,
    /// The settlement's contract; zero without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) contract: Option<AddressText>,
}

/// `[trace]`: spans of sampled requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TraceSettings {
    /// The collector, which takes OTLP over HTTP; without it nothing is traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) otlp: Option<CollectorText>,
    /// The share of requests that is traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sample: Option<ShareText>,
}

/// `[history]`: the index of everything that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HistorySettings {
    /// Has it kept, in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enabled: Option<bool>,
    /// Whose identity reads the engine; without it the development identity of the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<PathBuf>,
    /// Bytes that it may take on the disk; without it only the free space counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_max: Option<u64>,
}

/// `[clock]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ClockSettings {
    /// The longest time down after which the clock is trusted without being asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_gap: Option<SpanText>,
}

/// When a reply may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DurabilityName {
    /// The record is on the disk: survives a power cut
    Fsync,
    /// The record is with the operating system: survives a killed process
    Os,
}

/// How the log reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IoName {
    /// Past the page cache
    Direct,
    /// Buffered, then fdatasync
    Sync,
}

impl DurabilityName {
    /// As flags and JSON spell it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
        }
    }
}

/// Where settings of the environment begin.
const PREFIX: &str = "SURETY__";

impl Settings {
    /// Joins file, environment and flags, in this order.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        flags: &Self,
    ) -> Result<Self, Failure> {
        let mut table = match file {
            Some(file) => read_file(file)?,
            None => toml::Table::new(),
        };
        for (name, value) in environment {
            if let Some(path) = name.strip_prefix(PREFIX) {
                set(&mut table, path, &name, &value)?;
            }
        }
        let flags = toml::Table::try_from(flags).map_err(|error| Failure::new(Exit::Usage, error))?;
        overlay(&mut table, flags);
        let settings: Self =
            table.try_into().map_err(|error: toml::de::Error| wrong_settings("settings", &error))?;
        settings.limits.check()?;
        Ok(settings)
    }

    /// What `--print-config` prints: TOML that `--config` reads.
    pub(crate) fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# cannot be written: {error}\n"))
    }
}

fn read_file(file: &Path) -> Result<toml::Table, Failure> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(Exit::Usage, format!("cannot read the configuration {name}: {error}"))
    })?;
    // Read as settings first, so that an error names the line.
    toml::from_str::<Settings>(&text)
        .map_err(|error| wrong_settings(&format!("configuration {name}"), &error))?;
    text.parse().map_err(|error: toml::de::Error| wrong_settings(&format!("configuration {name}"), &error))
}

fn wrong_settings(place: &str, error: &toml::de::Error) -> Failure {
    let advice = "`surety serve --print-config` shows what there is";
    Failure::new(Exit::Usage, format!("{place}: {}; {advice}", error.to_string().trim()))
}

/// Sets `SECTION__KEY`.
fn set(table: &mut toml::Table, path: &str, name: &str, value: &str) -> Result<(), Failure> {
    let path = path.to_ascii_lowercase();
    let Some((section, key)) = path.split_once("__") else {
        return Err(Failure::new(Exit::Usage, format!("{name}: write {PREFIX}SECTION__KEY")));
    };
    let mut setting = toml::Table::new();
    setting.insert(key.to_owned(), toml_value(value));
    let mut sections = toml::Table::new();
    sections.insert(section.to_owned(), toml::Value::Table(setting));
    sections
        .clone()
        .try_into::<Settings>()
        .map_err(|error| wrong_settings(&format!("environment {name}"), &error))?;
    overlay(table, sections);
    Ok(())
}

fn overlay(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => overlay(below, above),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::Time;

    fn environment(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file() {
        let file = file(
            "[server]\nlisten = '127.0.0.1:1'\nadmin = '127.0.0.1:2'\nio = 'sync'\n[log]\nsegment_bytes = 9",
        );
        let flags = Settings {
            server: ServerSettings { listen: "127.0.0.1:5".parse().ok(), ..ServerSettings::default() },
            ..Settings::default()
        };
        let environment = environment(&[
            ("SURETY__SERVER__LISTEN", "127.0.0.1:3"),
            ("SURETY__SERVER__ADMIN", "127.0.0.1:4"),
            ("SURETY__CLOCK__MAX_GAP", "2h"),
            ("SURETY__SERVER__GUARD", "true"),
            ("SURETY__CHAIN__CHAIN_ID", "31337"),
            ("SURETY__CHAIN__CONTRACT", "0x00000000000000000000000000000000000000ff"),
            ("SURETY__LIMITS__RELEASES", "7"),
            ("SURETY__TRACE__OTLP", "http://127.0.0.1:4318"),
            ("SURETY__TRACE__SAMPLE", "0.25"),
            ("SURETY__LIMITS__RESERVE_LOCKS", "1000"),
            ("SURETY__SERVER__ID_WINDOW", "1h"),
            ("SURETY_OTHER", "ignored"),
        ]);
        let settings = Settings::load(Some(file.path()), environment, &flags).unwrap();
        assert_eq!(settings.server.listen, "127.0.0.1:5".parse().ok());
        assert_eq!(settings.server.admin, "127.0.0.1:4".parse().ok());
        assert_eq!(settings.server.io, Some(IoName::Sync));
        assert_eq!(settings.server.guard, Some(true));
        assert_eq!(settings.log.segment_bytes, Some(9));
        assert_eq!(settings.clock.max_gap, Some(SpanText(Time::from_secs(7200))));
        assert_eq!(settings.chain.chain_id, Some(31337));
        assert_eq!(settings.chain.contract.map(|contract| contract.0.0[19]), Some(0xff));
        assert_eq!((settings.limits.releases, settings.limits.reserve_locks), (Some(7), Some(1000)));
        assert_eq!(settings.server.id_window, Some(SpanText(Time::from_secs(3600))));
        assert_eq!(settings.trace.sample, Some(ShareText(250_000)));
        let printed = self::file(&settings.to_toml());
        assert_eq!(
            Settings::load(Some(printed.path()), self::environment(&[]), &Settings::default()).unwrap(),
            settings
        );
    }

    #[test]
    fn unknown_keys_are_errors_wherever_they_stand() {
        let load = |text: &str, pairs: &[(&str, &str)]| {
            let file = file(text);
            Settings::load(Some(file.path()), environment(pairs), &Settings::default()).unwrap_err()
        };
        for (text, pairs, named) in [
            ("[server]\nlitsen = 'x'", &[][..], "litsen"),
            ("[sever]\n", &[], "sever"),
            ("[server]\nlisten = 'nowhere'", &[], "listen"),
            ("[server", &[], "configuration"),
            ("", &[("SURETY__SERVER__LITSEN", "x")], "SURETY__SERVER__LITSEN"),
            ("", &[("SURETY__LISTEN", "x")], "SURETY__LISTEN"),
            ("[chain]\ncontract = '0x12'", &[], "contract"),
            ("", &[("SURETY__CHAIN__CONTRACT", "0")], "SURETY__CHAIN__CONTRACT"),
            ("", &[("SURETY__SERVER__DURABILITY", "maybe")], "SURETY__SERVER__DURABILITY"),
            ("[trace]\nsample = 2.0", &[], "no share of requests"),
            ("[trace]\notlp = 'collector:4318'", &[], "no address of a collector"),
            ("[limits]\nstreams = 0", &[], "limits.streams"),
            ("[limits]\nframe = '0s'", &[], "limits.frame"),
            ("", &[("SURETY__LIMITS__CONNECTIONS", "0")], "limits.connections"),
        ] {
            let failure = load(text, pairs);
            assert_eq!(failure.exit(), Exit::Usage, "{failure}");
            assert!(failure.to_string().contains(named), "{failure}");
            assert!(!failure.to_string().contains('\n'));
        }
    }
}
