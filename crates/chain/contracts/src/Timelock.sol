// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// The owner of a manager: what its own owner wants done it announces first, and does after the delay. The guardian can take an
/// announcement back, but announce nothing.
contract Timelock {
    event Scheduled(bytes32 indexed id, uint256 readyAt, address target, bytes call);
    event Cancelled(bytes32 indexed id);
    event Executed(bytes32 indexed id);

    error NotAllowed();
    error NotScheduled();
    error TooEarly();

    address public immutable owner;
    address public immutable guardian;
    /// Seconds between announcement and effect.
    uint256 public immutable delay;

    /// When an announced call may be made; 0 for none.
    mapping(bytes32 id => uint256) public readyAt;

    constructor(address owner_, address guardian_, uint256 delay_) {
        owner = owner_;
        guardian = guardian_;
        delay = delay_;
    }

    function schedule(address target, bytes calldata call) external {
        if (msg.sender != owner) revert NotAllowed();
        bytes32 id = keccak256(abi.encode(target, call));
        readyAt[id] = block.timestamp + delay;
        emit Scheduled(id, readyAt[id], target, call);
    }

    function cancel(bytes32 id) external {
        if (msg.sender != owner && msg.sender != guardian) revert NotAllowed();
        delete readyAt[id];
        emit Cancelled(id);
    }

    /// Makes an announced call whose time has come. Anyone may; the owner has decided already.
    function execute(address target, bytes calldata call) external {
        bytes32 id = keccak256(abi.encode(target, call));
        uint256 ready = readyAt[id];
        if (ready == 0) revert NotScheduled();
        if (block.timestamp < ready) revert TooEarly();
        delete readyAt[id];
        emit Executed(id);
        (bool ok, bytes memory reason) = target.call(call);
        if (ok) return;
        assembly ("memory-safe") {
            revert(add(reason, 0x20), mload(reason))
        }
    }
}
