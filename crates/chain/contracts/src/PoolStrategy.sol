// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IAmp, IERC1820Implementer, IPartitionStrategy} from "./Interfaces.sol";
import {Partitions} from "./Partitions.sol";

/// `0xCCCCCCCC`: collateral that the manager holds. Only the manager can be paid into such a partition; anybody may ask
/// for a transfer out of it, since the manager's own hook decides.
contract PoolStrategy is IPartitionStrategy, IERC1820Implementer {
    error NotAmp();
    error NotManager();

    IAmp internal immutable AMP;

    constructor(IAmp amp) {
        AMP = amp;
    }

    function tokensFromPartitionToValidate(
        bytes4, bytes32, address, address, address, uint256, bytes calldata, bytes calldata
    ) external view {
        if (msg.sender != address(AMP)) revert NotAmp();
    }

    function tokensToPartitionToValidate(
        bytes4, bytes32 partition, address, address, address to, uint256, bytes calldata, bytes calldata
    ) external view {
        if (msg.sender != address(AMP)) revert NotAmp();
        address manager = Partitions.owner(partition);
        if (to != manager || !AMP.isCollateralManager(manager)) revert NotManager();
    }

    function isOperatorForPartitionScope(bytes32 partition, address, address holder)
        external
        view
        returns (bool)
    {
        address manager = Partitions.owner(partition);
        return holder == manager && AMP.isCollateralManager(manager);
    }

    /// For the token, under the name of its prefix.
    function canImplementInterfaceForAddress(bytes32 interfaceHash, address account) external view returns (bytes32) {
        bool isOurs = interfaceHash == keccak256(bytes(Partitions.validatorName(Partitions.POOL)));
        return isOurs && account == address(AMP) ? keccak256("ERC1820_ACCEPT_MAGIC") : bytes32(0);
    }
}
