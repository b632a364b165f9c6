//! Starting, and going back to the last booked batch: snapshot, log, stream, in this order.

use std::collections::{BTreeMap, BTreeSet};

use chain::DigestSigner;
use settlement::life::{Base, Coverage, Entry, Log};
use settlement::{BatchData, Domain, NettingConfig, Positions, Sealed, Sealer};
use storage::DirectoryLock;
use surety_client::Client;
use surety_protocol::{Address, PartitionHandle, Record, Seq, ShardId, Time};

use crate::batches::Batches;
use crate::config::Config;
use crate::durable;
use crate::error::SettlerError;
use crate::facts::{Facts, Waiting};
use crate::fold::sealed_since;
use crate::journal::{Head, Journal, Scan as LogScan};
use crate::note::Note;
use crate::scan::{PaidOnChain, Scan};
use crate::settler::Settler;
use crate::snapshot::Snapshot;
use crate::spending::Spending;
use crate::stream::{Losses, Stream};

/// What a log's entries come to.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) log: Log,
    /// The last batch that was folded.
    pub(crate) base: Option<Base>,
    /// Every batch behind it that was sealed and not dropped.
    pub(crate) sealed: BTreeMap<u64, Sealed>,
    /// A withdrawal or deficit whose answer is not noted.
    pub(crate) open_request: Option<Record>,
    /// The last exit that was answered, for each partition.
    pub(crate) answered: BTreeMap<PartitionHandle, u64>,
    /// What was paid for no lock, and of which nobody has been told for certain.
    pub(crate) untold: BTreeMap<settlement::Hash, PaidOnChain>,
    /// What transactions have cost.
    pub(crate) spending: Spending,
}

pub(crate) async fn open(
    config: Config,
    client: Client,
    poster: Box<dyn DigestSigner + Send>,
) -> Result<Settler, SettlerError> {
    durable::make_directory(&config.directory)?;
    let lock = DirectoryLock::acquire(&config.directory)?;
    let hello = client.hello();
    let contract = Address(config.place.manager.into_array());
    let domain = Domain { chain_id: config.place.chain_id, contract, engine: hello.engine };
    let (journal, scan) = open_journal(&config, &domain, hello.shards)?;
    let head = scan.head;
    let netting = NettingConfig { shards: head.shards, salt_key: head.salt_key, claim_span: head.claim_span };
    let replayed = replay(domain.separator(), scan.notes)?;
    let sealer = Sealer::new(netting, &domain);
    let stream = Stream::open(&client, &Positions(Vec::new()), &[], Losses::Stop);
    let mut settler = Settler {
        config,
        domain,
        client,
        poster,
        answerer: None,
        journal,
        log: replayed.log,
        sealer,
        facts: Facts::default(),
        waiting: Waiting::default(),
        scan: Scan::default(),
        stream,
        spending: replayed.spending,
        unbooked: None,
        covered: Coverage::default(),
        open_request: replayed.open_request,
        answered: replayed.answered,
        untold: replayed.untold,
        told: Vec::new(),
        caps_due: Time::ZERO,
        caps_for: 0,
        seen_block: 0,
        statements: Vec::new(),
        put_off: BTreeSet::new(),
        abreast: BTreeSet::new(),
        retry_due: Time::ZERO,
        notices: Vec::new(),
        settled: None,
        seen: None,
        sendings: Default::default(),
        batches: Batches::default(),
        witness: None,
        netting,
        _lock: lock,
    };
    restore(&mut settler, replayed.sealed, replayed.base.as_ref()).await?;
    settler.batches = Batches::new(&settler.log, settler.client.now());
    Ok(settler)
}

/// Back to the last booked batch, and forward again along what the log has sealed since: after batches were dropped.
pub(crate) async fn rewind(settler: &mut Settler) -> Result<(), SettlerError> {
    let scan = Journal::read(&settler.config.directory)?.ok_or(SettlerError::Foreign)?;
    let replayed = replay(settler.domain.separator(), scan.notes)?;
    settler.unbooked = None;
    // What was read of the chain stays read: it does not depend on batches.
    let chain = std::mem::take(&mut settler.scan);
    restore(settler, replayed.sealed, replayed.base.as_ref()).await?;
    settler.scan = chain;
    Ok(())
}

