//! Types of the contracts' calls, events and errors, as their sources declare them. A test compares every selector and topic with
//! the committed artifacts, so that neither can go its own way.

#![allow(missing_docs, clippy::too_many_arguments, unreachable_pub)]

use alloy_sol_types::sol;

sol! {
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Batch {
        uint64 seq;
        uint64 lsnTo;
        bytes32 prevHead;
        bytes32 stateRoot;
        uint128 sumLocked;
        uint128 sumCredit;
        uint128 guaranteedAck;
        uint32 count;
        bytes32 dataHash;
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Credit {
        bytes32 partition;
        address payee;
        uint128 credit;
        bytes32[] path;
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Join {
        bytes32 payeesRoot;
        bytes32 top;
        bytes32 suppliersRoot;
        bytes32 consumedRoot;
        bytes32 positionsHash;
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct SumNode {
        bytes32 hash;
        uint256 sums;
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct PartitionLeaf {
        bytes32 partition;
        uint128 locked;
        uint128 debit;
        uint128 exits;
        uint64 exitNonce;
        uint128 units;
        bytes32 salt;
        uint32 index;
        SumNode[] path;
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct SupplierLeaf {
        bytes32 partition;
        address supplier;
        uint128 units;
        uint128 paidOut;
        bytes32[] path;
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct ConsumedLeaf {
        bytes32 lockId;
        bytes32 partition;
        address payee;
        uint128 amount;
        bytes32[] path;
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Lock {
        bytes32 lockId;
        uint16 version;
        uint16 shard;
        uint64 seq;
        bytes32 partition;
        address payee;
        uint128 amount;
        uint64 deadline;
        address releaseKey;
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct ManagerSetup {
        address amp;
        address inPlaceStrategy;
        uint128 engineId;
        address owner;
        address guardian;
        address poster;
        address signer;
        uint64 creditPerHour;
        uint32 pauseTime;
        uint32 claimDelay;
        uint32 lifeMax;
        uint32 disputeTime;
        uint32 exitDelay;
    }

    #[derive(Debug, PartialEq, Eq)]
    interface Manager {
        event BatchCommitted(uint64 indexed seq, bytes32 indexed head, bytes32 stateRoot, bytes32 dataHash);
        event ClaimFailed(bytes32 indexed partition, address indexed payee);
        event Exited(bytes32 indexed partition, address indexed supplier, uint256 amount);
        event ExitOpened(bytes32 indexed partition, uint256 residual, uint256 units);
        event ExitRequested(bytes32 indexed partition, address indexed supplier, uint256 indexed nonce);
        event ExitsAnswered(bytes32 indexed partition, uint256 nonce);
        event FrozenForGood(bytes32 indexed partition, uint256 nonce);
        event GuaranteeCalled(
            bytes32 indexed lockId, bytes32 indexed partition, address indexed payee, uint256 amount, uint16 version
        );
        event GuaranteePaid(bytes32 indexed lockId, bytes32 indexed partition, address indexed payee, uint256 amount);
        event GuaranteeReduced(bytes32 indexed lockId, uint256 owed);
        event GuardianSet(address guardian);
        event OwnerSet(address owner);
        event Paid(bytes32 indexed partition, address indexed payee, uint256 amount);
        event PartitionAdded(bytes32 indexed partition, address holder, uint104 guaranteeCap);
        event Paused(uint256 until);
        event PosterSet(address poster, uint64 creditPerHour);
        event SignerSet(address indexed signer, uint16 shard, uint64 from, uint64 to);
        event Supplied(bytes32 indexed partition, address indexed supplier, uint256 amount, uint256 indexed nonce);

        error BadAck(uint256 least, uint256 most);
        error BadPrev();
        error BadProof();
        error BadSequence(uint256 have, uint256 got);
        error BadSig();
        error CreditDecreased();
        error Frozen();
        error GuaranteeLimit(uint256 room, uint256 asked);
        error Insolvent(uint256 need, uint256 have);
        error LockState();
        error LsnNotIncreasing();
        error NotAllowed();
        error NotLive();
        error NotPoster();
        error NothingDue();
        error PayFailed();
        error PayoutLimit(uint256 room, uint256 asked);
        error Reentered();
        error TooEarly();
        error TooLarge();
        error TooLate();
        error UnknownPartition();
        error UnknownRoot();

        function addPartition(bytes32 partition, address holder, uint104 guaranteeCap) external;
        function amp() external view returns (address);
        function callGuarantee(Lock lock, bytes32[] path, bytes signature) external;
        function calledInfo(bytes32 lockId) external view returns (uint8 state, uint256 owed, uint256 time);
        function claim(Credit leaf, bytes32 rest) external;
        function claimDelay() external view returns (uint32);
        function claimMany(Credit[] leaves, bytes32 rest) external;
        function claimRoots() external view returns (bytes32 matured, bytes32 pending, uint256 pendingTime);
        function commitBatch(Batch batch) external;
        function commitBatchWithData(Batch batch, bytes data) external;
        function completeExit(Batch batch, Join parts, PartitionLeaf leaf) external;
        function creditPerHour() external view returns (uint64);
        function dismissGuarantee(
            bytes32 lockId, uint32 version, uint128 stillOwed, uint256 index, bytes32[] path, bytes signature
        ) external;
        function dismissPaid(Batch batch, Join parts, ConsumedLeaf leaf) external;
        function disputeTime() external view returns (uint32);
        function domainSeparator() external view returns (bytes32);
        function engineId() external view returns (uint128);
        function exitDelay() external view returns (uint32);
        function exitOf(bytes32 partition, address supplier) external view returns (uint256 nonce);
        function exitRequestedAt(bytes32 partition, uint256 nonce) external view returns (uint256);
        function exited(bytes32 partition, address supplier) external view returns (bool);
        function freeze(bytes32 partition) external;
        function frozenAt() external view returns (uint40);
        function frozenExit(Batch batch, Join parts, SupplierLeaf leaf) external;
        function guaranteeInfo() external view returns (uint256 paid, uint256 acknowledged);
        function guardian() external view returns (address);
        function headInfo() external view returns (
            uint256 seq, uint256 lsn, uint256 time, uint256 depositNonce, bool frozen, bytes32 head,
            uint256 sumLocked, uint256 sumCredit, uint256 claimed, uint256 pool
        );
        function inPlaceStrategy() external view returns (address);
        function lifeMax() external view returns (uint32);
        function matureHead(Batch batch) external;
        function openExit(Batch batch, Join parts, PartitionLeaf leaf) external;
        function owner() external view returns (address);
        function paid(bytes32 partition, address payee) external view returns (uint256);
        function partitionIds(uint256 number) external view returns (bytes32);
        function partitionInfo(bytes32 partition) external view returns (
            address holder, uint256 balance, uint256 claimed, uint256 guaranteed, uint256 called,
            uint256 exitsRequested, uint256 exitsAnswered
        );
        function pause() external;
        function pauseTime() external view returns (uint32);
        function pausedUntil() external view returns (uint40);
        function poster() external view returns (address);
        function provePartition(Batch batch, Join parts, PartitionLeaf leaf) external;
        function requestExit(bytes32 partition) external;
        function residual(bytes32 partition) external view returns (uint104 amount, uint128 units);
        function setGuaranteeCap(bytes32 partition, uint104 guaranteeCap) external;
        function setGuardian(address guardian_) external;
        function setOwner(address owner_) external;
        function setPoster(address poster_, uint64 creditPerHour_) external;
        function setSigner(address signer, uint16 shard, uint64 from, uint64 to) external;
        function settleGuarantee(bytes32 lockId) external;
        function supplied(bytes32 partition, address supplier) external view returns (uint256);
        function tokensReceived(
            bytes4 functionSig, bytes32 partition, address operator, address from, address to, uint256 value,
            bytes data, bytes operatorData
        ) external;
        function tokensToTransfer(
            bytes4 functionSig, bytes32 partition, address operator, address from, address to, uint256 value,
            bytes data, bytes operatorData
        ) external view;
    }

    #[derive(Debug, PartialEq, Eq)]
    interface Amp {
        event Transfer(address indexed from, address indexed to, uint256 value);
        event TransferByPartition(
            bytes32 indexed fromPartition, address operator, address indexed from, address indexed to, uint256 value,
            bytes data, bytes operatorData
        );
        event ChangedPartition(bytes32 indexed fromPartition, bytes32 indexed toPartition, uint256 value);

        function authorizeOperatorByPartition(bytes32 partition, address operator) external;
        function balanceOf(address holder) external view returns (uint256);
        function balanceOfByPartition(bytes32 partition, address holder) external view returns (uint256);
        function isCollateralManager(address manager) external view returns (bool);
        function isOperatorForPartition(bytes32 partition, address operator, address holder) external view returns (bool);
        function partitionsOf(address holder) external view returns (bytes32[]);
        function setPartitionStrategy(bytes4 prefix, address implementation) external;
        function swap(address from) external;
        function totalSupply() external view returns (uint256);
        function transfer(address to, uint256 value) external returns (bool);
        function transferByPartition(
            bytes32 partition, address from, address to, uint256 value, bytes data, bytes operatorData
        ) external returns (bytes32);
    }

    #[derive(Debug, PartialEq, Eq)]
    interface Swappable {
        function approve(address spender, uint256 value) external returns (bool);
        function mint(address to, uint256 value) external;
    }

    #[derive(Debug, PartialEq, Eq)]
    interface Owned {
        function schedule(address target, bytes call) external;
        function execute(address target, bytes call) external;
        function cancel(bytes32 id) external;
    }

    #[derive(Debug, PartialEq, Eq)]
    interface Receiver {
        function set(uint8 mood_, address target_, bytes call_) external;
        function act(address target_, bytes call_) external;
        function succeeded() external view returns (bool);
        function answer() external view returns (bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{B256, keccak256};
    use alloy_sol_types::{SolEventInterface, SolInterface};
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn abi(name: &str) -> Vec<Value> {
        let path = format!("{}/contracts/artifacts/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        file["abi"].as_array().unwrap().clone()
    }

    /// A type in a signature; structs are written out.
    fn type_of(input: &Value) -> String {
        let name = input["type"].as_str().unwrap();
        let Some(rest) = name.strip_prefix("tuple") else { return name.to_owned() };
        let parts: Vec<String> = input["components"].as_array().unwrap().iter().map(type_of).collect();
        format!("({}){rest}", parts.join(","))
    }

    fn hashes(abi: &[Value], kind: &str) -> BTreeSet<B256> {
        let items = abi.iter().filter(|item| item["type"] == kind);
        items
            .map(|item| {
                let inputs: Vec<String> = item["inputs"].as_array().unwrap().iter().map(type_of).collect();
                keccak256(format!("{}({})", item["name"].as_str().unwrap(), inputs.join(",")))
            })
            .collect()
    }

    fn selectors(hashes: &BTreeSet<B256>) -> BTreeSet<[u8; 4]> {
        hashes.iter().map(|hash| hash[..4].try_into().unwrap()).collect()
    }

    #[test]
    fn the_manager_has_exactly_these_functions_events_and_errors() {
        let abi = abi("CollateralManager");
        let calls: BTreeSet<[u8; 4]> = Manager::ManagerCalls::selectors().collect();
        assert_eq!(calls, selectors(&hashes(&abi, "function")));
        let errors: BTreeSet<[u8; 4]> = Manager::ManagerErrors::selectors().collect();
        assert_eq!(errors, selectors(&hashes(&abi, "error")));
        let events: BTreeSet<B256> = Manager::ManagerEvents::SELECTORS.iter().map(B256::from).collect();
        assert_eq!(events, hashes(&abi, "event"));
        assert_eq!(Manager::ManagerEvents::COUNT, events.len());
    }

    #[test]
    fn the_other_contracts_have_what_is_called_on_them() {
        let check = |name: &str, calls: Vec<[u8; 4]>| {
            let known = selectors(&hashes(&abi(name), "function"));
            assert!(calls.iter().all(|call| known.contains(call)), "{name}");
        };
        check("AmpToken", Amp::AmpCalls::selectors().collect());
        check("SwapToken", Swappable::SwappableCalls::selectors().collect());
        check("Timelock", Owned::OwnedCalls::selectors().collect());
        check("TestReceiver", Receiver::ReceiverCalls::selectors().collect());
    }
}
