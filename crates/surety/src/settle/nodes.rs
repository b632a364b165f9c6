//! How a configuration names a node, with its secrets in the environment if need be.

use std::path::Path;
use std::time::Duration;

use chain::JsonRpc;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::exit::{Exit, Failure};

/// How long a node may take for one answer.
pub(super) const NODE_TIMEOUT: Duration = Duration::from_secs(20);

/// A node: its address, or the environment variable that holds it, since addresses often are the key to a paid service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    url: Option<String>,
    url_env: Option<String>,
    /// The environment variable that holds `name:password`.
    login_env: Option<String>,
}

impl Node {
    pub(super) fn url(&self) -> Result<String, Failure> {
        match (&self.url, &self.url_env) {
            (Some(url), None) => Ok(url.clone()),
            (None, Some(variable)) => environment(variable),
            _ => Err(Failure::new(Exit::Usage, "a node has either `url` or `url_env`")),
        }
    }

    pub(super) fn open(&self) -> Result<JsonRpc, Failure> {
        let node = JsonRpc::new(&self.url()?, NODE_TIMEOUT);
        match &self.login_env {
            Some(variable) => Ok(node.with_login(&environment(variable)?)),
            None => Ok(node),
        }
    }
}

fn environment(variable: &str) -> Result<String, Failure> {
    let missing = |_| Failure::new(Exit::Usage, format!("the environment variable {variable} is not set"));
    std::env::var(variable).map_err(missing)
}

/// Reads a TOML file of settings.
pub(super) fn read<T: DeserializeOwned>(file: &Path) -> Result<T, Failure> {
    let wrong =
        |error: &dyn core::fmt::Display| Failure::new(Exit::Usage, format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    toml::from_str(&text).map_err(|error| wrong(&error))
}
