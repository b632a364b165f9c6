//! What a link has been told: where cards lead, what currencies are worth, where marks stand.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use surety_protocol::{Amount, MerchantId, PartitionHandle};

use crate::{Dialect, Message};

/// Partitions that one payment may be tried in.
pub const ROUTE_MAX: usize = 4;

/// The rules of one link.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Which edition it speaks.
    pub dialect: Dialect,
    /// The secret that ids are made with.
    pub id_key: IdKey,
    /// The currencies that are taken, each being an asset at a scale.
    pub currencies: Vec<Currency>,
    /// Partitions whose collateral is another currency than the first: payments are made where their currency is held, and totals are
    /// told by currency.
    pub held_in: BTreeMap<PartitionHandle, u16>,
    /// Where cards and tokens lead, by the first digits of field 2.
    pub routes: Vec<Route>,
    /// Merchants whose field 42 is not simply their number.
    pub merchants: BTreeMap<[u8; 15], MerchantId>,
    /// Says that a part will do.
    pub partial: Mark,
    /// Says that a 0100 raises the lock that its field 37 names.
    pub increase: Mark,
}

/// The secret that ids are made with: the same for as long as repeats and reversals may come. Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdKey(pub [u8; 32]);

impl core::fmt::Debug for IdKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("IdKey")
    }
}

/// A currency code (field 49), and what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Currency {
    /// The code.
    pub number: u16,
    /// From its minor units to base units of the asset.
    pub scale: Scale,
}

/// The decimals of an asset, and those that messages write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Of the asset on chain.
    pub asset_decimals: u8,
    /// Of an amount in a message: twelve digits hold no eighteen decimals.
    pub edge_decimals: u8,
}

/// Which way an amount goes that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Locks: never too little.
    Up,
    /// Captures, and whatever is told: never too much.
    Down,
}

/// Where cards lead whose number begins so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The first digits.
    pub prefix: Vec<u8>,
    /// The partition, and those that are tried when it declines, in order; of more than [`ROUTE_MAX`] the first.
    pub partitions: Vec<PartitionHandle>,
    /// Where such cards led before, of more than [`ROUTE_MAX`] the first: payments that were made there are looked for, none is made.
    pub former: Vec<PartitionHandle>,
}

/// One character of one field that says yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The field.
    pub field: u8,
    /// The place in it, from 0.
    pub at: u8,
    /// The character.
    pub unit: u8,
}

impl Mark {
    /// True if the message says so.
    #[must_use]
    pub fn is_on(self, message: &Message<'_>) -> bool {
        let unit = message.units(self.field).and_then(|mut units| units.nth(usize::from(self.at)));
        unit == Some(self.unit)
    }
}

impl Scale {
    /// Base units of so many minor units. None if no request can carry them.
    #[must_use]
    pub fn to_base(self, minor: u64, rounding: Rounding) -> Option<Amount> {
        let minor = u128::from(minor);
        let base = if self.asset_decimals >= self.edge_decimals {
            minor.checked_mul(power(self.asset_decimals - self.edge_decimals)?)?
        } else {
            let unit = power(self.edge_decimals - self.asset_decimals)?;
            match rounding {
                Rounding::Up => minor.div_ceil(unit),
                Rounding::Down => minor / unit,
            }
        };
        Some(Amount(base)).filter(|amount| amount.is_in_range())
    }

    /// Whole minor units of so many base units, and never more. None if twelve digits cannot say it.
    #[must_use]
    pub fn to_minor(self, base: Amount) -> Option<u64> {
        self.to_minor_sum(base.0).filter(|minor| *minor < 1_000_000_000_000)
    }

    /// The same of a sum of amounts, for which there are sixteen digits.
    pub(super) fn to_minor_sum(self, base: u128) -> Option<u64> {
        let minor = if self.asset_decimals >= self.edge_decimals {
            base / power(self.asset_decimals - self.edge_decimals)?
        } else {
            base.checked_mul(power(self.edge_decimals - self.asset_decimals)?)?
        };
        u64::try_from(minor).ok().filter(|minor| *minor < 10_000_000_000_000_000)
    }
}

fn power(decimals: u8) -> Option<u128> {
    10_u128.checked_pow(u32::from(decimals))
}

/// The partitions of a payment, in the order in which they are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partitions {
    list: [PartitionHandle; ROUTE_MAX],
    /// The how-manieth of its route each is, also where others of the route are left out: ids of locks tell it.
    numbers: [usize; ROUTE_MAX],
    count: usize,
}

