//! A fast hash for tables inside one process. No order and no state depends on it.

use core::hash::{BuildHasher, Hasher};
use hashbrown::HashMap;

/// A map with our hash. It is never iterated where order matters.
pub(crate) type Map<K, V> = HashMap<K, V, Mix>;

/// Makes [`Mixer`]s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mix;

/// A hash under way.
#[derive(Debug)]
pub(crate) struct Mixer(u64);

/// The two halves of a product, folded into one.
#[inline]
pub(crate) const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    #[allow(clippy::cast_possible_truncation)] // The two halves are the point.
    let folded = product as u64 ^ (product >> 64) as u64;
    folded
}

impl BuildHasher for Mix {
    type Hasher = Mixer;
    fn build_hasher(&self) -> Mixer {
        Mixer(0x2d35_8dcc_aa6c_78a5)
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = fold(self.0 ^ value, 0x9e37_79b9_7f4a_7c15);
    }
}
