//! What a socket has come to: who has signed on, what was broken, what is to be answered at once and what beside the rest.

use std::net::SocketAddr;
use std::sync::Arc;

use iso8583::payment::{Ask, Day, Intent, Network, Outcome, Refusal, answer, refuse, sent_at};
use iso8583::{Class, Cut, Dialect, Draft, Function, Message, Mti, ParseError, ParseReason};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::config::LinkConfig;
use crate::connection::End;
use crate::desk::Desk;
use crate::mac::{MacKey, Macs};
use crate::reply::{frame, reply_to};
use crate::shape::{Shape, Wanted};

/// A socket's state.
pub(crate) struct Session {
    peer: SocketAddr,
    is_signed_on: bool,
    awaits_echo: bool,
    /// When the first bytes of a message came whose last are missing.
    began: Option<Instant>,
    /// Since when nobody is signed on, where nobody is.
    signed_off: Instant,
    broken: u32,
    /// The key of the message that is being taken, or of what this end begins; none for what nobody has signed.
    signer: Option<Arc<MacKey>>,
    /// Echoes that were asked for: their trace numbers.
    echoes: u64,
    outbox: mpsc::Sender<Vec<u8>>,
    room: Arc<Semaphore>,
    desk: Arc<Desk>,
    config: Arc<LinkConfig>,
}

impl Session {
    pub(crate) fn new(
        peer: SocketAddr,
        desk: Arc<Desk>,
        config: Arc<LinkConfig>,
        outbox: mpsc::Sender<Vec<u8>>,
        room: Arc<Semaphore>,
    ) -> Self {
        Self {
            peer,
            is_signed_on: !config.needs_sign_on,
            awaits_echo: false,
            began: None,
            signed_off: Instant::now(),
            broken: 0,
            signer: None,
            echoes: 0,
            outbox,
            room,
            desk,
            config,
        }
    }

    /// Something was read.
    pub(crate) const fn has_heard(&mut self) {
        self.awaits_echo = false;
    }

    /// True if it was not asked for an echo yet.
    pub(crate) const fn may_be_idle(&self) -> bool {
        !self.awaits_echo
    }

    /// Takes every whole message off the front of what was read.
    pub(crate) async fn take_all(&mut self, buffer: &mut Vec<u8>) -> Result<(), End> {
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
    pub(crate) fn patience(&self) -> (Instant, End) {
        let limits = &self.config.limits;
        let silent = Some((Instant::now() + limits.echo_after, End::Silent));
        let slow = self.began.map(|began| (began + limits.frame_within, End::Slow));
        let late = (!self.is_signed_on).then(|| (self.signed_off + limits.sign_on_within, End::NotSignedOn));
        let first = [silent, slow, late].into_iter().flatten().min_by_key(|(until, _)| *until);
        first.unwrap_or((Instant::now(), End::Silent))
    }

    async fn take(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        let (message, result) = Message::read(self.config.codec(), &bytes);
        // Whoever cannot sign gets nothing signed either: it could be held out to the host as an answer.
        self.signer = None;
        if let Err(error) = result {
            return self.take_broken(&message, error).await;
        }
        if let Some(macs) = self.desk.macs() {
            self.signer = macs.verify(&message, &bytes);
            if self.signer.is_none() {
                return self.take_unproved(&message).await;
            }
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
            _ if !self.is_signed_on => self.refuse(&message, Refusal::NotAvailable).await,
            _ => {
                self.serve(bytes, intent).await;
                Ok(())
            }
        }
    }

    /// Answers a broken message if its type is known; nothing of it has been executed.
    async fn take_broken(&mut self, message: &Message<'_>, error: ParseError) -> Result<(), End> {
        let wanted = Wanted(self.config.rules.dialect, error.field);
        tracing::warn!(link = self.config.name, peer = %self.peer, %error, %wanted, "broken message");
        self.broken += 1;
        let has_type = error.field > 0 || matches!(error.reason, ParseReason::Trailing(_));
        if !has_type {
            return Err(End::Unreadable(error));
        }
        if self.broken > self.config.limits.broken_max {
            return Err(End::Broken);
        }
        self.decline(message, Refusal::Format(error.field)).await
    }

    /// Answers a message whose MAC is missing or wrong; nothing of it has been executed.
    async fn take_unproved(&mut self, message: &Message<'_>) -> Result<(), End> {
        tracing::warn!(link = self.config.name, peer = %self.peer, mti = %message.mti(), "no right MAC");
        self.broken += 1;
        if self.broken > self.config.limits.broken_max {
            return Err(End::Broken);
        }
        self.refuse(message, Refusal::Mac).await
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
            Network::Cutover => return self.cut_over(message, intent).await,
            Network::KeyChange => {
                if let Err(refusal) = self.change_keys() {
                    return self.refuse(message, refusal).await;
                }
            }
        }
        tracing::debug!(link = self.config.name, peer = %self.peer, ?network, "network message");
        let mut draft = Draft::new(self.config.rules.dialect);
        answer(message, intent, &Outcome::approved(), &mut draft);
        self.send(draft).await
    }

