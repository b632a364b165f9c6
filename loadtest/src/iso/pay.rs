//! One payment over a link, from its lock to its last step.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use iso8583::payment::{Intent, Refusal, approval_code};
use iso8583::{Dialect, Draft, Message};
use surety_client::{Client, LockRef};
use surety_protocol::{Amount, Code, End, Id, Record, Reply};

use super::answer::{Told, read};
use super::direct::Direct;
use super::host::Host;
use super::message::{Content, Heard, Numbers, Say, draft};
use super::trail::{Facts, Trail, trail};
use crate::door_check::Asked;
use crate::door_faults::Exchange;
use crate::door_request::{Meaning, Request, Said, on_double, say_again, until_answered};
use crate::making::{Making, make_all};
use crate::money::Seen;
use crate::payment::{part, repeats};
use crate::recorder::{Recorder, Sample};
use crate::scenario::Draw;
use crate::step::{Action, Step};

/// Field 38 of what a stand-in has approved by itself.
const STOOD_IN: [u8; 6] = *b"STANDI";

/// A payment on its way. Amounts are in minor units, but for its facts.
struct Payment<'a> {
    host: &'a Arc<Host>,
    client: &'a Client,
    recorder: &'a Recorder,
    draw: Draw,
    reference: [u8; 12],
    /// None before it has a lock.
    facts: Option<Facts>,
    total: Amount,
    captured: Amount,
    /// The message that made the lock.
    first: Option<Numbers>,
    /// The message that captured.
    capturing: Option<Numbers>,
    /// What a look-up has to find; none if something happened that no answer has told.
    last: Option<Seen>,
}

/// Runs the steps of one payment. Latency counts from `intended`, and for later steps as [`make_all`] has it.
pub(crate) async fn pay(
    host: &Arc<Host>,
    client: &Client,
    recorder: &Recorder,
    steps: &[Step],
    draw: Draw,
    intended: Instant,
) {
    let mut payment = Payment {
        host,
        client,
        recorder,
        draw,
        reference: host.reference(),
        facts: None,
        total: Amount::ZERO,
        captured: Amount::ZERO,
        first: None,
        capturing: None,
        last: None,
    };
    make_all(&mut payment, steps, draw.lot, intended).await;
    if let Some(seen) = payment.last {
        recorder.push(Sample::Seen(seen));
    }
}

/// A message that is said until it is answered or given up, from the second time on as a repeat.
struct Letter<'a> {
    host: &'a Arc<Host>,
    recorder: &'a Recorder,
    say: Say,
    draft: Draft,
    /// As it goes out.
    message: Vec<u8>,
    is_said: bool,
    question: Question,
}

impl Request for Letter<'_> {
    type Heard = Heard;

    async fn say(&mut self) -> Exchange<Heard> {
        let question = self.question;
        let on_double = on_double(self.recorder, move |heard: &Heard| question.read(heard));
        if self.is_said {
            self.draft.set_mti(question.numbers.mti.repeat());
            // What could be written before can be written with another type.
            if let Ok(again) = self.host.voice().frame(&mut self.draft) {
                self.message = again;
            }
        }
        self.is_said = true;
        self.host.ask(&question.numbers, &self.message, on_double).await
    }

    fn read(&self, heard: &Heard) -> Meaning {
        self.question.read(heard)
    }
}

/// A message, as far as its reply is held against it.
#[derive(Clone, Copy)]
struct Question {
    dialect: Dialect,
    numbers: Numbers,
    reference: [u8; 12],
    /// Field 4.
    minor: Amount,
    /// The same, in base units.
    base: Amount,
    /// What it leaves in the log last.
    change: Record,
    /// The lock that it makes or is about.
    lock: Id,
}

impl Question {
    /// What a reply means, as the engine's to the request that it comes of.
    fn read(&self, heard: &Heard) -> Meaning {
        let code = match read(&heard.code, self.dialect) {
            Told::Approved => Code::Approved,
            Told::Declined(code) => code,
            Told::Refused(code) if self.may_be_refused_by(heard) => return Meaning::Refused(code),
            Told::Unknown if self.is_about_this(heard) && heard.is_proved => return Meaning::Unknown,
            Told::Refused(_) | Told::Unknown | Told::Nonsense => return Meaning::Nonsense,
        };
        let reply = Reply {
            id: self.change.id,
            kind: self.change.kind,
            code: code as u8,
            approved: if code.is_success() { self.base } else { Amount::ZERO },
            shard: self.change.partition.shard(),
            ..Reply::default()
        };
        Meaning::Decided(Box::new(reply), self.is_answered_by(heard, code))
    }

