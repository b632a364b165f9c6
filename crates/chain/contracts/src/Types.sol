// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// One net settlement: the newest state, and what of it the contract compares with its own books.
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

/// All that was ever owed to a payee out of a partition, with the path to the payees' root.
struct Credit {
    bytes32 partition;
    address payee;
    uint128 credit;
    bytes32[] path;
}

/// What the state root joins, but for the partitions' sums, which the batch itself tells.
struct Join {
    bytes32 payeesRoot;
    bytes32 top;
    bytes32 suppliersRoot;
    bytes32 consumedRoot;
    bytes32 positionsHash;
}

/// The state of a partition in a batch, and its place in the tree of partitions.
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

/// A node beside the path: its hash, and its sums (locked in the upper half, debit in the lower).
struct SumNode {
    bytes32 hash;
    uint256 sums;
}

/// A supplier's position in a batch.
struct SupplierLeaf {
    bytes32 partition;
    address supplier;
    uint128 units;
    uint128 paidOut;
    bytes32[] path;
}

/// What was credited for a certified lock, over its whole life.
struct ConsumedLeaf {
    bytes32 lockId;
    bytes32 partition;
    address payee;
    uint128 amount;
    bytes32[] path;
}

/// What a certificate states: that so much is guaranteed to a payee until the deadline.
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
