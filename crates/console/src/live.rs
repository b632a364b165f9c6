//! The live page: one reading a second for everybody who looks, made whether or not anybody does, so that there is a past to show.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::guard::following;
use crate::reading::Reading;
use crate::reads::is_operator;
use crate::refusal::Refusal;
use crate::sessions::Session;
use crate::start::Desk;

/// Between two readings.
const BEAT: Duration = Duration::from_secs(1);
/// A stream ends after this, and the page opens another: nobody holds one for ever.
const STREAM_LIFE: Duration = Duration::from_secs(10 * 60);

/// What was read last, as every page gets it.
pub(crate) type Frame = Arc<str>;

/// Reads the engine's numbers, a second at a time, until the console ends.
pub(crate) async fn beat(desk: Arc<Desk>, frames: watch::Sender<Frame>) {
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        beats.tick().await;
        desk.sessions.sweep(std::time::Instant::now());
        desk.refused.tell();
        let reading = Reading::parse(&desk.inside.metrics());
        let frame = {
            let mut overview = desk.overview.lock();
            let now_ms = now_ms();
            overview.take(now_ms, reading);
            overview.settles(desk.settlement.ages(now_ms));
            // Nobody looks: nothing is written down.
            (frames.receiver_count() > 0).then(|| {
                json!({
                    "second": overview.newest(),
                    "standing": overview.standing(),
                    "reasons": overview.reasons(),
                })
                .to_string()
            })
        };
        if let Some(frame) = frame {
            frames.send_replace(frame.into());
        }
    }
}

/// Milliseconds since the Unix epoch, by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One viewer's stream.
struct Viewer {
    desk: Arc<Desk>,
    session: Arc<Session>,
    frames: watch::Receiver<Frame>,
    until: Instant,
    is_over: bool,
    _places: [OwnedSemaphorePermit; 2],
}

/// Opens a stream: a frame a second, until the session or the stream's own life ends.
pub(crate) async fn live(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Result<Response, Refusal> {
    let session = following(&desk, &headers)?;
    let place = |room: &Arc<tokio::sync::Semaphore>| {
        Arc::clone(room).try_acquire_owned().map_err(|_| Refusal::StreamsFull)
    };
    let places = [place(&session.streams)?, place(&desk.streams)?];
    let viewer = Viewer {
        frames: desk.frames.subscribe(),
        desk,
        session,
        until: Instant::now() + STREAM_LIFE,
        is_over: false,
        _places: places,
    };
    Ok(Sse::new(follow(viewer)).into_response())
}

fn follow(viewer: Viewer) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(viewer, |mut viewer| async move {
        let event = viewer.next().await?;
        Some((Ok(event), viewer))
    })
}

impl Viewer {
    async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        tokio::select! {
            () = sleep_until(self.until) => None,
            // A frame is due every second; the session is looked at even if none comes.
            frame = timeout(2 * BEAT, self.frames.changed()) => match frame {
                Ok(Err(_)) => None,
                Ok(Ok(())) | Err(_) => Some(self.tell()),
            },
        }
    }

    fn tell(&mut self) -> Event {
        if !self.desk.sessions.is_alive(&self.session) {
            self.is_over = true;
            return Event::default().event("end").data("SIGNED_OUT");
        }
        if is_operator(&self.session) {
            Event::default().data(&*self.frames.borrow_and_update())
        } else {
            // What is of all tenants together is the operator's; a page still has to learn that its session lives.
            Event::default().data("{}")
        }
    }
}
