//! A table whose places are handed out and taken back: a place's number is how the rest of the shard names what is in it.

use surety_protocol::sabotage;

/// Names a place for as long as one value is in it. Whoever still holds the number after that finds nothing: the next
/// value in the same place has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotNumber {
    index: u32,
    generation: u16,
}

impl SlotNumber {
    /// Bits of [`SlotNumber::to_bits`].
    pub(super) const BITS: u32 = u32::BITS + u16::BITS;

    /// The place alone, which later values share.
    pub(super) const fn index(self) -> u32 {
        self.index
    }

    /// Both parts in the low bits.
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.generation) << u32::BITS | u64::from(self.index)
    }

    /// The number in the low bits.
    #[expect(clippy::cast_possible_truncation, reason = "the two parts of a number")]
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> u32::BITS) as u16 }
    }
}

/// Values by number; places of removed values are used again, under another number.
#[derive(Debug)]
pub(super) struct Slots<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

/// A place, and which of its values has its turn.
#[derive(Debug)]
struct Place<T> {
    value: Option<T>,
    generation: u16,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Puts a value somewhere.
    ///
    /// # Panics
    /// Past 2^32 values at a time; connections and streams are limited far below.
    pub(super) fn insert(&mut self, value: T) -> SlotNumber {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.value = Some(value);
            return SlotNumber { index, generation: place.generation };
        }
        let index = u32::try_from(self.places.len()).expect("streams are limited");
        self.places.push(Place { value: Some(value), generation: 0 });
        SlotNumber { index, generation: 0 }
    }

    pub(super) fn get_mut(&mut self, number: SlotNumber) -> Option<&mut T> {
        self.place(number)?.value.as_mut()
    }

    pub(super) fn remove(&mut self, number: SlotNumber) -> Option<T> {
        let place = self.place(number)?;
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(number.index);
        Some(value)
    }

    /// The number of the value that is in a place now.
    pub(super) fn number_at(&self, index: u32) -> Option<SlotNumber> {
        let place = self.places.get(index as usize)?;
        place.value.as_ref().map(|_| SlotNumber { index, generation: place.generation })
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = SlotNumber> + use<T> {
        let taken: Vec<SlotNumber> =
            (0..).zip(&self.places).filter_map(|(index, _)| self.number_at(index)).collect();
        taken.into_iter()
    }

    fn place(&mut self, number: SlotNumber) -> Option<&mut Place<T>> {
        let place = self.places.get_mut(number.index as usize)?;
        let is_meant = place.generation == number.generation || sabotage!("old-number-taken-for-the-new-one");
        is_meant.then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_means_nothing_once_its_value_is_gone() {
        let mut slots = Slots::default();
        let (a, b) = (slots.insert('a'), slots.insert('b'));
        assert_ne!(a, b);
        assert_eq!(slots.remove(a), Some('a'));
        assert_eq!((slots.remove(a), slots.get_mut(a)), (None, None));
        let c = slots.insert('c');
        assert_eq!(c.index(), a.index(), "the place is used again");
        assert_ne!(c, a, "the number is not");
        assert_eq!((slots.remove(a), slots.get_mut(a)), (None, None));
        assert_eq!(slots.get_mut(c), Some(&mut 'c'));
        assert_eq!(slots.number_at(a.index()), Some(c));
        assert_eq!(slots.numbers().collect::<Vec<_>>(), [c, b]);
        slots.remove(c);
        slots.remove(b);
        assert_eq!(slots.numbers().count(), 0);
        assert_eq!(slots.number_at(c.index()), None);
    }

    #[test]
    fn a_number_fits_its_bits() {
        for number in
            [SlotNumber { index: u32::MAX, generation: 7 }, SlotNumber { index: 0, generation: u16::MAX }]
        {
            assert_eq!(SlotNumber::from_bits(number.to_bits()), number);
            assert_eq!(number.to_bits() >> SlotNumber::BITS, 0);
        }
    }
}
