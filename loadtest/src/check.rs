//! The check after a run: each acknowledgement has its record in the closed directory, equal in every field, exactly once.

use std::path::Path;

use serde::Serialize;
use storage::{DataDirectory, FileStorage, OpenDirectoryError, StorageError};
use surety_protocol::{
    ChangeBody, Code, Epoch, Id, Kind, LockBody, PartitionHandle, Record, Reply, Seq, ShardId, TenantId,
};
use wal::{RecoverError, Recovery};

use crate::acks::{AcksError, cut_bytes, read_acks};

/// Faults that a report lists; the others are only counted.
const FAULTS_LISTED: usize = 20;

/// What the check came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// True if nothing is missing, different or doubled.
    pub ok: bool,
    /// Acknowledgements on file.
    pub acks: u64,
    /// Those that say that something was recorded; the others are look-ups that found nothing to record.
    pub recorded: u64,
    /// Those whose record is there and equal.
    pub verified: u64,
    /// Those whose record is not there.
    pub missing: u64,
    /// Those whose record says something else.
    pub different: u64,
    /// Requests that were recorded, or first-time answered, twice.
    pub doubled: u64,
    /// Those whose record lies before the oldest segment that is left, and cannot be checked.
    pub removed: u64,
    /// Bytes at the end of the file that are no whole reply: the write that a kill cut. Nobody has counted that reply.
    pub cut_bytes: u64,
    /// The first faults, in words.
    pub faults: Vec<Fault>,
}

/// One acknowledgement that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The request.
    pub id: String,
    /// The shard that answered.
    pub shard: u16,
    /// Where its record should be.
    pub seq: u64,
    /// What is wrong.
    pub what: String,
}

/// Why the check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The acknowledgements cannot be read.
    #[error(transparent)]
    Acks(#[from] AcksError),
    /// The data directory cannot be opened: missing, foreign, newer or in use.
    #[error(transparent)]
    Directory(#[from] OpenDirectoryError),
    /// A shard's directory cannot be opened.
    #[error("shard {shard}: {error}")]
    Storage {
        /// Which shard.
        shard: ShardId,
        /// Why.
        error: StorageError,
    },
    /// A shard's log cannot be read to its end.
    #[error("the log of shard {shard}: {error}")]
    Log {
        /// Which shard.
        shard: ShardId,
        /// Why.
        error: RecoverError<StorageError>,
    },
}

/// Compares a file of acknowledgements with the log of a directory that no engine uses.
///
/// # Errors
/// If either cannot be read; what does not hold is part of the report.
pub fn check(acks: &Path, data: &Path) -> Result<CheckReport, CheckError> {
    let (acks, cut_bytes) = (read_acks(acks)?, cut_bytes(acks));
    let directory = DataDirectory::open(data)?;
    let mut checking = Checking::new(&acks);
    for shard in directory.shards() {
        check_shard(&directory, shard, &mut checking)?;
    }
    Ok(CheckReport { cut_bytes, ..checking.finish() })
}

fn check_shard(
    directory: &DataDirectory,
    shard: ShardId,
    checking: &mut Checking<'_>,
) -> Result<(), CheckError> {
    let storage_error = |error| CheckError::Storage { shard, error };
    let log_error = |error| CheckError::Log { shard, error };
    let mut storage = FileStorage::open_read_only(&directory.shard_path(shard)).map_err(storage_error)?;
    let oldest =
        wal::list_segments(&storage).map_err(storage_error)?.first().map_or(Seq(1), |span| span.first_seq);
    checking.skip_before(shard, oldest);
    let mut log = Recovery::begin_with_oldest(&mut storage, directory.identity(shard)).map_err(log_error)?;
    while let Some(block) = log.next_block(&storage).map_err(log_error)? {
        for record in block.records_from(oldest) {
            let epoch = Some(block.header.epoch);
            checking.on_record(shard, record.seq, epoch, &Record::from_bytes(record.bytes));
        }
    }
    Ok(())
}

/// Walks the acknowledgements along the log, both in order of shard and seq.
pub(crate) struct Checking<'a> {
    /// Sorted by shard and seq.
    waiting: std::iter::Peekable<std::vec::IntoIter<&'a Reply>>,
    /// Every request id that was recorded, to find one that was recorded twice.
    seen: std::collections::HashSet<(TenantId, PartitionHandle, Id)>,
    report: CheckReport,
}

impl<'a> Checking<'a> {
    pub(crate) fn new(acks: &'a [Reply]) -> Self {
        let mut recorded: Vec<&Reply> = acks.iter().filter(|reply| reply.seq.0 > 0).collect();
        recorded.sort_by_key(|reply| (reply.shard, reply.seq, reply.is_replayed()));
        let report = CheckReport {
            acks: acks.len() as u64,
            recorded: recorded.len() as u64,
            ..CheckReport::default()
        };
        Self { waiting: recorded.into_iter().peekable(), seen: std::collections::HashSet::new(), report }
    }

