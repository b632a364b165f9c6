//! What was met on the way: every kind of fault, every way back from one, every kind of request and every code.

use std::collections::BTreeMap;

use surety_protocol::{Code, Kind};

macro_rules! marks {
    ($(#[$doc:meta])* $name:ident { $($(#[$mark_doc:meta])* $mark:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$mark_doc])* $mark,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$mark),*];

            /// As reports call it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$mark => $text,)* }
            }
        }
    };
}

marks! {
    /// What the world does to the engine.
    Fault {
        /// The power goes while a block is being written: any subset of its sectors stays.
        TornWrite = "torn_write",
        /// A block that was synced is not there.
        LostWrite = "lost_write",
        /// A block went to another place.
        MisdirectedWrite = "misdirected_write",
        /// Bits of a synced block have turned.
        Rot = "rot",
        /// A write or sync fails.
        DiskError = "disk_error",
        /// A write takes long.
        SlowDisk = "slow_disk",
        /// No room for a segment in reserve.
        DiskFull = "disk_full",
        /// The power goes between writes.
        PowerCut = "power_cut",
        /// The process dies, what it has written stays.
        Kill = "kill",
        /// The power goes during recovery.
        CrashInRecovery = "crash_in_recovery",
        /// The power goes while a snapshot is made.
        CrashInSnapshot = "crash_in_snapshot",
        /// The power goes while the log goes on to a new segment.
        CrashInRoll = "crash_in_roll",
        /// A finished snapshot is damaged.
        SnapshotRot = "snapshot_rot",
        /// An old copy of the directory is put back.
        OldCopy = "old_copy",
        /// Everything behind a backup is lost, and the operator accepts it.
        AcceptedLoss = "accepted_loss",
        /// The power goes while the backup is put back.
        CutInRestore = "cut_in_restore",
        /// A request is lost.
        RequestLost = "request_lost",
        /// A reply is lost.
        ReplyLost = "reply_lost",
        /// A request arrives twice.
        RequestDoubled = "request_doubled",
        /// A request is overtaken by later ones.
        RequestDelayed = "request_delayed",
        /// A connection is cut with everything in it.
        ConnectionCut = "connection_cut",
        /// A client dies between sending and the reply.
        ClientDeath = "client_death",
        /// The wall clock jumps ahead.
        ClockAhead = "clock_ahead",
        /// The wall clock jumps back.
        ClockBack = "clock_back",
        /// The wall clock runs too fast or too slow.
        ClockDrift = "clock_drift",
        /// The engine is away for long.
        Downtime = "downtime",
        /// The engine is stopped as it should be.
        GracefulStop = "graceful_stop",
        /// Blocks of the chain that are not final are replaced by others.
        Reorg = "chain_reorg",
        /// A batch was in such a block.
        BatchReorgedOut = "batch_reorged_out",
        /// The node's pool forgets a transaction of the poster.
        TransactionDropped = "transaction_dropped",
        /// A place in a block gets dearer or cheaper, up to a hundredfold.
        FeeChange = "fee_change",
        /// Somebody uses the poster's account for something else.
        ForeignTransaction = "foreign_transaction",
        /// The guardian pauses the contract, which refuses all batches.
        ContractPaused = "contract_paused",
        /// What the settler sends never arrives.
        SendLost = "send_lost",
        /// The settler's node lags behind.
        NodeBehind = "node_behind",
        /// It does not know what is in its pool.
        NodeBlind = "node_blind",
        /// It does not answer.
        NodeSilent = "node_silent",
        /// The settler is killed at one of its durable points.
        SettlerKilled = "settler_killed",
        /// The power goes in one of its writes or syncs.
        SettlerPowerCut = "settler_power_cut",
        /// One of them fails.
        SettlerDiskError = "settler_disk_error",
        /// The power goes while it starts.
        SettlerCutInStart = "settler_cut_in_start",
        /// Its newest snapshot rots.
        SettlerSnapshotRot = "settler_snapshot_rot",
        /// It is not there for a while.
        SettlerAway = "settler_away",
    }
}

