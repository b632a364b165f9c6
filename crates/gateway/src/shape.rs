//! What a field looks like, and what it should: lengths and kinds of characters. Never what stands in it: it may be a card's number.

use std::fmt;

use iso8583::{Content, Dialect, Message, Size};

/// What a message has in a field, and what belongs there.
pub(crate) struct Shape<'a>(pub(crate) &'a Message<'a>, pub(crate) u8);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(message, field) = *self;
        let wanted = Wanted(message.codec().dialect, field);
        let Some(units) = message.units(field) else { return write!(f, "nothing, where {wanted} may be") };
        let (count, mut kinds) = (units.len(), [false; 3]);
        for unit in units {
            let kind = if unit.is_ascii_digit() { 0 } else { 1 + usize::from(!matches!(unit, b' '..=b'~')) };
            kinds[kind] = true;
        }
        let kind = match kinds {
            [_, false, false] => "digits",
            [false, true, false] => "characters without a digit",
            [true, true, false] => "characters, some of them digits",
            _ => "bytes",
        };
        write!(f, "{count} {kind}, where {wanted} may be")
    }
}

/// What belongs in a field.
pub(crate) struct Wanted(pub(crate) Dialect, pub(crate) u8);

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = match self.1 {
            0 => return f.write_str("a message type of this edition, and nothing behind the last field"),
            1 => return f.write_str("a bitmap"),
            field => self.0.field(field),
        };
        let Some(spec) = spec else { return f.write_str("nothing") };
        let kind = match spec.content {
            Content::Digits => "digits",
            Content::Text => "printable characters",
            Content::Track => "digits and separators of a track",
            Content::Bytes => "bytes",
        };
        match spec.size {
            Size::Fixed(count) => write!(f, "{count} {kind}"),
            Size::Ll(max) | Size::Lll(max) => write!(f, "up to {max} {kind}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use iso8583::{Codec, Draft, Mti, Profile};

    use super::*;

    #[test]
    fn a_shape_tells_lengths_and_kinds_and_nothing_that_stands_there() {
        let codec = Codec { dialect: Dialect::V1987, profile: Profile::ASCII };
        let mut draft = Draft::new(codec.dialect);
        draft.reset(Mti::from_digits(*b"0100").unwrap());
        for (field, text) in [(2, "4929123456789012"), (7, "1399250000"), (37, "AB12"), (42, "SHOP")] {
            draft.set(field, text.as_bytes());
        }
        let mut bytes = Vec::new();
        draft.encode(codec, &mut bytes).unwrap();
        let message = Message::parse(codec, &bytes).unwrap();
        for (field, expect) in [
            (2, "16 digits, where up to 19 digits may be"),
            (7, "10 digits, where 10 digits may be"),
            (11, "nothing, where 6 digits may be"),
            (37, "12 characters, some of them digits, where 12 printable characters may be"),
            (42, "15 characters without a digit, where 15 printable characters may be"),
        ] {
            assert_eq!(Shape(&message, field).to_string(), expect);
        }
    }
}
