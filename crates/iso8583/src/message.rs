//! A message that was received: its fields are found once, checked, and read where they lie.

use core::fmt;

use crate::codec::{Bitmaps, Charset, Form};
use crate::error::{ParseError, ParseReason};
use crate::frame::MESSAGE_BYTES_MAX;
use crate::mask::Masked;
use crate::mti::Function;
use crate::{Bitmap, Class, Codec, FIELDS_MAX, FieldSpec, Mti, Shown, Size, Units, Version, wire};

/// A parsed message over the bytes it came in. Every field that is present is sound: of its content, and not too long.
///
/// `Debug` prints it masked; of a broken one it prints lengths alone.
#[derive(Clone)]
pub struct Message<'a> {
    bytes: &'a [u8],
    codec: Codec,
    mti: Mti,
    fields: Bitmap,
    spans: [Span; FIELDS_MAX as usize + 1],
    /// False if the bytes are no sound message.
    is_sound: bool,
}

/// Where a field's content lies.
#[derive(Clone, Copy, Default)]
struct Span {
    at: u16,
    units: u16,
}

impl<'a> Message<'a> {
    /// Reads a whole message.
    ///
    /// # Errors
    /// The first field that is not sound, and where it is.
    pub fn parse(codec: Codec, bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (message, result) = Self::read(codec, bytes);
        result.map(|()| message)
    }

    /// Reads as far as the message is sound, so that a bad one can be answered: what is there are the fields before the bad one.
    ///
    /// Before a sound message type the type is 0800, which nobody answers with money.
    pub fn read(codec: Codec, bytes: &'a [u8]) -> (Self, Result<(), ParseError>) {
        let mti =
            Mti { version: Version::V1987, class: Class::Network, function: Function::Request, origin: 0 };
        let spans = [Span::default(); FIELDS_MAX as usize + 1];
        let mut message = Self { bytes, codec, mti, fields: Bitmap::default(), spans, is_sound: false };
        let result = message.fill();
        message.is_sound = result.is_ok();
        (message, result)
    }

    fn fill(&mut self) -> Result<(), ParseError> {
        let mut cursor = Cursor { codec: self.codec, bytes: self.bytes, at: 0 };
        if self.bytes.len() > MESSAGE_BYTES_MAX {
            return Err(ParseError { field: 0, at: 0, reason: ParseReason::TooLong });
        }
        self.mti = cursor.mti()?;
        let announced = cursor.bitmaps()?;
        for field in announced.fields() {
            let spec = self.codec.dialect.field(field);
            let spec = spec.ok_or(ParseError { field, at: cursor.at, reason: ParseReason::Unknown })?;
            self.spans[usize::from(field)] = cursor.field(field, spec)?;
            self.fields = self.fields.with(field);
        }
        match self.bytes.len() - cursor.at {
            0 => Ok(()),
            left => Err(ParseError { field: 0, at: cursor.at, reason: ParseReason::Trailing(left) }),
        }
    }

    /// Its type.
    #[must_use]
    pub const fn mti(&self) -> Mti {
        self.mti
    }

    /// How it is encoded.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// The fields that it has, bitmaps aside.
    #[must_use]
    pub const fn fields(&self) -> Bitmap {
        self.fields
    }

    /// True if it has the field.
    #[must_use]
    pub const fn has(&self, field: u8) -> bool {
        self.fields.has(field)
    }

    /// The canonical units of a field, one by one.
    #[must_use]
    pub fn units(&self, field: u8) -> Option<Units<'a>> {
        let (form, bytes, units) = self.place(field)?;
        Some(Units::new(form, bytes, units))
    }

    /// The canonical units of a field that has exactly so many.
    #[must_use]
    pub fn exactly<const N: usize>(&self, field: u8) -> Option<[u8; N]> {
        let units = self.units(field).filter(|units| units.len() == N)?;
        let mut exactly = [0; N];
        exactly.iter_mut().zip(units).for_each(|(to, unit)| *to = unit);
        Some(exactly)
    }

    /// The value of a field of at most 19 digits. None if it is absent, longer, or no number.
    #[must_use]
    pub fn number(&self, field: u8) -> Option<u64> {
        let units = self.units(field).filter(|units| matches!(units.len(), 1..=19))?;
        units.into_iter().try_fold(0_u64, |value, unit| {
            let digit = unit.is_ascii_digit().then(|| u64::from(unit - b'0'))?;
            value.checked_mul(10)?.checked_add(digit)
        })
    }

    /// The bytes of a field as they were received, without length.
    #[must_use]
    pub fn wire(&self, field: u8) -> Option<&'a [u8]> {
        self.place(field).map(|(_, bytes, _)| bytes)
    }

    /// The canonical units of a field whose bytes are just these.
    pub(crate) fn plain(&self, field: u8) -> Option<&'a [u8]> {
        let (form, bytes, _) = self.place(field)?;
        matches!(form, Form::Characters(Charset::Ascii) | Form::Raw).then_some(bytes)
    }

    fn place(&self, field: u8) -> Option<(Form, &'a [u8], usize)> {
        if !self.fields.has(field) {
            return None;
        }
        let spec = self.codec.dialect.field(field)?;
        let span = self.spans[usize::from(field)];
        let (form, units) = (self.codec.profile.form(spec.content), usize::from(span.units));
        let bytes = self.bytes.get(usize::from(span.at)..)?.get(..form.bytes(units))?;
        Some((form, bytes, units))
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        map.entry(&"mti", &format_args!("{}", self.mti));
        for field in self.fields.fields() {
            let Some((spec, units)) = self.codec.dialect.field(field).zip(self.units(field)) else {
                continue;
            };
            // In a broken message the digits of a card may lie where another field was expected.
            let shown = if self.is_sound { spec.shown } else { Shown::Length };
            map.entry(&field, &Masked::new(shown, units));
        }
        map.finish()
    }
}