marks! {
    /// How the engine came back, or refused to.
    Branch {
        /// The log ended with a sound block and nothing behind it.
        CleanEnd = "clean_end",
        /// The log ended with a seal.
        SealedEnd = "sealed_end",
        /// A torn tail was dropped.
        TornTail = "torn_tail",
        /// A torn tail with records in it was dropped.
        TornRecords = "torn_records",
        /// A block in flight was found whole: unacked, and kept.
        UnackedKept = "unacked_kept",
        /// From the first record on.
        FromGenesis = "from_genesis",
        /// From a snapshot.
        FromSnapshot = "from_snapshot",
        /// From an older snapshot, since the newest did not hold.
        FromOlderSnapshot = "from_older_snapshot",
        /// From a log whose beginning was removed.
        FromShortenedLog = "from_shortened_log",
        /// Refused: a later block proves that the damaged one was durable.
        RefusedLaterBlock = "refused_later_block",
        /// Refused: the guard ring proves it.
        RefusedGuard = "refused_guard",
        /// Refused: more damage than a crash explains.
        RefusedBeyondWindow = "refused_beyond_window",
        /// Refused: a sound block that does not belong there.
        RefusedDiscontinuous = "refused_discontinuous",
        /// Refused: the first block that is needed does not hold.
        RefusedFirstBlock = "refused_first_block",
        /// Refused: a segment between others is missing.
        RefusedGap = "refused_gap",
        /// Refused: no segment reaches back to what is needed.
        RefusedMissing = "refused_missing",
        /// Refused: the log ends before what a snapshot includes.
        RefusedBeforeAnchor = "refused_before_anchor",
        /// Refused: no sound snapshot for a log whose beginning is gone.
        RefusedNoSnapshot = "refused_no_snapshot",
        /// The damaged block was the last one, which nothing proves without a guard.
        UnprovenLastBlock = "unproven_last_block",
        /// The damage was where nothing is read any more.
        HarmlessDamage = "harmless_damage",
        /// A recovery that was cut short was done again.
        RecoveredAgain = "recovered_again",
        /// A clock too far from the log had to be accepted.
        ClockGap = "clock_gap",
        /// A client's token proved an old copy.
        ForkProven = "fork_proven",
        /// A token of a life that is lost was told from a fork.
        LostLifeTold = "lost_life_told",
        /// The life that is lost, had it run on, would have learned of the one that goes on.
        ZombieProven = "zombie_proven",
        /// A partition was reconciled after a loss.
        Reconciled = "reconciled",
        /// A loss after a loss.
        LostAgain = "lost_again",
        /// What is asked about was made by a lost life, under an id that is older than any request's may be.
        OldLockLost = "old_lock_lost",
        /// A token of our own past proved nothing.
        TokenHonoured = "token_honoured",
        /// A snapshot was made.
        SnapshotMade = "snapshot_made",
        /// Segments were removed.
        SegmentsRemoved = "segments_removed",
        /// The log went on to a new segment.
        Rolled = "rolled",
        /// New locks were refused for want of a reserve.
        StorageLow = "storage_low",
        /// More was due than a turn may log.
        Behind = "behind",
        /// The settler began again from its files.
        SettlerWentOn = "settler_went_on",
        /// A snapshot of the settler is on its disk.
        SettlerSnapshot = "settler_snapshot",
        /// A batch is final, and the engine has booked all of it.
        BatchBooked = "batch_booked",
        /// A transaction was replaced by one that pays more.
        AttemptReplaced = "attempt_replaced",
        /// The contract refused a batch.
        BatchHeld = "batch_held",
        /// A nonce was spent so that a held batch cannot land.
        NonceCancelled = "nonce_cancelled",
        /// A held batch was dropped and its number sealed anew.
        BatchResealed = "batch_resealed",
        /// More was owed than a batch may credit; the rest was carried over.
        CreditCarried = "credit_carried",
        /// A supply was credited by the settler.
        SupplyCredited = "supply_credited",
        /// The engine was told that a certificate is called.
        CallTold = "call_told",
        /// The engine was told that a call was answered.
        DismissalTold = "dismissal_told",
        /// The engine has booked on its lock what the contract has paid for it.
        GuaranteeBooked = "guarantee_booked",
        /// The engine has booked as a loss what the contract has paid for a lock that it no longer has.
        LossBooked = "loss_booked",
        /// A call was answered with the proof that its lock was credited.
        CallAnswered = "call_answered",
    }
}

