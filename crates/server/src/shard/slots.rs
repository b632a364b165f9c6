//! A table whose places are handed out and taken back: a place's number is how the rest of the shard names what is in it.

/// Values by number; numbers of removed values are used again.
#[derive(Debug)]
pub(super) struct Slots<T> {
    values: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { values: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Puts a value somewhere.
    ///
    /// # Panics
    /// Past 2^32 values at a time; connections and streams are limited far below.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        match self.free.pop() {
            Some(number) => {
                self.values[number as usize] = Some(value);
                number
            }
            None => {
                self.values.push(Some(value));
                u32::try_from(self.values.len() - 1).expect("streams are limited")
            }
        }
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.values.get_mut(number as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let value = self.values.get_mut(number as usize)?.take();
        if value.is_some() {
            self.free.push(number);
        }
        value
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + use<T> {
        let taken: Vec<u32> = (0..).zip(&self.values).filter(|(_, v)| v.is_some()).map(|(n, _)| n).collect();
        taken.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_only_after_removal() {
        let mut slots = Slots::default();
        let (a, b) = (slots.insert('a'), slots.insert('b'));
        assert_ne!(a, b);
        assert_eq!(slots.remove(a), Some('a'));
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.get_mut(a), None);
        assert_eq!(slots.insert('c'), a);
        assert_eq!(slots.numbers().collect::<Vec<_>>(), [a, b]);
        slots.remove(a);
        slots.remove(b);
        assert_eq!(slots.numbers().count(), 0);
    }
}
