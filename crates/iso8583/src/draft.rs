//! A message to be sent: fields are set in any order and written in theirs.

use alloc::vec::Vec;
use core::fmt;

use crate::codec::{Bitmaps, Form};
use crate::error::{EncodeError, EncodeReason};
use crate::frame::MESSAGE_BYTES_MAX;
use crate::mask::Masked;
use crate::wire;
use crate::{
    Bitmap, Class, Codec, Content, Dialect, FIELDS_MAX, FieldSpec, Function, Message, Mti, Shown, Size,
};

/// Fields that become a message. Used again and again it allocates nothing.
///
/// `Debug` prints it masked.
#[derive(Clone)]
pub struct Draft {
    mti: Mti,
    dialect: Dialect,
    fields: Bitmap,
    /// Where in them a field begins, and how long it is.
    spans: [(u32, u32); FIELDS_MAX as usize + 1],
    /// The fields' canonical units, in the order in which they were set.
    units: Vec<u8>,
    /// A field number that there is not.
    unknown: Option<u8>,
}

impl Draft {
    /// An empty echo request, to be [`Draft::reset`].
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        let version = dialect.version();
        let mti = Mti { version, class: Class::Network, function: Function::Request, origin: 0 };
        let spans = [(0, 0); FIELDS_MAX as usize + 1];
        Self { mti, dialect, fields: Bitmap::default(), spans, units: Vec::new(), unknown: None }
    }

    /// Empties it for a message of another type.
    pub fn reset(&mut self, mti: Mti) {
        self.mti = mti;
        self.fields = Bitmap::default();
        self.units.clear();
        self.unknown = None;
    }

    /// Its type.
    #[must_use]
    pub const fn mti(&self) -> Mti {
        self.mti
    }

    /// Changes its type alone.
    pub const fn set_mti(&mut self, mti: Mti) {
        self.mti = mti;
    }

    /// The fields that are set.
    #[must_use]
    pub const fn fields(&self) -> Bitmap {
        self.fields
    }

    /// Sets a field to these canonical units. A shorter fixed field is filled up: digits with zeros in front, text with blanks
    /// behind.
    pub fn set(&mut self, field: u8, units: &[u8]) {
        self.set_all(field, units.iter().copied());
    }

    /// Sets a field of digits to a number.
    pub fn set_number(&mut self, field: u8, number: u64) {
        let mut digits = [0; 20];
        let mut rest = number;
        let mut at = digits.len();
        while rest > 0 || at == digits.len() {
            at -= 1;
            digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        self.set(field, &digits[at..]);
    }

    /// Sets a field to what a received message has there, if it has.
    pub fn copy(&mut self, message: &Message<'_>, field: u8) {
        match message.plain(field) {
            Some(units) => self.set(field, units),
            None => message.units(field).into_iter().for_each(|units| self.set_all(field, units)),
        }
    }

    /// Takes a field away.
    pub fn remove(&mut self, field: u8) {
        self.fields = self.fields.without(field);
    }

    /// The canonical units of a field that is set.
    #[must_use]
    pub fn get(&self, field: u8) -> Option<&[u8]> {
        if !self.fields.has(field) {
            return None;
        }
        let (at, length) = self.spans[usize::from(field)];
        self.units.get(at as usize..)?.get(..length as usize)
    }

    fn set_all(&mut self, field: u8, units: impl Iterator<Item = u8>) {
        if !matches!(field, 2..=FIELDS_MAX) {
            self.unknown = Some(field);
            return;
        }
        let at = self.units.len();
        self.units.extend(units);
        let span = u32::try_from(at).ok().zip(u32::try_from(self.units.len() - at).ok());
        let Some(span) = span else { return self.unknown = Some(field) };
        self.spans[usize::from(field)] = span;
        self.fields = self.fields.with(field);
    }

    /// Writes the message behind what is in `out`; on an error `out` is as it was.
    ///
    /// # Errors
    /// The first field that cannot be written.
    pub fn encode(&self, codec: Codec, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let begin = out.len();
        let result = self.write(codec, out).and_then(|()| match out.len() - begin {
            0..=MESSAGE_BYTES_MAX => Ok(()),
            _ => Err(EncodeError { field: 0, reason: EncodeReason::TooLong }),
        });
        if result.is_err() {
            out.truncate(begin);
        }
        result
    }

    fn write(&self, codec: Codec, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.mti.version != codec.dialect.version() {
            return Err(EncodeError { field: 0, reason: EncodeReason::Mti });
        }
        if let Some(field) = self.unknown {
            return Err(EncodeError { field, reason: EncodeReason::Unknown });
        }
        wire::put(codec.profile.form(Content::Digits), &self.mti.to_digits(), out);
        let needs_second = self.fields.needs_second();
        let fields = if needs_second { self.fields.with(1) } else { self.fields };
        let form = match codec.profile.bitmaps {
            Bitmaps::Raw => Form::Raw,
            Bitmaps::Hex => Form::Hex(codec.profile.charset),
        };
        wire::put(form, &fields.to_bytes()[..if needs_second { 16 } else { 8 }], out);
        for field in self.fields.fields() {
            let spec = codec.dialect.field(field);
            let spec = spec.ok_or(EncodeError { field, reason: EncodeReason::Unknown })?;
            let units = self.get(field).unwrap_or_default();
            write_field(codec, spec, units, out).map_err(|reason| EncodeError { field, reason })?;
        }
        Ok(())
    }
}

fn write_field(codec: Codec, spec: &FieldSpec, units: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeReason> {
    let form = codec.profile.form(spec.content);
    let (found, max) = (units.len(), usize::from(spec.size.max()));
    let is_short = matches!(spec.size, Size::Fixed(_)) && found < max;
    if found > max || is_short && matches!(spec.content, Content::Bytes | Content::Track) {
        return Err(EncodeReason::Length { found, max });
    }
    if !units.iter().all(|unit| spec.content.allows(*unit)) {
        return Err(EncodeReason::Content);
    }
    let digits = match spec.size {
        Size::Fixed(_) if is_short => {
            write_filled(form, spec.content, units, max, out);
            return Ok(());
        }
        Size::Fixed(_) => 0,
        Size::Ll(_) => 2,
        Size::Lll(_) => 3,
    };
    let counted = form.counted(found);
    if digits > 0 {
        // Hexadecimal characters can be more than the digits of a length can say.
        let max = 10_usize.pow(digits) - 1;
        if counted > max {
            return Err(EncodeReason::Length { found: counted, max });
        }
        wire::put_length(codec.profile, counted, digits as usize, out);
    }
    wire::put(form, units, out);
    Ok(())
}

fn write_filled(form: Form, content: Content, units: &[u8], length: usize, out: &mut Vec<u8>) {
    let mut filled = Vec::with_capacity(length);
    if content == Content::Digits {
        filled.resize(length - units.len(), b'0');
        filled.extend_from_slice(units);
    } else {
        filled.extend_from_slice(units);
        filled.resize(length, b' ');
    }
    wire::put(form, &filled, out);
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        map.entry(&"mti", &format_args!("{}", self.mti));
        for field in self.fields.fields() {
            let units = self.get(field).unwrap_or_default();
            let shown = self.dialect.field(field).map_or(Shown::Length, |spec| spec.shown);
            map.entry(&field, &Masked::new(shown, units.iter().copied()));
        }
        map.finish()
    }
}
