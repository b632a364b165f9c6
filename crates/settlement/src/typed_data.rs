//! EIP-712: what exactly is signed, for one engine, one contract and one chain.

use surety_protocol::{Address, EngineId};

use crate::hash::{Hash, keccak, keccak_enc};

/// Where a signature counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The settlement's chain; 0 without one.
    pub chain_id: u64,
    /// The settlement's contract; zero without one.
    pub contract: Address,
    /// The engine.
    pub engine: EngineId,
}

impl Domain {
    /// The domain separator; also the head before the first batch.
    #[must_use]
    pub fn separator(&self) -> Hash {
        const TYPE: &[u8] =
            b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)";
        keccak_enc!(
            keccak(&[TYPE]),
            keccak(&[b"Surety"]),
            keccak(&[b"1"]),
            self.chain_id,
            self.contract,
            self.engine.0,
        )
    }

    /// What the engine signs for a group of certified locks.
    #[must_use]
    pub fn lock_group_digest(&self, root: &Hash) -> Hash {
        self.digest(keccak_enc!(keccak(&[b"LockGroup(bytes32 root)"]), *root))
    }

    /// What a merchant signs for a group of releases.
    #[must_use]
    pub fn release_group_digest(&self, root: &Hash) -> Hash {
        self.digest(keccak_enc!(keccak(&[b"ReleaseGroup(bytes32 root)"]), *root))
    }

    fn digest(&self, structure: Hash) -> Hash {
        keccak(&[&[0x19, 0x01], &self.separator(), &structure])
    }
}
