//! Messages that are being served: those that are about each other are served one after another, as they came.
//!
//! A repeat waits for the message before it, a reversal for what it names, and a completion for its stand-in's notice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use iso8583::payment::{Handle, Intent};
use parking_lot::Mutex;
use surety_protocol::Id;
use tokio::sync::watch;

/// What messages have in common that are about each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A message: itself, its repeats, and those that name it.
    Message(Id),
    /// A payment, by its reference.
    Payment(Handle),
}

/// One that is served, or waits: its sender is dropped when it is done.
#[derive(Debug)]
struct Place {
    number: u64,
    done: watch::Receiver<()>,
}

/// The messages that are being served, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    places: Mutex<HashMap<Key, Vec<Place>>>,
    next: AtomicU64,
}

/// A place in the order, until it is dropped.
pub(crate) struct Turn {
    in_flight: Arc<InFlight>,
    number: u64,
    keys: Vec<Key>,
    before: Vec<watch::Receiver<()>>,
    _done: watch::Sender<()>,
}

impl InFlight {
    /// Takes the next place behind everything that the message is about. It is taken at once, before anything is awaited.
    pub(crate) fn turn(self: &Arc<Self>, intent: &Intent) -> Turn {
        let original = intent.original.map(|original| Key::Message(original.id()));
        let payment = intent.handle.map(Key::Payment);
        let others = [original, payment].into_iter().flatten();
        let mut keys: Vec<Key> = others.filter(|key| *key != Key::Message(intent.id)).collect();
        keys.push(Key::Message(intent.id));
        self.take(keys)
    }

    fn take(self: &Arc<Self>, keys: Vec<Key>) -> Turn {
        let (sender, done) = watch::channel(());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut before = Vec::new();
        let mut places = self.places.lock();
        for key in &keys {
            let queue = places.entry(*key).or_default();
            before.extend(queue.iter().map(|place| place.done.clone()));
            queue.push(Place { number, done: done.clone() });
        }
        drop(places);
        Turn { in_flight: self.clone(), number, keys, before, _done: sender }
    }
}

impl Turn {
    /// Waits until everything that came before is done.
    pub(crate) async fn come(&mut self) {
        for before in &mut self.before {
            // Nothing is ever sent: it ends when the sender is gone.
            let _ = before.changed().await;
        }
        self.before.clear();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut places = self.in_flight.places.lock();
        for key in &self.keys {
            let Some(queue) = places.get_mut(key) else { continue };
            queue.retain(|place| place.number != self.number);
            if queue.is_empty() {
                places.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// True if it is its turn now.
    async fn has_come(turn: &mut Turn) -> bool {
        tokio::select! {
            biased;
            () = turn.come() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn what_is_about_the_same_waits_in_order_and_nothing_is_left_behind() {
        let in_flight = Arc::new(InFlight::default());
        let (message, payment) = (Key::Message(Id(1)), Key::Payment(Handle(5)));
        let mut first = in_flight.take(vec![message, payment]);
        let mut other = in_flight.take(vec![Key::Message(Id(2))]);
        let mut second = in_flight.take(vec![payment]);
        let mut third = in_flight.take(vec![Key::Message(Id(3)), payment]);
        assert!(has_come(&mut first).await && has_come(&mut other).await);
        assert!(!has_come(&mut second).await);
        // One that gives up lets nobody past what it waited for.
        drop(second);
        assert!(!has_come(&mut third).await);
        drop(first);
        assert!(has_come(&mut third).await);
        drop((third, other));
        assert!(in_flight.places.lock().is_empty());
    }
}
