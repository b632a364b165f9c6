//! The change stream of every shard, as one source: synced records only, each shard in order.

use std::collections::VecDeque;
use std::task::Poll;
use std::time::Duration;

use settlement::Positions;
use surety_client::{Client, Tail, TailError};
use surety_protocol::{Record, Seq, ShardId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Frames that wait to be read, for each shard.
const FRAMES: usize = 8;
/// How long a record that must be there may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the stream cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The cursor has no future, or the engine refuses it.
    #[error(transparent)]
    Tail(#[from] TailError),
    /// The engine does not tell what it must have.
    #[error("shard {0} of the engine does not tell the records that it must have")]
    Silent(ShardId),
}

type Frame = Result<(Seq, Vec<Record>), TailError>;

/// All shards, each from a position of its own.
#[derive(Debug)]
pub(crate) struct Stream {
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    frames: mpsc::Receiver<Frame>,
    ready: VecDeque<(Seq, Record)>,
    /// Why nothing more comes.
    failure: Option<TailError>,
    reader: JoinHandle<()>,
}

impl Stream {
    /// Follows every shard from behind its position.
    pub(crate) fn open(client: &Client, positions: &Positions) -> Self {
        let open = |(shard, seq): (u16, &Seq)| Shard::open(client.tail(ShardId(shard), seq.next()));
        Self { shards: (0..).zip(&positions.0).map(open).collect() }
    }

    /// The next record that is there already.
    pub(crate) fn take(&mut self) -> Result<Option<(ShardId, Seq, Record)>, StreamError> {
        for (number, shard) in (0..).zip(&mut self.shards) {
            if let Some((seq, record)) = shard.take()? {
                return Ok(Some((ShardId(number), seq, record)));
            }
        }
        Ok(None)
    }

    /// The next record of one shard.
    pub(crate) async fn next_of(&mut self, shard: ShardId) -> Result<(Seq, Record), StreamError> {
        let source = self.shards.get_mut(usize::from(shard.0)).ok_or(StreamError::Silent(shard))?;
        loop {
            if let Some(next) = source.take()? {
                return Ok(next);
            }
            match tokio::time::timeout(PATIENCE, source.frames.recv()).await {
                Ok(Some(frame)) => source.accept(frame),
                Ok(None) | Err(_) => return Err(StreamError::Silent(shard)),
            }
        }
    }

    /// Waits until there is something to take, of whichever shard.
    pub(crate) async fn wait(&mut self) {
        if self.shards.iter().any(|shard| !shard.ready.is_empty() || shard.failure.is_some()) {
            return;
        }
        std::future::poll_fn(|cx| {
            for shard in &mut self.shards {
                if let Poll::Ready(Some(frame)) = shard.frames.poll_recv(cx) {
                    shard.accept(frame);
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        })
        .await;
    }
}

impl Shard {
    fn open(mut tail: Tail) -> Self {
        let (sender, frames) = mpsc::channel(FRAMES);
        let read = async move {
            loop {
                let frame = match tail.next_batch().await {
                    Ok(batch) if batch.records.is_empty() => continue,
                    Ok(batch) => Ok((batch.first, batch.records.to_vec())),
                    Err(error) => Err(error),
                };
                let is_over = frame.is_err();
                if sender.send(frame).await.is_err() || is_over {
                    return;
                }
            }
        };
        Self { frames, ready: VecDeque::new(), failure: None, reader: tokio::spawn(read) }
    }

    fn take(&mut self) -> Result<Option<(Seq, Record)>, StreamError> {
        if self.ready.is_empty()
            && let Ok(frame) = self.frames.try_recv()
        {
            self.accept(frame);
        }
        match (self.ready.pop_front(), self.failure) {
            (Some(next), _) => Ok(Some(next)),
            (None, Some(failure)) => Err(failure.into()),
            (None, None) => Ok(None),
        }
    }

    fn accept(&mut self, frame: Frame) {
        match frame {
            Ok((first, records)) => self.ready.extend((first.0..).map(Seq).zip(records)),
            Err(failure) => self.failure = Some(failure),
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
