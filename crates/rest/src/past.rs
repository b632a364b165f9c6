//! What has happened: the parameters of a request as a question to the engine's history, and its answer as a reply. On whose behalf it is
//! asked, the certificate of the tenant's client says, to the engine.

use std::fmt::Write;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use surety_client::QueryError;
use surety_client::protocol::QueryRefusal;
use tokio::time::timeout_at;

use crate::guard::Visit;
use crate::problem::Problem;

/// Parameters behind the path as they came, each as often as it did.
pub(crate) type Words = Vec<(String, String)>;

/// How a parameter is written, and how a question has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Once, as a text.
    Text,
    /// Once, as a number.
    Number,
    /// As often as one likes, as texts.
    Texts,
    /// As often as one likes, as numbers.
    Numbers,
}

/// The parameters of an endpoint, by their names in questions.
pub(crate) type Forms = &'static [(&'static str, Form)];

/// Reads parameters into the fields of a question.
pub(crate) fn fields(words: &Words, forms: Forms) -> Result<Map<String, Value>, Box<Problem>> {
    let mut fields = Map::new();
    for (name, text) in words {
        let form = forms.iter().find(|(known, _)| known == name);
        let (_, form) = form.ok_or_else(|| {
            let known: Vec<&str> = forms.iter().map(|(known, _)| *known).collect();
            if known.is_empty() {
                return Problem::parameter(name.clone(), "There are no parameters here.");
            }
            Problem::parameter(
                name.clone(),
                format!("There is no such parameter; there are {}.", known.join(", ")),
            )
        })?;
        let number = || {
            let read = text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
            read.map(Value::from).ok_or_else(|| Problem::parameter(name.clone(), "Write a whole number."))
        };
        let value = match form {
            Form::Text | Form::Texts => Value::from(text.as_str()),
            Form::Number | Form::Numbers => number()?,
        };
        match (form, fields.get_mut(name)) {
            (Form::Text | Form::Number, None) => _ = fields.insert(name.clone(), value),
            (Form::Texts | Form::Numbers, None) => _ = fields.insert(name.clone(), Value::from(vec![value])),
            (Form::Texts | Form::Numbers, Some(Value::Array(values))) => values.push(value),
            _ => return Err(Problem::parameter(name.clone(), "Give it once.")),
        }
    }
    Ok(fields)
}

/// The history's answer, unread but for what stands around it.
#[derive(Debug)]
pub(crate) struct Told(Box<RawValue>);

/// The document in which a history answers.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ok(Box<RawValue>),
    Error {
        code: String,
        message: String,
        /// Of `not_complete`: whether that comes by itself. An older history does not say.
        #[serde(default)]
        retryable: Option<bool>,
    },
}

/// Asks the engine's history.
pub(crate) async fn ask(visit: &Visit, ask: Value) -> Result<Told, Box<Problem>> {
    let question = json!({ "ask": ask }).to_string();
    let asked = timeout_at(visit.deadline, visit.desk.client().query(question.as_bytes())).await;
    let document = match asked {
        Ok(Ok(document)) => document,
        Ok(Err(error)) => return Err(not_asked(error)),
        Err(_) => return Err(Problem::unavailable("The history has not answered in time.")),
    };
    match serde_json::from_slice(&document) {
        Ok(Answer::Ok(told)) => Ok(Told(told)),
        Ok(Answer::Error { code, message, retryable }) => Err(not_answered(&code, message, retryable)),
        Err(error) => {
            tracing::error!(%error, "the history's answer cannot be read");
            Err(Problem::unavailable("The history's answer cannot be read."))
        }
    }
}

/// Why the engine has not asked its history.
fn not_asked(error: QueryError) -> Box<Problem> {
    let (why, message) = match error {
        QueryError::Refused { why, message } => (why, message),
        QueryError::OldEngine(_) => (QueryRefusal::NoHistory, error.to_string()),
        QueryError::TooLong { .. } => (QueryRefusal::TooLong, error.to_string()),
        QueryError::Open(_) | QueryError::Closed(_) | QueryError::Slow => {
            tracing::debug!(%error, "the history cannot be asked");
            return Problem::unavailable("The engine cannot be asked now.");
        }
    };
    match why {
        QueryRefusal::NoHistory => Problem::new(StatusCode::NOT_FOUND, "NO_HISTORY", message),
        QueryRefusal::Away => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message).retryable(1)
        }
        QueryRefusal::Busy => Problem::new(StatusCode::TOO_MANY_REQUESTS, "BUSY", message).retryable(1),
        QueryRefusal::Forbidden => Problem::new(StatusCode::FORBIDDEN, "FORBIDDEN", message),
        QueryRefusal::Malformed | QueryRefusal::TooLong => Problem::parameter("query", message),
    }
}

/// Why the history has not answered.
fn not_answered(code: &str, message: String, comes: Option<bool>) -> Box<Problem> {
    match code {
        "malformed" => Problem::parameter("query", message),
        "forbidden" => Problem::new(StatusCode::FORBIDDEN, "FORBIDDEN", message),
        "not_complete" => {
            let problem = Problem::new(StatusCode::CONFLICT, "NOT_COMPLETE", message);
            if comes == Some(false) { problem } else { problem.retryable(1) }
        }
        "too_long" => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "TOO_LONG", message),
        "unknown_partition" => Problem::new(StatusCode::NOT_FOUND, "UNKNOWN_PARTITION", message),
        "busy" => Problem::new(StatusCode::TOO_MANY_REQUESTS, "BUSY", message).retryable(1),
        "damaged" => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "DAMAGED", message),
        _ => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message).retryable(1),
    }
}

