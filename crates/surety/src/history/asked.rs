//! Questions of the command line: asked of the process that keeps the index, of the index itself where nobody does, or of an engine.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use history::{
    Ask, Asker, AskerError, ByName, Conditions, OfLock, OfMoment, OfPeriod, OrderName, Question, Reader,
    Status,
};
use serde_json::{Value, json};
use storage::DataDirectory;
use surety_protocol::{Address, Amount, Code, End, EngineId, Id, Kind, PartitionHandle, Time};

use super::{asker_failure, failure, question_failure};
use crate::directory;
use crate::exit::{Exit, Failure};
use crate::remote::Session;
use crate::values::{self, exact_moment_text, moment_text};

/// Lines of a statement that are asked for at a time.
const STATEMENT_LINES: usize = 500;

/// A question to the index of a data directory.
#[derive(Debug, ClapArgs)]
pub(super) struct In<T: ClapArgs> {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    pub(super) words: T,
    /// JSON objects, one a line
    #[arg(long)]
    pub(super) json: bool,
}

impl<T: ClapArgs> In<T> {
    /// Where the question goes.
    pub(super) fn source(&self) -> Result<Source, Failure> {
        Ok(Source::Index(Index::find(&self.data)?))
    }
}

/// A question without words.
#[derive(Debug, ClapArgs)]
pub(super) struct Nothing {}

/// A page of records or locks.
#[derive(Debug, ClapArgs)]
pub(crate) struct Page {
    #[command(flatten)]
    conditions: Held,
    /// Rows of the page
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// The oldest first, rather than the newest
    #[arg(long)]
    oldest_first: bool,
    /// Only what comes behind this: the cursor of the page before
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// On behalf of this tenant: what it may see
    #[arg(long = "of", value_name = "TENANT")]
    of: Option<u32>,
}

/// What records or locks are held against.
#[derive(Debug, ClapArgs)]
struct Held {
    /// About this lock
    #[arg(long, value_parser = values::id, value_name = "ID")]
    lock: Vec<Id>,
    /// The lock guarantees this merchant
    #[arg(long, value_name = "N")]
    merchant: Vec<u64>,
    /// The lock's merchant is paid at this address
    #[arg(long, value_parser = values::address, value_name = "ADDRESS")]
    payee: Vec<Address>,
    /// In this partition: shard:number. shard:0 is the shard itself, of prices and merchants
    #[arg(long, value_parser = values::place, value_name = "PARTITION")]
    partition: Vec<PartitionHandle>,
    /// This tenant's
    #[arg(long, value_name = "N")]
    tenant: Vec<u32>,
    /// Naming this supplier; records only
    #[arg(long, value_parser = values::address, value_name = "ADDRESS")]
    supplier: Vec<Address>,
    /// Answered so, for example INSUFFICIENT
    #[arg(long, value_parser = history::code, value_name = "CODE")]
    code: Vec<Code>,
    /// Of this kind, for example capture; records only
    #[arg(long, value_parser = history::kind, value_name = "KIND")]
    kind: Vec<Kind>,
    /// With the lock in this state, for example live; of records: as they left it
    #[arg(long, value_parser = history::state, value_name = "STATE")]
    state: Vec<End>,
    /// Of at least this amount, in base units
    #[arg(long, value_parser = values::amount, value_name = "AMOUNT")]
    amount_min: Option<Amount>,
    /// Of at most this amount
    #[arg(long, value_parser = values::amount, value_name = "AMOUNT")]
    amount_max: Option<Amount>,
    /// From this moment on, for example 2026-11-22T14:00:00Z
    #[arg(long, value_parser = values::moment, value_name = "MOMENT")]
    from: Option<Time>,
    /// Until before this moment
    #[arg(long, value_parser = values::moment, value_name = "MOMENT")]
    until: Option<Time>,
}

/// A page of live locks.
#[derive(Debug, ClapArgs)]
pub(crate) struct OpenPage {
    #[command(flatten)]
    page: Page,
    /// The one that ends soonest first
    #[arg(long, conflicts_with = "oldest_first")]
    by_deadline: bool,
}

/// A lock.
#[derive(Debug, ClapArgs)]
pub(crate) struct OneLock {
    /// Which
    #[arg(value_parser = values::id, value_name = "ID")]
    id: Id,
    /// Where it is, if several partitions have one of this id: shard:number
    #[arg(long, value_parser = values::partition, value_name = "PARTITION")]
    partition: Option<PartitionHandle>,
    /// Records of the page
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Only what comes behind this: the cursor of the page before
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// On behalf of this tenant: what it may see
    #[arg(long = "of", value_name = "TENANT")]
    of: Option<u32>,
}

