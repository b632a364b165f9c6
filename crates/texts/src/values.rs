//! What people type and read: amounts, spans of time, moments, handles, addresses.

use core::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use surety_protocol::limits::{AMOUNT_MAX, UNITS_MAX};
use surety_protocol::{Address, Amount, Id, PartitionHandle, Rights, ShardId, Time};

/// Reads an amount in base units: `1500`, `1_500`, `1.5e18`.
pub fn amount(text: &str) -> Result<Amount, String> {
    whole(text, AMOUNT_MAX)
}

/// Reads units of a stake, written as amounts are; there may be more of them.
pub fn units(text: &str) -> Result<Amount, String> {
    whole(text, UNITS_MAX)
}

fn whole(text: &str, max: u128) -> Result<Amount, String> {
    let wrong = || format!("`{text}` is not an amount; write base units like 1500, 1_500 or 1.5e18");
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let (mantissa, exponent) = match plain.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<u32>().map_err(|_| wrong())?),
        None => (plain.as_str(), 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let decimals = u32::try_from(fraction.len()).map_err(|_| wrong())?;
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let zeros = exponent.checked_sub(decimals).ok_or_else(wrong)?;
    let scale = 10_u128.checked_pow(zeros);
    let value = digits.parse::<u128>().ok().zip(scale).and_then(|(digits, scale)| digits.checked_mul(scale));
    match value {
        Some(value) if value <= max => Ok(Amount(value)),
        _ => Err(format!("`{text}` is more than there can be ({max})")),
    }
}

/// Reads a span: `250ms`, `10s`, `5m`, `2h`, `30d`, `0`.
pub fn span(text: &str) -> Result<Time, String> {
    const UNITS: [(&str, u64); 7] = [
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
        ("d", 86_400_000_000_000),
    ];
    let wrong = || format!("`{text}` is not a span of time; write a number and ns, us, ms, s, m, h or d");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = digits.replace('_', "").parse().map_err(|_| wrong())?;
    if unit.is_empty() && number == 0 {
        return Ok(Time::ZERO);
    }
    let (_, nanos) = UNITS.into_iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
    number.checked_mul(nanos).map(Time).ok_or_else(wrong)
}

/// Reads a span of time that must not be 0.
pub fn some_span(text: &str) -> Result<Time, String> {
    match span(text)? {
        Time::ZERO => Err(format!("`{text}` is no time at all")),
        some => Ok(some),
    }
}

/// Writes a span in the largest unit that divides it.
pub fn span_text(span: Time) -> String {
    const UNITS: [(&str, u64); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    if span == Time::ZERO {
        return "0".to_owned();
    }
    let unit = UNITS.into_iter().find(|(_, nanos)| span.0.is_multiple_of(*nanos));
    unit.map_or_else(|| format!("{}ns", span.0), |(name, nanos)| format!("{}{name}", span.0 / nanos))
}

/// Writes a moment as RFC 3339 in UTC, to the nanosecond; `-` for no time at all.
pub fn moment_text(at: Time) -> String {
    if at == Time::ZERO { "-".to_owned() } else { exact_moment_text(at) }
}

/// The same of a moment that somebody has named: also the first one there is.
pub fn exact_moment_text(at: Time) -> String {
    let (seconds, nanos) = (at.0 / 1_000_000_000, at.0 % 1_000_000_000);
    let (year, month, day) = date(seconds / 86_400);
    let second_of_day = seconds % 86_400;
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Reads a moment as [`moment_text`] writes it; the fraction of the second may be shorter, or left out.
pub fn moment(text: &str) -> Result<Time, String> {
    let wrong = || format!("`{text}` is not a moment; write it like 2026-11-22T14:00:00Z, in UTC");
    read_moment(text).ok_or_else(wrong)
}

fn read_moment(text: &str) -> Option<Time> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let numbers = |text: &str, separator: char, digits: [usize; 3]| -> Option<[u64; 3]> {
        let parts: Vec<&str> = text.split(separator).collect();
        let is_shaped = parts.len() == 3 && parts.iter().zip(digits).all(|(part, count)| part.len() == count);
        let is_number = parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let mut numbers = parts.iter().filter_map(|part| part.parse().ok());
        (is_shaped && is_number).then_some([numbers.next()?, numbers.next()?, numbers.next()?])
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let is_fraction = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let nanos: u64 = format!("{fraction:0<9}").parse().ok().filter(|_| is_fraction)?;
    let is_time = hour < 24 && minute < 60 && second < 60;
    let days = days_before(year, month, day).filter(|_| is_time)?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos).map(Time)
}

/// Days from the Unix epoch to a date, which must be one: the inverse of [`date`].
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    let from_march = if month > 2 { month.checked_sub(3)? } else { month.checked_add(9)? };
    let year_from_march = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year_from_march / 400, year_from_march % 400);
    let day_of_year = (153 * from_march + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    (date(days) == (year, month, day)).then_some(days)
}

