//! Messages that are being served: those that are about each other are served one after another, as they came.
//!
//! A repeat waits for the message before it, a reversal for what it names, and a completion for its stand-in's notice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use iso8583::payment::{Handle, Intent};
use parking_lot::Mutex;
use surety_protocol::Id;
use tokio::sync::Notify;

/// What messages have in common that are about each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A message: itself, its repeats, and those that name it.
    Message(Id),
    /// A payment, by its reference.
    Payment(Handle),
}

/// Those that are about one thing, by number: the first is served, or waits for its turn elsewhere.
type Queue = BTreeMap<u64, Arc<Notify>>;

/// The messages that are being served, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    queues: Mutex<HashMap<Key, Queue>>,
    next: AtomicU64,
}

/// A place in the order, until it is dropped.
pub(crate) struct Turn {
    in_flight: Arc<InFlight>,
    number: u64,
    keys: Vec<Key>,
    /// Told when it may have become the first of a queue.
    moved_up: Arc<Notify>,
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
        let moved_up = Arc::new(Notify::new());
        let mut queues = self.queues.lock();
        // Under the lock: numbers are in the order of the queues.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        for key in &keys {
            queues.entry(*key).or_default().insert(number, moved_up.clone());
        }
        drop(queues);
        Turn { in_flight: self.clone(), number, keys, moved_up }
    }
}

impl Turn {
    /// Waits until everything that came before is done.
    pub(crate) async fn come(&mut self) {
        while !self.is_first() {
            self.moved_up.notified().await;
        }
    }

    fn is_first(&self) -> bool {
        let queues = self.in_flight.queues.lock();
        let first = |key| queues.get(key).and_then(Queue::first_key_value);
        self.keys.iter().all(|key| first(key).is_none_or(|(number, _)| *number == self.number))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queues = self.in_flight.queues.lock();
        for key in &self.keys {
            let Some(queue) = queues.get_mut(key) else { continue };
            queue.remove(&self.number);
            match queue.first_key_value() {
                Some((_, next)) => next.notify_one(),
                None => drop(queues.remove(key)),
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
        assert!(in_flight.queues.lock().is_empty());
    }

    #[tokio::test]
    async fn thousands_about_one_thing_are_served_in_order() {
        let in_flight = Arc::new(InFlight::default());
        let payment = Key::Payment(Handle(5));
        let served = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..5000_u64)
            .map(|at| {
                let mut turn = in_flight.take(vec![Key::Message(Id(at.into())), payment]);
                let served = served.clone();
                tokio::spawn(async move {
                    turn.come().await;
                    served.lock().push(at);
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.is_ok());
        }
        assert!(served.lock().iter().copied().eq(0..5000));
        assert!(in_flight.queues.lock().is_empty());
    }
}
