//! When payments are meant to start: known before the first is sent, and the same for every run of one seed.

use std::time::Duration;

use crate::scenario::Random;

/// How payments arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Closed loop: so many payments are always under way, each beginning when another ends. Named `max`; it measures
    /// the engine's rate, and its latencies are those of a queue that the load itself fills.
    Max {
        /// Payments under way.
        in_flight: usize,
    },
    /// Open loop, evenly spaced.
    Constant {
        /// Payments a second.
        per_s: f64,
    },
    /// Open loop, independent arrivals (exponential gaps).
    Poisson {
        /// Payments a second.
        per_s: f64,
    },
}

impl Pace {
    /// The word for it in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Max { .. } => "max",
            Self::Constant { .. } => "constant",
            Self::Poisson { .. } => "poisson",
        }
    }
}

/// The intended starts of an open loop, as spans since the run's own.
#[derive(Clone, Debug)]
pub struct Schedule {
    mean_gap_s: f64,
    is_poisson: bool,
    random: Random,
    at_s: f64,
    count: u64,
}

impl Schedule {
    /// The arrivals of a pace; `None` for a closed loop or a rate that is not a positive number.
    #[must_use]
    pub fn new(pace: Pace, seed: u64) -> Option<Self> {
        let (per_s, is_poisson) = match pace {
            Pace::Max { .. } => return None,
            Pace::Constant { per_s } => (per_s, false),
            Pace::Poisson { per_s } => (per_s, true),
        };
        let is_sound = per_s.is_finite() && per_s > 0.0;
        let random = Random::new(seed);
        is_sound.then(|| Self { mean_gap_s: 1.0 / per_s, is_poisson, random, at_s: 0.0, count: 0 })
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let at_s = self.at_s;
        self.count += 1;
        if self.is_poisson {
            self.at_s -= self.random.unit().ln() * self.mean_gap_s;
        } else {
            #[allow(clippy::cast_precision_loss)] // exact up to 2^53 arrivals
            let count = self.count as f64;
            self.at_s = count * self.mean_gap_s;
        }
        Duration::try_from_secs_f64(at_s).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_fixed_and_keep_their_rate() {
        let arrivals = |pace, seed| Schedule::new(pace, seed).unwrap().take(10_000).collect::<Vec<_>>();
        let constant = arrivals(Pace::Constant { per_s: 1000.0 }, 1);
        assert_eq!(constant[0], Duration::ZERO);
        assert_eq!(constant[5000].as_micros(), 5_000_000);
        let poisson = arrivals(Pace::Poisson { per_s: 1000.0 }, 1);
        assert_eq!(poisson, arrivals(Pace::Poisson { per_s: 1000.0 }, 1));
        assert_ne!(poisson, arrivals(Pace::Poisson { per_s: 1000.0 }, 2));
        assert!(poisson.is_sorted());
        let seconds = poisson[9_999].as_secs_f64();
        assert!((9.0..11.0).contains(&seconds), "{seconds}");
        assert!(Schedule::new(Pace::Max { in_flight: 1 }, 1).is_none());
        assert!(Schedule::new(Pace::Constant { per_s: f64::NAN }, 1).is_none());
        assert!(Schedule::new(Pace::Poisson { per_s: 0.0 }, 1).is_none());
    }
}
