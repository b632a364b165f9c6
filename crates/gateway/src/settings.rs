//! A link's settings as a file says them, in TOML.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use iso8583::payment::{Currency, IdKey, Mark, ROUTE_MAX, Route, Rules, Scale};
use iso8583::{Dialect, LengthHeader, Profile};
use serde::Deserialize;
use surety_protocol::{MerchantId, PartitionHandle, ShardId};

use crate::config::{Limits, LinkConfig};
use crate::mac::{MacAlgorithm, MacConfig, MacSource};
use crate::tls::TlsConfig;

/// Why a link's settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file cannot be read.
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
    /// The file of the key does not hold 64 hexadecimal digits.
    #[error("the key of ids is not 64 hexadecimal digits")]
    Key,
    /// A partition is not written as shard:number.
    #[error("`{0}` is no partition: write shard:number")]
    Partition(String),
    /// A partition is of two currencies.
    #[error("partition `{0}` is of two currencies")]
    HeldTwice(String),
    /// Nothing is held in a currency: every payment in it would be declined.
    #[error("no partition is held in currency {0:03}")]
    HeldNowhere(u16),
    /// No currency is taken.
    #[error("no currency")]
    NoCurrency,
    /// A route without partitions, or with more than can be tried.
    #[error("route `{0}`: one to {ROUTE_MAX} partitions, and at most {ROUTE_MAX} former ones")]
    Route(String),
    /// The prefix of a route is not of digits.
    #[error("route `{0}`: a prefix is of digits")]
    Prefix(String),
    /// A merchant's name is longer than field 42, or not printable.
    #[error("merchant `{0}`: at most 15 printable characters")]
    Merchant(String),
    /// A mark is not one printable character of a field.
    #[error("a mark is one printable character, in a field from 2 to 128")]
    Mark,
    /// Keys of MACs come out of a file or the environment.
    #[error("mac: either key_file or key_env")]
    MacKeys,
    /// TLS looks up hosts' certificates and names no authority.
    #[error("tls: client_revoked wants client_ca")]
    Authority,
    /// A limit of nothing.
    #[error("limits.{0} is 0")]
    Limit(&'static str),
}

impl LinkConfig {
    /// Reads a link's settings, and the key of its ids from the file that they name.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn load(file: &Path) -> Result<Self, SettingsError> {
        Self::read(&read(file)?, file)
    }

    /// The same out of the text of such a file; the key stands beside it.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn read(text: &str, file: &Path) -> Result<Self, SettingsError> {
        let settings: Settings = toml::from_str(text)?;
        let key = read(&file.with_file_name(&settings.id_key_file))?;
        settings.into_config(key.trim(), file)
    }
}

fn read(file: &Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(file).map_err(|error| SettingsError::File { file: file.to_owned(), error })
}

/// The file. A key that is not here is an error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    name: String,
    listen: SocketAddr,
    header: Header,
    edition: Edition,
    profile: ProfileName,
    id_key_file: PathBuf,
    #[serde(default = "yes")]
    needs_sign_on: bool,
    /// Beside the settings.
    book_file: Option<PathBuf>,
    currency: Vec<CurrencySettings>,
    #[serde(default)]
    route: Vec<RouteSettings>,
    #[serde(default)]
    merchants: BTreeMap<String, u64>,
    #[serde(default = "partial_mark")]
    partial_mark: MarkSettings,
    #[serde(default = "increase_mark")]
    increase_mark: MarkSettings,
    mac: Option<MacSettings>,
    tls: Option<TlsSettings>,
    #[serde(default)]
    limits: LimitSettings,
    /// Of another front door, which reads it itself.
    #[serde(default, rename = "rest")]
    _rest: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Header {
    Binary2,
    Ascii4,
    Bcd2,
}

