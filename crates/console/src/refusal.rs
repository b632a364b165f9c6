//! Why the console does not do what a page asks: one name for programs, one sentence for people.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use surety_client::StateError;

use crate::link::LinkError;

/// What is answered instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Nobody is signed in, or not any more.
    #[error("you are not signed in; make a link with `surety ctl console-link` and open it")]
    SignedOut,
    /// The browser has no certificate, or was not asked for one.
    #[error(
        "this browser has shown no certificate of the engine's authority; import yours and open the browser anew, or sign in by a link"
    )]
    NoCertificate,
    /// The browser shows another certificate than the one that was looked at.
    #[error("this browser shows another certificate than the one that you were asked about; begin again")]
    OtherCertificate,
    /// The link opens nothing.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The link was used.
    #[error("the link was used before: each opens the console once")]
    LinkUsed,
    /// Nobody vouches for the certificate.
    #[error("{0}")]
    NotVouched(String),
    /// The engine does not take the caller.
    #[error("the engine does not let this certificate in: {0}")]
    NotLetIn(String),
    /// Too many tries to sign in.
    #[error("too many sign-ins at a time; wait a few seconds")]
    Crowded,
    /// Too many sessions.
    #[error("too many people are signed in; sign out elsewhere, or wait until a session ends")]
    SessionsFull,
    /// Too many live streams.
    #[error("too many pages are open live; close some")]
    StreamsFull,
    /// The request came from another site's page.
    #[error("the request came from another site, or does not say where from")]
    Foreign,
    /// The name in the address is not the console's.
    #[error(
        "the console is reached by an address of the loopback or `localhost` alone, or with TLS by the names in its certificate"
    )]
    Host,
    /// The browser holds somebody else's session.
    #[error(
        "this browser is signed in as somebody else; say that their session is to end, or sign out first"
    )]
    SignedIn,
    /// Refused before anybody has read it: too long, too slow, or by a method that the address does not take.
    #[error("{}", http_words(*.0))]
    Http(StatusCode),
    /// The roles do not suffice.
    #[error("{0}")]
    NoRole(&'static str),
    /// Nothing there, or not for this caller.
    #[error("{0} is not there, or not for you to see")]
    NotFound(&'static str),
    /// The request makes no sense.
    #[error("{0}")]
    Wrong(String),
    /// Something stands against it now.
    #[error("{0}")]
    Conflict(&'static str),
    /// There is no history to ask.
    #[error("{0}")]
    NoHistory(String),
    /// The history does not answer this.
    #[error("{message}")]
    Past {
        /// Its own name for why.
        code: String,
        /// In its own words.
        message: String,
    },
    /// The history does not know that moment yet.
    #[error("{0}")]
    NotComplete(String),
    /// As many ask the history as may.
    #[error("{0}")]
    PastBusy(String),
    /// The history does not answer at all.
    #[error("{0}")]
    PastAway(String),
    /// Nothing more fits.
    #[error("{0}")]
    Full(&'static str),
    /// The state could not be read.
    #[error("the engine did not answer: {0}; try again")]
    Unread(#[from] StateError),
}

impl Refusal {
    /// The name that programs go by.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::SignedOut => "SIGNED_OUT",
            Self::NoCertificate => "NO_CERTIFICATE",
            Self::OtherCertificate => "OTHER_CERTIFICATE",
            Self::Link(_) => "LINK",
            Self::LinkUsed => "LINK_USED",
            Self::NotVouched(_) => "NOT_VOUCHED",
            Self::NotLetIn(_) => "NOT_LET_IN",
            Self::Crowded => "CROWDED",
            Self::SessionsFull => "SESSIONS_FULL",
            Self::StreamsFull => "STREAMS_FULL",
            Self::Foreign => "FOREIGN",
            Self::Host => "HOST",
            Self::SignedIn => "SIGNED_IN",
            Self::Http(StatusCode::PAYLOAD_TOO_LARGE) => "TOO_LARGE",
            Self::Http(StatusCode::REQUEST_TIMEOUT) => "TOO_SLOW",
            Self::Http(_) => "HTTP",
            Self::NoRole(_) => "NO_ROLE",
            Self::NotFound(_) => "NOT_FOUND",
            Self::Wrong(_) => "WRONG",
            Self::Conflict(_) => "CONFLICT",
            Self::NoHistory(_) => "NO_HISTORY",
            Self::Past { .. } => "HISTORY",
            Self::NotComplete(_) => "NOT_COMPLETE",
            Self::PastBusy(_) => "BUSY",
            Self::PastAway(_) => "HISTORY_AWAY",
            Self::Full(_) => "FULL",
            Self::Unread(_) => "UNREAD",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::SignedOut | Self::NoCertificate | Self::Link(_) | Self::LinkUsed | Self::NotVouched(_) => {
                StatusCode::UNAUTHORIZED
            }
            Self::NotLetIn(_) | Self::Foreign | Self::NoRole(_) => StatusCode::FORBIDDEN,
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Crowded | Self::SessionsFull | Self::StreamsFull | Self::Full(_) | Self::PastBusy(_) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::NotFound(_) | Self::NoHistory(_) => StatusCode::NOT_FOUND,
            Self::Past { code, .. } if code == "forbidden" => StatusCode::FORBIDDEN,
            Self::Past { code, .. } if code == "unknown_partition" => StatusCode::NOT_FOUND,
            Self::Past { code, .. } if code == "damaged" || code == "failed" => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Wrong(_) | Self::Past { .. } => StatusCode::BAD_REQUEST,
            Self::Conflict(_) | Self::SignedIn | Self::OtherCertificate | Self::NotComplete(_) => {
                StatusCode::CONFLICT
            }
            Self::Http(status) => *status,
            Self::Unread(_) | Self::PastAway(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

fn http_words(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "the request is too long",
        StatusCode::REQUEST_TIMEOUT => {
            "the request took too long; what it asked for may have been done: look before you send it again"
        }
        StatusCode::METHOD_NOT_ALLOWED => "the address takes no request of this method",
        _ => "the request makes no sense here",
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.name(), "words": self.to_string() }).to_string();
        let json = HeaderValue::from_static("application/json");
        (self.status(), [(header::CONTENT_TYPE, json)], body).into_response()
    }
}
