// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {
    IAmpTokensRecipient,
    IAmpTokensSender,
    IERC20Swappable,
    IERC1820Registry,
    IPartitionStrategy
} from "./Interfaces.sol";
import {Partitions} from "./Partitions.sol";

/// A token whose balances are sliced into partitions, for development and tests.
///
/// Written from the behaviour of the deployed Amp token, not from its text: the same functions, events, order of hooks
/// and events, and the same meaning of `data`, so that whatever is built on this works on the deployed token unchanged.
/// A transfer runs, in this order: the sender's hook, the strategy of the partition that is left, the move itself, the
/// strategy of the partition that is entered, the recipient's hook, and then the events.
contract AmpToken {
    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);
    event TransferByPartition(
        bytes32 indexed fromPartition,
        address operator,
        address indexed from,
        address indexed to,
        uint256 value,
        bytes data,
        bytes operatorData
    );
    event ChangedPartition(bytes32 indexed fromPartition, bytes32 indexed toPartition, uint256 value);
    event ApprovalByPartition(
        bytes32 indexed partition, address indexed owner, address indexed spender, uint256 value
    );
    event AuthorizedOperator(address indexed operator, address indexed tokenHolder);
    event RevokedOperator(address indexed operator, address indexed tokenHolder);
    event AuthorizedOperatorByPartition(
        bytes32 indexed partition, address indexed operator, address indexed tokenHolder
    );
    event RevokedOperatorByPartition(
        bytes32 indexed partition, address indexed operator, address indexed tokenHolder
    );
    event CollateralManagerRegistered(address collateralManager);
    event PartitionStrategySet(bytes4 flag, string name, address indexed implementation);
    event Minted(address indexed operator, address indexed to, uint256 value, bytes data);
    event Swap(address indexed operator, address indexed from, uint256 value);
    event OwnerUpdate(address indexed oldValue, address indexed newValue);
    event OwnershipTransferAuthorization(address indexed authorizedAddress);

    error NotOwner();
    error NotAuthorizedOwner();
    error InvalidReceiver();
    error InvalidSpender();
    error InvalidOperator();
    error InvalidStrategy();
    error InsufficientBalance();
    error InsufficientAllowance();
    error AlreadyRegistered();
    error NothingToSwap();

    IERC1820Registry internal constant REGISTRY = IERC1820Registry(0x1820a4B7618BdE71Dce8cdc73aAB6C95905faD24);
    bytes32 internal constant SENDER = keccak256("AmpTokensSender");
    bytes32 internal constant RECIPIENT = keccak256("AmpTokensRecipient");
    bytes32 internal constant ACCEPT = keccak256("ERC1820_ACCEPT_MAGIC");

    /// Where a plain `transfer` moves tokens.
    bytes32 public constant defaultPartition = bytes32(0);
    /// Decimal places.
    uint8 public constant decimals = 18;
    /// The smallest amount that moves.
    uint256 public constant granularity = 1;
    /// Where swapped tokens end.
    address public constant swapTokenGraveyard = 0x000000000000000000000000000000000000dEaD;

    /// The token that is given for this one.
    address public immutable swapToken;

    string public name;
    string public symbol;
    uint256 public totalSupply;
    address public owner;
    address public authorizedNewOwner;

    /// All partitions that hold anything.
    bytes32[] internal partitions;
    mapping(bytes32 partition => uint256) internal partitionIndexPlusOne;
    mapping(bytes32 partition => uint256) public totalSupplyByPartition;
    mapping(address holder => bytes32[]) internal partitionsHeld;
    mapping(address holder => mapping(bytes32 partition => uint256)) internal heldIndexPlusOne;
    mapping(address holder => mapping(bytes32 partition => uint256)) internal balances;
    mapping(address holder => uint256) public balanceOf;
    mapping(bytes32 partition => mapping(address owner => mapping(address spender => uint256)))
        public allowanceByPartition;
    mapping(address holder => mapping(address operator => bool)) internal operators;
    mapping(address holder => mapping(bytes32 partition => mapping(address operator => bool)))
        internal partitionOperators;

    bytes4[] public partitionStrategies;
    mapping(bytes4 prefix => address) internal strategyOf;
    address[] public collateralManagers;
    mapping(address manager => bool) public isCollateralManager;

    modifier onlyOwner() {
        if (msg.sender != owner) revert NotOwner();
        _;
    }

    constructor(address swapToken_, string memory name_, string memory symbol_) {
        swapToken = swapToken_;
        name = name_;
        symbol = symbol_;
        owner = msg.sender;
        REGISTRY.setInterfaceImplementer(address(this), keccak256("AmpToken"), address(this));
        REGISTRY.setInterfaceImplementer(address(this), keccak256("ERC20Token"), address(this));
    }

    // ERC-20, over the default partition.

    function transfer(address to, uint256 value) external returns (bool) {
        _transfer(defaultPartition, msg.sender, msg.sender, to, value, "", "");
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        _spend(defaultPartition, msg.sender, from, value);
        _transfer(defaultPartition, msg.sender, from, to, value, "", "");
        return true;
    }

    function allowance(address holder, address spender) external view returns (uint256) {
        return allowanceByPartition[defaultPartition][holder][spender];
    }

    function approve(address spender, uint256 value) external returns (bool) {
        return _approve(defaultPartition, spender, value);
    }

    function increaseAllowance(address spender, uint256 addedValue) external returns (bool) {
        return increaseAllowanceByPartition(defaultPartition, spender, addedValue);
    }

    function decreaseAllowance(address spender, uint256 subtractedValue) external returns (bool) {
        return decreaseAllowanceByPartition(defaultPartition, spender, subtractedValue);
    }

    // Partitions.

    /// Moves tokens out of a partition; `data` may name another partition for them to arrive in.
    function transferByPartition(
        bytes32 partition,
        address from,
        address to,
        uint256 value,
        bytes calldata data,
        bytes calldata operatorData
    ) external returns (bytes32) {
        _spend(partition, msg.sender, from, value);
        return _transfer(partition, msg.sender, from, to, value, data, operatorData);
    }

    function balanceOfByPartition(bytes32 partition, address holder) external view returns (uint256) {
        return balances[holder][partition];
    }

    function partitionsOf(address holder) external view returns (bytes32[] memory) {
        return partitionsHeld[holder];
    }

    function totalPartitions() external view returns (bytes32[] memory) {
        return partitions;
    }

    function approveByPartition(bytes32 partition, address spender, uint256 value) external returns (bool) {
        return _approve(partition, spender, value);
    }

    function increaseAllowanceByPartition(bytes32 partition, address spender, uint256 addedValue)
        public
        returns (bool)
    {
        return _approve(partition, spender, allowanceByPartition[partition][msg.sender][spender] + addedValue);
    }

    function decreaseAllowanceByPartition(bytes32 partition, address spender, uint256 subtractedValue)
        public
        returns (bool)
    {
        return _approve(partition, spender, allowanceByPartition[partition][msg.sender][spender] - subtractedValue);
    }

    // Operators.

    function authorizeOperator(address operator) external {
        if (operator == msg.sender) revert InvalidOperator();
        operators[msg.sender][operator] = true;
        emit AuthorizedOperator(operator, msg.sender);
    }

    function revokeOperator(address operator) external {
        if (operator == msg.sender) revert InvalidOperator();
        operators[msg.sender][operator] = false;
        emit RevokedOperator(operator, msg.sender);
    }

    function authorizeOperatorByPartition(bytes32 partition, address operator) external {
        partitionOperators[msg.sender][partition][operator] = true;
        emit AuthorizedOperatorByPartition(partition, operator, msg.sender);
    }

    function revokeOperatorByPartition(bytes32 partition, address operator) external {
        partitionOperators[msg.sender][partition][operator] = false;
        emit RevokedOperatorByPartition(partition, operator, msg.sender);
    }

    function isOperator(address operator, address holder) public view returns (bool) {
        return operator == holder || operators[holder][operator];
    }

    function isOperatorForPartition(bytes32 partition, address operator, address holder)
        public
        view
        returns (bool)
    {
        if (isOperator(operator, holder) || partitionOperators[holder][partition][operator]) return true;
        address strategy = strategyOf[Partitions.prefix(partition)];
        return strategy != address(0)
            && IPartitionStrategy(strategy).isOperatorForPartitionScope(partition, operator, holder);
    }

    function isOperatorForCollateralManager(bytes32 partition, address operator, address manager)
        external
        view
        returns (bool)
    {
        return isCollateralManager[manager]
            && (isOperator(operator, manager) || partitionOperators[manager][partition][operator]);
    }

    // Collateral managers and the strategies of partitions.

    function registerCollateralManager() external {
        if (isCollateralManager[msg.sender]) revert AlreadyRegistered();
        isCollateralManager[msg.sender] = true;
        collateralManagers.push(msg.sender);
        emit CollateralManagerRegistered(msg.sender);
    }

    function setPartitionStrategy(bytes4 prefix, address implementation) external onlyOwner {
        if (prefix == bytes4(0) || strategyOf[prefix] != address(0) || implementation.code.length == 0) {
            revert InvalidStrategy();
        }
        strategyOf[prefix] = implementation;
        partitionStrategies.push(prefix);
        string memory validator = Partitions.validatorName(prefix);
        REGISTRY.setInterfaceImplementer(address(this), keccak256(bytes(validator)), implementation);
        emit PartitionStrategySet(prefix, validator, implementation);
    }

    function isPartitionStrategy(bytes4 prefix) external view returns (bool) {
        return strategyOf[prefix] != address(0);
    }

    // Supply and ownership.

    /// Mints what `from` has approved of the swapped token.
    function swap(address from) external {
        uint256 value = IERC20Swappable(swapToken).allowance(from, address(this));
        if (value == 0 || !IERC20Swappable(swapToken).transferFrom(from, swapTokenGraveyard, value)) {
            revert NothingToSwap();
        }
        totalSupply += value;
        _add(from, defaultPartition, value);
        _afterTransfer(defaultPartition, msg.sender, address(0), from, value, "", "");
        emit Minted(msg.sender, from, value, "");
        emit Transfer(address(0), from, value);
        emit TransferByPartition(bytes32(0), msg.sender, address(0), from, value, "", "");
        emit Swap(msg.sender, from, value);
    }

    function authorizeOwnershipTransfer(address authorized) external onlyOwner {
        authorizedNewOwner = authorized;
        emit OwnershipTransferAuthorization(authorized);
    }

    function assumeOwnership() external {
        if (msg.sender != authorizedNewOwner) revert NotAuthorizedOwner();
        emit OwnerUpdate(owner, msg.sender);
        owner = msg.sender;
        authorizedNewOwner = address(0);
    }

    function canImplementInterfaceForAddress(bytes32 interfaceHash, address) external pure returns (bytes32) {
        bool known = interfaceHash == keccak256("AmpToken") || interfaceHash == keccak256("ERC20Token");
        return known ? ACCEPT : bytes32(0);
    }

    // The move itself.

    function _transfer(
        bytes32 fromPartition,
        address operator,
        address from,
        address to,
        uint256 value,
        bytes memory data,
        bytes memory operatorData
    ) internal returns (bytes32 toPartition) {
        if (to == address(0)) revert InvalidReceiver();
        _beforeTransfer(fromPartition, operator, from, to, value, data, operatorData);
        if (balances[from][fromPartition] < value) revert InsufficientBalance();
        toPartition = Partitions.destination(data, fromPartition);
        _remove(from, fromPartition, value);
        _add(to, toPartition, value);
        _afterTransfer(toPartition, operator, from, to, value, data, operatorData);
        emit Transfer(from, to, value);
        emit TransferByPartition(fromPartition, operator, from, to, value, data, operatorData);
        if (toPartition != fromPartition) emit ChangedPartition(fromPartition, toPartition, value);
    }

    /// Who is no operator needs an allowance; an operator's allowance is used up as far as it reaches.
    function _spend(bytes32 partition, address operator, address from, uint256 value) internal {
        if (operator == from) return;
        uint256 allowed = allowanceByPartition[partition][from][operator];
        if (allowed < value && !isOperatorForPartition(partition, operator, from)) revert InsufficientAllowance();
        if (allowed != 0) allowanceByPartition[partition][from][operator] = allowed < value ? 0 : allowed - value;
    }

    function _beforeTransfer(
        bytes32 fromPartition,
        address operator,
        address from,
        address to,
        uint256 value,
        bytes memory data,
        bytes memory operatorData
    ) internal {
        address hook = REGISTRY.getInterfaceImplementer(from, SENDER);
        if (hook != address(0)) {
            IAmpTokensSender(hook).tokensToTransfer(
                msg.sig, fromPartition, operator, from, to, value, data, operatorData
            );
        }
        address strategy = strategyOf[Partitions.prefix(fromPartition)];
        if (strategy != address(0)) {
            IPartitionStrategy(strategy).tokensFromPartitionToValidate(
                msg.sig, fromPartition, operator, from, to, value, data, operatorData
            );
        }
    }

    function _afterTransfer(
        bytes32 toPartition,
        address operator,
        address from,
        address to,
        uint256 value,
        bytes memory data,
        bytes memory operatorData
    ) internal {
        address strategy = strategyOf[Partitions.prefix(toPartition)];
        if (strategy != address(0)) {
            IPartitionStrategy(strategy).tokensToPartitionToValidate(
                msg.sig, toPartition, operator, from, to, value, data, operatorData
            );
        }
        address hook = REGISTRY.getInterfaceImplementer(to, RECIPIENT);
        if (hook != address(0)) {
            IAmpTokensRecipient(hook).tokensReceived(
                msg.sig, toPartition, operator, from, to, value, data, operatorData
            );
        }
    }

    function _approve(bytes32 partition, address spender, uint256 value) internal returns (bool) {
        if (spender == address(0)) revert InvalidSpender();
        allowanceByPartition[partition][msg.sender][spender] = value;
        emit ApprovalByPartition(partition, msg.sender, spender, value);
        if (partition == defaultPartition) emit Approval(msg.sender, spender, value);
        return true;
    }

    function _remove(address from, bytes32 partition, uint256 value) internal {
        balanceOf[from] -= value;
        uint256 left = balances[from][partition] -= value;
        uint256 leftOfAll = totalSupplyByPartition[partition] -= value;
        if (left == 0) _forget(partitionsHeld[from], heldIndexPlusOne[from], partition);
        if (leftOfAll == 0) _forget(partitions, partitionIndexPlusOne, partition);
    }

    function _add(address to, bytes32 partition, uint256 value) internal {
        if (value == 0) return;
        balanceOf[to] += value;
        balances[to][partition] += value;
        totalSupplyByPartition[partition] += value;
        _remember(partitionsHeld[to], heldIndexPlusOne[to], partition);
        _remember(partitions, partitionIndexPlusOne, partition);
    }

    function _remember(
        bytes32[] storage list,
        mapping(bytes32 partition => uint256) storage indexPlusOne,
        bytes32 partition
    ) internal {
        if (indexPlusOne[partition] != 0) return;
        list.push(partition);
        indexPlusOne[partition] = list.length;
    }

    /// Takes a partition off a list; the last one takes its place.
    function _forget(
        bytes32[] storage list,
        mapping(bytes32 partition => uint256) storage indexPlusOne,
        bytes32 partition
    ) internal {
        uint256 place = indexPlusOne[partition];
        if (place == 0) return;
        bytes32 last = list[list.length - 1];
        list[place - 1] = last;
        indexPlusOne[last] = place;
        delete indexPlusOne[partition];
        list.pop();
    }
}
