//! What people type and read beside [`::texts::values`]: shares of requests, and where spans go.

use core::fmt;

use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};
use telemetry::otlp::Collector;

pub(crate) use ::texts::values::*;

/// A share of all requests, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShareText(pub(crate) u32);

/// Reads a share of all: `0.001`, `1`; exact to a millionth, and never none.
pub(crate) fn share(text: &str) -> Result<ShareText, String> {
    let wrong = || format!("`{text}` is no share of requests; write 0.001 for one in a thousand, 1 for all");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return Err(wrong());
    }
    let millionths =
        |text: &str, digits: usize| format!("{text:0<digits$}").parse::<u64>().map_err(|_| wrong());
    let share = whole.parse::<u64>().map_err(|_| wrong())? * 1_000_000 + millionths(fraction, 6)?;
    u32::try_from(share).ok().filter(|share| (1..=1_000_000).contains(share)).map(ShareText).ok_or_else(wrong)
}

impl fmt::Display for ShareText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Where spans go, in settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CollectorText(pub(crate) Collector);

/// Reads the address of a collector.
pub(crate) fn collector(text: &str) -> Result<CollectorText, String> {
    Collector::read(text).map(CollectorText).map_err(|error| error.to_string())
}

impl Serialize for ShareText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for CollectorText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ShareText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor("a share like 0.001", share))
    }
}

impl<'de> Deserialize<'de> for CollectorText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor("an address like \"http://127.0.0.1:4318\"", collector))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_millionths_and_never_none() {
        for (text, millionths, shown) in [
            ("0.001", 1000, "0.001"),
            ("1", 1_000_000, "1"),
            ("1.0", 1_000_000, "1"),
            ("0.000001", 1, "0.000001"),
            ("0.25", 250_000, "0.25"),
        ] {
            assert_eq!(share(text), Ok(ShareText(millionths)), "{text}");
            assert_eq!(ShareText(millionths).to_string(), shown);
        }
        for text in ["", "0", "0.0", "0.0000001", "1.1", "2", "-1", ".5", "1e-3", "half", "99999999999"] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
