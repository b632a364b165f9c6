//! What a socket has come to: who has signed on, what was broken, what is to be answered at once and what beside the rest.

use std::net::SocketAddr;
use std::sync::Arc;

use iso8583::payment::{Ask, Day, Intent, Network, Outcome, Refusal, Statement, answer, refuse, sent_at};
use iso8583::{Class, Cut, Dialect, Draft, Function, Message, Mti, ParseError, ParseReason};
use surety_client::protocol::Time;
use tokio::time::Instant;

use crate::config::LinkConfig;
use crate::connection::End;
use crate::desk::Desk;
use crate::mac::{MacKey, Macs};
use crate::outbox::Outbox;
use crate::reply::{Came, Job, Served, Task, frame};
use crate::shape::{Shape, Wanted};

/// Bytes of replies that may wait for the host to read them; past it nothing more is taken.
const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// A socket's state.
pub(crate) struct Session {
    peer: SocketAddr,
    is_signed_on: bool,
    awaits_echo: bool,
    /// Since when nothing was heard, or taken.
    silent: Instant,
    /// When the first bytes of a message came whose last are missing.
    began: Option<Instant>,
    /// Since when nobody is signed on, where nobody is.
    signed_off: Instant,
    broken: u32,
    /// The key of the message that is being taken, or of what this end begins; none for what nobody has signed.
    signer: Option<Arc<MacKey>>,
    /// Echoes that were asked for: their trace numbers.
    echoes: u64,
    /// What was read and not yet taken.
    read: Vec<u8>,
    /// Messages that were taken, to be served beside those that are.
    jobs: Vec<Job>,
    /// Messages that are being served.
    in_flight: usize,
    /// The business day ends: what comes after belongs to the next, and is not taken before.
    is_cutting_over: bool,
    /// Something may lie in `read` for which there was no room.
    is_held_up: bool,
    /// What is being written, used again and again.
    draft: Draft,
    outbox: Outbox,
    desk: Arc<Desk>,
    config: Arc<LinkConfig>,
}

impl Session {
    pub(crate) fn new(peer: SocketAddr, desk: Arc<Desk>, config: Arc<LinkConfig>) -> Self {
        let now = Instant::now();
        Self {
            peer,
            is_signed_on: !config.needs_sign_on,
            awaits_echo: false,
            silent: now,
            began: None,
            signed_off: now,
            broken: 0,
            signer: None,
            echoes: 0,
            read: Vec::new(),
            jobs: Vec::new(),
            in_flight: 0,
            is_cutting_over: false,
            is_held_up: false,
            draft: Draft::new(config.rules.dialect),
            outbox: Outbox::default(),
            desk,
            config,
        }
    }

