//! Fields as logs may show them.

use core::fmt;

use crate::Shown;

/// Prints a field as far as it may be shown.
pub(crate) struct Masked<I> {
    shown: Shown,
    units: I,
}

impl<I: ExactSizeIterator<Item = u8> + Clone> Masked<I> {
    pub(crate) const fn new(shown: Shown, units: I) -> Self {
        Self { shown, units }
    }
}

impl<I: ExactSizeIterator<Item = u8> + Clone> fmt::Debug for Masked<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.units.len();
        match self.shown {
            Shown::Length => write!(f, "[{length}]"),
            Shown::Plain => write_all(f, self.units.clone()),
            Shown::Pan => write_all(f, masked(self.units.clone())),
        }
    }
}

fn write_all(f: &mut fmt::Formatter<'_>, mut units: impl Iterator<Item = u8>) -> fmt::Result {
    units.try_for_each(|unit| write!(f, "{}", char::from(unit)))
}

/// The first six and the last four digits of a whole card number; of a shorter one, which would be nearly all of it, none.
fn masked(units: impl ExactSizeIterator<Item = u8>) -> impl Iterator<Item = u8> {
    let length = units.len();
    let is_shown = move |at: usize| length >= 15 && (at < 6 || at + 4 >= length);
    units.enumerate().map(move |(at, unit)| if is_shown(at) { unit } else { b'*' })
}
