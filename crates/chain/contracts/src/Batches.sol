// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Custody} from "./Custody.sol";
import {Proofs} from "./Proofs.sol";
import {Signatures} from "./Signatures.sol";
import {Batch, Join, PartitionLeaf} from "./Types.sol";

/// The chain of batches: each names the one before, and is compared with what the contract holds.
///
/// A commit writes the progress, the sums and one place of the ring, whatever the number of changes; now and then also the
/// roots for claims; after a guarantee also what it has paid by then.
abstract contract Batches is Custody, Signatures {
    event BatchCommitted(uint64 indexed seq, bytes32 indexed head, bytes32 stateRoot, bytes32 dataHash);

    error BadSequence(uint256 have, uint256 got);
    error BadPrev();
    error LsnNotIncreasing();
    error Insolvent(uint256 need, uint256 have);
    error CreditDecreased();
    error BadAck(uint256 least, uint256 most);
    error PayoutLimit(uint256 room, uint256 asked);
    error UnknownRoot();

    struct Sums {
        uint104 locked;
        uint104 credit;
        /// When the pending root was committed; 0 for none.
        uint40 pendingTime;
    }

    struct Guaranteed {
        uint104 paid;
        uint104 acknowledged;
        /// The head under which a guarantee was last paid.
        uint32 seq;
    }

    /// How many heads are remembered, and by how many batches the engine may be late with a guarantee.
    uint256 internal constant RING = 8;
    uint256 internal constant ACK_BATCHES = 4;
    /// Units of the hourly limit.
    uint256 internal constant CREDIT_UNIT = 1e9;

    /// Seconds before a root's credits can be claimed.
    uint32 public immutable claimDelay;

    Sums internal sums;
    Guaranteed internal guaranteed;
    bytes32[RING] internal heads;
    /// State roots for claims: one that waits, and one whose delay is over.
    bytes32 internal pendingRoot;
    bytes32 internal maturedRoot;
    /// What had been paid by guarantee when a batch was committed, for batches soon after a guarantee.
    uint128[ACK_BATCHES] private paidAtCommit;

    constructor(uint32 claimDelay_) {
        claimDelay = claimDelay_;
        progress.time = uint40(block.timestamp);
        heads[0] = domainSeparator();
        // No root and no head is 1, and no root waits since second 1. Places that are written already make the first batches cost
        // no more than all others.
        for (uint256 place = 1; place < RING; place++) {
            heads[place] = bytes32(uint256(1));
        }
        sums.pendingTime = 1;
        pendingRoot = bytes32(uint256(1));
        maturedRoot = bytes32(uint256(1));
    }

    /// All that a settler needs to go on after any interruption.
    function headInfo()
        external
        view
        returns (
            uint256 seq,
            uint256 lsn,
            uint256 time,
            uint256 depositNonce,
            bool frozen,
            bytes32 head,
            uint256 sumLocked,
            uint256 sumCredit,
            uint256 claimed,
            uint256 pool
        )
    {
        seq = progress.seq;
        lsn = progress.lsn;
        time = progress.time;
        depositNonce = progress.depositNonce;
        frozen = progress.frozen;
        head = heads[seq % RING];
        sumLocked = sums.locked;
        sumCredit = sums.credit;
        claimed = funds.claimed;
        pool = funds.pool;
    }

    /// What was paid by guarantee, and how much of it the engine has booked.
    function guaranteeInfo() external view returns (uint256 paid, uint256 acknowledged) {
        return (guaranteed.paid, guaranteed.acknowledged);
    }

    /// The state root whose credits can be claimed, the one that waits, and since when.
    function claimRoots() external view returns (bytes32 matured, bytes32 pending, uint256 pendingTime) {
        return (maturedRoot, pendingRoot, sums.pendingTime);
    }

    function commitBatch(Batch calldata batch) external {
        _commit(batch);
    }

    /// The same, with the change list in the transaction, so that nobody depends on the operator for it.
    function commitBatchWithData(Batch calldata batch, bytes calldata data) external {
        if (keccak256(data) != batch.dataHash) revert Proofs.BadProof();
        _commit(batch);
    }

    /// Lets the newest root's credits be claimed once its delay is over, though no batch has followed.
    function matureHead(Batch calldata batch) external {
        _checkNewest(batch);
        if (block.timestamp < uint256(progress.time) + claimDelay) revert TooEarly();
        maturedRoot = batch.stateRoot;
        sums.pendingTime = 0;
    }

    /// Records what a partition has locked in a root, which is what can be guaranteed without the cap.
    function provePartition(Batch calldata batch, Join calldata parts, PartitionLeaf calldata leaf) external {
        _checkKnown(batch);
        Proofs.checkPartition(batch, parts, leaf);
        Partition storage here = _live(leaf.partition);
        if (batch.seq <= here.provenSeq) revert UnknownRoot();
        // By then the engine has booked every guarantee that was paid, so that `locked` no longer holds any of them. Until then
        // they go on to count against what is locked.
        if (batch.seq > uint256(here.paidSeq) + ACK_BATCHES) here.guaranteedBooked = here.guaranteed;
        here.locked = _fit(leaf.locked);
        here.provenSeq = uint32(batch.seq);
    }

    function _checkKnown(Batch calldata batch) internal view {
        if (batch.seq == 0 || heads[batch.seq % RING] != Proofs.head(batch)) revert UnknownRoot();
    }

    function _checkNewest(Batch calldata batch) internal view {
        _checkKnown(batch);
        if (batch.seq != progress.seq) revert UnknownRoot();
    }

    function _commit(Batch calldata batch) private {
        Progress memory now_ = progress;
        Sums memory was = sums;
        if (msg.sender != poster) revert NotPoster();
        if (now_.frozen) revert Frozen();
        if (batch.seq != uint256(now_.seq) + 1) revert BadSequence(now_.seq, batch.seq);
        if (batch.prevHead != heads[now_.seq % RING]) revert BadPrev();
        if (batch.lsnTo <= now_.lsn) revert LsnNotIncreasing();
        if (batch.sumCredit < was.credit) revert CreditDecreased();
        now_.spent = _spend(now_, batch.sumCredit - was.credit);
        uint256 unbooked = _acknowledge(batch.seq, batch.guaranteedAck);
        Funds memory holds = funds;
        uint256 need = uint256(batch.sumLocked) + batch.sumCredit - holds.claimed;
        if (need > holds.pool + unbooked) revert Insolvent(need, holds.pool + unbooked);

        // A root that waits is not pushed out by newer ones, or none would ever mature.
        bool isMature = was.pendingTime != 0 && block.timestamp >= uint256(was.pendingTime) + claimDelay;
        if (isMature) maturedRoot = pendingRoot;
        if (isMature || was.pendingTime == 0) {
            pendingRoot = batch.stateRoot;
            was.pendingTime = uint40(block.timestamp);
        }
        was.locked = _fit(batch.sumLocked);
        was.credit = _fit(batch.sumCredit);
        sums = was;
        now_.seq = uint32(batch.seq);
        now_.lsn = batch.lsnTo;
        now_.time = uint40(block.timestamp);
        progress = now_;
        bytes32 head = Proofs.head(batch);
        heads[batch.seq % RING] = head;
        emit BatchCommitted(batch.seq, head, batch.stateRoot, batch.dataHash);
    }

    /// New credit against a bucket of half the hourly limit, which empties by as much in an hour: no hour has more than
    /// the limit. Parts of a unit count as whole ones.
    function _spend(Progress memory now_, uint256 credit) private view returns (uint64) {
        uint256 room = creditPerHour / 2;
        uint256 drained = room * (block.timestamp - now_.time) / 1 hours;
        uint256 spent = now_.spent > drained ? now_.spent - drained : 0;
        uint256 asked = (credit + CREDIT_UNIT - 1) / CREDIT_UNIT;
        if (asked != 0 && spent + asked > room) revert PayoutLimit(room > spent ? room - spent : 0, asked);
        return uint64(spent + asked);
    }

    /// Takes note of how much the engine has booked of what guarantees have paid: never less than before, never more than was
    /// paid, and all that was paid four batches ago. Returns what is not booked.
    function _acknowledge(uint256 seq, uint256 acknowledged) private returns (uint256) {
        (uint256 paid_, uint256 before) = (guaranteed.paid, guaranteed.acknowledged);
        if (paid_ == 0 && acknowledged == 0) return 0;
        uint256 least = paid_;
        if (seq <= uint256(guaranteed.seq) + ACK_BATCHES) {
            uint256 paidThen = paidAtCommit[seq % ACK_BATCHES];
            least = paidThen > before ? paidThen : before;
            paidAtCommit[seq % ACK_BATCHES] = uint128(paid_);
        }
        if (acknowledged < least || acknowledged > paid_) revert BadAck(least, paid_);
        if (acknowledged != before) guaranteed.acknowledged = uint104(acknowledged);
        return paid_ - acknowledged;
    }
}