/// What of an answer says where it goes on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ends {
    cursor: Option<String>,
    has_more: bool,
    /// Of a statement.
    until: Option<String>,
}

impl Told {
    /// Looks into it.
    pub(crate) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Box<Problem>> {
        serde_json::from_str(self.0.get()).map_err(|error| {
            tracing::error!(%error, "the history's answer cannot be read");
            Problem::unavailable("The history's answer cannot be read.")
        })
    }

    /// The reply, as it is.
    pub(crate) fn into_reply(self, link: Option<HeaderValue>) -> Response {
        let body = Box::<str>::from(self.0).into_string();
        linked("application/json", body, link)
    }

    /// The reply as lines of a statement.
    pub(crate) fn into_csv(self, link: Option<HeaderValue>) -> Result<Response, Box<Problem>> {
        let lines = texts::statement::csv(&self.read::<Value>()?);
        Ok(linked("text/csv", lines, link))
    }

    /// `Link: <...>; rel="next"`: the same request for what comes behind this page; none behind the last one.
    pub(crate) fn next(&self, path: &str, words: &Words) -> Result<Option<HeaderValue>, Box<Problem>> {
        let Ends { cursor: Some(cursor), has_more: true, until } = self.read::<Ends>()? else {
            return Ok(None);
        };
        // A period without an end has got one, and ends there on every page.
        let mut next: Vec<(&str, &str)> = words
            .iter()
            .filter(|(name, _)| name != "cursor" && (name != "until" || until.is_none()))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        next.extend(until.as_deref().map(|until| ("until", until)));
        next.push(("cursor", &cursor));
        let pairs: Vec<String> =
            next.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let link = format!("<{path}?{}>; rel=\"next\"", pairs.join("&"));
        HeaderValue::from_str(&link)
            .map(Some)
            .map_err(|_| Problem::unavailable("The next page has no address."))
    }
}

fn linked(kind: &'static str, body: String, link: Option<HeaderValue>) -> Response {
    let mut reply = ([(header::CONTENT_TYPE, kind)], body).into_response();
    if let Some(link) = link {
        reply.headers_mut().insert(header::LINK, link);
    }
    reply
}

/// A text as it stands in an address.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;

    const FORMS: Forms = &[
        ("merchant", Form::Numbers),
        ("state", Form::Texts),
        ("limit", Form::Number),
        ("cursor", Form::Text),
    ];

    fn words(pairs: &[(&str, &str)]) -> Words {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn parameters_become_fields_of_a_question() {
        let pairs =
            [("merchant", "7"), ("state", "live"), ("merchant", "8"), ("limit", "20"), ("cursor", "AQ")];
        let expected = json!({"merchant": [7, 8], "state": ["live"], "limit": 20, "cursor": "AQ"});
        assert_eq!(Value::from(fields(&words(&pairs), FORMS).unwrap()), expected);
        assert_eq!(Value::from(fields(&words(&[]), FORMS).unwrap()), json!({}));
        for (bad, param) in [
            (&[("tenant", "2")][..], "tenant"),
            (&[("limit", "1"), ("limit", "2")], "limit"),
            (&[("limit", "+1")], "limit"),
            (&[("limit", "")], "limit"),
            (&[("merchant", "x")], "merchant"),
            (&[("merchant", "18446744073709551616")], "merchant"),
        ] {
            let problem = fields(&words(bad), FORMS).unwrap_err();
            assert_eq!((problem.status, problem.param.as_deref()), (400, Some(param)), "{bad:?}");
        }
    }

    #[test]
    fn the_next_page_is_the_same_request_behind_this_one() {
        let told = |text: &str| Told(RawValue::from_string(text.to_owned()).unwrap());
        let asked = words(&[("state", "a&b"), ("cursor", "old")]);
        let next = |text: &str, words| told(text).next("/v1/x", words).unwrap();
        let link = next(r#"{"rows":[],"cursor":"new","has_more":true}"#, &asked);
        assert_eq!(link.unwrap(), "</v1/x?state=a%26b&cursor=new>; rel=\"next\"");
        assert_eq!(next(r#"{"rows":[],"cursor":"new","has_more":false}"#, &asked), None);
        let statement = r#"{"until":"2026-11-22T14:00:00Z","cursor":"new","has_more":true}"#;
        let link = next(statement, &words(&[])).unwrap();
        assert_eq!(link, "</v1/x?until=2026-11-22T14:00:00Z&cursor=new>; rel=\"next\"");
    }

    #[test]
    fn every_refusal_is_a_problem() {
        for why in QueryRefusal::ALL {
            let problem = not_asked(QueryError::Refused { why: *why, message: "why".to_owned() });
            assert_eq!(problem.detail, "why", "{why:?}");
            let may_come_again = matches!(why, QueryRefusal::Away | QueryRefusal::Busy);
            assert_eq!(problem.retryable, may_come_again, "{why:?}");
        }
        assert_eq!(not_asked(QueryError::OldEngine(1)).code, "NO_HISTORY");
        for (code, status) in [
            ("malformed", 400),
            ("forbidden", 403),
            ("not_complete", 409),
            ("too_long", 422),
            ("unknown_partition", 404),
            ("busy", 429),
            ("damaged", 500),
            ("failed", 503),
            ("of tomorrow", 503),
        ] {
            assert_eq!(not_answered(code, "why".to_owned(), None).status, status, "{code}");
        }
        for (comes, is_retryable) in [(None, true), (Some(true), true), (Some(false), false)] {
            let problem = not_answered("not_complete", "why".to_owned(), comes);
            assert_eq!(problem.retryable, is_retryable, "{comes:?}");
        }
    }
}
