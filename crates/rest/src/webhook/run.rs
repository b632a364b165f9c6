//! One endpoint's turns: a page, its delivery, its place in the file; after a failure a pause.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use parking_lot::Mutex;
use surety_client::protocol::TenantId;
use telemetry::Gauge;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::{sleep, timeout};

use super::address::Endpoint;
use super::post::{Delivery, PostError, post};
use super::progress::{OpenError, Progress};
use super::sign::{Secret, signature};
use super::{WebhookConfig, WebhookRules};
use crate::cursor::Cursor;
use crate::desk::Desk;
use crate::events::{Page, page, tell};
use crate::metrics::distance;
use crate::problem::Problem;

/// Events of one delivery.
const PAGE: usize = 100;
/// How often to look for news that nobody told of.
const LOOK: Duration = Duration::from_secs(10);
/// How long a page may take to be read.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// Before a stream that cannot be read is read again.
const AGAIN: Duration = Duration::from_secs(1);

/// An endpoint of a tenant.
pub(crate) struct Hook {
    pub(crate) name: String,
    pub(crate) url: String,
    /// They change while it is open.
    secrets: Mutex<Vec<Secret>>,
    /// Pages that the endpoint has taken.
    pub(crate) delivered: Gauge,
    /// Deliveries that it has not.
    pub(crate) failed: Gauge,
    endpoint: Endpoint,
    rules: Arc<WebhookRules>,
    desk: Arc<Desk>,
    file: PathBuf,
    state: Mutex<State>,
    /// Told when somebody pauses, resumes or replays.
    changed: Notify,
    /// Held while the file is written, so that the last state is the one that stays.
    writing: AsyncMutex<()>,
}

#[derive(Clone)]
struct State {
    progress: Progress,
    /// Rises when somebody moves the cursor: a delivery that was under way does not move it back.
    moved: u64,
}

impl Hook {
    /// Goes on from its file; one that has none begins with what comes from now on.
    pub(crate) fn open(
        config: WebhookConfig,
        endpoint: Endpoint,
        rules: Arc<WebhookRules>,
        desk: Arc<Desk>,
    ) -> Result<Self, OpenError> {
        super::progress::prepare(&rules.state)?;
        let name = format!("{}-{}.json", desk.client().tenant(), config.name);
        let file = rules.state.join(name);
        let progress = match Progress::load(&file)? {
            Some(progress) => progress,
            None => {
                let progress =
                    Progress { cursor: desk.told(|told| told.cursor()).to_string(), ..Progress::default() };
                progress.save(&file)?;
                progress
            }
        };
        Ok(Self {
            name: config.name,
            url: config.url,
            secrets: Mutex::new(config.secrets),
            delivered: Gauge::default(),
            failed: Gauge::default(),
            endpoint,
            rules,
            desk,
            file,
            state: Mutex::new(State { progress, moved: 0 }),
            changed: Notify::new(),
            writing: AsyncMutex::default(),
        })
    }

    /// True if it is an endpoint of this desk.
    pub(crate) fn is_of(&self, desk: &Arc<Desk>) -> bool {
        Arc::ptr_eq(&self.desk, desk)
    }

    /// Whose events it is told.
    pub(crate) fn tenant(&self) -> TenantId {
        self.desk.client().tenant()
    }

    /// Signs with these from now on.
    pub(crate) fn set_secrets(&self, secrets: Vec<Secret>) {
        *self.secrets.lock() = secrets;
    }

    /// How far it is, and how it fares.
    pub(crate) fn progress(&self) -> Progress {
        self.state.lock().progress.clone()
    }

    /// Records of the change stream that it was not told of: none that it waits for, where the cursor is of another engine.
    pub(crate) fn behind(&self, cursor: &str) -> u64 {
        let known = self.desk.told(|told| told.cursor());
        Cursor::parse(cursor, known.0.len()).map_or(0, |cursor| distance(&cursor, &known))
    }

    /// Sends nothing more, until it is resumed.
    pub(crate) async fn pause(&self) -> Result<(), OpenError> {
        self.set(|state| state.progress.paused = Some("somebody has paused it".to_owned())).await?;
        self.changed.notify_one();
        Ok(())
    }

    /// Sends again, at once.
    pub(crate) async fn resume(&self) -> Result<(), OpenError> {
        self.set(|state| {
            let cursor = std::mem::take(&mut state.progress.cursor);
            state.progress = Progress { cursor, ..Progress::default() };
        })
        .await?;
        self.changed.notify_one();
        Ok(())
    }

    /// Sends everything behind a cursor, again where it was sent before.
    pub(crate) async fn replay(&self, after: &Cursor) -> Result<(), OpenError> {
        self.set(|state| {
            state.progress.cursor = after.to_string();
            state.moved += 1;
        })
        .await?;
        self.changed.notify_one();
        Ok(())
    }

    /// Changes the state, in the file too.
    async fn set(&self, change: impl FnOnce(&mut State)) -> Result<(), OpenError> {
        let writing = self.writing.lock().await;
        let mut state = self.state.lock().clone();
        change(&mut state);
        let (progress, file) = (state.progress.clone(), self.file.clone());
        let saved = tokio::task::spawn_blocking(move || progress.save(&file)).await;
        let saved = saved.unwrap_or_else(|_| {
            Err(OpenError { file: self.file.clone(), error: std::io::ErrorKind::Interrupted.into() })
        });
        // What is not in the file is not so: it would be forgotten by a crash.
        saved?;
        *self.state.lock() = state;
        drop(writing);
        Ok(())
    }

