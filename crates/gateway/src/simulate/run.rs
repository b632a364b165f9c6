//! Running a scenario, case by case, over one socket that is opened again when a case has ended it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use iso8583::payment::{Day, sent_at};
use iso8583::{Class, Content, Dialect, Draft, Function, Mti, Shown};
use surety_protocol::Time;
use tokio::time::Instant;

use super::line::{Line, LineError, Received, Secrets};
use super::report::{CaseReport, Report};
use super::scenario::{Case, Expect, Fields, Scenario, Send, Wanted, bytes_of};
use crate::mac::{MacError, Macs};
use crate::tls::{HostTlsConfig, TlsError};

/// Why a scenario was not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// Nobody answers at the address.
    #[error("cannot connect to {host}: {reason}")]
    Connect {
        /// Where.
        host: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The scenario's keys cannot be read.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// Nor the files of its TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Plays an acquirer towards a host, and reports.
///
/// # Errors
/// If the host cannot be reached at all, or the scenario's keys and certificates cannot be read. What a host does wrong is in the report.
pub async fn simulate(scenario: &Scenario, host: SocketAddr) -> Result<Report, SimulateError> {
    let secrets = Secrets {
        macs: scenario.mac.as_ref().map(Macs::open).transpose()?,
        tls: scenario.tls.as_ref().map(HostTlsConfig::connector).transpose()?,
    };
    let connect = |error: LineError| SimulateError::Connect { host, reason: error.to_string() };
    let mut acquirer = Acquirer {
        scenario,
        secrets: &secrets,
        line: Line::open(scenario, &secrets, host).await.map_err(connect)?,
        said: BTreeMap::new(),
        run: seconds(now()),
        // A run after this one has other numbers, also in the same second.
        traces: u32::try_from(now().0 / 10_000 % 1_000_000).unwrap_or(0),
    };
    let mut cases = Vec::new();
    for case in &scenario.cases {
        if matches!(case.expect, Expect::Held) {
            acquirer.hold(case);
            continue;
        }
        let (report, is_over) = acquirer.run(case).await;
        cases.push(report);
        if is_over {
            acquirer.line = Line::open(scenario, acquirer.secrets, host).await.map_err(connect)?;
        }
    }
    Ok(Report::of(host, scenario.name.clone(), cases))
}

/// A message that was said, and the reply that it got.
struct Said {
    mti: Mti,
    fields: Fields,
    reply: Option<Received>,
}

struct Acquirer<'a> {
    scenario: &'a Scenario,
    secrets: &'a Secrets,
    line: Line<'a>,
    said: BTreeMap<&'a str, Said>,
    /// Tells the references of one run from those of another.
    run: u64,
    traces: u32,
}

impl<'a> Acquirer<'a> {
    /// Runs one case. True beside it if the socket is of no more use.
    async fn run(&mut self, case: &'a Case) -> (CaseReport, bool) {
        let said = self.message(case);
        let sent = said.as_ref().map_or("bytes".into(), |said| said.mti.to_string());
        let mut report =
            CaseReport { name: case.name.clone(), sent, came: None, micros: None, failures: vec![] };
        let began = Instant::now();
        let came = self.exchange(case, said.as_ref()).await;
        report.micros = came.as_ref().ok().and_then(|_| u64::try_from(began.elapsed().as_micros()).ok());
        let is_over = matches!(came, Err(LineError::Closed | LineError::Socket(_) | LineError::Frame(_)));
        match (&case.expect, &came) {
            (Expect::Closed, Err(LineError::Closed)) => {}
            (Expect::Held, _) => {}
            (Expect::Closed, Ok(_)) => {
                report.failures.push("answered where the socket should be closed".into())
            }
            (_, Err(error)) => report.failures.push(error.to_string()),
            (Expect::Reply { mti, fields, same_as }, Ok(came)) => {
                let sent = said.as_ref().map(|said| &said.fields);
                report.failures = self.compare(came, *mti, fields, sent);
                let before = same_as.as_ref().and_then(|name| self.said.get(name.as_str())?.reply.as_ref());
                report
                    .failures
                    .extend(before.map(|before| self.differences(came, before)).unwrap_or_default());
            }
        }
        let reply = came.ok();
        report.came = reply.as_ref().map(|came| {
            let code = came.fields.get(&39).map_or(String::new(), |code| format!(" {code}"));
            format!("{}{code}", came.mti)
        });
        if let Some(said) = said {
            self.said.insert(&case.name, Said { reply, ..said });
        }
        (report, is_over)
    }

