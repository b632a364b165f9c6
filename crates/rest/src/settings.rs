//! The table `[rest]` of a front door's settings.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use surety_client::protocol::{AssetId, Time};

use crate::config::{RestConfig, RestLimits, TenantConfig, TlsFiles};
use crate::money::{Asset, DECIMALS_MAX};
use crate::token::TokenHash;
use crate::webhook::{Secret, WebhookConfig, WebhookRules};

/// All that a file says of a REST front door.
#[derive(Clone, Debug)]
pub struct RestSettings {
    /// The front door.
    pub config: RestConfig,
    /// Who is served.
    pub tenants: Vec<TenantSettings>,
}

/// One tenant in a file.
#[derive(Clone, Debug)]
pub struct TenantSettings {
    /// Its identity at the engine; none for that of the command line.
    pub identity: Option<PathBuf>,
    /// Its tokens and webhooks.
    pub config: TenantConfig,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{file}: {error}", file = file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is no such TOML: an unknown key, a value of the wrong kind.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// No asset or no tenant, or the same twice.
    #[error("rest.{0}: at least one, and each once")]
    Names(&'static str),
    /// The decimals of an asset make no sense.
    #[error("rest.asset `{0}`: scale <= decimals <= {DECIMALS_MAX}")]
    Decimals(String),
    /// A token's hash is not one.
    #[error(
        "rest.tenant.token `{0}`: its hash is 64 hexadecimal digits, as `surety gateway token` prints them"
    )]
    Token(String),
    /// A webhook has no secret, or a file holds none.
    #[error(
        "rest.tenant.webhook `{0}`: each of secret_files holds 64 hexadecimal digits, and there is at least one"
    )]
    Secret(String),
    /// TLS asks for clients' certificates, or looks them up, and names no authority.
    #[error("rest.tls: needs_client_certificate and client_revoked want client_authority")]
    Authority,
    /// A limit of nothing, or one that HTTP cannot keep.
    #[error("rest.limits.{0} is too small")]
    Limit(&'static str),
}

impl RestSettings {
    /// Reads the table out of a file; none if it has none. Files that it names stand beside it.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn load(file: &Path) -> Result<Option<Self>, SettingsError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| SettingsError::File { file: file.to_owned(), error })?;
        Self::read(&text, file)
    }

    /// The same out of the text of such a file.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn read(text: &str, file: &Path) -> Result<Option<Self>, SettingsError> {
        let whole: Whole = toml::from_str(text)?;
        whole.rest.map(|table| table.into_settings(file)).transpose()
    }
}

