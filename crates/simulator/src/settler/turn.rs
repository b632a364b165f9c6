//! One turn: reads what the stream has, looks at the chain, does one thing about batches, and carries the chain's facts.

use settlement::life::{Action, Attempt, Entry, Pile, Purpose as AttemptPurpose, TxState, View, next_action};
use settlement::{Hash, keccak};
use surety_protocol::{ControlBody, Kind, Record, TenantId, Time};

use super::disk::Note;
use super::facts::Waiting;
use super::telling::Draft;
use super::{POLICY, Purpose, Settler, Stop};
use crate::chain::{Chain, Commit, Signed};
use crate::random::Random;

/// The poster's balance, wei.
const POSTER_FUNDS: u128 = u128::MAX;

/// How well a node serves this time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Node {
    /// Blocks that it lags behind.
    pub(crate) lag: u64,
    /// It does not know what is in its pool.
    pub(crate) is_blind: bool,
    /// What is sent to it never arrives.
    pub(crate) loses: bool,
}

/// Everything around the process.
pub(crate) struct Surroundings<'a> {
    /// The synced records of the engine's log.
    pub(crate) stream: &'a [Record],
    pub(crate) chain: &'a mut Chain,
    pub(crate) node: Node,
    pub(crate) step: u64,
    /// The engine's time, which new ids bear.
    pub(crate) now: Time,
    pub(crate) random: &'a mut Random,
}

/// What a turn has done, to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    /// An attempt took the place of another.
    Replaced,
    /// A nonce was spent to get a held batch out of the way.
    Cancelled,
    /// A held batch was dropped, to be sealed anew.
    Resealed,
    /// The contract refuses a batch.
    Held,
    /// More was owed than a batch may credit.
    Carried,
    /// A batch is booked.
    Booked,
    /// A snapshot is on the disk.
    Snapshot,
    /// A call was answered.
    Answered,
    /// What was sent to the node got lost.
    SendLost,
}

/// A turn in the making.
pub(super) struct Turn<'a, 'b> {
    pub(super) around: &'a mut Surroundings<'b>,
    pub(super) did: &'a mut Vec<Did>,
    pub(super) requests: &'a mut Vec<Record>,
}

impl Settler {
    /// One turn. What it asks the engine for is put to `requests`, also if it dies then.
    pub(crate) fn turn(
        &mut self,
        around: &mut Surroundings<'_>,
        did: &mut Vec<Did>,
        requests: &mut Vec<Record>,
    ) -> Result<(), Stop> {
        self.drain(around)?;
        requests.extend(self.telling.repeat(&self.facts, around.now, around.step));
        let mut turn = Turn { around, did, requests };
        let view = self.look(&turn);
        self.answer_calls(&mut turn);
        let decision = next_action(&self.log, &view, &POLICY);
        self.act(decision.action, &view, &mut turn)?;
        // After a rewind the stream has said less than the engine was told: nothing is judged by it before it is read again.
        self.drain(turn.around)?;
        if self.log.halt().is_none() {
            self.carry_facts(&mut turn)?;
        }
        Ok(())
    }

    /// What was declined is asked for again at once.
    pub(crate) fn retry_now(&mut self) {
        self.telling.retry_now();
    }

    /// Reads what the stream has.
    fn drain(&mut self, around: &Surroundings<'_>) -> Result<(), Stop> {
        let read = usize::try_from(self.position().0).unwrap_or(usize::MAX);
        let fresh =
            around.stream.get(read..).ok_or_else(|| Stop::broken("the stream is shorter than it was"))?;
        fresh.iter().try_for_each(|record| self.read(record, around.now, around.step))
    }

    fn look(&mut self, turn: &Turn<'_, '_>) -> View {
        let (chain, node) = (&*turn.around.chain, turn.around.node);
        let (latest, finalized) = (chain.behind(node.lag), chain.finalized(node.lag));
        let refused = std::mem::take(&mut self.underpriced);
        let state_of = |hash: &Hash| match chain.mined(hash) {
            Some(number) if number <= latest.number => Some(TxState::Mined),
            Some(_) => Some(TxState::Pending),
            None if chain.is_pooled(hash) && !node.is_blind => Some(TxState::Pending),
            None if refused.contains(hash) => Some(TxState::Underpriced),
            None => None,
        };
        let attempts = self.log.attempts().iter();
        let transactions =
            attempts.filter_map(|it| state_of(&it.hash).map(|state| (it.hash, state))).collect();
        let seq = latest.state.head.seq + 1;
        let refusal = self.commit_of(seq).and_then(|commit| latest.state.refusal(&commit));
        let (waiting, credit_max) = (self.waiting, latest.state.credit_max);
        View {
            now: turn.around.now,
            is_right_chain: true,
            block: latest.number,
            latest: latest.state.head,
            finalized_block: finalized.number,
            finalized: finalized.state.head,
            nonce: latest.state.nonce,
            finalized_nonce: finalized.state.nonce,
            is_frozen: false,
            base_fee: chain.base_fee(),
            base_fee_mean: chain.base_fee(),
            balance: POSTER_FUNDS,
            spent_today: 0,
            transactions,
            refusal: refusal.map(|refusal| (seq, refusal)),
            pile: Pile {
                records: waiting.records,
                value: self.sealer.netting().publishable().min(credit_max),
                age: waiting.since.map_or(Time::ZERO, |since| turn.around.now.minus(since)),
                is_urgent: waiting.is_urgent,
            },
            credit_max,
        }
    }