    /// Makes a message that is not sent yet: those that are about it come first.
    fn hold(&mut self, case: &'a Case) {
        if let Some(said) = self.message(case) {
            self.said.insert(&case.name, said);
        }
    }

    async fn exchange(&mut self, case: &Case, said: Option<&Said>) -> Result<Received, LineError> {
        let Some(said) = said else {
            let Send::Raw(bytes) = &case.send else { return Err(LineError::Silent) };
            self.line.send_raw(bytes).await?;
            return self.line.next(|_| true).await;
        };
        let mut draft = self.draft(said);
        self.line.send(&mut draft).await?;
        let trace = said.fields.get(&11);
        let class = said.mti.class as u8 + b'0';
        // Replies come in any order: their class and trace number tell what they answer.
        let is_meant =
            |came: &Received| came.mti.as_bytes().get(1) == Some(&class) && came.fields.get(&11) == trace;
        self.line.next(is_meant).await
    }

    fn draft(&self, said: &Said) -> Draft {
        let dialect = self.scenario.codec.dialect;
        let mut draft = Draft::new(dialect);
        draft.reset(said.mti);
        for (field, text) in &said.fields {
            let is_binary = dialect.field(*field).is_some_and(|spec| spec.content == Content::Bytes);
            match is_binary.then(|| bytes_of(text)).flatten() {
                Some(bytes) => draft.set(*field, &bytes),
                None => draft.set(*field, text.as_bytes()),
            }
        }
        draft
    }

    /// What a case says. None for bytes that need not be a message.
    fn message(&mut self, case: &Case) -> Option<Said> {
        match &case.send {
            Send::Raw(_) => None,
            Send::Repeat(of) => {
                let said = self.said.get(of.as_str())?;
                Some(Said { mti: said.mti.repeat(), fields: said.fields.clone(), reply: None })
            }
            Send::Message { mti, fields, about, numbers } => {
                let mut all = self.common(*mti);
                if let Some(other) = numbers.as_ref().and_then(|name| self.said.get(name.as_str())) {
                    let same = [7, 11, 37]
                        .into_iter()
                        .filter_map(|field| Some((field, other.fields.get(&field)?.clone())));
                    all.extend(same);
                }
                if let Some(about) = about.as_ref().and_then(|name| self.said.get(name.as_str())) {
                    self.name_original(*mti, about, &mut all);
                }
                all.extend(fields.clone());
                all.retain(|_, text| !text.is_empty());
                Some(Said { mti: *mti, fields: all, reply: None })
            }
        }
    }

    /// What a message of this type carries, with numbers of its own.
    fn common(&mut self, mti: Mti) -> Fields {
        self.traces = (self.traces + 1) % 1_000_000;
        let is_payment = !matches!(mti.class, Class::Network | Class::Reconciliation);
        let mut fields = if is_payment { self.scenario.fields.clone() } else { Fields::new() };
        let sent = String::from_utf8_lossy(&sent_at(now())).into_owned();
        if is_payment {
            // A day and a time, or both at once with the year.
            let (date, time) = sent.split_at(4);
            let [decade, year, ..] = Day::of(now()).digits().map(char::from);
            match self.scenario.codec.dialect {
                Dialect::V1987 => fields.extend([(12, time.to_owned()), (13, date.to_owned())]),
                Dialect::V1993 => fields.extend([(12, format!("{decade}{year}{sent}"))]),
            }
            fields.insert(37, format!("{:06}{:06}", self.run % 1_000_000, self.traces));
        }
        fields.extend([(7, sent), (11, format!("{:06}", self.traces))]);
        fields
    }

