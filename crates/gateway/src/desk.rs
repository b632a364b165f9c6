//! Serving one message: its requests one after another, until there is an outcome.

use std::sync::Arc;

use iso8583::payment::{
    Day, Figures, Handle, Intent, Originals, Outcome, Place, Refusal, Rules, Statement, Step, Verdict, Work,
};
use parking_lot::{Mutex, RwLock};
use surety_client::protocol::{Id, Seq, ShardId, Time};
use surety_client::{Client, TailBatch, TailError};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::abreast::Abreast;
use crate::ask::ask;
use crate::book::Owner;
use crate::books::Books;
use crate::config::LinkConfig;
use crate::gateway::StartError;
use crate::in_flight::{InFlight, Turn};
use crate::mac::Macs;
use crate::marks::Marks;
use crate::metrics::Metrics;

/// What all sockets of a link share.
pub(crate) struct Desk {
    client: Client,
    rules: RwLock<Arc<Rules>>,
    originals: Mutex<Originals>,
    in_flight: Arc<InFlight>,
    abreast: Abreast,
    marks: Mutex<Marks>,
    books: Arc<Books>,
    macs: Option<Macs>,
    metrics: Arc<Metrics>,
    /// Why a change stream has no future.
    parted: watch::Sender<Option<TailError>>,
}

impl Desk {
    pub(crate) fn new(client: Client, config: &LinkConfig) -> Result<Self, StartError> {
        let (shards, now) = (client.shards(), client.now());
        let (engine, tenant, link) = (client.hello().engine, client.tenant(), config.name.clone());
        let owner = Owner { engine, tenant, link };
        Ok(Self {
            rules: RwLock::new(Arc::new(config.rules.clone())),
            originals: Mutex::new(Originals::new(config.limits.originals_max)),
            in_flight: Arc::default(),
            abreast: Abreast::new(shards),
            marks: Mutex::new(Marks::new(config.limits.unknown_max)),
            books: Arc::new(Books::open(config.book_file.clone(), &owner, shards, now)?),
            metrics: Arc::default(),
            parted: watch::Sender::new(None),
            macs: config.mac.as_ref().map(Macs::open).transpose()?,
            client,
        })
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

    /// Learns from the change stream where payments are, and what they come to.
    pub(crate) fn observe(&self, shard: ShardId, batch: &TailBatch<'_>) {
        let mut originals = self.originals.lock();
        batch.records.iter().for_each(|record| originals.observe(record));
        drop(originals);
        self.books.observe(shard, batch);
    }

    /// All that the change stream would have told before this is lost.
    pub(crate) fn forget(&self, shard: ShardId, oldest: Seq) {
        self.originals.lock().forget();
        self.books.forget(shard, oldest);
    }

    /// The engine has another history than what was learned of it: nobody is to be served out of that.
    pub(crate) fn part(&self, error: TailError) {
        self.parted.send_modify(|known| *known = known.or(Some(error)));
    }

    /// Completes once a change stream has no future.
    pub(crate) async fn parted(&self) -> TailError {
        let mut parted = self.parted.subscribe();
        let known = parted.wait_for(Option::is_some).await.ok().and_then(|known| *known);
        match known {
            Some(error) => error,
            // The sender lives as long as this does.
            None => std::future::pending().await,
        }
    }

    /// The keys of the link, if its messages are authenticated.
    pub(crate) const fn macs(&self) -> Option<&Macs> {
        self.macs.as_ref()
    }

    /// What is counted.
    pub(crate) const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What payments come to.
    pub(crate) const fn books(&self) -> &Arc<Books> {
        &self.books
    }

    /// How far the change stream has been read.
    pub(crate) const fn abreast(&self) -> &Abreast {
        &self.abreast
    }

    /// The message's place behind those that it is about: taken at once, in the order in which messages are read.
    pub(crate) fn turn(&self, intent: &Intent) -> Turn {
        self.in_flight.turn(intent)
    }

    /// Serves a message when its turn has come. None if its outcome is not known at the deadline.
    pub(crate) async fn serve(&self, intent: &Intent, mut turn: Turn, deadline: Instant) -> Option<Outcome> {
        // Most are alone, and what follows has the deadline too: a timer less.
        if !turn.has_come() {
            timeout_at(deadline, turn.come()).await.ok()?;
        }
        let known = match self.find(intent, deadline).await {
            Ok(known) => known,
            Err(refusal) => return Some(Outcome::refused(refusal)),
        };
        let (mut work, mut step) = Work::begin(intent, &self.rules(), known);
        let mut may_spend = false;
        loop {
            match step {
                Step::Done(outcome) => {
                    self.note(intent.handle, &outcome);
                    return Some(outcome).filter(|outcome| outcome.verdict != Verdict::Unknown);
                }
                Step::Send(request) => {
                    if work.is_spending() && !may_spend {
                        may_spend = self.marks.lock().take(self.now());
                        if !may_spend {
                            return Some(Outcome::refused(Refusal::NotAvailable));
                        }
                    }
                    let reply = ask(&self.client, request, deadline).await?;
                    step = work.on_reply(&reply);
                }
            }
        }
    }

    /// Where the payment's lock is. An unknown reference that a message leans on is believed to be unknown only once the change stream
    /// has been read up to now; and not by a table that has forgotten some, if nothing else names the payment.
    async fn find(&self, intent: &Intent, deadline: Instant) -> Result<Option<Place>, Refusal> {
        let Some(handle) = intent.handle else { return Ok(None) };
        let known = self.originals.lock().find(handle);
        if known.is_some() || !intent.leans_on_reference() {
            return Ok(known);
        }
        // Half the time is left for the rest.
        let now = Instant::now();
        let until = now + deadline.saturating_duration_since(now) / 2;
        if !matches!(timeout_at(until, self.abreast.catch_up(&self.client)).await, Ok(Ok(()))) {
            return Err(Refusal::NotAvailable);
        }
        let originals = self.originals.lock();
        match originals.find(handle) {
            None if originals.has_forgotten() && intent.is_named_by_reference_alone() => {
                Err(Refusal::OriginalUnknown)
            }
            known => Ok(known),
        }
    }

    /// Our figures for an acquirer's statement: all that any reply has spoken of is in them.
    pub(crate) async fn figures(
        &self,
        statement: &Statement,
        deadline: Instant,
    ) -> Result<((Day, u16), Figures), Refusal> {
        match timeout_at(deadline, self.abreast.catch_up(&self.client)).await {
            Ok(Ok(())) => self.books.figures(statement, &self.rules(), self.now()),
            _ => Err(Refusal::NotAvailable),
        }
    }

    /// Ends the business day, and gives the one that begins.
    pub(crate) async fn cut_over(&self, id: Id, day: Option<Day>, deadline: Instant) -> Result<Day, Refusal> {
        match timeout_at(deadline, self.abreast.acked_by_now(&self.client)).await {
            Ok(Ok(acked)) => self.books.cut(id, day, acked, self.now()).await,
            _ => Err(Refusal::NotAvailable),
        }
    }

    fn note(&self, handle: Option<Handle>, outcome: &Outcome) {
        let place = outcome.place.filter(|_| outcome.is_success() && !outcome.is_unmatched);
        if let Some((handle, place)) = handle.zip(place) {
            self.originals.lock().note(handle, place);
        }
    }
}
