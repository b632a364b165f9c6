//! Restarts at the port that clients know.

use std::time::{Duration, Instant};

use server::{Config, Running, Server, StartFailure};

/// How long somebody else may have the port.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a server. While one is away, the system may give its port to a client that dials it, until that gives up.
pub(crate) fn start(config: &Config) -> Running {
    let begun = Instant::now();
    loop {
        match Server::start(config.clone()) {
            Err(error) if error.failure() == StartFailure::PortTaken => {
                assert!(begun.elapsed() < PATIENCE, "{error}");
            }
            started => return started.unwrap(),
        }
    }
}
