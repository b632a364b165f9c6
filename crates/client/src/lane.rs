//! One shard's traffic: the requests that wait for a reply, the queue towards the link, and the task that drives both
//! over one link after the other.
//!
//! A request is in `outstanding` from the moment it is accepted until it is answered, and in `outbox.queue` until it has
//! been handed to the link. Both change only under the outbox lock, except that a reply takes its request out of
//! `outstanding` by itself. Requests are numbered in the order of the queue, so one number, `started`, tells which of them
//! may have left on the present link.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;
use surety_protocol::limits::{FRAME_RECORDS_MAX, RECORD_BYTES};
use surety_protocol::{
    CloseCode, Code, CodeClass, HelloReply, Id, Operations, Reply, Seq, ShardId, Token, sabotage,
};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::clock::IdSource;
use crate::error::{NotExecuted, SubmitError, Unknown};
use crate::options::Options;
use crate::transport::{Batch, Closed, Connector, Event, Link, LinkReceiver, LinkSender, OpenError};

/// How often deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// How long a link may stay open after its goodbye.
const GOODBYE_TICKS: u32 = 50;
/// Reply frames that are read before other tasks get a turn.
const EVENTS_PER_TURN: u32 = 32;

/// What all lanes of a client share.
pub(crate) struct Shared {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) options: Options,
    pub(crate) ids: IdSource,
    /// Counts [`TICK`]s.
    pub(crate) tick: AtomicU32,
    /// The most shards that any hello has told of.
    pub(crate) shards: watch::Sender<u16>,
    /// True once the engine has said that what this client was told is lost.
    pub(crate) life_lost: watch::Sender<bool>,
}

impl Shared {
    /// Tells whoever waits for it that this client has outlived what it knows.
    fn note_refusal(&self, error: OpenError) {
        if error == OpenError::Closed(Closed::ByServer(CloseCode::LostLife)) {
            self.life_lost.send_replace(true);
        }
    }
}

/// Bytes of one request, chain or long request.
#[derive(Clone)]
enum Bytes {
    One([u8; RECORD_BYTES]),
    Many(Arc<[[u8; RECORD_BYTES]]>),
}

impl Bytes {
    fn records(&self) -> &[[u8; RECORD_BYTES]] {
        match self {
            Self::One(record) => std::slice::from_ref(record),
            Self::Many(records) => records,
        }
    }
}

/// A request that waits for its reply.
struct Pending {
    /// Its place in the queue; the members of a chain share it.
    order: u64,
    /// Links that broke after it had left.
    links_lost: u32,
    /// The tick at which it is given up.
    deadline: u32,
    /// The whole operation, to be repeated.
    bytes: Bytes,
    waiter: oneshot::Sender<Answer>,
    /// Further calls that wait for the same request.
    joined: Vec<oneshot::Sender<Answer>>,
}

type Answer = Result<Reply, SubmitError>;
type Waiting = oneshot::Receiver<Answer>;

struct Queued {
    order: u64,
    bytes: Bytes,
}

/// The way out.
struct Outbox {
    /// Present while the link takes requests.
    sender: Option<Box<dyn LinkSender>>,
    /// The frame that is being written.
    batch: Batch,
    queue: VecDeque<Queued>,
    /// The number of the next operation.
    next_order: u64,
    /// Operations below this number may have left on the present link.
    started: u64,
    frame_records_max: usize,
    /// The tick of the engine's goodbye.
    goodbye: Option<u32>,
    /// What the link answered when it failed to take a frame.
    broken: Option<Closed>,
    /// Set once nothing is accepted any more.
    is_closed: bool,
    /// Wakes the task that drives the lane.
    driver: Option<Waker>,
}

/// One shard's traffic.
pub(crate) struct Lane {
    pub(crate) shard: ShardId,
    shared: Arc<Shared>,
    outstanding: DashMap<Id, Pending>,
    room: Semaphore,
    in_flight_max: usize,
    outbox: Mutex<Outbox>,
    token: Mutex<Option<Token>>,
}

