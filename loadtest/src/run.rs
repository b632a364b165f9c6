//! A run: payments begun by a schedule, or as fast as they end, until the time is over.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use surety_client::Client;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::inject::Faulty;
use crate::machine;
use crate::money;
use crate::payment::pay;
use crate::random::Random;
use crate::recorder::{Files, RecordError, Recorder, Recording, Sample};
use crate::report::Report;
use crate::scenario::{Payments, Scenario};
use crate::schedule::{Pace, Schedule};
use crate::setup::{SetupError, prepare};

/// Below this the generator waits by giving way rather than by a timer, whose grain is a millisecond.
const TIMER_GRAIN: Duration = Duration::from_millis(2);
/// A machine of whose cores others take more was not quiet.
const BUSY_MAX: f64 = 0.05;
/// A generator that is later than this is part of what it measures.
const LATE_MAX_US: f64 = 1000.0;

/// Who does what. Over any transport.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Sends the payments.
    pub authorizer: Client,
    /// Makes deposits.
    pub settler: Option<Client>,
    /// Makes tenant, partitions and policies. Without it the scenario's partitions must be there.
    pub admin: Option<Client>,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The payments.
    pub scenario: Scenario,
    /// How they arrive.
    pub pace: Pace,
    /// How long payments are begun; what is under way then is finished.
    pub duration: Duration,
    /// Payments that an open loop may have under way; what comes beyond is counted as dropped.
    pub in_flight_max: usize,
    /// Where replies are appended.
    pub acks: Option<PathBuf>,
    /// Where the latencies of each second go, in the interval log format of `HdrHistogram`.
    pub hlog: Option<PathBuf>,
    /// Checks the money after the run: every lock is looked up and every reply's record is found in the durable change stream.
    /// Keeps every reply in memory until then, 128 bytes each.
    pub checks_money: bool,
    /// What spoils the authorizer's links, to be reported.
    pub faults: Option<Arc<Faulty>>,
    /// Prints a line a second to standard error.
    pub shows_progress: bool,
    /// Ends the run early once it holds true.
    pub stop: Option<watch::Receiver<bool>>,
}

impl Options {
    /// A run without a file, without progress, and with room for 10,000 payments under way.
    #[must_use]
    pub const fn new(scenario: Scenario, pace: Pace, duration: Duration) -> Self {
        Self {
            scenario,
            pace,
            duration,
            in_flight_max: 10_000,
            acks: None,
            hlog: None,
            checks_money: false,
            faults: None,
            shows_progress: false,
            stop: None,
        }
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The scenario's needs could not be met.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// What happened could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A rate that is no rate.
    #[error("the rate must be a positive number of payments a second")]
    Rate,
    /// A closed loop without payments.
    #[error("a closed loop needs at least one payment in flight")]
    InFlight,
}

/// Prepares the engine and runs a scenario.
///
/// # Errors
/// [`LoadError`]; declines, refusals and lost outcomes are part of the result.
pub async fn run(clients: &Clients, options: Options) -> Result<Report, LoadError> {
    let client = &clients.authorizer;
    let scenario = &options.scenario;
    if let Some(admin) = &clients.admin {
        let settler = clients.settler.as_ref().unwrap_or(admin);
        prepare(admin, settler, client.tenant(), scenario).await?;
    }
    let schedule = match &options.pace {
        Pace::Max { in_flight: 0 } => return Err(LoadError::InFlight),
        Pace::Max { .. } => None,
        pace => Some(Schedule::new(pace, scenario.seed, options.duration).ok_or(LoadError::Rate)?),
    };
    let watched = tokio::task::spawn_blocking(|| (machine::busy_by_others(), machine::jitter_p99_us()));
    let (busy_by_others, jitter_p99_us) = watched.await.unwrap_or_default();
    let files = Files { acks: options.acks, hlog: options.hlog };
    let keeps = options.checks_money.then_some(scenario.seed);
    let recording = Recording::start(&files, options.shows_progress, keeps)?;
    let started = Instant::now();
    let course = Arc::new(Course {
        client: client.clone(),
        recorder: recording.recorder(),
        payments: Payments::new(scenario.clone(), client.shards()),
        started,
        duration: options.duration,
        stop: options.stop,
    });
    match (schedule, &options.pace) {
        (Some(schedule), _) => open_loop(&course, schedule, started, options.in_flight_max).await,
        (None, Pace::Max { in_flight }) => closed_loop(&course, *in_flight).await,
        (None, Pace::Constant { .. } | Pace::Poisson { .. }) => return Err(LoadError::Rate),
    }
    let (mut report, kept) = recording.finish(started.elapsed().as_secs_f64())?;
    report.injected = options.faults.map(|faults| faults.injected());
    if let Some(kept) = kept {
        let found = money::check(client, &kept.replies, kept.sightings, report.contradictions).await;
        report.ok &= found.is_ok();
        report.money_check = Some(found);
    }
    report.scenario = scenario.name.clone();
    report.pace = options.pace.name().to_owned();
    report.offered_per_s = match &options.pace {
        Pace::Max { .. } => 0.0,
        Pace::Constant { rate } | Pace::Poisson { rate } => rate.mean(),
    };
    report.durability = durability_name(client.hello().durability).to_owned();
    report.machine = machine::describe();
    (report.busy_by_others, report.jitter_p99_us) = (busy_by_others, jitter_p99_us);
    report.noisy = busy_by_others > BUSY_MAX || jitter_p99_us.max(report.late_p99_us) > LATE_MAX_US;
    Ok(report)
}

/// What all payments of a run share.
struct Course {
    client: Client,
    recorder: Recorder,
    payments: Payments,
    started: Instant,
    duration: Duration,
    stop: Option<watch::Receiver<bool>>,
}

impl Course {
    fn is_over(&self, at: Instant) -> bool {
        let is_stopped = self.stop.as_ref().is_some_and(|stop| *stop.borrow());
        at >= self.started + self.duration || is_stopped || self.recorder.has_failed()
    }

