//! Somebody who is told of every request that a client has sent, such as whoever traces.

use surety_protocol::{Record, Reply, Time};

use crate::client::Client;
use crate::error::{SubmitError, Unknown};

/// Is told of requests and what came of them. It is asked on the way of each, so it must not wait.
pub trait Observer: Send + Sync + 'static {
    /// A request has come to its end, or to that of its time, or its caller has given up on it; times are the engine's, as well as this
    /// host knows it.
    fn on_outcome(&self, request: &Record, begun: Time, ended: Time, outcome: &Result<Reply, SubmitError>);
}

/// A request whose outcome somebody waits to be told.
pub(crate) struct Observed<'a> {
    client: &'a Client,
    observer: &'a dyn Observer,
    request: Record,
    begun: Time,
    /// It has been told.
    is_told: bool,
}

impl<'a> Observed<'a> {
    /// Begins now.
    pub(crate) fn begin(client: &'a Client, observer: &'a dyn Observer, request: Record) -> Self {
        Self { client, observer, request, begun: client.now(), is_told: false }
    }

    /// Tells what came of it.
    pub(crate) fn end(mut self, outcome: &Result<Reply, SubmitError>) {
        self.tell(outcome);
        self.is_told = true;
    }

    fn tell(&self, outcome: &Result<Reply, SubmitError>) {
        self.observer.on_outcome(&self.request, self.begun, self.client.now(), outcome);
    }
}

impl Drop for Observed<'_> {
    /// Whoever drops a call that is under way does not wait for its outcome; it has one all the same.
    fn drop(&mut self) {
        if !self.is_told {
            self.tell(&Err(SubmitError::Unknown { id: self.request.id, cause: Unknown::GivenUp }));
        }
    }
}
