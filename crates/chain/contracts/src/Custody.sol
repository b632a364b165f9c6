// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IAmp, IAmpTokensRecipient, IAmpTokensSender, IERC1820Registry} from "./Interfaces.sol";
import {Partitions} from "./Partitions.sol";
import {Roles} from "./Roles.sol";

/// The tokens: which partitions there are, how supplies come in, and the one way out.
///
/// Every amount is below 2^104; all AMP that exist are below 2^97.
abstract contract Custody is Roles, IAmpTokensRecipient, IAmpTokensSender {
    event PartitionAdded(bytes32 indexed partition, address holder, uint104 guaranteeCap);
    event Supplied(bytes32 indexed partition, address indexed supplier, uint256 amount, uint256 indexed nonce);

    error Frozen();
    error UnknownPartition();
    error TooLarge();
    error Reentered();
    error PayFailed();

    /// What the contract knows of a partition.
    struct Partition {
        /// Who holds its tokens: this contract, or for stake in place the supplier.
        address holder;
        uint32 number;
        /// The head under which a guarantee was last paid, and the newest one that was proven.
        uint32 paidSeq;
        uint32 provenSeq;
        /// Tokens that are here now.
        uint104 balance;
        /// Paid to payees by credit, ever.
        uint104 claimed;
        /// Paid by guarantee: ever, and up to the newest proof (what came later counts against `locked`).
        uint104 guaranteed;
        uint104 guaranteedBooked;
        /// Locked in the newest proven root, and what may be guaranteed beyond it.
        uint104 locked;
        uint104 guaranteeCap;
        /// Called guarantees that are not settled.
        uint104 called;
        /// Exits: requested and answered ones.
        uint64 exitsRequested;
        uint64 exitsAnswered;
        /// Paid by guarantee before those that the newest batch may not have booked yet.
        uint104 guaranteedBefore;
    }

    /// Written by every commit.
    struct Progress {
        uint32 seq;
        uint64 lsn;
        uint40 time;
        uint32 depositNonce;
        bool frozen;
        /// The credit that counts against the hourly limit, in units of 10^9 base units, as of `time`.
        uint64 spent;
    }

    /// What came in and went out as credit.
    struct Funds {
        uint104 pool;
        uint104 claimed;
    }

    IERC1820Registry internal constant REGISTRY = IERC1820Registry(0x1820a4B7618BdE71Dce8cdc73aAB6C95905faD24);

    IAmp public immutable amp;
    /// The token's strategy for stake in place, which passes its hooks on to us.
    address public immutable inPlaceStrategy;

    Progress internal progress;
    Funds internal funds;
    mapping(bytes32 partition => Partition) internal partitions;
    bytes32[] public partitionIds;
    /// What a supplier has brought, ever.
    mapping(bytes32 partition => mapping(address supplier => uint256)) public supplied;
    bool private transient entered;

    /// Payouts run foreign code; none may begin within another.
    modifier oneAtATime() {
        if (entered) revert Reentered();
        entered = true;
        _;
        entered = false;
    }

    constructor(IAmp amp_, address inPlaceStrategy_) {
        amp = amp_;
        inPlaceStrategy = inPlaceStrategy_;
        REGISTRY.setInterfaceImplementer(address(this), keccak256("AmpTokensSender"), address(this));
        REGISTRY.setInterfaceImplementer(address(this), keccak256("AmpTokensRecipient"), address(this));
        amp_.registerCollateralManager();
    }

    /// Opens a partition: `holder` is this contract, or for stake in place its one supplier.
    function addPartition(bytes32 partition, address holder, uint104 guaranteeCap) external onlyOwner {
        bytes4 prefix = Partitions.prefix(partition);
        bool fits = prefix == Partitions.POOL
            ? holder == address(this)
            : prefix == Partitions.IN_PLACE && holder != address(this) && holder != address(0);
        Partition storage here = partitions[partition];
        if (!fits || Partitions.owner(partition) != address(this) || here.holder != address(0)) {
            revert UnknownPartition();
        }
        here.holder = holder;
        here.number = uint32(partitionIds.length);
        here.guaranteeCap = guaranteeCap;
        partitionIds.push(partition);
        emit PartitionAdded(partition, holder, guaranteeCap);
    }

    /// Changes what may be guaranteed beyond the newest proven root.
    function setGuaranteeCap(bytes32 partition, uint104 guaranteeCap) external onlyOwner {
        _live(partition).guaranteeCap = guaranteeCap;
    }

    /// Who holds a partition's tokens, what is there, and what went out: by credit, by guarantee; what is called; exits
    /// requested and answered.
    function partitionInfo(bytes32 partition)
        external
        view
        returns (
            address holder,
            uint256 balance,
            uint256 claimed,
            uint256 guaranteed,
            uint256 called,
            uint256 exitsRequested,
            uint256 exitsAnswered
        )
    {
        Partition storage here = partitions[partition];
        holder = here.holder;
        balance = here.balance;
        claimed = here.claimed;
        guaranteed = here.guaranteed;
        called = here.called;
        exitsRequested = here.exitsRequested;
        exitsAnswered = here.exitsAnswered;
    }

    /// Takes a supply in. The supplier is the token's operator, or for stake in place the holder. Nothing comes in unasked:
    /// any other partition is refused, and a supply of zero, which anybody could make, is passed over.
    function tokensReceived(
        bytes4,
        bytes32 partition,
        address operator,
        address,
        address to,
        uint256 value,
        bytes calldata,
        bytes calldata
    ) external {
        bool isPool = Partitions.prefix(partition) == Partitions.POOL;
        if (msg.sender != (isPool ? address(amp) : inPlaceStrategy)) revert NotAllowed();
        Partition storage here = _live(partition);
        if (here.holder != to) revert UnknownPartition();
        if (value == 0) return;
        if (progress.frozen) revert Frozen();
        address supplier = isPool ? operator : to;
        uint32 nonce = ++progress.depositNonce;
        here.balance = _fit(uint256(here.balance) + value);
        funds.pool = _fit(uint256(funds.pool) + value);
        supplied[partition][supplier] += value;
        emit Supplied(partition, supplier, value, nonce);
    }

    /// Lets tokens go only where this contract itself sends them.
    function tokensToTransfer(
        bytes4,
        bytes32,
        address operator,
        address,
        address,
        uint256,
        bytes calldata,
        bytes calldata
    ) external view {
        if (operator != address(this)) revert NotAllowed();
    }

    /// The one way out: tokens of a partition into the receiver's default partition. The books change first, since the
    /// receiver's hook runs whatever code it likes. False, and nothing has changed, if it refuses or takes more than `gas_`.
    function _tryPay(bytes32 partition, Partition storage here, address to, uint104 amount, uint256 gas_)
        internal
        returns (bool)
    {
        here.balance -= amount;
        funds.pool -= amount;
        bytes memory data = abi.encode(Partitions.CHANGE_PARTITION, bytes32(0));
        try amp.transferByPartition{gas: gas_}(partition, here.holder, to, amount, data, "") {
            return true;
        } catch {
            here.balance += amount;
            funds.pool += amount;
            return false;
        }
    }

    /// The same for a single receiver, for whom everything waits.
    function _pay(bytes32 partition, Partition storage here, address to, uint104 amount) internal {
        if (!_tryPay(partition, here, to, amount, gasleft())) revert PayFailed();
    }

    function _live(bytes32 partition) internal view returns (Partition storage here) {
        here = partitions[partition];
        if (here.holder == address(0)) revert UnknownPartition();
    }

    function _fit(uint256 amount) internal pure returns (uint104) {
        if (amount > type(uint104).max) revert TooLarge();
        return uint104(amount);
    }
}
