//! Looking for the original of a reversal that is no lock where one would be: a completion, an increase, or a message that has
//! not come yet. What has not come is spent, so that it never will be executed.

use super::*;

/// What an original may have been, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    what: What,
    /// Its partition, and the id that is looked up there.
    place: Place,
}

/// What is looked for under an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Something else than field 90 calls it, with the same numbers: another message, which nobody has asked to take back.
    Another,
    /// This reversal's own mark that its original was not found: by a wrong type, or too late to tell.
    Mistaken,
    /// This reversal's own release of a lock that had not come.
    Released,
    /// The advice that a completion sends.
    Completion,
    /// The advice of a stand-in whose lock was not made.
    Told,
    /// The so-manieth attempt at an increase.
    Increase(u8),
}

impl Work {
    /// Looks for the original in all places, and only if none has it spends its ids in all.
    pub(super) fn search(&mut self) -> Step {
        self.suspects = self.list();
        if self.suspects.is_empty() {
            return self.reversed(Verdict::Refused(Refusal::OriginalUnknown));
        }
        self.look_at(0, false)
    }

    /// What field 90 calls it comes first.
    fn list(&self) -> Vec<Suspect> {
        let mut list = Vec::new();
        let Some(original) = self.intent.original else { return list };
        let mark = self.part(Part::Mistaken, 0);
        let marks = self.everywhere().take(1).map(|partition| Place { partition, lock: mark });
        list.extend(marks.map(|place| Suspect { what: What::Mistaken, place }));
        if original.named != Named::Completion {
            let places = (0..self.route_len()).filter_map(|at| self.place_at(at));
            let released = places.map(|place| Place { lock: self.released(place), ..place });
            list.extend(released.map(|place| Suspect { what: What::Released, place }));
        }
        let mut add = |what, named: Named, part_of: Part| {
            let message = original.were_it(named).id();
            let id = part(&self.key.0, message, part_of, 0);
            list.extend(
                self.everywhere().map(|partition| Suspect { what, place: Place { partition, lock: id } }),
            );
        };
        match original.named {
            Named::Authorization => add(What::Increase(0), Named::Authorization, Part::Increase),
            Named::StandIn => add(What::Told, Named::StandIn, Part::Advice),
            Named::Sale => {}
            Named::Completion => add(What::Completion, Named::Completion, Part::Advice),
        }
        for named in Named::ALL.into_iter().filter(|named| *named != original.named) {
            match named {
                Named::Completion => add(What::Another, named, Part::Advice),
                Named::Authorization => add(What::Another, named, Part::Increase),
                Named::StandIn | Named::Sale => {}
            }
        }
        let others = Named::ALL.into_iter().filter(|named| !matches!(*named, Named::Completion));
        for named in others.filter(|named| *named != original.named) {
            let places = self.places_of(original.were_it(named).id());
            list.extend(places.map(|place| Suspect { what: What::Another, place }));
        }
        list
    }

    fn look_at(&mut self, nth: usize, burn: bool) -> Step {
        let flags = if burn { Flags::BURN | Flags::LASTING } else { Flags(0) };
        self.place = self.suspects[nth].place;
        let id = self.place.lock;
        self.look_up(Stage::Search { nth, burn }, id, flags)
    }

