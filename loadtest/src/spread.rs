//! Which partition a payment goes to.

use serde::Deserialize;

use crate::random::Random;

/// How payments are spread over the partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// Each partition takes as much as any other.
    #[default]
    Even,
    /// The first takes all.
    First,
    /// At the beginning each takes as much as any other; more and more goes to the first, and at the end all.
    ToFirst,
    /// The k-th partition takes a share in proportion to 1/k to this power.
    Zipf(f64),
}

/// A spread over a number of partitions, ready to be drawn from.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    partitions: usize,
    spread: Spread,
    /// The share of all partitions up to each, of a spread that has such.
    shares: Vec<f64>,
}

impl Spread {
    /// False for an exponent that is no number or out of all proportion.
    pub(crate) fn is_sound(self) -> bool {
        match self {
            Self::Zipf(exponent) => (0.0..=10.0).contains(&exponent),
            Self::Even | Self::First | Self::ToFirst => true,
        }
    }
}

impl Choice {
    /// A spread over so many partitions, at least one.
    pub(crate) fn new(spread: Spread, partitions: usize) -> Self {
        let mut shares = Vec::new();
        if let Spread::Zipf(exponent) = spread {
            let mut sum = 0.0;
            for rank in 1..=u32::try_from(partitions).unwrap_or(u32::MAX) {
                sum += f64::from(rank).powf(-exponent);
                shares.push(sum);
            }
            shares.iter_mut().for_each(|share| *share /= sum);
        }
        Self { partitions, spread, shares }
    }

    /// The index of a payment's partition. `progress` is the part of the run that is over, from 0 to 1.
    pub(crate) fn draw(&self, random: &mut Random, progress: f64) -> usize {
        match self.spread {
            Spread::Even => random.below(self.partitions),
            Spread::First => 0,
            Spread::ToFirst if random.unit() <= progress => 0,
            Spread::ToFirst => random.below(self.partitions),
            Spread::Zipf(_) => {
                let at = random.unit();
                self.shares.partition_point(|share| *share < at).min(self.partitions - 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of 10,000 payments go to the first and to the last of ten partitions.
    fn ends(spread: Spread, progress: f64) -> (usize, usize) {
        let choice = Choice::new(spread, 10);
        let mut random = Random::new(5);
        let drawn: Vec<usize> = (0..10_000).map(|_| choice.draw(&mut random, progress)).collect();
        assert!(drawn.iter().all(|index| *index < 10));
        let count = |wanted| drawn.iter().filter(|index| **index == wanted).count();
        (count(0), count(9))
    }

    #[test]
    fn payments_are_spread_as_said() {
        let check = |spread, progress, first: std::ops::Range<usize>, last: std::ops::Range<usize>| {
            let (found_first, found_last) = ends(spread, progress);
            assert!(
                first.contains(&found_first) && last.contains(&found_last),
                "{spread:?}: {found_first}, {found_last}"
            );
        };
        check(Spread::Even, 0.0, 900..1100, 900..1100);
        check(Spread::First, 0.5, 10_000..10_001, 0..1);
        check(Spread::ToFirst, 0.0, 900..1100, 900..1100);
        check(Spread::ToFirst, 0.5, 5_300..5_700, 400..600);
        check(Spread::ToFirst, 1.0, 10_000..10_001, 0..1);
        // 1, 1/2, ... 1/10 add up to 2.929.
        check(Spread::Zipf(1.0), 0.0, 3_250..3_580, 290..400);
        check(Spread::Zipf(0.0), 0.0, 900..1100, 900..1100);
    }

    #[test]
    fn exponents_that_are_none_are_unsound() {
        assert!(Spread::Zipf(0.99).is_sound() && Spread::Even.is_sound());
        assert!(
            !Spread::Zipf(f64::NAN).is_sound()
                && !Spread::Zipf(-1.0).is_sound()
                && !Spread::Zipf(11.0).is_sound()
        );
    }
}