    /// False if a refusal cannot be that of its message. Only who cannot prove itself to the link is answered by whom it cannot tell.
    fn may_be_refused_by(&self, heard: &Heard) -> bool {
        let of_mac = Refusal::Mac.edge_code();
        self.is_about_this(heard) && (heard.is_proved || heard.code == of_mac.field_39(self.dialect))
    }

    /// False if a reply is of another type, or names another payment. What could be read only in part may name none.
    fn is_about_this(&self, heard: &Heard) -> bool {
        self.numbers.mti.reply() == Some(heard.mti)
            && heard.reference.is_none_or(|reference| reference == self.reference)
    }

    /// False if a reply cannot be that of its message. Its approval code is made of the lock's id, which only the link's key makes.
    fn is_answered_by(&self, heard: &Heard, code: Code) -> bool {
        let approval = code.is_success().then(|| approval_code(self.lock));
        heard.is_proved
            && self.numbers.mti.reply() == Some(heard.mti)
            && heard.reference == Some(self.reference)
            && heard.minor.map(u128::from) == Some(self.minor.0)
            && heard.approval == approval
    }
}

/// A request of the work for a message about a lock; none if it has no kind.
fn asked_for(record: &Record, lock: Id, is_answered: bool) -> Option<Asked> {
    let Record { id, partition, amount, .. } = *record;
    Some(Asked { id, kind: record.kind()?, lock, partition, amount, is_answered })
}

impl Making for Payment<'_> {
    async fn make(&mut self, step: &Step, intended: Instant) -> ControlFlow<()> {
        let times = step.times;
        match step.action {
            Action::Lock => self.say(Say::Authorize, self.draw.amount, times, intended).await,
            Action::Sale => self.say(Say::Sale, self.draw.amount, times, intended).await,
            Action::Advise { share_bps } => {
                let amount = part(self.draw.amount, share_bps);
                self.say(Say::StandIn, amount, times, intended).await?;
                self.say(Say::Complete, amount, times, Instant::now()).await
            }
            Action::Capture { share_bps, .. } => {
                self.say(Say::Complete, part(self.total, share_bps), times, intended).await
            }
            Action::Release => self.say(Say::TakeBack, self.total, times, intended).await,
            Action::Reverse => self.say(Say::TakeBack, self.captured, times, intended).await,
            Action::Settle | Action::Consume => self.ask_engine(step, intended).await,
            // A scenario with these is refused before it begins.
            Action::Increase { .. } | Action::Refund { .. } => ControlFlow::Break(()),
        }
    }
}

impl<'a> Payment<'a> {
    /// Says a message as often as the step wants it.
    async fn say(&mut self, say: Say, minor: Amount, times: u32, intended: Instant) -> ControlFlow<()> {
        let Some((trail, mut letter)) = self.letter(say, minor) else {
            // The link's own reading refuses what it was to be told: its settings and the scenario do not go together.
            self.recorder.push(Sample::RefusedByDoor("not said".into()));
            return ControlFlow::Break(());
        };
        let lock = letter.question.lock;
        let asked =
            trail.before.iter().map(|record| (record, false)).chain([(&letter.question.change, true)]);
        asked
            .filter_map(|(record, is_answered)| asked_for(record, lock, is_answered))
            .for_each(|asked| self.recorder.push(Sample::Asked(asked)));
        let (reply, first) = match until_answered(&mut letter, self.recorder, intended).await {
            Said::Decided(reply, heard) => (reply, heard),
            Said::NotExecuted => return ControlFlow::Break(()),
            Said::Unknown => {
                self.last = None;
                return ControlFlow::Break(());
            }
        };
        if !reply.code().is_success() {
            return ControlFlow::Break(());
        }
        self.note(&letter);
        say_again(&mut letter, self.recorder, times, |_, again| *again == first).await
    }

    /// A message, and what it is to leave in the log; none if it could not be said so that the link understands it.
    fn letter(&self, say: Say, minor: Amount) -> Option<(Trail, Letter<'a>)> {
        let (host, now) = (self.host, self.client.now());
        let numbers = host.numbers(say, now);
        let content = Content {
            terminal: host.voice().terminal,
            reference: self.reference,
            partition: self.draw.partition,
            currency: host.currency(),
            minor: u64::try_from(minor.0).ok()?,
            merchant: self.draw.merchant,
            approval: self.facts.map_or(STOOD_IN, |facts| approval_code(facts.lock)),
            original: match say {
                Say::Complete => self.first,
                Say::TakeBack => self.capturing.or(self.first),
                Say::Authorize | Say::StandIn | Say::Sale => None,
            },
        };
        let mut draft = draft(say, &numbers, &content, host.rules(), now);
        let framed = host.voice().frame(&mut draft).ok()?;
        let bytes = framed.get(host.voice().speech.header.bytes()..)?;
        let message = Message::parse(host.voice().speech.codec, bytes).ok()?;
        let intent = Intent::read(&message, host.rules(), now).ok()?;
        let trail = trail(&intent, host.rules(), self.facts.as_ref());
        let change = trail.change?;
        let lock = self.facts.map_or(change.id, |facts| facts.lock);
        let (reference, base) = (self.reference, host.base_of(minor));
        let question = Question { dialect: host.dialect(), numbers, reference, minor, base, change, lock };
        let recorder = self.recorder;
        Some((trail, Letter { host, recorder, say, draft, message: framed, is_said: false, question }))
    }

