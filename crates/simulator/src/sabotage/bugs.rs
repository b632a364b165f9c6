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

/// All of them: log, recovery, snapshots, the reply gate, time, idempotency, tenancy, money, settlement, files, server, client,
/// acquirers' messages.
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
    // Settlement.
    bug(("fresh-nonce-after-a-crash", "a batch has one nonce"),
        ("settlement", "schedules", "nonces_alone_apply_nothing_twice")),
    bug(("attempts-not-logged", "what was signed is logged before it is sent"),
        ("settlement", "schedules", "whatever_the_chain_does_everything_is_settled_once")),
    bug(("contract-takes-any-batch", "the contract takes a batch once"),
        ("settlement", "schedules", "whatever_the_chain_does_everything_is_settled_once")),
    bug(("booked-before-final", "what is booked is final"),
        ("settlement", "schedules", "whatever_the_chain_does_everything_is_settled_once")),
    bug(("settler-log-not-written", "what the settler has promised itself is on the disk"),
        ("settler", "journal", "what_was_appended_is_read_back_and_goes_on")),
    bug(("paid-calls-unanswered", "what was credited is not paid again by a certificate"),
        ("settler", "guarantees", "what_was_credited_is_not_paid_again_by_a_call")),
    bug(("loss-acknowledged-twice", "what the contract has paid is acknowledged once"),
        ("settlement", "netting", "a_loss_that_is_booked_twice_is_acknowledged_once")),
    bug(("sent-before-the-attempt-is-logged", "nothing is sent that the settler's log does not hold"),
        ("settler", "kill", "nothing_is_sent_that_the_log_does_not_hold")),
    bug(("credited-before-final", "a supply is credited once it is final"),
        ("settler", "way", "a_deposit_is_credited_at_finality_and_not_before")),
    // Files.
    bug(("disk-error-tried-again", "after a disk error nothing is tried again"),
        ("storage", "files", "after_an_error_the_writer_does_nothing_more")),
    bug(("two-processes-on-one-directory", "a directory has one user"),
        ("storage", "files", "a_directory_has_one_user")),
    // Streams and forwarding.
    bug(("reply-to-another-stream", "a reply goes to whoever asked"),
        ("server", "lost", "a_reply_never_goes_to_another_stream")),
    bug(("old-number-taken-for-the-new-one", "a stream's number means nobody else"),
        ("server", "lib", "shard::slots::tests::a_number_means_nothing_once_its_value_is_gone")),
    bug(("forward-lost", "whatever was taken in is answered"),
        ("server", "peers", "requests_for_other_shards_are_forwarded_and_answered_where_they_came_from")),
    bug(("forwarded-twice", "each request is answered once"),
        ("server", "peers", "requests_for_other_shards_are_forwarded_and_answered_where_they_came_from")),
    bug(("forwarded-as-the-operator", "a forwarded request speaks for its own tenant"),
        ("server", "peers", "a_forwarded_request_speaks_for_its_own_tenant_and_roles")),
    bug(("slow-reader-kept", "who does not read is closed"),
        ("server", "peers", "a_peer_that_does_not_read_is_closed_and_the_others_go_on")),
    bug(("bad-frame-executed-in-part", "a bad frame leaves no trace"),
        ("server", "wire", "nothing_of_a_bad_frame_is_executed")),
    // Who gets in, and as whom.
    bug(("early-data-on", "nothing is executed that can be replayed"),
        ("server", "access", "early_data_is_off_and_no_session_is_resumed")),
    bug(("certificate-not-required", "nobody gets in without a certificate"),
        ("server", "access", "only_certificates_of_this_authority_get_in")),
    bug(("revocations-not-read", "who is revoked is out"),
        ("server", "access", "a_revoked_certificate_is_cut_off_and_the_others_are_not")),
    bug(("connection-outlives-its-certificate", "a connection ends with its certificate"),
        ("server", "access", "a_connection_ends_with_its_certificate")),
    bug(("tenant-by-its-hello", "the certificate says who somebody is"),
        ("server", "access", "a_certificate_speaks_for_its_own_tenant_and_roles")),
    bug(("quota-not-counted", "a tenant is held to its rate"),
        ("server", "quotas", "requests_past_the_rate_are_refused_and_repeats_are_not")),
    bug(("connections-of-a-tenant-not-limited", "a tenant has so many connections"),
        ("server", "quotas", "a_tenant_has_so_many_connections")),
    bug(("another-tenants-records-shown", "a tenant reads its own records"),
        ("server", "tail", "a_tenant_sees_its_own_records_only")),
    bug(("lasting-under-an-ordinary-id", "what was forgotten is not executed again"),
        ("ledger", "idempotency", "what_was_forgotten_is_not_executed_again_by_a_mark")),
    bug(("another-tenants-state-shown", "a tenant sees the partitions on which it has rights"),
        ("server", "state", "a_tenant_sees_what_it_has_rights_on_and_itself")),
    bug(("state-told-before-it-is-logged", "the state is told as durably as replies are"),
        ("server", "state", "nothing_is_told_that_a_crash_could_take_back")),
    bug(("forged-release-applied", "a release group is signed by its merchant"),
        ("server", "release", "a_group_is_refused_unless_it_is_signed_and_forwarded_ones_too")),
    // Old copies.
    bug(("token-tag-not-checked", "a token counts if this engine has signed it"),
        ("server", "access", "a_token_counts_only_as_this_engine_has_signed_it")),
    bug(("fork-told-and-served-on", "a proven fork executes nothing"),
        ("server", "life", "a_token_from_the_future_stops_everything")),
    bug(("older-log-than-its-notes", "a log that was put back is not served from"),
        ("server", "life", "a_log_that_is_older_than_its_notes_is_refused")),
    bug(("cursor-of-another-history-served", "a cursor past the end is told so"),
        ("server", "tail", "a_cursor_past_the_end_belongs_to_another_history")),
    // The client.
    bug(("refused-repeat-told-as-not-executed", "the refusal of a repeat says nothing of the first sending"),
        ("surety-client", "faults", "the_refusal_of_a_repeat_says_nothing_about_the_first_sending")),
    bug(("late-answer-told-as-not-executed", "what has left may be executed"),
        ("surety-client", "faults", "a_deadline_is_definite_only_for_what_never_left")),
    bug(("sent-after-it-was-told-as-not-executed", "what was told as not executed never leaves"),
        ("surety-client", "faults", "a_deadline_is_definite_only_for_what_never_left")),
    bug(("lost-link-not-counted", "a request that breaks links is given up"),
        ("surety-client", "faults", "a_request_that_breaks_link_after_link_is_given_up")),
    bug(("unadmitted-chain-told-as-declined", "a chain that was not admitted is not declined"),
        ("surety-client", "faults", "a_chain_that_was_not_admitted_is_not_declined")),
    bug(("chain-repeated-for-each-member", "a chain is repeated whole, once"),
        ("surety-client", "faults", "a_chain_stays_whole_also_when_it_is_repeated")),
    bug(("two-bodies-under-one-id", "one id has one body"),
        ("surety-client", "faults", "one_id_is_sent_once_and_never_with_two_bodies")),
    bug(("token-not-presented", "a client shows what it has seen"),
        ("surety-client", "faults", "the_newest_token_is_presented_on_the_next_link")),
    bug(("absence-told-before-it-is-recorded", "not found is definite once it is recorded"),
        ("surety-client", "routing", "not_found_is_an_answer_only_once_it_is_recorded")),
    bug(("retry-under-a-new-id", "a payment keeps its ids"),
        ("surety-client", "routing", "a_payment_is_never_doubled")),
    bug(("next-partition-without-a-burn", "an open attempt is burned before the next"),
        ("surety-client", "routing", "an_overloaded_partition_is_burned_before_the_next_is_tried")),
    bug(("ended-lock-told-as-a-guarantee", "only a lock that stands is a guarantee"),
        ("surety-client", "routing", "only_a_lock_that_stands_is_a_guarantee")),
    bug(("another-history-followed", "a change stream never changes its history"),
        ("surety-client", "tail", "an_epoch_that_was_left_behind_is_another_history")),
    // Acquirers' messages.
    bug(("later-places-left-open", "what was taken back is not locked elsewhere afterwards"),
        ("iso8583", "places", "a_reversal_spends_the_places_that_a_declined_lock_may_still_come_to")),
    bug(("completed-increase-locks-again", "a payment is held once"),
        ("iso8583", "completions", "a_completion_that_names_an_increase_completes_the_lock_that_it_raised")),
];
