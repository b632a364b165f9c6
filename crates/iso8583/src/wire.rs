//! The units of a field, read from and written to bytes.
//!
//! The canonical form of a field, in which all code outside this crate sees it, is ASCII: a digit or character for each unit; for a field of
//! bytes the bytes themselves.

use alloc::vec::Vec;

use crate::Content;
use crate::codec::{Charset, Form, Lengths, Profile};

/// The units of a field that was received, in canonical form.
#[derive(Clone)]
pub struct Units<'a> {
    form: Form,
    bytes: &'a [u8],
    /// In half bytes for BCD, else in units.
    at: usize,
    end: usize,
}

impl<'a> Units<'a> {
    #[inline]
    pub(crate) fn new(form: Form, bytes: &'a [u8], units: usize) -> Self {
        // An odd count of digits begins behind the zero in front.
        let at = usize::from(form == Form::Bcd && units % 2 == 1);
        Self { form, bytes, at, end: at + units }
    }
}

impl Iterator for Units<'_> {
    type Item = u8;

    #[inline]
    fn next(&mut self) -> Option<u8> {
        if self.at >= self.end {
            return None;
        }
        let at = self.at;
        self.at += 1;
        let byte = |at: usize| self.bytes.get(at).copied();
        Some(match self.form {
            Form::Characters(charset) => charset.read(byte(at)?),
            Form::Raw => byte(at)?,
            Form::Bcd | Form::TrackBcd => digit_of(nibble(byte(at / 2)?, at)),
            Form::Hex(charset) => {
                let half = |at: usize| hex_value(charset.read(byte(at)?));
                half(2 * at)? << 4 | half(2 * at + 1)?
            }
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.at, Some(self.end - self.at))
    }
}

impl ExactSizeIterator for Units<'_> {}

/// True if the bytes hold so many units of this content and no other padding than they should.
#[inline]
pub(crate) fn is_sound(form: Form, content: Content, bytes: &[u8], units: usize) -> bool {
    match form {
        Form::Raw => true,
        Form::Hex(charset) => bytes.iter().all(|byte| hex_value(charset.read(*byte)).is_some()),
        Form::Characters(Charset::Ascii) => bytes.iter().all(|byte| content.allows(*byte)),
        Form::Characters(charset) => bytes.iter().all(|byte| content.allows(charset.read(*byte))),
        Form::Bcd => {
            let is_padded = units.is_multiple_of(2) || bytes.first().is_none_or(|byte| byte >> 4 == 0);
            is_padded && bytes.iter().all(|byte| byte >> 4 <= 9 && byte & 0xf <= 9)
        }
        Form::TrackBcd => {
            let is_padded = units.is_multiple_of(2) || bytes.last().is_none_or(|byte| byte & 0xf == 0xf);
            is_padded && Units::new(form, bytes, units).all(|unit| content.allows(unit))
        }
    }
}

impl Content {
    /// True for a canonical unit that a field of this content may hold.
    #[inline]
    pub(crate) const fn allows(self, unit: u8) -> bool {
        match self {
            Self::Digits => unit.is_ascii_digit(),
            Self::Text => unit >= b' ' && unit <= b'~',
            Self::Track => unit.is_ascii_digit() || unit == b'=' || unit == b'D',
            Self::Bytes => true,
        }
    }
}

/// Writes canonical units, which their content allows.
pub(crate) fn put(form: Form, units: &[u8], out: &mut Vec<u8>) {
    match form {
        Form::Raw | Form::Characters(Charset::Ascii) => out.extend_from_slice(units),
        Form::Characters(charset) => out.extend(units.iter().map(|unit| charset.write(*unit))),
        Form::Hex(charset) => {
            let digits = units.iter().flat_map(|unit| [unit >> 4, unit & 0xf]);
            out.extend(digits.map(|digit| charset.write(hex_digit(digit))));
        }
        Form::Bcd => {
            let (first, pairs) = units.split_at(units.len() % 2);
            out.extend(first.iter().map(|unit| unit & 0xf));
            out.extend(pairs.as_chunks::<2>().0.iter().map(|[high, low]| packed(*high) << 4 | packed(*low)));
        }
        Form::TrackBcd => {
            let (pairs, last) = units.as_chunks::<2>();
            out.extend(pairs.iter().map(|[high, low]| packed(*high) << 4 | packed(*low)));
            out.extend(last.iter().map(|unit| packed(*unit) << 4 | 0xf));
        }
    }
}

/// Reads a length indicator of so many digits. None if it is no number.
#[inline]
pub(crate) fn length(profile: Profile, bytes: &[u8]) -> Option<usize> {
    let mut value = 0;
    for byte in bytes {
        value = match profile.lengths {
            Lengths::Characters => {
                let digit = profile.charset.read(*byte);
                if !digit.is_ascii_digit() {
                    return None;
                }
                value * 10 + usize::from(digit - b'0')
            }
            Lengths::Bcd => {
                if byte >> 4 > 9 || byte & 0xf > 9 {
                    return None;
                }
                value * 100 + usize::from(byte >> 4) * 10 + usize::from(byte & 0xf)
            }
        };
    }
    Some(value)
}

/// Bytes of a length indicator of so many digits.
#[inline]
pub(crate) const fn length_bytes(profile: Profile, digits: usize) -> usize {
    match profile.lengths {
        Lengths::Characters => digits,
        Lengths::Bcd => digits.div_ceil(2),
    }
}

/// Writes a length indicator of so many digits.
pub(crate) fn put_length(profile: Profile, length: usize, digits: usize, out: &mut Vec<u8>) {
    let digit = |place: u32| u8::try_from(length / 10_usize.pow(place) % 10).unwrap_or(0);
    match profile.lengths {
        Lengths::Characters => {
            let places = (0..u32::try_from(digits).unwrap_or(0)).rev();
            out.extend(places.map(|place| profile.charset.write(b'0' + digit(place))));
        }
        Lengths::Bcd => {
            let places = (0..u32::try_from(digits.div_ceil(2)).unwrap_or(0)).rev();
            out.extend(places.map(|place| digit(2 * place + 1) << 4 | digit(2 * place)));
        }
    }
}

#[inline]
const fn nibble(byte: u8, at: usize) -> u8 {
    if at.is_multiple_of(2) { byte >> 4 } else { byte & 0xf }
}

/// The canonical digit or separator of half a byte; 0 for what is neither.
#[inline]
const fn digit_of(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        0xd => b'=',
        _ => 0,
    }
}

/// Half a byte for a canonical digit or separator.
const fn packed(unit: u8) -> u8 {
    if unit.is_ascii_digit() { unit - b'0' } else { 0xd }
}

#[inline]
const fn hex_value(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'A'..=b'F' => Some(character - b'A' + 10),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

pub(crate) const fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'A' + value - 10 }
}

/// Eight bytes from sixteen hexadecimal characters.
#[inline]
pub(crate) fn bytes_of_hex(charset: Charset, characters: [u8; 16]) -> Option<[u8; 8]> {
    let mut bytes = [0; 8];
    for (byte, [high, low]) in bytes.iter_mut().zip(characters.as_chunks::<2>().0) {
        *byte = hex_value(charset.read(*high))? << 4 | hex_value(charset.read(*low))?;
    }
    Some(bytes)
}
