//! A run while it lasts, once a second.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::interval::Interval;
use crate::report::Report;

/// A second that has ended, and the run up to its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What came back in it.
    pub second: Interval,
    /// What has come back so far: counts and percentiles, not the seconds before.
    pub so_far: Report,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { second, so_far: Report { seconds, declined, refused, unknown, dropped, .. } } = self;
        write!(
            f,
            "{seconds:>5.0} s {:>9} replies/s  p50 {:>9.1} us  p99 {:>9.1} us  declined {} refused {} unknown {unknown} dropped {dropped}",
            second.replied,
            second.p50_us,
            second.p99_us,
            declined.values().sum::<u64>(),
            refused.values().sum::<u64>(),
        )
    }
}

/// Told of each second; called on the thread that counts, never on one that measures.
#[derive(Clone)]
pub struct OnSecond(Arc<dyn Fn(&Progress) + Send + Sync>);

impl OnSecond {
    /// Calls this.
    #[must_use]
    pub fn new(tell: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Tells of a second.
    pub fn tell(&self, progress: &Progress) {
        (self.0)(progress);
    }
}

impl fmt::Debug for OnSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnSecond")
    }
}
