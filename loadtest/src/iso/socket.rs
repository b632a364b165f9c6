//! One socket of a host: messages out, replies to whoever waits for them, echoes answered.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use iso8583::{Cut, Draft, EncodeError, FrameError, MESSAGE_BYTES_MAX, Message};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::message::{Heard, Key, echo, heard, key_of};
use super::{Seal, Speech};
use crate::door_faults::Failed;

/// Bytes that are written at once.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// How a host speaks, and who it is.
pub(super) struct Voice {
    pub(super) speech: Speech,
    pub(super) seal: Option<Arc<dyn Seal>>,
    pub(super) terminal: [u8; 8],
}

/// A message that cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum VoiceError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Voice {
    /// A message behind its length, sealed where the link asks for that.
    pub(super) fn frame(&self, draft: &mut Draft) -> Result<Vec<u8>, VoiceError> {
        let codec = self.speech.codec;
        if let Some(seal) = &self.seal {
            seal.seal(draft, codec)?;
        }
        let mut bytes = Vec::with_capacity(256);
        self.speech.header.write(&mut bytes, |out| draft.encode(codec, out).map_err(VoiceError::from))?;
        Ok(bytes)
    }
}

/// Who waits for which reply, whoever asked first before others: a message that goes out twice is answered twice. None once the socket
/// has ended.
type Waiting = Arc<Mutex<Option<HashMap<Key, VecDeque<oneshot::Sender<Heard>>>>>>;

/// An open socket.
pub(super) struct Socket {
    out: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Waiting,
}

