//! A run: payments begun by a schedule, or as fast as they end, until the time is over.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use surety_client::Client;
use surety_client::transport::OpenError;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::alarm::Alarm;
use crate::door_check::{self, Marks, Measure};
use crate::front::{Front, Unsaid};
use crate::inject::Faulty;
use crate::iso;
use crate::machine;
use crate::money::{self, MoneyCheck};
use crate::payment::pay;
use crate::progress::OnSecond;
use crate::random::Random;
use crate::recorder::{Files, RecordError, Recorder, Recording, Sample, Watchers};
use crate::report::Report;
use crate::rest;
use crate::scenario::{Payments, Scenario};
use crate::schedule::{Pace, Schedule};
use crate::setup::{SetupError, prepare};
use crate::share::Share;

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
    /// Checks the money after the run: every lock is looked up (of more than 200,000 so many by chance) and every reply's record is found in the durable change stream.
    /// Keeps every reply in memory until then, 128 bytes each.
    pub checks_money: bool,
    /// Where payments go instead of the authorizer's own links, which then look up and follow alone: a front door.
    pub door: Option<Front>,
    /// What spoils the authorizer's links, to be reported.
    pub faults: Option<Arc<Faulty>>,
    /// Told of each second.
    pub on_second: Option<OnSecond>,
    /// Which part of the run is this generator's.
    pub share: Share,
    /// When it begins. None: at once, after the machine was watched for a moment to see how quiet it is; several generators
    /// would see each other instead.
    pub start: Option<Instant>,
    /// The engine's process, if it is on this machine: its processor time is reported.
    pub engine_process: Option<u32>,
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
            door: None,
            faults: None,
            on_second: None,
            share: Share::WHOLE,
            start: None,
            engine_process: None,
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
    /// A step that the front door does not offer.
    #[error(transparent)]
    Unsaid(#[from] Unsaid),
    /// Answers of a front door name no place in the log.
    #[error("acknowledgements are replies of the engine itself: a front door gives none")]
    Acks,
    /// Where the log ends cannot be asked.
    #[error("the change stream cannot be read: {0}")]
    Stream(#[from] OpenError),
    /// A rate that is no rate.
    #[error("the rate must be a positive number of payments a second")]
    Rate,
    /// A closed loop without payments.
    #[error("a closed loop needs at least one payment in flight")]
    InFlight,
    /// The system gives no timer for the moments of an open loop.
    #[error("cannot wait for the moments of payments: {0}")]
    Timer(#[source] io::Error),
}

/// Prepares the engine and runs a scenario.
///
/// # Errors
/// [`LoadError`]; declines, refusals and lost outcomes are part of the result.
pub async fn run(clients: &Clients, options: Options) -> Result<Report, LoadError> {
    let client = &clients.authorizer;
    let scenario = &options.scenario;
    if let Some(front) = &options.door {
        front.can_say(scenario, client.shards())?;
        if options.acks.is_some() {
            return Err(LoadError::Acks);
        }
    }
    prepare_with(clients, scenario).await?;
    let share = options.share;
    let schedule = match &options.pace {
        Pace::Max { in_flight } if share.part(*in_flight) == 0 => return Err(LoadError::InFlight),
        Pace::Max { .. } => None,
        pace => {
            let schedule = Schedule::shared(pace, scenario.seed, options.duration, share);
            Some(schedule.ok_or(LoadError::Rate)?)
        }
    };
    let (busy_by_others, jitter_p99_us) = match options.start {
        Some(_) => (0.0, 0.0),
        None => watch_machine().await,
    };
    let marks = match (&options.door, options.checks_money) {
        (Some(_), true) => Some(Marks::of(client).await?),
        _ => None,
    };
    let files = Files { acks: options.acks, hlog: options.hlog };
    let seed = share.seed(scenario.seed);
    let started = options.start.unwrap_or_else(Instant::now);
    let watchers =
        Watchers { on_second: options.on_second, faults: options.faults, door: options.door.clone() };
    let recording =
        Recording::start(&files, watchers.clone(), options.checks_money.then_some(seed), started)?;
    let course = Arc::new(Course {
        client: client.clone(),
        door: options.door.clone(),
        recorder: recording.recorder(),
        payments: Payments::new(scenario.clone(), client.shards()),
        seed,
        started,
        duration: options.duration,
        stop: options.stop,
    });
    let alarm = Alarm::new().map_err(LoadError::Timer)?;
    alarm.wait_until(started).await.map_err(LoadError::Timer)?;
    let started_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let spent = Spent::begin(options.engine_process);
    match (schedule, &options.pace) {
        (Some(schedule), _) => {
            let in_flight_max = share.part(options.in_flight_max);
            open_loop(&course, schedule, in_flight_max, &alarm).await.map_err(LoadError::Timer)?;
        }
        (None, Pace::Max { in_flight }) => closed_loop(&course, share.part(*in_flight)).await,
        (None, Pace::Constant { .. } | Pace::Poisson { .. }) => return Err(LoadError::Rate),
    }
    let seconds = started.elapsed().as_secs_f64();
    if let Some(door) = &options.door {
        door.faults().wait_for_doubles().await;
    }
    let (mut report, kept) = recording.finish(seconds)?;
    (report.generator_cpu_s, report.engine_cpu_s) = spent.end();
    report.injected = watchers.injected();
    // Of several generators one may have nothing to do; that somebody was answered is asked of all together.
    let is_idle_part = share != Share::WHOLE && report.payments + report.dropped == 0;
    report.ok |= is_idle_part;
    if is_idle_part {
        report.money_check = kept.map(|_| MoneyCheck::of_nothing());
    } else if let Some(kept) = kept {
        let Report { contradictions, unknown, .. } = report;
        let found = match (&options.door, &marks) {
            (Some(door), Some(marks)) => {
                let headroom_bps = scenario.policy.headroom_bps;
                let measure = Measure { step: door.step(), headroom_bps, edition: door.edition() };
                door_check::check(client, kept, marks, measure, unknown, contradictions).await
            }
            _ => money::check(client, &kept.replies, kept.sightings, contradictions).await,
        };
        report.ok &= found.is_ok();
        report.money_check = Some(found);
    }
    report.scenario = scenario.name.clone();
    report.transport = options.door.as_ref().map_or("quic", Front::name).to_owned();
    report.pace = options.pace.to_string();
    report.stopped_early = course.stop.as_ref().is_some_and(|stop| *stop.borrow());
    report.offered_per_s = match &options.pace {
        Pace::Max { .. } => 0.0,
        Pace::Constant { rate } | Pace::Poisson { rate } => rate.mean() / f64::from(share.of.max(1)),
    };
    report.durability = durability_name(client.hello().durability).to_owned();
    report.machine = machine::describe();
    (report.processes, report.started_ms) = (1, u64::try_from(started_ms).unwrap_or(0));
    report.judge_machine(busy_by_others, jitter_p99_us);
    Ok(report)
}

/// Makes what a scenario needs, if somebody who may is there: the first part of a run, once for all generators of it.
///
/// # Errors
/// If the engine declines it, or does not answer.
pub async fn prepare_with(clients: &Clients, scenario: &Scenario) -> Result<(), SetupError> {
    let Some(admin) = &clients.admin else { return Ok(()) };
    let settler = clients.settler.as_ref().unwrap_or(admin);
    prepare(admin, settler, clients.authorizer.tenant(), scenario).await
}

/// How quiet the machine is: the share of its cores' time that others take, and how late a generator is that has nothing to
/// do, in microseconds.
pub async fn watch_machine() -> (f64, f64) {
    let watched = tokio::task::spawn_blocking(|| (machine::busy_by_others(), machine::jitter_p99_us()));
    watched.await.unwrap_or_default()
}

impl Report {
    /// Says how quiet the machine was, and with that whether the latencies may be trusted.
    pub fn judge_machine(&mut self, busy_by_others: f64, jitter_p99_us: f64) {
        (self.busy_by_others, self.jitter_p99_us) = (busy_by_others, jitter_p99_us);
        self.noisy = busy_by_others > BUSY_MAX || jitter_p99_us.max(self.late_p99_us) > LATE_MAX_US;
    }
}

/// Processor time of generator and engine before a run.
struct Spent {
    engine: Option<u32>,
    before: (Option<f64>, Option<f64>),
}

impl Spent {
    fn begin(engine: Option<u32>) -> Self {
        Self { engine, before: Self::now(engine) }
    }

    fn now(engine: Option<u32>) -> (Option<f64>, Option<f64>) {
        (machine::own_cpu_s(), engine.and_then(machine::cpu_s_of))
    }

    /// What each has taken since.
    fn end(self) -> (Option<f64>, Option<f64>) {
        let since = |before: Option<f64>, after: Option<f64>| Some(after? - before?);
        let after = Self::now(self.engine);
        (since(self.before.0, after.0), since(self.before.1, after.1))
    }
}

/// What all payments of a run share.
struct Course {
    client: Client,
    door: Option<Front>,
    recorder: Recorder,
    payments: Payments,
    seed: u64,
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
        let steps = &self.payments.scenario.steps;
        match &self.door {
            None => pay(&self.client, &self.recorder, steps, draw, intended).await,
            Some(Front::Rest(door)) => {
                rest::pay(door, &self.client, &self.recorder, steps, draw, intended).await
            }
            Some(Front::Iso(host)) => {
                iso::pay(host, &self.client, &self.recorder, steps, draw, intended).await
            }
        }
    }
}

/// So many payments under way at any time, and each of them at least once.
async fn closed_loop(course: &Arc<Course>, in_flight: usize) {
    let mut workers = JoinSet::new();
    for worker in 0..in_flight {
        let course = course.clone();
        workers.spawn(async move {
            let mut random = Random::new(course.seed ^ (worker as u64).wrapping_mul(0xa24b_aed4_963e_e407));
            loop {
                let now = Instant::now();
                course.recorder.push(Sample::Begun { late: Duration::ZERO });
                course.pay(&mut random, now).await;
                // Only now: on a slow machine the time may be over before the first payment, and there would be nothing to judge.
                if course.is_over(Instant::now()) {
                    return;
                }
            }
        });
    }
    while workers.join_next().await.is_some() {}
}

/// Payments begin when they are meant to, however the engine fares.
async fn open_loop(
    course: &Arc<Course>,
    schedule: Schedule,
    in_flight_max: usize,
    alarm: &Alarm,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(in_flight_max.clamp(1, Semaphore::MAX_PERMITS)));
    let mut random = Random::new(course.seed);
    let mut payments = JoinSet::new();
    for offset in schedule {
        let intended = course.started + offset;
        if course.is_over(intended) {
            break;
        }
        alarm.wait_until(intended).await?;
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
    Ok(())
}

/// The word for a hello's durability byte.
const fn durability_name(durability: u8) -> &'static str {
    match durability {
        0 => "fsync",
        1 => "os",
        _ => "unknown",
    }
}
