//! All values of a run or a second, kept so that those of several generators can be put together: percentiles cannot be
//! added, histograms can.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::report::histogram;

/// A histogram of nanoseconds as the tools of `HdrHistogram` exchange it: V2, deflated, in base64. Empty text is one without
/// values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Distribution(String);

/// A text that is no histogram of nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a histogram in base64")]
pub struct DistributionError;

impl Distribution {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let mut bytes = Vec::new();
        if histogram.is_empty() || V2DeflateSerializer::new().serialize(histogram, &mut bytes).is_err() {
            return Self::default();
        }
        Self(BASE64_STANDARD.encode(bytes))
    }

    /// True if it holds nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds its values to a histogram. What is beyond its bounds counts as its greatest value, as when it was recorded.
    pub(crate) fn add_to(&self, sum: &mut Histogram<u64>) -> Result<(), DistributionError> {
        if self.is_empty() {
            return Ok(());
        }
        let bytes = BASE64_STANDARD.decode(&self.0).map_err(|_| DistributionError)?;
        let read: Histogram<u64> =
            Deserializer::new().deserialize(&mut &bytes[..]).map_err(|_| DistributionError)?;
        if read.max() <= sum.high() {
            return sum.add(&read).map_err(|_| DistributionError);
        }
        for value in read.iter_recorded() {
            sum.saturating_record_n(value.value_iterated_to(), value.count_at_value());
        }
        Ok(())
    }

    /// Its values.
    pub(crate) fn read(&self) -> Result<Histogram<u64>, DistributionError> {
        let mut read = histogram();
        self.add_to(&mut read)?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_all_values_of_both() {
        let of = |values: std::ops::Range<u64>| {
            let mut histogram = histogram();
            values.for_each(|value| histogram.saturating_record(value * 1000));
            histogram
        };
        let mut sum = of(0..0);
        for part in [of(1..5_000), of(5_000..10_000), of(0..0)] {
            let written = serde_json::to_string(&Distribution::of(&part)).unwrap();
            serde_json::from_str::<Distribution>(&written).unwrap().add_to(&mut sum).unwrap();
        }
        assert_eq!(sum, of(1..10_000));
        let mut wide = Histogram::<u64>::new_with_max(u64::MAX / 2, 3).unwrap();
        wide.record(u64::MAX / 4).unwrap();
        Distribution::of(&wide).add_to(&mut sum).unwrap();
        assert_eq!((sum.len(), sum.max() >= 59_000_000_000), (10_000, true));
    }

    #[test]
    fn other_text_is_no_histogram() {
        for text in ["!", "aGVsbG8=", "HISTFAAAAA=="] {
            assert_eq!(Distribution(text.to_owned()).read(), Err(DistributionError), "{text}");
        }
    }
}