/// What the entries come to. A halt that somebody has looked at is none.
pub(crate) fn replay(genesis: settlement::Hash, notes: Vec<Note>) -> Result<Replayed, SettlerError> {
    let (mut log, mut base, mut sealed, mut open_request) = (Log::new(genesis), None, BTreeMap::new(), None);
    let (mut answered, mut untold, mut spending) = (BTreeMap::new(), BTreeMap::new(), Spending::default());
    let mut notes = notes.into_iter().peekable();
    while let Some(note) = notes.next() {
        match note {
            Note::Life(Entry::Halted(_)) if notes.peek() == Some(&Note::Resumed) => {}
            Note::Life(entry) => {
                match &entry {
                    Entry::Sealed { sealed: batch, .. } => {
                        sealed.insert(batch.batch.seq, batch.as_ref().clone());
                    }
                    Entry::Dropped { from } => drop(sealed.split_off(from)),
                    _ => {}
                }
                log.append(entry)?;
            }
            Note::Asked(request) => open_request = Some(*request),
            Note::ExitAnswered { partition, nonce } => {
                open_request = None;
                answered.insert(partition, nonce);
            }
            Note::LossBooked { .. } => open_request = None,
            Note::Loss(paid) => _ = untold.insert(paid.lock, paid),
            Note::LossTold { lock } => _ = untold.remove(&lock),
            Note::Spent { at, transaction, wei } => spending.remember(at, transaction, wei),
            Note::Resumed => {}
            Note::Folded(folded) => {
                (log, sealed) = (folded.life.log().clone(), folded.life.sealed().clone());
                base = Some(folded.life.base().clone());
                (open_request, answered, untold) = (folded.open_request, folded.answered, folded.untold);
                folded.spent.into_iter().for_each(|(at, hash, wei)| spending.remember(at, hash, wei));
            }
        }
    }
    Ok(Replayed { log, base, sealed, open_request, answered, untold, spending })
}

fn open_journal(config: &Config, domain: &Domain, shards: u16) -> Result<(Journal, LogScan), SettlerError> {
    let is_ours = |head: &Head| head.separator == domain.separator() && head.shards == shards;
    // First: opening it may cut off what is torn.
    if Journal::whose(&config.directory)?.is_some_and(|head| !is_ours(&head)) {
        return Err(SettlerError::Foreign);
    }
    if let Some((journal, scan)) = Journal::open(&config.directory)? {
        if scan.torn_bytes > 0 {
            tracing::warn!(bytes = scan.torn_bytes, "a torn last entry was cut off");
        }
        return Ok((journal, scan));
    }
    let mut salt_key = [0; 32];
    getrandom::fill(&mut salt_key).map_err(|error| std::io::Error::other(error.to_string()))?;
    let head = Head { shards, claim_span: config.claim_span, separator: domain.separator(), salt_key };
    let journal = Journal::create(&config.directory, &head)?;
    Ok((journal, LogScan::empty(head)))
}

/// The sealer as the log's last sealed batch left it. Every batch is sealed again from the stream, and must come out the same.
async fn restore(
    settler: &mut Settler,
    sealed: BTreeMap<u64, Sealed>,
    base: Option<&Base>,
) -> Result<(), SettlerError> {
    let (snapshot, booked) = (Snapshot::newest(&settler.config.directory)?, settler.log.booked_seq());
    settler.facts = Facts::default();
    settler.scan = Scan::default();
    settler.covered = Coverage::default();
    settler.abreast.clear();
    settler.statements.clear();
    let mut epochs = Vec::new();
    settler.sealer = match snapshot {
        Some(snapshot) if snapshot.batch > booked => {
            return Err(SettlerError::OldLog { snapshot: snapshot.batch, booked });
        }
        Some(snapshot) => {
            settler.facts = snapshot.facts;
            settler.scan = snapshot.scan;
            epochs = snapshot.epochs;
            Sealer::restore(settler.netting, &snapshot.sealer)?
        }
        None => Sealer::new(settler.netting, &settler.domain),
    };
    let partitions = settler.sealer.trees().partitions().to_vec();
    settler.covered.include(&BatchData { partitions, ..BatchData::default() });
    let positions = settler.sealer.netting().positions();
    settler.stream = Stream::open(&settler.client, positions, &epochs, Losses::Stop);
    let sealed = sealed_since(settler, sealed, base)?;
    for (seq, was) in &sealed {
        read_to(settler, &was.positions()?).await?;
        if settler.sealer.seal(was.credit_max).as_ref() != Some(was) {
            return Err(SettlerError::Diverged(*seq));
        }
        if *seq > booked {
            settler.keep(*seq);
        } else {
            settler.cover(was)?;
        }
    }
    settler.waiting = Waiting::behind_a_batch(settler.sealer.netting(), settler.client.now());
    Ok(())
}

async fn read_to(settler: &mut Settler, positions: &Positions) -> Result<(), SettlerError> {
    for (shard, until) in (0..).map(ShardId).zip(&positions.0) {
        settler.catch_up(shard, *until).await?;
    }
    let exact = &settler.sealer.netting().positions().0;
    debug_assert!(exact.iter().zip(&positions.0).all(|(at, until): (&Seq, &Seq)| at == until));
    Ok(())
}
