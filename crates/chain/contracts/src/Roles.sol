// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// Who may do what. The owner (a timelock) appoints, the poster commits, signers certify, the guardian pauses.
abstract contract Roles {
    event OwnerSet(address owner);
    event GuardianSet(address guardian);
    event PosterSet(address poster, uint64 creditPerHour);
    event SignerSet(address indexed signer, uint16 shard, uint64 from, uint64 to);
    event Paused(uint256 until);

    error NotPoster();
    error NotAllowed();
    error NotLive();
    error TooEarly();

    /// The records of a shard, from (inclusive) to (exclusive), for which a signer's certificates count.
    struct Range {
        uint64 from;
        uint64 to;
    }

    /// A range that holds for every shard without one of its own.
    uint16 internal constant ANY_SHARD = type(uint16).max;

    /// Seconds for which a pause lasts; after it payouts run for as long before the next.
    uint32 public immutable pauseTime;

    address public owner;
    address public guardian;
    uint40 public pausedUntil;
    address public poster;
    /// The most new credit in any hour, in units of 10^9 base units.
    uint64 public creditPerHour;

    mapping(address signer => uint16) internal signerIds;
    mapping(uint16 signerId => mapping(uint16 shard => Range)) internal ranges;
    uint16 private signersCount;

    modifier onlyOwner() {
        _checkOwner();
        _;
    }

    constructor(address owner_, address guardian_, uint32 pauseTime_) {
        if (owner_ == address(0)) revert NotAllowed();
        owner = owner_;
        guardian = guardian_;
        pauseTime = pauseTime_;
    }

    // The owner: a timelock in any deployment with money of others.

    function setOwner(address owner_) external onlyOwner {
        if (owner_ == address(0)) revert NotAllowed();
        owner = owner_;
        emit OwnerSet(owner_);
    }

    /// Names another guardian; a pause of the one before ends.
    function setGuardian(address guardian_) external onlyOwner {
        guardian = guardian_;
        pausedUntil = 0;
        emit GuardianSet(guardian_);
    }

    function setPoster(address poster_, uint64 creditPerHour_) external onlyOwner {
        _setPoster(poster_, creditPerHour_);
    }

    /// Admits a signer for a range of records, or voids it (`from == to`, which for a single shard must not be 0).
    function setSigner(address signer, uint16 shard, uint64 from, uint64 to) external onlyOwner {
        _setSigner(signer, shard, from, to);
    }

    // The guardian.

    /// Stops payouts for a while. It cannot be had again before payouts have run for as long.
    function pause() external {
        if (msg.sender != guardian) revert NotAllowed();
        if (block.timestamp < uint256(pausedUntil) + pauseTime) revert TooEarly();
        uint256 until = block.timestamp + pauseTime;
        pausedUntil = uint40(until);
        emit Paused(until);
    }

    function _checkOwner() private view {
        if (msg.sender != owner) revert NotAllowed();
    }

    function _checkNotPaused() internal view {
        if (block.timestamp < pausedUntil) revert NotLive();
    }

    function _setPoster(address poster_, uint64 creditPerHour_) internal {
        poster = poster_;
        creditPerHour = creditPerHour_;
        emit PosterSet(poster_, creditPerHour_);
    }

    function _setSigner(address signer, uint16 shard, uint64 from, uint64 to) internal {
        uint16 signerId = signerIds[signer];
        if (signerId == 0) {
            signerId = ++signersCount;
            signerIds[signer] = signerId;
        }
        ranges[signerId][shard] = Range(from, to);
        emit SignerSet(signer, shard, from, to);
    }

    /// True if a signer may certify this record of this shard. A shard's own range stands before the one of all.
    function _mayCertify(uint16 signerId, uint16 shard, uint64 seq) internal view returns (bool) {
        if (signerId == 0) return false;
        mapping(uint16 shard => Range) storage own = ranges[signerId];
        Range storage range = own[own[shard].to == 0 ? ANY_SHARD : shard];
        return range.from <= seq && seq < range.to;
    }
}
