// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC1820Implementer} from "./Interfaces.sol";

/// An ERC-1820 registry for chains that have none: what the token and the manager use of the standard. A development chain
/// holds it at the standard's address.
contract InterfaceRegistry {
    event InterfaceImplementerSet(
        address indexed account, bytes32 indexed interfaceHash, address indexed implementer
    );
    event ManagerChanged(address indexed account, address indexed newManager);

    error NotManager();
    error NotImplemented();

    bytes32 internal constant ACCEPT = keccak256("ERC1820_ACCEPT_MAGIC");

    mapping(address account => mapping(bytes32 interfaceHash => address)) internal implementers;
    mapping(address account => address) internal managers;

    /// Names the contract that implements an interface for an account; the zero address means the caller and takes
    /// nobody's word but a foreign implementer's own.
    function setInterfaceImplementer(address account, bytes32 hash, address implementer) external {
        address subject = account == address(0) ? msg.sender : account;
        if (getManager(subject) != msg.sender) revert NotManager();
        if (implementer != address(0) && implementer != msg.sender) {
            bytes32 answer = IERC1820Implementer(implementer).canImplementInterfaceForAddress(hash, subject);
            if (answer != ACCEPT) revert NotImplemented();
        }
        implementers[subject][hash] = implementer;
        emit InterfaceImplementerSet(subject, hash, implementer);
    }

    function getInterfaceImplementer(address account, bytes32 hash) external view returns (address) {
        return implementers[account == address(0) ? msg.sender : account][hash];
    }

    function setManager(address account, address newManager) external {
        if (getManager(account) != msg.sender) revert NotManager();
        managers[account] = newManager == account ? address(0) : newManager;
        emit ManagerChanged(account, newManager);
    }

    /// Who may speak for an account: itself, unless it has named another.
    function getManager(address account) public view returns (address) {
        address manager = managers[account];
        return manager == address(0) ? account : manager;
    }

    function interfaceHash(string calldata name) external pure returns (bytes32) {
        return keccak256(bytes(name));
    }
}
