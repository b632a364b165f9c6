//! The trees of `crates/settlement/FORMAT.md`, written once more for these tests.

use alloy_primitives::{B256, U256, keccak256};
use alloy_sol_types::SolValue;
use chain::bindings::{Lock, PartitionLeaf, SumNode};

pub fn enc(words: &[U256]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes::<32>()).collect()
}

pub fn twice(words: &[U256]) -> B256 {
    keccak256(keccak256(enc(words)))
}

/// A plain tree: pairs are sorted, an odd node goes up as it is.
pub struct Plain {
    levels: Vec<Vec<B256>>,
}

impl Plain {
    pub fn new(leaves: Vec<B256>) -> Self {
        let mut levels = vec![leaves];
        while levels.last().unwrap().len() > 1 {
            let above = levels.last().unwrap().chunks(2).map(|pair| match pair {
                [a, b] => keccak256((a.min(b), a.max(b)).abi_encode()),
                _ => pair[0],
            });
            let above = above.collect();
            levels.push(above);
        }
        Self { levels }
    }

    pub fn root(&self) -> B256 {
        self.levels.last().unwrap().first().copied().unwrap_or_default()
    }

    pub fn path(&self, mut place: usize) -> Vec<B256> {
        let mut path = Vec::new();
        for level in &self.levels {
            path.extend(level.get(place ^ 1).copied());
            place /= 2;
        }
        path
    }
}

/// The tree of partitions, with its sums.
pub struct Sums {
    levels: Vec<Vec<(B256, U256)>>,
}

impl Sums {
    pub fn new(leaves: &[PartitionLeaf]) -> Self {
        let mut levels =
            vec![leaves.iter().map(|leaf| (partition_hash(leaf), sums_of(leaf))).collect::<Vec<_>>()];
        while levels.last().unwrap().len() > 1 {
            let level = levels.last_mut().unwrap();
            if level.len() % 2 == 1 {
                level.push((B256::ZERO, U256::ZERO));
            }
            let above = level.chunks(2).map(|pair| {
                let [(a, a_sums), (b, b_sums)] = pair else { unreachable!() };
                let hash = keccak256((*a, *a_sums, *b, *b_sums).abi_encode());
                (hash, a_sums + b_sums)
            });
            let above = above.collect();
            levels.push(above);
        }
        Self { levels }
    }

    pub fn top(&self) -> (B256, U256) {
        self.levels.last().unwrap().first().copied().unwrap_or_default()
    }

    pub fn path(&self, mut place: usize) -> Vec<SumNode> {
        let mut path = Vec::new();
        for level in &self.levels[..self.levels.len() - 1] {
            let (hash, sums) = level[place ^ 1];
            path.push(SumNode { hash, sums });
            place /= 2;
        }
        path
    }
}

pub fn partition_hash(leaf: &PartitionLeaf) -> B256 {
    keccak256(enc(&[
        U256::from(1),
        leaf.partition.into(),
        U256::from(leaf.locked),
        U256::from(leaf.debit),
        U256::from(leaf.exits),
        U256::from(leaf.exitNonce),
        U256::from(leaf.units),
        leaf.salt.into(),
    ]))
}

fn sums_of(leaf: &PartitionLeaf) -> U256 {
    (U256::from(leaf.locked) << 128) | U256::from(leaf.debit)
}

pub fn domain(chain_id: u64, contract: alloy_primitives::Address, engine: u128) -> B256 {
    const TYPE: &str =
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)";
    keccak256(
        (
            keccak256(TYPE),
            keccak256("Surety"),
            keccak256("1"),
            U256::from(chain_id),
            contract,
            U256::from(engine),
        )
            .abi_encode(),
    )
}

pub fn lock_hash(lock: &Lock) -> B256 {
    const TYPE: &str = "Lock(bytes32 lockId,uint16 version,uint16 shard,uint64 seq,bytes32 partition,address payee,\
                        uint128 amount,uint64 deadline,address releaseKey)";
    let mut bytes = keccak256(TYPE).to_vec();
    bytes.extend(lock.abi_encode());
    keccak256(bytes)
}

pub fn release_leaf(lock: B256, version: u32, still_owed: u128) -> B256 {
    twice(&[lock.into(), U256::from(version), U256::from(still_owed)])
}

/// What is signed for the root of a group: `kind` is `LockGroup` or `ReleaseGroup`.
pub fn digest(domain: B256, kind: &str, root: B256) -> B256 {
    let structure = keccak256((keccak256(format!("{kind}(bytes32 root)")), root).abi_encode());
    let mut bytes = vec![0x19, 0x01];
    bytes.extend_from_slice(domain.as_slice());
    bytes.extend_from_slice(structure.as_slice());
    keccak256(bytes)
}