impl Lane {
    /// A lane for a shard, not yet driven. `engine_in_flight_max` is the engine's own bound.
    pub(crate) fn new(
        shard: ShardId,
        shared: Arc<Shared>,
        engine_in_flight_max: u32,
        token: Option<Token>,
    ) -> Self {
        let engine_max = usize::try_from(engine_in_flight_max).unwrap_or(usize::MAX);
        let in_flight_max = shared.options.in_flight_max.min(engine_max).clamp(1, Semaphore::MAX_PERMITS);
        let outbox = Outbox {
            sender: None,
            batch: Batch::new(),
            queue: VecDeque::new(),
            next_order: 0,
            started: 0,
            frame_records_max: FRAME_RECORDS_MAX,
            goodbye: None,
            broken: None,
            is_closed: false,
            driver: None,
        };
        Self {
            shard,
            shared,
            outstanding: DashMap::new(),
            room: Semaphore::new(in_flight_max),
            in_flight_max,
            outbox: Mutex::new(outbox),
            token: Mutex::new(token),
        }
    }

    /// The newest token that the shard has sent.
    pub(crate) fn token(&self) -> Option<Token> {
        *self.token.lock()
    }

    /// Sends a single request and waits for its answer.
    pub(crate) async fn submit_one(&self, id: Id, record: [u8; RECORD_BYTES]) -> Answer {
        let bytes = Bytes::One(record);
        check(id, bytes.records())?;
        self.reserve(id, 1).await?;
        let waiting = poll_fn(|cx| Poll::Ready(self.accept_one(cx, id, bytes.clone()))).await?;
        answer(id, waiting).await
    }

    /// The same, but refuses at once where [`Lane::submit_one`] would wait for room.
    pub(crate) async fn try_submit_one(&self, id: Id, record: [u8; RECORD_BYTES]) -> Answer {
        let bytes = Bytes::One(record);
        check(id, bytes.records())?;
        match self.room.try_acquire() {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(not_executed(id, NotExecuted::Busy)),
        }
        let waiting = poll_fn(|cx| Poll::Ready(self.accept_one(cx, id, bytes.clone()))).await?;
        answer(id, waiting).await
    }

    /// Sends a chain or a long request. `ids` are those that will be answered.
    pub(crate) async fn submit_operation(
        &self,
        ids: &[Id],
        records: Arc<[[u8; RECORD_BYTES]]>,
    ) -> Vec<Answer> {
        let Some(&first) = ids.first() else { return Vec::new() };
        let fail = |error: SubmitError| ids.iter().map(|id| Err(with_id(error, *id))).collect();
        if let Err(error) = check(first, &records) {
            return fail(error);
        }
        if let Err(error) = self.reserve(first, ids.len()).await {
            return fail(error);
        }
        let accepted = poll_fn(|cx| Poll::Ready(self.accept(cx, ids, Bytes::Many(records.clone())))).await;
        let waiting = match accepted {
            Ok(waiting) => waiting,
            Err(error) => return fail(error),
        };
        let mut answers = Vec::with_capacity(ids.len());
        for (id, waiting) in ids.iter().zip(waiting) {
            answers.push(answer(*id, waiting).await);
        }
        answers
    }

