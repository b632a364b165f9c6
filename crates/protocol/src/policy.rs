//! A partition's policy: the manager's rules, declarative, changed only by a logged [`crate::Kind::Policy`] request.

use rkyv::{Archive, Deserialize, Serialize};

use crate::archive;
use crate::limits::{AMOUNT_MAX, CATEGORY_RULES_MAX, CONTINUATION_BYTES, LIFE_MAX};
use crate::{Amount, AssetId, Time};

/// Bytes of a policy: three continuation records.
pub const POLICY_BYTES: usize = 3 * CONTINUATION_BYTES;

/// Over-capture and headroom for one merchant category.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CategoryRule {
    /// Merchant category code; 0 ends the list.
    pub category: u16,
    /// How far captures may exceed the approved amount, in basis points of it.
    pub tolerance_bps: u16,
    /// Collateral held beyond the approved amount, in basis points of it.
    pub headroom_bps: u16,
    /// Zero.
    pub reserved: u16,
}

/// What happens to a capture whose settle-by time passes (row 24).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleByAction {
    /// The merchant is paid from the collateral.
    Consume,
    /// The payer's asset counts as final.
    Settle,
}

/// When a payer's asset counts as final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseRule {
    /// Somebody with the right says so.
    Manual,
    /// The asset has this many confirmations.
    Confirmations {
        /// Which asset.
        asset: AssetId,
        /// How many.
        count: u32,
    },
    /// The settle-by time decides.
    Timeout,
}

/// The rules of one partition. Spans are nanoseconds, rates basis points, amounts base units of the collateral.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Policy {
    /// The most that one lock may take, headroom included.
    pub lock_max: Amount,
    /// The most that one merchant may have open; 0 is no limit. Needs a partition that tracks merchants.
    pub merchant_open_max: Amount,
    /// The most value locked in one velocity window; 0 is no limit.
    pub velocity_value: Amount,
    /// Partial approvals are rounded down to a multiple of this; at least 1.
    pub edge_unit: Amount,
    /// How old a price may be.
    pub price_age_max: Time,
    /// Length of a velocity window.
    pub velocity_window: Time,
    /// Life of a lock that asks for none.
    pub life_default: Time,
    /// The longest life, from creation, increases included.
    pub life_max: Time,
    /// How long after a capture the payer's asset may take; 0 is for ever.
    pub settle_by: Time,
    /// How long after its end an expired lock may be captured late.
    pub late_window: Time,
    /// How long after its end a lock stays for refunds.
    pub refund_window: Time,
    /// How long after its end a lock stays for settlement.
    pub settlement_window: Time,
    /// From a supplier's withdrawal to its payment.
    pub unbonding: Time,
    /// From a certificate's deadline to the release of its collateral.
    pub claim_margin: Time,
    /// Collateral per value at creation.
    pub ratio_bps: u32,
    /// Below this ratio no lock is made.
    pub stop_ratio_bps: u32,
    /// The most locks in one velocity window; 0 is no limit.
    pub velocity_count: u32,
    /// Headroom of categories without a rule.
    pub headroom_bps: u32,
    /// Over-capture of categories without a rule.
    pub tolerance_bps: u32,
    /// Suppliers' fee per capture.
    pub fee_bps: u32,
    /// Asset of the release rule `confirmations`.
    pub release_asset: AssetId,
    /// Count of the release rule `confirmations`.
    pub release_confirmations: u32,
    /// 0 manual, 1 confirmations, 2 timeout.
    pub release_rule: u8,
    /// 0 consume, 1 settle.
    pub settle_by_action: u8,
    /// 1 allows late captures.
    pub late_capture: u8,
    /// 1 admits only merchants of the directory.
    pub merchants_listed: u8,
    /// Rules by merchant category, the first with the category 0 ends the list.
    pub categories: [CategoryRule; CATEGORY_RULES_MAX],
    /// Zero.
    pub reserved_a: [u8; 32],
    /// Zero.
    pub reserved: [u8; 20],
}

const _: () = assert!(size_of::<ArchivedPolicy>() == POLICY_BYTES);