    /// What is to be written.
    pub(crate) const fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Messages that were taken since this was asked last, to be served.
    pub(crate) fn jobs(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.jobs)
    }

    /// A message was served: what came of it is told.
    pub(crate) fn has_served(&mut self, served: &Served) {
        self.in_flight -= 1;
        let metrics = self.desk.metrics();
        metrics.in_flight.lower();
        metrics.duration.observe(served.begun.elapsed());
        match &served.result {
            Came::Payment(None) => metrics.unanswered.raise(),
            Came::Payment(Some(outcome)) if outcome.is_unmatched => metrics.unmatched.raise(),
            _ => {}
        }
        self.is_cutting_over &= !matches!(served.result, Came::Cutover(_));
        if served.reply(&self.config, self.peer, &mut self.draft) {
            self.reply(served.signer.as_deref());
        }
    }

    /// True if something is read for which there was no room: the host has to wait.
    pub(crate) const fn is_held_up(&self) -> bool {
        self.is_held_up
    }

    /// True if the host has enough to read.
    pub(crate) const fn is_full(&self) -> bool {
        self.outbox.len() >= UNREAD_BYTES_MAX
    }

    /// Something was read.
    pub(crate) fn has_heard(&mut self, bytes: &[u8]) {
        self.awaits_echo = false;
        self.silent = Instant::now();
        self.read.extend_from_slice(bytes);
    }

    /// True if it was not asked for an echo yet.
    pub(crate) const fn may_be_idle(&self) -> bool {
        !self.awaits_echo
    }

    /// Takes whole messages off the front of what was read, as long as there is room.
    pub(crate) fn take_all(&mut self) -> Result<(), End> {
        let mut read = std::mem::take(&mut self.read);
        let (mut taken, was_held_up) = (0, self.is_held_up);
        self.is_held_up = false;
        let result = loop {
            match self.config.header.cut(&read[taken..], self.config.limits.message_bytes_max) {
                Ok(Cut::Wants(_)) => break Ok(()),
                Err(error) => break Err(End::Frame(error)),
                Ok(Cut::Message { bytes, used }) => match self.take(bytes) {
                    Ok(()) if self.is_held_up => break Ok(()),
                    Ok(()) => taken += used,
                    Err(end) => break Err(end),
                },
            }
        };
        self.began = match self.began {
            // Nothing is missing that the host could send.
            _ if taken == read.len() || self.is_held_up => None,
            Some(began) if taken == 0 => Some(began),
            _ => Some(Instant::now()),
        };
        if was_held_up && !self.is_held_up {
            self.silent = Instant::now();
        }
        if taken > 0 {
            // What is empty takes no memory: most sockets are silent.
            read = read[taken..].to_vec();
        }
        self.read = read;
        result
    }

    /// Until when something has to come, or to be read, and what it is if it does not.
    pub(crate) fn patience(&self) -> Option<(Instant, End)> {
        let limits = &self.config.limits;
        let unread = self.outbox.unread_since().map(|since| (since + limits.write_within, End::Unread));
        let (silent, slow, late) = if self.is_held_up {
            (None, None, None)
        } else {
            let slow = self.began.map(|began| (began + limits.frame_within, End::Slow));
            let late =
                (!self.is_signed_on).then(|| (self.signed_off + limits.sign_on_within, End::NotSignedOn));
            (Some((self.silent + limits.echo_after, End::Silent)), slow, late)
        };
        [unread, silent, slow, late].into_iter().flatten().min_by_key(|(until, _)| *until)
    }

    /// Takes a message, or holds it up. Whatever needs no place beside others is taken also where these are all taken.
    fn take(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.is_held_up = self.is_cutting_over || self.is_full();
        if self.is_held_up {
            return Ok(());
        }
        let (message, result) = Message::read(self.config.codec(), bytes);
        // Whoever cannot sign gets nothing signed either: it could be held out to the host as an answer.
        self.signer = None;
        if let Err(error) = result {
            return self.take_broken(&message, error);
        }
        if let Some(macs) = self.desk.macs() {
            self.signer = macs.verify(&message, bytes);
            if self.signer.is_none() {
                return self.take_unproved(&message);
            }
        }
        if message.mti().reply().is_none() {
            // The reply to an echo, or one that comes late: that something came is all that counts.
            return Ok(());
        }
        let intent = match Intent::read(&message, &self.desk.rules(), self.desk.now()) {
            Ok(intent) => intent,
            Err(refusal) => {
                self.refuse(&message, refusal);
                return Ok(());
            }
        };
        match intent.ask {
            Ask::Network(network) if network != Network::Cutover => {
                self.take_network(&message, &intent, network);
            }
            _ if !self.is_signed_on => self.refuse(&message, Refusal::NotAvailable),
            _ if self.in_flight >= self.config.limits.in_flight_max.max(1) => self.is_held_up = true,
            _ => match task_of(&message, &intent, self.desk.now()) {
                Ok(task) => self.serve(bytes, intent, task),
                Err(refusal) => self.refuse(&message, refusal),
            },
        }
        Ok(())
    }

    /// Answers a broken message if its type is known; nothing of it has been executed.
    fn take_broken(&mut self, message: &Message<'_>, error: ParseError) -> Result<(), End> {
        let wanted = Wanted(self.config.rules.dialect, error.field);
        tracing::warn!(link = self.config.name, peer = %self.peer, %error, %wanted, "broken message");
        self.desk.metrics().broken.raise();
        self.broken += 1;
        let has_type = error.field > 0 || matches!(error.reason, ParseReason::Trailing(_));
        if !has_type {
            return Err(End::Unreadable(error));
        }
        if self.broken > self.config.limits.broken_max {
            return Err(End::Broken);
        }
        self.decline(message, Refusal::Format(error.field));
        Ok(())
    }

    /// Answers a message whose MAC is missing or wrong; nothing of it has been executed.
    fn take_unproved(&mut self, message: &Message<'_>) -> Result<(), End> {
        tracing::warn!(link = self.config.name, peer = %self.peer, mti = %message.mti(), "no right MAC");
        self.desk.metrics().unproved.raise();
        self.broken += 1;
        if self.broken > self.config.limits.broken_max {
            return Err(End::Broken);
        }
        self.refuse(message, Refusal::Mac);
        Ok(())
    }

    /// Answers a network message that is about this socket alone.
    fn take_network(&mut self, message: &Message<'_>, intent: &Intent, network: Network) {
        match network {
            Network::SignOn => self.is_signed_on = true,
            Network::SignOff if self.is_signed_on && self.config.needs_sign_on => {
                (self.is_signed_on, self.signed_off) = (false, Instant::now());
            }
            Network::SignOff | Network::Echo | Network::Cutover => {}
            Network::KeyChange => {
                if let Err(refusal) = self.change_keys() {
                    return self.refuse(message, refusal);
                }
            }
        }
        tracing::debug!(link = self.config.name, peer = %self.peer, ?network, "network message");
        if answer(message, intent, &Outcome::approved(), &mut self.draft) {
            self.reply(self.signer.clone().as_deref());
        }
    }

    /// Reads the link's keys again. The reply is still signed with the key that has asked for it.
    fn change_keys(&self) -> Result<(), Refusal> {
        let macs = self.desk.macs().filter(|macs| macs.may_change()).ok_or(Refusal::Unsupported)?;
        macs.reload().map_err(|error| {
            tracing::error!(link = self.config.name, %error, "keys stay as they were");
            Refusal::Fault
        })
    }

    fn refuse(&mut self, message: &Message<'_>, refusal: Refusal) {
        let (link, peer, mti) = (&self.config.name, self.peer, message.mti());
        match refusal {
            // Nobody else can tell a host what is wrong with its message.
            Refusal::Format(field) | Refusal::Missing(field) => {
                let found = Shape(message, field);
                tracing::info!(link, %peer, %mti, %refusal, %found, "refused");
            }
            _ => tracing::debug!(link, %peer, %mti, %refusal, "refused"),
        }
        self.decline(message, refusal);
    }

    /// Answers with the code of a refusal that was told.
    fn decline(&mut self, message: &Message<'_>, refusal: Refusal) {
        if refuse(message, refusal, &mut self.draft) {
            self.reply(self.signer.clone().as_deref());
        }
    }

    /// Has a message served beside the others.
    fn serve(&mut self, bytes: &[u8], intent: Intent, task: Task) {
        self.in_flight += 1;
        self.desk.metrics().in_flight.raise();
        self.is_cutting_over = matches!(task, Task::Cutover(_));
        // Taken here, before anything that came later is read.
        let turn = self.desk.turn(&intent);
        self.jobs.push(Job { bytes: bytes.to_vec(), intent, task, turn, signer: self.signer.clone() });
    }

    pub(crate) fn ask_for_echo(&mut self) {
        (self.awaits_echo, self.silent) = (true, Instant::now());
        self.echoes += 1;
        let dialect = self.config.rules.dialect;
        let draft = &mut self.draft;
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
        self.send(self.desk.macs().and_then(Macs::first).as_deref());
    }

    /// Sends a reply that was drafted, and counts it.
    fn reply(&mut self, signer: Option<&MacKey>) {
        self.desk.metrics().answered(&self.draft);
        self.send(signer);
    }

    /// Sends what was drafted.
    fn send(&mut self, signer: Option<&MacKey>) {
        let (config, draft) = (&self.config, &mut self.draft);
        if let Err(error) = self.outbox.push(|out| frame(config, draft, signer, out)) {
            tracing::error!(link = config.name, %error, "a message that cannot be written");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What nobody waits for any more is in flight no more.
        (0..self.in_flight).for_each(|_| self.desk.metrics().in_flight.lower());
    }
}

/// What is to be done for a message beside others.
fn task_of(message: &Message<'_>, intent: &Intent, now: Time) -> Result<Task, Refusal> {
    Ok(match intent.ask {
        Ask::Network(_) => Task::Cutover(Day::settlement(message, now)?),
        Ask::Totals => Task::Totals(Statement::read(message, now)?),
        _ => Task::Payment,
    })
}
