//! Faults on the way between client and engine, on purpose: what a network, a proxy or a dying process does.
//!
//! They are put under the client, at the seam where its transport is, so that everything above them is what a payment network
//! runs: its repeats, its look-ups and its patience are put to the test, and the money must agree all the same.

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use surety_client::transport::{
    Batch, BoxFuture, Closed, Connector, Event, Link, LinkReceiver, LinkSender, OpenError, QueryError,
    StateSource, TailSource,
};
use surety_protocol::{Cursor, Reply, ShardId, Token};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::random::Random;

/// Which faults, and how often. As text: `drop=0.01,double=0.01,delay=0.01:5ms,kill=2s`, each part at most once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Injection {
    /// The share of reply frames that are lost.
    pub drop: f64,
    /// The share of request frames that arrive twice.
    pub double: f64,
    /// The share of reply frames that come late.
    pub delay: f64,
    /// How late.
    pub delay_by: Duration,
    /// How long a connection lives on average, if connections are killed.
    pub kill: Option<Duration>,
}

/// What is wrong with the text of an [`Injection`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{part}`: {rule}; write drop=0.01,double=0.01,delay=0.01:5ms,kill=2s or some of these")]
pub struct InjectionError {
    part: String,
    rule: &'static str,
}

/// How often each fault has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    /// Reply frames that were lost.
    pub dropped: u64,
    /// Request frames that arrived twice.
    pub doubled: u64,
    /// Reply frames that came late.
    pub delayed: u64,
    /// Connections that were killed.
    pub killed: u64,
}

impl FromStr for Injection {
    type Err = InjectionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut injection = Self::default();
        let mut seen = Vec::new();
        for part in text.split(',') {
            let fault = |rule| InjectionError { part: part.to_owned(), rule };
            let (name, value) = part.split_once('=').ok_or_else(|| fault("not of the form name=value"))?;
            if seen.contains(&name) {
                return Err(fault("given twice"));
            }
            seen.push(name);
            let share = |text: &str| {
                let share = text.parse::<f64>().ok().filter(|share| (0.0..=0.5).contains(share));
                share.ok_or_else(|| fault("a share must lie between 0 and 0.5"))
            };
            let span =
                |text: &str| span(text).ok_or_else(|| fault("a time must be like 5ms or 2s, up to 60s"));
            match name {
                "drop" => injection.drop = share(value)?,
                "double" => injection.double = share(value)?,
                "delay" => {
                    let (often, by) =
                        value.split_once(':').ok_or_else(|| fault("a delay is like 0.01:5ms"))?;
                    (injection.delay, injection.delay_by) = (share(often)?, span(by)?);
                }
                "kill" => injection.kill = Some(span(value)?),
                _ => return Err(fault("no such fault")),
            }
        }
        Ok(injection)
    }
}

fn span(text: &str) -> Option<Duration> {
    let (number, unit_ms) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s')?, 1000),
    };
    let ms = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    (1..=60_000).contains(&ms).then(|| Duration::from_millis(ms))
}

/// Counts of one run, shared by its links.
#[derive(Debug, Default)]
struct Counts {
    dropped: AtomicU64,
    doubled: AtomicU64,
    delayed: AtomicU64,
    killed: AtomicU64,
}

/// A transport with faults: the links of another one, spoiled.
pub struct Faulty {
    inner: Arc<dyn Connector>,
    injection: Injection,
    seed: u64,
    links: AtomicU64,
    counts: Arc<Counts>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("injection", &self.injection).finish_non_exhaustive()
    }
}

impl Faulty {
    /// Spoils the links of a transport; the seed decides when.
    #[must_use]
    pub fn new(inner: Arc<dyn Connector>, injection: Injection, seed: u64) -> Self {
        Self { inner, injection, seed, links: AtomicU64::new(0), counts: Arc::default() }
    }

    /// How often each fault has happened so far.
    #[must_use]
    pub fn injected(&self) -> Injected {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Injected {
            dropped: count(&self.counts.dropped),
            doubled: count(&self.counts.doubled),
            delayed: count(&self.counts.delayed),
            killed: count(&self.counts.killed),
        }
    }

    fn spoil(&self, link: Link) -> Link {
        let number = self.links.fetch_add(1, Ordering::Relaxed);
        let mut random = Random::new(self.seed ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03));
        // Between half and one and a half of the average.
        let dies = self.injection.kill.map(|kill| Instant::now() + kill.mul_f64(0.5 + random.unit()));
        let sender_random = Random::new(random.next());
        let (injection, counts) = (self.injection, self.counts.clone());
        let sender = Sender {
            inner: link.sender,
            injection,
            counts: counts.clone(),
            random: sender_random,
            again: Batch::new(),
        };
        let receiver = Receiver {
            inner: Some(link.receiver),
            injection,
            counts,
            random,
            dies: dies.map(|at| Box::pin(sleep_until(at))),
            late: None,
        };
        Link { hello: link.hello, sender: Box::new(sender), receiver: Box::new(receiver) }
    }
}

