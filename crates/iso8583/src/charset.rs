//! EBCDIC (code page 500, the international one) to and from ASCII, for what is printable.

/// ASCII for each EBCDIC byte; 0 where there is no printable one.
#[rustfmt::skip]
const FROM_EBCDIC: [u8; 256] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x5b, 0x2e, 0x3c, 0x28, 0x2b, 0x21,
    0x26, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x5d, 0x24, 0x2a, 0x29, 0x3b, 0x5e,
    0x2d, 0x2f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x2c, 0x25, 0x5f, 0x3e, 0x3f,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 0x3a, 0x23, 0x40, 0x27, 0x3d, 0x22,
    0, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0, 0, 0, 0, 0, 0,
    0, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0, 0, 0, 0, 0, 0,
    0, 0x7e, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7c, 0, 0, 0, 0,
    0x7b, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0, 0, 0, 0, 0, 0,
    0x7d, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f, 0x50, 0x51, 0x52, 0, 0, 0, 0, 0, 0,
    0x5c, 0, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0, 0, 0, 0, 0, 0,
    0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0, 0, 0, 0, 0, 0,
];

/// EBCDIC for each ASCII byte; 0 where it is not printable.
const TO_EBCDIC: [u8; 128] = {
    let mut table = [0; 128];
    let mut byte = 0;
    while byte < 256 {
        if FROM_EBCDIC[byte] != 0 {
            // The table holds no more than 256 entries.
            #[allow(clippy::cast_possible_truncation)]
            let ebcdic = byte as u8;
            table[FROM_EBCDIC[byte] as usize] = ebcdic;
        }
        byte += 1;
    }
    table
};

/// A printable ASCII character, or 0.
#[inline]
pub(crate) const fn from_ebcdic(byte: u8) -> u8 {
    FROM_EBCDIC[byte as usize]
}

/// The EBCDIC byte of a printable ASCII character, or 0.
#[inline]
pub(crate) const fn to_ebcdic(byte: u8) -> u8 {
    if byte < 128 { TO_EBCDIC[byte as usize] } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_characters_go_there_and_back() {
        for byte in 0..=255 {
            let is_printable = matches!(byte, b' '..=b'~');
            assert_eq!(to_ebcdic(byte) != 0, is_printable, "{byte}");
            if is_printable {
                assert_eq!(from_ebcdic(to_ebcdic(byte)), byte);
            }
        }
        assert_eq!(b"A1 =|".map(to_ebcdic), [0xc1, 0xf1, 0x40, 0x7e, 0xbb]);
    }
}