/// The file; the rest of it is another front door's.
#[derive(Debug, Deserialize)]
struct Whole {
    rest: Option<Table>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    listen: SocketAddr,
    certificates: Option<SocketAddr>,
    tls: Option<TlsTable>,
    asset: Vec<AssetTable>,
    tenant: Vec<TenantTable>,
    #[serde(default)]
    limits: LimitTable,
    webhooks: Option<WebhooksTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhooksTable {
    state: PathBuf,
    #[serde(default)]
    allow_private: bool,
    answer_ms: Option<u64>,
    pause_min_ms: Option<u64>,
    pause_max_ms: Option<u64>,
    give_up_after_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookTable {
    name: String,
    url: String,
    secret_files: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    certificate: PathBuf,
    key: PathBuf,
    client_authority: Option<PathBuf>,
    client_revoked: Option<PathBuf>,
    #[serde(default)]
    needs_client_certificate: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AssetTable {
    name: String,
    id: u32,
    decimals: u8,
    scale: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantTable {
    identity: Option<PathBuf>,
    #[serde(default)]
    token: Vec<TokenTable>,
    #[serde(default)]
    webhook: Vec<WebhookTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenTable {
    name: String,
    hash: String,
}

/// What is not given is as [`RestLimits::default`] has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LimitTable {
    connections: Option<usize>,
    connections_per_address: Option<usize>,
    streams: Option<u32>,
    in_flight: Option<usize>,
    live: Option<usize>,
    rate_per_s: Option<u32>,
    burst: Option<u32>,
    head_bytes: Option<usize>,
    body_bytes: Option<usize>,
    depth: Option<usize>,
    head_ms: Option<u64>,
    body_ms: Option<u64>,
    answer_ms: Option<u64>,
    write_ms: Option<u64>,
    locks: Option<usize>,
    keys: Option<usize>,
    key_window_ms: Option<u64>,
    events: Option<usize>,
}

impl Table {
    fn into_settings(self, file: &Path) -> Result<RestSettings, SettingsError> {
        let beside = |path: &Path| file.with_file_name(path);
        let assets: Vec<Asset> =
            self.asset.into_iter().map(AssetTable::into_asset).collect::<Result<_, _>>()?;
        let is_twice = |at: usize, asset: &Asset| {
            assets[..at].iter().any(|other| other.name == asset.name || other.id == asset.id)
        };
        if assets.is_empty() || assets.iter().enumerate().any(|(at, asset)| is_twice(at, asset)) {
            return Err(SettingsError::Names("asset"));
        }
        if self.tenant.is_empty() || self.tenant.iter().filter(|tenant| tenant.identity.is_none()).count() > 1
        {
            return Err(SettingsError::Names("tenant"));
        }
        let tls = self.tls.map(|tls| TlsFiles {
            certificate: beside(&tls.certificate),
            key: beside(&tls.key),
            client_authority: tls.client_authority.as_deref().map(beside),
            client_revoked: tls.client_revoked.as_deref().map(beside),
            needs_client_certificate: tls.needs_client_certificate,
        });
        let is_for_nobody = |tls: &TlsFiles| {
            tls.client_authority.is_none() && (tls.needs_client_certificate || tls.client_revoked.is_some())
        };
        if tls.as_ref().is_some_and(is_for_nobody) {
            return Err(SettingsError::Authority);
        }
        let tenant = |tenant: TenantTable| {
            let tokens = tenant.token.into_iter().map(TokenTable::into_token).collect::<Result<_, _>>()?;
            let identity = tenant.identity.as_deref().map(beside);
            let webhook = |webhook: WebhookTable| webhook.into_config(file);
            let webhooks = tenant.webhook.into_iter().map(webhook).collect::<Result<_, _>>()?;
            Ok::<_, SettingsError>(TenantSettings { identity, config: TenantConfig { tokens, webhooks } })
        };
        Ok(RestSettings {
            config: RestConfig {
                listen: self.listen,
                tls,
                assets,
                certificates: self.certificates,
                webhooks: self.webhooks.map(|webhooks| webhooks.into_rules(file)),
                limits: self.limits.into_limits()?,
            },
            tenants: self.tenant.into_iter().map(tenant).collect::<Result<_, _>>()?,
        })
    }
}

impl WebhooksTable {
    /// What is not given is as [`WebhookRules::new`] has it.
    fn into_rules(self, file: &Path) -> WebhookRules {
        let standard = WebhookRules::new(file.with_file_name(self.state));
        let span = |ms: Option<u64>, standard| ms.map_or(standard, Duration::from_millis);
        WebhookRules {
            allow_private: self.allow_private,
            answer_within: span(self.answer_ms, standard.answer_within),
            pause_min: span(self.pause_min_ms, standard.pause_min),
            pause_max: span(self.pause_max_ms, standard.pause_max),
            give_up_after: span(self.give_up_after_ms, standard.give_up_after),
            ..standard
        }
    }
}

impl WebhookTable {
    fn into_config(self, file: &Path) -> Result<WebhookConfig, SettingsError> {
        let mut secrets = Vec::new();
        for name in &self.secret_files {
            let name = file.with_file_name(name);
            let text = std::fs::read_to_string(&name)
                .map_err(|error| SettingsError::File { file: name.clone(), error })?;
            let secret =
                Secret::from_hex(text.trim()).ok_or_else(|| SettingsError::Secret(self.name.clone()))?;
            secrets.push(secret);
        }
        if secrets.is_empty() {
            return Err(SettingsError::Secret(self.name));
        }
        Ok(WebhookConfig { name: self.name, url: self.url, secrets })
    }
}

impl AssetTable {
    fn into_asset(self) -> Result<Asset, SettingsError> {
        if self.scale > self.decimals || self.decimals > DECIMALS_MAX {
            return Err(SettingsError::Decimals(self.name));
        }
        Ok(Asset { name: self.name, id: AssetId(self.id), decimals: self.decimals, scale: self.scale })
    }
}

impl TokenTable {
    fn into_token(self) -> Result<(String, TokenHash), SettingsError> {
        match TokenHash::from_hex(&self.hash) {
            Some(hash) => Ok((self.name, hash)),
            None => Err(SettingsError::Token(self.name)),
        }
    }
}

impl LimitTable {
    fn into_limits(self) -> Result<RestLimits, SettingsError> {
        let standard = RestLimits::default();
        let span = |ms: Option<u64>, standard| ms.map_or(standard, Duration::from_millis);
        let limits = RestLimits {
            connections_max: self.connections.unwrap_or(standard.connections_max),
            connections_per_address_max: self
                .connections_per_address
                .unwrap_or(standard.connections_per_address_max),
            streams_max: self.streams.unwrap_or(standard.streams_max),
            in_flight_max: self.in_flight.unwrap_or(standard.in_flight_max),
            live_max: self.live.unwrap_or(standard.live_max),
            rate_per_s: self.rate_per_s.unwrap_or(standard.rate_per_s),
            burst: self.burst.unwrap_or(standard.burst),
            head_bytes_max: self.head_bytes.unwrap_or(standard.head_bytes_max),
            body_bytes_max: self.body_bytes.unwrap_or(standard.body_bytes_max),
            depth_max: self.depth.unwrap_or(standard.depth_max),
            head_within: span(self.head_ms, standard.head_within),
            body_within: span(self.body_ms, standard.body_within),
            answer_within: span(self.answer_ms, standard.answer_within),
            write_within: span(self.write_ms, standard.write_within),
            locks_max: self.locks.unwrap_or(standard.locks_max),
            keys_max: self.keys.unwrap_or(standard.keys_max),
            key_window: self.key_window_ms.map_or(standard.key_window, Time::from_millis),
            events_max: self.events.unwrap_or(standard.events_max),
        };
        let is_too_small = [
            ("connections", limits.connections_max == 0),
            ("connections_per_address", limits.connections_per_address_max == 0),
            ("streams", limits.streams_max == 0),
            ("in_flight", limits.in_flight_max == 0),
            ("rate_per_s", limits.rate_per_s == 0),
            ("burst", limits.burst == 0),
            // What a server of HTTP/1 needs for any head at all.
            ("head_bytes", limits.head_bytes_max < 8192),
            ("body_bytes", limits.body_bytes_max == 0),
            ("depth", limits.depth_max == 0),
            ("head_ms", limits.head_within.is_zero()),
            ("body_ms", limits.body_within.is_zero()),
            ("answer_ms", limits.answer_within.is_zero()),
            ("write_ms", limits.write_within.is_zero()),
            ("keys", limits.keys_max == 0),
            ("key_window_ms", limits.key_window == Time(0)),
        ];
        match is_too_small.into_iter().find(|(_, is_too_small)| *is_too_small) {
            Some((name, _)) => Err(SettingsError::Limit(name)),
            None => Ok(limits),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
name = "a link of another front door"
[rest]
listen = "127.0.0.1:8480"
certificates = "127.0.0.1:8470"
tls = { certificate = "rest.pem", key = "rest.key", client_authority = "ca.pem", client_revoked = "revoked.pem" }
asset = [{ name = "AMP", id = 1, decimals = 18, scale = 2 }]
limits = { depth = 4, answer_ms = 500 }
[rest.webhooks]
state = "hooks"
pause_min_ms = 50
[[rest.tenant]]
[[rest.tenant.token]]
name = "shop"
hash = "0000000000000000000000000000000000000000000000000000000000000001"
[[rest.tenant]]
identity = "other.pem"
webhook = [{ name = "shop", url = "https://shop.example/", secret_files = ["shop.key", "shop.old.key"] }]
"#;

    fn load(text: &str) -> Result<Option<RestSettings>, SettingsError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("front.toml");
        std::fs::write(&file, text).unwrap();
        std::fs::write(directory.path().join("shop.key"), "5a".repeat(32) + "\n").unwrap();
        std::fs::write(directory.path().join("shop.old.key"), "5b".repeat(32)).unwrap();
        std::fs::write(directory.path().join("short.key"), "5b").unwrap();
        RestSettings::load(&file)
    }

    #[test]
    fn a_file_says_all_of_a_front_door() {
        let settings = load(WHOLE).unwrap().unwrap();
        let RestConfig { tls, assets, limits, webhooks, .. } = settings.config;
        let webhooks = webhooks.unwrap();
        assert!(webhooks.state.ends_with("hooks") && webhooks.pause_min.as_millis() == 50);
        assert!(!webhooks.allow_private && webhooks.give_up_after.as_secs() == 7 * 86_400);
        let shop = &settings.tenants[1].config.webhooks[0];
        assert_eq!((shop.name.as_str(), shop.secrets.len()), ("shop", 2));
        let tls = tls.unwrap();
        assert!(tls.certificate.ends_with("rest.pem") && tls.certificate.is_absolute());
        assert!(tls.client_revoked.unwrap().ends_with("revoked.pem"));
        assert_eq!((assets[0].name.as_str(), assets[0].scale), ("AMP", 2));
        assert_eq!((limits.depth_max, limits.answer_within.as_millis()), (4, 500));
        assert_eq!(limits.in_flight_max, RestLimits::default().in_flight_max);
        assert_eq!(settings.tenants.len(), 2);
        assert_eq!(settings.tenants[0].config.tokens[0].0, "shop");
        assert!(settings.tenants[1].identity.as_ref().is_some_and(|file| file.ends_with("other.pem")));
        assert!(load("name = \"no such front door\"").unwrap().is_none());
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let check = |from: &str, to: &str, expect: &str| {
            assert!(WHOLE.contains(from));
            let error = load(&WHOLE.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check("listen =", "liste =", "unknown field");
        check("scale = 2", "scale = 19", "scale <= decimals");
        check("decimals = 18", "decimals = 32", "scale <= decimals");
        check("000000000000001\"", "\"", "64 hexadecimal digits");
        check("identity = \"other.pem\"", "", "rest.tenant: at least one");
        check("asset = [", "asset = [{ name = \"AMP\", id = 2, decimals = 0, scale = 0 }, ", "rest.asset");
        check("client_authority = \"ca.pem\"", "needs_client_certificate = true", "client_authority");
        check("client_authority = \"ca.pem\", ", "", "client_authority");
        check("\"shop.key\", \"shop.old.key\"", "", "at least one");
        check("shop.old.key", "short.key", "64 hexadecimal digits");
        check("shop.old.key", "none.key", "none.key");
        check("depth = 4", "depth = 0", "rest.limits.depth");
        check("depth = 4", "keys = 0", "rest.limits.keys");
        check("depth = 4", "key_window_ms = 0", "rest.limits.key_window_ms");
        check("depth = 4", "connections_per_address = 0", "rest.limits.connections_per_address");
        check("depth = 4", "head_bytes = 100", "rest.limits.head_bytes");
        assert!(matches!(RestSettings::load(Path::new("nowhere.toml")), Err(SettingsError::File { .. })));
    }
}
