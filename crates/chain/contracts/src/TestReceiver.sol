// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IAmpTokensRecipient, IERC1820Registry} from "./Interfaces.sol";

/// A payee whose receive hook does what a test tells it: takes the tokens, refuses them, burns its gas, or calls back.
contract TestReceiver is IAmpTokensRecipient {
    enum Mood {
        Takes,
        Refuses,
        Burns,
        Calls
    }

    error Refused();

    IERC1820Registry internal constant REGISTRY = IERC1820Registry(0x1820a4B7618BdE71Dce8cdc73aAB6C95905faD24);

    Mood public mood;
    address public target;
    bytes public call;
    /// What became of the last call.
    bool public succeeded;
    bytes public answer;

    constructor() {
        REGISTRY.setInterfaceImplementer(address(this), keccak256("AmpTokensRecipient"), address(this));
    }

    function set(Mood mood_, address target_, bytes calldata call_) external {
        mood = mood_;
        target = target_;
        call = call_;
    }

    /// Makes a call in its own name.
    function act(address target_, bytes calldata call_) external {
        (bool ok,) = target_.call(call_);
        if (!ok) revert Refused();
    }

    function tokensReceived(
        bytes4, bytes32, address, address, address, uint256, bytes calldata, bytes calldata
    ) external {
        if (mood == Mood.Refuses) revert Refused();
        while (mood == Mood.Burns) {}
        if (mood == Mood.Calls) (succeeded, answer) = target.call(call);
    }
}