impl Connector for Faulty {
    fn open<'a>(&'a self, shard: ShardId, tokens: &'a [Token]) -> BoxFuture<'a, Result<Link, OpenError>> {
        Box::pin(async move { Ok(self.spoil(self.inner.open(shard, tokens).await?)) })
    }

    fn subscribe<'a>(
        &'a self,
        shard: ShardId,
        from: Cursor,
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Box<dyn TailSource>, OpenError>> {
        self.inner.subscribe(shard, from, tokens)
    }

    fn state<'a>(
        &'a self,
        shard: ShardId,
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Box<dyn StateSource>, OpenError>> {
        self.inner.state(shard, tokens)
    }

    fn query<'a>(
        &'a self,
        question: &'a [u8],
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Vec<u8>, QueryError>> {
        self.inner.query(question, tokens)
    }

    fn farewell(&self) -> BoxFuture<'_, ()> {
        self.inner.farewell()
    }
}

struct Sender {
    inner: Box<dyn LinkSender>,
    injection: Injection,
    counts: Arc<Counts>,
    random: Random,
    /// A frame that is to arrive once more.
    again: Batch,
}

impl LinkSender for Sender {
    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<Result<(), Closed>> {
        if !self.again.is_empty() {
            ready!(self.inner.poll_send(cx, &mut self.again))?;
            self.again.clear();
        }
        let mut copy = Batch::new();
        copy.push(batch.records());
        ready!(self.inner.poll_send(cx, batch))?;
        if self.random.unit() <= self.injection.double {
            self.counts.doubled.fetch_add(1, Ordering::Relaxed);
            // It arrives in front of the next frame.
            self.again = copy;
        }
        Poll::Ready(Ok(()))
    }
}

struct Receiver {
    /// None once the connection was killed.
    inner: Option<Box<dyn LinkReceiver>>,
    injection: Injection,
    counts: Arc<Counts>,
    random: Random,
    dies: Option<Pin<Box<Sleep>>>,
    late: Option<Late>,
}

/// What is held back, and until when.
struct Late {
    replies: Vec<Reply>,
    event: Event,
    until: Pin<Box<Sleep>>,
}

impl LinkReceiver for Receiver {
    fn poll_receive(&mut self, cx: &mut Context<'_>, replies: &mut Vec<Reply>) -> Poll<Event> {
        if let Some(dies) = &mut self.dies
            && dies.as_mut().poll(cx).is_ready()
        {
            self.dies = None;
            self.inner = None;
            self.counts.killed.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Event::Closed(Closed::Reset));
        }
        let Some(inner) = &mut self.inner else { return Poll::Pending };
        loop {
            if let Some(late) = &mut self.late {
                ready!(late.until.as_mut().poll(cx));
                replies.append(&mut late.replies);
                let event = late.event;
                self.late = None;
                return Poll::Ready(event);
            }
            let mut frame = Vec::new();
            let event = ready!(inner.poll_receive(cx, &mut frame));
            if frame.is_empty() {
                return Poll::Ready(event);
            }
            let draw = self.random.unit();
            if draw <= self.injection.drop {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            } else if draw <= self.injection.drop + self.injection.delay {
                self.counts.delayed.fetch_add(1, Ordering::Relaxed);
                let until = Box::pin(sleep_until(Instant::now() + self.injection.delay_by));
                self.late = Some(Late { replies: frame, event, until });
            } else {
                replies.append(&mut frame);
                return Poll::Ready(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injections_are_read() {
        let all = "drop=0.01,double=0.02,delay=0.03:5ms,kill=2s".parse::<Injection>().unwrap();
        let expected = Injection {
            drop: 0.01,
            double: 0.02,
            delay: 0.03,
            delay_by: Duration::from_millis(5),
            kill: Some(Duration::from_secs(2)),
        };
        assert_eq!(all, expected);
        assert_eq!("kill=500ms".parse::<Injection>().unwrap().kill, Some(Duration::from_millis(500)));
    }

    #[test]
    fn what_cannot_be_injected_is_named() {
        for (text, expect) in [
            ("", "not of the form"),
            ("drop", "not of the form"),
            ("drop=2", "between 0 and 0.5"),
            ("drop=NaN", "between 0 and 0.5"),
            ("drop=0.1,drop=0.1", "given twice"),
            ("delay=0.1", "a delay is like"),
            ("delay=0.1:5", "a time must be"),
            ("delay=0.1:0ms", "a time must be"),
            ("kill=61s", "a time must be"),
            ("kill=99999999999999999999s", "a time must be"),
            ("burn=1", "no such fault"),
        ] {
            let message = text.parse::<Injection>().unwrap_err().to_string();
            assert!(message.contains(expect), "{text}: {message}");
        }
    }
}
