//! What a simulated acquirer says, and what it expects: a scenario out of a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use iso8583::{Codec, FIELDS_MAX, LengthHeader, Mti};
use serde::Deserialize;

use crate::mac::MacConfig;
use crate::settings::{Edition, Header, MacSettings, ProfileName, SettingsError};
use crate::tls::HostTlsConfig;

/// The scenarios that come with this crate, by name.
const BUILT_IN: [(&str, &str); 2] = [
    ("1987", include_str!("../../scenarios/1987.toml")),
    ("1993", include_str!("../../scenarios/1993.toml")),
];

/// Cases in their order, and how they are sent.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// For the report.
    pub name: String,
    /// How messages are cut off the stream.
    pub header: LengthHeader,
    /// How they are encoded.
    pub codec: Codec,
    /// How they are signed, if they are.
    pub mac: Option<MacConfig>,
    /// How the socket is kept, if it is.
    pub tls: Option<HostTlsConfig>,
    /// How long a reply may take, in milliseconds.
    pub answer_ms: u64,
    /// What every payment carries unless its case says otherwise.
    pub fields: Fields,
    /// What is tried.
    pub cases: Vec<Case>,
}

/// Fields by number, as text; bytes of binary fields in hexadecimal.
pub type Fields = BTreeMap<u8, String>;

/// One message, and what is expected of the host.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is tried.
    pub name: String,
    /// What is sent.
    pub send: Send,
    /// What is to come back.
    pub expect: Expect,
}

/// What is sent.
#[derive(Clone, Debug)]
pub enum Send {
    /// A message of its own.
    Message {
        /// Its type.
        mti: Mti,
        /// Fields beside or instead of those of all; an empty one is left out.
        fields: Fields,
        /// Another case, whose payment it is about.
        about: Option<String>,
        /// Another case, whose numbers (fields 7, 11 and 37) it has.
        numbers: Option<String>,
    },
    /// The message of another case, marked as a repeat.
    Repeat(String),
    /// Bytes that need not be a message.
    Raw(Vec<u8>),
}

/// What is to come back.
#[derive(Clone, Debug)]
pub enum Expect {
    /// A reply.
    Reply {
        /// Its type.
        mti: Mti,
        /// Its fields; of several texts one.
        fields: BTreeMap<u8, Vec<Wanted>>,
        /// A case whose reply it has to be again.
        same_as: Option<String>,
    },
    /// Nothing, and the socket is closed.
    Closed,
    /// It is not sent, so that what is about it comes first. A repeat sends it.
    Held,
}

/// What a field of a reply has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This text.
    Text(String),
    /// Anything: `*`.
    Present,
    /// Not there: an empty text.
    Absent,
    /// What was sent: `=`.
    Sent,
}

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is neither built in nor a file that can be read.
    #[error("no scenario {name}: not one of 1987, 1993, and not a file that can be read ({error})")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Why the file was not read.
        error: std::io::Error,
    },
    /// The file is no scenario.
    #[error("scenario {name}: {reason}")]
    Text {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
}

impl Scenario {
    /// A scenario that is built in, or out of a file.
    ///
    /// # Errors
    /// See [`ScenarioError`].
    pub fn load(name: &str) -> Result<Self, ScenarioError> {
        let beside = Path::new(name);
        let reason = |reason| ScenarioError::Text { name: name.into(), reason };
        match Self::built_in(name) {
            Some(text) => Self::read(text, beside).map_err(reason),
            None => {
                let text = std::fs::read_to_string(beside);
                let text = text.map_err(|error| ScenarioError::Unknown { name: name.into(), error })?;
                Self::read(&text, beside).map_err(reason)
            }
        }
    }

