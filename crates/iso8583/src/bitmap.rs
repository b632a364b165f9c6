//! Which fields a message has.

use core::fmt;

/// The fields 1 to 128 that are present; field 1 is the second bitmap itself.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Bitmap(u128);

impl Bitmap {
    /// Reads the first bitmap.
    #[must_use]
    pub(crate) const fn of_first(bytes: [u8; 8]) -> Self {
        Self((u64::from_be_bytes(bytes) as u128) << 64)
    }

    /// The same with the second bitmap behind it.
    #[must_use]
    pub(crate) const fn and_second(self, bytes: [u8; 8]) -> Self {
        Self(self.0 | u64::from_be_bytes(bytes) as u128)
    }

    /// True if the field is present. No field has a number of 0 or above 128.
    #[must_use]
    pub const fn has(self, field: u8) -> bool {
        self.0 & bit(field) != 0
    }

    /// The same with the field.
    #[must_use]
    pub const fn with(self, field: u8) -> Self {
        Self(self.0 | bit(field))
    }

    /// The same without the field.
    #[must_use]
    pub const fn without(self, field: u8) -> Self {
        Self(self.0 & !bit(field))
    }

    /// True if a field above 64 is present, so that a second bitmap is needed.
    #[must_use]
    pub const fn needs_second(self) -> bool {
        self.0 & u64::MAX as u128 != 0
    }

    /// The sixteen bytes of both bitmaps.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The present fields from 2 to 128, in ascending order.
    pub fn fields(self) -> impl Iterator<Item = u8> {
        let mut rest = self.without(1).0;
        core::iter::from_fn(move || {
            let zeros = rest.leading_zeros();
            rest &= !(1_u128 << 127).checked_shr(zeros)?;
            u8::try_from(zeros + 1).ok()
        })
    }
}

const fn bit(field: u8) -> u128 {
    if field == 0 || field > 128 { 0 } else { 1 << (128 - field) }
}

impl fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.fields()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn every_field_has_its_bit() {
        for field in 2..=128 {
            let one = Bitmap::default().with(field);
            assert_eq!(one.fields().collect::<Vec<_>>(), [field]);
            assert_eq!(one.needs_second(), field > 64);
            assert!(one.has(field) && !one.without(field).has(field));
        }
        assert_eq!(Bitmap::default().with(0).with(129).with(255), Bitmap::default());
        let first = Bitmap::of_first([0xc0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(first.fields().collect::<Vec<_>>(), [2, 64]);
        let both = first.and_second([0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(both.fields().collect::<Vec<_>>(), [2, 64, 128]);
        assert_eq!(both.to_bytes()[15], 1);
    }
}
