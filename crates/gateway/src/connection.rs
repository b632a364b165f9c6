//! One socket of an acquirer's host: reads messages, has them served, writes replies as they are done.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use iso8583::payment::{Ask, Intent, Network, Refusal, answer, refuse};
use iso8583::{
    Class, Codec, Cut, Draft, EncodeError, FrameError, Function, LengthHeader, Message, Mti, ParseError,
    ParseReason,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::LinkConfig;
use crate::desk::Desk;
use crate::gateway::stopped;
use crate::in_flight::Turn;

/// Bytes asked of the socket at a time.
const READ_BYTES: usize = 16 * 1024;

/// Why a socket was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The host has closed it.
    Peer,
    /// The link is stopped.
    Stopped,
    /// It lay idle and gave no echo.
    Silent,
    /// A message took too long to arrive.
    Slow,
    /// Nobody signed on.
    NotSignedOn,
    /// Where the next message begins is lost.
    Frame(FrameError),
    /// A message without a type that could be answered.
    Unreadable(ParseError),
    /// Too many broken messages.
    Broken,
    /// Its replies are not read.
    Unread,
    /// The socket failed.
    Failed,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer => f.write_str("closed by its host"),
            Self::Stopped => f.write_str("the link is stopped"),
            Self::Silent => f.write_str("no echo"),
            Self::Slow => f.write_str("a message took too long to arrive"),
            Self::NotSignedOn => f.write_str("nobody signed on"),
            Self::Frame(error) => write!(f, "{error}"),
            Self::Unreadable(error) => write!(f, "{error}"),
            Self::Broken => f.write_str("too many broken messages"),
            Self::Unread => f.write_str("its replies are not read"),
            Self::Failed => f.write_str("the socket failed"),
        }
    }
}

/// Serves a socket to its end. What was taken is served to its own end, also where the socket is gone before.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    desk: Arc<Desk>,
    config: Arc<LinkConfig>,
    mut stopping: watch::Receiver<bool>,
) -> End {
    // A reply is complete when it is written: there is nothing to wait for.
    let _ = stream.set_nodelay(true);
    let (mut reader, writer) = stream.into_split();
    let (outbox, replies) = mpsc::channel(config.limits.in_flight_max.max(1));
    let within = config.limits.write_within;
    let mut writing = tokio::spawn(write(writer, replies, within));
    let room = Arc::new(Semaphore::new(config.limits.in_flight_max.max(1)));
    let mut session = Session {
        peer,
        is_signed_on: !config.needs_sign_on,
        awaits_echo: false,
        began: None,
        signed_off: Instant::now(),
        broken: 0,
        echoes: 0,
        outbox,
        room: room.clone(),
        desk,
        config,
    };
    let mut buffer = Vec::new();
    let end = loop {
        if let Err(end) = session.take_all(&mut buffer).await {
            break end;
        }
        buffer.reserve(READ_BYTES);
        let (until, why) = session.patience();
        tokio::select! {
            read = timeout_at(until, reader.read_buf(&mut buffer)) => match read {
                Ok(Ok(0)) => break End::Peer,
                Ok(Ok(_)) => session.awaits_echo = false,
                Ok(Err(_)) => break End::Failed,
                Err(_) => match why {
                    End::Silent if !session.awaits_echo => session.ask_for_echo().await,
                    why => break why,
                },
            },
            _ = &mut writing => return End::Unread,
            () = stopped(&mut stopping) => break End::Stopped,
        }
    };
    // Those that are being served hold what is missing.
    let all = u32::try_from(session.config.limits.in_flight_max.max(1)).unwrap_or(u32::MAX);
    let patience = session.config.limits.answer_within;
    drop(session);
    let _ = timeout(patience, room.acquire_many(all)).await;
    let _ = timeout(within, writing).await;
    end
}

