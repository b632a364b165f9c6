// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// What the 32 bytes of a partition mean: `prefix4 | sub8 | owner20`.
library Partitions {
    /// Collateral that the manager itself holds.
    bytes4 internal constant POOL = 0xCCCCCCCC;
    /// Collateral that stays with its holder, under the rules of the manager.
    bytes4 internal constant IN_PLACE = 0xAAAAAAAA;
    /// The first word of `data` that names a destination partition.
    bytes32 internal constant CHANGE_PARTITION = bytes32(type(uint256).max);

    function prefix(bytes32 partition) internal pure returns (bytes4) {
        return bytes4(partition);
    }

    /// The collateral manager of a partition.
    function owner(bytes32 partition) internal pure returns (address) {
        return address(uint160(uint256(partition)));
    }

    /// Where tokens arrive: the second word of `data` if the first is the flag, else where they were.
    function destination(bytes memory data, bytes32 fromPartition) internal pure returns (bytes32) {
        if (data.length < 64) return fromPartition;
        (bytes32 flag, bytes32 named) = abi.decode(data, (bytes32, bytes32));
        return flag == CHANGE_PARTITION ? named : fromPartition;
    }

    /// Under which name the registry knows the strategy of a prefix.
    function validatorName(bytes4 prefix_) internal pure returns (string memory) {
        return string(abi.encodePacked("AmpPartitionStrategyValidator", prefix_));
    }
}