    /// Names the payment that a message is about: by its reference, the message by field 90, its approval by field 38.
    fn name_original(&self, mti: Mti, about: &Said, fields: &mut Fields) {
        let text = |field: u8| about.fields.get(&field).cloned().unwrap_or_default();
        fields.insert(37, text(37));
        let follows =
            mti.class == Class::Reversal || (mti.class, mti.function) == (Class::Financial, Function::Advice);
        if follows && self.scenario.codec.dialect == Dialect::V1987 {
            let (acquirer, forwarder) = (text(32), text(33));
            let original = format!("{}{}{}{acquirer:0>11}{forwarder:0>11}", about.mti, text(11), text(7));
            fields.insert(90, original);
        }
        let approval = about.reply.as_ref().and_then(|reply| reply.fields.get(&38));
        if let Some(approval) = approval.filter(|_| mti.function == Function::Advice) {
            fields.insert(38, approval.clone());
        }
    }

    /// What of a reply is not as the case has it.
    fn compare(
        &self,
        came: &Received,
        mti: Mti,
        wanted: &BTreeMap<u8, Vec<Wanted>>,
        sent: Option<&Fields>,
    ) -> Vec<String> {
        let mut failures = Vec::new();
        if came.mti != mti.to_string() {
            failures.push(format!("type {mti} expected, {} came", came.mti));
        }
        if !came.is_proved {
            failures.push("the reply's MAC is missing or wrong".into());
        }
        for (field, wanted) in wanted {
            let found = came.fields.get(field);
            let is_as = |wanted: &Wanted| match wanted {
                Wanted::Text(text) => found == Some(text),
                Wanted::Present => found.is_some(),
                Wanted::Absent => found.is_none(),
                Wanted::Sent => {
                    found.is_some() && self.is_same(*field, found, sent.and_then(|sent| sent.get(field)))
                }
            };
            if !wanted.iter().any(is_as) {
                failures.push(format!(
                    "field {field}: {} expected, {} came",
                    self.told(*field, wanted),
                    self.shown(*field, found)
                ));
            }
        }
        failures
    }

    /// Equal, or equal but for what fills a fixed field up.
    fn is_same(&self, field: u8, found: Option<&String>, sent: Option<&String>) -> bool {
        let is_number =
            self.scenario.codec.dialect.field(field).is_some_and(|spec| spec.content == Content::Digits);
        let bare = |text: &String| {
            let text = if is_number { text.trim_start_matches('0') } else { text.trim_end() };
            text.to_owned()
        };
        found.map(bare) == sent.map(bare)
    }

    fn differences(&self, came: &Received, before: &Received) -> Vec<String> {
        let fields: std::collections::BTreeSet<u8> =
            came.fields.keys().chain(before.fields.keys()).copied().collect();
        let differs = |field: &u8| came.fields.get(field) != before.fields.get(field);
        let shown = |field: u8| {
            let of = |reply: &Received| self.shown(field, reply.fields.get(&field));
            format!("field {field}: {} the first time, {} now", of(before), of(came))
        };
        fields.into_iter().filter(differs).map(shown).collect()
    }

    fn told(&self, field: u8, wanted: &[Wanted]) -> String {
        let one = |wanted: &Wanted| match wanted {
            Wanted::Text(text) => self.shown(field, Some(text)),
            Wanted::Present => "something".into(),
            Wanted::Absent => "nothing".into(),
            Wanted::Sent => "what was sent".into(),
        };
        wanted.iter().map(one).collect::<Vec<_>>().join(" or ")
    }

    /// A field as a report may show it.
    fn shown(&self, field: u8, text: Option<&String>) -> String {
        let is_plain =
            self.scenario.codec.dialect.field(field).is_some_and(|spec| spec.shown == Shown::Plain);
        match text {
            None => "nothing".into(),
            Some(text) if is_plain => format!("`{text}`"),
            Some(text) => format!("[{}]", text.len()),
        }
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

const fn seconds(moment: Time) -> u64 {
    moment.0 / 1_000_000_000
}
