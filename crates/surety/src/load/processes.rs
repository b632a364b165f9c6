//! A run that several processes make: they are told the same start, and what they come to is put together.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loadtest::{Merging, OnSecond, Report, Share};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::generator::{Order, Word};
use super::job::Job;
use crate::exit::{Exit, Failure};

/// From the moment when all are ready to the common start: each has to hear of it before.
const START_AHEAD: Duration = Duration::from_millis(200);
/// What is kept of a generator's complaints.
const COMPLAINT_BYTES: usize = 4096;

/// Prepares the engine once, and has so many generators run.
pub(super) async fn run(
    job: &Job,
    processes: u32,
    patience: Duration,
    on_second: Option<OnSecond>,
    stop: watch::Receiver<bool>,
) -> Result<Report, Failure> {
    let scenario = job.scenario()?;
    let clients = job.clients().await?;
    let made = loadtest::prepare_with(&clients, &scenario).await;
    made.map_err(|error| Failure::new(Exit::Declined, error))?;
    let (busy_by_others, jitter_p99_us) = loadtest::watch_machine().await;
    let mut generators = Generators::start(job, processes)?;
    generators.wait_until_ready(stop.clone()).await?;
    generators.begin();
    let until = Instant::now() + START_AHEAD + job.duration();
    let mut report = generators.finish(on_second.as_ref(), until, patience, stop).await?;
    report.judge_machine(busy_by_others, jitter_p99_us);
    Ok(report)
}

/// What came from a generator.
enum Heard {
    Word(Word),
    Nonsense(String),
    /// Nothing more will come. What it had to complain about, if anything.
    Silence(String),
}

/// A generator's process. Ends with this, however that ends.
struct Generator {
    child: Child,
    /// None once it was told to end.
    orders: Option<ChildStdin>,
    report: Option<Report>,
    trouble: Option<String>,
    is_gone: bool,
    /// When it spoke last.
    spoke: Instant,
    is_killed: bool,
}

struct Generators {
    all: Vec<Generator>,
    heard: mpsc::UnboundedReceiver<(usize, Heard)>,
}

impl Generators {
    fn start(job: &Job, processes: u32) -> Result<Self, Failure> {
        let (tell, heard) = mpsc::unbounded_channel();
        let mut generators = Self { all: Vec::new(), heard };
        for share in Share::all(processes) {
            let job = job.shared(share);
            let mut generator = Generator::start(generators.all.len(), &tell)
                .map_err(|error| Failure::new(Exit::Failure, format!("cannot start a generator: {error}")))?;
            generator.order(&Order::Prepare(Box::new(job)));
            generators.all.push(generator);
        }
        Ok(generators)
    }

    /// Without all of them there is no run.
    async fn wait_until_ready(&mut self, mut stop: watch::Receiver<bool>) -> Result<(), Failure> {
        let mut ready = 0;
        while ready < self.all.len() {
            let heard = tokio::select! {
                heard = self.heard.recv() => heard,
                _ = stop.wait_for(|stop| *stop) => return Err(Failure::new(Exit::Failure, "interrupted before the start")),
            };
            match heard {
                Some((_, Heard::Word(Word::Ready))) => ready += 1,
                Some((index, heard)) => {
                    let why = self.hear(index, heard).unwrap_or_else(|| "spoke out of turn".to_owned());
                    return Err(Failure::new(Exit::Failure, format!("{}: {why}", self.name(index))));
                }
                None => return Err(Failure::new(Exit::Failure, "no generator is left")),
            }
        }
        Ok(())
    }

