//! Prometheus' text format (version 0.0.4).

use std::fmt::{Display, Write};

use crate::numbers::Histogram;

/// What a name's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Durations, in seconds.
    Histogram,
}

impl Sort {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a scrape is answered.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// Begins a name; its numbers follow.
    pub fn family(&mut self, name: &str, sort: Sort, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {}", sort.name());
    }

    /// One number of the name that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.text.push_str(name);
        self.labels(labels);
        let _ = writeln!(self.text, " {value}");
    }

    /// A name with one number.
    pub fn single(&mut self, name: &str, sort: Sort, help: &str, value: impl Display) {
        self.family(name, sort, help);
        self.sample(name, &[], value);
    }

    /// All numbers of a histogram whose name was begun.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &dyn Display)], histogram: &Histogram) {
        let (buckets, sum) = histogram.read();
        let mut total = 0;
        for (bound, count) in buckets {
            total = count;
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            let labels: Vec<_> = labels.iter().copied().chain([("le", &bound as &dyn Display)]).collect();
            self.sample(&format!("{name}_bucket"), &labels, count);
        }
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, total);
    }

    /// What is running.
    pub fn build(&mut self, version: &str, protocol: u16) {
        let name = "surety_build_info";
        self.family(name, Sort::Gauge, "1, with what is running");
        self.sample(name, &[("version", &version), ("protocol", &protocol)], 1);
    }

    /// Everything that was written.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    fn labels(&mut self, labels: &[(&str, &dyn Display)]) {
        for (at, (label, value)) in labels.iter().enumerate() {
            let begin = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{begin}{label}=\"");
            for letter in value.to_string().chars() {
                match letter {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    _ => self.text.push(letter),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_cannot_leave_their_quotes() {
        let mut page = Page::default();
        page.sample("a", &[("b", &"\"} 1\n\\"), ("c", &7)], 2);
        assert_eq!(page.into_text(), "a{b=\"\\\"} 1\\n\\\\\",c=\"7\"} 2\n");
    }

    #[test]
    fn a_histogram_ends_with_its_sum_and_count() {
        let histogram = Histogram::default();
        histogram.record(1_500_000_000);
        let mut page = Page::default();
        page.family("d_seconds", Sort::Histogram, "of something");
        page.histogram("d_seconds", &[("shard", &0)], &histogram);
        let text = page.into_text();
        assert!(text.starts_with("# HELP d_seconds of something\n# TYPE d_seconds histogram\n"), "{text}");
        for line in [
            "d_seconds_bucket{shard=\"0\",le=\"+Inf\"} 1\n",
            "d_seconds_sum{shard=\"0\"} 1.5\n",
            "d_seconds_count{shard=\"0\"} 1\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
