//! Answers questions over a socket: a bounded number of connections, of work at a time, and of time for each.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::answer::{self, Fault};
use crate::ask::{Ask, Question};
use crate::asker;
use crate::frames::{self, QUESTION_BYTES_MAX};
use crate::plan::CALL_MAX;

/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 32;
/// Connections beside them on which nothing but `status` is answered: how an index is doing is told however many ask it.
pub(crate) const WATCHERS_MAX: usize = 2;
/// Questions that are worked on at a time: each may keep the disk busy.
const WORKING_MAX: usize = 4;
/// How long a question may take to come once it has begun, and its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a question waits for its turn. With the work itself that is less than anybody waits for an answer.
const TURN_MAX: Duration = Duration::from_secs(2);
const _: () = assert!(TURN_MAX.as_millis() + CALL_MAX.as_millis() < asker::PATIENCE.as_millis());
/// How long a connection may be without a question.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// The same of one that is there for `status` alone.
const WATCHER_IDLE_MAX: Duration = Duration::from_secs(1);

/// What answers: the document of a question in, that of an answer out. It may take its time.
pub type Answerer = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// Serves a socket until it is told to stop.
pub async fn serve(listener: UnixListener, answerer: Answerer, mut stopped: watch::Receiver<bool>) {
    let rooms = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let watchers = Arc::new(Semaphore::new(WATCHERS_MAX));
    let turns = |count| Arc::new(Semaphore::new(count));
    let desk = Arc::new(Desk { answerer, turns: turns(WORKING_MAX), status_turns: turns(1) });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let room = Arc::clone(&rooms).try_acquire_owned().map(Room::Any);
                match room.or_else(|_| Arc::clone(&watchers).try_acquire_owned().map(Room::Status)) {
                    Ok(room) => drop(tokio::spawn(Arc::clone(&desk).attend(stream, room))),
                    Err(_) => turn_away(&stream),
                }
            }
            Err(error) => {
                // Most likely there are no more files to be had: they come back.
                tracing::warn!("the history's socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Says that there is no room. A new socket takes so few bytes at once, or nobody is there any more.
fn turn_away(stream: &UnixStream) {
    let _ = stream.try_write(&frames::frame(&crowded()));
}

fn crowded() -> Vec<u8> {
    let message = format!("{CONNECTIONS_MAX} connections are open: ask again in a moment");
    answer::refusal(Fault::Busy, &message)
}

/// A connection's place, which it gives back at its end.
enum Room {
    Any(#[expect(dead_code, reason = "given back when it is dropped")] OwnedSemaphorePermit),
    /// All others are taken: for whoever watches.
    Status(#[expect(dead_code, reason = "given back when it is dropped")] OwnedSemaphorePermit),
}

struct Desk {
    answerer: Answerer,
    turns: Arc<Semaphore>,
    /// Of `status`, which looks at next to nothing.
    status_turns: Arc<Semaphore>,
}

impl Desk {
    /// Answers one question after the other, until there is none or something is wrong with one.
    async fn attend(self: Arc<Self>, mut stream: UnixStream, room: Room) {
        let idle_max = match room {
            Room::Any(_) => IDLE_MAX,
            Room::Status(_) => WATCHER_IDLE_MAX,
        };
        while let Ok(Ok(Some(length))) = timeout(idle_max, frames::read_length(&mut stream)).await {
            if length > QUESTION_BYTES_MAX {
                let message = format!("a question of {length} bytes; {QUESTION_BYTES_MAX} may be asked");
                let refusal = answer::refusal(Fault::TooLong, &message);
                // What follows cannot be told from the question.
                let _ = timeout(PATIENCE, frames::write(&mut stream, &refusal)).await;
                return;
            }
            let Ok(Ok(question)) = timeout(PATIENCE, frames::read_body(&mut stream, length)).await else {
                return;
            };
            let is_status = is_status(&question);
            let answer = match room {
                Room::Status(_) if !is_status => crowded(),
                _ => self.answer(question, is_status).await,
            };
            if !matches!(timeout(PATIENCE, frames::write(&mut stream, &answer)).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    async fn answer(&self, question: Vec<u8>, is_status: bool) -> Vec<u8> {
        let turns = if is_status { &self.status_turns } else { &self.turns };
        let turn = timeout(TURN_MAX, Arc::clone(turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return answer::refusal(Fault::Busy, "other questions take all the time: ask again in a moment");
        };
        let answerer = Arc::clone(&self.answerer);
        // The turn is given back when the work is done, also if nobody waits for it any more.
        let work = move || {
            let answer = answerer(&question);
            drop(turn);
            answer
        };
        let worked = tokio::task::spawn_blocking(work).await;
        worked.unwrap_or_else(|error| {
            tracing::error!("a question ended the work on it: {error}");
            answer::refusal(Fault::Failed, "the question could not be worked on")
        })
    }
}

fn is_status(question: &[u8]) -> bool {
    Question::read(question).is_ok_and(|question| matches!(question.ask, Ask::Status(_)))
}
