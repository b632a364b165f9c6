//! Serving one message: its requests one after another, until there is an outcome.

use iso8583::payment::{Handle, Intent, Originals, Outcome, Rules, Step, Work};
use parking_lot::Mutex;
use surety_client::Client;
use surety_client::protocol::{Record, Time};
use tokio::time::Instant;

use crate::ask::ask;
use crate::in_flight::InFlight;

/// What all sockets of a link share.
pub(crate) struct Desk {
    client: Client,
    rules: Rules,
    originals: Mutex<Originals>,
    in_flight: InFlight,
}

impl Desk {
    pub(crate) fn new(client: Client, rules: Rules, originals_max: usize) -> Self {
        let originals = Mutex::new(Originals::new(originals_max));
        Self { client, rules, originals, in_flight: InFlight::default() }
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) const fn rules(&self) -> &Rules {
        &self.rules
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

    /// Serves a message. None if its outcome is not known in time.
    pub(crate) async fn serve(&self, intent: &Intent, deadline: Instant) -> Option<Outcome> {
        let _turn = self.in_flight.turn(intent.id).await;
        let was_sent = intent.mti.is_repeat();
        let known = intent.handle.and_then(|handle| self.originals.lock().find(handle));
        let (mut work, mut step) = Work::begin(intent, &self.rules, known);
        loop {
            match step {
                Step::Done(outcome) => {
                    self.note(intent.handle, &outcome);
                    return Some(outcome);
                }
                Step::Send(request) => {
                    let reply = ask(&self.client, request, was_sent, deadline).await?;
                    step = work.on_reply(&reply);
                }
            }
        }
    }

    fn note(&self, handle: Option<Handle>, outcome: &Outcome) {
        let place = outcome.place.filter(|_| outcome.is_success() && !outcome.is_unmatched);
        if let Some((handle, place)) = handle.zip(place) {
            self.originals.lock().note(handle, place);
        }
    }
}
