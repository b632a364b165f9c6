//! What a field may hold, how long it may be, and how much of it may be shown.

/// The highest field number.
pub const FIELDS_MAX: u8 = 128;

/// One field of a dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldSpec {
    /// What it may hold.
    pub content: Content,
    /// How long it may be.
    pub size: Size,
    /// How much of it a log may show.
    pub shown: Shown,
    /// Its name in the standard.
    pub name: &'static str,
}

/// What a field may hold (ISO 8583:1987, 4.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// `n`: digits.
    Digits,
    /// `a`, `an`, `ans`, `anp` and `x+n`: printable characters. Hosts differ in which of them they really send.
    Text,
    /// `z`: tracks 2 and 3 of a card (ISO 7813): digits and the separator, `=` or `D`.
    Track,
    /// `b`: bytes.
    Bytes,
}

/// How long a field is: digits, characters or bytes, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Always so long.
    Fixed(u16),
    /// `LLVAR`: up to so long, behind two digits of length.
    Ll(u16),
    /// `LLLVAR`: up to so long, behind three digits of length.
    Lll(u16),
}

impl Size {
    /// The greatest length.
    #[must_use]
    pub const fn max(self) -> u16 {
        match self {
            Self::Fixed(max) | Self::Ll(max) | Self::Lll(max) => max,
        }
    }
}

/// How much of a field may be shown in a log. What is not known to be harmless shows its length alone: cards' data turns
/// up in every private field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// All of it.
    Plain,
    /// The first six and the last four digits, as PCI DSS 3.4.1 allows.
    Pan,
    /// Its length.
    Length,
}