impl Socket {
    /// Speaks over a stream until it ends, or until it `dies`: then `on_death` is called.
    pub(super) fn open(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        voice: Arc<Voice>,
        dies: Option<Instant>,
        on_death: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (out, messages) = mpsc::unbounded_channel();
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        // Nobody speaks any more once the socket is dropped.
        let echoes = out.downgrade();
        let socket = Self { out, waiting: waiting.clone() };
        tokio::spawn(async move {
            let (read, write) = split(stream);
            let death = async {
                match dies {
                    Some(dies) => sleep_until(dies).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = hear(read, &voice, &waiting, &echoes) => {}
                _ = say(write, messages) => {}
                () = death => on_death(),
            }
            // Whoever waits learns that nothing comes any more.
            *waiting.lock() = None;
        });
        socket
    }

    pub(super) fn is_open(&self) -> bool {
        self.waiting.lock().is_some()
    }

    /// Says a message, and waits for the reply to it.
    pub(super) async fn ask_until(
        &self,
        key: Key,
        message: Vec<u8>,
        until: Instant,
    ) -> Result<Heard, Failed> {
        let (sender, reply) = oneshot::channel();
        let has_ended = || Failed::NotSent(io::ErrorKind::NotConnected.into());
        self.waiting.lock().as_mut().ok_or_else(has_ended)?.entry(key).or_default().push_back(sender);
        self.out.send(message).map_err(|_| has_ended())?;
        let heard = timeout_at(until, reply).await;
        if heard.is_err() {
            self.forget_who_has_left(key);
        }
        heard.map_err(|_| Failed::Lost)?.map_err(|_| Failed::Lost)
    }

    fn forget_who_has_left(&self, key: Key) {
        let mut waiting = self.waiting.lock();
        let Some(Entry::Occupied(mut waiters)) = waiting.as_mut().map(|waiting| waiting.entry(key)) else {
            return;
        };
        waiters.get_mut().retain(|waiter| !waiter.is_closed());
        if waiters.get().is_empty() {
            waiters.remove();
        }
    }
}

/// Hands a reply to whoever has waited for it longest.
fn hand_over(waiting: &Waiting, key: Key, heard: Heard) {
    let mut waiting = waiting.lock();
    let Some(Entry::Occupied(mut waiters)) = waiting.as_mut().map(|waiting| waiting.entry(key)) else {
        return;
    };
    let waiter = waiters.get_mut().pop_front();
    if waiters.get().is_empty() {
        waiters.remove();
    }
    waiter.map(|waiter| waiter.send(heard));
}

/// Writes messages as they come, several at once where several wait. Ends once nobody speaks any more.
async fn say(
    mut stream: impl AsyncWrite + Unpin,
    mut messages: mpsc::UnboundedReceiver<Vec<u8>>,
) -> io::Result<()> {
    while let Some(mut bytes) = messages.recv().await {
        while bytes.len() < WRITE_BYTES_MAX
            && let Ok(more) = messages.try_recv()
        {
            bytes.extend_from_slice(&more);
        }
        stream.write_all(&bytes).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// Hands replies to those who wait for them. A reply that nobody waits for is that of a message which was said again.
async fn hear(
    mut stream: impl AsyncRead + Unpin,
    voice: &Voice,
    waiting: &Waiting,
    out: &mpsc::WeakUnboundedSender<Vec<u8>>,
) -> io::Result<()> {
    let mut read = Vec::with_capacity(WRITE_BYTES_MAX);
    while stream.read_buf(&mut read).await? > 0 {
        let mut taken = 0;
        loop {
            let cut = voice.speech.header.cut(&read[taken..], MESSAGE_BYTES_MAX).map_err(io::Error::other)?;
            let Cut::Message { bytes, used } = cut else { break };
            let message = Message::parse(voice.speech.codec, bytes).map_err(io::Error::other)?;
            if let Some(mut draft) = echo(&message) {
                let answer = voice.frame(&mut draft).map_err(io::Error::other)?;
                out.upgrade().map(|out| out.send(answer));
            } else if let Some(key) = key_of(&message) {
                let is_proved = voice.seal.as_ref().is_none_or(|seal| seal.is_right(&message, bytes));
                hand_over(waiting, key, heard(&message, voice.terminal, is_proved));
            }
            taken += used;
        }
        read.drain(..taken);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iso::message::sign_on;
    use iso8583::payment::{IdKey, Mark, Rules};
    use iso8583::{Codec, Dialect, LengthHeader, Profile};
    use std::collections::BTreeMap;
    use std::time::Duration;
    use surety_protocol::Time;
    use tokio::io::DuplexStream;

    fn voice() -> Arc<Voice> {
        let dialect = Dialect::V1987;
        let mark = Mark { field: 60, at: 0, unit: b'1' };
        let rules = Rules {
            dialect,
            id_key: IdKey([5; 32]),
            currencies: Vec::new(),
            held_in: BTreeMap::new(),
            routes: Vec::new(),
            merchants: BTreeMap::new(),
            partial: mark,
            increase: mark,
        };
        let codec = Codec { dialect, profile: Profile::BINARY };
        let speech = Speech { header: LengthHeader::Binary2, codec, rules };
        Arc::new(Voice { speech, seal: None, terminal: *b"LOAD0001" })
    }

    /// Answers each of so many messages with code 00, and ends.
    async fn answer(mut stream: DuplexStream, voice: Arc<Voice>, count: usize) {
        for _ in 0..count {
            let mut length = [0; 2];
            stream.read_exact(&mut length).await.unwrap();
            let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut bytes).await.unwrap();
            let message = Message::parse(voice.speech.codec, &bytes).unwrap();
            let mut reply = echo(&message).unwrap();
            stream.write_all(&voice.frame(&mut reply).unwrap()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_goes_out_twice_is_answered_twice_and_what_never_leaves_is_not_lost() {
        let (near, far) = tokio::io::duplex(4096);
        let voice = voice();
        let socket = Socket::open(near, voice.clone(), None, || {});
        let (numbers, mut draft) = sign_on(Dialect::V1987, 7, Time::from_secs(1_700_000_000));
        let message = voice.frame(&mut draft).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        let ask = || socket.ask_until(numbers.key(), message.clone(), until);
        let (first, second, ()) = tokio::join!(ask(), ask(), answer(far, voice.clone(), 2));
        assert!([first, second].into_iter().all(|heard| heard.is_ok_and(|heard| heard.code == b"00")));
        // The other side has ended, and this one learns of it.
        let is_lost_or_unsent = |failed| matches!(failed, Failed::Lost | Failed::NotSent(_));
        while socket.is_open() {
            assert!(ask().await.is_err_and(is_lost_or_unsent));
        }
        assert!(matches!(ask().await, Err(Failed::NotSent(_))));
    }

    #[tokio::test]
    async fn who_waits_in_vain_is_forgotten() {
        let (near, _far) = tokio::io::duplex(4096);
        let voice = voice();
        let socket = Socket::open(near, voice.clone(), None, || {});
        let (numbers, mut draft) = sign_on(Dialect::V1987, 7, Time::from_secs(1_700_000_000));
        let message = voice.frame(&mut draft).unwrap();
        let heard = socket.ask_until(numbers.key(), message, Instant::now()).await;
        assert!(matches!(heard, Err(Failed::Lost)));
        assert!(socket.waiting.lock().as_ref().is_some_and(HashMap::is_empty));
    }
}
