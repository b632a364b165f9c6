//! The deliberate bugs: what each breaks, and which test notices.

/// One deliberate bug. Its point in the code says `sabotage!` and its name.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// Its name, as in the code.
    pub name: &'static str,
    /// Which promise it breaks.
    pub breaks: &'static str,
    /// The package whose test catches it.
    pub package: &'static str,
    /// The test target there; `lib` for unit tests.
    pub target: &'static str,
    /// The test.
    pub test: &'static str,
}

impl Bug {
    /// Package, target and test in one.
    #[must_use]
    pub fn caught_by(&self) -> String {
        format!("{} {} {}", self.package, self.target, self.test)
    }

    /// Where its package lives.
    pub(super) fn directory(&self) -> String {
        format!("crates/{}", self.package.trim_start_matches("surety-"))
    }
}

/// Reads like a table: name and promise, then where the test is.
const fn bug(
    (name, breaks): (&'static str, &'static str),
    (package, target, test): (&'static str, &'static str, &'static str),
) -> Bug {
    Bug { name, breaks, package, target, test }
}

/// All of them: log, recovery, snapshots, the reply gate, time, idempotency, tenancy, money, files.
#[rustfmt::skip]
pub const BUGS: &[Bug] = &[
    // The log.
    bug(("ack-before-sync", "what is acked is durable"),
        ("wal", "crash", "a_cut_at_any_call_loses_nothing_that_was_acked")),
    bug(("segment-name-not-synced", "a segment's name is durable before its first block"),
        ("wal", "crash", "a_cut_at_any_call_loses_nothing_that_was_acked")),
    bug(("guard-not-synced", "the guard entry is durable before the ack"),
        ("wal", "rot", "a_guard_entry_is_durable_before_the_ack")),
    bug(("new-log-not-synced", "a new log is there whole or not at all"),
        ("wal", "crash", "creating_a_log_is_all_or_nothing")),
    bug(("synced-when-only-written", "the synced mark is what a sync has covered"),
        ("wal", "log", "in_os_mode_acks_run_ahead_of_syncs")),
    bug(("durable-mark-too-high", "a block claims no more than was durable before it"),
        ("wal", "log", "in_fsync_mode_everything_before_a_block_is_durable")),
    bug(("tail-runs-past-the-synced-mark", "readers see synced records only"),
        ("wal", "tail", "a_reader_never_passes_the_synced_mark")),
    bug(("locks-on-a-full-disk", "new locks are refused below the reserve"),
        ("engine", "world", "refusals_answer_at_once_and_leave_no_trace")),
    // Recovery.
    bug(("chain-hash-not-checked", "every block continues the block before it"),
        ("wal", "rot", "a_sound_block_that_does_not_continue_the_log_is_refused")),
    bug(("block-checksum-not-checked", "a damaged block is found"),
        ("wal", "rot", "a_flip_in_an_unproven_last_block_loses_that_block_alone")),
    bug(("rot-taken-for-a-torn-tail", "rot is refused, never truncated"),
        ("wal", "rot", "every_flipped_byte_below_the_last_block_is_refused_and_located")),
    bug(("torn-tail-left-in-place", "what was dropped never comes back"),
        ("wal", "crash", "a_torn_block_of_an_earlier_epoch_never_comes_back")),
    bug(("start-block-skipped", "every start opens an epoch, durably"),
        ("wal", "log", "every_start_opens_a_higher_epoch")),
    bug(("epoch-not-raised", "epochs rise"),
        ("wal", "log", "every_start_opens_a_higher_epoch")),
    bug(("state-hash-not-compared", "replay proves determinism as it goes"),
        ("ledger", "random", "a_log_that_was_altered_anywhere_does_not_replay")),
    bug(("outcome-not-compared-in-replay", "what was decided is what the rules give"),
        ("engine", "world", "a_record_that_was_decided_otherwise_is_found")),
    bug(("fork-not-noticed", "an old copy of the directory does not serve"),
        ("engine", "lib", "epochs::tests::tokens_of_another_future_prove_a_fork")),
    // Snapshots and retention.
    bug(("snapshot-of-the-wrong-seq", "a snapshot and the log behind it are the state"),
        ("engine", "world", "a_snapshot_beside_the_shard_is_the_state_that_a_whole_replay_gives")),
    bug(("snapshot-hash-not-compared", "a snapshot is the state that was logged"),
        ("engine", "world", "a_snapshot_that_does_not_add_up_to_the_logged_state_is_not_made")),
    bug(("snapshot-damage-not-noticed", "a rotten snapshot does not count"),
        ("wal", "snapshot", "every_flipped_byte_is_found")),
    bug(("retention-up-to-the-newer-snapshot", "the log reaches back to the older snapshot"),
        ("wal", "lib", "retention::tests::only_what_nobody_needs_goes")),
    bug(("retention-forgets-the-readers", "the log stays while somebody needs it"),
        ("wal", "lib", "retention::tests::only_what_nobody_needs_goes")),
    // The reply gate.
    bug(("reply-before-its-record-is-durable", "a reply leaves only when its record is durable"),
        ("engine", "world", "a_reply_leaves_only_when_its_record_is_durable")),
    bug(("repeat-told-before-it-is-durable", "a repeat waits for what it tells"),
        ("engine", "world", "repeats_and_look_ups_wait_for_what_they_tell")),
    // Time and expiry.
    bug(("clock-jumps-with-the-wall", "a jump of the wall clock expires nothing early"),
        ("engine", "lib", "clock::tests::jumps_of_the_wall_move_time_by_500_ppm_at_most")),
    bug(("starts-by-any-clock", "a start far from the log wants to be told"),
        ("engine", "lib", "clock::tests::a_start_takes_the_later_clock_within_the_gap")),
    bug(("expires-a-millisecond-early", "nothing expires early"),
        ("ledger", "regressions", "a_clock_jump_that_expires_locks")),
    bug(("nothing-expires", "nothing lives for ever"),
        ("ledger", "rows", "row_18_what_has_expired_is_there_for_the_next_lock")),
    bug(("expiries-wait-for-the-next-lock", "expiries are logged before what uses their collateral"),
        ("engine", "world", "expiry_is_logged_in_time_order_and_frees_collateral")),
    bug(("locks-while-expiries-are-behind", "while expiries wait nobody is declined for them"),
        ("ledger", "adversary", "while_expiries_are_behind_nobody_locks_and_nobody_is_declined")),
    // Idempotency.
    bug(("ids-lost-in-replay", "an id is remembered across restarts"),
        ("engine", "world", "whatever_was_acked_survives_a_crash_at_any_moment")),
    bug(("decline-not-remembered", "a retry never turns a decline into an approval"),
        ("ledger", "idempotency", "row_16_a_declined_id_stays_declined_when_there_is_room_again")),
    bug(("conflict-answered-as-a-repeat", "one id has one body"),
        ("ledger", "idempotency", "row_17_an_id_with_another_body_conflicts")),
    bug(("retried-refund-applied-again", "one effect for one id"),
        ("ledger", "regressions", "a_retried_capture_or_refund_applied_twice")),
    bug(("stale-id-accepted", "an id is accepted in its window alone"),
        ("ledger", "idempotency", "ids_are_accepted_in_their_window_and_remembered_as_long")),
    // Tenancy.
    bug(("another-tenants-partition-shown", "what is another's does not exist"),
        ("ledger", "idempotency", "another_tenants_partition_or_lock_does_not_exist")),
    bug(("another-tenants-name-taken", "a tenant speaks for itself alone"),
        ("ledger", "idempotency", "another_tenants_partition_or_lock_does_not_exist")),
    // Money.
    bug(("held-amounts-lent-again", "collateral is lent once"),
        ("ledger", "regressions", "held_amounts_missing_from_the_balance_check")),
    bug(("collateral-rounded-down", "rounding favours the collateral"),
        ("ledger", "quote", "collateral_is_value_times_ratio_by_price_rounded_up")),
    bug(("headroom-leaks", "what a lock held comes back whole"),
        ("ledger", "rows", "row_10_captures_beyond_within_the_tolerance")),
    bug(("late-capture-drawn-again", "late captures stay within what has expired"),
        ("ledger", "regressions", "a_late_capture_drawn_again_and_again")),
    bug(("refunded-capture-reversed", "what was given back is not given back again"),
        ("ledger", "rows", "rows_13_and_14_reverse")),
    bug(("certified-collateral-freed-at-once", "a certificate can be claimed until it ends"),
        ("ledger", "certified", "what_leaves_h_or_u_waits_in_p")),
    bug(("deficit-not-paid-first", "a deficit is paid before anything is free"),
        ("ledger", "rows", "row_30_a_deficit_freezes_and_is_paid_first")),
    bug(("queued-withdrawals-lent-out", "what is due to leave is not locked beyond that"),
        ("ledger", "stake", "a_lock_may_not_use_what_is_due_to_leave_before_it_ends")),
    bug(("unit-value-ignores-the-deficit", "a loss counts in what a unit is worth"),
        ("ledger", "stake", "a_deposit_in_a_deficit_buys_at_what_the_units_have_left")),
    // Files.
    bug(("disk-error-tried-again", "after a disk error nothing is tried again"),
        ("storage", "files", "after_an_error_the_writer_does_nothing_more")),
    bug(("two-processes-on-one-directory", "a directory has one user"),
        ("storage", "files", "a_directory_has_one_user")),
];
