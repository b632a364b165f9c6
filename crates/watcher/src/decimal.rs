//! Decimal numbers as strangers write them, without floating point.

/// Reads a decimal number as a whole number of units of 10^-`places`, rounded down. None for what is no plain number, is
/// negative, or is too large; an exponent is allowed.
pub(crate) fn read(text: &str, places: u8) -> Option<u128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let shift = i32::from(exponent) + i32::from(places) - i32::try_from(fraction.len()).ok()?;
    let power = 10_u128.checked_pow(shift.unsigned_abs());
    if shift >= 0 {
        if digits == 0 { Some(0) } else { digits.checked_mul(power?) }
    } else {
        // Beyond every digit nothing is left.
        Some(power.map_or(0, |power| digits / power))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for (text, places, expected) in [
            ("0.00010000", 8, Some(10_000)),
            ("21000000.00000000", 8, Some(2_100_000_000_000_000)),
            ("1e-8", 8, Some(1)),
            ("1.5E3", 0, Some(1500)),
            ("0.29", 2, Some(29)),
            ("1.999", 2, Some(199)),
            ("1e-9", 8, Some(0)),
            ("0e999", 8, Some(0)),
            ("7", 0, Some(7)),
            ("1e40", 0, None),
            ("340282366920938463463374607431768211456", 0, None),
            ("-1", 8, None),
            ("+1", 8, None),
            ("", 8, None),
            (".5", 8, None),
            ("1.2.3", 8, None),
            ("0x10", 8, None),
            ("NaN", 8, None),
            ("1e99999", 8, None),
            ("\"1\"", 8, None),
        ] {
            assert_eq!(read(text, places), expected, "{text}");
        }
    }
}
