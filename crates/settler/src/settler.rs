//! The settler: looks at chain and stream, asks what to do next, does that, and remembers it.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::B256;
use chain::{Backend, DigestSigner};
use settlement::life::{Action, Alarm, Entry, Halt, Log, next_action};
use settlement::{BatchData, CertifiedLock, Domain, NettingConfig, Sealed, Sealer, life::Coverage};
use storage::DirectoryLock;
use surety_client::Client;
use surety_protocol::{PartitionHandle, Record, Seq, ShardId, Time, Token, sabotage};

use crate::answer::Answerer;
use crate::batches::{Batches, Taken};
use crate::chain_facts::PutOff;
use crate::config::Config;
use crate::contract::Contract;
use crate::error::{Notice, SettlerError};
use crate::facts::{Facts, Waiting};
use crate::figures::{Seen, Sending};
use crate::journal::Journal;
use crate::look::{CHANGES_HELD_MAX, Eyes, Sight};
use crate::note::Note;
use crate::points::{Point, Witness};
use crate::recovery;
use crate::scan::{PaidOnChain, Scan};
use crate::snapshot::Snapshot;
use crate::spending::Spending;
use crate::stream::Stream;

/// Records that are read between two looks at the chain.
const RECORDS_AT_ONCE: usize = 1 << 17;

/// Carries one engine's net changes to one contract, and the contract's facts to the engine.
///
/// It has a key of its own and a directory of its own, and nothing else that must not be lost: after a crash it goes on
/// from its log, the engine's stream and the chain.
pub struct Settler {
    pub(crate) config: Config,
    pub(crate) domain: Domain,
    pub(crate) client: Client,
    pub(crate) poster: Box<dyn DigestSigner + Send>,
    /// Answers calls; without one that is somebody else's work.
    pub(crate) answerer: Option<Answerer>,
    pub(crate) journal: Journal,
    pub(crate) log: Log,
    pub(crate) sealer: Sealer,
    pub(crate) facts: Facts,
    pub(crate) waiting: Waiting,
    pub(crate) scan: Scan,
    pub(crate) stream: Stream,
    pub(crate) spending: Spending,
    /// The next snapshot: the state right after a batch was sealed that is not booked yet. One at a time, since it is as large as
    /// the trees.
    pub(crate) unbooked: Option<Snapshot>,
    /// What the last booked batch covers.
    pub(crate) covered: Coverage,
    /// A withdrawal or deficit that was noted and whose answer was not.
    pub(crate) open_request: Option<Record>,
    /// The next caps are due then, or when another batch is included.
    pub(crate) caps_due: Time,
    pub(crate) caps_for: u64,
    /// Number of the block that was looked at last.
    pub(crate) seen_block: u64,
    /// The last exit that was answered, for each partition, as the log has it.
    pub(crate) answered: BTreeMap<PartitionHandle, u64>,
    /// What was paid for no lock, and of which nobody has been told for certain, by the lock's name.
    pub(crate) untold: BTreeMap<settlement::Hash, PaidOnChain>,
    /// Of these, what the last report has told.
    pub(crate) told: Vec<settlement::Hash>,
    /// Locks to be certified, as the stream told them.
    pub(crate) statements: Vec<CertifiedLock>,
    /// What the engine declined, for each partition by its on-chain id, and when it is tried again.
    pub(crate) put_off: BTreeSet<(settlement::Hash, PutOff)>,
    pub(crate) retry_due: Time,
    /// Shards whose stream was read, once since the start, up to where the engine was.
    pub(crate) abreast: BTreeSet<ShardId>,
    pub(crate) notices: Vec<Notice>,
    /// How far the stream was read for the last batch that became final since the start.
    pub(crate) settled: Option<Vec<Seq>>,
    /// What the last look has shown.
    pub(crate) seen: Option<Seen>,
    pub(crate) sendings: [u64; Sending::ALL.len()],
    /// What became of the last batches.
    pub(crate) batches: Batches,
    pub(crate) witness: Option<Witness>,
    pub(crate) netting: NettingConfig,
    pub(crate) _lock: DirectoryLock,
}

/// What one turn came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was done about batches.
    pub action: Action,
    /// What somebody should know.
    pub notices: Vec<Notice>,
}

impl Settler {
    /// Goes on from a directory, or begins in an empty one. `client` must be the operator's settler.
    ///
    /// # Errors
    /// [`SettlerError`]; nothing was sent.
    pub async fn open(
        config: Config,
        client: Client,
        poster: Box<dyn DigestSigner + Send>,
    ) -> Result<Self, SettlerError> {
        recovery::open(config, client, poster).await
    }