/// Year, month and day of a day counted from the Unix epoch, in the proleptic Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Years that begin in March end with the leap day, so that every month but the last has a fixed place.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Reads a partition handle: `shard:number`.
pub fn partition(text: &str) -> Result<PartitionHandle, String> {
    let wrong = || format!("`{text}` is not a partition; write shard:number, for example 0:1");
    let (shard, number) = text.split_once(':').ok_or_else(wrong)?;
    let shard: u16 = shard.parse().map_err(|_| wrong())?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    if number == 0 || number >= 1 << 48 {
        return Err(format!("`{text}`: partitions of a shard are numbered from 1"));
    }
    Ok(PartitionHandle::new(ShardId(shard), number))
}

/// Reads a partition, or `shard:0`: what is said of a shard itself, as prices and merchants are.
pub fn place(text: &str) -> Result<PartitionHandle, String> {
    match text.strip_suffix(":0").map(str::parse) {
        Some(Ok(shard)) => Ok(PartitionHandle::new(ShardId(shard), 0)),
        _ => partition(text),
    }
}

/// Reads a UUID.
pub fn id(text: &str) -> Result<Id, String> {
    Id::parse(text).ok_or_else(|| format!("`{text}` is not a UUID"))
}

/// Reads an address that is not zero.
pub fn somebody(text: &str) -> Result<Address, String> {
    let address = address(text)?;
    if address == Address::default() { Err("nobody has the address zero".to_owned()) } else { Ok(address) }
}

/// Reads a 20-byte address in hexadecimal.
pub fn address(text: &str) -> Result<Address, String> {
    hex::<20>(text).map(Address).ok_or_else(|| format!("`{text}` is not an address; write 0x and 40 digits"))
}

/// Reads a partition's 32-byte id on chain in hexadecimal.
pub fn onchain(text: &str) -> Result<[u8; 32], String> {
    hex::<32>(text).ok_or_else(|| format!("`{text}` is not an id on chain; write 0x and 64 digits"))
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// Writes bytes in hexadecimal, with `0x`.
pub fn hex_text(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold("0x".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

const RIGHTS: [(&str, Rights); 5] = [
    ("authorize", Rights::AUTHORIZE),
    ("settle", Rights::SETTLE),
    ("consume", Rights::CONSUME),
    ("advise", Rights::ADVISE),
    ("read", Rights::READ),
];

/// Reads rights on a partition: `authorize,read`, `all`, `none`.
pub fn rights(text: &str) -> Result<Rights, String> {
    match text {
        "all" => return Ok(Rights::KNOWN),
        "none" => return Ok(Rights::default()),
        _ => {}
    }
    text.split(',').try_fold(Rights::default(), |rights, name| {
        let known = RIGHTS.into_iter().find(|(known, _)| *known == name.trim());
        known.map(|(_, right)| rights | right).ok_or_else(|| {
            format!("`{name}` is not a right; there are authorize, settle, consume, advise, read, all, none")
        })
    })
}

/// Writes rights as they are read.
pub fn rights_text(rights: Rights) -> String {
    let names: Vec<&str> =
        RIGHTS.into_iter().filter(|(_, right)| rights.has(*right)).map(|(name, _)| name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}

/// An amount in settings and JSON: a decimal string, since JSON's numbers end at 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmountText(pub Amount);

/// An address in settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressText(pub Address);

/// A span in settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanText(pub Time);

impl Serialize for AmountText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for AddressText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for SpanText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&span_text(self.0))
    }
}

/// Reads a string, or a number as if it were one: what is expected, and what reads it.
pub struct TextVisitor<T>(pub &'static str, pub fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for AmountText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor("an amount in base units", amount)).map(Self)
    }
}

