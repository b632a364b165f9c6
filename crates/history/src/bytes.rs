//! Numbers of any length, as short as they are: seven bits a byte, the lowest first.

/// Appends a number.
pub(crate) fn put(out: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

/// What is left to be read.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    /// A number; none if it is longer than 128 bits.
    pub(crate) fn number(&mut self) -> Option<u128> {
        let mut number = 0_u128;
        for shift in (0..).step_by(7) {
            let byte = self.byte()?;
            let part = u128::from(byte & 0x7f);
            if shift >= 128 || (part << shift) >> shift != part {
                return None;
            }
            number |= part << shift;
            if byte < 0x80 {
                break;
            }
        }
        Some(number)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.number()?.try_into().ok()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.number()?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_and_nothing_longer_does() {
        for number in [0, 1, 127, 128, 300, u128::from(u64::MAX), u128::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            let mut reader = Reader(&bytes);
            assert_eq!((reader.number(), reader.0.len()), (Some(number), 0), "{number}");
        }
        assert_eq!(Reader(&[0x80]).number(), None, "cut");
        assert_eq!(Reader(&[0xff; 19]).number(), None, "longer than 128 bits");
        assert_eq!(Reader(&[0x80, 0x80, 4]).u16(), None, "longer than 16 bits");
    }
}
