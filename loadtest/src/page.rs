//! A run as one page: no script, no font, nothing from elsewhere.

use std::fmt::Write as _;

use crate::interval::Interval;
use crate::plot::{PAGE_END, Plot, Scale, Series, begin_page, escape, short};
use crate::report::Report;

/// A line of a plot: its name, and what it takes from a second.
type Line<'a> = (&'a str, fn(&Interval) -> f64);

impl Report {
    /// The run as a page of its own.
    #[must_use]
    pub fn to_html(&self) -> String {
        let mut out = begin_page(&format!("{}: {} replies/s", self.scenario, short(self.rate_per_s)));
        self.put_head(&mut out);
        self.put_tiles(&mut out);
        self.put_plots(&mut out);
        self.put_codes(&mut out);
        self.put_seconds(&mut out);
        out.push_str(PAGE_END);
        out
    }

    fn put_head(&self, out: &mut String) {
        let pace = match self.offered_per_s {
            rate if rate > 0.0 => format!("{} payments/s offered ({})", short(rate), self.pace),
            _ => "closed loop".to_owned(),
        };
        let _ = write!(
            out,
            "<h1>{}</h1><p>{pace}, durability <b>{}</b>, {:.1} s. {}</p>",
            escape(&self.scenario),
            escape(&self.durability),
            self.seconds,
            escape(&self.machine)
        );
        if self.noisy {
            let _ = write!(
                out,
                "<p class=\"warn\">The machine was not quiet: others took {:.0} % of the cores before the run, the generator was {} us late with nothing to do and {} us in the run (99th percentiles).</p>",
                self.busy_by_others * 100.0,
                short(self.jitter_p99_us),
                short(self.late_p99_us)
            );
        }
        if self.stopped_early {
            out.push_str("<p class=\"warn\">The run was ended before its time.</p>");
        }
        for trouble in &self.troubles {
            let _ = write!(out, "<p class=\"warn\">{}</p>", escape(trouble));
        }
        if !self.ok {
            out.push_str("<p class=\"warn\">The run was not sound: outcomes are unknown, replies contradict their requests, or nothing was answered.</p>");
        }
    }

