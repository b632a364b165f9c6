//! What a link counts, for whoever watches it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

use iso8583::{Class, Draft};
use telemetry::{Gauge, Histogram, Page, Sort, Tally};

use crate::connection::End;

/// Numbers of one link, since its start. No number of a card, a merchant or a host is among them.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By class and code of the reply.
    answered: Tally<(&'static str, [u8; 3])>,
    closed: Tally<&'static str>,
    /// From the message to its outcome, of what was served beside others.
    pub(crate) duration: Histogram,
    pub(crate) in_flight: Gauge,
    pub(crate) sockets_open: Gauge,
    pub(crate) sockets: Gauge,
    pub(crate) sockets_refused: Gauge,
    pub(crate) broken: Gauge,
    pub(crate) unproved: Gauge,
    pub(crate) unanswered: Gauge,
    pub(crate) unmatched: Gauge,
    pub(crate) stream_failures: Gauge,
}

/// Names a number, says what it is, and finds it.
type Series = (&'static str, Sort, &'static str, fn(&Metrics) -> &Gauge);

const SERIES: [Series; 9] = [
    ("surety_iso_in_flight", Sort::Gauge, "messages taken and not served yet", |m| &m.in_flight),
    ("surety_iso_sockets_open", Sort::Gauge, "sockets of hosts that are open", |m| &m.sockets_open),
    ("surety_iso_sockets_total", Sort::Counter, "sockets of hosts taken", |m| &m.sockets),
    ("surety_iso_sockets_refused_total", Sort::Counter, "sockets closed since there were too many", |m| {
        &m.sockets_refused
    }),
    ("surety_iso_broken_messages_total", Sort::Counter, "messages that do not read", |m| &m.broken),
    ("surety_iso_unproved_messages_total", Sort::Counter, "messages without a right MAC", |m| &m.unproved),
    (
        "surety_iso_unanswered_total",
        Sort::Counter,
        "messages that were not answered, since their outcome was not known in time",
        |m| &m.unanswered,
    ),
    ("surety_iso_unmatched_total", Sort::Counter, "notices that moved nothing", |m| &m.unmatched),
    (
        "surety_iso_stream_failures_total",
        Sort::Counter,
        "times that the engine's change stream could not be read on",
        |m| &m.stream_failures,
    ),
];

impl Metrics {
    /// Counts a reply that was drafted.
    pub(crate) fn answered(&self, draft: &Draft) {
        self.answered.count((name_of(draft.mti().class), code_of(draft.get(39))));
    }

    /// Counts a socket that has ended.
    pub(crate) fn closed(&self, end: End) {
        self.closed.count(end.name());
    }
}

/// The numbers of a link, with what tells them from those of another link of the process.
#[derive(Clone, Debug)]
pub struct LinkNumbers {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) metrics: Arc<Metrics>,
}

impl LinkNumbers {
    /// Writes the numbers of all links of a process: a name's numbers stand together on a page.
    pub fn tell(links: &[Self], page: &mut Page) {
        if links.is_empty() {
            return;
        }
        let name = "surety_iso_messages_total";
        page.family(name, Sort::Counter, "messages answered, by class and code of the reply");
        for link in links {
            for ((class, code), count) in link.metrics.answered.read() {
                let code = String::from_utf8_lossy(&code);
                link.sample(page, name, &[("class", &class), ("code", &code.trim_end())], count);
            }
        }
        let name = "surety_iso_message_duration_seconds";
        page.family(name, Sort::Histogram, "from a message to its outcome, of what the engine was asked for");
        for link in links {
            page.histogram(name, &link.labels(), &link.metrics.duration);
        }
        let name = "surety_iso_sockets_closed_total";
        page.family(name, Sort::Counter, "sockets of hosts that have ended, and why");
        for link in links {
            for (reason, count) in link.metrics.closed.read() {
                link.sample(page, name, &[("reason", &reason)], count);
            }
        }
        for (name, sort, help, number) in SERIES {
            page.family(name, sort, help);
            for link in links {
                link.sample(page, name, &[], number(&link.metrics).get());
            }
        }
    }

    /// Two links of a tenant may have one name, and no two one address.
    fn labels(&self) -> [(&str, &dyn Display); 2] {
        [("link", &self.name), ("listen", &self.listen)]
    }

    fn sample(&self, page: &mut Page, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        page.sample(name, &[&self.labels()[..], labels].concat(), value);
    }
}

const fn name_of(class: Class) -> &'static str {
    match class {
        Class::Authorization => "authorization",
        Class::Financial => "financial",
        Class::File => "file",
        Class::Reversal => "reversal",
        Class::Reconciliation => "reconciliation",
        Class::Administrative => "administrative",
        Class::Fee => "fee",
        Class::Network => "network",
    }
}

/// A reply's code, of two letters or three. Replies take theirs from one table; `-` is for one that has none.
fn code_of(field: Option<&[u8]>) -> [u8; 3] {
    let mut code = *b"   ";
    let units =
        field.filter(|units| (2..=3).contains(&units.len()) && units.iter().all(u8::is_ascii_alphanumeric));
    let units = units.unwrap_or(b"-");
    code[..units.len()].copy_from_slice(units);
    code
}