/// Walks through the bytes, field by field.
struct Cursor<'a> {
    codec: Codec,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, field: u8, needed: usize) -> Result<&'a [u8], ParseError> {
        let left = self.bytes.len() - self.at;
        let reason = ParseReason::Truncated { needed, left };
        let taken = self.bytes.get(self.at..self.at + needed).ok_or(self.error(field, reason))?;
        self.at += needed;
        Ok(taken)
    }

    const fn error(&self, field: u8, reason: ParseReason) -> ParseError {
        ParseError { field, at: self.at, reason }
    }

    fn mti(&mut self) -> Result<Mti, ParseError> {
        let wrong = self.error(0, ParseReason::Mti);
        let form = self.codec.profile.form(crate::Content::Digits);
        let bytes = self.take(0, form.bytes(4))?;
        let mut digits = [0; 4];
        digits.iter_mut().zip(Units::new(form, bytes, 4)).for_each(|(to, digit)| *to = digit);
        Mti::from_digits(digits).filter(|mti| mti.version == self.codec.dialect.version()).ok_or(wrong)
    }

    fn bitmaps(&mut self) -> Result<Bitmap, ParseError> {
        let first = Bitmap::of_first(self.bitmap()?);
        if !first.has(1) {
            return Ok(first);
        }
        let both = first.and_second(self.bitmap()?);
        // Field 65 of the 1987 edition announces a third bitmap, which no field uses.
        let is_third = both.has(65) && self.codec.dialect.version() == Version::V1987;
        if is_third { Err(self.error(65, ParseReason::ThirdBitmap)) } else { Ok(both) }
    }

    fn bitmap(&mut self) -> Result<[u8; 8], ParseError> {
        let wrong = self.error(1, ParseReason::Content);
        let raw = self.codec.profile.bitmaps == Bitmaps::Raw;
        let bytes = self.take(1, if raw { 8 } else { 16 })?;
        if raw {
            bytes.try_into().map_err(|_| wrong)
        } else {
            let characters = bytes.try_into().map_err(|_| wrong)?;
            wire::bytes_of_hex(self.codec.profile.charset, characters).ok_or(wrong)
        }
    }

    #[inline]
    fn field(&mut self, field: u8, spec: &FieldSpec) -> Result<Span, ParseError> {
        let begin = self.at;
        let form = self.codec.profile.form(spec.content);
        let units = match spec.size {
            Size::Fixed(units) => usize::from(units),
            Size::Ll(max) => self.length(field, form, 2, max)?,
            Size::Lll(max) => self.length(field, form, 3, max)?,
        };
        let at = self.at;
        let bytes = self.take(field, form.bytes(units))?;
        if !wire::is_sound(form, spec.content, bytes, units) {
            return Err(ParseError { field, at: begin, reason: ParseReason::Content });
        }
        let narrow = |number: usize| u16::try_from(number).ok();
        let span = narrow(at).zip(narrow(units)).map(|(at, units)| Span { at, units });
        span.ok_or(ParseError { field, at: begin, reason: ParseReason::TooLong })
    }

    fn length(&mut self, field: u8, form: Form, digits: usize, max: u16) -> Result<usize, ParseError> {
        let at = self.at;
        let profile = self.codec.profile;
        let bytes = self.take(field, wire::length_bytes(profile, digits))?;
        let wrong = |reason| ParseError { field, at, reason };
        let counted = wire::length(profile, bytes).ok_or(wrong(ParseReason::LengthDigits))?;
        let max = form.counted(usize::from(max));
        if counted > max || !counted.is_multiple_of(form.counted(1)) {
            return Err(wrong(ParseReason::Length { found: counted, max }));
        }
        Ok(counted / form.counted(1))
    }
}
