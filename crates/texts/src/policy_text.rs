//! A partition's policy as people write it: TOML or JSON, spans as `"10m"`, amounts as `"1.5e18"`, rates in basis points.

use serde::{Deserialize, Serialize};
use surety_protocol::limits::CATEGORY_RULES_MAX;
use surety_protocol::{Amount, AssetId, CategoryRule, Policy};

use crate::values::{AmountText, SpanText};

/// The rules of [`Policy`] under the same names. What a file leaves out stands as in [`Policy::default`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyText {
    lock_max: AmountText,
    merchant_open_max: AmountText,
    velocity_value: AmountText,
    velocity_count: u32,
    velocity_window: SpanText,
    edge_unit: AmountText,
    price_age_max: SpanText,
    ratio_bps: u32,
    stop_ratio_bps: u32,
    life_default: SpanText,
    life_max: SpanText,
    settle_by: SpanText,
    settle_by_action: SettleBy,
    late_capture: bool,
    late_window: SpanText,
    refund_window: SpanText,
    settlement_window: SpanText,
    unbonding: SpanText,
    claim_margin: SpanText,
    headroom_bps: u32,
    tolerance_bps: u32,
    fee_bps: u32,
    release_rule: Release,
    release_asset: u32,
    release_confirmations: u32,
    merchants_listed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<CategoryText>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SettleBy {
    Consume,
    Settle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Release {
    Manual,
    Confirmations,
    Timeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CategoryText {
    category: u16,
    #[serde(default)]
    tolerance_bps: u16,
    #[serde(default)]
    headroom_bps: u16,
}

/// Why a text is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, an unknown key, or a value of the wrong form.
    #[error("{0}")]
    Toml(String),
    /// A setting without `=`.
    #[error("`{0}` is no setting; write key=value")]
    Setting(String),
    /// More category rules than a policy holds.
    #[error("{0} category rules, at most {CATEGORY_RULES_MAX} fit")]
    Categories(usize),
    /// The rules contradict each other.
    #[error(
        "the rules contradict each other: spans end at 400 days, life_default must be above 0 and at most life_max, \
         edge_unit at least 1, velocity_window above 0, ratio_bps at least stop_ratio_bps, rates at most 1000000"
    )]
    Contradiction,
}

impl Default for PolicyText {
    fn default() -> Self {
        Self::from(&Policy::default())
    }
}

impl From<&Policy> for PolicyText {
    fn from(policy: &Policy) -> Self {
        let rules = policy.categories.iter().take_while(|rule| rule.category != 0);
        Self {
            lock_max: AmountText(policy.lock_max),
            merchant_open_max: AmountText(policy.merchant_open_max),
            velocity_value: AmountText(policy.velocity_value),
            velocity_count: policy.velocity_count,
            velocity_window: SpanText(policy.velocity_window),
            edge_unit: AmountText(policy.edge_unit),
            price_age_max: SpanText(policy.price_age_max),
            ratio_bps: policy.ratio_bps,
            stop_ratio_bps: policy.stop_ratio_bps,
            life_default: SpanText(policy.life_default),
            life_max: SpanText(policy.life_max),
            settle_by: SpanText(policy.settle_by),
            settle_by_action: if policy.settle_by_action == 1 { SettleBy::Settle } else { SettleBy::Consume },
            late_capture: policy.late_capture == 1,
            late_window: SpanText(policy.late_window),
            refund_window: SpanText(policy.refund_window),
            settlement_window: SpanText(policy.settlement_window),
            unbonding: SpanText(policy.unbonding),
            claim_margin: SpanText(policy.claim_margin),
            headroom_bps: policy.headroom_bps,
            tolerance_bps: policy.tolerance_bps,
            fee_bps: policy.fee_bps,
            release_rule: match policy.release_rule {
                1 => Release::Confirmations,
                2 => Release::Timeout,
                _ => Release::Manual,
            },
            release_asset: policy.release_asset.0,
            release_confirmations: policy.release_confirmations,
            merchants_listed: policy.merchants_listed == 1,
            categories: rules
                .map(|rule| CategoryText {
                    category: rule.category,
                    tolerance_bps: rule.tolerance_bps,
                    headroom_bps: rule.headroom_bps,
                })
                .collect(),
        }
    }
}

