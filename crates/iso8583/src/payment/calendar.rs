//! Dates of messages, which leave out the year.

use surety_protocol::Time;

const DAY_NS: u64 = 24 * 3600 * 1_000_000_000;

/// The moment of `MMDDhhmmss` in UTC, in the year that brings it nearest to now. None if there is no such date.
pub(crate) fn moment(digits: [u8; 10], now: Time) -> Option<Time> {
    let [month, day, hour, minute, second] = pairs(digits)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let year = year_of(now);
    let within_day = (hour * 60 + minute) * 60 + second;
    let at = |year: u64| {
        let seconds = days_since_epoch(year, month, day)? * 24 * 3600 + within_day;
        Some(Time(seconds.checked_mul(1_000_000_000)?))
    };
    let candidates = [year.checked_sub(1)?, year, year + 1];
    candidates.into_iter().filter_map(at).min_by_key(|moment| moment.0.abs_diff(now.0))
}

/// A moment in UTC as field 7 says it: `MMDDhhmmss`.
#[must_use]
pub fn sent_at(moment: Time) -> [u8; 10] {
    let (year, seconds) = (year_of(moment), moment.0 / 1_000_000_000);
    let mut day = seconds / 86_400 - days_before(year);
    let mut month = 1;
    while day >= days_of(year, month) {
        day -= days_of(year, month);
        month += 1;
    }
    let pairs = [month, day + 1, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60];
    let mut digits = [b'0'; 10];
    for (digits, pair) in digits.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
        let digit = |value: u64| b'0' + u8::try_from(value % 10).unwrap_or(0);
        *digits = [digit(pair / 10), digit(pair)];
    }
    digits
}

/// A day of the calendar, counted from the first of January 1970: what a business day is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

impl Day {
    /// The day of a moment in UTC.
    #[must_use]
    pub fn of(moment: Time) -> Self {
        Self(u32::try_from(moment.0 / DAY_NS).unwrap_or(u32::MAX))
    }

    /// The day of `MMDD`, in the year that brings it nearest to now. None if there is none.
    #[must_use]
    pub fn from_month(digits: [u8; 4], now: Time) -> Option<Self> {
        let [a, b, c, d] = digits;
        moment([a, b, c, d, b'0', b'0', b'0', b'0', b'0', b'0'], now).map(Self::of)
    }

    /// The day of `YYMMDD`, in this century.
    #[must_use]
    pub fn from_year(digits: [u8; 6]) -> Option<Self> {
        let [year, month, day] = pairs(digits)?;
        u32::try_from(days_since_epoch(2000 + year, month, day)?).ok().map(Self)
    }

    /// `YYMMDD`; its last four are `MMDD`.
    #[must_use]
    pub fn digits(self) -> [u8; 6] {
        let moment = Time(u64::from(self.0).saturating_mul(DAY_NS));
        let [a, b, c, d, ..] = sent_at(moment);
        let digit = |value: u64| b'0' + u8::try_from(value % 10).unwrap_or(0);
        let year = year_of(moment);
        [digit(year / 10), digit(year), a, b, c, d]
    }
}

impl core::fmt::Display for Day {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [y, z, a, b, c, d] = self.digits().map(char::from);
        write!(f, "20{y}{z}-{a}{b}-{c}{d}")
    }
}

/// True for `MMDD`; the 29th of February is in some year.
pub(crate) fn is_date(digits: [u8; 4]) -> bool {
    pairs(digits).is_some_and(|[month, day]| day >= 1 && day <= days_of(2000, month))
}

/// True for `hhmmss`.
pub(crate) fn is_time(digits: [u8; 6]) -> bool {
    pairs(digits).is_some_and(|[hour, minute, second]| hour <= 23 && minute <= 59 && second <= 59)
}

fn pairs<const N: usize, const M: usize>(digits: [u8; N]) -> Option<[u64; M]> {
    let mut pairs = [0; M];
    for (pair, [tens, ones]) in pairs.iter_mut().zip(digits.as_chunks::<2>().0) {
        if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
            return None;
        }
        *pair = u64::from(tens - b'0') * 10 + u64::from(ones - b'0');
    }
    Some(pairs)
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

/// Days of a month; 0 for what is none.
const fn days_of(year: u64, month: u64) -> u64 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 0,
    }
}

/// Days from 1970 to the first of January of a year from 1970 on.
const fn days_before(year: u64) -> u64 {
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    (year - 1970) * 365 + leap_days
}

fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || day == 0 || day > days_of(year, month) {
        return None;
    }
    Some(days_before(year) + (1..month).map(|month| days_of(year, month)).sum::<u64>() + day - 1)
}

fn year_of(now: Time) -> u64 {
    let days = now.0 / DAY_NS;
    // Never too late: no year has more than 366 days.
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    year
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn moments_are_in_the_nearest_year() {
        // 2023-11-14 22:13:20 UTC, 2024-01-01 00:00:05, 2024-02-29 12:00:00, 2026-06-01 00:00:00.
        let (autumn, new_year, leap, summer) = (1_700_000_000, 1_704_067_205, 1_709_208_000, 1_780_272_000);
        let check = |text: &[u8; 10], now: u64, expect: Option<u64>| {
            let found = moment(*text, Time::from_secs(now));
            assert_eq!(found, expect.map(Time::from_secs), "{text:?} at {now}");
        };
        check(b"1114221320", autumn, Some(autumn));
        check(b"1114221320", autumn + 1000, Some(autumn));
        check(b"1231235959", new_year, Some(new_year - 6));
        check(b"0101000005", new_year - 10, Some(new_year));
        check(b"0229120000", leap, Some(leap));
        check(b"0229120000", summer, None);
        for bad in [b"1301000000", b"0001000000", b"0100000000", b"0431000000", b"0101240000", b"0101006000"]
        {
            check(bad, autumn, None);
        }
        check(b"0101000060", autumn, None);
    }

    #[test]
    fn moments_are_written_as_they_are_read() {
        for day in 0..800_u64 {
            let now = Time::from_secs(1_700_000_000 + day * 86_399);
            assert_eq!(moment(sent_at(now), now), Some(now));
        }
        assert_eq!(sent_at(Time::from_secs(1_700_000_000)), *b"1114221320");
        assert_eq!(sent_at(Time::from_secs(1_709_208_000)), *b"0229120000");
    }

    #[test]
    fn days_are_read_as_they_are_written() {
        let now = Time::from_secs(1_704_067_205);
        for day in (19_000..21_000).map(Day) {
            assert_eq!(Day::from_year(day.digits()), Some(day));
            let [_, _, month @ ..] = day.digits();
            if day.0.abs_diff(Day::of(now).0) < 180 {
                assert_eq!(Day::from_month(month, now), Some(day));
            }
        }
        assert_eq!((Day::of(now).to_string(), Day::of(now).digits()), ("2024-01-01".into(), *b"240101"));
        assert_eq!(Day::from_month(*b"1231", now), Some(Day(Day::of(now).0 - 1)));
        assert_eq!((Day::from_year(*b"230229"), Day::from_month(*b"0230", now)), (None, None));
    }

    #[test]
    fn dates_and_times_are_those_of_the_calendar() {
        assert!(is_date(*b"0229") && is_date(*b"1231") && is_time(*b"235959") && is_time(*b"000000"));
        assert!(!is_date(*b"0230") && !is_date(*b"1301") && !is_date(*b"0100"));
        assert!(!is_time(*b"240000") && !is_time(*b"006000") && !is_time(*b"000060"));
    }
}
