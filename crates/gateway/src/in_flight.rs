//! Messages that are being served: a repeat waits for the message before it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use surety_protocol::Id;
use tokio::sync::{Mutex as Turns, OwnedMutexGuard};

/// The messages that are being served, by their ids.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    messages: Mutex<HashMap<Id, Arc<Turns<()>>>>,
}

/// The right to serve a message, until it is dropped.
pub(crate) struct Turn<'a> {
    in_flight: &'a InFlight,
    id: Id,
    guard: Option<OwnedMutexGuard<()>>,
}

impl InFlight {
    /// Waits until nobody else serves a message with this id.
    pub(crate) async fn turn(&self, id: Id) -> Turn<'_> {
        let turns = self.messages.lock().entry(id).or_default().clone();
        // From here on the entry is taken away again, also if this future is dropped.
        let mut turn = Turn { in_flight: self, id, guard: None };
        turn.guard = Some(turns.lock_owned().await);
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.guard = None;
        let mut messages = self.in_flight.messages.lock();
        // One is the table's own.
        if messages.get(&self.id).is_some_and(|turns| Arc::strong_count(turns) == 1) {
            messages.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_repeat_waits_and_nothing_is_left_behind() {
        let in_flight = InFlight::default();
        let first = in_flight.turn(Id(1)).await;
        let other = in_flight.turn(Id(2)).await;
        let waiting = in_flight.turn(Id(1));
        tokio::pin!(waiting);
        let is_waiting = tokio::select! {
            biased;
            _ = &mut waiting => false,
            () = std::future::ready(()) => true,
        };
        assert!(is_waiting);
        drop(first);
        drop(waiting.await);
        drop(other);
        assert!(in_flight.messages.lock().is_empty());
    }
}
