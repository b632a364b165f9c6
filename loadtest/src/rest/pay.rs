//! One payment at a REST front door, from its lock to its last step.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Bytes;
use serde_json::{Value, json};
use surety_client::{Client, LockRef};
use surety_protocol::{Amount, Id, Kind, Reply};

use super::answer::{Heard, Question, read};
use super::door::Door;
use crate::door_check::Asked;
use crate::door_faults::Exchange;
use crate::door_request::{Meaning, Request, Said, on_double, say_again, until_answered};
use crate::making::{Making, make_all};
use crate::money::Seen;
use crate::payment::{part, repeats};
use crate::recorder::{Recorder, Sample};
use crate::scenario::Draw;
use crate::step::{Action, Step};

/// A payment on its way. Amounts are in the smallest that the door tells.
struct Payment<'a> {
    door: &'a Arc<Door>,
    client: &'a Client,
    recorder: &'a Recorder,
    draw: Draw,
    lock: Id,
    total: Amount,
    version: u16,
    capture: u16,
    captured: Amount,
    /// Of the last capture, what was neither given back nor has ended.
    open: Amount,
    /// The last answer about the lock; none if something happened to it that no answer has told.
    last: Option<Reply>,
}

/// Runs the steps of one payment. Latency counts from `intended`, and for later steps as [`make_all`] has it.
pub(crate) async fn pay(
    door: &Arc<Door>,
    client: &Client,
    recorder: &Recorder,
    steps: &[Step],
    draw: Draw,
    intended: Instant,
) {
    let mut payment = Payment {
        door,
        client,
        recorder,
        draw,
        lock: client.new_id(),
        total: Amount::ZERO,
        version: 0,
        capture: 0,
        captured: Amount::ZERO,
        open: Amount::ZERO,
        last: None,
    };
    make_all(&mut payment, steps, draw.lot, intended).await;
    if let Some(reply) = payment.last {
        let lock = LockRef::new(draw.partition, payment.lock);
        recorder.push(Sample::Seen(Seen { lock, reply, is_whole: true }));
    }
}

/// A request as the door takes it.
struct Post<'a> {
    door: &'a Arc<Door>,
    recorder: &'a Recorder,
    path: String,
    key: String,
    body: Bytes,
    question: Question,
}

impl Request for Post<'_> {
    type Heard = Heard;

    async fn say(&mut self) -> Exchange<Heard> {
        let (question, asset) = (self.question, self.door.asset().clone());
        let on_double = on_double(self.recorder, move |heard: &Heard| read(heard, &question, &asset));
        self.door.post(&self.path, &self.key, &self.body, on_double).await
    }

    fn read(&self, heard: &Heard) -> Meaning {
        read(heard, &self.question, self.door.asset())
    }
}

impl Making for Payment<'_> {
    async fn make(&mut self, step: &Step, intended: Instant) -> ControlFlow<()> {
        let mut post = self.post(step.action);
        self.recorder.push(Sample::Asked(post.question.asked));
        let first = match until_answered(&mut post, self.recorder, intended).await {
            Said::Decided(reply, _) => reply,
            Said::NotExecuted => return ControlFlow::Break(()),
            Said::Unknown => {
                self.last = None;
                return ControlFlow::Break(());
            }
        };
        if !first.code().is_success() {
            return ControlFlow::Break(());
        }
        self.note(step.action, &first);
        say_again(&mut post, self.recorder, step.times, |again, _| repeats(&first, again)).await
    }
}

impl<'a> Payment<'a> {
    fn post(&self, action: Action) -> Post<'a> {
        let asset = self.door.asset();
        let partition = self.draw.partition;
        let (word, kind, amount, moves, body) = match action {
            // A scenario with an advice is refused before it begins.
            Action::Lock | Action::Sale | Action::Advise { .. } => {
                let body = json!({
                    "partition": partition.to_string(),
                    "amount": asset.write(self.draw.amount),
                    "asset": asset.name,
                    "merchant": self.draw.merchant.0,
                    "sale": action == Action::Sale,
                });
                (None, Kind::Lock, self.draw.amount, Some(self.draw.amount), body)
            }
            Action::Increase { share_bps } => {
                let total = part(self.draw.amount, share_bps);
                let body = json!({"total": asset.write(total), "asset": asset.name, "version": self.version});
                let rise = Amount(total.0.saturating_sub(self.total.0));
                (Some("increase"), Kind::Increase, total, Some(rise), body)
            }
            Action::Capture { share_bps, last } => {
                let amount = part(self.total, share_bps);
                let body = json!({"amount": asset.write(amount), "asset": asset.name, "last": last});
                (Some("capture"), Kind::Capture, amount, Some(amount), body)
            }
            // An application takes a capture back by giving all of it back.
            Action::Reverse => self.refund(self.captured),
            Action::Refund { share_bps } => self.refund(part(self.captured, share_bps)),
            // What is left depends on tips, headroom and time.
            Action::Release => (Some("release"), Kind::Release, Amount::ZERO, None, json!({})),
            // All captures together.
            Action::Settle => (Some("settle"), Kind::Settle, Amount::ZERO, None, json!({})),
            Action::Consume => {
                let body = json!({"capture": self.capture});
                (Some("consume"), Kind::Consume, Amount::ZERO, Some(self.open), body)
            }
        };
        let key = if word.is_none() { self.lock } else { self.client.new_id() };
        let lasts = !matches!(kind, Kind::Lock | Kind::Settle | Kind::Consume);
        let id = if lasts { key.lasting() } else { key };
        let path = match word {
            None => "/v1/locks".to_owned(),
            Some(word) => format!("/v1/locks/{}/{word}?partition={partition}", self.lock),
        };
        let asked = Asked { id, kind, lock: self.lock, partition, amount, is_answered: true };
        Post {
            door: self.door,
            recorder: self.recorder,
            path,
            key: key.to_string(),
            body: body.to_string().into(),
            question: Question { asked, moves },
        }
    }

    /// Gives back; beyond what is open of the capture nothing moves.
    fn refund(&self, amount: Amount) -> (Option<&'static str>, Kind, Amount, Option<Amount>, Value) {
        let asset = self.door.asset();
        let body = json!({"capture": self.capture, "amount": asset.write(amount), "asset": asset.name});
        (Some("refund"), Kind::Refund, amount, Some(amount.min(self.open)), body)
    }

    fn note(&mut self, action: Action, reply: &Reply) {
        self.version = reply.version;
        self.last = Some(*reply);
        match action {
            Action::Lock => self.total = reply.approved,
            Action::Increase { .. } => self.total = Amount(self.total.0.saturating_add(reply.approved.0)),
            Action::Sale => {
                (self.capture, self.captured, self.open) = (0, reply.approved, reply.approved);
            }
            Action::Capture { .. } => {
                (self.capture, self.captured, self.open) = (reply.capture, reply.approved, reply.approved);
            }
            Action::Reverse | Action::Refund { .. } => {
                self.open = Amount(self.open.0.saturating_sub(reply.approved.0));
            }
            Action::Settle | Action::Consume => self.open = Amount::ZERO,
            Action::Advise { .. } | Action::Release => {}
        }
    }
}
