//! What a settler is started with.

use std::path::PathBuf;
use std::time::Duration;

use alloy_primitives::Address;
use settlement::life::{DataPolicy, FeePolicy, FlushPolicy, Policy};
use surety_protocol::Time;

use crate::contract::Place;

/// Everything that a settler needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its own directory, made if it is not there.
    pub directory: PathBuf,
    /// Where the contract is.
    pub place: Place,
    /// Fees, when to seal, and what is published on chain.
    pub policy: Policy,
    /// See `NettingConfig::claim_span`; a directory keeps the one that it was made with.
    pub claim_span: Time,
    /// Changed leaves at which a batch is sealed whatever its age. Where none can be sealed yet, the stream is read on all the same:
    /// or retention would overtake the reader.
    pub changes_max: usize,
    /// How much each partition may have at risk beyond what the chain has been told; none sends no caps, and the engine does
    /// not notice a silent settler.
    pub allowance: Option<u128>,
    /// How long a cap holds. It is sent again after a third of that.
    pub cap_span: Time,
    /// Whose supplies are rewards for all suppliers of the partition.
    pub treasury: Option<Address>,
    /// Between two looks at the chain.
    pub interval: Duration,
    /// Bytes of entries after which the log is put into one entry, at least; never before it is twice as long as with one.
    pub log_bytes_max: u64,
    /// Keeps the locks to be certified until `Settler::statements` takes them: only for who does, since nothing else does.
    pub keeps_statements: bool,
}

impl Config {
    /// Settings for a chain with blocks of twelve seconds.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, place: Place) -> Self {
        Self {
            directory: directory.into(),
            place,
            policy: Policy { fees: FEES, flush: FLUSH, data: DataPolicy::NONE },
            claim_span: Time::from_secs(30 * 24 * 3600),
            changes_max: 1 << 18,
            allowance: None,
            cap_span: Time::from_secs(120),
            treasury: None,
            interval: Duration::from_secs(2),
            log_bytes_max: 1 << 26,
            keeps_statements: false,
        }
    }
}

const GWEI: u128 = 1_000_000_000;
const ETHER: u128 = GWEI * GWEI;

/// A commit is worth 1/500 ether for each whole token that it protects at a minute of age, and a tenth of an ether a day; never
/// more than 0.08 ether at once.
const FEES: FeePolicy = FeePolicy {
    tip: GWEI,
    tip_max: 100 * GWEI,
    cap_max: 1000 * GWEI,
    gas: 80_000,
    replace_after: Time::from_secs(48),
    replace_after_blocks: 3,
    wei_per_whole: ETHER / 500,
    target_age: Time::from_secs(60),
    deadline_age: Time::from_secs(3600),
    daily_budget: ETHER / 10,
};

const FLUSH: FlushPolicy = FlushPolicy {
    age_max: Time::from_secs(600),
    value_max: 1_000_000 * ETHER,
    records_max: 10_000_000,
    cheap_age: Time::from_secs(60),
    retry_after: Time::from_secs(60),
};
