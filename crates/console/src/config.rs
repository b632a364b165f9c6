//! What a console is started with.

use std::net::SocketAddr;

use history::Asker;
use surety_protocol::{AssetId, Policy};

use crate::site::TlsFiles;

/// Settings of a console.
#[derive(Clone, Debug)]
pub struct ConsoleConfig {
    /// Where it listens: without TLS, an address of the loopback.
    pub listen: SocketAddr,
    /// What it speaks TLS with; none for plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How the collateral is called and written; what is not here is shown in base units.
    pub assets: Vec<Asset>,
    /// How the history is asked, where somebody keeps one; none: nobody is asked.
    pub history: Option<Asker>,
    /// How policies are written.
    pub policy: PolicyWords,
    /// The metrics listener of this engine's settler, which is asked how batches stand; none where there is no settler.
    pub settler: Option<SocketAddr>,
}

/// How an asset is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Which, by the operator's numbering.
    pub id: AssetId,
    /// Its name for people.
    pub name: String,
    /// Decimal places: 18 where 10^18 base units are one.
    pub decimals: u8,
}

impl Asset {
    /// Amp, as asset 1 with 18 decimal places.
    #[must_use]
    pub fn amp() -> Self {
        Self { id: AssetId(1), name: "AMP".to_owned(), decimals: 18 }
    }

    /// Reads `NUMBER=NAME/DECIMALS`, such as `1=AMP/18`.
    ///
    /// # Errors
    /// What to write instead.
    pub fn read(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` names no asset; write NUMBER=NAME/DECIMALS, for example 1=AMP/18");
        let (id, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (name, decimals) = rest.rsplit_once('/').ok_or_else(wrong)?;
        let id = AssetId(id.parse().map_err(|_| wrong())?);
        // More places than an amount has digits would say nothing.
        let decimals: u8 = decimals.parse().ok().filter(|places| *places <= 38).ok_or_else(wrong)?;
        let is_name = (1..=12).contains(&name.chars().count()) && !name.chars().any(char::is_control);
        if is_name { Ok(Self { id, name: name.to_owned(), decimals }) } else { Err(wrong()) }
    }
}

/// How policies are written: in the words of `surety ctl policy`, which this crate does not know.
#[derive(Clone, Copy, Debug)]
pub struct PolicyWords {
    /// A policy's rules by their names.
    pub write: fn(&Policy) -> serde_json::Value,
    /// The policy that such rules make, or what is wrong with them.
    pub read: fn(&serde_json::Value) -> Result<Policy, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assets_are_read_strictly() {
        assert_eq!(Asset::read("1=AMP/18"), Ok(Asset::amp()));
        assert_eq!(Asset::read("7=a/b/0").map(|asset| asset.name), Ok("a/b".to_owned()));
        for wrong in ["", "1", "AMP/18", "1=AMP", "1=/18", "x=AMP/18", "1=AMP/39", "1=AMP/-1", "1=a\u{7}/2"] {
            assert!(Asset::read(wrong).is_err(), "{wrong}");
        }
    }
}