impl Partitions {
    /// The first [`ROUTE_MAX`] of these.
    #[must_use]
    pub fn new(partitions: &[PartitionHandle]) -> Self {
        let mut list = [PartitionHandle(0); ROUTE_MAX];
        let count = partitions.len().min(ROUTE_MAX);
        list[..count].copy_from_slice(&partitions[..count]);
        Self { list, numbers: core::array::from_fn(|at| at), count }
    }

    /// Those for which it is true, and the others.
    #[must_use]
    pub fn split(self, is_meant: impl Fn(PartitionHandle) -> bool) -> (Self, Self) {
        let (mut meant, mut others) = (Self::default(), Self::default());
        for (at, partition) in self.into_iter().enumerate() {
            let side = if is_meant(partition) { &mut meant } else { &mut others };
            side.list[side.count] = partition;
            side.numbers[side.count] = self.numbers[at];
            side.count += 1;
        }
        (meant, others)
    }

    /// In order.
    #[must_use]
    pub fn as_slice(&self) -> &[PartitionHandle] {
        &self.list[..self.count]
    }

    /// The so-manieth of them, and the how-manieth of its route that is.
    pub(super) fn place(&self, at: usize) -> Option<(PartitionHandle, usize)> {
        self.as_slice().get(at).map(|partition| (*partition, self.numbers[at]))
    }

    /// True if the partition is among them.
    #[must_use]
    pub fn has(&self, partition: PartitionHandle) -> bool {
        self.as_slice().contains(&partition)
    }
}

impl IntoIterator for Partitions {
    type Item = PartitionHandle;
    type IntoIter = core::iter::Take<core::array::IntoIter<PartitionHandle, ROUTE_MAX>>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter().take(self.count)
    }
}

impl Rules {
    /// Where a card or token leads: the longest prefix decides.
    #[must_use]
    pub fn route(&self, card: impl Iterator<Item = u8> + Clone) -> Option<Partitions> {
        let route = self.find(card)?;
        Some(Partitions::new(&route.partitions)).filter(|partitions| partitions.count > 0)
    }

    /// Where it led before.
    #[must_use]
    pub fn former(&self, card: impl Iterator<Item = u8> + Clone) -> Partitions {
        self.find(card).map_or(Partitions::default(), |route| Partitions::new(&route.former))
    }

    /// These rules as those that come after others: what cards are not led to any more is where they led before. None if that is more
    /// than can be looked in.
    #[must_use]
    pub fn following(mut self, old: &Self) -> Option<Self> {
        for route in &old.routes {
            if self.routes.iter().all(|new| new.prefix != route.prefix) {
                let new = self.find(route.prefix.iter().copied());
                let (partitions, former) =
                    new.map_or_else(Default::default, |new| (new.partitions.clone(), new.former.clone()));
                self.routes.push(Route { prefix: route.prefix.clone(), partitions, former });
            }
        }
        for route in &mut self.routes {
            let Some(before) = old.find(route.prefix.iter().copied()) else { continue };
            // Ids of locks tell how manieth their partition was on the route: one that has changed its place has moved.
            let has_moved =
                |(at, partition): &(usize, &PartitionHandle)| route.partitions.get(*at) != Some(*partition);
            let moved =
                before.partitions.iter().enumerate().filter(has_moved).map(|(_, partition)| partition);
            for partition in moved.chain(&before.former) {
                if !route.former.contains(partition) {
                    route.former.push(*partition);
                }
            }
        }
        self.routes.iter().all(|route| route.former.len() <= ROUTE_MAX).then_some(self)
    }

    fn find(&self, card: impl Iterator<Item = u8> + Clone) -> Option<&Route> {
        let fits = |route: &&Route| {
            let mut card = card.clone();
            route.prefix.iter().all(|digit| card.next() == Some(*digit))
        };
        self.routes.iter().filter(fits).max_by_key(|route| route.prefix.len())
    }

