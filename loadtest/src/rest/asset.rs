//! Amounts as the door writes them. A scenario's amounts are the smallest that the door tells: cents, of an asset that it tells with
//! two decimals.

use std::str::FromStr;

use surety_protocol::Amount;

/// Decimals that an amount can have.
const DECIMALS_MAX: u8 = 31;

/// The asset of a scenario's partitions, as the door's settings have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// What applications call it.
    pub name: String,
    /// Decimals that it has on chain.
    pub decimals: u8,
    /// Decimals that amounts are told with.
    pub scale: u8,
}

/// A text that is no asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an asset: write NAME:DECIMALS:SCALE as the door's settings have them, such as AMP:18:2")]
pub struct AssetError;

impl FromStr for Asset {
    type Err = AssetError;

    fn from_str(text: &str) -> Result<Self, AssetError> {
        let mut parts = text.split(':');
        let (Some(name), Some(decimals), Some(scale), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AssetError);
        };
        let number = |text: &str| text.parse::<u8>().map_err(|_| AssetError);
        let asset = Self { name: name.to_owned(), decimals: number(decimals)?, scale: number(scale)? };
        let is_sound =
            !asset.name.is_empty() && asset.scale <= asset.decimals && asset.decimals <= DECIMALS_MAX;
        if is_sound { Ok(asset) } else { Err(AssetError) }
    }
}

impl Asset {
    /// Base units of the smallest amount that is told.
    pub(crate) const fn step(&self) -> u128 {
        10_u128.pow(self.decimals as u32 - self.scale as u32)
    }

    /// So many of the smallest amounts, as the door reads them.
    pub(crate) fn write(&self, units: Amount) -> String {
        let digits = format!("{:0>width$}", units.0, width = usize::from(self.scale) + 1);
        let (whole, part) = digits.split_at(digits.len() - usize::from(self.scale));
        if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") }
    }

    /// The smallest amounts in what the door has told; none if it is no such text.
    pub(crate) fn read(&self, text: &str) -> Option<Amount> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
        if whole.is_empty() || part.len() != usize::from(self.scale) || !is_number(whole) || !is_number(part)
        {
            return None;
        }
        format!("{whole}{part}").parse().ok().map(Amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_and_read_back() {
        let asset: Asset = "AMP:18:2".parse().unwrap();
        assert_eq!(asset.step(), 10_u128.pow(16));
        for (units, text) in [(1, "0.01"), (100, "1.00"), (123_456, "1234.56"), (0, "0.00")] {
            assert_eq!(asset.write(Amount(units)), text);
            assert_eq!(asset.read(text), Some(Amount(units)));
        }
        let whole: Asset = "X:0:0".parse().unwrap();
        assert_eq!((whole.write(Amount(7)), whole.read("7"), whole.step()), ("7".into(), Some(Amount(7)), 1));
        for text in ["", ".", "1", "1.0", "1.000", "-1.00", "1.0a"] {
            assert_eq!(asset.read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_asset_is_refused() {
        for text in ["", "AMP", "AMP:18", ":18:2", "AMP:2:18", "AMP:32:2", "AMP:18:2:1", "AMP:x:2"] {
            assert_eq!(text.parse::<Asset>(), Err(AssetError), "{text}");
        }
    }
}
