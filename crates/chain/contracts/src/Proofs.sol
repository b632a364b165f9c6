// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Batch, ConsumedLeaf, Credit, Join, PartitionLeaf, SumNode, SupplierLeaf} from "./Types.sol";

/// The hashes that engine, settler and contract agree on; `crates/settlement/FORMAT.md` has every byte of them.
library Proofs {
    error BadProof();

    uint256 internal constant TREE_PARTITIONS = 1;
    uint256 internal constant TREE_PAYEES = 2;
    uint256 internal constant TREE_SUPPLIERS = 3;
    uint256 internal constant TREE_CONSUMED = 4;
    /// No tree has more than 2^32 leaves.
    uint256 internal constant PATH_MAX = 32;

    /// The head that a batch makes.
    function head(Batch calldata batch) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let memory_ := mload(0x40)
            calldatacopy(memory_, batch, 288)
            hash := keccak256(memory_, 288)
        }
    }

    /// The state root to which a payee's credit leads.
    function claimRoot(Credit calldata leaf, bytes32 rest) internal pure returns (bytes32) {
        bytes32 start;
        assembly ("memory-safe") {
            start := leaf
        }
        return node(climb(plainLeaf(TREE_PAYEES, start, 3), leaf.path), rest);
    }

    /// Refuses a supplier that is not in the batch.
    function checkSupplier(Batch calldata batch, Join calldata parts, SupplierLeaf calldata leaf) internal pure {
        bytes32 start;
        assembly ("memory-safe") {
            start := leaf
        }
        if (climb(plainLeaf(TREE_SUPPLIERS, start, 4), leaf.path) != parts.suppliersRoot) revert BadProof();
        checkJoin(batch, parts);
    }

    /// Refuses a consumed lock that is not in the batch.
    function checkConsumed(Batch calldata batch, Join calldata parts, ConsumedLeaf calldata leaf) internal pure {
        bytes32 start;
        assembly ("memory-safe") {
            start := leaf
        }
        if (climb(plainLeaf(TREE_CONSUMED, start, 4), leaf.path) != parts.consumedRoot) revert BadProof();
        checkJoin(batch, parts);
    }

    /// Refuses a partition that is not in the batch, or whose tree does not add up to what the batch says.
    function checkPartition(Batch calldata batch, Join calldata parts, PartitionLeaf calldata leaf) internal pure {
        (bytes32 hash, uint256 sums) = climbSums(leaf);
        if (hash != parts.top || sums != topSums(batch)) revert BadProof();
        checkJoin(batch, parts);
    }

    /// The root above a leaf of a plain tree, whose pairs are sorted.
    function climb(bytes32 hash, bytes32[] calldata path) internal pure returns (bytes32) {
        if (path.length > PATH_MAX) revert BadProof();
        for (uint256 level = 0; level < path.length; level++) {
            bytes32 other = path[level];
            hash = hash < other ? node(hash, other) : node(other, hash);
        }
        return hash;
    }

    /// The root above a leaf of a tree whose paths are directed by the leaf's index.
    function climbDirected(bytes32 hash, uint256 index, bytes32[] calldata path) internal pure returns (bytes32) {
        if (path.length > PATH_MAX || index >> path.length != 0) revert BadProof();
        for (uint256 level = 0; level < path.length; level++) {
            bytes32 other = path[level];
            hash = index >> level & 1 == 0 ? node(hash, other) : node(other, hash);
        }
        return hash;
    }

    function twice(bytes32 hash) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(hash));
    }

    function node(bytes32 left, bytes32 right) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            mstore(0x00, left)
            mstore(0x20, right)
            hash := keccak256(0x00, 0x40)
        }
    }

    /// A leaf's own hash: the number of its tree and its first words, as they stand in the calldata. Whatever of them is used
    /// is checked where it is used; a word with stray bits makes a hash that leads nowhere.
    function leafHash(uint256 tree, bytes32 start, uint256 words) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let memory_ := mload(0x40)
            mstore(memory_, tree)
            calldatacopy(add(memory_, 32), start, mul(words, 32))
            hash := keccak256(memory_, mul(add(words, 1), 32))
        }
    }

    function plainLeaf(uint256 tree, bytes32 start, uint256 words) private pure returns (bytes32) {
        return twice(leafHash(tree, start, words));
    }

    function sumNode(bytes32 left, uint256 leftSums, bytes32 right, uint256 rightSums)
        private
        pure
        returns (bytes32 hash)
    {
        assembly ("memory-safe") {
            let memory_ := mload(0x40)
            mstore(memory_, left)
            mstore(add(memory_, 32), leftSums)
            mstore(add(memory_, 64), right)
            mstore(add(memory_, 96), rightSums)
            hash := keccak256(memory_, 128)
        }
    }

    function topSums(Batch calldata batch) private pure returns (uint256) {
        return pack(batch.sumLocked, uint256(batch.sumCredit) + batch.guaranteedAck);
    }

    function checkJoin(Batch calldata batch, Join calldata parts) private pure {
        bytes32 rest = keccak256(
            abi.encode(parts.top, topSums(batch), parts.suppliersRoot, parts.consumedRoot, parts.positionsHash)
        );
        if (node(parts.payeesRoot, rest) != batch.stateRoot) revert BadProof();
    }

    function climbSums(PartitionLeaf calldata leaf) private pure returns (bytes32 hash, uint256 sums) {
        if (leaf.path.length > PATH_MAX || uint256(leaf.index) >> leaf.path.length != 0) revert BadProof();
        bytes32 start;
        assembly ("memory-safe") {
            start := leaf
        }
        hash = leafHash(TREE_PARTITIONS, start, 7);
        sums = pack(leaf.locked, leaf.debit);
        for (uint256 level = 0; level < leaf.path.length; level++) {
            SumNode calldata other = leaf.path[level];
            hash = leaf.index >> level & 1 == 0
                ? sumNode(hash, sums, other.hash, other.sums)
                : sumNode(other.hash, other.sums, hash, sums);
            sums = pack(
                (sums >> 128) + (other.sums >> 128), uint256(uint128(sums)) + uint256(uint128(other.sums))
            );
        }
    }

    /// Two sums in one word; a sum that does not fit is no proof of anything.
    function pack(uint256 locked, uint256 debit) private pure returns (uint256) {
        if (locked > type(uint128).max || debit > type(uint128).max) revert BadProof();
        return locked << 128 | debit;
    }
}
