//! One request to a front door, said until it is answered or a minute has gone.

use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use surety_protocol::Reply;
use tokio::time::sleep;

use crate::door_faults::{Exchange, Failed};
use crate::recorder::{Recorder, Sample};

/// How long a request is said again for.
const REPEAT_WITHIN: Duration = Duration::from_secs(60);
/// Before it is said again.
const PAUSE: Duration = Duration::from_millis(20);

/// What an answer means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Meaning {
    /// The engine has decided. False if the answer contradicts the request.
    Decided(Box<Reply>, bool),
    /// This sending was not executed, and nothing is decided; for this reason.
    Refused(String),
    /// It may have been executed.
    Unknown,
    /// No answer to what was asked.
    Nonsense,
}

/// A request, as its door is told.
pub(crate) trait Request: Send {
    /// What comes back.
    type Heard: Send;
    /// False if how long an answer takes says nothing of the door.
    const IS_TIMED: bool = true;

    /// Says it, once more if it was said before.
    fn say(&mut self) -> impl Future<Output = Exchange<Self::Heard>> + Send;

    /// What was meant by an answer.
    fn read(&self, heard: &Self::Heard) -> Meaning;
}

/// What became of a request.
pub(crate) enum Said<H> {
    /// It was answered, in these words.
    Decided(Reply, H),
    /// Definitely not executed.
    NotExecuted,
    Unknown,
}

/// Says a request until it is answered, for as long as [`REPEAT_WITHIN`]. Latency counts from `intended`, repeats included.
pub(crate) async fn until_answered<R: Request>(
    request: &mut R,
    recorder: &Recorder,
    intended: Instant,
) -> Said<R::Heard> {
    let begun = Instant::now();
    let mut may_be_executed = false;
    let mut first_error = None;
    let mut sent = begun;
    loop {
        let Exchange { heard, is_doubled } = request.say().await;
        may_be_executed |= is_doubled;
        match heard {
            Ok(heard) => match request.read(&heard) {
                Meaning::Decided(reply, is_sound) => {
                    let done = Instant::now();
                    let (reply, latency, service) = (*reply, done - intended, done - sent);
                    recorder.push(match R::IS_TIMED {
                        true => Sample::Answered { reply, latency, service, is_sound },
                        false => Sample::AnsweredAside { reply, is_sound },
                    });
                    return Said::Decided(reply, heard);
                }
                // A refusal speaks of one sending: an earlier one may have been executed all the same.
                Meaning::Refused(why) if !may_be_executed => {
                    recorder.push(Sample::RefusedByDoor(why.into()));
                    return Said::NotExecuted;
                }
                Meaning::Nonsense => {
                    recorder.push(Sample::Contradicted);
                    return Said::Unknown;
                }
                Meaning::Refused(_) => {}
                Meaning::Unknown => may_be_executed = true,
            },
            Err(Failed::Lost) => may_be_executed = true,
            Err(Failed::NotSent(error)) => {
                first_error.get_or_insert(error);
            }
        }
        if begun.elapsed() > REPEAT_WITHIN {
            return give_up(recorder, first_error.filter(|_| !may_be_executed));
        }
        sleep(PAUSE).await;
        sent = Instant::now();
    }
}

/// Says a request that was executed until it was said so many times in all. Each answer must be that of the first.
pub(crate) async fn say_again<R: Request>(
    request: &mut R,
    recorder: &Recorder,
    times: u32,
    is_same: impl Fn(&Reply, &R::Heard) -> bool + Send,
) -> ControlFlow<()> {
    for _ in 1..times {
        match until_answered(request, recorder, Instant::now()).await {
            Said::Decided(reply, heard) if !is_same(&reply, &heard) => recorder.push(Sample::Contradicted),
            Said::Decided(..) => {}
            // It was executed before; that this sending was not, or not known to be, changes nothing.
            Said::NotExecuted | Said::Unknown => return ControlFlow::Break(()),
        }
    }
    ControlFlow::Continue(())
}

/// Nobody has answered; with an error nobody has been asked either.
fn give_up<H>(recorder: &Recorder, unsent: Option<io::Error>) -> Said<H> {
    match unsent {
        Some(error) => {
            recorder.push(Sample::UnsentToDoor(error.to_string().into()));
            Said::NotExecuted
        }
        None => {
            recorder.push(Sample::Unknown);
            Said::Unknown
        }
    }
}

/// Holds the answer to a request that was sent a second time on purpose against the same request.
pub(crate) fn on_double<H>(
    recorder: &Recorder,
    read: impl FnOnce(&H) -> Meaning + Send + 'static,
) -> impl FnOnce(&H) + Send + 'static {
    let recorder = recorder.clone();
    move |heard| match read(heard) {
        Meaning::Decided(reply, is_sound) => recorder.push(Sample::Doubled { reply: *reply, is_sound }),
        Meaning::Nonsense => recorder.push(Sample::Contradicted),
        // It may be refused for the sake of the other.
        Meaning::Refused(_) | Meaning::Unknown => {}
    }
}
