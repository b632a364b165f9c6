//! Who was turned away, told in a line a second at most: anybody who reaches the console may knock as often as it likes.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Counts by the name of the refusal, of which there are a few.
#[derive(Debug, Default)]
pub(crate) struct Refused(Mutex<BTreeMap<&'static str, u64>>);

impl Refused {
    /// Notes one.
    pub(crate) fn note(&self, why: &'static str) {
        *self.0.lock().entry(why).or_default() += 1;
    }

    /// Tells of all since the last time, and begins anew.
    pub(crate) fn tell(&self) {
        for (why, count) in self.take() {
            tracing::warn!(why, count, "turned away at the console");
        }
    }

    fn take(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_told_as_one() {
        let refused = Refused::default();
        (0..1000).for_each(|_| refused.note("LINK"));
        refused.note("CROWDED");
        assert_eq!(refused.take().into_iter().collect::<Vec<_>>(), [("CROWDED", 1), ("LINK", 1000)]);
        assert!(refused.take().is_empty());
    }
}
