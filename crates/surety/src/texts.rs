//! The files that people write for `surety`, read and written as the commands do.

use surety_protocol::Policy;

use crate::config::Settings;
use crate::policy_text::PolicyText;

/// Reads the text of a configuration file, as `serve --config` does, and writes it as `--print-config` does.
///
/// # Errors
/// What is wrong with it.
pub fn settings(text: &str) -> Result<String, String> {
    toml::from_str::<Settings>(text).map(|settings| settings.to_toml()).map_err(|error| error.to_string())
}

/// Joins variables of the environment to the settings that they make, and writes those as `--print-config` does.
///
/// # Errors
/// What is wrong with one of them.
pub fn environment(variables: impl Iterator<Item = (String, String)>) -> Result<String, String> {
    let settings = Settings::load(None, variables, &Settings::default());
    settings.map(|settings| settings.to_toml()).map_err(|failure| failure.to_string())
}

/// Reads a policy, as `ctl policy set` does.
///
/// # Errors
/// What is wrong with it.
pub fn policy(text: &str) -> Result<Policy, String> {
    PolicyText::parse(text).and_then(|text| text.to_policy()).map_err(|error| error.to_string())
}

/// Writes a policy, as `ctl policy get` does.
#[must_use]
pub fn policy_text(policy: &Policy) -> String {
    PolicyText::from(policy).to_toml()
}
