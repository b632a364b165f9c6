//! JSON-RPC over HTTP, one question at a time: what every kind of node is asked with.

use core::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The most bytes of an answer, unless another limit is set. A full block of a busy chain has a few million.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How much of a stranger's words is kept.
const WORDS_MAX: usize = 300;

/// A node that answers JSON-RPC at an `http` or `https` address.
///
/// It asks the node itself: no proxy of the environment, no redirection. A question without an answer in time fails; it is
/// never repeated here, since only the caller knows whether that is safe. Address and password, which are often the key to a
/// paid service, are in no error and in no debug output.
pub struct JsonRpc {
    agent: ureq::Agent,
    url: String,
    login: Option<String>,
    answer_bytes_max: u64,
    asked: AtomicU64,
}

/// A question without a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The node was not reached, or not in time, or somebody in front of it answered.
    #[error("the node does not answer: {0}")]
    Unreachable(String),
    /// The answer is none to the question.
    #[error("the node's answer makes no sense: {0}")]
    Nonsense(String),
    /// The node says no.
    #[error("the node refuses: {0}")]
    Refused(Refusal),
}

/// How a node says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The node's number for it; nodes do not agree on these.
    pub code: i64,
    /// Its words.
    pub message: String,
    /// What it adds, for a reverted call above all.
    pub data: Value,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

/// An answer as it comes; the result stays text, since nobody but its reader knows how its numbers are to be read.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(default)]
    id: Value,
    /// An explicit `null` is a result.
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Value,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl JsonRpc {
    /// A node at an `http` or `https` address; a question that is not answered whole within `timeout` fails.
    #[must_use]
    pub fn new(url: &str, timeout: Duration) -> Self {
        let configuration = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .build();
        Self {
            agent: configuration.into(),
            url: url.to_owned(),
            login: None,
            answer_bytes_max: ANSWER_BYTES_MAX,
            asked: AtomicU64::new(0),
        }
    }

    /// The same, with the value of an `Authorization` header.
    #[must_use]
    pub fn with_authorization(mut self, value: &str) -> Self {
        self.login = Some(value.to_owned());
        self
    }

    /// The same, with a name and a password, as `name:password`.
    #[must_use]
    pub fn with_login(self, login: &str) -> Self {
        self.with_authorization(&format!("Basic {}", BASE64_STANDARD.encode(login)))
    }

    /// The same, with another limit on the bytes of an answer.
    #[must_use]
    pub const fn with_answer_limit(mut self, bytes: u64) -> Self {
        self.answer_bytes_max = bytes;
        self
    }

    /// Asks, and reads the result.
    ///
    /// # Errors
    ///
    /// [`RpcError`]; no result at all is [`RpcError::Nonsense`], `null` is a result.
    pub fn ask(&self, method: &str, parameters: &Value) -> Result<Value, RpcError> {
        let text = self.ask_raw(method, parameters)?;
        serde_json::from_str(&text).map_err(|_| nonsense("the result is no JSON"))
    }

    /// Asks, and returns the result as text, for those who cannot have its numbers rounded.
    ///
    /// # Errors
    ///
    /// As [`JsonRpc::ask`].
    pub fn ask_raw(&self, method: &str, parameters: &Value) -> Result<String, RpcError> {
        let id = self.asked.fetch_add(1, Ordering::Relaxed);
        let question = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": parameters });
        let (status, body) = self.exchange(&question.to_string())?;
        let Ok(answer) = serde_json::from_str::<Answer<'_>>(&body) else {
            // A gateway in front of a node answers in its own words when it is overloaded.
            return Err(RpcError::Unreachable(format!("HTTP status {status} and no JSON-RPC")));
        };
        // Some nodes cannot tell the question of a request that they did not accept at all.
        if answer.id != json!(id) && (answer.error.is_null() || !answer.id.is_null()) {
            return Err(nonsense("an answer to another question"));
        }
        if !answer.error.is_null() {
            return Err(RpcError::Refused(refusal(&answer.error)));
        }
        if !(200..300).contains(&status) {
            return Err(RpcError::Unreachable(format!("HTTP status {status}")));
        }
        answer
            .result
            .map(|result| result.get().to_owned())
            .ok_or_else(|| nonsense("neither result nor error"))
    }

    fn exchange(&self, question: &str) -> Result<(u16, String), RpcError> {
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(login) = &self.login {
            request = request.header("authorization", login);
        }
        let mut response = request.send(question).map_err(|error| unreachable(&error))?;
        let body = response.body_mut().with_config().limit(self.answer_bytes_max).read_to_string();
        let body = body.map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(limit) => {
                RpcError::Nonsense(format!("an answer of more than {limit} bytes"))
            }
            other => unreachable(&other),
        })?;
        Ok((response.status().as_u16(), body))
    }
}

impl fmt::Debug for JsonRpc {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JsonRpc").field("asked", &self.asked).finish_non_exhaustive()
    }
}

fn nonsense(what: &str) -> RpcError {
    RpcError::Nonsense(what.to_owned())
}

/// Says what failed without the address.
fn unreachable(error: &ureq::Error) -> RpcError {
    RpcError::Unreachable(match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "its address is no http or https address".to_owned(),
        other => shortened(&other.to_string()),
    })
}

fn refusal(error: &Value) -> Refusal {
    let message = error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned);
    Refusal {
        code: error["code"].as_i64().unwrap_or_default(),
        message: shortened(&message),
        data: error["data"].clone(),
    }
}

fn shortened(words: &str) -> String {
    words.chars().take(WORDS_MAX).collect()
}
