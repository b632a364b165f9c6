//! Serving one message: its requests one after another, until there is an outcome.

use std::sync::Arc;

use iso8583::payment::{Handle, Intent, Originals, Outcome, Place, Refusal, Rules, Step, Work};
use parking_lot::{Mutex, RwLock};
use surety_client::Client;
use surety_client::protocol::{Record, ShardId, Time};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::ask::ask;
use crate::in_flight::{InFlight, Turn};

/// What all sockets of a link share.
pub(crate) struct Desk {
    client: Client,
    rules: RwLock<Arc<Rules>>,
    originals: Mutex<Originals>,
    in_flight: Arc<InFlight>,
    /// Frames of the change stream that were read, by shard.
    frames: watch::Sender<Vec<u64>>,
}

impl Desk {
    pub(crate) fn new(client: Client, rules: Rules, originals_max: usize) -> Self {
        let originals = Mutex::new(Originals::new(originals_max));
        let frames = watch::Sender::new(vec![0; usize::from(client.shards())]);
        Self { client, rules: RwLock::new(Arc::new(rules)), originals, in_flight: Arc::default(), frames }
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.read().clone()
    }

    /// From the next message on.
    pub(crate) fn set_rules(&self, rules: Rules) {
        *self.rules.write() = Arc::new(rules);
    }

    /// The engine's time.
    pub(crate) fn now(&self) -> Time {
        self.client.now()
    }

    /// Learns from the change stream where payments are.
    pub(crate) fn observe(&self, records: &[Record]) {
        let mut originals = self.originals.lock();
        records.iter().for_each(|record| originals.observe(record));
    }

    /// A frame of a shard's change stream was read.
    pub(crate) fn heard(&self, shard: ShardId) {
        self.frames.send_modify(|frames| {
            frames.iter_mut().skip(usize::from(shard.0)).take(1).for_each(|count| *count += 1);
        });
    }

    /// The message's place behind those that it is about: taken at once, in the order in which messages are read.
    pub(crate) fn turn(&self, intent: &Intent) -> Turn {
        self.in_flight.turn(intent)
    }

    /// Serves a message when its turn has come. None if its outcome is not known at the deadline.
    pub(crate) async fn serve(&self, intent: &Intent, turn: Turn, deadline: Instant) -> Option<Outcome> {
        timeout_at(deadline, self.work(intent, turn, deadline)).await.ok().flatten()
    }

    async fn work(&self, intent: &Intent, mut turn: Turn, deadline: Instant) -> Option<Outcome> {
        turn.come().await;
        let Ok(known) = self.find(intent, deadline).await else {
            return Some(Outcome::refused(Refusal::NotAvailable));
        };
        let (mut work, mut step) = Work::begin(intent, &self.rules(), known);
        loop {
            match step {
                Step::Done(outcome) => {
                    self.note(intent.handle, &outcome);
                    return Some(outcome);
                }
                Step::Send(request) => {
                    let reply = ask(&self.client, request, deadline).await?;
                    step = work.on_reply(&reply);
                }
            }
        }
    }

    /// Where the payment's lock is. An unknown reference that a message leans on is believed to be unknown only once the
    /// change stream has come up to now: of two frames the second was sent after the message came.
    async fn find(&self, intent: &Intent, deadline: Instant) -> Result<Option<Place>, NotCurrent> {
        let Some(handle) = intent.handle else { return Ok(None) };
        let find = || self.originals.lock().find(handle);
        let known = find();
        if known.is_some() || !intent.leans_on_reference() {
            return Ok(known);
        }
        let mut frames = self.frames.subscribe();
        let before = frames.borrow_and_update().clone();
        let is_current = |now: &Vec<u64>| now.iter().zip(&before).all(|(now, before)| *now >= before + 2);
        // Half the time is left for the rest.
        let now = Instant::now();
        let until = now + deadline.saturating_duration_since(now) / 2;
        match timeout_at(until, frames.wait_for(is_current)).await {
            Ok(Ok(_)) => Ok(find()),
            _ => Err(NotCurrent),
        }
    }

    fn note(&self, handle: Option<Handle>, outcome: &Outcome) {
        let place = outcome.place.filter(|_| outcome.is_success() && !outcome.is_unmatched);
        if let Some((handle, place)) = handle.zip(place) {
            self.originals.lock().note(handle, place);
        }
    }
}

/// The change stream does not come.
struct NotCurrent;
