//! An engine's numbers, read back from the text of `/metrics`: the one form in which they leave an engine, near or far.

use std::collections::BTreeMap;

/// What was told at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The engine executes requests.
    pub is_ready: bool,
    /// The program's version.
    pub version: String,
    /// Each shard's numbers, in order.
    pub shards: Vec<ShardReading>,
    /// The money of each asset, over all shards.
    pub money: BTreeMap<u32, MoneyReading>,
}

/// One shard's numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardReading {
    /// Counters and gauges by their names, without `surety_`.
    pub numbers: BTreeMap<String, u64>,
    /// Requests answered, by kind and code.
    pub answers: BTreeMap<(String, String), u64>,
    /// From decision to reply.
    pub latency: Durations,
    /// From a block's submission to its completion.
    pub write: Durations,
}

/// An asset's collateral by state, in base units, and its partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MoneyReading {
    /// By the name of the state.
    pub states: BTreeMap<String, u128>,
    /// Partitions that take locks.
    pub open: u64,
    /// Partitions that do not.
    pub frozen: u64,
    /// Partitions of either kind that were not reconciled since a loss.
    pub unreconciled: u64,
}

/// A histogram: upper bounds in microseconds, the last without bound, with the counts up to each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    /// Bounds and cumulative counts.
    pub buckets: Vec<(f64, u64)>,
}

/// One line of the text.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: &'a str,
}

impl Reading {
    /// Reads the text. What is not known is passed over: a newer engine tells more.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut reading = Self::default();
        text.lines().filter_map(Sample::parse).for_each(|sample| reading.take(&sample));
        reading
    }

    fn take(&mut self, sample: &Sample<'_>) {
        let Some(name) = sample.name.strip_prefix("surety_") else { return };
        match name {
            "ready" => self.is_ready = sample.value == "1",
            "build_info" => self.version = sample.label("version").unwrap_or_default().to_owned(),
            "collateral_base_units" => self.take_money(sample),
            "partitions" => self.take_partitions(sample),
            "partitions_unreconciled" => self.take_unreconciled(sample),
            _ => self.take_of_shard(name, sample),
        }
    }

    fn take_money(&mut self, sample: &Sample<'_>) {
        let (Some(asset), Some(state)) = (sample.number("asset"), sample.label("state")) else { return };
        let Ok(amount) = sample.value.parse::<u128>() else { return };
        let sum = self.money.entry(asset).or_default().states.entry(state.to_owned()).or_default();
        *sum = sum.saturating_add(amount);
    }

    fn take_partitions(&mut self, sample: &Sample<'_>) {
        let (Some(asset), Ok(count)) = (sample.number("asset"), sample.value.parse::<u64>()) else { return };
        let money = self.money.entry(asset).or_default();
        match sample.label("state") {
            Some("open") => money.open += count,
            Some("frozen") => money.frozen += count,
            _ => {}
        }
    }

    fn take_unreconciled(&mut self, sample: &Sample<'_>) {
        let (Some(asset), Ok(count)) = (sample.number("asset"), sample.value.parse::<u64>()) else { return };
        self.money.entry(asset).or_default().unreconciled += count;
    }

    fn take_of_shard(&mut self, name: &str, sample: &Sample<'_>) {
        let Some(shard) = sample.number::<u16>("shard") else { return };
        let (Ok(value), shard) = (sample.value.parse::<u64>(), usize::from(shard)) else { return };
        // Told in order, so that a number of a stranger makes no room for thousands.
        if shard > self.shards.len() {
            return;
        }
        if shard == self.shards.len() {
            self.shards.push(ShardReading::default());
        }
        let shard = &mut self.shards[shard];
        match name {
            "requests_total" => {
                let kind = (sample.label("op"), sample.label("code"));
                if let (Some(op), Some(code)) = kind {
                    shard.answers.insert((op.to_owned(), code.to_owned()), value);
                }
            }
            "request_duration_seconds_bucket" => shard.latency.push(sample, value),
            "write_duration_seconds_bucket" => shard.write.push(sample, value),
            _ => {
                shard.numbers.insert(name.to_owned(), value);
            }
        }
    }

    /// A number over all shards.
    #[must_use]
    pub fn sum(&self, name: &str) -> u64 {
        self.shards.iter().map(|shard| shard.number(name)).sum()
    }
}

impl ShardReading {
    /// A number; 0 where it was not told.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or(0)
    }
}

impl Durations {
    fn push(&mut self, sample: &Sample<'_>, count: u64) {
        let bound = match sample.label("le") {
            Some("+Inf") => f64::INFINITY,
            Some(bound) => bound.parse::<f64>().map_or(f64::INFINITY, |seconds| seconds * 1e6),
            None => return,
        };
        self.buckets.push((bound, count));
    }

    /// What was added since an earlier reading of the same, both of one shard.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |at: usize| earlier.buckets.get(at).map_or(0, |(_, count)| *count);
        let buckets = self.buckets.iter().enumerate();
        Self {
            buckets: buckets.map(|(at, (bound, count))| (*bound, count.saturating_sub(before(at)))).collect(),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        if self.buckets.is_empty() {
            return other.clone();
        }
        let more = |at: usize| other.buckets.get(at).map_or(0, |(_, count)| *count);
        let buckets = self.buckets.iter().enumerate();
        Self { buckets: buckets.map(|(at, (bound, count))| (*bound, count + more(at))).collect() }
    }