/// Writes replies until nobody has any more. Ends early where the host does not read them.
async fn write(mut writer: OwnedWriteHalf, mut replies: mpsc::Receiver<Vec<u8>>, within: Duration) {
    let mut bytes = Vec::new();
    while let Some(reply) = replies.recv().await {
        bytes.clear();
        bytes.extend_from_slice(&reply);
        // Whatever else is done goes in the same packet.
        while let Ok(reply) = replies.try_recv() {
            bytes.extend_from_slice(&reply);
        }
        if !matches!(timeout(within, writer.write_all(&bytes)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

/// What a socket has come to.
struct Session {
    peer: SocketAddr,
    is_signed_on: bool,
    awaits_echo: bool,
    /// When the first bytes of a message came whose last are missing.
    began: Option<Instant>,
    /// Since when nobody is signed on, where nobody is.
    signed_off: Instant,
    broken: u32,
    /// Echoes that were asked for: their trace numbers.
    echoes: u64,
    outbox: mpsc::Sender<Vec<u8>>,
    room: Arc<Semaphore>,
    desk: Arc<Desk>,
    config: Arc<LinkConfig>,
}

impl Session {
    /// Takes every whole message off the front of what was read.
    async fn take_all(&mut self, buffer: &mut Vec<u8>) -> Result<(), End> {
        let mut taken = 0;
        let result = loop {
            match self.config.header.cut(&buffer[taken..], self.config.limits.message_bytes_max) {
                Ok(Cut::Wants(_)) => break Ok(()),
                Err(error) => break Err(End::Frame(error)),
                Ok(Cut::Message { bytes, used }) => {
                    let bytes = bytes.to_vec();
                    taken += used;
                    if let Err(end) = self.take(bytes).await {
                        break Err(end);
                    }
                }
            }
        };
        buffer.drain(..taken);
        self.began = match self.began {
            _ if buffer.is_empty() => None,
            Some(began) if taken == 0 => Some(began),
            _ => Some(Instant::now()),
        };
        result
    }

    /// Until when the next bytes may come, and what it is if they do not.
    fn patience(&self) -> (Instant, End) {
        let limits = &self.config.limits;
        let silent = Some((Instant::now() + limits.echo_after, End::Silent));
        let slow = self.began.map(|began| (began + limits.frame_within, End::Slow));
        let late = (!self.is_signed_on).then(|| (self.signed_off + limits.sign_on_within, End::NotSignedOn));
        let first = [silent, slow, late].into_iter().flatten().min_by_key(|(until, _)| *until);
        first.unwrap_or((Instant::now(), End::Silent))
    }

    async fn take(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        let (message, result) = Message::read(self.config.codec(), &bytes);
        if let Err(error) = result {
            return self.take_broken(&message, error).await;
        }
        if message.mti().reply().is_none() {
            // The reply to an echo, or one that comes late: that something came is all that counts.
            return Ok(());
        }
        let intent = match Intent::read(&message, &self.desk.rules(), self.desk.now()) {
            Ok(intent) => intent,
            Err(refusal) => return self.refuse(&message, refusal).await,
        };
        match intent.ask {
            Ask::Network(network) => self.take_network(&message, &intent, network).await,
            // Totals are not kept yet.
            Ask::Totals => self.refuse(&message, Refusal::Unsupported).await,
            _ if !self.is_signed_on => self.refuse(&message, Refusal::NotAvailable).await,
            _ => {
                self.serve(bytes, intent).await;
                Ok(())
            }
        }
    }

    /// Answers a broken message if its type is known; nothing of it has been executed.
    async fn take_broken(&mut self, message: &Message<'_>, error: ParseError) -> Result<(), End> {
        tracing::warn!(link = self.config.name, peer = %self.peer, %error, "broken message");
        self.broken += 1;
        let has_type = error.field > 0 || matches!(error.reason, ParseReason::Trailing(_));
        if !has_type {
            return Err(End::Unreadable(error));
        }
        if self.broken > self.config.limits.broken_max {
            return Err(End::Broken);
        }
        self.refuse(message, Refusal::Format(error.field)).await
    }

    async fn take_network(
        &mut self,
        message: &Message<'_>,
        intent: &Intent,
        network: Network,
    ) -> Result<(), End> {
        match network {
            Network::SignOn => self.is_signed_on = true,
            Network::SignOff if self.is_signed_on && self.config.needs_sign_on => {
                (self.is_signed_on, self.signed_off) = (false, Instant::now());
            }
            Network::SignOff | Network::Echo => {}
            // There are no keys and no business days here yet.
            Network::KeyChange | Network::Cutover => return self.refuse(message, Refusal::Unsupported).await,
        }
        tracing::debug!(link = self.config.name, peer = %self.peer, ?network, "network message");
        let mut draft = Draft::new(self.config.rules.dialect);
        let deadline = Instant::now() + self.config.limits.answer_within;
        let turn = self.desk.turn(intent);
        let Some(outcome) = self.desk.serve(intent, turn, deadline).await else { return Ok(()) };
        answer(message, intent, &outcome, &mut draft);
        self.send(&draft).await
    }

    async fn refuse(&self, message: &Message<'_>, refusal: Refusal) -> Result<(), End> {
        tracing::debug!(link = self.config.name, peer = %self.peer, mti = %message.mti(), %refusal, "refused");
        let mut draft = Draft::new(self.config.rules.dialect);
        if refuse(message, refusal, &mut draft) { self.send(&draft).await } else { Ok(()) }
    }

    /// Has a payment served beside the others. Waits while too many are: then the host has to wait too.
    async fn serve(&self, bytes: Vec<u8>, intent: Intent) {
        let Ok(place) = self.room.clone().acquire_owned().await else { return };
        let (desk, config, outbox, peer) =
            (self.desk.clone(), self.config.clone(), self.outbox.clone(), self.peer);
        // Taken here, before anything that came later is read.
        let turn = desk.turn(&intent);
        tokio::spawn(async move {
            if let Some(bytes) = reply_to(&bytes, &intent, turn, &desk, &config, peer).await {
                let _ = outbox.send(bytes).await;
            }
            drop(outbox);
            drop(place);
        });
    }

    async fn ask_for_echo(&mut self) {
        self.awaits_echo = true;
        self.echoes += 1;
        let dialect = self.config.rules.dialect;
        let mut draft = Draft::new(dialect);
        let mti =
            Mti { version: dialect.version(), class: Class::Network, function: Function::Request, origin: 0 };
        draft.reset(mti);
        let (field, code) = match dialect {
            iso8583::Dialect::V1987 => (70, b"301"),
            iso8583::Dialect::V1993 => (24, b"831"),
        };
        draft.set(7, &iso8583::payment::sent_at(self.desk.now()));
        draft.set_number(11, self.echoes % 1_000_000);
        draft.set(field, code);
        // A host that does not read is found by the writer.
        let _ = self.send(&draft).await;
    }

    async fn send(&self, draft: &Draft) -> Result<(), End> {
        match frame(self.config.header, self.config.codec(), draft) {
            Ok(bytes) => self.outbox.send(bytes).await.map_err(|_| End::Unread),
            Err(error) => {
                tracing::error!(link = self.config.name, %error, "a reply that cannot be written");
                Ok(())
            }
        }
    }
}

/// Serves a payment and writes its reply. None if its outcome is not known in time.
async fn reply_to(
    bytes: &[u8],
    intent: &Intent,
    turn: Turn,
    desk: &Desk,
    config: &LinkConfig,
    peer: SocketAddr,
) -> Option<Vec<u8>> {
    let deadline = Instant::now() + config.limits.answer_within;
    let Some(outcome) = desk.serve(intent, turn, deadline).await else {
        let (mti, id) = (intent.mti, intent.id);
        tracing::warn!(link = config.name, %peer, %mti, %id, "not answered: its outcome is unknown");
        return None;
    };
    if outcome.is_unmatched {
        tracing::warn!(link = config.name, %peer, mti = %intent.mti, id = %intent.id, "a notice that moved nothing");
    }
    let message = Message::parse(config.codec(), bytes).ok()?;
    let mut draft = Draft::new(config.rules.dialect);
    if !answer(&message, intent, &outcome, &mut draft) {
        return None;
    }
    match frame(config.header, config.codec(), &draft) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            tracing::error!(link = config.name, %error, "a reply that cannot be written");
            None
        }
    }
}

/// Why a message cannot be sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

fn frame(header: LengthHeader, codec: Codec, draft: &Draft) -> Result<Vec<u8>, SendError> {
    let mut bytes = Vec::with_capacity(256);
    header.write(&mut bytes, |out| draft.encode(codec, out).map_err(SendError::from))?;
    Ok(bytes)
}