    /// Carries events until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut news = self.desk.news();
        loop {
            news.mark_unchanged();
            match self.turn().await {
                Turn::More => {}
                Turn::Wait(pause) => {
                    let _ = timeout(pause, self.changed.notified()).await;
                }
                Turn::Idle => {
                    tokio::select! {
                        _ = timeout(LOOK, news.changed()) => {}
                        () = self.changed.notified() => {}
                    }
                }
            }
        }
    }

    async fn turn(&self) -> Turn {
        let State { progress, moved } = self.state.lock().clone();
        if progress.paused.is_some() {
            return Turn::Wait(LOOK);
        }
        let shards = usize::from(self.desk.client().shards());
        let Some(cursor) = Cursor::parse(&progress.cursor, shards) else {
            return self.stop("its cursor is none of this engine").await;
        };
        let found = match timeout(READ_WITHIN, page(&self.desk, &cursor, PAGE)).await {
            Ok(Ok(found)) => found,
            Ok(Err(problem)) => return self.unread(&problem).await,
            // The engine is away.
            Err(_) => return Turn::Wait(AGAIN),
        };
        if found.events.is_empty() {
            // Nothing that is told: no need to write where that was.
            return if found.is_more { self.taken(&found, moved).await } else { Turn::Idle };
        }
        match self.deliver(&found).await {
            Ok(()) => {
                self.delivered.raise();
                self.taken(&found, moved).await
            }
            Err(error) => {
                self.failed.raise();
                self.failed(&error).await
            }
        }
    }

    async fn deliver(&self, found: &Page) -> Result<(), PostError> {
        let told = tell(&self.desk, found).await;
        let body = serde_json::to_vec(&told).map_err(std::io::Error::from)?;
        let signature = signature(&self.secrets.lock(), now_ms() / 1000, &body);
        let delivery = Delivery { webhook: &self.name, signature: &signature, body };
        post(&self.endpoint, &self.rules, delivery).await
    }

    /// The endpoint has it: it does not come again, unless the file cannot be written.
    async fn taken(&self, found: &Page, moved: u64) -> Turn {
        let cursor = found.cursor.to_string();
        let kept = self.set(|state| {
            let paused = state.progress.paused.take();
            let at = if state.moved == moved { cursor } else { std::mem::take(&mut state.progress.cursor) };
            state.progress = Progress { cursor: at, paused, ..Progress::default() };
        });
        match kept.await {
            Ok(()) => Turn::More,
            Err(error) => {
                tracing::error!(webhook = self.name, %error, "a cursor cannot be kept");
                Turn::Wait(AGAIN)
            }
        }
    }

    async fn failed(&self, error: &PostError) -> Turn {
        if matches!(error, PostError::Status(410)) {
            return self.stop("the endpoint answered that it is gone (410)").await;
        }
        let now = now_ms();
        let mut pause = self.rules.pause_min;
        let mut is_over = false;
        let text = error.to_string();
        let kept = self.set(|state| {
            let progress = &mut state.progress;
            pause = backoff(&self.rules, progress.failures);
            progress.failures = progress.failures.saturating_add(1);
            let since = *progress.failing_since_ms.get_or_insert(now);
            progress.last_error = Some(text);
            is_over = u128::from(now.saturating_sub(since)) >= self.rules.give_up_after.as_millis();
        });
        if let Err(error) = kept.await {
            tracing::error!(webhook = self.name, %error, "a failure cannot be kept");
        }
        tracing::warn!(webhook = self.name, %error, "an endpoint fails");
        if is_over {
            return self.stop("the endpoint has failed for too long").await;
        }
        Turn::Wait(pause)
    }

    async fn unread(&self, problem: &Problem) -> Turn {
        match StatusCode::from_u16(problem.status) {
            // Nothing is left out in silence.
            Ok(StatusCode::GONE) => {
                self.stop("what comes next is not kept by the engine any more, or its cursor is of what was lost in a restore: compare, then replay from another cursor")
                    .await
            }
            Ok(StatusCode::UNPROCESSABLE_ENTITY) => {
                self.stop("its cursor lies before the engine, which has another history").await
            }
            _ => Turn::Wait(AGAIN),
        }
    }

    async fn stop(&self, why: &str) -> Turn {
        tracing::error!(webhook = self.name, why, "a webhook is paused");
        if let Err(error) = self.set(|state| state.progress.paused = Some(why.to_owned())).await {
            tracing::error!(webhook = self.name, %error, "a pause cannot be kept");
            sleep(AGAIN).await;
        }
        Turn::More
    }
}

/// What comes next.
enum Turn {
    More,
    Idle,
    Wait(Duration),
}

/// Doubled each time, up to its bound, and never quite the same, so that many do not come at once.
fn backoff(rules: &WebhookRules, failures: u32) -> Duration {
    let whole = rules.pause_min.saturating_mul(1 << failures.min(20)).min(rules.pause_max);
    let mut random = [0; 1];
    let _ = getrandom::fill(&mut random);
    whole / 2 + whole.mul_f64(f64::from(random[0]) / 512.0)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound() {
        let rules = WebhookRules::new(PathBuf::new());
        for (failures, whole_s) in [(0, 1), (1, 2), (5, 32), (11, 2048), (12, 3600), (u32::MAX, 3600)] {
            let (pause, whole) = (backoff(&rules, failures), Duration::from_secs(whole_s));
            assert!(pause >= whole / 2 && pause < whole, "{failures}: {pause:?}");
        }
    }
}