    /// The merchant of field 42: as the table says, or its number with blanks and zeros around it.
    #[must_use]
    pub fn merchant(&self, field: [u8; 15]) -> Option<MerchantId> {
        if let Some(merchant) = self.merchants.get(&field) {
            return Some(*merchant);
        }
        let number = field.trim_ascii();
        if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
            return None;
        }
        Some(MerchantId(number.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))))
    }

    /// The currency that a partition's collateral is.
    #[must_use]
    pub fn held_in(&self, partition: PartitionHandle) -> Option<u16> {
        let first = self.currencies.first().map(|currency| currency.number);
        self.held_in.get(&partition).copied().or(first)
    }

    /// A currency that is taken.
    #[must_use]
    pub fn currency(&self, number: u64) -> Option<Currency> {
        self.currencies.iter().find(|currency| u64::from(currency.number) == number).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_round_up_and_what_is_told_rounds_down() {
        let fine = Scale { asset_decimals: 18, edge_decimals: 2 };
        assert_eq!(fine.to_base(2500, Rounding::Down), Some(Amount(25 * 10_u128.pow(18))));
        assert_eq!(fine.to_minor(Amount(25 * 10_u128.pow(18) + 9_999_999_999_999_999)), Some(2500));
        assert_eq!(fine.to_minor(Amount(1)), Some(0));
        let coarse = Scale { asset_decimals: 0, edge_decimals: 2 };
        assert_eq!(coarse.to_base(2501, Rounding::Up), Some(Amount(26)));
        assert_eq!(coarse.to_base(2599, Rounding::Down), Some(Amount(25)));
        assert_eq!(coarse.to_minor(Amount(26)), Some(2600));
        let huge = Scale { asset_decimals: 40, edge_decimals: 0 };
        assert_eq!(huge.to_base(1, Rounding::Up), None);
        assert_eq!(coarse.to_minor(Amount(10_u128.pow(10))), None, "thirteen digits");
        for minor in [0, 1, 99, 999_999_999_999] {
            let base = fine.to_base(minor, Rounding::Up).unwrap();
            assert_eq!(fine.to_minor(base), Some(minor));
        }
    }

    #[test]
    fn where_cards_led_before_is_not_forgotten() {
        let rules = |routes: &[(&str, &[u64])]| {
            let handles = |partitions: &[u64]| partitions.iter().map(|of| PartitionHandle(*of)).collect();
            let route = |(prefix, partitions): &(&str, &[u64])| Route {
                prefix: prefix.as_bytes().to_vec(),
                partitions: handles(partitions),
                former: Vec::new(),
            };
            Rules {
                dialect: Dialect::V1987,
                id_key: IdKey([0; 32]),
                currencies: Vec::new(),
                held_in: BTreeMap::new(),
                routes: routes.iter().map(route).collect(),
                merchants: BTreeMap::new(),
                partial: Mark { field: 60, at: 0, unit: b'1' },
                increase: Mark { field: 60, at: 1, unit: b'1' },
            }
        };
        let check = |rules: &Rules, card: &str, now: &[u64], before: &[u64]| {
            let numbers = |of: Partitions| of.into_iter().map(|of| of.0).collect::<Vec<_>>();
            let now_led = rules.route(card.bytes()).map(numbers).unwrap_or_default();
            assert_eq!((&now_led[..], &numbers(rules.former(card.bytes()))[..]), (now, before), "{card}");
        };
        let old = rules(&[("4", &[1]), ("41", &[2, 3]), ("5", &[4])]);
        check(&rules(&[("4", &[1]), ("5", &[4])]).following(&old).unwrap(), "42", &[1], &[]);
        // Moved, split, put in another order, taken away.
        let new =
            rules(&[("4", &[1, 5]), ("41", &[3, 2]), ("42", &[6]), ("6", &[1])]).following(&old).unwrap();
        check(&new, "43", &[1, 5], &[]);
        check(&new, "41", &[3, 2], &[2, 3]);
        check(&new, "42", &[6], &[1]);
        check(&new, "5", &[], &[4]);
        check(&new, "6", &[1], &[]);
        // Once more, and back again.
        let newer = rules(&[("4", &[7])]).following(&new).unwrap();
        check(&newer, "43", &[7], &[1, 5]);
        check(&newer, "41", &[7], &[3, 2]);
        check(&newer, "42", &[7], &[6, 1]);
        check(&newer, "5", &[], &[4]);
        assert!(rules(&[("4", &[8, 9])]).following(&newer).is_some());
        let newest = rules(&[("4", &[8, 9])]).following(&newer).unwrap();
        assert!(rules(&[("4", &[10])]).following(&newest).is_none(), "five to look in");
    }
}
