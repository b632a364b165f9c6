// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {
    IAmp,
    IAmpTokensRecipient,
    IAmpTokensSender,
    IERC1820Implementer,
    IERC1820Registry,
    IPartitionStrategy
} from "./Interfaces.sol";
import {Partitions} from "./Partitions.sol";

/// `0xAAAAAAAA`: collateral that stays in the holder's account. The manager is an operator of the partition, and hears of
/// every transfer into it and out of it through its own hooks, which may refuse.
contract InPlaceStrategy is IPartitionStrategy, IERC1820Implementer {
    error NotAmp();
    error NotManager();

    IERC1820Registry internal constant REGISTRY = IERC1820Registry(0x1820a4B7618BdE71Dce8cdc73aAB6C95905faD24);
    bytes32 internal constant SENDER = keccak256("AmpTokensSender");
    bytes32 internal constant RECIPIENT = keccak256("AmpTokensRecipient");

    IAmp internal immutable AMP;

    constructor(IAmp amp) {
        AMP = amp;
    }

    function tokensFromPartitionToValidate(
        bytes4 functionSig,
        bytes32 partition,
        address operator,
        address from,
        address to,
        uint256 value,
        bytes calldata data,
        bytes calldata operatorData
    ) external {
        if (msg.sender != address(AMP)) revert NotAmp();
        address hook = REGISTRY.getInterfaceImplementer(Partitions.owner(partition), SENDER);
        if (hook == address(0)) return;
        IAmpTokensSender(hook).tokensToTransfer(functionSig, partition, operator, from, to, value, data, operatorData);
    }

    function tokensToPartitionToValidate(
        bytes4 functionSig,
        bytes32 partition,
        address operator,
        address from,
        address to,
        uint256 value,
        bytes calldata data,
        bytes calldata operatorData
    ) external {
        if (msg.sender != address(AMP)) revert NotAmp();
        address manager = Partitions.owner(partition);
        if (!AMP.isCollateralManager(manager)) revert NotManager();
        address hook = REGISTRY.getInterfaceImplementer(manager, RECIPIENT);
        if (hook == address(0)) return;
        IAmpTokensRecipient(hook).tokensReceived(functionSig, partition, operator, from, to, value, data, operatorData);
    }

    function isOperatorForPartitionScope(bytes32 partition, address operator, address)
        external
        view
        returns (bool)
    {
        return operator == Partitions.owner(partition) && AMP.isCollateralManager(operator);
    }

    /// For the token, under the name of its prefix.
    function canImplementInterfaceForAddress(bytes32 interfaceHash, address account) external view returns (bytes32) {
        bool isOurs = interfaceHash == keccak256(bytes(Partitions.validatorName(Partitions.IN_PLACE)));
        return isOurs && account == address(AMP) ? keccak256("ERC1820_ACCEPT_MAGIC") : bytes32(0);
    }
}