#[derive(Debug, Deserialize)]
pub(crate) enum Edition {
    #[serde(rename = "1987")]
    V1987,
    #[serde(rename = "1993")]
    V1993,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProfileName {
    Ascii,
    AsciiRaw,
    Binary,
    Ebcdic,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CurrencySettings {
    number: u16,
    asset_decimals: u8,
    edge_decimals: u8,
    /// Partitions of this currency; those that no currency names are of the first.
    #[serde(default)]
    partitions: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteSettings {
    prefix: String,
    partitions: Vec<String>,
    #[serde(default)]
    former: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkSettings {
    field: u8,
    at: u8,
    unit: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MacSettings {
    algorithm: MacName,
    /// Beside the settings.
    key_file: Option<PathBuf>,
    key_env: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MacName {
    Retail,
    HmacSha256,
    AesCmac,
}

/// Files beside the settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSettings {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_revoked: Option<PathBuf>,
}

/// What is not given is as [`Limits::default`] has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LimitSettings {
    connections: Option<usize>,
    in_flight: Option<usize>,
    message_bytes: Option<usize>,
    broken: Option<u32>,
    originals: Option<usize>,
    unknown: Option<u64>,
    answer_ms: Option<u64>,
    frame_ms: Option<u64>,
    sign_on_ms: Option<u64>,
    echo_ms: Option<u64>,
    write_ms: Option<u64>,
}

const fn yes() -> bool {
    true
}

fn partial_mark() -> MarkSettings {
    MarkSettings { field: 60, at: 0, unit: "1".into() }
}

fn increase_mark() -> MarkSettings {
    MarkSettings { field: 60, at: 1, unit: "1".into() }
}

impl Settings {
    fn into_config(self, key: &str, file: &Path) -> Result<LinkConfig, SettingsError> {
        let currency = |of: &CurrencySettings| Currency {
            number: of.number,
            scale: Scale { asset_decimals: of.asset_decimals, edge_decimals: of.edge_decimals },
        };
        let held_in = held_in(&self.currency)?;
        let rules = Rules {
            held_in,
            dialect: self.edition.into(),
            id_key: IdKey(key_of(key).ok_or(SettingsError::Key)?),
            currencies: self.currency.iter().map(currency).collect(),
            routes: self.route.into_iter().map(RouteSettings::into_route).collect::<Result<_, _>>()?,
            merchants: self.merchants.into_iter().map(merchant).collect::<Result<_, _>>()?,
            partial: self.partial_mark.into_mark()?,
            increase: self.increase_mark.into_mark()?,
        };
        Ok(LinkConfig {
            name: self.name,
            listen: self.listen,
            header: self.header.into(),
            profile: self.profile.into(),
            rules,
            needs_sign_on: self.needs_sign_on,
            book_file: self.book_file.map(|path| file.with_file_name(path)),
            mac: self.mac.map(|mac| mac.into_config(file)).transpose()?,
            tls: self.tls.map(|tls| tls.into_config(file)).transpose()?,
            limits: self.limits.into_limits()?,
        })
    }
}

impl From<Header> for LengthHeader {
    fn from(name: Header) -> Self {
        match name {
            Header::Binary2 => Self::Binary2,
            Header::Ascii4 => Self::Ascii4,
            Header::Bcd2 => Self::Bcd2,
        }
    }
}

impl From<Edition> for Dialect {
    fn from(name: Edition) -> Self {
        match name {
            Edition::V1987 => Self::V1987,
            Edition::V1993 => Self::V1993,
        }
    }
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Ascii => Self::ASCII,
            ProfileName::AsciiRaw => Self::ASCII_RAW,
            ProfileName::Binary => Self::BINARY,
            ProfileName::Ebcdic => Self::EBCDIC,
        }
    }
}

impl RouteSettings {
    fn into_route(self) -> Result<Route, SettingsError> {
        if !self.prefix.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(SettingsError::Prefix(self.prefix));
        }
        let is_empty = self.partitions.is_empty() && self.former.is_empty();
        if is_empty || self.partitions.len() > ROUTE_MAX || self.former.len() > ROUTE_MAX {
            return Err(SettingsError::Route(self.prefix));
        }
        let all = |names: Vec<String>| names.into_iter().map(partition).collect::<Result<_, _>>();
        Ok(Route {
            prefix: self.prefix.into_bytes(),
            partitions: all(self.partitions)?,
            former: all(self.former)?,
        })
    }
}

impl MacSettings {
    pub(crate) fn into_config(self, beside: &Path) -> Result<MacConfig, SettingsError> {
        let source = match (self.key_file, self.key_env) {
            (Some(file), None) => MacSource::File(beside.with_file_name(file)),
            (None, Some(name)) => MacSource::Env(name),
            _ => return Err(SettingsError::MacKeys),
        };
        let algorithm = match self.algorithm {
            MacName::Retail => MacAlgorithm::Retail,
            MacName::HmacSha256 => MacAlgorithm::HmacSha256,
            MacName::AesCmac => MacAlgorithm::AesCmac,
        };
        Ok(MacConfig { algorithm, source })
    }
}

impl TlsSettings {
    fn into_config(self, beside: &Path) -> Result<TlsConfig, SettingsError> {
        let beside = |path: PathBuf| beside.with_file_name(path);
        if self.client_revoked.is_some() && self.client_ca.is_none() {
            return Err(SettingsError::Authority);
        }
        Ok(TlsConfig {
            certificate: beside(self.certificate),
            key: beside(self.key),
            client_ca: self.client_ca.map(beside),
            client_revoked: self.client_revoked.map(beside),
        })
    }
}

impl MarkSettings {
    fn into_mark(self) -> Result<Mark, SettingsError> {
        match *self.unit.as_bytes() {
            [unit @ b' '..=b'~'] if matches!(self.field, 2..=128) => {
                Ok(Mark { field: self.field, at: self.at, unit })
            }
            _ => Err(SettingsError::Mark),
        }
    }
}

impl LimitSettings {
    fn into_limits(self) -> Result<Limits, SettingsError> {
        let standard = Limits::default();
        let span = |ms: Option<u64>, standard| ms.map_or(standard, Duration::from_millis);
        let limits = Limits {
            connections_max: self.connections.unwrap_or(standard.connections_max),
            in_flight_max: self.in_flight.unwrap_or(standard.in_flight_max),
            message_bytes_max: self.message_bytes.unwrap_or(standard.message_bytes_max),
            broken_max: self.broken.unwrap_or(standard.broken_max),
            originals_max: self.originals.unwrap_or(standard.originals_max),
            unknown_max: self.unknown.unwrap_or(standard.unknown_max),
            answer_within: span(self.answer_ms, standard.answer_within),
            frame_within: span(self.frame_ms, standard.frame_within),
            sign_on_within: span(self.sign_on_ms, standard.sign_on_within),
            echo_after: span(self.echo_ms, standard.echo_after),
            write_within: span(self.write_ms, standard.write_within),
        };
        let is_zero = [
            ("connections", limits.connections_max == 0),
            ("in_flight", limits.in_flight_max == 0),
            ("message_bytes", limits.message_bytes_max == 0),
            ("answer_ms", limits.answer_within.is_zero()),
            ("frame_ms", limits.frame_within.is_zero()),
            ("sign_on_ms", limits.sign_on_within.is_zero()),
            ("echo_ms", limits.echo_after.is_zero()),
            ("write_ms", limits.write_within.is_zero()),
        ];
        match is_zero.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => Err(SettingsError::Limit(name)),
            None => Ok(limits),
        }
    }
}

