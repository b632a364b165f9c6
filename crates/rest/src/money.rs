//! Amounts as applications write them: decimal texts of a named asset, at a scale that the asset declares.

use iso8583::payment::Rounding;
use surety_client::protocol::{Amount, AssetId};

/// An asset at this front door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// What applications call it.
    pub name: String,
    /// What the engine calls it.
    pub id: AssetId,
    /// Decimals that it has on chain.
    pub decimals: u8,
    /// Decimals that amounts are told with; at most those on chain.
    pub scale: u8,
}

/// Decimals that a text of 2^104 base units can have.
pub(crate) const DECIMALS_MAX: u8 = 31;

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AmountError {
    /// It is no decimal number, or has more decimals than the asset.
    #[error("write a decimal number as text, such as \"12.50\", with no more decimals than the asset has")]
    Format,
    /// Nothing is left of it at the asset's scale, or there can be no such amount.
    #[error("no amount that can be asked for")]
    Range,
}

impl Asset {
    /// Base units of an amount. What is finer than the scale is rounded: up where collateral is locked, so that it is never too
    /// little, down where it is claimed, so that it is never too much.
    pub(crate) fn read(&self, text: &str, rounding: Rounding) -> Result<Amount, AmountError> {
        let (whole, part) = match text.split_once('.') {
            Some((_, "")) => return Err(AmountError::Format),
            Some((whole, part)) => (whole, part),
            None => (text, ""),
        };
        let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
        let is_plain = !whole.is_empty() && (whole == "0" || !whole.starts_with('0'));
        if !is_plain || !is_number(whole) || !is_number(part) || part.len() > usize::from(self.decimals) {
            return Err(AmountError::Format);
        }
        let mut base: u128 = 0;
        let padding = core::iter::repeat_n(b'0', usize::from(self.decimals) - part.len());
        for digit in whole.bytes().chain(part.bytes()).chain(padding) {
            base = base
                .checked_mul(10)
                .and_then(|base| base.checked_add(u128::from(digit - b'0')))
                .ok_or(AmountError::Range)?;
        }
        let step = self.step();
        let rest = base % step;
        let base = match rounding {
            Rounding::Up if rest > 0 => (base - rest).checked_add(step).ok_or(AmountError::Range)?,
            _ => base - rest,
        };
        Some(Amount(base)).filter(|amount| amount.0 > 0 && amount.is_in_range()).ok_or(AmountError::Range)
    }

    /// An amount at the asset's scale, and never more than it is.
    pub(crate) fn tell(&self, amount: Amount) -> String {
        decimal(amount.0 / self.step(), self.scale)
    }

    /// The same to the last base unit.
    pub(crate) fn tell_exactly(&self, amount: Amount) -> String {
        let text = decimal(amount.0, self.decimals);
        let fine = usize::from(self.decimals - self.scale);
        let zeros = text.bytes().rev().take(fine).take_while(|digit| *digit == b'0').count();
        text[..text.len() - zeros].trim_end_matches('.').to_owned()
    }

    fn step(&self) -> u128 {
        10_u128.pow(u32::from(self.decimals - self.scale))
    }
}

fn decimal(units: u128, decimals: u8) -> String {
    let digits = format!("{units:0>width$}", width = usize::from(decimals) + 1);
    let (whole, part) = digits.split_at(digits.len() - usize::from(decimals));
    if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMP: u128 = 1_000_000_000_000_000_000;

    fn asset(decimals: u8, scale: u8) -> Asset {
        Asset { name: "AMP".to_owned(), id: AssetId(1), decimals, scale }
    }

    #[test]
    fn locks_round_up_and_captures_round_down() {
        let amp = asset(18, 2);
        let check = |text: &str, up: u128, down: Option<u128>| {
            assert_eq!(amp.read(text, Rounding::Up), Ok(Amount(up * AMP / 100)), "{text}");
            let down = down.map(|cents| Amount(cents * AMP / 100)).ok_or(AmountError::Range);
            assert_eq!(amp.read(text, Rounding::Down), down, "{text}");
        };
        check("12.5", 1250, Some(1250));
        check("12", 1200, Some(1200));
        check("1.001", 101, Some(100));
        check("1.000000000000000001", 101, Some(100));
        check("0.000000000000000001", 1, None);
        check("0.01", 1, Some(1));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        let amp = asset(18, 2);
        for text in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "01", "00", "1,5", " 1", "1.0000000000000000000", "٣"]
        {
            assert_eq!(amp.read(text, Rounding::Up), Err(AmountError::Format), "{text}");
        }
        let huge = "9".repeat(60);
        for text in ["0", "0.00", huge.as_str(), "99999999999999999999"] {
            assert_eq!(amp.read(text, Rounding::Up), Err(AmountError::Range), "{text}");
        }
    }

    #[test]
    fn what_is_told_reads_back() {
        let check = |decimals, scale, base, told: &str, exact: &str| {
            let asset = asset(decimals, scale);
            assert_eq!(asset.tell(Amount(base)), told);
            assert_eq!(asset.tell_exactly(Amount(base)), exact);
        };
        check(18, 2, 12 * AMP + AMP / 2, "12.50", "12.50");
        check(18, 2, AMP / 1000, "0.00", "0.001");
        check(18, 18, 1, "0.000000000000000001", "0.000000000000000001");
        check(18, 0, 3 * AMP, "3", "3");
        check(18, 0, 3 * AMP + 1, "3", "3.000000000000000001");
        check(0, 0, 0, "0", "0");
        check(2, 2, 120, "1.20", "1.20");
    }
}
