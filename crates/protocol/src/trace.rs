//! Which requests are traced, and under which numbers: pure functions of a request's id, so that a client and an engine choose the same requests
//! and name their spans alike, and nothing of it is on the wire.

use crate::ids::Id;

/// What a sampled trace id is compared in: its last 56 bits, as other samplers of consistent probability do.
const RANDOM_BITS: u32 = 56;

/// The trace of a request: 128 bits, spread over all of them and never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub u128);

/// A span of a trace: never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub u64);

/// What a span is about. The number goes into its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SpanRole {
    /// The client: from the first sending to the outcome. The root.
    Client = 1,
    /// The engine: from the request's arrival at its shard to the reply. A child of the client's, whether that tells it or not.
    Engine = 2,
    /// Within the engine's: the decision.
    Decide = 3,
    /// Within the engine's: from the decision until the record is with the operating system.
    Write = 4,
    /// Within the engine's: from there until it is synced.
    Sync = 5,
    /// Within the engine's: from when the reply may leave until it is on its stream.
    Reply = 6,
}

impl TraceId {
    /// Of a request.
    #[must_use]
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub const fn of(id: Id) -> Self {
        let (high, low) = ((id.0 >> 64) as u64, id.0 as u64);
        // Both halves depend on all of the id: neither its time nor its random part alone decides.
        let first = mix(low ^ mix(high ^ 0x9e37_79b9_7f4a_7c15));
        let second = mix(first ^ mix(low ^ 0xd1b5_4a32_d192_ed03));
        let trace = (first as u128) << 64 | second as u128;
        Self(if trace == 0 { 1 } else { trace })
    }

    /// One of its spans.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub const fn span(self, role: SpanRole) -> SpanId {
        let span = mix(self.0 as u64 ^ mix((self.0 >> 64) as u64 ^ role as u64));
        SpanId(if span == 0 { 1 } else { span })
    }
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of the argument.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Which share of the requests is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// A trace is taken if its last 56 bits are at least this.
    threshold: u64,
}

impl Sampling {
    /// So many requests of a million; more than a million is all.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "at most 2 to the 56")]
    pub const fn per_million(share: u32) -> Self {
        let share = if share > 1_000_000 { 1_000_000 } else { share };
        let left = 1_000_000 - share as u128;
        let threshold = (left << RANDOM_BITS) / 1_000_000;
        Self { threshold: threshold as u64 }
    }

    /// True if this request is traced.
    #[must_use]
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub const fn takes(self, trace: TraceId) -> bool {
        trace.0 as u64 & ((1 << RANDOM_BITS) - 1) >= self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id of a moment, as clients draw them one after another.
    fn id(number: u64) -> Id {
        Id(0x0190_0000_0000_7000_8000_0000_0000_0000 | u128::from(number / 1000) << 80 | u128::from(number))
    }

    #[test]
    fn the_numbers_of_a_trace_are_what_they_were() {
        // Clients and engines of other versions reckon the same: these may never change.
        let trace = TraceId::of(Id(0x0190_b3f1_9c00_7abc_8def_0123_4567_89ab));
        assert_eq!(trace, TraceId(0x50d1_1e90_ae27_dec7_ce2d_2db1_f621_572d));
        assert_eq!(trace.span(SpanRole::Client), SpanId(0xd4c6_2ef0_64d6_ef5e));
        assert_eq!(trace.span(SpanRole::Engine), SpanId(0xa96e_282b_bedf_1442));
    }

    #[test]
    fn so_many_of_a_million_are_taken() {
        const IDS: u64 = 1_000_000;
        for (share, low, high) in [
            (0, 0, 0),
            (100, 50, 170),
            (1_000, 850, 1_150),
            (100_000, 98_500, 101_500),
            (1_000_000, IDS, IDS),
        ] {
            let sampling = Sampling::per_million(share);
            let taken = (0..IDS).filter(|number| sampling.takes(TraceId::of(id(*number)))).count() as u64;
            assert!((low..=high).contains(&taken), "{share}: {taken}");
        }
        assert_eq!(Sampling::per_million(u32::MAX), Sampling::per_million(1_000_000));
    }

    #[test]
    fn who_takes_more_takes_all_that_others_take() {
        let (few, many) = (Sampling::per_million(1_000), Sampling::per_million(10_000));
        let taken = (0..200_000).map(|number| TraceId::of(id(number))).filter(|trace| few.takes(*trace));
        assert!({ taken }.all(|trace| many.takes(trace)));
    }

    #[test]
    fn no_two_spans_of_a_trace_are_one() {
        use SpanRole::*;
        for number in 0..1000 {
            let trace = TraceId::of(id(number));
            let mut spans = [Client, Engine, Decide, Write, Sync, Reply].map(|role| trace.span(role));
            spans.sort();
            assert!(spans.windows(2).all(|pair| pair[0] != pair[1]), "{number}");
        }
    }
}
