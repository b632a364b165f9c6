//! Where prices come from: an aggregator contract, a URL, a file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use alloy_primitives::{Address, I256, U256};
use alloy_sol_types::{SolCall, sol};
use chain::{At, Backend, Call, Tag};
use serde_json::value::RawValue;
use surety_protocol::Time;

use super::Quote;
use crate::decimal;

/// The most bytes of an answer or a file.
const BYTES_MAX: u64 = 1 << 20;

sol! {
    function decimals() external view returns (uint8);
    function latestRoundData() external view
        returns (uint80 roundId, int256 answer, uint256 startedAt, uint256 updatedAt, uint80 answeredInRound);
}

/// Says a price. Called from a thread that may wait.
pub trait PriceSource: Send + Sync + 'static {
    /// The present price.
    ///
    /// # Errors
    ///
    /// [`PriceTrouble`]; the others are asked nevertheless.
    fn quote(&self) -> Result<Quote, PriceTrouble>;

    /// What to call it when it is in trouble; no secrets.
    fn name(&self) -> String;
}

/// A source without a price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceTrouble {
    /// It does not answer.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// What it says is no price.
    #[error("no price: {0}")]
    Nonsense(String),
}

/// A contract with `decimals` and `latestRoundData`, as price feeds on Ethereum have them.
#[derive(Debug)]
pub struct Aggregator<B> {
    node: B,
    contract: Address,
    places: u8,
}

impl<B: Backend> Aggregator<B> {
    /// A contract whose answer is the price of one token in units of the quote currency, of which the engine's base unit is
    /// 10^-`places`.
    pub const fn new(node: B, contract: Address, places: u8) -> Self {
        Self { node, contract, places }
    }

    fn call<C: SolCall>(&self, call: &C) -> Result<C::Return, PriceTrouble> {
        let call = Call { from: Address::ZERO, to: self.contract, input: call.abi_encode().into() };
        let answer = self.node.call(&call, At::Tag(Tag::Latest));
        let answer = answer.map_err(|error| PriceTrouble::Unreachable(error.to_string()))?;
        C::abi_decode_returns(&answer).map_err(|error| PriceTrouble::Nonsense(error.to_string()))
    }
}

impl<B: Backend + Send + Sync + 'static> PriceSource for Aggregator<B> {
    fn quote(&self) -> Result<Quote, PriceTrouble> {
        let decimals = self.call(&decimalsCall {})?;
        let round = self.call(&latestRoundDataCall {})?;
        if round.answer <= I256::ZERO {
            return Err(PriceTrouble::Nonsense(format!("an answer of {}", round.answer)));
        }
        if round.answeredInRound < round.roundId || round.updatedAt.is_zero() {
            return Err(PriceTrouble::Nonsense("a round that is not answered".to_owned()));
        }
        let answer = round.answer.into_raw();
        let scale = |power: u8| U256::from(10).checked_pow(U256::from(power));
        let price = if self.places >= decimals {
            scale(self.places - decimals).and_then(|factor| answer.checked_mul(factor))
        } else {
            scale(decimals - self.places).map(|divisor| answer / divisor)
        };
        let price = price.and_then(|price| u128::try_from(price).ok());
        let seconds = u64::try_from(round.updatedAt).ok().and_then(|s| s.checked_mul(1_000_000_000));
        match (price, seconds) {
            (Some(price), Some(at)) => Ok(Quote { price, observed: Time(at) }),
            _ => Err(PriceTrouble::Nonsense("an answer out of range".to_owned())),
        }
    }

    fn name(&self) -> String {
        format!("aggregator {}", self.contract)
    }
}

/// A place in a JSON document where the price stands, as a number or as text, and perhaps the time, in seconds since the Unix
/// epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Keys on the way to the price.
    pub price: Vec<String>,
    /// Keys on the way to the time; none where the document has none, which then counts as of when it was read.
    pub time: Option<Vec<String>>,
}

