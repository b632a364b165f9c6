//! What is told instead of an answer: `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use iso8583::payment::edge_code;
use serde::Serialize;
use surety_client::protocol::Code;
use utoipa::ToSchema;

/// Why a request has no answer. Its fields are those of the document that is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Names the sort of problem: `urn:surety:problem:` and the code in small letters.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The status of the reply in words.
    pub(crate) title: String,
    /// The status of the reply.
    pub(crate) status: u16,
    /// What to look for: an engine's code, or one of the front door's own.
    pub(crate) code: String,
    /// What it means here, for people.
    pub(crate) detail: Cow<'static, str>,
    /// The field, parameter or header that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) param: Option<Cow<'static, str>>,
    /// Names the request in the logs of this front door.
    #[schema(pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
    pub(crate) request_id: String,
    /// True if the same request, under the same `Idempotency-Key`, may succeed later.
    pub(crate) retryable: bool,
    /// Seconds until it makes sense to come again.
    #[serde(skip)]
    pub(crate) retry_after_s: Option<u64>,
    /// The methods that a path has, where another was asked for.
    #[serde(skip)]
    pub(crate) allow: Option<HeaderValue>,
}

impl Problem {
    /// A problem of the front door itself.
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        Box::new(Self {
            kind: format!("urn:surety:problem:{}", code.to_ascii_lowercase()),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            code: code.to_owned(),
            detail: detail.into(),
            param: None,
            request_id: String::new(),
            retryable: false,
            retry_after_s: None,
            allow: None,
        })
    }

    /// The same, about one field, parameter or header.
    pub(crate) fn about(mut self: Box<Self>, param: impl Into<Cow<'static, str>>) -> Box<Self> {
        self.param = Some(param.into());
        self
    }

    /// The same, for who may come again after a while.
    pub(crate) fn retryable(mut self: Box<Self>, after_s: u64) -> Box<Self> {
        self.retryable = true;
        self.retry_after_s = Some(after_s);
        self
    }

    /// A parameter, field or header that cannot be what it is.
    pub(crate) fn parameter(
        param: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        Self::new(StatusCode::BAD_REQUEST, "PARAMETER", detail).about(param)
    }

    /// What an engine's code is told as, where it is no outcome that stands in an answer.
    pub(crate) fn of_code(code: Code) -> Box<Self> {
        let status = StatusCode::from_u16(edge_code(code).http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let problem = Self::new(status, code.name(), detail_of(code));
        if code.may_pass() { problem.retryable(1) } else { problem }
    }

    /// The outcome is not known, and may still become an effect.
    pub(crate) fn unknown_outcome() -> Box<Self> {
        let detail = "The request may have been executed. Repeat it with the same Idempotency-Key, or look the lock up, before \
                      you do anything else about this payment.";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "UNKNOWN_OUTCOME", detail).retryable(1)
    }

    /// The engine cannot be asked now.
    pub(crate) fn unavailable(detail: &'static str) -> Box<Self> {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", detail).retryable(1)
    }

    /// Nothing by that name, as far as who asks may see.
    pub(crate) fn not_found(code: &'static str, detail: &'static str) -> Box<Self> {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// The reply, with the name that the request has in the logs.
    pub(crate) fn into_reply(mut self: Box<Self>, request_id: &str) -> Response {
        request_id.clone_into(&mut self.request_id);
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut reply = (status, Body::from(body)).into_response();
        let headers = reply.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, allow);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        reply
    }
}

/// What a code means to an application.
const fn detail_of(code: Code) -> &'static str {
    match code {
        Code::Malformed => "A field is out of its range.",
        Code::TooLarge => "The operation has too many parts.",
        Code::NoRight => "This tenant has no right to do that in this partition.",
        Code::UnknownPartition => "There is no such partition, or none that this tenant may use.",
        Code::IdConflict => {
            "The key was used before with another request. Nothing was done for this one; make a new key for it."
        }
        Code::StaleId => {
            "The key's own time is too far in the past. Nothing was done now, but an earlier request with this key may have been \
             executed: look the lock up before you make a new key."
        }
        Code::UnknownAfterRestore => {
            "The engine was restored from a backup. What it may have decided under this key before that is lost, or the partition is \
             not reconciled yet. Nothing was done now. Do not send it under a new key: settle with the merchant what was done, or, \
             if the key was made after the restore, send it again with the same key later."
        }
        Code::IdFromFuture => "The key's own time is in the future: check the clock that makes keys.",
        Code::Quota => {
            "The tenant is at one of its quotas. Nothing was done for this sending of the request."
        }
        Code::QuotaRate => {
            "The tenant has used up its requests per second. Nothing was done for this sending of the request; send it again \
             with the same key."
        }
        Code::QuotaInFlight => {
            "The tenant has as many unanswered requests as it may have. Nothing was done for this sending of the request; send it \
             again with the same key when others are answered."
        }
        Code::QuotaOpenLocks => {
            "The tenant has as many open locks as it may have. Nothing was done for this sending of the request; there is room \
             when a lock has ended."
        }
        Code::QuotaLocks => {
            "As many locks of the tenant are kept as may be, ended ones included. Nothing was done for this sending of the request."
        }
        Code::QuotaIds => {
            "As many keys of the tenant are remembered as may be. Nothing was done for this sending of the request; there is \
             room when older ones are forgotten."
        }
        Code::QuotaTombstones => {
            "The tenant has released as many unknown locks as may be remembered. Nothing was done for this sending of the request."
        }
        Code::QuotaAdvices => {
            "As many advices and reversals of the tenant are remembered as may be. Nothing was done for this sending of the \
             request."
        }
        Code::Overloaded => {
            "The engine is busy. Nothing was done for this sending of the request; send it again with the same key."
        }
        Code::StorageLow => "The engine is short of disk: no new locks until there is room.",
        Code::ChainStale => "The engine takes no new locks until settlement on chain goes on.",
        Code::NotFound | Code::UnknownLock => "There is no such lock, or none of this tenant.",
        Code::GuaranteeCalled => "The lock was called on chain and waits for the chain's verdict.",
        Code::AlreadySettled => "The payer's asset was final before.",
        Code::NotOpen => "The lock has ended.",
        Code::VersionConflict => "The lock has changed since the version that the request names.",
        Code::UnknownCapture => "The lock has no such capture, or no room for another.",
        Code::UseRefund => "The capture has moved since: give money back by a refund.",
        Code::Exists => "It exists already.",
        _ => "The engine has refused the request.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_keeps_the_status_that_the_table_of_codes_gives_it() {
        for code in Code::ALL {
            let problem = Problem::of_code(*code);
            assert_eq!(problem.status, edge_code(*code).http);
            assert_eq!(problem.kind, format!("urn:surety:problem:{}", code.name().to_ascii_lowercase()));
        }
        assert!(Problem::of_code(Code::Overloaded).retryable && !Problem::of_code(Code::NoRight).retryable);
    }
}