    fn skip_before(&mut self, shard: ShardId, oldest: Seq) {
        self.miss_before(shard, Seq(0));
        while self.waiting.next_if(|reply| reply.shard == shard && reply.seq < oldest).is_some() {
            self.report.removed += 1;
        }
    }

    /// Everything that waits for a place before this one has no record.
    fn miss_before(&mut self, shard: ShardId, seq: Seq) {
        while let Some(reply) = self.waiting.next_if(|reply| (reply.shard, reply.seq) < (shard, seq)) {
            self.report.missing += 1;
            self.fault(reply, "no record at this place".to_owned());
        }
    }

    /// The next record. Its epoch is compared where it is known.
    pub(crate) fn on_record(&mut self, shard: ShardId, seq: Seq, epoch: Option<Epoch>, record: &Record) {
        let is_request = record.kind().is_some_and(|kind| {
            !matches!(kind.origin(), surety_protocol::Origin::Engine | surety_protocol::Origin::Part)
        });
        let is_new = !is_request || self.seen.insert((record.tenant, record.partition, record.id));
        self.miss_before(shard, seq);
        let mut first_times = 0;
        while let Some(reply) = self.waiting.next_if(|reply| (reply.shard, reply.seq) == (shard, seq)) {
            first_times += u32::from(!reply.is_replayed() && reply.kind != Kind::Lookup as u8);
            match difference(record, epoch, reply) {
                _ if first_times > 1 => {
                    self.report.doubled += 1;
                    self.fault(reply, "answered as new more than once".to_owned());
                }
                _ if !is_new => {
                    self.report.doubled += 1;
                    self.fault(reply, "its id was recorded before".to_owned());
                }
                Some(field) => {
                    self.report.different += 1;
                    self.fault(reply, format!("the record differs in {field}"));
                }
                None => self.report.verified += 1,
            }
        }
        if !is_new && first_times == 0 {
            self.report.doubled += 1;
            let reply = Reply { id: record.id, shard, seq, ..Reply::default() };
            self.fault(&reply, "the id was recorded before".to_owned());
        }
    }

    fn fault(&mut self, reply: &Reply, what: String) {
        if self.report.faults.len() < FAULTS_LISTED {
            let (id, shard, seq) = (reply.id.to_string(), reply.shard.0, reply.seq.0);
            self.report.faults.push(Fault { id, shard, seq, what });
        }
    }

    pub(crate) fn finish(mut self) -> CheckReport {
        self.miss_before(ShardId(u16::MAX), Seq(u64::MAX));
        let CheckReport { missing, different, doubled, removed, .. } = self.report;
        let is_whole = missing == 0 && different == 0 && doubled == 0 && removed == 0;
        // A file without replies shows nothing.
        self.report.ok = is_whole && self.report.acks > 0;
        self.report
    }
}

