// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// Where an account says which contract implements an interface for it (ERC-1820).
interface IERC1820Registry {
    function setInterfaceImplementer(address account, bytes32 interfaceHash, address implementer) external;
    function getInterfaceImplementer(address account, bytes32 interfaceHash) external view returns (address);
}

/// Says that it implements an interface for another account (ERC-1820).
interface IERC1820Implementer {
    function canImplementInterfaceForAddress(bytes32 interfaceHash, address account)
        external
        view
        returns (bytes32);
}

/// Called before an account's tokens leave it.
interface IAmpTokensSender {
    function tokensToTransfer(
        bytes4 functionSig,
        bytes32 partition,
        address operator,
        address from,
        address to,
        uint256 value,
        bytes calldata data,
        bytes calldata operatorData
    ) external;
}

/// Called after tokens have come to an account.
interface IAmpTokensRecipient {
    function tokensReceived(
        bytes4 functionSig,
        bytes32 partition,
        address operator,
        address from,
        address to,
        uint256 value,
        bytes calldata data,
        bytes calldata operatorData
    ) external;
}

/// The rules of all partitions with one prefix.
interface IPartitionStrategy {
    function tokensFromPartitionToValidate(
        bytes4 functionSig,
        bytes32 partition,
        address operator,
        address from,
        address to,
        uint256 value,
        bytes calldata data,
        bytes calldata operatorData
    ) external;

    function tokensToPartitionToValidate(
        bytes4 functionSig,
        bytes32 partition,
        address operator,
        address from,
        address to,
        uint256 value,
        bytes calldata data,
        bytes calldata operatorData
    ) external;

    function isOperatorForPartitionScope(bytes32 partition, address operator, address holder)
        external
        view
        returns (bool);
}

/// What the manager and the strategies need of the token.
interface IAmp {
    function registerCollateralManager() external;
    function isCollateralManager(address manager) external view returns (bool);
    function balanceOfByPartition(bytes32 partition, address holder) external view returns (uint256);
    function transferByPartition(
        bytes32 partition,
        address from,
        address to,
        uint256 value,
        bytes calldata data,
        bytes calldata operatorData
    ) external returns (bytes32);
}

/// What the token needs of the one that is swapped for it.
interface IERC20Swappable {
    function allowance(address holder, address spender) external view returns (uint256);
    function transferFrom(address from, address to, uint256 value) external returns (bool);
}
