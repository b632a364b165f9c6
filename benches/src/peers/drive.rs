//! Drives a peer: one thread, one runtime, on a core of its own, whoever the peer is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use surety_protocol::Time;

use super::{Link, PARTITIONS, Payment, Peer};
use crate::echo::on_client;
use crate::figures::{Latency, Recorder};
use crate::locks::CLIENT_CORE;
use crate::mix::Numbers;

/// The part of a run that is not counted, at its beginning.
const WARM_UP: f64 = 0.1;

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Locks and releases answered in a second.
    pub per_s: f64,
    /// Of a lock, and of a release: from the moment at which it was, or was to be, sent.
    pub latency: Latency,
}

/// As fast as it goes: each of `connections` has `depth` requests on their way, locks and then their releases.
///
/// # Errors
/// If the peer fails, or declines.
pub fn closed_loop<P>(
    peer: &P,
    connections: usize,
    depth: usize,
    lasting: Duration,
) -> anyhow::Result<Measured>
where
    P: Peer + Sync,
{
    run(peer, connections, lasting, move |_| Pace { depth, every: None })
}

/// At a rate that is fixed beforehand: payments begin in turns on the connections, one after the other on each.
///
/// # Errors
/// If the peer fails, or declines.
pub fn open_loop<P>(
    peer: &P,
    connections: usize,
    payments_per_s: f64,
    lasting: Duration,
) -> anyhow::Result<Measured>
where
    P: Peer + Sync,
{
    let every = Duration::from_secs_f64(connections as f64 / payments_per_s);
    let first = move |index: usize| Duration::from_secs_f64(index as f64 / payments_per_s);
    run(peer, connections, lasting, move |index| Pace { depth: 1, every: Some((first(index), every)) })
}

#[derive(Clone, Copy)]
struct Pace {
    depth: usize,
    /// The first payment, and the time between two; none for as fast as it goes.
    every: Option<(Duration, Duration)>,
}

fn run<P>(
    peer: &P,
    connections: usize,
    lasting: Duration,
    pace: impl Fn(usize) -> Pace + Send + Sync,
) -> anyhow::Result<Measured>
where
    P: Peer + Sync,
{
    on_client(CLIENT_CORE, move || async move {
        let mut links = Vec::new();
        for _ in 0..connections {
            links.push(peer.connect().await?);
        }
        let start = Instant::now();
        let tasks: Vec<_> = links
            .into_iter()
            .enumerate()
            .map(|(index, link)| tokio::task::spawn_local(work(link, index, pace(index), start, lasting)))
            .collect();
        let (mut answered, mut recorder) = (0, Recorder::default());
        for task in tasks {
            let done = task.await.context("a connection's task")??;
            answered += done.answered;
            recorder.merge(&done.recorder);
        }
        let counted = start.elapsed().as_secs_f64() - lasting.as_secs_f64() * WARM_UP;
        Ok(Measured { per_s: answered as f64 / counted, latency: recorder.latency() })
    })
}

struct Done {
    answered: usize,
    recorder: Recorder,
}

async fn work<L: Link>(
    mut link: L,
    index: usize,
    pace: Pace,
    start: Instant,
    lasting: Duration,
) -> anyhow::Result<Done> {
    // Neither two connections nor two runs draw the same ids.
    let seed = now().0 ^ (index as u64 + 1).wrapping_mul(0x9fb2_1c65_1e98_df25);
    let mut numbers = Numbers::new(seed);
    let mut done = Done { answered: 0, recorder: Recorder::default() };
    let counted_from = start + lasting.mul_f64(WARM_UP);
    for turn in 0_u32.. {
        let mut due = Instant::now();
        if let Some((first, every)) = pace.every {
            due = start + first + every * turn;
            tokio::time::sleep_until(due.into()).await;
        }
        if due >= start + lasting {
            break;
        }
        let payments: Vec<Payment> = (0..pace.depth).map(|_| payment(&mut numbers)).collect();
        link.lock(&payments).await?;
        let locked = Instant::now();
        link.release(&payments).await?;
        if due >= counted_from {
            done.recorder.add(locked - due);
            done.recorder.add(locked.elapsed());
            done.answered += 2 * payments.len();
        }
    }
    Ok(done)
}

fn payment(numbers: &mut Numbers) -> Payment {
    Payment {
        id: numbers.id(now()).0,
        partition: numbers.below(PARTITIONS),
        amount: 1 + numbers.below(1_000_000),
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
