//! A request to the engine itself, for what no acquirer says: repeated under its own id like a message, so that its outcome is told by its
//! own reply. A look-up would name no request that the log can be held against.

use std::io;

use surety_client::{Client, NotExecuted, SubmitError};
use surety_protocol::{Code, Record, Reply};

use crate::door_faults::{Exchange, Failed};
use crate::door_request::{Meaning, Request};
use crate::payment::is_sound;

/// A request, and who takes it to the engine.
pub(super) struct Direct<'a> {
    pub(super) client: &'a Client,
    pub(super) request: Record,
}

impl Request for Direct<'_> {
    /// What was recorded, or why nothing was.
    type Heard = Result<Reply, Code>;
    /// It is the link that is measured.
    const IS_TIMED: bool = false;

    async fn say(&mut self) -> Exchange<Self::Heard> {
        let heard = match self.client.submit(self.request).await {
            Ok(reply) => Ok(Ok(reply)),
            Err(SubmitError::NotExecuted { why: NotExecuted::Refused { code, .. }, .. }) => Ok(Err(code)),
            Err(error @ SubmitError::NotExecuted { .. }) => Err(Failed::NotSent(io::Error::other(error))),
            Err(SubmitError::Unknown { .. }) => Err(Failed::Lost),
        };
        Exchange { heard, is_doubled: false }
    }

    fn read(&self, heard: &Self::Heard) -> Meaning {
        match heard {
            Ok(reply) => Meaning::Decided(Box::new(*reply), is_sound(&self.request, reply)),
            Err(code) => Meaning::Refused(code.name().to_owned()),
        }
    }
}
