//! When payments are meant to start: known before the first is sent, and the same for every run of one seed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::random::Random;
use crate::share::Share;

/// How payments arrive.
#[derive(Clone, Debug, PartialEq)]
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
        rate: Rate,
    },
    /// Open loop, independent arrivals (exponential gaps).
    Poisson {
        /// Payments a second, on average.
        rate: Rate,
    },
}

/// The words for it in reports.
impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (arrivals, rate) = match self {
            Self::Max { .. } => return f.write_str("max"),
            Self::Constant { rate } => ("", rate),
            Self::Poisson { rate } => ("poisson, ", rate),
        };
        match rate {
            Rate::Steady(_) if arrivals.is_empty() => f.write_str("constant"),
            Rate::Steady(_) => f.write_str("poisson"),
            Rate::Ramp(..) => write!(f, "{arrivals}ramp {rate}"),
            Rate::Steps(_) => write!(f, "{arrivals}steps {rate}"),
        }
    }
}

/// The highest rate of a schedule, in payments a second.
pub(crate) const RATE_MAX: f64 = 2e6;

/// Payments a second, over the time of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Rate {
    /// The same all the time.
    Steady(f64),
    /// From one to another, evenly.
    Ramp(f64, f64),
    /// One after the other, each for an equal part of the run.
    Steps(Vec<f64>),
}

/// Not a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a rate: 5000, a ramp 1000..20000, or steps 1000,5000,2000, in payments a second, each above 0 and at most 2000000"
)]
pub struct RateError;