    pub(super) fn on_search(&mut self, nth: usize, burn: bool, reply: &Reply) -> Step {
        let (code, suspect) = (reply.code(), self.suspects[nth]);
        match suspect.what {
            _ if code.class() == CodeClass::Admission && code != Code::NotFound => {
                self.reversed(Verdict::Code(code))
            }
            What::Mistaken if burn && self.is_lost => self.spend(0),
            What::Mistaken if burn => self.leave(),
            What::Mistaken if code == Code::Burned => {
                self.is_mistaken = true;
                self.look_further(nth, burn)
            }
            _ if code == Code::NotFound && burn && reply.seq.0 == 0 => {
                // Nobody can tell any more.
                self.reversed(Verdict::Refused(Refusal::OriginalUnknown))
            }
            // Spent by another reversal, or one of a completion by this one: it will not be executed, but a lock may have been.
            _ if code == Code::Burned && !burn && suspect.what != What::Another => self.leave(),
            _ if code == Code::NotFound || code == Code::Burned => self.look_further(nth, burn),
            // A repeat is answered as before, whatever has come since.
            What::Released => self.spend(0),
            What::Another if code.is_success() => {
                self.is_mistaken = true;
                self.look_further(nth, burn)
            }
            What::Another | What::Mistaken => self.look_further(nth, burn),
            What::Increase(attempt) if code == Code::VersionConflict => {
                let lock = self.part_of_original(Part::Increase, u128::from(attempt) + 1);
                let place = Place { lock, ..suspect.place };
                self.suspects[nth] = Suspect { what: What::Increase(attempt + 1), place };
                self.look_at(nth, burn)
            }
            // It was declined: there is nothing to take back.
            _ if !code.is_success() => self.reversed(Verdict::Code(Code::Approved)),
            // What was told could not be covered, or it would have been found.
            What::Told => self.reversed(Verdict::Code(Code::Approved)),
            What::Completion => {
                let place = Place { lock: Id(reply.remaining.0), ..suspect.place };
                if reply.capture == ALL_CAPTURES {
                    return self.find_before(place);
                }
                self.find(place);
                self.take_back(reply.capture, Some(reply.approved.0.saturating_add(reply.extra.0)))
            }
            What::Increase(_) => {
                if self.stays() > Amount::ZERO && !self.is_told(reply.approved.0) {
                    return self.reversed(Verdict::Refused(Refusal::OriginalAmount));
                }
                let by = reply.approved.0.saturating_sub(self.stays().0);
                self.find(Place { lock: Id(reply.remaining.0), ..suspect.place });
                self.begin_guarded(Guarded::Lower { by })
            }
        }
    }

    /// The completion has captured nothing itself. What it completed may have been captured by the notice that made the lock.
    fn find_before(&mut self, place: Place) -> Step {
        self.settle_on(place);
        let advice = part(&self.key.0, place.lock, Part::Advice, 0);
        self.look_up(Stage::FindBefore, advice, Flags(0))
    }

    pub(super) fn on_find_before(&mut self, reply: &Reply) -> Step {
        let code = reply.code();
        if code.class() == CodeClass::Admission && code != Code::NotFound {
            return self.reversed(Verdict::Code(code));
        }
        let has_captured = code.is_success() && reply.capture != ALL_CAPTURES;
        if !has_captured || Id(reply.remaining.0) != self.place.lock {
            // All of it became exposure, or is another completion's: there is nothing to give back.
            return self.reversed(Verdict::Code(Code::UnknownCapture));
        }
        self.is_found = true;
        self.take_back(reply.capture, None)
    }

    fn find(&mut self, place: Place) {
        self.is_found = true;
        self.settle_on(place);
    }

    fn part_of_original(&self, what: Part, number: u128) -> Id {
        let message = self.intent.original.map_or(self.intent.id, |original| original.id());
        part(&self.key.0, message, what, number)
    }

    fn look_further(&mut self, nth: usize, burn: bool) -> Step {
        if !burn && nth + 1 < self.suspects.len() {
            return self.look_at(nth + 1, false);
        }
        if burn {
            return self.spend(nth + 1);
        }
        self.is_spending |= self.is_mistaken || self.named() == Some(Named::Completion);
        if self.is_mistaken && self.stays() == Amount::ZERO { self.mark() } else { self.leave() }
    }

    /// Remembers that the original was not found.
    pub(super) fn mark(&mut self) -> Step {
        if self.suspects.is_empty() {
            self.suspects = self.list();
        }
        if self.suspects.is_empty() {
            return self.reversed(Verdict::Refused(Refusal::OriginalUnknown));
        }
        self.look_at(0, true)
    }

    /// Nothing has it. A release leaves a tombstone where its lock would be first.
    fn leave(&mut self) -> Step {
        // Of a part nothing can be spent: the rest of it is to be executed.
        if self.stays() > Amount::ZERO {
            return self.reversed(Verdict::Refused(Refusal::OriginalUnknown));
        }
        if self.named() == Some(Named::Completion) {
            return self.spend(0);
        }
        self.is_spending = true;
        self.go_to(0);
        self.release()
    }

    /// Spends the ids, from the so-manieth on, under which the original may still come.
    pub(super) fn spend(&mut self, from: usize) -> Step {
        let may_come =
            |at: &usize| matches!(self.suspects[*at].what, What::Completion | What::Told | What::Increase(_));
        match (from..self.suspects.len()).find(may_come) {
            Some(at) => self.look_at(at, true),
            None if self.is_mistaken => self.reversed(Verdict::Refused(Refusal::OriginalUnknown)),
            None => self.reversed(Verdict::Code(Code::Approved)),
        }
    }
}
