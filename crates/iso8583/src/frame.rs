//! Messages in a stream of bytes: a length in front of each.

use alloc::vec::Vec;

/// The longest message: what a length of two bytes can say.
pub const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

/// How the length in front of a message is written. It counts the message, not itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthHeader {
    /// Two bytes, big-endian.
    Binary2,
    /// Four ASCII digits.
    Ascii4,
    /// Two bytes of BCD.
    Bcd2,
}

/// What is at the front of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    /// So many more bytes at least are needed.
    Wants(usize),
    /// A message; it took `used` bytes with its header.
    Message {
        /// The message.
        bytes: &'a [u8],
        /// How far the stream has been used.
        used: usize,
    },
}

/// Why a stream cannot be read any further: where the next message begins is lost, so the socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is no number.
    #[error("the length of a message is no number")]
    Digits,
    /// A message without bytes.
    #[error("a message of no bytes")]
    Empty,
    /// More than this end takes.
    #[error("a message of {found} bytes, at most {max} are taken")]
    TooLong {
        /// What was announced.
        found: usize,
        /// What is taken.
        max: usize,
    },
    /// More than a header can say.
    #[error("a message of {0} bytes has no such header")]
    Unspeakable(usize),
}

impl LengthHeader {
    /// Bytes of the header.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Binary2 | Self::Bcd2 => 2,
            Self::Ascii4 => 4,
        }
    }

    /// Cuts the first message off a stream, of which more may come. Messages longer than `max` are refused before a
    /// byte of them is kept.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub fn cut(self, stream: &[u8], max: usize) -> Result<Cut<'_>, FrameError> {
        let Some(header) = stream.get(..self.bytes()) else {
            return Ok(Cut::Wants(self.bytes() - stream.len()));
        };
        let length = self.read(header).ok_or(FrameError::Digits)?;
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length > max {
            return Err(FrameError::TooLong { found: length, max });
        }
        let used = self.bytes() + length;
        Ok(match stream.get(self.bytes()..used) {
            Some(bytes) => Cut::Message { bytes, used },
            None => Cut::Wants(used - stream.len()),
        })
    }

    /// Writes what `message` writes behind its length; on an error `out` is as it was.
    ///
    /// # Errors
    /// What `message` fails with, or a length that the header cannot say.
    pub fn write<E: From<FrameError>>(
        self,
        out: &mut Vec<u8>,
        message: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let begin = out.len();
        out.resize(begin + self.bytes(), 0);
        let behind = out.len();
        let result = message(out).and_then(|()| {
            let length = out.len() - behind;
            let header = self.of(length).ok_or(FrameError::Unspeakable(length))?;
            out[begin..behind].copy_from_slice(&header[..self.bytes()]);
            Ok(())
        });
        if result.is_err() {
            out.truncate(begin);
        }
        result
    }

    fn read(self, header: &[u8]) -> Option<usize> {
        header.iter().try_fold(0_usize, |value, byte| match self {
            Self::Binary2 => Some(value << 8 | usize::from(*byte)),
            Self::Ascii4 => byte.is_ascii_digit().then(|| value * 10 + usize::from(byte - b'0')),
            Self::Bcd2 => {
                let (high, low) = (usize::from(byte >> 4), usize::from(byte & 0xf));
                (high <= 9 && low <= 9).then_some(value * 100 + high * 10 + low)
            }
        })
    }

    /// The header of a message of this length, in the first bytes.
    fn of(self, length: usize) -> Option<[u8; 4]> {
        let decimal = |place: u32| u8::try_from(length / 10_usize.pow(place) % 10).unwrap_or(0);
        match self {
            Self::Binary2 => u16::try_from(length).ok().map(|length| {
                let [high, low] = length.to_be_bytes();
                [high, low, 0, 0]
            }),
            Self::Ascii4 if length <= 9999 => Some([3, 2, 1, 0].map(|place| b'0' + decimal(place))),
            Self::Bcd2 if length <= 9999 => {
                Some([decimal(3) << 4 | decimal(2), decimal(1) << 4 | decimal(0), 0, 0])
            }
            Self::Ascii4 | Self::Bcd2 => None,
        }
    }
}
