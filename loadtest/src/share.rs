//! One generator of several that make a run together: which payments are its own.

use serde::{Deserialize, Serialize};

/// A generator's part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which of them it is, from 0.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// All shares of a run that so many generators make.
    pub fn all(of: u32) -> impl Iterator<Item = Self> {
        (0..of).map(move |index| Self { index, of })
    }

    /// Its part of what is handed out one by one, such as room for payments under way. All parts add up to the whole.
    #[must_use]
    pub fn part(self, whole: usize) -> usize {
        let (index, of) = (self.index as usize, self.of.max(1) as usize);
        whole / of + usize::from(index < whole % of)
    }

    /// Its own seed, made of the scenario's: no two of them draw the same payments.
    #[must_use]
    pub(crate) const fn seed(self, seed: u64) -> u64 {
        seed ^ (self.index as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_and_seeds_differ() {
        for (whole, of) in [(64, 1), (64, 3), (7, 4), (2, 5)] {
            let parts: Vec<usize> = Share::all(of).map(|share| share.part(whole)).collect();
            assert_eq!(parts.iter().sum::<usize>(), whole, "{parts:?}");
            assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1, "{parts:?}");
        }
        let seeds: std::collections::BTreeSet<u64> = Share::all(64).map(|share| share.seed(1)).collect();
        assert_eq!(seeds.len(), 64);
        assert_eq!(Share::WHOLE.seed(7), 7);
    }
}