impl PolicyText {
    /// Reads TOML, or JSON where the text begins with a brace.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| PolicyError::Toml(error.to_string()))
        } else {
            toml::from_str(text).map_err(|error| PolicyError::Toml(error.to_string()))
        }
    }

    /// Changes single rules, each written `key=value`.
    pub fn with_settings(self, settings: &[String]) -> Result<Self, PolicyError> {
        let mut table = toml::Table::try_from(self).map_err(|error| PolicyError::Toml(error.to_string()))?;
        for setting in settings {
            let (key, value) =
                setting.split_once('=').ok_or_else(|| PolicyError::Setting(setting.clone()))?;
            table.insert(key.trim().to_owned(), crate::values::toml_value(value.trim()));
        }
        table.try_into().map_err(|error: toml::de::Error| PolicyError::Toml(error.message().to_owned()))
    }

    /// The policy as it travels.
    pub fn to_policy(&self) -> Result<Policy, PolicyError> {
        if self.categories.len() > CATEGORY_RULES_MAX {
            return Err(PolicyError::Categories(self.categories.len()));
        }
        let mut categories = [CategoryRule::default(); CATEGORY_RULES_MAX];
        for (slot, rule) in categories.iter_mut().zip(&self.categories) {
            let CategoryText { category, tolerance_bps, headroom_bps } = *rule;
            *slot = CategoryRule { category, tolerance_bps, headroom_bps, reserved: 0 };
        }
        let policy = Policy {
            lock_max: self.lock_max.0,
            merchant_open_max: self.merchant_open_max.0,
            velocity_value: self.velocity_value.0,
            velocity_count: self.velocity_count,
            velocity_window: self.velocity_window.0,
            edge_unit: self.edge_unit.0.max(Amount(1)),
            price_age_max: self.price_age_max.0,
            ratio_bps: self.ratio_bps,
            stop_ratio_bps: self.stop_ratio_bps,
            life_default: self.life_default.0,
            life_max: self.life_max.0,
            settle_by: self.settle_by.0,
            settle_by_action: u8::from(self.settle_by_action == SettleBy::Settle),
            late_capture: u8::from(self.late_capture),
            late_window: self.late_window.0,
            refund_window: self.refund_window.0,
            settlement_window: self.settlement_window.0,
            unbonding: self.unbonding.0,
            claim_margin: self.claim_margin.0,
            headroom_bps: self.headroom_bps,
            tolerance_bps: self.tolerance_bps,
            fee_bps: self.fee_bps,
            release_rule: match self.release_rule {
                Release::Manual => 0,
                Release::Confirmations => 1,
                Release::Timeout => 2,
            },
            release_asset: AssetId(self.release_asset),
            release_confirmations: self.release_confirmations,
            merchants_listed: u8::from(self.merchants_listed),
            categories,
            ..Policy::default()
        };
        if policy.is_valid() { Ok(policy) } else { Err(PolicyError::Contradiction) }
    }

    /// The same as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The text that [`PolicyText::parse`] reads.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# this policy cannot be written: {error}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::Time;

    #[test]
    fn a_policy_survives_its_text() {
        let mut policy = Policy {
            lock_max: Amount(7),
            settle_by_action: 1,
            release_rule: 1,
            release_asset: AssetId(3),
            release_confirmations: 6,
            late_capture: 1,
            late_window: Time::from_millis(1500),
            ..Policy::default()
        };
        policy.categories[0] =
            CategoryRule { category: 5812, tolerance_bps: 2000, headroom_bps: 1000, reserved: 0 };
        let text = PolicyText::from(&policy);
        let again = PolicyText::parse(&text.to_toml()).unwrap();
        assert_eq!(again.to_policy().unwrap(), policy);
        let json = serde_json::to_string(&text).unwrap();
        assert_eq!(PolicyText::parse(&json).unwrap().to_policy().unwrap(), policy);
    }

    #[test]
    fn settings_change_single_rules() {
        let settings =
            ["life_default=20s".to_owned(), "lock_max=1e6".to_owned(), "late_capture=true".to_owned()];
        let policy = PolicyText::default().with_settings(&settings).unwrap().to_policy().unwrap();
        assert_eq!(
            (policy.life_default, policy.lock_max, policy.late_capture),
            (Time::from_secs(20), Amount(1_000_000), 1)
        );
    }

    #[test]
    fn wrong_texts_are_refused() {
        let refuse = |settings: &str| {
            let settings = [settings.to_owned()];
            PolicyText::default().with_settings(&settings).and_then(|text| text.to_policy()).unwrap_err()
        };
        assert!(matches!(refuse("life_default"), PolicyError::Setting(_)));
        assert!(refuse("life_defualt=1s").to_string().contains("life_defualt"));
        assert!(matches!(refuse("life_default=1 week"), PolicyError::Toml(_)));
        assert!(matches!(refuse("life_default=60d"), PolicyError::Contradiction));
        assert!(PolicyText::parse("unknown = 1").is_err());
    }
}
