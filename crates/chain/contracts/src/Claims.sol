// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Batches} from "./Batches.sol";
import {Proofs} from "./Proofs.sol";
import {Credit} from "./Types.sol";

/// Payees take what batches have credited to them.
abstract contract Claims is Batches {
    event Paid(bytes32 indexed partition, address indexed payee, uint256 amount);
    event ClaimFailed(bytes32 indexed partition, address indexed payee);

    error NothingDue();

    /// What one of many receivers may use: a hook that burns all it gets leaves enough for the others.
    uint256 internal constant CLAIM_GAS = 400_000;

    /// Paid to a payee out of a partition, ever.
    mapping(bytes32 partition => mapping(address payee => uint256)) public paid;

    /// Pays what a matured root credits beyond what was paid. Anyone may call it; only the payee is paid.
    function claim(Credit calldata leaf, bytes32 rest) external oneAtATime {
        uint104 amount = _due(leaf, rest);
        if (amount == 0) revert NothingDue();
        uint104 balance = _live(leaf.partition).balance;
        if (balance < amount) revert Insolvent(amount, balance);
        if (!_settle(leaf, amount, gasleft())) revert PayFailed();
    }

    /// Many claims on one root. One with nothing due, or whose receiver's hook refuses, leaves the
    /// others alone.
    function claimMany(Credit[] calldata leaves, bytes32 rest) external oneAtATime {
        for (uint256 i = 0; i < leaves.length; i++) {
            uint104 amount = _due(leaves[i], rest);
            if (amount == 0 || _settle(leaves[i], amount, CLAIM_GAS)) continue;
            emit ClaimFailed(leaves[i].partition, leaves[i].payee);
        }
    }

    function _due(Credit calldata leaf, bytes32 rest) private view returns (uint104) {
        _checkNotPaused();
        _checkMatured(Proofs.claimRoot(leaf, rest));
        uint256 before = paid[leaf.partition][leaf.payee];
        return leaf.credit <= before ? 0 : _fit(leaf.credit - before);
    }

    /// Books and pays; false, and nothing has changed, if the receiver did not take it. What its hook did is undone with it.
    function _settle(Credit calldata leaf, uint104 amount, uint256 gas_) private returns (bool) {
        Partition storage here = _live(leaf.partition);
        if (here.balance < amount) return false;
        paid[leaf.partition][leaf.payee] += amount;
        here.claimed += amount;
        funds.claimed += amount;
        if (_tryPay(leaf.partition, here, leaf.payee, amount, gas_)) {
            emit Paid(leaf.partition, leaf.payee, amount);
            return true;
        }
        paid[leaf.partition][leaf.payee] -= amount;
        here.claimed -= amount;
        funds.claimed -= amount;
        return false;
    }

    function _checkMatured(bytes32 root) private view {
        if (root == maturedRoot) return;
        uint256 pendingTime = sums.pendingTime;
        if (root != pendingRoot || pendingTime == 0) revert UnknownRoot();
        if (block.timestamp < pendingTime + claimDelay) revert TooEarly();
    }
}
