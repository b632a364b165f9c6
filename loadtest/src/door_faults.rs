//! Faults that are put on the way to a front door on purpose: answers that are lost or late, requests that arrive twice,
//! connections that are killed.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::inject::{Injected, Injection};
use crate::random::Random;

const DROPPED: usize = 0;
const DOUBLED: usize = 1;
const DELAYED: usize = 2;
const KILLED: usize = 3;

/// An exchange that ended without an answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The request has never left: it was not executed.
    NotSent(io::Error),
    /// It may have been executed.
    Lost,
}

/// What became of a request, and of the other that went out with it.
pub(crate) struct Exchange<H> {
    pub(crate) heard: Result<H, Failed>,
    /// True if it was sent twice: what is said to one of them does not tell what became of the other.
    pub(crate) is_doubled: bool,
}

/// Which faults come, and how often they have.
pub(crate) struct DoorFaults {
    injection: Option<Injection>,
    seed: u64,
    draws: AtomicU64,
    counts: [AtomicU64; 4],
    /// Requests that were sent beside others on purpose.
    doubles: Mutex<JoinSet<()>>,
}

impl DoorFaults {
    pub(crate) fn new(injection: Option<Injection>, seed: u64) -> Self {
        Self {
            injection,
            seed,
            draws: AtomicU64::new(0),
            counts: Default::default(),
            doubles: Mutex::default(),
        }
    }

    /// How often each has happened; none if there are to be none.
    pub(crate) fn injected(&self) -> Option<Injected> {
        let count = |which: usize| self.counts[which].load(Ordering::Relaxed);
        self.injection.map(|_| Injected {
            dropped: count(DROPPED),
            doubled: count(DOUBLED),
            delayed: count(DELAYED),
            killed: count(KILLED),
        })
    }

    fn count(&self, which: usize) {
        self.counts[which].fetch_add(1, Ordering::Relaxed);
    }

    /// When a connection that is opened now is to be killed, if it is: between half and one and a half of the average from now.
    pub(crate) fn death(&self) -> Option<Instant> {
        let kill = self.injection.and_then(|injection| injection.kill);
        kill.map(|kill| Instant::now() + kill.mul_f64(0.5 + self.random().unit()))
    }

    pub(crate) fn count_killed(&self) {
        self.count(KILLED);
    }

    /// Says a request by `say`, with whatever happens to it on the way. If it goes out twice, the other answer is for `on_double`.
    pub(crate) async fn exchange<H, F>(
        &self,
        say: impl Fn() -> F,
        on_double: impl FnOnce(&H) + Send + 'static,
    ) -> Exchange<H>
    where
        F: Future<Output = Result<H, Failed>> + Send + 'static,
        H: 'static,
    {
        let Some(injection) = self.injection else {
            return Exchange { heard: say().await, is_doubled: false };
        };
        let mut random = self.random();
        let is_doubled = random.unit() <= injection.double;
        if is_doubled {
            self.count(DOUBLED);
            let other = say();
            let mut doubles = self.doubles.lock();
            // What has ended needs no place in the set.
            while doubles.try_join_next().is_some() {}
            doubles.spawn(async move {
                if let Ok(heard) = other.await {
                    on_double(&heard);
                }
            });
        }
        let mut heard = say().await;
        let draw = random.unit();
        if draw <= injection.drop && heard.is_ok() {
            self.count(DROPPED);
            heard = Err(Failed::Lost);
        } else if draw <= injection.drop + injection.delay {
            self.count(DELAYED);
            sleep(injection.delay_by).await;
        }
        Exchange { heard, is_doubled }
    }

    /// Waits until nothing is under way that was sent twice.
    pub(crate) async fn wait_for_doubles(&self) {
        let mut doubles = std::mem::take(&mut *self.doubles.lock());
        while doubles.join_next().await.is_some() {}
    }

    /// A source of draws for one exchange.
    fn random(&self) -> Random {
        let number = self.draws.fetch_add(1, Ordering::Relaxed);
        Random::new(self.seed ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }
}
