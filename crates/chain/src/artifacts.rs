//! The compiled contracts, as `contracts/build.mjs` wrote them. A test holds them against their sources.

use alloy_primitives::{Bytes, hex};

/// A compiled contract.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// What is sent to create it, before the arguments of its constructor.
    pub bytecode: Bytes,
    /// SHA-256 over all sources, in hexadecimal.
    pub source_hash: String,
    /// Bytes of code at run time.
    pub runtime_bytes: u64,
}

macro_rules! artifact {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name() -> Artifact {
            read(include_str!(concat!("../contracts/artifacts/", $file, ".json")))
        }
    };
}

artifact!(
    /// The token, for development.
    amp_token,
    "AmpToken"
);
artifact!(
    /// The collateral manager.
    collateral_manager,
    "CollateralManager"
);
artifact!(
    /// The token's strategy for stake in place.
    in_place_strategy,
    "InPlaceStrategy"
);
artifact!(
    /// The token's strategy for collateral that a manager holds.
    pool_strategy,
    "PoolStrategy"
);
artifact!(
    /// The ERC-1820 registry, for development.
    interface_registry,
    "InterfaceRegistry"
);
artifact!(
    /// The token that is swapped for the other, for development.
    swap_token,
    "SwapToken"
);
artifact!(
    /// The manager's owner in a deployment with money of others.
    timelock,
    "Timelock"
);
artifact!(
    /// A payee whose hook does what a test tells it.
    test_receiver,
    "TestReceiver"
);

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    bytecode: String,
    source_hash: String,
    runtime_bytes: u64,
}

fn read(text: &str) -> Artifact {
    // Both are constants of this build, and a test reads each of them.
    let file: File = serde_json::from_str(text).expect("a committed artifact is JSON");
    let bytecode = hex::decode(&file.bytecode).expect("its code is hexadecimal");
    Artifact { bytecode: bytecode.into(), source_hash: file.source_hash, runtime_bytes: file.runtime_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn artifacts_belong_to_the_sources() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/contracts/src");
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".sol"))
            .collect();
        names.sort();
        let mut hasher = Sha256::new();
        for name in &names {
            let text = std::fs::read_to_string(format!("{directory}/{name}")).unwrap();
            hasher.update(format!("{name}\0{text}\0"));
        }
        let hash = hex::encode(hasher.finalize());
        for artifact in [
            amp_token(),
            collateral_manager(),
            in_place_strategy(),
            pool_strategy(),
            interface_registry(),
            swap_token(),
            timelock(),
            test_receiver(),
        ] {
            assert_eq!(artifact.source_hash, hash, "run `npm run build` in crates/chain/contracts");
            assert!(!artifact.bytecode.is_empty());
        }
    }

    #[test]
    fn the_manager_stays_small() {
        let bytes = collateral_manager().runtime_bytes;
        println!("CollateralManager: {bytes} bytes at run time");
        assert!(bytes <= 16 * 1024);
    }
}
