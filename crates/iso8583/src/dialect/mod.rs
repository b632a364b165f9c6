//! The fields of each edition of the standard, as tables.

mod v1987;
mod v1993;

use crate::{Content, FIELDS_MAX, FieldSpec, Shown, Size, Version};

/// Which edition of the standard a link speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// ISO 8583:1987.
    V1987,
    /// ISO 8583:1993.
    V1993,
}

impl Dialect {
    /// The field's entry in the table. None for bitmaps and for what the edition has not.
    #[must_use]
    #[inline]
    pub const fn field(self, field: u8) -> Option<&'static FieldSpec> {
        if field > FIELDS_MAX {
            return None;
        }
        let table = match self {
            Self::V1987 => &V1987,
            Self::V1993 => &V1993,
        };
        table[field as usize].as_ref()
    }

    /// The first digit of its message types.
    #[must_use]
    pub const fn version(self) -> Version {
        match self {
            Self::V1987 => Version::V1987,
            Self::V1993 => Version::V1993,
        }
    }
}

type Table = [Option<FieldSpec>; FIELDS_MAX as usize + 1];
type Row = (u8, FieldSpec);

static V1987: Table = table(&v1987::ROWS);
static V1993: Table = table(&v1993::ROWS);

const fn row(field: u8, content: Content, size: Size, shown: Shown, name: &'static str) -> Row {
    (field, FieldSpec { content, size, shown, name })
}

const fn table(rows: &[Row]) -> Table {
    let mut table = [None; FIELDS_MAX as usize + 1];
    let mut at = 0;
    while at < rows.len() {
        let (field, spec) = rows[at];
        assert!(table[field as usize].is_none(), "a field has one row");
        table[field as usize] = Some(spec);
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_whole() {
        for dialect in [Dialect::V1987, Dialect::V1993] {
            for field in 0..=255 {
                // Of the 1987 edition field 65 is the third bitmap.
                let is_missing = matches!(field, 0 | 1 | 129..) || field == 65 && dialect == Dialect::V1987;
                assert_eq!(dialect.field(field).is_none(), is_missing, "{dialect:?} {field}");
            }
            let shown = |field| dialect.field(field).map(|spec| spec.shown);
            // Numbers of cards and accounts, tracks, PINs, chip data, keys, and what nobody has defined.
            for field in [2, 34, 102, 103] {
                assert_eq!(shown(field), Some(Shown::Pan));
            }
            let hidden = [14, 35, 36, 45, 48, 52, 53, 55, 60, 63, 64, 96, 104, 120, 127, 128];
            for field in hidden {
                assert_eq!(shown(field), Some(Shown::Length), "{field}");
            }
            let lengths = (2..=FIELDS_MAX).filter_map(|field| dialect.field(field)).map(|spec| spec.size);
            for size in lengths {
                assert!(match size {
                    Size::Fixed(length) => length > 0,
                    Size::Ll(max) => max <= 99,
                    Size::Lll(max) => max <= 999,
                });
            }
        }
    }
}
