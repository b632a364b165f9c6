//! Events as they come: server-sent events, from any cursor on.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::timeout;

use crate::cursor::Cursor;
use crate::desk::Desk;
use crate::events::{Page, page, tell};
use crate::guard::Visit;
use crate::problem::Problem;
use crate::server::stopped;

/// Events of one piece.
const PAGE: usize = 100;
/// Pieces that a client may leave unread before no more are made.
const PIECES_MAX: usize = 4;
/// A stream without news says so, so that nobody on the way takes it for dead.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Begins a stream behind a cursor.
pub(crate) async fn stream(visit: &Visit, after: Cursor) -> Result<Response, Box<Problem>> {
    let desk = visit.desk.clone();
    let ends = Ends { stopping: visit.shared.stopping.clone(), withdrawn: visit.access.withdrawn() };
    let place = desk.live.clone().try_acquire_owned().map_err(|_| {
        let detail = "Too many live streams of this tenant are open.";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "BUSY", detail).retryable(10)
    })?;
    // What is wrong with the cursor is told as a problem, before anything streams.
    let first = page(&desk, &after, PAGE).await?;
    let (pieces, receiver) = mpsc::channel(PIECES_MAX);
    tokio::spawn(feed(desk, after, first, pieces, ends));
    let body = Body::new(Pieces { receiver, _place: place });
    let mut reply = body.into_response();
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(reply)
}

/// What ends a stream from this side: the front door closes, or whoever opened it may not come in any more.
struct Ends {
    stopping: watch::Receiver<bool>,
    withdrawn: watch::Receiver<bool>,
}

/// Ends when nobody reads any more, when [`Ends`] says so, or when what comes next cannot be had: the client comes again then, from
/// the last id that it has.
async fn feed(desk: Arc<Desk>, mut after: Cursor, first: Page, pieces: mpsc::Sender<Bytes>, mut ends: Ends) {
    let mut news = desk.news();
    let mut next = Some(first);
    loop {
        let found = match next.take() {
            Some(found) => found,
            None => match page(&desk, &after, PAGE).await {
                Ok(found) => found,
                Err(problem) => return tracing::debug!(code = problem.code, "a live stream ends"),
            },
        };
        if *ends.withdrawn.borrow() {
            return;
        }
        let text = write(&desk, &mut after, &found).await;
        if !text.is_empty() && !has_sent(&pieces, text, &mut ends).await {
            return;
        }
        if found.is_more {
            continue;
        }
        let is_quiet = tokio::select! {
            changed = timeout(HEARTBEAT, news.changed()) => changed.is_err(),
            () = stopped(&mut ends.stopping) => return,
            () = stopped(&mut ends.withdrawn) => return,
            () = pieces.closed() => return,
        };
        if is_quiet && !has_sent(&pieces, format!("id: {after}\n: nothing new\n\n"), &mut ends).await {
            return;
        }
    }
}

/// False once nobody reads any more, or nobody may.
async fn has_sent(pieces: &mpsc::Sender<Bytes>, text: String, ends: &mut Ends) -> bool {
    tokio::select! {
        biased;
        () = stopped(&mut ends.withdrawn) => false,
        sent = pieces.send(text.into()) => sent.is_ok(),
    }
}

/// Each event with the cursor that stands behind it.
async fn write(desk: &Desk, after: &mut Cursor, page: &Page) -> String {
    let mut text = String::new();
    let told = tell(desk, page).await;
    for (event, ((shard, place), _)) in told.events.iter().zip(&page.events) {
        if let Some(position) = after.0.get_mut(usize::from(shard.0)) {
            *position = *place;
        }
        let data = serde_json::to_string(event).unwrap_or_default();
        let _ = write!(text, "id: {after}\nevent: {}\ndata: {data}\n\n", event.kind);
    }
    *after = page.cursor.clone();
    text
}

/// A body made of pieces as they come.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.receiver.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