/// A JSON document behind an `http` or `https` address.
#[derive(Debug)]
pub struct PriceUrl {
    agent: ureq::Agent,
    url: String,
    name: String,
    at: Places,
    places: u8,
}

impl PriceUrl {
    /// A document. `name` is what it is called in logs, since addresses hold keys.
    #[must_use]
    pub fn new(url: &str, name: &str, at: Places, places: u8, timeout: Duration) -> Self {
        let configuration = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .max_redirects(0)
            .max_redirects_will_error(true)
            .proxy(None);
        let agent = configuration.build().into();
        Self { agent, url: url.to_owned(), name: name.to_owned(), at, places }
    }
}

impl PriceSource for PriceUrl {
    fn quote(&self) -> Result<Quote, PriceTrouble> {
        let unreachable = |error: ureq::Error| {
            PriceTrouble::Unreachable(match error {
                ureq::Error::BadUri(_) | ureq::Error::Http(_) => "its address is none".to_owned(),
                other => other.to_string(),
            })
        };
        let mut response = self.agent.get(&self.url).call().map_err(unreachable)?;
        let text =
            response.body_mut().with_config().limit(BYTES_MAX).read_to_string().map_err(unreachable)?;
        read(&text, &self.at, self.places, now())
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// A JSON document in a file, which somebody else replaces whole. Without a time in it, it is as old as the file.
#[derive(Debug)]
pub struct PriceFile {
    path: PathBuf,
    at: Places,
    places: u8,
}

impl PriceFile {
    /// A file.
    #[must_use]
    pub const fn new(path: PathBuf, at: Places, places: u8) -> Self {
        Self { path, at, places }
    }
}

impl PriceSource for PriceFile {
    fn quote(&self) -> Result<Quote, PriceTrouble> {
        let unreachable = |error: std::io::Error| PriceTrouble::Unreachable(error.to_string());
        let about = std::fs::metadata(&self.path).map_err(unreachable)?;
        if about.len() > BYTES_MAX {
            return Err(PriceTrouble::Nonsense("a file of more than a mebibyte".to_owned()));
        }
        let written = about.modified().map_err(unreachable)?;
        let text = std::fs::read_to_string(&self.path).map_err(unreachable)?;
        read(&text, &self.at, self.places, moment(written))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn read(text: &str, at: &Places, places: u8, otherwise: Time) -> Result<Quote, PriceTrouble> {
    let number = |keys: &[String], places: u8| {
        let found = find(text, keys);
        let found = found.ok_or_else(|| PriceTrouble::Nonsense(format!("nothing at {}", keys.join("/"))))?;
        decimal::read(found.trim_matches('"'), places)
            .ok_or_else(|| PriceTrouble::Nonsense(format!("no number at {}", keys.join("/"))))
    };
    let price = number(&at.price, places)?;
    let observed = match &at.time {
        None => otherwise,
        Some(keys) => {
            let nanoseconds = number(keys, 9)?;
            let out_of_range = |_| PriceTrouble::Nonsense("a time out of range".to_owned());
            Time(u64::try_from(nanoseconds).map_err(out_of_range)?)
        }
    };
    Ok(Quote { price, observed })
}

/// The text of a value in a document, numbers as they are written.
fn find<'a>(text: &'a str, keys: &[String]) -> Option<&'a str> {
    let Some((first, rest)) = keys.split_first() else { return Some(text.trim()) };
    let inner: &RawValue = match serde_json::from_str::<BTreeMap<String, &RawValue>>(text) {
        Ok(object) => object.get(first).copied()?,
        Err(_) => {
            let list: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            list.get(first.parse::<usize>().ok()?).copied()?
        }
    };
    find(inner.get(), rest)
}

pub(super) fn now() -> Time {
    moment(std::time::SystemTime::now())
}

fn moment(at: std::time::SystemTime) -> Time {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
