// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Claims} from "./Claims.sol";
import {Proofs} from "./Proofs.sol";
import {Batch, ConsumedLeaf, Join, Lock} from "./Types.sol";

/// A merchant enforces a lock with nothing but its certificate; the operator answers with the merchant's own release, or with
/// the proof that it was credited.
abstract contract Guarantees is Claims {
    event GuaranteeCalled(
        bytes32 indexed lockId, bytes32 indexed partition, address indexed payee, uint256 amount, uint16 version
    );
    event GuaranteeReduced(bytes32 indexed lockId, uint256 owed);
    event GuaranteePaid(bytes32 indexed lockId, bytes32 indexed partition, address indexed payee, uint256 amount);

    error LockState();
    error TooLate();
    error GuaranteeLimit(uint256 room, uint256 asked);

    enum State {
        None,
        Called,
        Dismissed,
        Paid
    }

    /// A lock that was called. Amounts are below 2^96.
    struct Called {
        address payee;
        State state;
        uint16 version;
        uint40 time;
        uint32 partition;
        address releaseKey;
        /// What the certificate states.
        uint96 amount;
        uint16 signer;
        uint16 shard;
        uint64 seq;
        /// What of it is owed.
        uint96 owed;
    }

    /// Seconds that a deadline can lie ahead, and for which a call can be answered.
    uint32 public immutable lifeMax;
    uint32 public immutable disputeTime;

    mapping(bytes32 lockId => Called) internal called;
    /// When the contract froze.
    uint40 public frozenAt;

    constructor(uint32 lifeMax_, uint32 disputeTime_) {
        lifeMax = lifeMax_;
        disputeTime = disputeTime_;
    }

    /// What became of a call: its state, what is owed, and since when.
    function calledInfo(bytes32 lockId) external view returns (State state, uint256 owed, uint256 time) {
        Called storage here = called[lockId];
        return (here.state, here.owed, here.time);
    }

    /// Claims a lock by its certificate: the lock, the path to its group's root, and a signature over that root. A higher
    /// version may be called in place of a lower one, and after one that was dismissed.
    function callGuarantee(Lock calldata lock, bytes32[] calldata path, bytes calldata signature) external {
        Partition storage here = _live(lock.partition);
        // No engine makes a lock longer than the longest life; none was made after the freeze.
        uint256 latest = (frozenAt != 0 ? frozenAt : block.timestamp) + lifeMax;
        if (block.timestamp > lock.deadline || lock.deadline > latest) revert TooLate();
        if (lock.amount == 0 || lock.amount > type(uint96).max) revert TooLarge();
        Called storage entry = called[lock.lockId];
        State state = entry.state;
        if (state == State.Paid) revert LockState();
        if (state != State.None && (lock.version <= entry.version || entry.partition != here.number)) {
            revert LockState();
        }
        uint16 signer = signerIds[signerOfLocks(Proofs.climb(lockHash(lock), path), signature)];
        if (!_mayCertify(signer, lock.shard, lock.seq)) revert BadSig();
        here.called = _fit(uint256(here.called) - entry.owed + lock.amount);
        entry.payee = lock.payee;
        entry.state = State.Called;
        entry.version = lock.version;
        entry.time = uint40(block.timestamp);
        entry.partition = here.number;
        entry.releaseKey = lock.releaseKey;
        entry.amount = uint96(lock.amount);
        entry.signer = signer;
        entry.shard = lock.shard;
        entry.seq = lock.seq;
        entry.owed = uint96(lock.amount);
        emit GuaranteeCalled(lock.lockId, lock.partition, lock.payee, lock.amount, lock.version);
    }

    /// The merchant's own release: of this version and all before it, but for what it says is still owed.
    function dismissGuarantee(
        bytes32 lockId,
        uint32 version,
        uint128 stillOwed,
        uint256 index,
        bytes32[] calldata path,
        bytes calldata signature
    ) external {
        Called storage entry = _called(lockId);
        if (version < entry.version || stillOwed >= entry.owed) revert LockState();
        bytes32 leaf = Proofs.twice(keccak256(abi.encode(lockId, version, stillOwed)));
        if (signerOfReleases(Proofs.climbDirected(leaf, index, path), signature) != entry.releaseKey) revert BadSig();
        _reduce(lockId, entry, uint96(stillOwed));
    }

    /// What was credited for the lock can be claimed as a credit, and so not as a guarantee.
    function dismissPaid(Batch calldata batch, Join calldata parts, ConsumedLeaf calldata leaf) external {
        Called storage entry = _called(leaf.lockId);
        _checkKnown(batch);
        Proofs.checkConsumed(batch, parts, leaf);
        if (leaf.partition != partitionIds[entry.partition] || leaf.payee != entry.payee) revert LockState();
        (uint128 credited, uint96 amount) = (leaf.amount, entry.amount);
        uint96 rest = credited < amount ? amount - uint96(credited) : 0;
        if (rest >= entry.owed) revert LockState();
        _reduce(leaf.lockId, entry, rest);
    }

    /// Pays a called lock that nobody has answered in time. A range that was voided since is paid no more.
    function settleGuarantee(bytes32 lockId) external oneAtATime {
        _checkNotPaused();
        Called storage entry = _called(lockId);
        if (block.timestamp < uint256(entry.time) + disputeTime) revert TooEarly();
        if (!_mayCertify(entry.signer, entry.shard, entry.seq)) revert BadSig();
        bytes32 partition = partitionIds[entry.partition];
        Partition storage here = partitions[partition];
        uint104 amount = entry.owed;
        here.called -= amount;
        uint104 balance = here.balance;
        if (balance < amount) {
            // Only when nothing comes in any more is a part better than nothing.
            if (!_exitsAreOpen() || balance == 0) revert Insolvent(amount, balance);
            amount = balance;
        }
        _book(here, amount);
        entry.state = State.Paid;
        entry.owed = 0;
        address payee = entry.payee;
        emit GuaranteePaid(lockId, partition, payee, amount);
        _pay(partition, here, payee, amount);
    }

    /// After a freeze: when the last deadline and the time to answer a call are past.
    function _exitsAreOpen() internal view returns (bool) {
        return frozenAt != 0 && block.timestamp > uint256(frozenAt) + lifeMax + disputeTime;
    }

    function _called(bytes32 lockId) private view returns (Called storage entry) {
        entry = called[lockId];
        if (entry.state != State.Called) revert LockState();
    }

    function _reduce(bytes32 lockId, Called storage entry, uint96 owed) private {
        partitions[partitionIds[entry.partition]].called -= entry.owed - owed;
        entry.owed = owed;
        if (owed == 0) entry.state = State.Dismissed;
        emit GuaranteeReduced(lockId, owed);
    }

    /// Counts a guarantee against what the partition has locked, and for the next batches.
    function _book(Partition storage here, uint104 amount) private {
        uint32 seq = progress.seq;
        if (seq > uint256(here.paidSeq) + ACK_BATCHES) here.guaranteedBefore = here.guaranteed;
        uint256 room = uint256(here.locked) + here.guaranteeCap;
        uint256 asked = uint256(here.guaranteed) - here.guaranteedBooked + amount;
        if (asked > room) revert GuaranteeLimit(room, asked);
        here.paidSeq = seq;
        here.guaranteed += amount;
        guaranteed.paid += amount;
        guaranteed.seq = seq;
    }
}
