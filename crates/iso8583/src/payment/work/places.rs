//! Where a message's lock may be.

use super::*;

/// The lock that a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// No lock that the message could tell.
    Nowhere,
    /// Of the message with this id, somewhere on the route of the card.
    Route(Id),
    /// There.
    Known(Place),
}

impl Work {
    /// The places that a message may be about: where its original must have been sent by the route of the card, or where
    /// the payment is known to be. What is known counts only if it cannot be another payment under a reference that was
    /// used twice: a repeat must never be led to another partition than the message before it.
    pub(super) fn find_places(&mut self) {
        let message = match (self.intent.ask, self.intent.original) {
            (Ask::Authorize { .. } | Ask::Sale { .. } | Ask::StandIn, _) => Some(self.intent.id),
            (_, original) => original.map(|original| original.id()),
        };
        let is_meant = |known: &Place| message.is_none_or(|message| self.is_lock_of(message, known.lock));
        self.target = match self.known.filter(is_meant) {
            Some(known) => Target::Known(known),
            None if message.is_some() || self.intent.ask == Ask::Complete => {
                Target::Route(message.unwrap_or(self.intent.id))
            }
            None => Target::Nowhere,
        };
        self.go_to(0);
    }

    /// There is one place, and this is it.
    pub(super) fn settle_on(&mut self, place: Place) {
        self.target = Target::Known(place);
        self.go_to(0);
    }

    pub(super) fn go_to(&mut self, at: usize) {
        self.at = at;
        self.place = self.place_at(at).unwrap_or_default();
    }

    /// Goes to the next place, if there is one.
    pub(super) fn go_on(&mut self) -> bool {
        let is_more = self.place_at(self.at + 1).is_some();
        if is_more {
            self.go_to(self.at + 1);
        }
        is_more
    }

    /// The so-manieth place of the target.
    pub(super) fn place_at(&self, at: usize) -> Option<Place> {
        match self.target {
            Target::Nowhere => None,
            Target::Route(message) => self.place_of(message, at),
            Target::Known(place) => (at == 0).then_some(place),
        }
    }

    /// Places of the target that a new lock could still come to.
    pub(super) fn route_len(&self) -> usize {
        match self.target {
            Target::Nowhere => 0,
            Target::Route(_) => self.intent.partitions.as_slice().len(),
            Target::Known(_) => 1,
        }
    }

    /// The so-manieth place where a message's lock may be: on the route of the card, first where its currency is held, then where its
    /// cards led before. The how-manieth a partition was then, nothing tells.
    fn place_of(&self, message: Id, at: usize) -> Option<Place> {
        let Intent { partitions, others, former, .. } = &self.intent;
        let held = partitions.as_slice().len();
        let behind = held + others.as_slice().len();
        let (partition, number) = if at < held {
            partitions.place(at)?
        } else if at < behind {
            others.place(at - held)?
        } else {
            let number = (at - behind) % ROUTE_MAX;
            (*former.as_slice().get((at - behind) / ROUTE_MAX)?, number)
        };
        Some(Place { partition, lock: self.lock_of(message, number) })
    }

    /// The lock that a message makes in the so-manieth partition of its route.
    fn lock_of(&self, message: Id, number: usize) -> Id {
        part(&self.key.0, message, Part::Lock, number as u128)
    }

    fn is_lock_of(&self, message: Id, lock: Id) -> bool {
        (0..ROUTE_MAX).any(|number| self.lock_of(message, number) == lock)
    }

    /// Every place where the lock of a message may be.
    pub(super) fn places_of(&self, message: Id) -> impl Iterator<Item = Place> {
        let known = self.known.filter(|known| self.is_lock_of(message, known.lock));
        let routed = (0..).map_while(move |at| self.place_of(message, at));
        known.into_iter().chain(routed.filter(move |place| Some(*place) != known))
    }

    /// Every partition where the payment may be.
    pub(super) fn everywhere(&self) -> impl Iterator<Item = PartitionHandle> + use<> {
        let known = self.known.map(|known| known.partition);
        let Intent { partitions, others, former, .. } = self.intent;
        let route = partitions.into_iter().chain(others);
        let former = former.into_iter().filter(move |of| !partitions.has(*of) && !others.has(*of));
        let rest = route.chain(former).filter(move |partition| Some(*partition) != known);
        known.into_iter().chain(rest)
    }
}