impl Rate {
    /// Its mean over a run.
    #[must_use]
    pub fn mean(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)] // a handful of steps
        match self {
            Self::Steady(rate) => *rate,
            Self::Ramp(from, to) => f64::midpoint(*from, *to),
            Self::Steps(steps) => steps.iter().sum::<f64>() / steps.len() as f64,
        }
    }

    fn is_sound(&self) -> bool {
        // Beyond it the schedule itself would take longer than the run.
        let is_sound = |rate: &f64| *rate > 0.0 && *rate <= RATE_MAX;
        match self {
            Self::Steady(rate) => is_sound(rate),
            Self::Ramp(from, to) => is_sound(from) && is_sound(to),
            Self::Steps(steps) => !steps.is_empty() && steps.iter().all(is_sound),
        }
    }

    fn segments(&self, run: Duration) -> Vec<Segment> {
        let seconds = run.as_secs_f64();
        match self {
            // What lasts does not end by itself: the run does.
            Self::Steady(rate) => vec![Segment { from: *rate, to: *rate, seconds: f64::INFINITY }],
            Self::Ramp(from, to) => vec![Segment { from: *from, to: *to, seconds }],
            Self::Steps(steps) => {
                #[allow(clippy::cast_precision_loss)] // a handful of steps
                let seconds = seconds / steps.len() as f64;
                steps.iter().map(|rate| Segment { from: *rate, to: *rate, seconds }).collect()
            }
        }
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let number = |text: &str| text.trim().replace('_', "").parse::<f64>().map_err(|_| RateError);
        let rate = if let Some((from, to)) = text.split_once("..") {
            Self::Ramp(number(from)?, number(to)?)
        } else if text.contains(',') {
            Self::Steps(text.split(',').map(number).collect::<Result<_, _>>()?)
        } else {
            Self::Steady(number(text)?)
        };
        if rate.is_sound() { Ok(rate) } else { Err(RateError) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steady(rate) => write!(f, "{rate}"),
            Self::Ramp(from, to) => write!(f, "{from}..{to}"),
            Self::Steps(steps) => {
                f.write_str(&steps.iter().map(f64::to_string).collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// A span in which the rate moves evenly.
#[derive(Clone, Copy, Debug)]
struct Segment {
    from: f64,
    to: f64,
    seconds: f64,
}

impl Segment {
    /// Arrivals in it.
    fn arrivals(&self) -> f64 {
        f64::midpoint(self.from, self.to) * self.seconds
    }

    /// When, since its begin, so many have arrived.
    fn seconds_to(&self, arrivals: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        // The root of `slope / 2 t^2 + from t = arrivals`, in the form that a slope of 0 does not hurt.
        let root = (self.from * self.from + 2.0 * slope * arrivals).max(0.0).sqrt();
        2.0 * arrivals / (self.from + root)
    }
}

/// The intended starts of an open loop, as spans since the run's own.
#[derive(Clone, Debug)]
pub struct Schedule {
    segments: Vec<Segment>,
    is_poisson: bool,
    random: Random,
    share: Share,
    count: u64,
    /// Arrivals that the rate has made by now, were it exact; an arrival is due at each whole one, or at exponential gaps.
    due: f64,
}

impl Schedule {
    /// The arrivals of a pace in a run of some length; `None` for a closed loop or a rate that is not a positive number.
    #[must_use]
    pub fn new(pace: &Pace, seed: u64, run: Duration) -> Option<Self> {
        Self::shared(pace, seed, run, Share::WHOLE)
    }

    /// One generator's part of them: of evenly spaced arrivals every n-th, so that all parts together are the whole; of
    /// independent ones an n-th of the rate, which together are as independent.
    #[must_use]
    pub fn shared(pace: &Pace, seed: u64, run: Duration, share: Share) -> Option<Self> {
        let (rate, is_poisson) = match pace {
            Pace::Max { .. } => return None,
            Pace::Constant { rate } => (rate, false),
            Pace::Poisson { rate } => (rate, true),
        };
        let segments = rate.is_sound().then(|| rate.segments(run))?;
        let count = u64::from(share.index);
        let mut schedule =
            Self { segments, is_poisson, random: Random::new(share.seed(seed)), share, count, due: 0.0 };
        match (is_poisson, share.index) {
            (false, index) => schedule.due = f64::from(index),
            (true, 0) => {}
            // The first of all arrives at once; nobody else's does.
            (true, _) => schedule.due = schedule.gap(),
        }
        Some(schedule)
    }

    /// The distance to the next of independent arrivals.
    fn gap(&mut self) -> f64 {
        -self.random.unit().ln() * f64::from(self.share.of)
    }

    /// When so many have arrived, if the run is long enough for it.
    fn at_s(&self, mut arrivals: f64) -> Option<f64> {
        let mut begin_s = 0.0;
        for segment in &self.segments {
            if arrivals <= segment.arrivals() {
                return Some(begin_s + segment.seconds_to(arrivals));
            }
            arrivals -= segment.arrivals();
            begin_s += segment.seconds;
        }
        None
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let at_s = self.at_s(self.due)?;
        self.count += u64::from(self.share.of);
        if self.is_poisson {
            self.due += self.gap();
        } else {
            #[allow(clippy::cast_precision_loss)] // exact up to 2^53 arrivals
            let count = self.count as f64;
            self.due = count;
        }
        Duration::try_from_secs_f64(at_s).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Duration = Duration::from_secs(20);

    #[test]
    fn schedules_are_fixed_and_keep_their_rate() {
        let arrivals = |pace, seed| Schedule::new(&pace, seed, RUN).unwrap().take(10_000).collect::<Vec<_>>();
        let rate = || Rate::Steady(1000.0);
        let constant = arrivals(Pace::Constant { rate: rate() }, 1);
        assert_eq!(constant[0], Duration::ZERO);
        assert_eq!(constant[5000].as_micros(), 5_000_000);
        let poisson = arrivals(Pace::Poisson { rate: rate() }, 1);
        assert_eq!(poisson, arrivals(Pace::Poisson { rate: rate() }, 1));
        assert_ne!(poisson, arrivals(Pace::Poisson { rate: rate() }, 2));
        assert!(poisson.is_sorted());
        let seconds = poisson[9_999].as_secs_f64();
        assert!((9.0..11.0).contains(&seconds), "{seconds}");
        assert!(Schedule::new(&Pace::Max { in_flight: 1 }, 1, RUN).is_none());
        assert!(Schedule::new(&Pace::Constant { rate: Rate::Steady(f64::NAN) }, 1, RUN).is_none());
        assert!(Schedule::new(&Pace::Poisson { rate: Rate::Steps(vec![1.0, 0.0]) }, 1, RUN).is_none());
    }

    #[test]
    fn ramps_and_steps_bring_as_many_as_their_rates() {
        let count = |rate: &str, from_s: u64, to_s: u64| {
            let pace = Pace::Constant { rate: rate.parse().unwrap() };
            let span = Duration::from_secs(from_s)..Duration::from_secs(to_s);
            Schedule::new(&pace, 1, RUN).unwrap().take(1_000_000).filter(|at| span.contains(at)).count()
        };
        // 0..20 s of 100 to 300 a second: 4,000, the first half of it 1,500.
        assert_eq!(count("100..300", 0, 10), 1500);
        assert!((2500..=2501).contains(&count("100..300", 10, 21)));
        assert_eq!(count("300..100", 0, 10), 2500);
        // Four steps of 5 s.
        assert_eq!(count("100,400,100,200", 0, 5), 500);
        assert_eq!(count("100,400,100,200", 5, 10), 2000);
        assert!((1000..=1001).contains(&count("100,400,100,200", 15, 30)));
    }

    #[test]
    fn shares_of_a_schedule_are_the_whole() {
        for rate in ["1000", "100..2000", "100,900,50"] {
            let pace = Pace::Constant { rate: rate.parse().unwrap() };
            let whole: Vec<_> = Schedule::new(&pace, 1, RUN).unwrap().take(9_000).collect();
            let mut parts: Vec<_> = Share::all(3)
                .flat_map(|share| Schedule::shared(&pace, 1, RUN, share).unwrap().take(3_000))
                .collect();
            parts.sort_unstable();
            assert_eq!(parts, whole, "{rate}");
        }
        let pace = Pace::Poisson { rate: Rate::Steady(1000.0) };
        let part = |share| Schedule::shared(&pace, 1, RUN, share).unwrap().take(3_000).collect::<Vec<_>>();
        let parts: Vec<_> = Share::all(3).map(part).collect();
        assert_ne!(parts[0], parts[1]);
        for part in &parts {
            let seconds = part[2_999].as_secs_f64();
            assert!((8.0..10.0).contains(&seconds), "{seconds}");
        }
    }

    #[test]
    fn paces_say_what_changes() {
        let rate = |text: &str| text.parse::<Rate>().unwrap();
        let check = |pace: Pace, expect: &str| assert_eq!(pace.to_string(), expect);
        check(Pace::Max { in_flight: 1 }, "max");
        check(Pace::Constant { rate: rate("5") }, "constant");
        check(Pace::Constant { rate: rate("100..1500") }, "ramp 100..1500");
        check(Pace::Constant { rate: rate("1,5") }, "steps 1,5");
        check(Pace::Poisson { rate: rate("5") }, "poisson");
        check(Pace::Poisson { rate: rate("5..9") }, "poisson, ramp 5..9");
    }

    #[test]
    fn rates_are_read_and_written() {
        for text in ["5000", "0.5", "1000..20000", "1000,5000,2000"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!("20_000".parse(), Ok(Rate::Steady(20_000.0)));
        assert!(("1000..3000".parse::<Rate>().unwrap().mean() - 2000.0).abs() < f64::EPSILON);
        for text in ["", "0", "-1", "1..", "1,,2", "fast", "inf", "NaN", "1..0", "2000001"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError), "{text}");
        }
    }
}