    fn put_tiles(&self, out: &mut String) {
        #[allow(clippy::cast_precision_loss)] // counts of requests stay far below 2^53
        let count = |count: u64| short(count as f64);
        let cost = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), short);
        out.push_str("<dl>");
        for (name, value) in [
            ("replies/s", short(self.rate_per_s)),
            ("p50 us", short(self.p50_us)),
            ("p99 us", short(self.p99_us)),
            ("p99.9 us", short(self.p999_us)),
            ("max us", short(self.max_us)),
            ("payments", count(self.payments)),
            ("approved", count(self.approved)),
            ("dropped", count(self.dropped)),
            ("resolved", count(self.resolved)),
            ("unknown", count(self.unknown)),
            ("processes", self.processes.to_string()),
            ("generator us/request", cost(self.generator_us_per_request())),
            ("engine us/request", cost(self.engine_us_per_request())),
        ] {
            let _ = write!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        }
        out.push_str("</dl>");
    }

    fn put_plots(&self, out: &mut String) {
        let latencies: [Line<'_>; 4] = [
            ("p50", |second| second.p50_us),
            ("p90", |second| second.p90_us),
            ("p99", |second| second.p99_us),
            ("p99.9", |second| second.p999_us),
        ];
        out.push_str("<h2>Latency over time</h2>");
        let says = "Percentiles of the latency of each second";
        out.push_str(&self.over_time(says, "microseconds", Scale::Log, &latencies));

        let rates: [Line<'_>; 3] = [
            ("payments offered", |second| per_s(second.offered, second)),
            ("payments begun", |second| per_s(second.offered - second.dropped, second)),
            ("replies", |second| per_s(second.replied, second)),
        ];
        out.push_str("<h2>Throughput against offered load</h2>");
        let says = "Payments offered and begun, and replies, in each second";
        out.push_str(&self.over_time(says, "per second", Scale::Linear, &rates));

        out.push_str("<h2>Latency by quantile</h2>");
        let plot = Plot {
            says: "Latency by quantile, over the whole run",
            x_label: "quantile",
            y_label: "microseconds",
            x_scale: Scale::Nines,
            y_scale: Scale::Log,
            series: vec![Series { name: "latency", points: self.histogram.clone() }],
        };
        out.push_str(&plot.draw());
    }

    fn over_time(&self, says: &str, y_label: &str, y_scale: Scale, lines: &[Line<'_>]) -> String {
        // A run seldom ends with a second: what is left over is too short to be a rate, and would be drawn as a leap.
        let long = self.intervals.iter().map(|second| second.seconds).fold(0.0, f64::max);
        let drawn = || self.intervals.iter().filter(move |second| second.seconds >= long / 2.0);
        let points = |of: fn(&Interval) -> f64| drawn().map(|s| (s.at_s, of(s))).collect();
        let series = lines.iter().map(|(name, of)| Series { name, points: points(*of) }).collect();
        Plot { says, x_label: "seconds since the start", y_label, x_scale: Scale::Linear, y_scale, series }
            .draw()
    }

    fn put_codes(&self, out: &mut String) {
        out.push_str("<h2>Declined, by reason</h2>");
        let all: Vec<(&String, u64)> =
            self.declined.iter().chain(&self.refused).map(|(code, count)| (code, *count)).collect();
        let Some(most) = all.iter().map(|(_, count)| *count).max() else {
            out.push_str("<p>Nothing was declined or refused.</p>");
            return;
        };
        out.push_str("<table class=\"bars\">");
        for (code, count) in all {
            #[allow(clippy::cast_precision_loss)] // counts of requests stay far below 2^53
            let share = 100.0 * count as f64 / most.max(1) as f64;
            let _ = write!(
                out,
                "<tr><th>{}</th><td><i style=\"width:{share:.1}%\"></i></td><td class=\"end\">{count}</td></tr>",
                escape(code)
            );
        }
        out.push_str("</table>");
    }

    fn put_seconds(&self, out: &mut String) {
        out.push_str("<details><summary>Every second</summary><div class=\"wide\"><table><tr>");
        for name in [
            "at s", "offered", "dropped", "replied", "declined", "p50 us", "p90 us", "p99 us", "p99.9 us",
            "max us",
        ] {
            let _ = write!(out, "<th class=\"end\">{name}</th>");
        }
        out.push_str("</tr>");
        for second in &self.intervals {
            let _ = write!(
                out,
                "<tr><td>{:.1}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
                second.at_s,
                second.offered,
                second.dropped,
                second.replied,
                second.declined.values().sum::<u64>()
            );
            for us in [second.p50_us, second.p90_us, second.p99_us, second.p999_us, second.max_us] {
                let _ = write!(out, "<td>{us:.1}</td>");
            }
            out.push_str("</tr>");
        }
        out.push_str("</table></div></details>");
    }
}

#[allow(clippy::cast_precision_loss)] // counts of requests stay far below 2^53
fn per_s(count: u64, second: &Interval) -> f64 {
    if second.seconds > 0.0 { count as f64 / second.seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_needs_nothing_from_elsewhere_and_says_what_was_measured() {
        let second = |at_s: f64| Interval {
            at_s,
            seconds: 1.0,
            offered: 10,
            replied: 9,
            p50_us: 80.0,
            p99_us: 200.0,
            ..Interval::default()
        };
        let report = Report {
            scenario: "a<b".into(),
            durability: "os".into(),
            ok: true,
            noisy: true,
            p99_us: 1234.0,
            intervals: vec![second(0.0), second(1.0)],
            histogram: vec![(0.0, 50.0), (0.5, 80.0), (0.99, 200.0), (1.0, 900.0)],
            declined: [("INSUFFICIENT".to_owned(), 3)].into(),
            ..Report::default()
        };
        let page = report.to_html();
        for part in ["a&lt;b", "INSUFFICIENT", "1234", "was not quiet", "p99.9", "<svg", "</html>"] {
            assert!(page.contains(part), "{part}");
        }
        for part in ["http", "<script", "<link", "NaN", "inf\"", "a<b", "not sound"] {
            assert!(!page.contains(part), "{part}");
        }
        assert_eq!(page.matches("<svg").count(), 3);
        let empty = Report::default().to_html();
        assert!(
            empty.contains("not sound") && empty.contains("Nothing was declined") && !empty.contains("NaN")
        );
    }
}
