// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Batches} from "./Batches.sol";
import {Claims} from "./Claims.sol";
import {Custody} from "./Custody.sol";
import {Guarantees} from "./Guarantees.sol";
import {IAmp} from "./Interfaces.sol";
import {Proofs} from "./Proofs.sol";
import {Roles} from "./Roles.sol";
import {Signatures} from "./Signatures.sol";
import {Batch, Join, PartitionLeaf, SupplierLeaf} from "./Types.sol";

/// Takes collateral in as supplies and lets it go only by rule: credits of a batch, guarantees of a certificate, and, when
/// the operator has vanished, what is left to the suppliers. CONTRACTS.md has the roles and what each key can do.
contract CollateralManager is Guarantees {
    event ExitRequested(bytes32 indexed partition, address indexed supplier, uint256 indexed nonce);
    event ExitsAnswered(bytes32 indexed partition, uint256 nonce);
    event FrozenForGood(bytes32 indexed partition, uint256 nonce);
    event ExitOpened(bytes32 indexed partition, uint256 residual, uint256 units);
    event Exited(bytes32 indexed partition, address indexed supplier, uint256 amount);

    /// What a deployment decides for good, and the first holders of the roles.
    struct Setup {
        IAmp amp;
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

    /// What is left to the suppliers of a partition, and to how many units.
    struct Residual {
        uint104 amount;
        uint128 units;
    }

    /// Seconds within which a batch must answer a requested exit.
    uint32 public immutable exitDelay;

    mapping(bytes32 partition => mapping(uint256 nonce => uint256)) public exitRequestedAt;
    mapping(bytes32 partition => mapping(address supplier => uint256 nonce)) public exitOf;
    mapping(bytes32 partition => Residual) public residual;
    mapping(bytes32 partition => mapping(address supplier => bool)) public exited;

    constructor(Setup memory setup)
        Roles(setup.owner, setup.guardian, setup.pauseTime)
        Custody(setup.amp, setup.inPlaceStrategy)
        Signatures(setup.engineId)
        Batches(setup.claimDelay)
        Guarantees(setup.lifeMax, setup.disputeTime)
    {
        // An engine that stops locks in time leaves no certificate beyond a freeze.
        if (setup.exitDelay <= uint256(setup.lifeMax) + setup.disputeTime) revert TooEarly();
        exitDelay = setup.exitDelay;
        _setPoster(setup.poster, setup.creditPerHour);
        _setSigner(setup.signer, ANY_SHARD, 0, type(uint64).max);
    }

    /// Asks on chain to leave. Whoever has supplied may ask; one request at a time.
    function requestExit(bytes32 partition) external {
        Partition storage here = _live(partition);
        if (progress.frozen) revert Frozen();
        if (supplied[partition][msg.sender] == 0) revert NotAllowed();
        if (exitOf[partition][msg.sender] > here.exitsAnswered) revert TooEarly();
        uint64 nonce = ++here.exitsRequested;
        exitOf[partition][msg.sender] = nonce;
        exitRequestedAt[partition][nonce] = block.timestamp;
        emit ExitRequested(partition, msg.sender, nonce);
    }

    /// Shows that a batch has answered exits. What it owes to the suppliers they claim as credits.
    function completeExit(Batch calldata batch, Join calldata parts, PartitionLeaf calldata leaf) external {
        _checkKnown(batch);
        Proofs.checkPartition(batch, parts, leaf);
        Partition storage here = _live(leaf.partition);
        if (leaf.exitNonce <= here.exitsAnswered || leaf.exitNonce > here.exitsRequested) revert NothingDue();
        here.exitsAnswered = leaf.exitNonce;
        emit ExitsAnswered(leaf.partition, leaf.exitNonce);
    }

    /// Ends all commits and supplies for good, when a requested exit has gone without an answer for too long.
    function freeze(bytes32 partition) external {
        Partition storage here = _live(partition);
        uint256 nonce = uint256(here.exitsAnswered) + 1;
        uint256 requested = exitRequestedAt[partition][nonce];
        if (progress.frozen) revert Frozen();
        if (requested == 0 || block.timestamp <= requested + exitDelay) revert TooEarly();
        progress.frozen = true;
        frozenAt = uint40(block.timestamp);
        emit FrozenForGood(partition, nonce);
    }

    /// Once no certificate can be called or answered any more: finds what a partition owes nobody but its suppliers.
    function openExit(Batch calldata batch, Join calldata parts, PartitionLeaf calldata leaf) external {
        if (!_exitsAreOpen()) revert TooEarly();
        if (residual[leaf.partition].units != 0) revert LockState();
        _checkNewest(batch);
        Proofs.checkPartition(batch, parts, leaf);
        Partition storage here = _live(leaf.partition);
        if (leaf.units == 0) revert NothingDue();
        // Where a guarantee is so recent that the batch may or may not have booked it, it counts as a credit still to be paid.
        bool isBooked = progress.seq > uint256(here.paidSeq) + ACK_BATCHES;
        uint256 booked = isBooked ? here.guaranteed : here.guaranteedBefore;
        uint256 settled = booked + here.claimed;
        uint256 credits = leaf.debit > settled ? leaf.debit - settled : 0;
        uint256 owed = credits + here.called;
        uint104 amount = here.balance > owed ? uint104(here.balance - owed) : 0;
        residual[leaf.partition] = Residual(amount, leaf.units);
        emit ExitOpened(leaf.partition, amount, leaf.units);
    }

    /// Pays a supplier its part of what is left.
    function frozenExit(Batch calldata batch, Join calldata parts, SupplierLeaf calldata leaf) external oneAtATime {
        _checkNotPaused();
        _checkNewest(batch);
        Proofs.checkSupplier(batch, parts, leaf);
        Residual memory left = residual[leaf.partition];
        if (left.units == 0) revert TooEarly();
        if (exited[leaf.partition][leaf.supplier]) revert NothingDue();
        uint104 amount = _fit(uint256(left.amount) * leaf.units / left.units);
        if (amount == 0) revert NothingDue();
        exited[leaf.partition][leaf.supplier] = true;
        emit Exited(leaf.partition, leaf.supplier, amount);
        _pay(leaf.partition, partitions[leaf.partition], leaf.supplier, amount);
    }
}
