//! `surety ctl lock show` and `query`: of the history, or of the change stream.

use std::io::{BufWriter, Write};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use surety_protocol::limits::AMOUNT_MAX;
use surety_protocol::{
    Amount, ChangeBody, Code, ConsumeBody, Id, Kind, PartitionHandle, Record, Reply, Seq, ShardId, TenantId,
};

use super::answer;
use crate::exit::{self, Exit, Failure};
use crate::history::asked::{self, Moment, OneLock, OpenPage, Page, Period, Source};
use crate::record_text::reply_json;
use crate::remote::Session;
use crate::{dump, values};

#[derive(Debug, Subcommand)]
pub(crate) enum LockCommand {
    /// Looks a lock up: how it ended, what it holds
    ///
    /// Example: surety ctl --data DIR lock show 0:1 0190a1b2-c3d4-7000-8000-000000000001 --tenant 1
    #[command(after_help = exit::HELP)]
    Show(Lock),
}

/// A lock.
#[derive(Debug, Args)]
pub(crate) struct Lock {
    /// Where: shard:number
    #[arg(value_parser = values::partition)]
    partition: PartitionHandle,
    /// Which: the id of its lock request
    #[arg(value_parser = values::id)]
    id: Id,
    /// Whose; 0 is the identity's own tenant
    #[arg(long, default_value_t = 0, value_name = "N")]
    tenant: u32,
}

/// What is asked.
#[derive(Debug, Args)]
pub(crate) struct Query {
    #[command(subcommand)]
    past: Option<Past>,
    #[command(flatten)]
    stream: Stream,
}

/// A question to the history.
#[derive(Debug, Subcommand)]
enum Past {
    /// Prints the records that every condition holds of
    ///
    /// The same condition given more than once means any of them. The last line tells the cursor to go on with.
    ///
    /// Example: surety ctl --data DIR query records --merchant 7 --kind capture --limit 20
    #[command(after_help = exit::HELP)]
    Records(Page),
    /// Prints the locks that every condition holds of, as they stand now, in the order in which they were made
    ///
    /// Example: surety ctl --data DIR query locks --state live --merchant 7
    #[command(after_help = exit::HELP)]
    Locks(Page),
    /// Prints locks that are live, the oldest first, or the one that ends soonest
    ///
    /// Example: surety ctl --data DIR query open --by-deadline --limit 20
    #[command(after_help = exit::HELP)]
    Open(OpenPage),
    /// Prints a lock as it stands now, and every record that made or changed it
    ///
    /// Example: surety ctl --data DIR query lock 0190a1b2-c3d4-7000-8000-000000000001
    #[command(after_help = exit::HELP)]
    Lock(OneLock),
    /// Prints what changed the money of a partition, a supplier or a merchant in a period, between what there was and what there is
    ///
    /// As CSV: one line each for the opening, every record that moved something, and the closing, which is there only if the lines add up.
    ///
    /// Example: surety ctl --data DIR query statement --merchant 7 --tenant 1 --from 2026-11-01T00:00:00Z
    #[command(after_help = exit::HELP)]
    Statement(Period),
    /// Prints the money of a partition or a supplier as of a moment
    ///
    /// Example: surety ctl --data DIR query balances 0:1 --at 2026-11-01T00:00:00Z
    #[command(after_help = exit::HELP)]
    Balances(Moment),
    /// Shows how far the index has come, and how it is doing
    ///
    /// Example: surety ctl --data DIR query status
    #[command(after_help = exit::HELP)]
    Status,
}

/// Which records of the change stream.
#[derive(Debug, Default, PartialEq, Args)]
struct Stream {
    /// Which shard
    #[arg(long, default_value_t = 0, value_name = "I")]
    shard: u16,
    /// The first seq wanted; without it the oldest that is left
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
    /// At most so many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Only this kind, for example capture
    #[arg(long, value_parser = kind, value_name = "KIND")]
    kind: Option<Kind>,
    /// Only what is about this lock or id
    #[arg(long, value_parser = values::id, value_name = "ID")]
    lock: Option<Id>,
    /// Only this tenant's
    #[arg(long, value_name = "N")]
    tenant: Option<u32>,
}

fn kind(text: &str) -> Result<Kind, String> {
    let names = || Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    let found = Kind::ALL.iter().copied().find(|kind| kind.name() == text);
    found.ok_or_else(|| format!("`{text}` is no kind; there are {}", names()))
}

/// What is over is forgotten after a while, and a lock is looked up under its tenant.
const NO_LOCK: &str = "over and forgotten, which `surety ctl query lock ID` of a kept history still knows, or of another tenant or \
                       partition: give the one that made it with --tenant";

