//! Messages that are being served: those that are about each other are served one after another, as they came.
//!
//! A repeat waits for the message before it, a reversal for what it names, and a completion for its stand-in's notice.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

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

/// At most the message itself, the one that it names, and its payment.
type Keys = [Option<Key>; 3];

/// Those that are about one thing, by number. The first is served, or waits for its turn elsewhere.
#[derive(Debug)]
struct Queue {
    first: u64,
    /// In the order of their numbers. Most messages are alone: then nothing is kept here.
    waiting: VecDeque<(u64, Arc<Notify>)>,
}

/// The messages that are being served, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    queues: Mutex<Queues>,
}

#[derive(Debug, Default)]
struct Queues {
    by_key: HashMap<Key, Queue>,
    next: u64,
}

/// A place in the order, until it is dropped.
pub(crate) struct Turn {
    in_flight: Arc<InFlight>,
    number: u64,
    keys: Keys,
    /// Told when it may have become the first of a queue; none where it was the first of all from the beginning.
    moved_up: Option<Arc<Notify>>,
}

impl InFlight {
    /// Takes the next place behind everything that the message is about. It is taken at once, before anything is awaited.
    pub(crate) fn turn(self: &Arc<Self>, intent: &Intent) -> Turn {
        let own = Key::Message(intent.id);
        let original = intent.original.map(|original| Key::Message(original.id()));
        self.take([Some(own), original.filter(|key| *key != own), intent.handle.map(Key::Payment)])
    }

    fn take(self: &Arc<Self>, keys: Keys) -> Turn {
        let mut queues = self.queues.lock();
        let number = queues.next;
        queues.next += 1;
        let mut moved_up = None;
        for key in keys.into_iter().flatten() {
            match queues.by_key.get_mut(&key) {
                Some(queue) => {
                    let notify: &Arc<Notify> = moved_up.get_or_insert_default();
                    queue.waiting.push_back((number, notify.clone()));
                }
                None => {
                    queues.by_key.insert(key, Queue { first: number, waiting: VecDeque::new() });
                }
            }
        }
        drop(queues);
        Turn { in_flight: self.clone(), number, keys, moved_up }
    }
}

impl Turn {
    /// True unless something that came before may have to be waited for.
    pub(crate) const fn has_come(&self) -> bool {
        self.moved_up.is_none()
    }

    /// Waits until everything that came before is done.
    pub(crate) async fn come(&mut self) {
        let Some(moved_up) = &self.moved_up else { return };
        while !self.is_first() {
            moved_up.notified().await;
        }
    }

    fn is_first(&self) -> bool {
        let queues = self.in_flight.queues.lock();
        let mut all = self.keys.iter().flatten().map(|key| queues.by_key.get(key));
        all.all(|queue| queue.is_none_or(|queue| queue.first == self.number))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queues = self.in_flight.queues.lock();
        for key in self.keys.iter().flatten() {
            let Some(queue) = queues.by_key.get_mut(key) else { continue };
            if queue.first != self.number {
                if let Ok(at) = queue.waiting.binary_search_by_key(&self.number, |(number, _)| *number) {
                    let _ = queue.waiting.remove(at);
                }
                continue;
            }
            match queue.waiting.pop_front() {
                Some((number, moved_up)) => {
                    queue.first = number;
                    moved_up.notify_one();
                }
                None => drop(queues.by_key.remove(key)),
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
        let mut first = in_flight.take([Some(message), Some(payment), None]);
        let mut other = in_flight.take([Some(Key::Message(Id(2))), None, None]);
        let mut second = in_flight.take([Some(payment), None, None]);
        let mut third = in_flight.take([Some(Key::Message(Id(3))), Some(payment), None]);
        assert!(has_come(&mut first).await && has_come(&mut other).await);
        assert!(!has_come(&mut second).await);
        // One that gives up lets nobody past what it waited for.
        drop(second);
        assert!(!has_come(&mut third).await);
        drop(first);
        assert!(has_come(&mut third).await);
        drop((third, other));
        assert!(in_flight.queues.lock().by_key.is_empty());
    }

    #[tokio::test]
    async fn thousands_about_one_thing_are_served_in_order() {
        let in_flight = Arc::new(InFlight::default());
        let payment = Key::Payment(Handle(5));
        let served = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..5000_u64)
            .map(|at| {
                let mut turn = in_flight.take([Some(Key::Message(Id(at.into()))), Some(payment), None]);
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
        assert!(in_flight.queues.lock().by_key.is_empty());
    }
}