    /// What an approved message has changed.
    fn note(&mut self, Letter { say, question, .. }: &Letter<'_>) {
        let made = Facts {
            partition: self.draw.partition,
            lock: question.lock,
            end: End::Live,
            total: question.change.amount,
            completion: None,
        };
        let facts = self.facts.get_or_insert(made);
        match say {
            Say::Authorize | Say::StandIn => {
                (self.total, self.first) = (question.minor, Some(question.numbers))
            }
            Say::Sale => {
                facts.end = End::Final;
                (self.captured, self.first) = (question.minor, Some(question.numbers));
            }
            Say::Complete => {
                (facts.end, facts.completion) = (End::Final, Some(question.change.id));
                (self.captured, self.capturing) = (question.minor, Some(question.numbers));
            }
            // What was captured is taken back, and the lock has ended all the same.
            Say::TakeBack if facts.end == End::Final => {}
            Say::TakeBack => facts.end = End::Released,
        }
        let reply = Reply { end: facts.end as u8, ..Reply::default() };
        self.last = Some(Seen { reply, is_whole: false, lock: LockRef::new(facts.partition, facts.lock) });
    }

    /// Asks the engine itself, for what no acquirer says.
    async fn ask_engine(&mut self, step: &Step, intended: Instant) -> ControlFlow<()> {
        let Some(facts) = self.facts else { return ControlFlow::Break(()) };
        let lock = LockRef::new(facts.partition, facts.lock);
        let draft = if step.action == Action::Settle { lock.settle() } else { lock.consume_capture(0) };
        let request = draft.into_record(|| self.client.new_id());
        if let Some(asked) = asked_for(&request, facts.lock, true) {
            self.recorder.push(Sample::Asked(asked));
        }
        let mut direct = Direct { client: self.client, request };
        let first = match until_answered(&mut direct, self.recorder, intended).await {
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
        self.last = Some(Seen { lock, reply: first, is_whole: true });
        say_again(&mut direct, self.recorder, step.times, |again, _| repeats(&first, again)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iso::message::sign_on;
    use surety_protocol::{Kind, LockBody, PartitionHandle, Time};

    #[test]
    fn a_reply_is_that_of_its_message_or_nonsense() {
        let dialect = Dialect::V1987;
        let mti = Say::Authorize.mti(dialect);
        let numbers = Numbers { mti, ..sign_on(dialect, 1, Time(0)).0 };
        let (reference, minor, base, lock) = (*b"000000000001", Amount(5), Amount(500), Id(7));
        let change = Record::new(Kind::Lock, lock, PartitionHandle(1), base, &LockBody::default());
        let question = Question { dialect, numbers, reference, minor, base, change, lock };
        let of = |code: &str| Heard {
            mti: mti.reply().unwrap(),
            code: code.into(),
            approval: None,
            minor: Some(5),
            reference: Some(reference),
            is_proved: true,
        };
        let refused = |code: &str| Meaning::Refused(format!("code {code}"));
        let check = |heard: Heard, expect: Meaning| assert_eq!(question.read(&heard), expect, "{heard:?}");
        for (code, meant) in [("91", refused("91")), ("96", Meaning::Unknown)] {
            check(of(code), meant);
            check(Heard { is_proved: false, ..of(code) }, Meaning::Nonsense);
            check(Heard { mti, ..of(code) }, Meaning::Nonsense);
            check(Heard { reference: Some(*b"000000000002"), ..of(code) }, Meaning::Nonsense);
        }
        check(Heard { is_proved: false, ..of("63") }, refused("63"));
        check(Heard { reference: None, ..of("30") }, refused("30"));
        let is_sound = |heard: &Heard| matches!(question.read(heard), Meaning::Decided(_, true));
        let approved = Heard { approval: Some(approval_code(lock)), ..of("00") };
        assert!(is_sound(&approved) && is_sound(&of("51")));
        assert!(!is_sound(&of("00")), "without its approval code");
        assert!(!is_sound(&Heard { is_proved: false, ..approved.clone() }));
        assert!(!is_sound(&Heard { reference: None, ..approved }));
    }
}
