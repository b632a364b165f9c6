// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Lock} from "./Types.sol";

/// Typed data (EIP-712) of certificates and releases, for one chain, contract and engine.
abstract contract Signatures {
    error BadSig();

    bytes32 private constant DOMAIN = keccak256(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract,bytes32 salt)"
    );
    bytes32 private constant LOCK = keccak256(
        "Lock(bytes32 lockId,uint16 version,uint16 shard,uint64 seq,bytes32 partition,address payee,uint128 amount,uint64 deadline,address releaseKey)"
    );
    bytes32 private constant LOCK_GROUP = keccak256("LockGroup(bytes32 root)");
    bytes32 private constant RELEASE_GROUP = keccak256("ReleaseGroup(bytes32 root)");
    uint256 private constant ORDER_HALF = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    /// Whose certificates these are.
    uint128 public immutable engineId;

    constructor(uint128 engine) {
        engineId = engine;
    }

    /// Read anew each time: on a fork of the chain no old signature counts.
    function domainSeparator() public view returns (bytes32) {
        return keccak256(
            abi.encode(DOMAIN, keccak256("Surety"), keccak256("1"), block.chainid, address(this), uint256(engineId))
        );
    }

    function lockHash(Lock calldata lock) internal pure returns (bytes32 hash) {
        bytes32 typeHash = LOCK;
        assembly ("memory-safe") {
            let memory_ := mload(0x40)
            mstore(memory_, typeHash)
            calldatacopy(add(memory_, 32), lock, 288)
            hash := keccak256(memory_, 320)
        }
    }

    function signerOfLocks(bytes32 root, bytes calldata signature) internal view returns (address) {
        return signer(keccak256(abi.encode(LOCK_GROUP, root)), signature);
    }

    function signerOfReleases(bytes32 root, bytes calldata signature) internal view returns (address) {
        return signer(keccak256(abi.encode(RELEASE_GROUP, root)), signature);
    }

    /// The one form of a signature: 65 bytes, v 27 or 28, s in the lower half. Never the zero address.
    function signer(bytes32 structHash, bytes calldata signature) private view returns (address who) {
        if (signature.length != 65) revert BadSig();
        uint8 v = uint8(signature[64]);
        uint256 s = uint256(bytes32(signature[32:64]));
        if (s > ORDER_HALF || (v != 27 && v != 28)) revert BadSig();
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", domainSeparator(), structHash));
        who = ecrecover(digest, v, bytes32(signature[:32]), bytes32(s));
        if (who == address(0)) revert BadSig();
    }
}