    /// The rollback tokens that a settler has left in its directory, for `Client::over`.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn tokens(directory: &std::path::Path) -> Result<Vec<Token>, SettlerError> {
        if !directory.exists() {
            return Ok(Vec::new());
        }
        Ok(Snapshot::newest(directory)?.map_or_else(Vec::new, |snapshot| snapshot.tokens))
    }

    /// Lets a test stop the settler at any point.
    pub fn watch(&mut self, witness: Witness) {
        self.witness = Some(witness);
    }

    /// Whether key and contract fit, before anything is done with either.
    ///
    /// # Errors
    /// [`SettlerError::WrongChain`], [`SettlerError::NotPoster`]; a contract that is not there yet is neither.
    pub fn check(&self, chain: &dyn Backend) -> Result<(), SettlerError> {
        let Some(latest) = chain.block(chain::Tag::Latest)? else { return Ok(()) };
        let (at, contract) = (chain::At::Hash(latest.hash), self.contract(chain));
        if chain.chain_id()? != self.config.place.chain_id {
            return Err(SettlerError::WrongChain);
        }
        match contract.code(at)? {
            crate::contract::Code::NotYet => return Ok(()),
            crate::contract::Code::Other => return Err(SettlerError::WrongChain),
            crate::contract::Code::Ours => {}
        }
        if contract.separator(at)? != self.domain.separator() {
            return Err(SettlerError::WrongChain);
        }
        if contract.poster(at)? != self.poster.address() {
            return Err(SettlerError::NotPoster);
        }
        Ok(())
    }

    /// One turn: reads what the stream has, carries the chain's facts to the engine, and does one thing about batches.
    ///
    /// # Errors
    /// [`SettlerError`]; if it may pass, the next turn tries again.
    pub async fn turn(&mut self, chain: &mut dyn Backend) -> Result<Report, SettlerError> {
        self.notices.clear();
        self.note_what_was_told()?;
        self.forget_what_was_put_off();
        self.drain()?;
        let Some(sight) = self.look(chain)? else {
            self.notices.push(Notice::NoContract);
            return Ok(self.report(Action::Wait));
        };
        self.seen_block = sight.view.block;
        self.seen = Some(Seen::from(&sight));
        let taken = Taken::of(&sight);
        // First: a batch that becomes final takes its transactions out of the log.
        self.batches.follow(&self.log, Some(&taken), self.client.now());
        let decision = next_action(&self.log, &sight.view, &self.config.policy);
        if let Some(alarm) = decision.alarm {
            self.notices.push(Notice::Batch(alarm));
        }
        // Before batches: what is credited is proven without the engine, and time runs.
        if let Some((block, head)) = sight.newest.filter(|_| self.log.halt().is_none()) {
            self.answer_calls(chain, block, &head).await?;
        }
        let acted = self.act(chain, &decision.action).await;
        self.batches.follow(&self.log, Some(&taken), self.client.now());
        acted?;
        if self.log.halt().is_none() {
            self.come_abreast().await?;
            let facts_of = if sabotage!("credited-before-final") { sight.newest } else { sight.finalized };
            if let Some((block, head)) = facts_of {
                self.carry_facts(chain, block, &head).await?;
            }
            self.send_caps(sight.view.latest.seq).await?;
        }
        Ok(self.report(decision.action))
    }

    /// Waits until the stream has something, or for so long.
    pub async fn wait(&mut self, at_most: std::time::Duration) {
        let _ = tokio::time::timeout(at_most, self.stream.wait()).await;
    }

    /// Why it has stopped for good.
    #[must_use]
    pub const fn halt(&self) -> Option<Halt> {
        self.log.halt()
    }

    /// The last sealed, final and booked batch.
    #[must_use]
    pub fn progress(&self) -> (u64, u64, u64) {
        (self.log.sealed_head().0, self.log.final_seq(), self.log.booked_seq())
    }

    /// The sealer: trees of the last sealed batch, and all that was netted.
    #[must_use]
    pub const fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// For whom its signatures count.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The locks that the stream has certified since the last call, in the order of each shard. None unless
    /// [`Config::keeps_statements`] is set.
    pub fn statements(&mut self) -> Vec<CertifiedLock> {
        std::mem::take(&mut self.statements)
    }

    /// Reads what the stream has, without a look at the chain: for certificates between two turns.
    ///
    /// # Errors
    /// [`SettlerError::Stream`] and [`SettlerError::Netting`].
    pub fn drain(&mut self) -> Result<(), SettlerError> {
        for _ in 0..RECORDS_AT_ONCE {
            // A leaf changes once in a batch, so this is a partition, supplier or payee for each.
            let changes = self.sealer.netting().changes();
            if changes >= CHANGES_HELD_MAX {
                self.notices.push(Notice::ReaderWaits { changes });
                return Ok(());
            }
            let Some((shard, seq, record)) = self.stream.take()? else { return Ok(()) };
            self.read(shard, seq, &record)?;
        }
        Ok(())
    }

    pub(crate) fn read(&mut self, shard: ShardId, seq: Seq, record: &Record) -> Result<(), SettlerError> {
        let statement = self.sealer.read(shard, seq, record)?;
        self.statements.extend(statement.filter(|_| self.config.keeps_statements));
        self.facts.read(record);
        self.waiting.read(record, self.client.now());
        Ok(())
    }

    pub(crate) fn contract<'a>(&'a self, chain: &'a dyn Backend) -> Contract<'a> {
        Contract { chain, place: &self.config.place }
    }

    /// Passes a point, unless a test stops here.
    pub(crate) fn pass(&mut self, point: Point) -> Result<(), SettlerError> {
        let goes_on = self.witness.as_mut().is_none_or(|witness| witness(point));
        if goes_on { Ok(()) } else { Err(SettlerError::Stopped(point)) }
    }

    /// Appends to the log on disk, then to what it comes to.
    pub(crate) fn append(&mut self, entry: Entry) -> Result<(), SettlerError> {
        self.journal.append(&Note::Life(entry.clone()))?;
        Ok(self.log.append(entry)?)
    }

    fn report(&mut self, action: Action) -> Report {
        self.tell_losses();
        Report { action, notices: std::mem::take(&mut self.notices) }
    }

    /// Looks, and notes what was spent: the day's budget outlives the process.
    fn look(&mut self, chain: &dyn Backend) -> Result<Option<Sight>, SettlerError> {
        let eyes = Eyes {
            contract: Contract { chain, place: &self.config.place },
            log: &self.log,
            spending: &mut self.spending,
            waiting: &self.waiting,
            sealer: &self.sealer,
            poster: self.poster.address(),
            genesis: self.domain.separator(),
            changes_max: self.config.changes_max,
            now: self.client.now(),
        };
        let sight = eyes.look()?;
        let mined = self.spending.unnoted();
        self.count(Sending::Mined, mined.len());
        for note in mined {
            self.journal.append(&note)?;
        }
        Ok(sight)
    }

    async fn act(&mut self, chain: &mut dyn Backend, action: &Action) -> Result<(), SettlerError> {
        match *action {
            Action::Wait => Ok(()),
            Action::Seal { credit_max } => self.seal(credit_max),
            Action::Sign { seq, purpose, nonce, fees } => {
                let attempt = self.sign(seq, purpose, nonce, fees)?;
                self.pass(Point::Signing)?;
                if sabotage!("sent-before-the-attempt-is-logged") {
                    let _ = chain.send(&attempt.raw);
                    self.pass(Point::Sent)?;
                }
                self.append(Entry::Attempt(attempt))?;
                self.pass(Point::Signed)
            }
            Action::Broadcast { hash } => self.broadcast(chain, &hash),
            Action::Finalise { seq, block, nonce } => {
                self.append(Entry::Final { seq, block, nonce })?;
                self.settled =
                    self.log.sealed(seq).and_then(|sealed| sealed.positions().ok()).map(|read| read.0);
                self.pass(Point::Final)
            }
            Action::Book { seq } => self.book(seq).await,
            Action::Hold { seq, refusal } => self.append(Entry::Held { seq, refusal }),
            Action::Reseal { from } => {
                self.append(Entry::Dropped { from })?;
                recovery::rewind(self).await
            }
            Action::Halt(halt) => self.append(Entry::Halted(halt)),
        }
    }

    fn seal(&mut self, credit_max: u128) -> Result<(), SettlerError> {
        let Some(sealed) = self.sealer.seal(credit_max) else { return Ok(()) };
        self.waiting = Waiting::behind_a_batch(self.sealer.netting(), self.client.now());
        self.pass(Point::Sealing)?;
        self.keep(sealed.batch.seq);
        self.append(Entry::Sealed { sealed: Box::new(sealed), at: self.client.now() })?;
        self.pass(Point::Sealed)
    }

    /// Keeps the state as it is right after a batch was sealed, for a snapshot once it is booked; unless one waits already.
    pub(crate) fn keep(&mut self, batch: u64) {
        let (scan, facts) = (&self.scan, &mut self.facts);
        let is_wanted =
            |nonce| nonce > scan.nonce || scan.supplies.iter().any(|supply| supply.nonce == nonce);
        facts.forget_deposits(is_wanted);
        if self.unbooked.is_some() {
            return;
        }
        let snapshot = Snapshot {
            batch,
            sealer: self.sealer.snapshot(),
            facts: self.facts.clone(),
            scan: self.scan.clone(),
            tokens: self.client.tokens(),
            epochs: self.stream.epochs(),
        };
        self.unbooked = Some(snapshot);
    }

    fn broadcast(&mut self, chain: &mut dyn Backend, hash: &settlement::Hash) -> Result<(), SettlerError> {
        let Some(attempt) = self.log.attempt_of(hash) else { return Ok(()) };
        let result = chain.send(&attempt.raw);
        self.count(Sending::from(&result), 1);
        self.pass(Point::Sent)?;
        match result {
            Ok(_) | Err(chain::SendError::AlreadyKnown) => {}
            Err(chain::SendError::Underpriced) => self.spending.underpriced.push(B256::from(*hash)),
            Err(chain::SendError::Backend(error)) => return Err(error.into()),
            Err(chain::SendError::InsufficientFunds) => {
                self.notices.push(Notice::Batch(Alarm::InsufficientFunds));
            }
            // The next look tells what has taken the nonce.
            Err(chain::SendError::NonceTooLow(_)) => {}
            Err(error) => self.notices.push(Notice::NotTaken(error)),
        }
        Ok(())
    }

    async fn book(&mut self, seq: u64) -> Result<(), SettlerError> {
        let Some(sealed) = self.log.sealed(seq).cloned() else { return Ok(()) };
        for (partition, amount) in &sealed.finals {
            self.book_partition(seq, *partition, *amount).await?;
        }
        self.cover(&sealed)?;
        self.append(Entry::Booked { seq })?;
        self.pass(Point::Booked)?;
        if let Some(snapshot) = self.unbooked.take_if(|snapshot| snapshot.batch <= seq) {
            snapshot.write(&self.config.directory)?;
            self.pass(Point::Snapshot)?;
            self.fold_log()?;
        }
        Ok(())
    }

    pub(crate) fn cover(&mut self, sealed: &Sealed) -> Result<(), SettlerError> {
        self.covered.include(&BatchData::from_bytes(&sealed.data)?);
        Ok(())
    }

    /// Reads the stream up to a record that was answered, so that what it changed is known.
    pub(crate) async fn catch_up(&mut self, shard: ShardId, seq: Seq) -> Result<(), SettlerError> {
        while self.position(shard) < seq {
            let (seq, record) = self.stream.next_of(shard).await?;
            self.read(shard, seq, &record)?;
        }
        Ok(())
    }

    /// The same up to the engine's present end, which the record of a burned id shows.
    pub(crate) async fn catch_up_with(&mut self, partition: PartitionHandle) -> Result<(), SettlerError> {
        let reply = self.client.lookup(partition, self.client.new_id(), true).await?;
        self.catch_up(partition.shard(), reply.seq).await
    }

    /// After a start the stream says less than the engine was told before: nothing is judged by it until it has been read once
    /// up to where the engine is. What comes later is this settler's own, and read when it is answered.
    async fn come_abreast(&mut self) -> Result<(), SettlerError> {
        for partition in self.partitions() {
            if !self.is_abreast(partition.shard()) {
                self.catch_up_with(partition).await?;
                self.abreast.insert(partition.shard());
            }
        }
        Ok(())
    }

    /// False while the stream of a shard may not have told of something that the engine has.
    pub(crate) fn is_abreast(&self, shard: ShardId) -> bool {
        shard.0 >= self.netting.shards || self.abreast.contains(&shard)
    }

    pub(crate) fn position(&self, shard: ShardId) -> Seq {
        let positions = self.sealer.netting().positions();
        positions.0.get(usize::from(shard.0)).copied().unwrap_or_default()
    }

    pub(crate) fn partitions(&self) -> Vec<PartitionHandle> {
        self.sealer.netting().partitions().map(|(handle, _)| handle).collect()
    }
}

impl std::fmt::Debug for Settler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sealed, last_final, booked) = self.progress();
        f.debug_struct("Settler")
            .field("directory", &self.config.directory)
            .field("sealed", &sealed)
            .field("final", &last_final)
            .field("booked", &booked)
            .field("halt", &self.halt())
            .finish_non_exhaustive()
    }
}