    /// Waits until `count` more requests may be unanswered.
    async fn reserve(&self, id: Id, count: usize) -> Result<(), SubmitError> {
        if count > self.in_flight_max {
            return Err(not_executed(id, NotExecuted::Busy));
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if let Ok(permit) = self.room.try_acquire_many(count) {
            permit.forget();
            return Ok(());
        }
        let wait = tokio::time::timeout(self.shared.options.deadline, self.room.acquire_many(count));
        match wait.await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(())
            }
            Ok(Err(_)) => Err(not_executed(id, NotExecuted::ClientClosed)),
            Err(_) => Err(not_executed(id, NotExecuted::Deadline)),
        }
    }

    fn accept_one(&self, cx: &mut Context<'_>, id: Id, bytes: Bytes) -> Result<Waiting, SubmitError> {
        let mut outbox = self.outbox.lock();
        if outbox.is_closed {
            self.room.add_permits(1);
            return Err(not_executed(id, NotExecuted::ClientClosed));
        }
        let (waiter, waiting) = oneshot::channel();
        let order = outbox.next_order;
        match self.outstanding.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(self.pending(order, bytes.clone(), waiter));
            }
            Entry::Occupied(mut entry) => {
                self.room.add_permits(1);
                // The same request again: one sending, two that wait for its answer.
                if entry.get().bytes.records() == bytes.records() || sabotage!("two-bodies-under-one-id") {
                    entry.get_mut().joined.push(waiter);
                    return Ok(waiting);
                }
                return Err(not_executed(id, NotExecuted::IdInUse));
            }
        }
        self.enqueue(cx, &mut outbox, bytes, 1);
        Ok(waiting)
    }

    fn accept(&self, cx: &mut Context<'_>, ids: &[Id], bytes: Bytes) -> Result<Vec<Waiting>, SubmitError> {
        let mut outbox = self.outbox.lock();
        let refuse = |error| {
            self.room.add_permits(ids.len());
            Err(error)
        };
        if outbox.is_closed {
            return refuse(not_executed(ids[0], NotExecuted::ClientClosed));
        }
        for (position, id) in ids.iter().enumerate() {
            if let Some(other) = self.outstanding.get(id) {
                let is_same = other.bytes.records() == bytes.records();
                let error = if is_same {
                    SubmitError::Unknown { id: *id, cause: Unknown::InFlight }
                } else {
                    not_executed(*id, NotExecuted::IdInUse)
                };
                return refuse(error);
            }
            if ids[..position].contains(id) {
                return refuse(not_executed(*id, NotExecuted::IdInUse));
            }
        }
        let order = outbox.next_order;
        let mut waiting = Vec::with_capacity(ids.len());
        for id in ids {
            let (waiter, receiver) = oneshot::channel();
            self.outstanding.insert(*id, self.pending(order, bytes.clone(), waiter));
            waiting.push(receiver);
        }
        self.enqueue(cx, &mut outbox, bytes, ids.len());
        Ok(waiting)
    }

    fn pending(&self, order: u64, bytes: Bytes, waiter: oneshot::Sender<Answer>) -> Pending {
        let deadline_ticks = self.shared.options.deadline.as_millis().div_ceil(TICK.as_millis());
        let ticks = u32::try_from(deadline_ticks).unwrap_or(u32::MAX / 2).saturating_add(1);
        let deadline = self.shared.tick.load(Ordering::Relaxed).saturating_add(ticks);
        Pending { order, links_lost: 0, deadline, bytes, waiter, joined: Vec::new() }
    }

    /// Queues an operation; writes it at once, from the caller's own task, if the lane is idle.
    fn enqueue(&self, cx: &mut Context<'_>, outbox: &mut Outbox, bytes: Bytes, requests: usize) {
        let order = outbox.next_order;
        outbox.next_order += 1;
        outbox.queue.push_back(Queued { order, bytes });
        let is_idle = self.room.available_permits() + requests == self.in_flight_max;
        let was_alone = outbox.queue.len() == 1 && outbox.batch.is_empty();
        if is_idle && was_alone && matches!(outbox.flush(cx), Poll::Ready(Ok(()))) {
            return;
        }
        if let Some(driver) = &outbox.driver {
            driver.wake_by_ref();
        }
    }

    /// Hands a reply to whoever waits for it; a reply that nobody waits for is the second answer to a repeat.
    fn complete(&self, reply: &Reply) {
        let Some((id, pending)) = self.outstanding.remove(&reply.id) else { return };
        // First the room, then the answer: whoever was alone finds the lane idle again.
        self.room.add_permits(1);
        let answer = judge(id, reply, pending.links_lost);
        pending.finish(answer);
    }

    /// Gives up what has waited too long, requests and links.
    pub(crate) fn sweep(&self) {
        let tick = self.shared.tick.load(Ordering::Relaxed);
        self.wake_after_goodbye();
        let is_late = |pending: &Pending| pending.deadline <= tick;
        let late: Vec<Id> = self
            .outstanding
            .iter()
            .filter(|entry| is_late(entry.value()))
            .map(|entry| *entry.key())
            .collect();
        if late.is_empty() {
            return;
        }
        let mut outbox = self.outbox.lock();
        for id in late {
            let Some((id, pending)) = self.outstanding.remove_if(&id, |_, pending| is_late(pending)) else {
                continue;
            };
            self.room.add_permits(1);
            // It must never leave once it has been called not executed.
            if !sabotage!("sent-after-it-was-told-as-not-executed") {
                outbox.queue.retain(|queued| queued.order != pending.order);
            }
            let has_left = pending.links_lost > 0 || pending.order < outbox.started;
            pending.finish(Err(if has_left && !sabotage!("late-answer-told-as-not-executed") {
                SubmitError::Unknown { id, cause: Unknown::Deadline }
            } else {
                not_executed(id, NotExecuted::Deadline)
            }));
        }
    }

    /// A link that is told to end gets no other reason to look at the time.
    fn wake_after_goodbye(&self) {
        let outbox = self.outbox.lock();
        if let (Some(_), Some(driver)) = (outbox.goodbye, &outbox.driver) {
            driver.wake_by_ref();
        }
    }

    /// Fails everything that is outstanding.
    fn fail_all(&self, unsent: NotExecuted, sent: Unknown, is_closed: bool) {
        let mut outbox = self.outbox.lock();
        outbox.is_closed |= is_closed;
        outbox.queue.clear();
        let ids: Vec<Id> = self.outstanding.iter().map(|entry| *entry.key()).collect();
        for id in ids {
            let Some((id, pending)) = self.outstanding.remove(&id) else { continue };
            self.room.add_permits(1);
            let has_left = pending.links_lost > 0 || pending.order < outbox.started;
            pending.finish(Err(if has_left {
                SubmitError::Unknown { id, cause: sent }
            } else {
                not_executed(id, unsent)
            }));
        }
    }

    /// The present link takes requests from now on.
    fn attach(&self, sender: Box<dyn LinkSender>, hello: &HelloReply) {
        let mut outbox = self.outbox.lock();
        outbox.sender = Some(sender);
        outbox.frame_records_max = usize::from(hello.frame_records_max).clamp(1, FRAME_RECORDS_MAX);
    }

    /// The link is gone: everything unanswered goes back into the queue, in its old order, except what has now been under
    /// too many lost links.
    fn detach(&self) {
        let mut guard = self.outbox.lock();
        let outbox = &mut *guard;
        outbox.sender = None;
        outbox.goodbye = None;
        outbox.broken = None;
        outbox.batch.clear();
        outbox.queue.clear();
        let links_lost_max = self.shared.options.links_lost_max;
        let mut given_up = Vec::new();
        let mut operations: Vec<Queued> = Vec::with_capacity(self.outstanding.len());
        for mut entry in self.outstanding.iter_mut() {
            let id = *entry.key();
            let pending = entry.value_mut();
            let has_left = pending.order < outbox.started && !sabotage!("lost-link-not-counted");
            pending.links_lost += u32::from(has_left);
            if pending.links_lost > links_lost_max {
                given_up.push(id);
            } else {
                operations.push(Queued { order: pending.order, bytes: pending.bytes.clone() });
            }
        }
        for id in given_up {
            let Some((id, pending)) = self.outstanding.remove(&id) else { continue };
            self.room.add_permits(1);
            let cause = Unknown::LinksLost(pending.links_lost);
            pending.finish(Err(SubmitError::Unknown { id, cause }));
        }
        operations.sort_by_key(|queued| queued.order);
        if !sabotage!("chain-repeated-for-each-member") {
            operations.dedup_by_key(|queued| queued.order);
        }
        // Renumber, so that `started` speaks of the next link.
        outbox.started = outbox.next_order;
        for mut queued in operations {
            let old = queued.order;
            queued.order = outbox.next_order;
            outbox.next_order += 1;
            self.renumber(&queued, old);
            outbox.queue.push_back(queued);
        }
    }

    fn renumber(&self, queued: &Queued, old: u64) {
        for record in queued.bytes.records() {
            let id = surety_protocol::Record::from_bytes(record).id;
            if let Some(mut pending) = self.outstanding.get_mut(&id)
                && pending.order == old
            {
                pending.order = queued.order;
            }
        }
    }

    /// Opens link after link and serves each until it breaks, until the client is closed.
    pub(crate) async fn drive(self: Arc<Self>, first: Option<Link>, mut closing: watch::Receiver<bool>) {
        let mut next = first;
        let mut failures = 0;
        loop {
            let link = match next.take() {
                Some(link) => Ok(link),
                None => tokio::select! {
                    biased;
                    () = closed(&mut closing) => break,
                    link = self.open() => link,
                },
            };
            match link {
                Ok(link) => {
                    let (closed, was_used) = self.serve(link, &mut closing).await;
                    self.detach();
                    tracing::debug!(shard = self.shard.0, %closed, "link closed");
                    failures = if was_used { 0 } else { failures + 1 };
                    if closed.is_refusal() {
                        let error = OpenError::Closed(closed);
                        self.shared.note_refusal(error);
                        self.fail_all(NotExecuted::NoLink(error), Unknown::NoLink(error), false);
                    }
                }
                Err(error) => {
                    failures += 1;
                    tracing::debug!(shard = self.shard.0, %error, "link could not be opened");
                    if error.is_refusal() {
                        self.shared.note_refusal(error);
                        self.fail_all(NotExecuted::NoLink(error), Unknown::NoLink(error), false);
                    }
                }
            }
            tokio::select! {
                biased;
                () = closed(&mut closing) => break,
                () = tokio::time::sleep(self.shared.options.backoff(failures, self.shared.ids.random())) => {}
            }
        }
        self.fail_all(NotExecuted::ClientClosed, Unknown::ClientClosed, true);
        self.room.close();
    }

    async fn open(&self) -> Result<Link, OpenError> {
        let token = self.token().filter(|_| !sabotage!("token-not-presented"));
        let tokens: Vec<Token> = token.into_iter().collect();
        let link = self.shared.connector.open(self.shard, &tokens).await?;
        self.shared.ids.learn(link.hello.now);
        self.shared.shards.send_if_modified(|shards| {
            let grows = link.hello.shards > *shards;
            *shards = link.hello.shards.max(*shards);
            grows
        });
        Ok(link)
    }

    /// Serves one link until it breaks. Also tells whether it ever yielded a reply.
    async fn serve(&self, link: Link, closing: &mut watch::Receiver<bool>) -> (Closed, bool) {
        self.attach(link.sender, &link.hello);
        let mut serving = Serving {
            lane: self,
            receiver: link.receiver,
            replies: Vec::with_capacity(FRAME_RECORDS_MAX),
            was_used: false,
            is_deferred: false,
        };
        let closed = tokio::select! {
            biased;
            closed = poll_fn(|cx| serving.poll(cx)) => closed,
            () = closed(closing) => Closed::Local,
        };
        (closed, serving.was_used)
    }
}