/// Counts of everything.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    faults: BTreeMap<Fault, u64>,
    branches: BTreeMap<Branch, u64>,
    /// By kind byte: requests handled.
    kinds: BTreeMap<u8, u64>,
    /// By kind byte: requests that were successful.
    successes: BTreeMap<u8, u64>,
    /// By code byte.
    codes: BTreeMap<u8, u64>,
}

impl Coverage {
    /// Counts a fault.
    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Counts a way back.
    pub fn branch(&mut self, branch: Branch) {
        *self.branches.entry(branch).or_default() += 1;
    }

    /// Counts a request and its answer.
    pub fn answer(&mut self, kind: u8, code: u8) {
        *self.kinds.entry(kind).or_default() += 1;
        *self.codes.entry(code).or_default() += 1;
        if Code::from_byte(code).is_some_and(Code::is_success) {
            *self.successes.entry(kind).or_default() += 1;
        }
    }

    /// Adds another world's counts.
    pub fn add(&mut self, other: &Self) {
        fn add<K: Copy + Ord>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            for (key, count) in from {
                *to.entry(*key).or_default() += count;
            }
        }
        add(&mut self.faults, &other.faults);
        add(&mut self.branches, &other.branches);
        add(&mut self.kinds, &other.kinds);
        add(&mut self.successes, &other.successes);
        add(&mut self.codes, &other.codes);
    }

    /// How often a fault came.
    #[must_use]
    pub fn faults_of(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or(0)
    }

    /// How often a way back was gone.
    #[must_use]
    pub fn branches_of(&self, branch: Branch) -> u64 {
        self.branches.get(&branch).copied().unwrap_or(0)
    }

    /// Every fault with its count.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        Fault::ALL.iter().map(|fault| (fault.name(), self.faults_of(*fault))).collect()
    }

    /// Every way back with its count.
    #[must_use]
    pub fn branches(&self) -> BTreeMap<&'static str, u64> {
        Branch::ALL.iter().map(|branch| (branch.name(), self.branches_of(*branch))).collect()
    }

    /// Kinds of requests with how often they came, and how often they succeeded.
    #[must_use]
    pub fn kinds(&self) -> BTreeMap<&'static str, [u64; 2]> {
        let asked =
            |kind: &Kind| kind.origin() != surety_protocol::Origin::Engine && *kind != Kind::Continuation;
        let count = |counts: &BTreeMap<u8, u64>, kind: Kind| counts.get(&(kind as u8)).copied().unwrap_or(0);
        let row = |kind: &Kind| (kind.name(), [count(&self.kinds, *kind), count(&self.successes, *kind)]);
        Kind::ALL.iter().filter(|kind| asked(kind)).map(row).collect()
    }

    /// Codes with how often they were answered.
    #[must_use]
    pub fn codes(&self) -> BTreeMap<&'static str, u64> {
        let count = |code: &Code| self.codes.get(&(*code as u8)).copied().unwrap_or(0);
        Code::ALL.iter().filter(|code| **code != Code::None).map(|code| (code.name(), count(code))).collect()
    }

    /// What was never met: faults, ways back, kinds that never succeeded, and codes; but not what no ledger answers here: the pace
    /// of tenants is the engine's, and `QUOTA` that of the wire's version 1.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let none = |(name, count): (&'static str, u64)| (count == 0).then_some(name);
        let faults = self.faults().into_iter().filter_map(none);
        let branches = self.branches().into_iter().filter_map(none);
        let kinds = self
            .kinds()
            .into_iter()
            .filter_map(|(name, [_, good])| (good == 0 && name != "lookup").then_some(name));
        let elsewhere = [Code::Quota, Code::QuotaRate, Code::QuotaInFlight].map(Code::name);
        let codes = self.codes().into_iter().filter(|(name, _)| !elsewhere.contains(name)).filter_map(none);
        faults.chain(branches).chain(kinds).chain(codes).collect()
    }
}