    /// Reads the link's keys again. The reply is still signed with the key that has asked for it.
    fn change_keys(&self) -> Result<(), Refusal> {
        let macs = self.desk.macs().filter(|macs| macs.may_change()).ok_or(Refusal::Unsupported)?;
        macs.reload().map_err(|error| {
            tracing::error!(link = self.config.name, %error, "keys stay as they were");
            Refusal::Fault
        })
    }

    /// Ends the business day. The reply names the new one.
    async fn cut_over(&self, message: &Message<'_>, intent: &Intent) -> Result<(), End> {
        if !self.is_signed_on {
            return self.refuse(message, Refusal::NotAvailable).await;
        }
        let deadline = Instant::now() + self.config.limits.answer_within;
        let day = match self.desk.cut_over(message, intent, deadline).await {
            Ok(day) => day,
            Err(refusal) => return self.refuse(message, refusal).await,
        };
        tracing::info!(link = self.config.name, peer = %self.peer, %day, "cutover");
        let mut draft = Draft::new(self.config.rules.dialect);
        answer(message, intent, &Outcome::approved(), &mut draft);
        set_day(&mut draft, self.config.rules.dialect, day);
        self.send(draft).await
    }

    async fn refuse(&self, message: &Message<'_>, refusal: Refusal) -> Result<(), End> {
        let (link, peer, mti) = (&self.config.name, self.peer, message.mti());
        match refusal {
            // Nobody else can tell a host what is wrong with its message.
            Refusal::Format(field) | Refusal::Missing(field) => {
                let found = Shape(message, field);
                tracing::info!(link, %peer, %mti, %refusal, %found, "refused");
            }
            _ => tracing::debug!(link, %peer, %mti, %refusal, "refused"),
        }
        self.decline(message, refusal).await
    }

    /// Answers with the code of a refusal that was told.
    async fn decline(&self, message: &Message<'_>, refusal: Refusal) -> Result<(), End> {
        let mut draft = Draft::new(self.config.rules.dialect);
        if refuse(message, refusal, &mut draft) { self.send(draft).await } else { Ok(()) }
    }

    /// Has a payment served beside the others. Waits while too many are: then the host has to wait too.
    async fn serve(&self, bytes: Vec<u8>, intent: Intent) {
        let Ok(place) = self.room.clone().acquire_owned().await else { return };
        let (desk, config, outbox, peer) =
            (self.desk.clone(), self.config.clone(), self.outbox.clone(), self.peer);
        let signer = self.signer.clone();
        // Taken here, before anything that came later is read.
        let turn = desk.turn(&intent);
        tokio::spawn(async move {
            if let Some(bytes) =
                reply_to(&bytes, &intent, turn, &desk, &config, peer, signer.as_deref()).await
            {
                let _ = outbox.send(bytes).await;
            }
            drop(outbox);
            drop(place);
        });
    }

    pub(crate) async fn ask_for_echo(&mut self) {
        self.awaits_echo = true;
        self.echoes += 1;
        let dialect = self.config.rules.dialect;
        let mut draft = Draft::new(dialect);
        let mti =
            Mti { version: dialect.version(), class: Class::Network, function: Function::Request, origin: 0 };
        draft.reset(mti);
        let (field, code) = match dialect {
            Dialect::V1987 => (70, b"301"),
            Dialect::V1993 => (24, b"831"),
        };
        draft.set(7, &sent_at(self.desk.now()));
        draft.set_number(11, self.echoes % 1_000_000);
        draft.set(field, code);
        self.signer = self.desk.macs().and_then(Macs::first);
        // A host that does not read is found by the writer.
        let _ = self.send(draft).await;
    }

    async fn send(&self, mut draft: Draft) -> Result<(), End> {
        match frame(&self.config, &mut draft, self.signer.as_deref()) {
            Ok(bytes) => self.outbox.send(bytes).await.map_err(|_| End::Unread),
            Err(error) => {
                tracing::error!(link = self.config.name, %error, "a reply that cannot be written");
                Ok(())
            }
        }
    }
}

/// The business day: field 15, field 28 of the 1993 edition.
fn set_day(draft: &mut Draft, dialect: Dialect, day: Day) {
    match dialect {
        Dialect::V1987 => draft.set(15, &day.digits()[2..]),
        Dialect::V1993 => draft.set(28, &day.digits()),
    }
}
