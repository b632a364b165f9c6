//! Questions to the history on a stream of their own: taken from it, left with whoever keeps the history, and their answers carried back
//! behind everybody's replies.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quinn::{SendStream, VarInt};
use surety_protocol::limits::{CONNECTION_QUERIES_MAX, RECORD_BYTES};
use surety_protocol::{
    ANSWER_HEAD_BYTES, CloseCode, FrameHeader, FrameKind, QUERY_PART_BYTES_MAX, QueryRefusal, read_query,
    write_answer,
};
use tokio::time::{sleep, timeout};

use crate::frames::Frame;
use crate::history::{Answered, Unanswered};
use crate::shard::Shard;
use crate::shard::core::FrameFault;
use crate::shard::outlet::Peer;
use crate::shard::stream::{Reader, Stop};
use crate::shared::Life;
use crate::threads;

/// How long an answer may take to be found.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How long it may take to be read.
const READ_MAX: Duration = Duration::from_secs(30);
/// A part of an answer that is sent at once.
const SMALL_BYTES: usize = 4 << 10;
/// Whoever reads answers, a shard sends so much of them in this time, or 128 KiB in 10 ms: to seal and send it takes well below a tenth of that.
const REST: Duration = Duration::from_micros(312);
/// Below that of replies, which is 0.
const PRIORITY: i32 = -1;

/// Answers the questions of a stream, one after the other.
pub(super) async fn serve(
    shard: &Rc<Shard>,
    peer: &Peer,
    mut send: SendStream,
    mut reader: Reader,
    first: Frame,
) -> Result<(), Stop> {
    // It fails where the stream is gone already, which is found out soon enough.
    let _ = send.set_priority(PRIORITY);
    let gone = send.stopped();
    tokio::select! {
        biased;
        // Who has gone is not waited for, nor answered.
        _ = gone => Ok(()),
        outcome = answer_all(shard, peer, &mut send, &mut reader, first) => outcome,
    }
}

async fn answer_all(
    shard: &Rc<Shard>,
    peer: &Peer,
    send: &mut SendStream,
    reader: &mut Reader,
    first: Frame,
) -> Result<(), Stop> {
    let mut next = Some(first);
    let mut number = 1;
    while let Some(frame) = next {
        if frame.header.kind != FrameKind::Query {
            return Err(FrameFault::Misplaced(frame.header.kind).into());
        }
        let document = read_query(&frame.body)?;
        // Nobody is owed an answer: asking changes nothing.
        if shard.shared.life() != Life::Serving {
            return Ok(());
        }
        let metrics = &shard.shared.shards[usize::from(shard.id.0)].metrics;
        metrics.queries.add(1);
        let place = OfConnection::take(peer);
        let answered = match place {
            Some(_) => ask(shard, peer, document).await,
            None => refused(QueryRefusal::Busy, "this connection's other questions are not answered yet"),
        };
        metrics.queries_refused.add(u64::from(answered.answer.is_err()));
        match timeout(READ_MAX, write(shard, send, &mut number, &answered)).await {
            Ok(written) => written?,
            Err(_) => {
                tracing::warn!(shard = shard.id.0, tenant = peer.caller.tenant.0, "an answer is not read");
                // The stream alone: requests on others go on.
                let _ = send.reset(VarInt::from_u32(CloseCode::SlowReader as u32));
                return Ok(());
            }
        }
        drop((answered, place));
        next = reader.next_frame().await?;
    }
    Ok(())
}

async fn ask(shard: &Shard, peer: &Peer, document: &[u8]) -> Answered {
    match shard.shared.inquiries.ask(peer.caller, document) {
        Err(unanswered) => Answered::refused(unanswered),
        Ok(answer) => match timeout(ANSWER_MAX, answer).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => refused(QueryRefusal::Away, "the history has gone: ask again in a moment"),
            Err(_) => refused(QueryRefusal::Away, "the history takes too long: ask again, and for less"),
        },
    }
}

fn refused(why: QueryRefusal, message: &str) -> Answered {
    Answered::refused(Unanswered::new(why, message))
}

/// Writes an answer frame by frame, each in its turn among all that this shard sends.
async fn write(
    shard: &Shard,
    send: &mut SendStream,
    number: &mut u64,
    answered: &Answered,
) -> Result<(), Stop> {
    let (refusal, document) = match &answered.answer {
        Ok(document) => (None, document.as_slice()),
        Err(unanswered) => (Some(unanswered.why), unanswered.message.as_bytes()),
    };
    let mut rest = document;
    loop {
        let (part, behind) = rest.split_at(rest.len().min(QUERY_PART_BYTES_MAX));
        rest = behind;
        take_turn(shard, part.len()).await;
        let body = write_answer(refusal, document.len(), part, !rest.is_empty());
        let count = u16::try_from((body.len() - ANSWER_HEAD_BYTES) / RECORD_BYTES).unwrap_or(u16::MAX);
        let header = FrameHeader { kind: FrameKind::Answer, count, number: *number }.to_bytes();
        send.write_all(&[&header[..], &body].concat()).await.map_err(|_| Stop::Lost)?;
        *number += 1;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// Waits until this shard may send so many bytes of an answer. What is small, as a refusal is, neither waits nor makes others wait.
async fn take_turn(shard: &Shard, bytes: usize) {
    if bytes <= SMALL_BYTES {
        return;
    }
    let turn = Arc::clone(&shard.answer_turn).acquire_owned().await;
    let parts = u32::try_from(bytes.div_ceil(SMALL_BYTES)).unwrap_or(u32::MAX);
    threads::spawn_task(async move {
        sleep(REST * parts).await;
        drop(turn);
    });
}

/// A question of a connection, until its answer is delivered.
struct OfConnection<'a>(&'a Peer);

impl<'a> OfConnection<'a> {
    /// None if the connection has as many as it may.
    fn take(peer: &'a Peer) -> Option<Self> {
        let count = peer.queries.get();
        (count < CONNECTION_QUERIES_MAX).then(|| {
            peer.queries.set(count + 1);
            Self(peer)
        })
    }
}

impl Drop for OfConnection<'_> {
    fn drop(&mut self) {
        self.0.queries.update(|count| count - 1);
    }
}