    /// A percentile in microseconds, evenly spread within its bucket; none if nothing was counted. Buckets double, so it is good for
    /// seeing a change, not for a figure to publish.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "what is drawn needs no more than 52 bits")]
    pub fn percentile_us(&self, share: f64) -> Option<f64> {
        let total = self.buckets.last().map(|(_, count)| *count).filter(|count| *count > 0)?;
        let wanted = share * total as f64;
        let (mut below, mut bound_below) = (0, 0.0);
        for (bound, count) in &self.buckets {
            if *count as f64 >= wanted && *count > below {
                let part = (wanted - below as f64) / (count - below) as f64;
                let top = if bound.is_finite() { *bound } else { bound_below };
                return Some(bound_below + (top - bound_below) * part.clamp(0.0, 1.0));
            }
            (below, bound_below) = (*count, if bound.is_finite() { *bound } else { bound_below });
        }
        Some(bound_below)
    }
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (head, value) = line.trim().rsplit_once(' ')?;
        let Some((name, labels)) = head.split_once('{') else {
            return Some(Self { name: head, labels: Vec::new(), value });
        };
        // No label of an engine has a comma or a quote in it.
        let labels = labels.strip_suffix('}')?.split(',');
        let labels = labels.filter_map(|label| {
            let (name, quoted) = label.split_once('=')?;
            Some((name, quoted.strip_prefix('"')?.strip_suffix('"')?))
        });
        Some(Self { name, labels: labels.collect(), value })
    }

    fn label(&self, name: &str) -> Option<&'a str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value)
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.label(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP surety_ready 1 while requests are executed
surety_ready 1
surety_build_info{version=\"1.2.3\",protocol=\"9\"} 1
surety_in_flight{shard=\"0\"} 3
surety_in_flight{shard=\"1\"} 4
surety_in_flight{shard=\"7\"} 4
surety_requests_total{shard=\"1\",op=\"lock\",code=\"APPROVED\"} 12
surety_request_duration_seconds_bucket{shard=\"0\",le=\"0.000001\"} 0
surety_request_duration_seconds_bucket{shard=\"0\",le=\"0.000002\"} 50
surety_request_duration_seconds_bucket{shard=\"0\",le=\"0.000004\"} 100
surety_request_duration_seconds_bucket{shard=\"0\",le=\"+Inf\"} 100
surety_request_duration_seconds_sum{shard=\"0\"} 1.5
surety_collateral_base_units{shard=\"0\",asset=\"1\",state=\"free\"} 340282366920938463463374607431768211455
surety_collateral_base_units{shard=\"1\",asset=\"1\",state=\"held\"} 5
surety_partitions{shard=\"0\",asset=\"1\",state=\"frozen\"} 2
surety_partitions_unreconciled{shard=\"0\",asset=\"1\"} 4
surety_partitions_unreconciled{shard=\"1\",asset=\"1\"} 3
other_total 7
surety_torn{shard=\"0\" 7
";

    #[test]
    fn what_an_engine_tells_is_read_back() {
        let reading = Reading::parse(TEXT);
        assert!(reading.is_ready);
        assert_eq!((reading.version.as_str(), reading.shards.len()), ("1.2.3", 2));
        assert_eq!((reading.sum("in_flight"), reading.shards[1].number("in_flight")), (7, 4));
        assert_eq!(reading.shards[1].answers.values().sum::<u64>(), 12);
        assert_eq!(reading.money[&1].states["free"], u128::MAX);
        assert_eq!((reading.money[&1].states["held"], reading.money[&1].frozen), (5, 2));
        assert_eq!(reading.money[&1].unreconciled, 7);
        assert_eq!(Reading::parse(""), Reading::default());
        assert_eq!(Reading::parse("surety_ready{ 1\n{} 1\n\n 5").shards, []);
    }

    #[test]
    fn percentiles_lie_in_their_buckets() {
        let latency = &Reading::parse(TEXT).shards[0].latency;
        let check = |share, low: f64, high: f64| {
            let found = latency.percentile_us(share).unwrap();
            assert!((low..=high).contains(&found), "{share}: {found}");
        };
        check(0.25, 1.4, 1.6);
        check(0.5, 1.9, 2.1);
        check(0.99, 3.9, 4.0);
        check(1.0, 3.9, 4.1);
        let nothing = latency.since(latency);
        assert_eq!(nothing.percentile_us(0.5), None);
        assert_eq!(Durations::default().percentile_us(0.5), None);
        assert_eq!(latency.plus(latency).since(latency), *latency);
        assert_eq!(Durations::default().plus(latency), *latency);
        let endless = Durations { buckets: vec![(8.0, 0), (f64::INFINITY, 3)] };
        assert_eq!(endless.percentile_us(0.5), Some(8.0), "no more is known than that it took longer");
    }
}