    /// The text of a built-in scenario, to be changed.
    #[must_use]
    pub fn built_in(name: &str) -> Option<&'static str> {
        BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    fn read(text: &str, beside: &Path) -> Result<Self, String> {
        let text: Text = toml::from_str(text).map_err(|error| error.to_string())?;
        let mac = text.mac.map(|mac| mac.into_config(beside)).transpose();
        let codec = Codec { dialect: text.edition.into(), profile: text.profile.into() };
        let scenario = Self {
            name: text.name,
            header: text.header.into(),
            codec,
            mac: mac.map_err(|error: SettingsError| error.to_string())?,
            tls: text.tls.map(|tls| tls.into_config(beside)).transpose()?,
            answer_ms: text.answer_ms,
            fields: fields(text.fields)?,
            cases: text.case.into_iter().map(CaseText::into_case).collect::<Result<_, _>>()?,
        };
        scenario.check().map(|()| scenario)
    }

    /// Cases are about cases before them, and have names of their own.
    fn check(&self) -> Result<(), String> {
        for (at, case) in self.cases.iter().enumerate() {
            let before = &self.cases[..at];
            if before.iter().any(|other| other.name == case.name) {
                return Err(format!("two cases `{}`", case.name));
            }
            let (about, numbers) = match &case.send {
                Send::Message { about, numbers, .. } => (about.as_ref(), numbers.as_ref()),
                Send::Repeat(of) => (Some(of), None),
                Send::Raw(_) => (None, None),
            };
            let same_as = match &case.expect {
                Expect::Reply { same_as, .. } => same_as.as_ref(),
                Expect::Closed | Expect::Held => None,
            };
            let is_held = |other: &&Case| matches!(other.expect, Expect::Held | Expect::Closed);
            let of = same_as.and_then(|name| before.iter().find(|other| other.name == *name));
            if let Some(of) = of.filter(is_held) {
                return Err(format!("`{}` is to be as `{}`, which has no reply", case.name, of.name));
            }
            let is_missing = |name: &&String| !before.iter().any(|other| other.name == **name);
            if let Some(missing) = about.into_iter().chain(numbers).chain(same_as).find(is_missing) {
                return Err(format!("`{}` is about `{missing}`, which is no case before it", case.name));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    header: Header,
    edition: Edition,
    profile: ProfileName,
    mac: Option<MacSettings>,
    tls: Option<TlsText>,
    #[serde(default = "ten_seconds")]
    answer_ms: u64,
    fields: BTreeMap<String, String>,
    case: Vec<CaseText>,
}

/// Files beside the scenario.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsText {
    ca: PathBuf,
    name: String,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl TlsText {
    fn into_config(self, beside: &Path) -> Result<HostTlsConfig, String> {
        let beside = |path: PathBuf| beside.with_file_name(path);
        let identity = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((beside(certificate), beside(key))),
            (None, None) => None,
            _ => return Err("`certificate` and `key` of [tls] go together".into()),
        };
        Ok(HostTlsConfig { ca: beside(self.ca), name: self.name, identity })
    }
}

const fn ten_seconds() -> u64 {
    10_000
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseText {
    name: String,
    send: Option<String>,
    repeat: Option<String>,
    raw: Option<String>,
    about: Option<String>,
    numbers: Option<String>,
    #[serde(default)]
    hold: bool,
    #[serde(default)]
    fields: BTreeMap<String, String>,
    reply: Option<String>,
    #[serde(default)]
    expect: BTreeMap<String, OneOrMore>,
    same_as: Option<String>,
    #[serde(default)]
    closed: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl CaseText {
    fn into_case(self) -> Result<Case, String> {
        let wrong = |what: &str| format!("case `{}`: {what}", self.name);
        let send = match (&self.send, &self.repeat, &self.raw) {
            (Some(mti), None, None) => Send::Message {
                mti: type_of(mti).ok_or_else(|| wrong("`send` is no type"))?,
                fields: fields(self.fields.clone())?,
                about: self.about.clone(),
                numbers: self.numbers.clone(),
            },
            (None, Some(of), None) => Send::Repeat(of.clone()),
            (None, None, Some(hex)) => Send::Raw(bytes_of(hex).ok_or_else(|| wrong("`raw` is no hex"))?),
            _ => return Err(wrong("one of `send`, `repeat` and `raw`")),
        };
        let expect = match (&self.reply, self.closed, self.hold) {
            (Some(mti), false, false) => Expect::Reply {
                mti: type_of(mti).ok_or_else(|| wrong("`reply` is no type"))?,
                fields: self.expect.into_iter().map(wanted).collect::<Result<_, _>>()?,
                same_as: self.same_as,
            },
            (None, true, false) => Expect::Closed,
            (None, false, true) => Expect::Held,
            _ => return Err(wrong("one of `reply`, `closed` and `hold`")),
        };
        Ok(Case { name: self.name, send, expect })
    }
}

fn wanted((field, texts): (String, OneOrMore)) -> Result<(u8, Vec<Wanted>), String> {
    let texts = match texts {
        OneOrMore::One(text) => vec![text],
        OneOrMore::More(texts) => texts,
    };
    let wanted = |text: String| match text.as_str() {
        "*" => Wanted::Present,
        "" => Wanted::Absent,
        "=" => Wanted::Sent,
        _ => Wanted::Text(text),
    };
    Ok((number(&field)?, texts.into_iter().map(wanted).collect()))
}

fn fields(of: BTreeMap<String, String>) -> Result<Fields, String> {
    of.into_iter().map(|(field, text)| Ok((number(&field)?, text))).collect()
}

fn number(field: &str) -> Result<u8, String> {
    let number = field.parse().ok().filter(|number| (2..=FIELDS_MAX).contains(number));
    number.ok_or_else(|| format!("`{field}` is no field"))
}

fn type_of(text: &str) -> Option<Mti> {
    Mti::from_digits(text.as_bytes().try_into().ok()?)
}

/// Bytes out of hexadecimal digits.
pub(super) fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    if !hex.is_ascii() || !hex.len().is_multiple_of(2) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    #[test]
    fn those_that_come_along_are_scenarios() {
        for (name, _) in BUILT_IN {
            let scenario = Scenario::load(name).unwrap();
            assert!(scenario.cases.len() > 20, "{name}");
        }
        assert!(matches!(Scenario::load("1986"), Err(ScenarioError::Unknown { .. })));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let head = "name = 'x'\nheader = 'binary2'\nedition = '1987'\nprofile = 'ascii'\nfields = {}\n";
        let check = |text: &str, expect: &str| {
            let error = Scenario::read(&format!("{head}{text}"), Path::new("x")).unwrap_err();
            assert!(error.contains(expect), "{error}");
        };
        let case = |rest: &str| format!("[[case]]\nname = 'a'\n{rest}\n");
        check(
            &format!(
                "{}[tls]\nca = 'ca.pem'\nname = 'x'\nkey = 'a.key'\n",
                case("send = '0100'\nhold = true")
            ),
            "go together",
        );
        check(&case("send = '0100'"), "one of `reply`");
        check(&case("send = '0100'\nreply = '0110'\nclosed = true"), "one of `reply`");
        check(&case("send = '9100'\nreply = '0110'"), "`send` is no type");
        check(&case("reply = '0110'"), "one of `send`");
        check(&case("raw = '0'\nclosed = true"), "no hex");
        check(&case("send = '0100'\nreply = '0110'\nfields = { 1 = 'x' }"), "`1` is no field");
        check(&case("send = '0100'\nreply = '0110'\nabout = 'b'"), "no case before it");
        check(&case("repeat = 'a'\nreply = '0110'"), "no case before it");
        check(&case("send = '0100'\nreply = '0110'").repeat(2), "two cases `a`");
        for silent in ["hold = true", "closed = true"] {
            let same = "[[case]]\nname = 'b'\nrepeat = 'a'\nreply = '0110'\nsame_as = 'a'\n";
            check(&(case(&format!("send = '0100'\n{silent}")) + same), "which has no reply");
        }
        check("[[case]]\nnam = 'a'", "unknown field");
    }
}