/// `lock show`.
pub(crate) async fn lock(session: &Session, command: &LockCommand, json: bool) -> Result<(), Failure> {
    let LockCommand::Show(lock) = command;
    let body = ChangeBody { lock: lock.id, ..ChangeBody::default() };
    let request = Record::new(Kind::Lookup, session.id(), lock.partition, Amount::ZERO, &body);
    let reply = session.ask(Record { tenant: TenantId(lock.tenant), ..request }).await?;
    if reply.code() == Code::NotFound {
        return answer::tell_advised(json, "", &[reply], |_| NO_LOCK);
    }
    if !reply.code().is_recorded() {
        return answer::tell(json, "", &[reply]);
    }
    let (value, lines) = found(lock.id, &reply);
    answer::show(json, &value, &lines)
}

/// A lock, or what a request with an id that lasts has changed: then the look-up tells which lock that is, where a lock has what
/// remains of it. No amount is as large as an id.
fn found(id: Id, reply: &Reply) -> (Value, Vec<String>) {
    let mut value = reply_json(reply);
    value["ok"] = json!(true);
    if reply.remaining.0 > AMOUNT_MAX {
        let lock = Id(reply.remaining.0);
        value["lock"] = json!(lock.to_string());
        value["remaining"] = Value::Null;
        let lines = vec![
            format!("change     {id} ({})", reply.code()),
            format!("of lock    {lock}"),
            format!("as of      {}", values::moment_text(reply.time)),
        ];
        return (value, lines);
    }
    let lines = vec![
        format!("lock       {id}"),
        format!("state      {} ({})", reply.end(), reply.code()),
        format!("total      {}", reply.approved),
        format!("remaining  {}", reply.remaining),
        format!("deadline   {}", values::moment_text(reply.deadline)),
        format!("version    {}", reply.version),
        format!("as of      {}", values::moment_text(reply.time)),
    ];
    (value, lines)
}

/// `query`.
pub(crate) async fn query(session: Session, query: &Query, json: bool) -> Result<(), Failure> {
    let Some(past) = &query.past else { return stream(&session, &query.stream, json).await };
    if query.stream != Stream::default() {
        let message =
            "the options in front of a question are those of the change stream: give them behind it";
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut source = Source::Engine(session);
    let source = &mut source;
    match past {
        Past::Records(page) => asked::records(source, page, json).await,
        Past::Locks(page) => asked::locks(source, page, json).await,
        Past::Open(page) => asked::open(source, page, json).await,
        Past::Lock(one) => asked::lock(source, one, json).await,
        Past::Statement(period) => asked::statement(source, period, json).await,
        Past::Balances(moment) => asked::balances(source, moment, json).await,
        Past::Status => asked::status(source, json).await,
    }
}

async fn stream(session: &Session, query: &Stream, json: bool) -> Result<(), Failure> {
    let shard = ShardId(query.shard);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut count = 0;
    let limit = query.limit.unwrap_or(u64::MAX);
    session
        .read(shard, query.from.map(Seq), |batch| {
            for (index, record) in batch.records.iter().enumerate() {
                if count == limit {
                    return Ok(false);
                }
                if query.wants(record) {
                    count += 1;
                    let seq = Seq(batch.first.0 + index as u64);
                    let parts = &batch.records[index + 1..];
                    let parts = &parts[..record.continuations().min(parts.len())];
                    dump::print(json, shard, seq, record, parts, &mut out)?;
                }
            }
            Ok(count < limit)
        })
        .await?;
    if json {
        writeln!(out, "{}", json!({ "ok": true, "records": count }))?;
    }
    Ok(out.flush()?)
}

impl Stream {
    fn wants(&self, record: &Record) -> bool {
        let Some(kind) = record.kind() else { return true };
        self.kind.is_none_or(|wanted| wanted == kind)
            && self.tenant.is_none_or(|wanted| TenantId(wanted) == record.tenant)
            && self.lock.is_none_or(|wanted| record.id == wanted || lock_of(record, kind) == Some(wanted))
    }
}

/// The lock that a record is about, where it is not the record's own id.
fn lock_of(record: &Record, kind: Kind) -> Option<Id> {
    match kind {
        Kind::Consume | Kind::AutoConsume => Some(record.body::<ConsumeBody>().lock),
        _ if kind.changes_a_lock() => Some(record.body::<ChangeBody>().lock),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_not_shown_as_a_lock_with_an_id_for_an_amount() {
        let (change, lock) =
            (Id(0x0190_a1b2_c3d4_8000_8000_0000_0000_0001), Id(0x0190_a1b2_c3d4_7000_8000_0000_0000_0002));
        let (value, lines) = found(lock, &Reply { remaining: Amount(AMOUNT_MAX), ..Reply::default() });
        assert_eq!((&value["remaining"], &value["lock"]), (&json!(AMOUNT_MAX.to_string()), &Value::Null));
        assert!(lines[0].starts_with("lock "));
        let (value, lines) = found(change, &Reply { remaining: Amount(lock.0), ..Reply::default() });
        assert_eq!((&value["remaining"], &value["lock"]), (&Value::Null, &json!(lock.to_string())));
        assert_eq!(lines[1], format!("of lock    {lock}"));
    }
}