fn key_of(hex: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(key)
}

fn held_in(currencies: &[CurrencySettings]) -> Result<BTreeMap<PartitionHandle, u16>, SettingsError> {
    let (_, others) = currencies.split_first().ok_or(SettingsError::NoCurrency)?;
    // Whatever no currency names is of the first.
    if let Some(currency) = others.iter().find(|currency| currency.partitions.is_empty()) {
        return Err(SettingsError::HeldNowhere(currency.number));
    }
    let mut held_in = BTreeMap::new();
    for currency in currencies {
        for name in &currency.partitions {
            if held_in.insert(partition(name.clone())?, currency.number).is_some() {
                return Err(SettingsError::HeldTwice(name.clone()));
            }
        }
    }
    Ok(held_in)
}

fn partition(text: String) -> Result<PartitionHandle, SettingsError> {
    let parsed = text.split_once(':').and_then(|(shard, number)| {
        let number = number.parse::<u64>().ok().filter(|number| (1..1 << 48).contains(number))?;
        Some(PartitionHandle::new(ShardId(shard.parse().ok()?), number))
    });
    parsed.ok_or(SettingsError::Partition(text))
}

fn merchant((name, number): (String, u64)) -> Result<([u8; 15], MerchantId), SettingsError> {
    let is_printable = name.bytes().all(|unit| matches!(unit, b' '..=b'~'));
    if name.len() > 15 || name.is_empty() || !is_printable {
        return Err(SettingsError::Merchant(name));
    }
    let mut field = [b' '; 15];
    field[..name.len()].copy_from_slice(name.as_bytes());
    Ok((field, MerchantId(number)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
name = "acme"
listen = "127.0.0.1:8583"
header = "ascii4"
edition = "1993"
profile = "ascii_raw"
id_key_file = "acme.key"
needs_sign_on = false
book_file = "acme.book"
currency = [
    { number = 840, asset_decimals = 18, edge_decimals = 2 },
    { number = 978, asset_decimals = 18, edge_decimals = 2, partitions = ["0:3"] },
]
route = [
    { prefix = "4", partitions = ["0:1", "1:2"], former = ["0:4"] },
    { prefix = "", partitions = ["0:3"] },
    { prefix = "9", partitions = [], former = ["0:5"] },
]
merchants = { SHOP = 501 }
partial_mark = { field = 48, at = 2, unit = "P" }
mac = { algorithm = "aes_cmac", key_file = "acme.mac" }
tls = { certificate = "acme.pem", key = "acme.key.pem" }
limits = { in_flight = 16, echo_ms = 500 }
"#;

    fn load(text: &str, key: &str) -> Result<LinkConfig, SettingsError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("link.toml");
        std::fs::write(&file, text).unwrap();
        std::fs::write(directory.path().join("acme.key"), key).unwrap();
        LinkConfig::load(&file)
    }

    #[test]
    fn a_file_says_all_of_a_link() {
        let config = load(WHOLE, &("0f".repeat(32) + "\n")).unwrap();
        assert_eq!((config.rules.dialect, config.profile), (Dialect::V1993, Profile::ASCII_RAW));
        assert_eq!((config.header, config.needs_sign_on), (LengthHeader::Ascii4, false));
        assert_eq!(config.rules.id_key, IdKey([15; 32]));
        let routed = config.rules.route(b"4111".iter().copied()).unwrap();
        let expect = [PartitionHandle::new(ShardId(0), 1), PartitionHandle::new(ShardId(1), 2)];
        assert_eq!(routed.as_slice(), expect);
        assert_eq!(config.rules.route(b"5".iter().copied()).unwrap().as_slice().len(), 1);
        assert_eq!(config.rules.route(b"9".iter().copied()), None);
        let former = [b"4", b"5", b"9"].map(|card| config.rules.former(card.iter().copied()));
        assert_eq!(former.map(|former| former.into_iter().map(|of| of.0).sum::<u64>()), [4, 0, 5]);
        assert_eq!(config.rules.merchant(*b"SHOP           "), Some(MerchantId(501)));
        assert_eq!((config.rules.partial.field, config.rules.increase.field), (48, 60));
        assert_eq!((config.limits.in_flight_max, config.limits.echo_after.as_millis()), (16, 500));
        let held_in = |number| config.rules.held_in(PartitionHandle::new(ShardId(0), number));
        assert_eq!((held_in(3), held_in(4)), (Some(978), Some(840)));
        let mac = config.mac.unwrap();
        assert_eq!(mac.algorithm, MacAlgorithm::AesCmac);
        assert!(matches!(mac.source, MacSource::File(file) if file.ends_with("acme.mac")));
        let tls = config.tls.unwrap();
        assert!(tls.certificate.is_absolute() && tls.client_ca.is_none());
        assert!(config.book_file.unwrap().ends_with("acme.book"));
        assert_eq!(config.limits.connections_max, Limits::default().connections_max);
    }

    #[test]
    fn the_example_of_the_readme_is_a_link() {
        let (_, rest) = include_str!("../../../README.md").split_once("```toml\n").unwrap();
        let config = load(rest.split_once("```").unwrap().0, &"0f".repeat(32)).unwrap();
        assert_eq!((config.name.as_str(), config.needs_sign_on), ("acme", true));
        assert_eq!(config.rules.route(b"4111".iter().copied()).unwrap().as_slice().len(), 1);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let check = |from: &str, to: &str, expect: &str| {
            assert!(WHOLE.contains(from));
            let error = load(&WHOLE.replace(from, to), &"0f".repeat(32)).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check("name =", "nam =", "unknown field");
        check("\"1993\"", "\"2003\"", "unknown variant");
        check("\"0:3\"] }", "\"3\"] }", "`3` is no partition");
        check("\"1:2\"", "\"0:0\"", "`0:0` is no partition");
        check("[\"0:3\"] },\n    { prefix = \"9\"", "[] },\n    { prefix = \"9\"", "one to 4");
        check("[\"0:4\"]", "[\"0:4\", \"0:4\", \"0:4\", \"0:4\", \"0:4\"]", "one to 4");
        check("prefix = \"4\"", "prefix = \"x\"", "of digits");
        check("partitions = [\"0:3\"] },\n]\nroute", "},\n]\nroute", "no partition is held in currency 978");
        check("SHOP", "SHOPSHOPSHOPSHOP", "at most 15");
        check("\"P\"", "\"PP\"", "one printable character");
        check(
            "edge_decimals = 2 },\n    { n",
            "edge_decimals = 2, partitions = [\"0:3\"] }, { n",
            "of two currencies",
        );
        check("key_file = \"acme.mac\"", "key_env = \"A\", key_file = \"B\"", "either key_file or key_env");
        check("aes_cmac", "des", "unknown variant");
        check("\"acme.key.pem\"", "\"acme.key.pem\", client_revoked = \"revoked.pem\"", "wants client_ca");
        check("in_flight = 16", "in_flight = 0", "limits.in_flight is 0");
        assert!(matches!(load(WHOLE, "0f"), Err(SettingsError::Key)));
        assert!(matches!(load(WHOLE, &"0g".repeat(32)), Err(SettingsError::Key)));
        let missing = LinkConfig::load(Path::new("nowhere.toml"));
        assert!(matches!(missing, Err(SettingsError::File { .. })));
    }
}
