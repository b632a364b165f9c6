//! Somebody who is told of every request that a client has sent, such as whoever traces.

use surety_protocol::{Record, Reply, Time};

use crate::error::SubmitError;

/// Is told of requests and what came of them. It is asked on the way of each, so it must not wait.
pub trait Observer: Send + Sync + 'static {
    /// A request has come to its end, or to that of its time; times are the engine's, as well as this host knows it.
    fn on_outcome(&self, request: &Record, begun: Time, ended: Time, outcome: &Result<Reply, SubmitError>);
}