impl Default for Policy {
    /// Plain rules to start from: ten minutes of life, no limits but the largest amount, everything settled by hand.
    fn default() -> Self {
        Self {
            lock_max: Amount(AMOUNT_MAX),
            merchant_open_max: Amount::ZERO,
            velocity_value: Amount::ZERO,
            edge_unit: Amount(1),
            price_age_max: Time::from_secs(60),
            velocity_window: Time::from_secs(60),
            life_default: Time::from_secs(600),
            life_max: Time::from_secs(30 * 24 * 3600),
            settle_by: Time::from_secs(24 * 3600),
            late_window: Time::ZERO,
            refund_window: Time::ZERO,
            settlement_window: Time::ZERO,
            unbonding: Time::from_secs(7 * 24 * 3600),
            claim_margin: Time::from_secs(3600),
            ratio_bps: 10_000,
            stop_ratio_bps: 10_000,
            velocity_count: 0,
            headroom_bps: 0,
            tolerance_bps: 0,
            fee_bps: 0,
            release_asset: AssetId(0),
            release_confirmations: 0,
            release_rule: 0,
            settle_by_action: 0,
            late_capture: 0,
            merchants_listed: 0,
            categories: [CategoryRule::default(); CATEGORY_RULES_MAX],
            reserved_a: [0; 32],
            reserved: [0; 20],
        }
    }
}

impl Policy {
    /// Writes the payload of a policy request.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; POLICY_BYTES] {
        archive::write(self)
    }

    /// Reads a payload; `None` for another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        archive::read(bytes)
    }

    /// True if the rules make sense together; a policy that does not is answered `MALFORMED`.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let amounts = [self.lock_max, self.merchant_open_max, self.velocity_value, self.edge_unit];
        let rates =
            [self.ratio_bps, self.stop_ratio_bps, self.headroom_bps, self.tolerance_bps, self.fee_bps];
        let spans = [
            self.price_age_max,
            self.velocity_window,
            self.life_default,
            self.life_max,
            self.settle_by,
            self.late_window,
            self.refund_window,
            self.settlement_window,
            self.unbonding,
            self.claim_margin,
        ];
        amounts.iter().all(|amount| amount.is_in_range())
            && rates.iter().all(|rate| *rate <= 1_000_000)
            && spans.iter().all(|span| *span <= LIFE_MAX)
            && self.edge_unit.0 >= 1
            && self.velocity_window > Time::ZERO
            && self.life_default > Time::ZERO
            && self.life_default <= self.life_max
            && self.ratio_bps >= self.stop_ratio_bps
            && self.release_rule <= 2
            && self.settle_by_action <= 1
            && self.late_capture <= 1
            && self.merchants_listed <= 1
            && self.categories_are_valid()
            && self.reserved_a == [0; 32]
            && self.reserved == [0; 20]
    }

    /// Rules up to the first with the category 0, one per category, and nothing behind it.
    fn categories_are_valid(&self) -> bool {
        let end = self.categories.iter().position(|rule| rule.category == 0).unwrap_or(CATEGORY_RULES_MAX);
        let (rules, behind) = self.categories.split_at(end);
        let is_first = |(at, rule): (usize, &CategoryRule)| {
            rule.reserved == 0 && rules[..at].iter().all(|earlier| earlier.category != rule.category)
        };
        rules.iter().enumerate().all(is_first) && behind.iter().all(|rule| *rule == CategoryRule::default())
    }

    /// Over-capture tolerance and headroom for a merchant category, in basis points.
    #[must_use]
    pub fn category(&self, category: u16) -> (u32, u32) {
        let rule = self
            .categories
            .iter()
            .take_while(|rule| rule.category != 0)
            .find(|rule| rule.category == category);
        match rule {
            Some(rule) => (u32::from(rule.tolerance_bps), u32::from(rule.headroom_bps)),
            None => (self.tolerance_bps, self.headroom_bps),
        }
    }

    /// What happens when a capture's settle-by time passes.
    #[must_use]
    pub const fn settle_by_action(&self) -> SettleByAction {
        if self.settle_by_action == 1 { SettleByAction::Settle } else { SettleByAction::Consume }
    }

    /// When a payer's asset counts as final.
    #[must_use]
    pub const fn release_rule(&self) -> ReleaseRule {
        match self.release_rule {
            1 => ReleaseRule::Confirmations { asset: self.release_asset, count: self.release_confirmations },
            2 => ReleaseRule::Timeout,
            _ => ReleaseRule::Manual,
        }
    }

    /// How long a finished lock stays.
    #[must_use]
    pub fn retention(&self) -> Time {
        self.late_window.max(self.refund_window).max(self.settlement_window)
    }
}
