//! What a chain shows: blocks, and who was paid in them. And what is waited for: watches.

use core::fmt;

use alloy_primitives::{Address, B256};
use serde::{Deserialize, Serialize};
use surety_protocol::{AssetId, Id, PartitionHandle, ReleaseRule, TenantId, Time};

use crate::json;

/// An address of a payer's chain, as that chain writes it; those of Ethereum in small letters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Account(String);

/// The most letters of an address; the longest of Bitcoin have 90.
const ACCOUNT_LETTERS_MAX: usize = 128;

/// A block by number and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRef {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
}

/// A block, as far as payments are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenBlock {
    /// Which.
    pub at: BlockRef,
    /// The one before.
    pub parent: B256,
    /// Seconds since the Unix epoch, as its producer says.
    pub time_s: u64,
    /// Whoever was paid in the watched asset, in order.
    pub payments: Vec<Payment>,
}

/// A transfer that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// To whom.
    pub to: Account,
    /// How much, in the asset's base units.
    pub amount: u128,
}

/// Names a watch: there is one for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WatchKey {
    /// Whose lock.
    #[serde(with = "json::tenant")]
    pub tenant: TenantId,
    /// Where it is held.
    #[serde(with = "json::partition")]
    pub partition: PartitionHandle,
    /// Its id.
    #[serde(with = "json::id")]
    pub lock: Id,
}

/// A payment that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// For which lock.
    pub key: WatchKey,
    /// In which asset, by the operator's numbering.
    #[serde(with = "json::asset")]
    pub asset: AssetId,
    /// To which address: one that is used for this payment alone.
    pub to: Account,
    /// How much in all, in the asset's base units.
    #[serde(with = "json::amount")]
    pub amount: u128,
    /// Blocks that a payment must have, its own included, to count as final.
    pub confirmations: u32,
    /// The last second of the chain's time in which a payment is in time.
    pub deadline_s: u64,
    /// If the payment fails, what the lock still holds is owed to the merchant too, not only what was captured. Not for locks in
    /// a quote currency.
    #[serde(default)]
    pub owes_held: bool,
}

/// A watch that makes no sense, or that the partition's rule does not want.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Nothing to wait for.
    #[error("a payment of nothing")]
    NoAmount,
    /// Zero, or more than are kept.
    #[error("{0} confirmations: at least 1, at most {CONFIRMATIONS_MAX}")]
    Confirmations(u32),
    /// The partition's release rule is `manual`: whoever has the right settles and consumes.
    #[error("the partition's release rule is `manual`: somebody with the right settles or consumes")]
    Manual,
    /// The partition's release rule is `timeout`: the engine decides at the settle-by time.
    #[error("the partition's release rule is `timeout`: the engine decides at the settle-by time")]
    Timeout,
    /// The partition's release rule is about another asset.
    #[error("the partition's release rule is about asset {0}")]
    OtherAsset(AssetId),
}

/// The most confirmations that can be asked for; so many blocks are kept in memory.
pub const CONFIRMATIONS_MAX: u32 = 1_000;

fn ethereum_address(text: &str) -> Option<Address> {
    let digits = text.strip_prefix("0x")?;
    let has = |test: fn(&u8) -> bool| digits.bytes().any(|byte| test(&byte));
    let is_mixed = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    if is_mixed { Address::parse_checksummed(text, None).ok() } else { text.parse().ok() }
}

impl Account {
    /// Takes an address, in the one form that is compared. None for what no chain writes: an address of Ethereum must be one, and
    /// if its letters are mixed they must be its checksum (EIP-55). Whether it is one of the watched chain the source knows.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = text.len() <= ACCOUNT_LETTERS_MAX
            && !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_plain {
            return None;
        }
        if text.starts_with("0x") || text.starts_with("0X") {
            return ethereum_address(text).map(|address| Self(format!("{address:#x}")));
        }
        // Those with a readable prefix (BIP 173) may be written in large letters throughout.
        let is_large = !text.bytes().any(|byte| byte.is_ascii_lowercase());
        let has_prefix = ["BC1", "TB1", "BCRT1"].iter().any(|prefix| text.starts_with(prefix));
        Some(Self(if is_large && has_prefix { text.to_ascii_lowercase() } else { text.to_owned() }))
    }

    /// The address, if it is one of Ethereum.
    #[must_use]
    pub fn ethereum(&self) -> Option<Address> {
        ethereum_address(&self.0)
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::new(&text).ok_or_else(|| serde::de::Error::custom("not an address"))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for WatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lock {} of tenant {} in {}", self.lock, self.tenant, self.partition)
    }
}

impl Watch {
    /// Takes asset and confirmations from the partition's release rule, which is what decides.
    ///
    /// # Errors
    ///
    /// [`WatchError`], for the rules that want no watch too.
    pub fn by_rule(mut self, rule: ReleaseRule) -> Result<Self, WatchError> {
        match rule {
            ReleaseRule::Manual => Err(WatchError::Manual),
            ReleaseRule::Timeout => Err(WatchError::Timeout),
            ReleaseRule::Confirmations { asset, .. } if asset != self.asset => {
                Err(WatchError::OtherAsset(asset))
            }
            ReleaseRule::Confirmations { count, .. } => {
                self.confirmations = count;
                self.check()?;
                Ok(self)
            }
        }
    }

    /// Whether it can be waited for.
    ///
    /// # Errors
    ///
    /// [`WatchError::NoAmount`] and [`WatchError::Confirmations`].
    pub const fn check(&self) -> Result<(), WatchError> {
        if self.amount == 0 {
            return Err(WatchError::NoAmount);
        }
        if self.confirmations == 0 || self.confirmations > CONFIRMATIONS_MAX {
            return Err(WatchError::Confirmations(self.confirmations));
        }
        Ok(())
    }

    /// The deadline as the engine writes moments.
    #[must_use]
    pub const fn deadline(&self) -> Time {
        Time(self.deadline_s.saturating_mul(1_000_000_000))
    }
}