    async fn pay(&self, random: &mut Random, intended: Instant) {
        let progress =
            intended.saturating_duration_since(self.started).as_secs_f64() / self.duration.as_secs_f64();
        let draw = self.payments.draw(random, progress);
        pay(&self.client, &self.recorder, &self.payments.scenario.steps, draw, intended).await;
    }
}

/// So many payments under way at any time.
async fn closed_loop(course: &Arc<Course>, in_flight: usize) {
    let mut workers = JoinSet::new();
    for worker in 0..in_flight {
        let course = course.clone();
        workers.spawn(async move {
            let mut random = Random::new(
                course.payments.scenario.seed ^ (worker as u64).wrapping_mul(0xa24b_aed4_963e_e407),
            );
            loop {
                let now = Instant::now();
                if course.is_over(now) {
                    return;
                }
                course.recorder.push(Sample::Begun { late: Duration::ZERO });
                course.pay(&mut random, now).await;
            }
        });
    }
    while workers.join_next().await.is_some() {}
}

/// Payments begin when they are meant to, however the engine fares.
async fn open_loop(course: &Arc<Course>, schedule: Schedule, started: Instant, in_flight_max: usize) {
    let room = Arc::new(Semaphore::new(in_flight_max.clamp(1, Semaphore::MAX_PERMITS)));
    let mut random = Random::new(course.payments.scenario.seed);
    let mut payments = JoinSet::new();
    for offset in schedule {
        let intended = started + offset;
        if course.is_over(intended) {
            break;
        }
        wait_until(intended).await;
        // What has ended needs no place in the set.
        while payments.try_join_next().is_some() {}
        let seed = random.next();
        let Ok(permit) = room.clone().try_acquire_owned() else {
            course.recorder.push(Sample::Dropped);
            continue;
        };
        course.recorder.push(Sample::Begun { late: intended.elapsed() });
        let course = course.clone();
        payments.spawn(async move {
            course.pay(&mut Random::new(seed), intended).await;
            drop(permit);
        });
    }
    while payments.join_next().await.is_some() {}
}

async fn wait_until(moment: Instant) {
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        match left.checked_sub(TIMER_GRAIN) {
            Some(rest) if !rest.is_zero() => tokio::time::sleep(rest).await,
            _ => tokio::task::yield_now().await,
        }
    }
}

/// The word for a hello's durability byte.
const fn durability_name(durability: u8) -> &'static str {
    match durability {
        0 => "fsync",
        1 => "os",
        _ => "unknown",
    }
}