/// Resolves when the client is closed or dropped.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that the client is gone, which closes it as well.
    let _ = closing.wait_for(|is_closing| *is_closing).await;
}

/// One link while it lives.
struct Serving<'a> {
    lane: &'a Lane,
    receiver: Box<dyn LinkReceiver>,
    replies: Vec<Reply>,
    was_used: bool,
    /// The queue was seen, and everything that is ready has been given a turn to add to it.
    is_deferred: bool,
}

impl Serving<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        for event in 0.. {
            if event == EVENTS_PER_TURN {
                cx.waker().wake_by_ref();
                break;
            }
            match self.receiver.poll_receive(cx, &mut self.replies) {
                Poll::Pending => break,
                Poll::Ready(Event::Replies(token)) => self.on_replies(token),
                Poll::Ready(Event::Goodbye) => {
                    let mut outbox = self.lane.outbox.lock();
                    outbox.sender = None;
                    outbox.goodbye = Some(self.lane.shared.tick.load(Ordering::Relaxed));
                }
                Poll::Ready(Event::Closed(closed)) => return Poll::Ready(closed),
            }
        }
        self.poll_flush(cx)
    }

    fn on_replies(&mut self, token: Option<Token>) {
        self.was_used = true;
        if token.is_some() {
            *self.lane.token.lock() = token;
        }
        self.lane.shared.ids.learn_from(&self.replies);
        self.replies.drain(..).for_each(|reply| self.lane.complete(&reply));
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        let mut outbox = self.lane.outbox.lock();
        if outbox.driver.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            outbox.driver = Some(cx.waker().clone());
        }
        if let Some(closed) = outbox.broken {
            return Poll::Ready(closed);
        }
        let tick = self.lane.shared.tick.load(Ordering::Relaxed);
        if outbox.goodbye.is_some_and(|since| tick.saturating_sub(since) > GOODBYE_TICKS) {
            return Poll::Ready(Closed::ByServer(CloseCode::Draining));
        }
        if outbox.sender.is_none() || outbox.queue.is_empty() && outbox.batch.is_empty() {
            return Poll::Pending;
        }
        // Everything that is ready to run may add to this frame; one turn, no timer.
        if outbox.batch.is_empty() && !self.is_deferred {
            self.is_deferred = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_deferred = false;
        match outbox.flush(cx) {
            Poll::Ready(Err(closed)) => Poll::Ready(closed),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Outbox {
    /// Writes frames until the queue is empty or the link has no room.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        loop {
            let Some(sender) = &mut self.sender else { return Poll::Pending };
            self.batch.fill(&mut self.queue, self.frame_records_max, &mut self.started);
            if self.batch.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match sender.poll_send(cx, &mut self.batch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.batch.clear(),
                Poll::Ready(Err(closed)) => {
                    self.sender = None;
                    self.broken = Some(closed);
                    return Poll::Ready(Err(closed));
                }
            }
        }
    }
}