impl<'de> Deserialize<'de> for AddressText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor("an address like \"0x12...\"", address)).map(Self)
    }
}

impl<'de> Deserialize<'de> for SpanText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor("a span like \"10s\"", span)).map(Self)
    }
}

/// Reads a value the way TOML would, and as a plain string where it would not. What begins with `0x` is an address, also one of
/// so many zeros that it would pass for a number.
pub fn toml_value(text: &str) -> toml::Value {
    if text.starts_with("0x") {
        return toml::Value::String(text.to_owned());
    }
    let parsed = format!("value = {text}").parse::<toml::Table>();
    match parsed.ok().and_then(|mut table| table.remove("value")) {
        Some(toml::Value::Float(_) | toml::Value::Datetime(_)) | None => toml::Value::String(text.to_owned()),
        Some(value) => value,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn moments_are_read_as_they_are_written() {
        for seconds in [1, 86_399, 86_400, 951_782_400, 951_868_799, 1_700_000_000, 4_102_444_799] {
            let at = Time(seconds * 1_000_000_000 + 123_456_789);
            assert_eq!(moment(&moment_text(at)), Ok(at));
        }
        assert_eq!(moment("2001-09-09T01:46:40Z"), Ok(Time::from_secs(1_000_000_000)));
        assert_eq!(moment("1970-01-01T00:00:00.5Z"), Ok(Time::from_millis(500)));
        assert_eq!(moment(&exact_moment_text(Time::ZERO)), Ok(Time::ZERO));
        for bad in [
            "",
            "Z",
            "2026-11-22",
            "2026-11-22T14:00:00",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T14:00Z",
            "1969-12-31T23:59:59Z",
            "2026-1-02T00:00:00Z",
            "2026-11-22T14:00:00.Z",
            "2026-11-22T14:00:00.1234567890Z",
            "+026-11-22T14:00:00Z",
            "2026-00-10T00:00:00Z",
        ] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    use super::*;

    #[test]
    fn amounts_are_read_exactly_or_not_at_all() {
        for (text, value) in
            [("0", 0), ("1_500", 1500), ("1.5e3", 1500), ("5e18", 5_000_000_000_000_000_000), ("0.25e2", 25)]
        {
            assert_eq!(amount(text), Ok(Amount(value)), "{text}");
        }
        assert!(amount("1e33").is_err());
        assert_eq!(units("1e33"), Ok(Amount(10_u128.pow(33))));
        assert!(units("1e38").is_err());
        for text in
            ["", "e3", "1.5", "-1", "1e99", "0x10", "1.25e1", "340282366920938463463374607431768211456"]
        {
            assert!(amount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_survive() {
        for text in ["0", "250ms", "10s", "5m", "2h", "30d", "1500us", "7ns"] {
            assert_eq!(span(text).map(span_text), Ok(text.to_owned()));
        }
        for text in ["", "10", "s", "10 weeks", "99999999999999d", "-1s", "1.5s"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_dates() {
        for (seconds, text) in [
            (1, "1970-01-01T00:00:01.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_700_000_000, "2023-11-14T22:13:20.000000000Z"),
            (4_102_444_799, "2099-12-31T23:59:59.000000000Z"),
        ] {
            assert_eq!(moment_text(Time::from_secs(seconds)), text);
        }
    }

    #[test]
    fn handles_rights_and_addresses_survive() {
        assert_eq!(partition("3:77").map(|handle| handle.to_string()), Ok("3:77".to_owned()));
        for text in ["", "1", "1:0", "x:1", "65536:1", "0:281474976710656"] {
            assert!(partition(text).is_err(), "{text}");
        }
        for text in ["authorize,read", "none", "authorize,settle,consume,advise,read"] {
            assert_eq!(rights(text).map(rights_text), Ok(text.to_owned()));
        }
        assert!(rights("fly").is_err());
        let text = format!("0x{}", "0aff".repeat(10));
        assert_eq!(address(&text).map(|address| address.to_string()), Ok(text.clone()));
        assert!(address(&text[..40]).is_err());
        assert_eq!(onchain(&"ab".repeat(32)).map(|id| hex_text(&id)), Ok(format!("0x{}", "ab".repeat(32))));
    }
}
