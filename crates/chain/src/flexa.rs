//! The collateral manager that is deployed today, read only: what its events mean and how its roots are made.
//!
//! Its trees sort their leaves and the two children of every node, and an odd node goes up as it is.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolEvent, SolValue, sol};

use crate::backend::LoggedEvent;

sol! {
    /// A supply: whom it belongs to, where, how much, and its number.
    #[derive(Debug, PartialEq, Eq)]
    event SupplyReceipt(address indexed supplier, bytes32 indexed partition, uint256 amount, uint256 indexed nonce);
    /// A root under which withdrawals can be proven.
    #[derive(Debug, PartialEq, Eq)]
    event WithdrawalRootHashAddition(bytes32 indexed rootHash, uint256 indexed nonce);
}

/// What a transfer asks the manager for, in the first word of `operatorData`.
const WITHDRAWAL: B256 = B256::repeat_byte(0xaa);
const FALLBACK: B256 = B256::repeat_byte(0xbb);
const REFUND: B256 = B256::repeat_byte(0xcc);
const DIRECT: B256 = B256::repeat_byte(0xdd);

/// A supply, as the manager has recorded it; none for any other event.
#[must_use]
pub fn supply(event: &LoggedEvent) -> Option<SupplyReceipt> {
    SupplyReceipt::decode_raw_log(event.topics.iter().copied(), &event.data).ok()
}

/// A withdrawal root, as the manager has recorded it; none for any other event.
#[must_use]
pub fn withdrawal_root(event: &LoggedEvent) -> Option<WithdrawalRootHashAddition> {
    WithdrawalRootHashAddition::decode_raw_log(event.topics.iter().copied(), &event.data).ok()
}

/// The leaf of a withdrawal.
#[must_use]
pub fn withdrawal_leaf(
    supplier: Address,
    partition: B256,
    value: U256,
    max_authorized_account_nonce: U256,
) -> B256 {
    keccak256((supplier, partition, value, max_authorized_account_nonce).abi_encode_packed())
}

/// The leaf of a supplier's whole cumulative supply, for when nobody publishes withdrawals any more.
#[must_use]
pub fn fallback_leaf(supplier: Address, partition: B256, cumulative_supply: U256) -> B256 {
    keccak256((supplier, partition, cumulative_supply).abi_encode_packed())
}

/// What a transfer asks the manager for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A withdrawal under a published root.
    Withdrawal {
        /// Whose.
        supplier: Address,
        /// The highest withdrawal nonce for which the leaf holds.
        max_authorized_account_nonce: U256,
        /// The path to the root.
        proof: Vec<B256>,
    },
    /// A withdrawal under the fallback root.
    Fallback {
        /// Whose.
        supplier: Address,
        /// All that the supplier has brought.
        cumulative_supply: U256,
        /// The path to the root.
        proof: Vec<B256>,
    },
    /// A supply that goes back.
    Refund {
        /// The supply's number.
        supply_nonce: U256,
    },
    /// A transfer by the manager's own operator.
    Direct,
}

impl Request {
    /// Reads `operatorData`; none for what the manager does not know.
    #[must_use]
    pub fn from_operator_data(data: &[u8]) -> Option<Self> {
        let flag = B256::try_from(data.get(..32)?).ok()?;
        match flag {
            WITHDRAWAL => {
                let (_, supplier, nonce, proof) =
                    <(B256, Address, U256, Vec<B256>)>::abi_decode_params_validate(data).ok()?;
                Some(Self::Withdrawal { supplier, max_authorized_account_nonce: nonce, proof })
            }
            FALLBACK => {
                let (_, supplier, supply, proof) =
                    <(B256, Address, U256, Vec<B256>)>::abi_decode_params_validate(data).ok()?;
                Some(Self::Fallback { supplier, cumulative_supply: supply, proof })
            }
            REFUND => {
                let (_, supply_nonce) = <(B256, U256)>::abi_decode_params_validate(data).ok()?;
                Some(Self::Refund { supply_nonce })
            }
            DIRECT => (data.len() == 32).then_some(Self::Direct),
            _ => None,
        }
    }

    /// Writes it as `operatorData`.
    #[must_use]
    pub fn to_operator_data(&self) -> Bytes {
        let bytes = match self {
            Self::Withdrawal { supplier, max_authorized_account_nonce, proof } => {
                (WITHDRAWAL, *supplier, *max_authorized_account_nonce, proof.clone()).abi_encode_params()
            }
            Self::Fallback { supplier, cumulative_supply, proof } => {
                (FALLBACK, *supplier, *cumulative_supply, proof.clone()).abi_encode_params()
            }
            Self::Refund { supply_nonce } => (REFUND, *supply_nonce).abi_encode_params(),
            Self::Direct => DIRECT.to_vec(),
        };
        bytes.into()
    }
}

/// `data` that moves tokens into another partition.
#[must_use]
pub fn change_partition(partition: B256) -> Bytes {
    (B256::repeat_byte(0xff), partition).abi_encode_params().into()
}

/// The root of a set of leaves; none for none.
#[must_use]
pub fn root(leaves: &[B256]) -> Option<B256> {
    levels(leaves).last().and_then(|level| level.first().copied())
}

/// The path of a leaf to the root; none for a leaf that is not in the set.
#[must_use]
pub fn proof(leaves: &[B256], leaf: B256) -> Option<Vec<B256>> {
    let levels = levels(leaves);
    let mut place = levels.first()?.iter().position(|other| *other == leaf)?;
    let mut path = Vec::new();
    for level in &levels {
        path.extend(level.get(place ^ 1).copied());
        place /= 2;
    }
    Some(path)
}

/// The root to which a path leads.
#[must_use]
pub fn climb(leaf: B256, proof: &[B256]) -> B256 {
    proof.iter().fold(leaf, |here, other| node(here, *other))
}

fn levels(leaves: &[B256]) -> Vec<Vec<B256>> {
    let mut level = leaves.to_vec();
    level.sort_unstable();
    let mut levels = Vec::new();
    while level.len() > 1 {
        let above =
            level.chunks(2).map(|pair| if let [a, b] = pair { node(*a, *b) } else { pair[0] }).collect();
        levels.push(core::mem::replace(&mut level, above));
    }
    levels.push(level);
    levels
}

fn node(a: B256, b: B256) -> B256 {
    keccak256((a.min(b), a.max(b)).abi_encode_packed())
}