impl Batch {
    /// Moves whole operations from the queue into an empty frame. `started` becomes the number after the last of them.
    fn fill(&mut self, queue: &mut VecDeque<Queued>, records_max: usize, started: &mut u64) {
        if !self.is_empty() {
            return;
        }
        while let Some(queued) = queue.front() {
            let length = queued.bytes.records().len();
            // An operation longer than the engine's frames goes alone; the engine answers it.
            let is_full = self.len() + length > records_max && !self.is_empty();
            if is_full || length > self.room() {
                break;
            }
            self.push(queued.bytes.records());
            *started = queued.order + 1;
            queue.pop_front();
        }
    }
}

impl Pending {
    fn finish(self, answer: Answer) {
        // A caller that no longer waits has dropped its end.
        for waiter in self.joined {
            let _ = waiter.send(answer);
        }
        let _ = self.waiter.send(answer);
    }
}

/// What a reply means, given how many links had broken under its request.
fn judge(id: Id, reply: &Reply, links_lost: u32) -> Answer {
    let code = reply.code();
    match code.class() {
        // The other members of a chain that was not admitted: no part of it is logged, and their ids are unspent.
        CodeClass::Decline
            if code == Code::LinkedFailed
                && reply.seq == Seq(0)
                && !sabotage!("unadmitted-chain-told-as-declined") => {}
        CodeClass::Success | CodeClass::Decline => return Ok(*reply),
        CodeClass::Admission if code == Code::NotFound => return Ok(*reply),
        // This sending was not executed, but one before the restore may have been.
        CodeClass::Unknown => return Err(SubmitError::Unknown { id, cause: Unknown::AfterRestore }),
        CodeClass::Undecided => return Err(SubmitError::Unknown { id, cause: Unknown::Undecided }),
        CodeClass::Admission => {}
    }
    // After a lost link an earlier sending may have been executed, or may still be on its way: that a repeat was not
    // admitted says nothing about it. Only a conflict does: the id belongs to another body for good.
    if links_lost == 0 || code == Code::IdConflict || sabotage!("refused-repeat-told-as-not-executed") {
        return Err(not_executed(id, NotExecuted::Refused { code, time: reply.time }));
    }
    Err(SubmitError::Unknown { id, cause: Unknown::RepeatRefused(code) })
}

/// Refuses bytes for which the engine would close the connection.
fn check(id: Id, records: &[[u8; RECORD_BYTES]]) -> Result<(), SubmitError> {
    let mut operations = Operations::new(records.as_flattened());
    match operations.next() {
        Some(Ok(first)) if first.len() == records.len() && records.len() <= FRAME_RECORDS_MAX => Ok(()),
        Some(Err(error)) => Err(not_executed(id, NotExecuted::Invalid(error))),
        Some(Ok(_)) | None => Err(not_executed(id, NotExecuted::NotOneOperation)),
    }
}

async fn answer(id: Id, waiting: Waiting) -> Answer {
    // The other end is only dropped unanswered if the task that drives the lane was killed with its runtime.
    waiting.await.unwrap_or(Err(SubmitError::Unknown { id, cause: Unknown::ClientClosed }))
}

const fn not_executed(id: Id, why: NotExecuted) -> SubmitError {
    SubmitError::NotExecuted { id, why }
}

const fn with_id(error: SubmitError, id: Id) -> SubmitError {
    match error {
        SubmitError::NotExecuted { why, .. } => SubmitError::NotExecuted { id, why },
        SubmitError::Unknown { cause, .. } => SubmitError::Unknown { id, cause },
    }
}
