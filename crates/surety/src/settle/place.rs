//! The file that says where the contracts are: `deploy` writes it, `run` reads it.

use std::path::Path;

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use settler::{Deployed, Place};

use crate::exit::{Exit, Failure};

/// What `deploy` writes.
pub(super) fn text(deployed: &Deployed) -> Value {
    let place = &deployed.place;
    json!({
        "chain_id": place.chain_id,
        "manager": place.manager.to_string(),
        "code_hash": place.code_hash.to_string(),
        "since_block": place.since_block,
        "amp": deployed.token.amp.to_string(),
        "in_place_strategy": deployed.token.in_place_strategy.to_string(),
        "swap_token": deployed.swap_token.map(|token| token.to_string()),
    })
}

/// Reads the place out of it.
pub(crate) fn read(file: &Path) -> Result<Place, Failure> {
    let wrong = |what: &str| {
        Failure::new(
            Exit::Usage,
            format!("{}: {what}; `surety settle deploy` writes such a file", file.display()),
        )
    };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
    let number = |name: &str| value[name].as_u64().ok_or_else(|| wrong(&format!("no number `{name}`")));
    let text = |name: &str| value[name].as_str().ok_or_else(|| wrong(&format!("no text `{name}`")));
    let manager: Address = text("manager")?.parse().map_err(|_| wrong("`manager` is no address"))?;
    let code_hash: B256 = text("code_hash")?.parse().map_err(|_| wrong("`code_hash` is no hash"))?;
    Ok(Place { chain_id: number("chain_id")?, manager, code_hash, since_block: number("since_block")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("settlement.json");
        let place = Place {
            chain_id: 31337,
            manager: Address::repeat_byte(3),
            code_hash: B256::repeat_byte(4),
            since_block: 5,
        };
        let token =
            settler::Token { amp: Address::repeat_byte(6), in_place_strategy: Address::repeat_byte(7) };
        let whole = text(&Deployed { place, token, swap_token: None });
        std::fs::write(&file, whole.to_string()).expect("written");
        assert_eq!(read(&file).expect("a place"), place);
        for name in ["chain_id", "manager", "code_hash", "since_block"] {
            let mut less = whole.clone();
            less[name] = Value::Null;
            std::fs::write(&file, less.to_string()).expect("written");
            assert!(read(&file).expect_err("no place").to_string().contains(name));
        }
    }
}
