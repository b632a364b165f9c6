//! `serve --history`: the process of the index, as a child of the engine's. Nothing of it can keep the engine from starting, being ready or
//! draining: what goes wrong is said in the log and by the gauges, and tried again.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use history::{Ask, Asker, Nothing, Question, Status};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use server::Running;
use surety_protocol::Time;
use telemetry::{Page, Source};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::numbers::Gauges;
use crate::remote::now;

/// This very program, where its file has been replaced.
const PROGRAM: &str = "/proc/self/exe";
/// How often it is looked whether the process is there.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often it is asked how it is doing.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// An answer older than this says nothing about now: it is asked each second and waited for five.
const STATUS_AGE_MAX: Duration = Duration::from_secs(10);
/// The pauses before the process is started again: twice as long each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A process that ends so shortly before we are to end has been told to.
const TOGETHER: Duration = Duration::from_millis(300);
/// A process that has lived so long is started again at once when it ends, and has to be stubborn anew before the pauses grow.
const STEADY: Duration = Duration::from_secs(60);
/// How long a process may take to end after it was told, and after it was killed.
const END_MAX: Duration = Duration::from_millis(1700);
const KILLED_MAX: Duration = Duration::from_millis(200);

/// How the index is to be kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The data directory.
    pub(crate) data: PathBuf,
    /// Whose identity reads the engine, if not the development one.
    pub(crate) identity: Option<PathBuf>,
    /// Bytes that the index may take.
    pub(crate) bytes_max: Option<u64>,
    /// Bytes below which the engine declines locks for want of space. The index stops taking records well before.
    pub(crate) free_bytes_min: u64,
}

/// The process, kept running.
#[derive(Debug)]
pub(crate) struct Child {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

/// What is known of it.
struct Told {
    started: Time,
    restarts: telemetry::Counter,
    last: Mutex<Option<(Instant, Status)>>,
}

impl Child {
    /// Has the index kept from now on. The engine is to be ready, and to have announced itself.
    pub(crate) fn start(running: &Running, kept: Kept) -> Self {
        let told = Arc::new(Told {
            started: now(),
            restarts: telemetry::Counter::default(),
            last: Mutex::new(None),
        });
        running.attach(Arc::clone(&told) as Arc<dyn Source>);
        let (stop, stopped) = watch::channel(false);
        Self { task: tokio::spawn(keep(kept, told, stopped)), stop }
    }

    /// Lets the process go, and none come after it.
    pub(crate) fn is_to_go(&self) {
        self.stop.send_replace(true);
    }

    /// Sends the process away, and waits a bounded time for it to go.
    pub(crate) async fn stop(self) {
        self.is_to_go();
        let _ = self.task.await;
    }
}

async fn keep(kept: Kept, told: Arc<Told>, mut stopped: watch::Receiver<bool>) {
    let mut pause = PAUSE_MIN;
    loop {
        let begun = Instant::now();
        let ended = match start(&kept) {
            Ok(process) => match attend(process, &kept.data, &told, &mut stopped).await {
                Some(ended) => format!("ended: {ended}"),
                None => return,
            },
            Err(error) => format!("was not started: {error}"),
        };
        // Whoever ends all processes of a service at once ends that one before we hear of it.
        tokio::select! {
            () = sleep(TOGETHER) => {}
            () = is_to_end(&mut stopped) => return,
        }
        if begun.elapsed() >= STEADY {
            pause = PAUSE_MIN;
        }
        tracing::error!(
            again_in_s = pause.as_secs(),
            "the history's process {ended}; payments go on without it"
        );
        tokio::select! {
            () = sleep(pause) => {}
            () = is_to_end(&mut stopped) => return,
        }
        pause = (pause * 2).min(PAUSE_MAX);
        told.restarts.add(1);
    }
}

/// Waits until we are to end.
async fn is_to_end(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn start(kept: &Kept) -> io::Result<Process> {
    // By its name, so that it is found under it, as long as that is its own.
    let program = std::env::current_exe().ok().filter(|path| path.exists());
    let mut command = Command::new(program.as_deref().unwrap_or(Path::new(PROGRAM)));
    command.args(["history", "run", "--attached", "--data"]).arg(&kept.data);
    command.arg("--free-bytes-min").arg(kept.free_bytes_min.to_string());
    if let Some(identity) = &kept.identity {
        command.arg("--identity").arg(identity);
    }
    if let Some(bytes) = kept.bytes_max {
        command.arg("--bytes-max").arg(bytes.to_string());
    }
    // Its logs are ours. That standard input closes is how it learns of our end, whatever that is.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()
}

/// Looks after a process until it ends, and tells how; none if we are to end, when it is gone.
async fn attend(
    mut process: Process,
    data: &Path,
    told: &Told,
    stopped: &mut watch::Receiver<bool>,
) -> Option<String> {
    let asking = ask_status(data, told);
    tokio::pin!(asking);
    loop {
        match process.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Some(status.to_string()),
            Err(error) => return Some(error.to_string()),
        }
        tokio::select! {
            () = sleep(LOOK_INTERVAL) => {}
            () = &mut asking => {}
            () = is_to_end(stopped) => {
                send_away(process).await;
                return None;
            }
        }
    }
}

async fn ask_status(data: &Path, told: &Told) {
    let asker = Asker::new(data);
    let question = Question { of: None, ask: Ask::Status(Nothing {}) };
    loop {
        // One that does not answer is told by the age of its last answer.
        if let Ok(answer) = asker.ask(&question).await
            && let Ok(status) = serde_json::from_value(answer)
        {
            *told.last.lock() = Some((Instant::now(), status));
        }
        sleep(STATUS_INTERVAL).await;
    }
}

/// Tells a process to end, and ends it if it does not.
async fn send_away(mut process: Process) {
    drop(process.stdin.take());
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::TERM);
    }
    if ended(&mut process, END_MAX).await.is_none() {
        tracing::warn!("the history's process does not end by itself");
        let _ = process.kill();
        let _ = ended(&mut process, KILLED_MAX).await;
    }
}

/// Waits so long for a process to end.
async fn ended(process: &mut Process, patience: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        match process.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if begun.elapsed() < patience => sleep(Duration::from_millis(10)).await,
            _ => return None,
        }
    }
}

impl Told {
    fn gauges(&self) -> Gauges {
        let last = self.last.lock();
        let is_of_now = |(at, _): &&(Instant, Status)| at.elapsed() <= STATUS_AGE_MAX;
        let known = last.as_ref().map(|(_, status)| status);
        // An index that nobody keeps falls behind as well.
        let since =
            known.map(|status| status.complete_before).filter(|at| *at > Time::ZERO).unwrap_or(self.started);
        Gauges {
            is_up: last.as_ref().filter(is_of_now).is_some_and(|(_, status)| status.state.goes_on()),
            lag_ms: now().0.saturating_sub(since.0) / 1_000_000,
            lag_records: known.and_then(|status| status.lag_records).unwrap_or_default(),
            bytes: known.map_or(0, |status| status.bytes),
            restarts: self.restarts.get(),
        }
    }
}

impl Source for Told {
    fn ready(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn version(&self) -> String {
        String::new()
    }

    fn metrics(&self, page: &mut Page) {
        self.gauges().tell(page);
    }
}