/// The first field in which a reply and the record that it tells of differ.
fn difference(record: &Record, epoch: Option<Epoch>, reply: &Reply) -> Option<&'static str> {
    let kind = record.kind()?;
    // A look-up that found something names the record that it found: a request's, or that of a look-up that has burned the
    // id before, which may have been itself, when its answer was lost and it was sent again.
    let is_burned = reply.code == Code::Burned as u8;
    let is_finding = reply.kind == Kind::Lookup as u8 && (kind != Kind::Lookup || is_burned);
    if is_finding {
        return None;
    }
    let first = [
        (record.id == reply.id, "id"),
        (record.kind == reply.kind, "kind"),
        (record.code == reply.code, "code"),
        (reply.is_replayed() || record.time == reply.time, "time"),
        (reply.is_replayed() || epoch.is_none_or(|epoch| epoch == reply.epoch), "epoch"),
    ];
    let differs =
        |checks: &[(bool, &'static str)]| checks.iter().find(|(holds, _)| !holds).map(|(_, field)| *field);
    differs(&first).or_else(|| differs(&amounts(kind, record, reply)))
}

fn amounts(kind: Kind, record: &Record, reply: &Reply) -> [(bool, &'static str); 3] {
    let is_success = record.code().is_some_and(Code::is_success);
    match kind {
        Kind::Lock => {
            let body = record.body::<LockBody>();
            let taken = if reply.is_replayed() { None } else { reply.approved.0.checked_add(reply.extra.0) };
            [
                (reply.is_replayed() || taken == Some(record.result.0), "approved amount and headroom"),
                (body.deadline == reply.deadline, "deadline"),
                (is_success || reply.approved.0 == 0, "approved amount"),
            ]
        }
        Kind::Capture => {
            let body = record.body::<ChangeBody>();
            [
                (record.result == reply.approved, "captured amount"),
                (!is_success || body.deadline == reply.deadline, "settle-by time"),
                (!is_success || body.capture == reply.capture, "capture index"),
            ]
        }
        Kind::Release | Kind::Settle | Kind::Refund | Kind::Reverse => {
            [(record.result == reply.approved, "amount"), (true, ""), (true, "")]
        }
        _ => [(true, ""); 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::{Amount, Body, Time};

    const SHARD: ShardId = ShardId(0);

    fn lock(id: u128) -> Record {
        let body = LockBody { deadline: Time(99), ..LockBody::default() };
        let mut record = Record::new(Kind::Lock, Id(id), PartitionHandle(1), Amount(5), &body);
        record.result = Amount(6);
        record.time = Time(7);
        record.code = Code::Approved as u8;
        record
    }

    fn ack(id: u128, seq: u64) -> Reply {
        Reply {
            id: Id(id),
            approved: Amount(5),
            extra: Amount(1),
            seq: Seq(seq),
            deadline: Time(99),
            time: Time(7),
            epoch: Epoch(3),
            kind: Kind::Lock as u8,
            code: Code::Approved as u8,
            ..Reply::default()
        }
    }

    /// Runs acknowledgements against a log of one shard; the counts of verified, missing, different, doubled.
    fn check(acks: &[Reply], log: &[Record], expect: (u64, u64, u64, u64)) {
        let mut checking = Checking::new(acks);
        checking.skip_before(SHARD, Seq(1));
        for (seq, record) in (1..).zip(log) {
            checking.on_record(SHARD, Seq(seq), Some(Epoch(3)), record);
        }
        let report = checking.finish();
        let found = (report.verified, report.missing, report.different, report.doubled);
        assert_eq!(found, expect, "{:?}", report.faults);
        assert_eq!(report.ok, (expect.1, expect.2, expect.3) == (0, 0, 0));
    }

    #[test]
    fn every_fault_is_found_and_named() {
        let log = [lock(1), lock(2)];
        check(&[ack(2, 2), ack(1, 1)], &log, (2, 0, 0, 0));
        check(&[ack(1, 1), ack(2, 2), ack(3, 3)], &log, (2, 1, 0, 0));
        check(&[ack(1, 1), Reply { flags: surety_protocol::REPLAYED, ..ack(1, 1) }], &log, (2, 0, 0, 0));
        check(&[ack(1, 1), ack(1, 1)], &log, (1, 0, 0, 1));
        check(&[ack(1, 1), ack(2, 2)], &[lock(1), lock(2), lock(1)], (2, 0, 0, 1));
        check(&[Reply { shard: ShardId(1), ..ack(1, 1) }], &log, (0, 1, 0, 0));
        let change = |change: fn(&mut Reply)| {
            let mut reply = ack(1, 1);
            change(&mut reply);
            check(&[reply], &log, (0, 0, 1, 0));
        };
        change(|reply| reply.id = Id(9));
        change(|reply| reply.kind = Kind::Capture as u8);
        change(|reply| reply.code = Code::Insufficient as u8);
        change(|reply| reply.time = Time(8));
        change(|reply| reply.epoch = Epoch(2));
        change(|reply| reply.approved = Amount(4));
        change(|reply| reply.extra = Amount(2));
        change(|reply| reply.deadline = Time(98));
    }

    #[test]
    fn captures_are_compared_with_their_own_fields() {
        let body = ChangeBody { lock: Id(1), deadline: Time(50), capture: 2, ..ChangeBody::default() };
        let capture = Record { kind: Kind::Capture as u8, body: body.to_bytes(), ..lock(4) };
        let good = Reply {
            kind: Kind::Capture as u8,
            approved: Amount(6),
            deadline: Time(50),
            capture: 2,
            ..ack(4, 1)
        };
        check(&[good], &[capture], (1, 0, 0, 0));
        check(&[Reply { capture: 1, ..good }], &[capture], (0, 0, 1, 0));
        check(&[Reply { approved: Amount(5), ..good }], &[capture], (0, 0, 1, 0));
        check(&[Reply { deadline: Time(51), ..good }], &[capture], (0, 0, 1, 0));
    }

    #[test]
    fn a_burn_that_was_sent_again_finds_itself() {
        let body = ChangeBody { lock: Id(8), ..ChangeBody::default() };
        let burn =
            Record { kind: Kind::Lookup as u8, code: Code::NotFound as u8, body: body.to_bytes(), ..lock(4) };
        let told = |code: Code| Reply { kind: Kind::Lookup as u8, code: code as u8, ..ack(4, 1) };
        check(&[told(Code::NotFound)], &[burn], (1, 0, 0, 0));
        check(&[told(Code::Burned)], &[burn], (1, 0, 0, 0));
        check(&[told(Code::Approved)], &[burn], (0, 0, 1, 0));
    }

    #[test]
    fn what_retention_removed_is_said() {
        let acks = [ack(1, 1), ack(2, 2)];
        let mut checking = Checking::new(&acks);
        checking.skip_before(SHARD, Seq(2));
        checking.on_record(SHARD, Seq(2), Some(Epoch(3)), &lock(2));
        let report = checking.finish();
        assert_eq!((report.verified, report.removed, report.ok), (1, 1, false));
    }
}
