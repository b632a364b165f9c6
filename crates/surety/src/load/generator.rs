//! `surety load generator`: one process of a run that several make. It reads its job from standard input, says when it is
//! ready, begins when it is told, and ends early when it is told or when nobody is there any more to tell it.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loadtest::{OnSecond, Progress, Report};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::job::Job;
use super::load_failure;
use crate::exit::{Exit, Failure};

/// What a generator is told, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Order {
    /// Get ready for this.
    Prepare(Box<Job>),
    /// Begin at this moment, in nanoseconds since 1970.
    Start(u64),
    /// Begin nothing more.
    Stop,
}

/// What a generator says, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Word {
    /// It waits for the start.
    Ready,
    /// A second is over.
    Second(Box<Progress>),
    /// The run is over.
    Report(Box<Report>),
}

/// Makes its part of a run.
pub(super) async fn run() -> Result<(), Failure> {
    let (stop, stopped) = watch::channel(false);
    // Whoever tells all processes of a run to end means the one that tells the others, and wants their reports.
    let _deaf = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let (told, mut orders) = mpsc::unbounded_channel();
    // Not a task: reading standard input cannot be given up, and the process ends without it.
    std::thread::spawn(move || listen(&told, &stop));
    let out_of_turn =
        || Failure::new(Exit::Usage, "a generator is started by `surety load --processes N` alone");
    let Some(Order::Prepare(job)) = orders.recv().await else { return Err(out_of_turn()) };
    let (clients, mut options) = job.prepare(stopped).await?;
    say(&Word::Ready);
    let Some(Order::Start(at_ns)) = orders.recv().await else { return Err(out_of_turn()) };
    options.start = Some(moment(at_ns));
    options.on_second = Some(OnSecond::new(|progress| say(&Word::Second(Box::new(progress.clone())))));
    let report = loadtest::run(&clients, options).await.map_err(|error| load_failure(&error))?;
    say(&Word::Report(Box::new(report)));
    Ok(())
}

/// Passes orders on. Without anybody to give them the run ends.
fn listen(told: &mpsc::UnboundedSender<Order>, stop: &watch::Sender<bool>) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Order::Stop) | Err(_) => break,
            Ok(order) => {
                let _ = told.send(order);
            }
        }
    }
    let _ = stop.send(true);
}

/// Says a word. Whether anybody hears it is not this process's business: standard input tells when nobody is left.
fn say(word: &Word) {
    let mut out = std::io::stdout().lock();
    let _ = serde_json::to_writer(&mut out, word).map_err(std::io::Error::from);
    let _ = out.write_all(b"\n").and_then(|()| out.flush());
}

/// A moment of the wall clock on the clock of runs.
fn moment(at_ns: u64) -> Instant {
    let now = Instant::now();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Duration::from_nanos(at_ns);
    match at.checked_sub(wall) {
        Some(ahead) => now + ahead,
        None => now.checked_sub(wall - at).unwrap_or(now),
    }
}