    fn begin(&mut self) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + START_AHEAD;
        let at_ns = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        self.all.iter_mut().for_each(|generator| generator.order(&Order::Start(at_ns)));
    }

    /// Hears all of them out, and puts together what they say.
    async fn finish(
        mut self,
        on_second: Option<&OnSecond>,
        mut until: Instant,
        patience: Duration,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Report, Failure> {
        let mut merging = Merging::new(self.all.len());
        let mut is_stopped = false;
        while self.all.iter().any(|generator| !generator.is_gone) {
            let silent_at = self.silent_at(until, patience);
            let heard = tokio::select! {
                // Whoever has spoken is not silent, however late it is heard.
                biased;
                heard = self.heard.recv() => heard,
                _ = stop.wait_for(|stop| *stop), if !is_stopped => {
                    (is_stopped, until) = (true, until.min(Instant::now()));
                    self.all.iter_mut().for_each(|generator| generator.order(&Order::Stop));
                    continue;
                }
                () = sleep_until(silent_at) => {
                    self.end_silent(until, patience);
                    continue;
                }
            };
            let Some((index, heard)) = heard else { break };
            self.all[index].spoke = Instant::now();
            if let Heard::Word(Word::Second(progress)) = heard {
                if let (Some(progress), Some(on_second)) = (merging.add(index, *progress), on_second) {
                    on_second.tell(&progress);
                }
            } else if let Some(trouble) = self.hear(index, heard) {
                merging.lose(index);
                self.all[index].trouble.get_or_insert(trouble);
            }
        }
        self.put_together()
    }

    /// When the first that is left has been silent for too long, if it does not speak: after the run's end that is.
    fn silent_at(&self, until: Instant, patience: Duration) -> Instant {
        let waited_for = self.all.iter().filter(|generator| !generator.is_gone && !generator.is_killed);
        let first = waited_for.map(|generator| generator.spoke.max(until)).min();
        // A killed one ends by itself.
        first.unwrap_or_else(|| until.max(Instant::now())) + patience
    }

    /// Ends those that have been silent for too long, and says so.
    fn end_silent(&mut self, until: Instant, patience: Duration) {
        let now = Instant::now();
        for generator in self.all.iter_mut().filter(|generator| !generator.is_gone) {
            if generator.spoke.max(until) + patience <= now {
                generator.trouble.get_or_insert(format!("silent for {patience:?} after the end, and killed"));
                let _ = generator.child.kill();
                generator.is_killed = true;
            }
        }
    }

    /// Takes what a generator says. What is wrong with it, if something is.
    fn hear(&mut self, index: usize, heard: Heard) -> Option<String> {
        let generator = &mut self.all[index];
        match heard {
            Heard::Word(Word::Report(report)) => {
                generator.report = Some(*report);
                None
            }
            Heard::Word(Word::Ready | Word::Second(_)) => None,
            Heard::Nonsense(line) => Some(format!("said what is no report: {line}")),
            Heard::Silence(complaint) => {
                generator.is_gone = true;
                let ended = match generator.child.wait() {
                    Ok(status) if status.success() && generator.report.is_some() => return None,
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                };
                let complaint = complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
                Some(if complaint.is_empty() { ended } else { format!("{ended}: {complaint}") })
            }
        }
    }

    fn name(&self, index: usize) -> String {
        format!("generator {} of {}", index + 1, self.all.len())
    }

    fn put_together(self) -> Result<Report, Failure> {
        let named = |(index, generator): (usize, &Generator)| {
            generator.trouble.as_ref().map(|trouble| format!("{}: {trouble}", self.name(index)))
        };
        let troubles: Vec<String> = self.all.iter().enumerate().filter_map(named).collect();
        let reports: Vec<Report> = self.all.iter().filter_map(|generator| generator.report.clone()).collect();
        if reports.is_empty() {
            return Err(Failure::new(Exit::Failure, troubles.join("; ")));
        }
        let mut whole = loadtest::merge(&reports).map_err(|error| Failure::new(Exit::Failure, error))?;
        whole.ok &= troubles.is_empty();
        whole.troubles.extend(troubles);
        Ok(whole)
    }
}

impl Generator {
    fn start(index: usize, tell: &mpsc::UnboundedSender<(usize, Heard)>) -> std::io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["load", "generator"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A terminal's interrupt goes to the one process that tells the others what to do.
            .process_group(0)
            .spawn()?;
        let (orders, out, complaints) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let complaints = std::thread::spawn(move || complaints.map(last_of).unwrap_or_default());
        let tell = tell.clone();
        std::thread::spawn(move || {
            for line in out.into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
                let heard = match serde_json::from_str(&line) {
                    Ok(word) => Heard::Word(word),
                    Err(_) => Heard::Nonsense(line.chars().take(80).collect()),
                };
                let _ = tell.send((index, heard));
            }
            let complaint = complaints.join().unwrap_or_default();
            let _ = tell.send((index, Heard::Silence(complaint)));
        });
        Ok(Self {
            child,
            orders,
            report: None,
            trouble: None,
            is_gone: false,
            spoke: Instant::now(),
            is_killed: false,
        })
    }

    /// Gives an order. One that is gone is noticed by its silence.
    fn order(&mut self, order: &Order) {
        let Some(orders) = &mut self.orders else { return };
        let mut line = serde_json::to_vec(order).unwrap_or_default();
        line.push(b'\n');
        let _ = orders.write_all(&line).and_then(|()| orders.flush());
        if matches!(order, Order::Stop) {
            self.orders = None;
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // Does nothing to one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of what somebody writes, once they have ended.
fn last_of(mut from: impl Read) -> String {
    let (mut last, mut chunk) = (Vec::new(), [0; COMPLAINT_BYTES]);
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        last.extend_from_slice(&chunk[..read]);
        last.drain(..last.len().saturating_sub(COMPLAINT_BYTES));
    }
    String::from_utf8_lossy(&last).into_owned()
}
