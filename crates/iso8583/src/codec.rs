//! How messages are put into bytes: a dialect of fields, and a profile of encodings.

use crate::charset::{from_ebcdic, to_ebcdic};
use crate::{Content, Dialect};

/// All that two ends must agree on to read each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec {
    /// Which fields there are.
    pub dialect: Dialect,
    /// How they are encoded.
    pub profile: Profile,
}

/// How the parts of a message are encoded. Any combination is in use somewhere; the named ones are common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Text, and whatever else is written in characters.
    pub charset: Charset,
    /// Digits and tracks, the message type included.
    pub numerics: Numerics,
    /// Fields of bytes.
    pub binaries: Binaries,
    /// Bitmaps.
    pub bitmaps: Bitmaps,
    /// Length indicators.
    pub lengths: Lengths,
}

/// The characters of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// ASCII.
    Ascii,
    /// EBCDIC, code page 500.
    Ebcdic,
}

/// How digits are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numerics {
    /// A character each.
    Characters,
    /// Two in a byte. An odd count has a zero in front; a track has an F behind.
    Bcd,
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binaries {
    /// Two hexadecimal characters each; a length counts the characters.
    Hex,
    /// As they are.
    Raw,
}

/// How a bitmap is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bitmaps {
    /// Sixteen hexadecimal characters.
    Hex,
    /// Eight bytes.
    Raw,
}

/// How a length indicator is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// A character for each digit.
    Characters,
    /// Two digits in a byte: one byte for `LL`, two for `LLL`.
    Bcd,
}

impl Profile {
    /// Everything in ASCII characters.
    pub const ASCII: Self = Self {
        charset: Charset::Ascii,
        numerics: Numerics::Characters,
        binaries: Binaries::Hex,
        bitmaps: Bitmaps::Hex,
        lengths: Lengths::Characters,
    };

    /// ASCII, but bitmaps and binary fields as they are.
    pub const ASCII_RAW: Self = Self { binaries: Binaries::Raw, bitmaps: Bitmaps::Raw, ..Self::ASCII };

    /// Packed: digits and lengths in BCD, bitmaps and binary fields as they are, text in ASCII.
    pub const BINARY: Self = Self { numerics: Numerics::Bcd, lengths: Lengths::Bcd, ..Self::ASCII_RAW };

    /// EBCDIC, but bitmaps and binary fields as they are.
    pub const EBCDIC: Self = Self { charset: Charset::Ebcdic, ..Self::ASCII_RAW };

    /// Bytes that so many bytes of a field take.
    #[must_use]
    pub const fn binary_bytes(self, bytes: usize) -> usize {
        self.form(Content::Bytes).bytes(bytes)
    }

    /// How a field of this content lies in bytes.
    #[inline]
    pub(crate) const fn form(self, content: Content) -> Form {
        match (content, self.numerics, self.binaries) {
            (Content::Digits, Numerics::Bcd, _) => Form::Bcd,
            (Content::Track, Numerics::Bcd, _) => Form::TrackBcd,
            (Content::Bytes, _, Binaries::Raw) => Form::Raw,
            (Content::Bytes, _, Binaries::Hex) => Form::Hex(self.charset),
            _ => Form::Characters(self.charset),
        }
    }
}

/// How the units of a field (digits, characters, bytes) lie in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A character each.
    Characters(Charset),
    /// Two digits in a byte, a zero in front of an odd count.
    Bcd,
    /// Two digits or separators in a byte, an F behind an odd count.
    TrackBcd,
    /// As they are.
    Raw,
    /// Two characters each.
    Hex(Charset),
}

impl Form {
    /// Bytes that so many units take.
    #[inline]
    pub(crate) const fn bytes(self, units: usize) -> usize {
        match self {
            Self::Characters(_) | Self::Raw => units,
            Self::Bcd | Self::TrackBcd => units.div_ceil(2),
            Self::Hex(_) => 2 * units,
        }
    }

    /// What a length indicator says for so many units.
    #[inline]
    pub(crate) const fn counted(self, units: usize) -> usize {
        match self {
            Self::Hex(_) => 2 * units,
            _ => units,
        }
    }
}

impl Charset {
    /// The ASCII character of a byte on the wire; 0 for what is not printable.
    #[inline]
    pub(crate) const fn read(self, byte: u8) -> u8 {
        match self {
            Self::Ascii if byte >= b' ' && byte <= b'~' => byte,
            Self::Ascii => 0,
            Self::Ebcdic => from_ebcdic(byte),
        }
    }

    /// The byte on the wire of a printable ASCII character; 0 for any other.
    #[inline]
    pub(crate) const fn write(self, character: u8) -> u8 {
        match self {
            Self::Ascii => self.read(character),
            Self::Ebcdic => to_ebcdic(character),
        }
    }
}
