//! Prices for the engine: several sources, one price, or none at all when they do not bear each other out.

mod feeder;
mod memory;
mod source;

pub use feeder::{Fed, Feed, Feeder};
pub use source::{Aggregator, Places, PriceFile, PriceSource, PriceTrouble, PriceUrl};

use surety_protocol::Time;
use surety_protocol::limits::PRICE_MAX;

/// One in basis points.
const WHOLE_BPS: u128 = 10_000;

/// What a source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Quote base units for 10^18 base units of collateral.
    pub price: u128,
    /// When it was so.
    pub observed: Time,
}

/// When to believe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Sources that must agree at least.
    pub quorum: usize,
    /// How far a source may be from the median of all, in basis points of it.
    pub deviation_bps: u32,
    /// How far the price may move in one step from the last one sent, in basis points of it; 0 is no limit.
    pub jump_bps: u32,
    /// How old a quote may be.
    pub age_max: Time,
}

/// Why there is no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPrice {
    /// Too few sources are fresh.
    #[error("{fresh} sources are fresh, and {quorum} are needed")]
    TooFew {
        /// How many are.
        fresh: usize,
        /// How many must be.
        quorum: usize,
    },
    /// Too few sources are near the median.
    #[error("{agree} sources are near the median, and {quorum} are needed")]
    Apart {
        /// How many are.
        agree: usize,
        /// How many must be.
        quorum: usize,
    },
    /// It moved further than it may in one step. Somebody has to look, and to set the price by hand if it is right.
    #[error("the price went from {from} to {to} in one step")]
    Jump {
        /// The last price sent.
        from: u128,
        /// What it would be.
        to: u128,
    },
}

/// One price out of several quotes: the median of those that are fresh and near the median of all fresh ones; of two in the
/// middle the lower, which asks for more collateral. It is as old as the oldest quote that bears it out.
///
/// # Errors
///
/// [`NoPrice`]; then the engine's last price grows old, and it stops making locks that need one.
pub fn agree(quotes: &[Quote], last: Option<u128>, rules: &Rules, now: Time) -> Result<Quote, NoPrice> {
    let quorum = rules.quorum.max(1);
    let is_fresh = |quote: &&Quote| {
        let is_young = quote.observed.plus(rules.age_max) >= now;
        is_young && quote.observed <= now && (1..=PRICE_MAX).contains(&quote.price)
    };
    let mut fresh: Vec<Quote> = quotes.iter().filter(is_fresh).copied().collect();
    fresh.sort_by_key(|quote| quote.price);
    if fresh.len() < quorum {
        return Err(NoPrice::TooFew { fresh: fresh.len(), quorum });
    }
    let middle = median(&fresh);
    fresh.retain(|quote| is_within(quote.price, middle, rules.deviation_bps));
    if fresh.len() < quorum {
        return Err(NoPrice::Apart { agree: fresh.len(), quorum });
    }
    let price = median(&fresh);
    if let Some(from) = last.filter(|from| rules.jump_bps > 0 && !is_within(price, *from, rules.jump_bps)) {
        return Err(NoPrice::Jump { from, to: price });
    }
    let observed = fresh.iter().map(|quote| quote.observed).min().unwrap_or(now);
    Ok(Quote { price, observed })
}

/// Of quotes in order; there is at least one.
fn median(sorted: &[Quote]) -> u128 {
    sorted[(sorted.len() - 1) / 2].price
}

/// Prices are below 2^104, so the products fit.
fn is_within(price: u128, of: u128, limit_bps: u32) -> bool {
    price.abs_diff(of) * WHOLE_BPS <= of * u128::from(limit_bps)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(1_000);
    const RULES: Rules =
        Rules { quorum: 2, deviation_bps: 200, jump_bps: 1_000, age_max: Time::from_secs(60) };

    fn quote(price: u128, age_s: u64) -> Quote {
        Quote { price, observed: NOW.minus(Time::from_secs(age_s)) }
    }

    #[test]
    fn a_price_is_borne_out_or_there_is_none() {
        /// Price and age of each quote, the last price, and what is expected.
        type Case = (&'static [(u128, u64)], Option<u128>, Result<(u128, u64), NoPrice>);
        let cases: &[Case] = &[
            (&[(100, 1), (101, 5), (102, 3)], None, Ok((101, 5))),
            (&[(100, 1), (102, 3)], None, Ok((100, 3))),
            (&[(100, 1), (102, 60)], None, Ok((100, 60))),
            (&[(100, 1), (102, 61)], None, Err(NoPrice::TooFew { fresh: 1, quorum: 2 })),
            (&[(0, 1), (102, 1)], None, Err(NoPrice::TooFew { fresh: 1, quorum: 2 })),
            (&[(PRICE_MAX + 1, 1), (102, 1)], None, Err(NoPrice::TooFew { fresh: 1, quorum: 2 })),
            (&[], None, Err(NoPrice::TooFew { fresh: 0, quorum: 2 })),
            // One that went mad is left out, in either direction.
            (&[(1000, 1), (10_000_000, 1), (1001, 2)], None, Ok((1000, 2))),
            (&[(1000, 1), (1, 1), (1001, 2)], None, Ok((1000, 2))),
            (&[(1000, 1), (1021, 1)], None, Err(NoPrice::Apart { agree: 1, quorum: 2 })),
            (&[(PRICE_MAX, 1), (PRICE_MAX, 1)], None, Ok((PRICE_MAX, 1))),
            (&[(1100, 1), (1100, 1)], Some(1000), Ok((1100, 1))),
            (&[(1101, 1), (1101, 1)], Some(1000), Err(NoPrice::Jump { from: 1000, to: 1101 })),
            (&[(899, 1), (899, 1)], Some(1000), Err(NoPrice::Jump { from: 1000, to: 899 })),
        ];
        for (quotes, last, expected) in cases {
            let quotes: Vec<Quote> = quotes.iter().map(|(price, age)| quote(*price, *age)).collect();
            let expected = (*expected).map(|(price, age)| quote(price, age));
            assert_eq!(agree(&quotes, *last, &RULES, NOW), expected, "{quotes:?}");
        }
    }

    #[test]
    fn a_quote_of_the_future_is_no_quote() {
        let future = Quote { price: 100, observed: NOW.plus(Time(1)) };
        let expected = Err(NoPrice::TooFew { fresh: 1, quorum: 2 });
        assert_eq!(agree(&[future, quote(100, 0)], None, &RULES, NOW), expected);
    }
}