    fn commit_of(&self, seq: u64) -> Option<Commit> {
        let sealed = self.log.sealed(seq)?;
        Some(Commit { batch: sealed.batch, data: sealed.data.clone() })
    }

    fn append(&mut self, entry: Entry) -> Result<(), Stop> {
        self.pass()?;
        self.files.append(&Note::Life(entry.clone()))?;
        self.log.append(entry).map_err(Stop::broken)?;
        self.pass()
    }

    fn act(&mut self, action: Action, view: &View, turn: &mut Turn<'_, '_>) -> Result<(), Stop> {
        match action {
            Action::Wait => Ok(()),
            Action::Seal { credit_max } => self.seal(credit_max, turn),
            Action::Sign { seq, purpose, nonce, fees } => {
                let commit = self.commit_of(seq).filter(|_| purpose == AttemptPurpose::Commit);
                let raw = Signed::write(nonce, fees, commit.as_ref());
                let hash = keccak(&[&raw]);
                if self.log.attempts().iter().any(|attempt| attempt.nonce == nonce) {
                    turn.did.push(Did::Replaced);
                }
                if purpose == AttemptPurpose::Cancel {
                    turn.did.push(Did::Cancelled);
                }
                let (at, block) = (turn.around.now, view.block);
                self.append(Entry::Attempt(Attempt { seq, purpose, nonce, fees, at, block, hash, raw }))
            }
            Action::Broadcast { hash } => self.broadcast(&hash, turn),
            Action::Finalise { seq, block, nonce } => self.append(Entry::Final { seq, block, nonce }),
            Action::Book { seq } => self.book(seq, turn),
            Action::Hold { seq, refusal } => {
                turn.did.push(Did::Held);
                self.append(Entry::Held { seq, refusal })
            }
            Action::Reseal { from } => {
                turn.did.push(Did::Resealed);
                self.append(Entry::Dropped { from })?;
                self.rewind(turn.around.stream)
            }
            Action::Halt(halt) => Err(Stop::broken(halt)),
        }
    }

    fn seal(&mut self, credit_max: u128, turn: &mut Turn<'_, '_>) -> Result<(), Stop> {
        let Some(sealed) = self.sealer.seal(credit_max) else { return Ok(()) };
        self.waiting = Waiting::behind_a_batch(self.sealer.netting(), turn.around.now);
        if self.sealer.netting().publishable() > 0 {
            turn.did.push(Did::Carried);
        }
        self.keep(sealed.batch.seq);
        self.append(Entry::Sealed { sealed: Box::new(sealed), at: turn.around.now })
    }

    fn broadcast(&mut self, hash: &Hash, turn: &mut Turn<'_, '_>) -> Result<(), Stop> {
        let Some(attempt) = self.log.attempt_of(hash) else { return Ok(()) };
        if turn.around.node.loses {
            turn.did.push(Did::SendLost);
        } else if !turn.around.chain.send(&attempt.raw, *hash) {
            self.underpriced.push(*hash);
        }
        self.pass()
    }

    /// The ledger is told what the batch has credited; when its stream says that it knows, the batch is booked.
    fn book(&mut self, seq: u64, turn: &mut Turn<'_, '_>) -> Result<(), Stop> {
        let Some(sealed) = self.log.sealed(seq) else { return Ok(()) };
        let finals = sealed.finals.clone();
        let mut is_booked = true;
        for (partition, amount) in finals {
            if self.facts.is_booked(partition, seq) {
                continue;
            }
            is_booked = false;
            let body = ControlBody { number: seq, ..ControlBody::default() };
            let draft = Draft { kind: Kind::BatchFinal, tenant: TenantId(0), partition, amount, body };
            self.tell(Purpose::Book(partition, seq), draft, turn)?;
        }
        if !is_booked {
            return Ok(());
        }
        self.append(Entry::Booked { seq })?;
        turn.did.push(Did::Booked);
        if let Some((batch, snapshot)) = self.unbooked.take_if(|(batch, _)| *batch <= seq) {
            self.files.keep(batch, &snapshot)?;
            turn.did.push(Did::Snapshot);
            self.pass()?;
        }
        Ok(())
    }
}
