//! Questions of the command line: asked of the process that keeps the index, or of the index itself where nobody does.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use history::{
    Ask, Asker, AskerError, ByName, Conditions, Nothing, OfLock, OfMoment, OfPeriod, OrderName, Question,
    Reader, Status,
};
use serde_json::{Value, json};
use storage::DataDirectory;
use surety_protocol::{Address, Amount, Code, End, EngineId, Id, Kind, PartitionHandle, Time};

use super::{exit_of, failure, question_failure};
use crate::exit::{Exit, Failure};
use crate::values::{self, moment_text};
use crate::{directory, remote};

/// Lines of a statement that are asked for at a time.
const STATEMENT_LINES: usize = 500;

/// A page of records or locks.
#[derive(Debug, ClapArgs)]
pub(super) struct Page {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
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
    /// One JSON object a line
    #[arg(long)]
    pub(super) json: bool,
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
    /// In this partition: shard:number
    #[arg(long, value_parser = values::partition, value_name = "PARTITION")]
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
    /// From this moment on
    #[arg(long, value_parser = values::moment, value_name = "MOMENT")]
    from: Option<Time>,
    /// Until before this moment
    #[arg(long, value_parser = values::moment, value_name = "MOMENT")]
    until: Option<Time>,
}

/// A lock.
#[derive(Debug, ClapArgs)]
pub(super) struct OneLock {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
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
    /// One JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

/// Whose money, and when.
#[derive(Debug, ClapArgs)]
pub(super) struct Moment {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Of which partition: shard:number
    #[arg(value_parser = values::partition)]
    partition: PartitionHandle,
    /// Only what this supplier has in it
    #[arg(long, value_parser = values::address, value_name = "ADDRESS")]
    supplier: Option<Address>,
    /// As of when, before what is indexed in full; without it after the last record that is indexed
    #[arg(long, value_parser = values::moment, value_name = "MOMENT")]
    at: Option<Time>,
    /// End with one JSON object on its own line
    #[arg(long)]
    pub(super) json: bool,
}

/// Whose money, and of which period.
#[derive(Debug, ClapArgs)]
pub(super) struct Period {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Of which partition: shard:number
    #[arg(value_parser = values::partition, required_unless_present = "merchant", conflicts_with = "merchant")]
    partition: Option<PartitionHandle>,
    /// Only what this supplier has in it
    #[arg(long, value_parser = values::address, value_name = "ADDRESS", requires = "partition")]
    supplier: Option<Address>,
    /// Of a merchant instead
    #[arg(long, value_name = "N", requires = "tenant")]
    merchant: Option<u64>,
    /// Whose merchant
    #[arg(long, value_name = "N", requires = "merchant")]
    tenant: Option<u32>,
    /// From this moment on; without it from the beginning
    #[arg(long, value_parser = values::moment, value_name = "MOMENT")]
    from: Option<Time>,
    /// Until before this moment; without it to where the index is complete
    #[arg(long, value_parser = values::moment, value_name = "MOMENT")]
    until: Option<Time>,
    /// One JSON object a line instead
    #[arg(long)]
    pub(super) json: bool,
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn moment(at: Option<Time>) -> Option<String> {
    // Time zero has no text, and means the beginning as well as no moment does.
    at.filter(|at| *at > Time::ZERO).map(moment_text)
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

pub(super) fn records(page: &Page) -> Result<(), Failure> {
    let mut index = Index::find(&page.data, page.of)?;
    let answer = index.ask(Ask::Records(page.conditions()))?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    print_rows(page.json, &answer, &mut out)?;
    end_page(page.json, &answer, &mut out)
}

pub(super) fn locks(page: &Page) -> Result<(), Failure> {
    print_locks(page, Ask::Locks(page.conditions()))
}

pub(super) fn open(page: &Page, by_deadline: bool) -> Result<(), Failure> {
    let by = if by_deadline { ByName::Deadline } else { ByName::Age };
    print_locks(page, Ask::OpenLocks(Conditions { order: None, by: Some(by), ..page.conditions() }))
}

fn print_locks(page: &Page, ask: Ask) -> Result<(), Failure> {
    let answer = Index::find(&page.data, page.of)?.ask(ask)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for lock in list(&answer["rows"]) {
        print_lock(page.json, lock, &mut out)?;
    }
    end_page(page.json, &answer, &mut out)
}

pub(super) fn lock(one: &OneLock) -> Result<(), Failure> {
    let ask = Ask::Lock(OfLock {
        id: one.id.to_string(),
        partition: one.partition.map(|partition| partition.to_string()),
        limit: Some(one.limit),
        cursor: one.cursor.clone(),
    });
    let answer = Index::find(&one.data, one.of)?.ask(ask)?;
    if list(&answer["locks"]).is_empty() && list(&answer["rows"]).is_empty() && one.cursor.is_none() {
        return Err(Failure::new(Exit::Failure, format!("no lock {} in the history", one.id)));
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    for lock in list(&answer["locks"]) {
        print_lock(one.json, lock, &mut out)?;
    }
    if answer["locks_cut"] == json!(true) {
        tracing::warn!("more locks have this id: name the partition");
    }
    print_rows(one.json, &answer, &mut out)?;
    end_page(one.json, &answer, &mut out)
}

pub(super) fn balances(moment: &Moment) -> Result<(), Failure> {
    let of = OfMoment {
        partition: moment.partition.to_string(),
        supplier: moment.supplier.map(|supplier| supplier.to_string()),
        at: self::moment(moment.at),
    };
    let answer = Index::find(&moment.data, None)?.ask(Ask::Balances(of.clone()))?;
    if answer["balances"].is_null() {
        let supplier = of.supplier.map_or_else(String::new, |supplier| format!("supplier {supplier} in "));
        let whose = format!("{supplier}partition {}", of.partition);
        let when = of.at.unwrap_or_else(|| "at all".to_owned());
        return Err(Failure::new(Exit::Failure, format!("{whose} is not there: {when}")));
    }
    let mut out = std::io::stdout();
    if moment.json {
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

pub(super) fn statement(period: &Period) -> Result<(), Failure> {
    let mut index = Index::find(&period.data, None)?;
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
    let mut printer = Printer::new(period.json);
    loop {
        let page = index.ask(Ask::Statement(of.clone()))?;
        printer.print(&page, &mut out)?;
        // A period that ends with what is complete ends there on every page.
        of.until = page["until"].as_str().map(str::to_owned).or(of.until);
        of.cursor = page["cursor"].as_str().map(str::to_owned);
        if page["has_more"] != json!(true) {
            break;
        }
    }
    Ok(out.flush()?)
}

/// Prints a statement, page by page: as CSV or as JSON lines.
struct Printer {
    json: bool,
    /// What the amounts are called, in order; as the first page has them.
    names: Vec<String>,
    lines: u64,
}

impl Printer {
    fn new(json: bool) -> Self {
        Self { json, names: Vec::new(), lines: 0 }
    }

    fn print(&mut self, page: &Value, out: &mut impl Write) -> Result<(), Failure> {
        if self.names.is_empty() {
            self.names = list(&page["names"]).iter().map(text).collect();
            self.open(page, out)?;
        }
        for line in list(&page["lines"]) {
            self.lines += 1;
            if self.json {
                writeln!(out, "{line}")?;
            } else {
                let [time, shard, seq, kind, lock] =
                    ["time", "shard", "seq", "kind", "lock"].map(|name| text(&line[name]));
                let (changes, after) = (self.amounts(&line["changes"]), self.amounts(&line["after"]));
                writeln!(out, "record,{time},{shard},{seq},{kind},{lock},{changes},{after}")?;
            }
        }
        if page["has_more"] != json!(true) {
            self.close(page, out)?;
        }
        Ok(())
    }

    fn open(&self, page: &Value, out: &mut impl Write) -> Result<(), Failure> {
        if self.json {
            let mut value = page.clone();
            for name in ["lines", "cursor", "has_more", "closing"] {
                value.as_object_mut().map(|fields| fields.remove(name));
            }
            return Ok(writeln!(out, "{value}")?);
        }
        let changed: Vec<String> = self.names.iter().map(|name| format!("{name}_change")).collect();
        writeln!(out, "line,time,shard,seq,kind,lock,{},{}", changed.join(","), self.names.join(","))?;
        Ok(writeln!(out, "opening,,,,,,{}{}", self.commas(), self.amounts(&page["opening"]))?)
    }

    fn close(&self, page: &Value, out: &mut impl Write) -> Result<(), Failure> {
        if self.json {
            let value = json!({ "ok": true, "lines": self.lines, "closing": page["closing"] });
            return Ok(writeln!(out, "{value}")?);
        }
        Ok(writeln!(out, "closing,,,,,,{}{}", self.commas(), self.amounts(&page["closing"]))?)
    }

    fn amounts(&self, value: &Value) -> String {
        self.names.iter().map(|name| text(&value[name])).collect::<Vec<_>>().join(",")
    }

    fn commas(&self) -> String {
        ",".repeat(self.names.len())
    }
}

pub(super) fn status(data: &Path, json: bool) -> Result<(), Failure> {
    let mut value = Index::find(data, None)?.ask(Ask::Status(Nothing {}))?;
    let mut out = std::io::stdout();
    if json {
        value["ok"] = json!(true);
        writeln!(out, "{value}")?;
        return Ok(());
    }
    let status: Status = serde_json::from_value(value).map_err(std::io::Error::from)?;
    let Status { state, complete_before, lag_records, lag_ms, bytes, shards, .. } = status;
    writeln!(out, "{}: complete before {}, {bytes} bytes", state.name(), moment_text(complete_before))?;
    writeln!(out, "behind by {lag_records} records, {}.{:03} s", lag_ms / 1000, lag_ms % 1000)?;
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

/// The index of a directory: that of the process that keeps it, or the one on the disk.
struct Index {
    data: PathBuf,
    of: Option<u32>,
    /// Nobody keeps it.
    own: Option<Reader>,
    engine: EngineId,
}

impl Index {
    fn find(data: &Path, of: Option<u32>) -> Result<Self, Failure> {
        let metadata = DataDirectory::inspect(data).map_err(|error| directory::open_failure(&error))?;
        Ok(Self { data: data.to_owned(), of, own: None, engine: metadata.engine })
    }

    fn ask(&mut self, ask: Ask) -> Result<Value, Failure> {
        let question = Question { of: self.of, ask };
        if self.own.is_none() {
            match remote::runtime()?.block_on(Asker::new(&self.data).ask(&question)) {
                Ok(answer) => return Ok(answer),
                Err(AskerError::Nobody(_)) => self.own = Some(self.open()?),
                Err(AskerError::Refused { code, message }) => {
                    return Err(Failure::new(exit_of(&code), message));
                }
                Err(error) => return Err(Failure::new(Exit::Unreachable, error)),
            }
        }
        let Some(reader) = &self.own else { return Err(Failure::new(Exit::Failure, "no index")) };
        let status = || reader.status(self.engine);
        history::told(reader, status, &question).map_err(|error| question_failure(&error))
    }

    fn open(&self) -> Result<Reader, Failure> {
        Reader::open(&history::place(&self.data), self.engine).map_err(|error| failure(&error))
    }
}