/// Whose money, and when.
#[derive(Debug, ClapArgs)]
pub(crate) struct Moment {
    /// Of which partition: shard:number
    #[arg(value_parser = values::partition)]
    partition: PartitionHandle,
    /// Only what this supplier has in it
    #[arg(long, value_parser = values::address, value_name = "ADDRESS")]
    supplier: Option<Address>,
    /// As of when, for example 2026-11-22T14:00:00Z, before what is indexed in full; without it after the last record that is indexed
    #[arg(long, value_parser = values::moment, value_name = "MOMENT")]
    at: Option<Time>,
}

/// Whose money, and of which period.
#[derive(Debug, ClapArgs)]
pub(crate) struct Period {
    /// Of which partition: shard:number
    #[arg(value_parser = values::partition, required_unless_present = "merchant", conflicts_with = "merchant")]
    partition: Option<PartitionHandle>,
    /// Only what this supplier has in it
    #[arg(long, value_parser = values::address, value_name = "ADDRESS", requires = "partition")]
    supplier: Option<Address>,
    /// Of a merchant instead
    #[arg(long, value_name = "N")]
    merchant: Option<u64>,
    /// Whose merchant; a tenant's own without it
    #[arg(long, value_name = "N", requires = "merchant")]
    tenant: Option<u32>,
    /// From this moment on, for example 2026-11-22T14:00:00Z; without it from the beginning
    #[arg(long, value_parser = values::moment, value_name = "MOMENT")]
    from: Option<Time>,
    /// Until before this moment; without it to where the index is complete
    #[arg(long, value_parser = values::moment, value_name = "MOMENT")]
    until: Option<Time>,
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn moment(at: Option<Time>) -> Option<String> {
    at.map(exact_moment_text)
}

impl Page {
    fn conditions(&self) -> Conditions {
        let held = &self.conditions;
        Conditions {
            lock: texts(&held.lock),
            merchant: held.merchant.clone(),
            payee: texts(&held.payee),
            partition: texts(&held.partition),
            tenant: held.tenant.clone(),
            supplier: texts(&held.supplier),
            code: held.code.iter().map(|code| code.name().to_owned()).collect(),
            kind: held.kind.iter().map(|kind| kind.name().to_owned()).collect(),
            state: held.state.iter().map(|end| end.name().to_owned()).collect(),
            amount_min: held.amount_min.map(|amount| amount.to_string()),
            amount_max: held.amount_max.map(|amount| amount.to_string()),
            from: moment(held.from),
            until: moment(held.until),
            order: self.oldest_first.then_some(OrderName::OldestFirst),
            by: None,
            limit: Some(self.limit),
            cursor: self.cursor.clone(),
        }
    }
}

/// `records`.
pub(crate) async fn records(source: &mut Source, page: &Page, json: bool) -> Result<(), Failure> {
    let answer = source.ask(page.of, Ask::Records(page.conditions())).await?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    print_rows(json, &answer, &mut out)?;
    end_page(json, &answer, &mut out)
}

/// `locks`.
pub(crate) async fn locks(source: &mut Source, page: &Page, json: bool) -> Result<(), Failure> {
    print_locks(source, page.of, Ask::Locks(page.conditions()), json).await
}

/// `open`.
pub(crate) async fn open(source: &mut Source, open: &OpenPage, json: bool) -> Result<(), Failure> {
    let OpenPage { page, by_deadline } = open;
    let by = if *by_deadline { ByName::Deadline } else { ByName::Age };
    let ask = Ask::OpenLocks(Conditions { order: None, by: Some(by), ..page.conditions() });
    print_locks(source, page.of, ask, json).await
}

async fn print_locks(source: &mut Source, of: Option<u32>, ask: Ask, json: bool) -> Result<(), Failure> {
    let answer = source.ask(of, ask).await?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for lock in list(&answer["rows"]) {
        print_lock(json, lock, &mut out)?;
    }
    end_page(json, &answer, &mut out)
}

/// `lock`.
pub(crate) async fn lock(source: &mut Source, one: &OneLock, json: bool) -> Result<(), Failure> {
    let ask = Ask::Lock(OfLock {
        id: one.id.to_string(),
        partition: one.partition.map(|partition| partition.to_string()),
        limit: Some(one.limit),
        cursor: one.cursor.clone(),
    });
    let answer = source.ask(one.of, ask).await?;
    let is_nothing = list(&answer["locks"]).is_empty() && list(&answer["rows"]).is_empty();
    if is_nothing && answer["has_more"] == json!(false) && one.cursor.is_none() {
        return Err(Failure::new(Exit::Failure, format!("no lock {} in the history", one.id)));
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    for lock in list(&answer["locks"]) {
        print_lock(json, lock, &mut out)?;
    }
    if answer["locks_cut"] == json!(true) {
        tracing::warn!("more locks have this id: name the partition");
    }
    print_rows(json, &answer, &mut out)?;
    end_page(json, &answer, &mut out)
}

/// `balances`.
pub(crate) async fn balances(source: &mut Source, moment: &Moment, json: bool) -> Result<(), Failure> {
    let of = OfMoment {
        partition: moment.partition.to_string(),
        supplier: moment.supplier.map(|supplier| supplier.to_string()),
        at: self::moment(moment.at),
    };
    let answer = source.ask(None, Ask::Balances(of.clone())).await?;
    if answer["balances"].is_null() {
        let supplier = of.supplier.map_or_else(String::new, |supplier| format!("supplier {supplier} in "));
        let whose = format!("{supplier}partition {}", of.partition);
        let message = match of.at {
            Some(at) => format!("{whose} was not there at {at}"),
            None => format!("there is no {whose} in the history"),
        };
        return Err(Failure::new(Exit::Failure, message));
    }
    let mut out = std::io::stdout();
    if json {
        let mut value = answer["balances"].clone();
        value["ok"] = json!(true);
        value["complete_before"] = answer["complete_before"].clone();
        writeln!(out, "{value}")?;
    } else if let Value::Object(amounts) = &answer["balances"] {
        for (name, amount) in amounts {
            writeln!(out, "{name:10} {}", text(amount))?;
        }
        writeln!(out, "known before {}", text(&answer["complete_before"]))?;
    }
    Ok(())
}

/// `statement`.
pub(crate) async fn statement(source: &mut Source, period: &Period, json: bool) -> Result<(), Failure> {
    let mut of = OfPeriod {
        partition: period.partition.map(|partition| partition.to_string()),
        supplier: period.supplier.map(|supplier| supplier.to_string()),
        merchant: period.merchant,
        tenant: period.tenant,
        from: moment(period.from),
        until: moment(period.until),
        limit: Some(STATEMENT_LINES),
        cursor: None,
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut lines = 0;
    loop {
        let page = source.ask(None, Ask::Statement(of.clone())).await?;
        if json {
            print_lines(&page, &mut lines, &mut out)?;
        } else {
            out.write_all(::texts::statement::csv(&page).as_bytes())?;
        }
        // A period that ends with what is complete ends there on every page.
        of.until = page["until"].as_str().map(str::to_owned).or(of.until);
        of.cursor = page["cursor"].as_str().map(str::to_owned);
        if page["has_more"] != json!(true) {
            out.flush()?;
            warn_of_nobody(&page, period);
            return Ok(());
        }
    }
}

/// A merchant needs no record to have a statement: one of zeros from the beginning on may be of a number that was mistyped.
fn warn_of_nobody(last: &Value, period: &Period) {
    if period.merchant.is_some() && period.from.is_none() && last["lines_so_far"] == json!(0) {
        tracing::warn!("no record of {} has moved anything: is it the right one?", text(&last["account"]));
    }
}

/// Prints a page of a statement as JSON lines: what the period is in front of the first one's, what there is behind the last one's.
fn print_lines(page: &Value, count: &mut u64, out: &mut impl Write) -> Result<(), Failure> {
    if !page["opening"].is_null() {
        let mut value = page.clone();
        for name in ["lines", "cursor", "has_more", "closing"] {
            value.as_object_mut().map(|fields| fields.remove(name));
        }
        writeln!(out, "{value}")?;
    }
    for line in list(&page["lines"]) {
        *count += 1;
        writeln!(out, "{line}")?;
    }
    if page["has_more"] != json!(true) {
        writeln!(out, "{}", json!({ "ok": true, "lines": *count, "closing": page["closing"] }))?;
    }
    Ok(())
}

/// `status`.
pub(crate) async fn status(source: &mut Source, json: bool) -> Result<(), Failure> {
    let mut value = source.ask(None, Ask::Status(history::Nothing {})).await?;
    let mut out = std::io::stdout();
    if json {
        value["ok"] = json!(true);
        writeln!(out, "{value}")?;
        return Ok(());
    }
    let status: Status = serde_json::from_value(value).map_err(std::io::Error::from)?;
    let Status { state, complete_before, lag_records, lag_ms, bytes, shards, .. } = status;
    writeln!(out, "{}: complete before {}, {bytes} bytes", state.name(), moment_text(complete_before))?;
    match (lag_records, lag_ms) {
        (Some(records), Some(ms)) => {
            writeln!(out, "behind by {records} records, {}.{:03} s", ms / 1000, ms % 1000)?;
        }
        _ => writeln!(out, "nobody keeps it: how far it is behind the log is not told")?,
    }
    for shard in shards {
        let why = shard.message.map_or_else(String::new, |message| format!(": {message}"));
        writeln!(out, "shard {}: {} at seq {}{why}", shard.shard, shard.state.name(), shard.indexed)?;
    }
    Ok(())
}

/// Prints records: as they come, or in a line each.
fn print_rows(json: bool, answer: &Value, out: &mut impl Write) -> Result<(), Failure> {
    for row in list(&answer["rows"]) {
        if json {
            writeln!(out, "{row}")?;
        } else {
            writeln!(out, "{}", row_line(row))?;
        }
    }
    Ok(())
}

/// One line: `name=value name=value`, what every record has first.
fn row_line(row: &Value) -> String {
    const FIRST: [&str; 11] =
        ["shard", "seq", "time", "kind", "code", "id", "partition", "tenant", "flags", "amount", "result"];
    const LEFT_OUT: [&str; 2] = ["lock_after", "partition_after"];
    let Value::Object(fields) = row else { return row.to_string() };
    let first = FIRST.iter().filter_map(|name| Some((*name, fields.get(*name)?)));
    let rest = fields.iter().map(|(name, value)| (name.as_str(), value));
    let rest = rest.filter(|(name, _)| !FIRST.contains(name) && !LEFT_OUT.contains(name));
    let mut words: Vec<String> =
        first.chain(rest).map(|(name, value)| format!("{name}={}", text(value))).collect();
    words.extend(row["lock_after"]["state"].as_str().map(|state| format!("state={state}")));
    words.join(" ")
}

fn print_lock(json: bool, lock: &Value, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        return Ok(writeln!(out, "{lock}")?);
    }
    let mut words = vec![text(&lock["lock"]), text(&lock["state"])];
    for name in
        ["tenant", "partition", "merchant", "approved", "captured", "remaining", "created", "deadline"]
    {
        words.push(format!("{name}={}", text(&lock[name])));
    }
    Ok(writeln!(out, "{}", words.join(" "))?)
}

fn end_page(json: bool, answer: &Value, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        let value = json!({
            "ok": true,
            "rows": list(&answer["rows"]).len(),
            "has_more": answer["has_more"],
            "cursor": answer["cursor"],
            "complete_before": answer["complete_before"],
        });
        writeln!(out, "{value}")?;
    } else if let (Some(true), Some(cursor)) = (answer["has_more"].as_bool(), answer["cursor"].as_str()) {
        writeln!(out, "more: --cursor {cursor}")?;
    }
    Ok(out.flush()?)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A value without quotes.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Where questions go.
pub(crate) enum Source {
    /// To the index of a directory.
    Index(Index),
    /// To an engine that keeps a history, over the wire.
    Engine(Session),
}

impl Source {
    async fn ask(&mut self, of: Option<u32>, ask: Ask) -> Result<Value, Failure> {
        let question = Question { of, ask };
        match self {
            Self::Index(index) => index.ask(&question).await,
            Self::Engine(session) => session.query(&question).await,
        }
    }
}

/// The index of a directory: that of the process that keeps it, or the one on the disk.
pub(crate) struct Index {
    data: PathBuf,
    /// Nobody keeps it.
    own: Option<Reader>,
    engine: EngineId,
}

impl Index {
    fn find(data: &Path) -> Result<Self, Failure> {
        let metadata = DataDirectory::inspect(data).map_err(|error| directory::open_failure(&error))?;
        Ok(Self { data: data.to_owned(), own: None, engine: metadata.engine })
    }

    async fn ask(&mut self, question: &Question) -> Result<Value, Failure> {
        if self.own.is_none() {
            match Asker::new(&self.data).ask(question).await {
                Ok(answer) => return Ok(answer),
                // Where somebody has it after all, opening it says so.
                Err(AskerError::Nobody(_) | AskerError::Away(_)) => self.own = Some(self.open()?),
                Err(error) => return Err(asker_failure(&error)),
            }
        }
        let Some(reader) = &self.own else { return Err(Failure::new(Exit::Failure, "no index")) };
        let status = || reader.status(self.engine);
        history::told(reader, status, question).map_err(|error| question_failure(&error))
    }

    fn open(&self) -> Result<Reader, Failure> {
        Reader::open(&history::place(&self.data), self.engine).map_err(|error| failure(&error))
    }
}
