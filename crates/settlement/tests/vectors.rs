//! The golden vectors of `FORMAT.md`, which a program of its own has made.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

use std::collections::BTreeMap;

use settlement::*;
use surety_protocol::{Address, Amount, EngineId, Id, PartitionHandle, ReleaseEntry, Seq, ShardId, TenantId};

const TENANT: TenantId = TenantId(7);
const HANDLE: PartitionHandle = PartitionHandle(3 << 48 | 9);

/// The table at the end of the document.
struct Vectors(BTreeMap<&'static str, &'static str>);

impl Vectors {
    fn read() -> Self {
        let text = include_str!("../FORMAT.md");
        let (_, table) = text.split_once("## Golden vectors").unwrap();
        let row = |line: &'static str| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            Some((cells.next()?, cells.next()?.strip_prefix('`')?.strip_suffix('`')?))
        };
        Self(table.lines().filter_map(row).collect())
    }

    fn check(&mut self, name: &str, found: &[u8]) {
        let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(self.0.remove(name), Some(found.as_str()), "{name}");
    }
}

fn partition(n: u8) -> Hash {
    let mut id = [0xc0; 32];
    id[..4].fill(0xcc);
    id[4..12].fill(n);
    id
}

fn address(n: u8) -> Address {
    Address([n; 20])
}

fn partitions() -> Vec<PartitionLeaf> {
    let leaf = |n: u8| {
        let m = u128::from(n);
        PartitionLeaf {
            partition: partition(n),
            locked: 1000 * m + 7,
            debit: 100 * m,
            exits: 10 * m,
            exit_nonce: u64::from(n),
            units: 1_000_000_000 * m,
            salt: [0x50 + n; 32],
        }
    };
    (1..=3).map(leaf).collect()
}

fn payees() -> Vec<PayeeLeaf> {
    let leaf = |(n, payee, credit)| PayeeLeaf { partition: partition(n), payee: address(payee), credit };
    [(1, 0x11, 60), (1, 0x12, 30), (2, 0x11, 170), (3, 0x13, 255), (3, 0x14, 15)].map(leaf).to_vec()
}

fn suppliers() -> Vec<SupplierLeaf> {
    let leaf = |(n, supplier, units, paid_out)| SupplierLeaf {
        partition: partition(n),
        supplier: address(supplier),
        units,
        paid_out,
    };
    [(1, 0x21, 1_000_000_000, 10), (2, 0x22, 2_000_000_000, 20)].map(leaf).to_vec()
}

fn consumed() -> Vec<ConsumedLeaf> {
    let lock =
        LockId { tenant: TENANT, partition: HANDLE, id: Id(0x018b_cfe5_687b_7fff_bfff_ffff_ffff_ffff) };
    vec![ConsumedLeaf { lock, partition: partition(1), payee: address(0x11), amount: 40 }]
}

fn lock(n: u8) -> CertifiedLock {
    let id = Id(0x018b_cfe5_687b_7fff_bfff_ffff_ffff_ff00 + u128::from(n));
    CertifiedLock {
        lock: LockId { tenant: TENANT, partition: HANDLE, id },
        version: n.into(),
        shard: ShardId(3),
        seq: Seq(400 + u64::from(n)),
        partition: partition(1),
        payee: address(0x11),
        amount: 1000 * u128::from(n),
        deadline_secs: 1_700_000_000 + u64::from(n),
        release_key: address(0x31),
    }
}

const DOMAIN: Domain = Domain { chain_id: 31337, contract: Address([9; 20]), engine: EngineId(5) };

#[test]
fn every_vector_is_met() {
    let vectors = &mut Vectors::read();
    vectors.check("keccak_empty", &keccak(&[]));
    let roots = trees(vectors);
    vectors.check("positions_hash", &roots.positions);
    vectors.check("rest", &roots.rest());
    vectors.check("state_root", &roots.state());
    vectors.check("domain_separator", &DOMAIN.separator());
    batch(vectors, &roots);
    certificates(vectors);
    releases(vectors);
    assert!(vectors.0.is_empty(), "not checked: {:?}", vectors.0.keys());
}

fn trees(vectors: &mut Vectors) -> Roots {
    let nodes: Vec<SumNode> =
        partitions().iter().map(|leaf| SumNode { hash: leaf.hash(), sums: leaf.sums() }).collect();
    let sums = SumTree::new(nodes.clone());
    vectors.check("partition_leaf_0", &nodes[0].hash);
    vectors.check("partition_node_01", &sum_root(nodes[0], 0, &nodes[1..2]).unwrap().hash);
    vectors.check("partitions_top", &sums.root().hash);
    vectors.check("partitions_sums", &sums.root().sums.word());
    let path: Vec<u8> =
        sums.path(2).iter().flat_map(|node| [node.hash, node.sums.word()]).flatten().collect();
    vectors.check("partition_path_2", &path);

    let payees = PlainTree::new(payees().iter().map(PayeeLeaf::hash));
    vectors.check("payee_leaf_0", &self::payees()[0].hash());
    vectors.check("payees_root", &payees.root());
    vectors.check("payee_path_0", &payees.path(0).concat());
    vectors.check("payee_path_4", &payees.path(4).concat());

    let suppliers = PlainTree::new(suppliers().iter().map(SupplierLeaf::hash));
    vectors.check("supplier_leaf_0", &self::suppliers()[0].hash());
    vectors.check("suppliers_root", &suppliers.root());

    let consumed = PlainTree::new(consumed().iter().map(ConsumedLeaf::hash));
    vectors.check("consumed_root", &consumed.root());
    Roots {
        partitions: sums.root(),
        payees: payees.root(),
        suppliers: suppliers.root(),
        consumed: consumed.root(),
        positions: positions().hash(),
    }
}

fn positions() -> Positions {
    Positions(vec![Seq(1000), Seq(2500), Seq(5)])
}

fn batch(vectors: &mut Vectors, roots: &Roots) {
    let data = BatchData {
        positions: positions(),
        partitions: partitions(),
        payees: payees(),
        suppliers: suppliers(),
        consumed: consumed(),
    };
    let bytes = data.to_bytes();
    vectors.check("data_hash", &keccak(&[&bytes]));
    assert_eq!(BatchData::from_bytes(&bytes), Ok(data));
    let batch = Batch {
        seq: 1,
        lsn_to: positions().lsn(),
        prev_head: DOMAIN.separator(),
        state_root: roots.state(),
        sum_locked: roots.partitions.sums.locked,
        sum_credit: roots.partitions.sums.debit - 70,
        guaranteed_ack: 70,
        count: 42,
        data_hash: keccak(&[&bytes]),
    };
    vectors.check("head_1", &batch.head());
}

fn certificates(vectors: &mut Vectors) {
    vectors.check(
        "lock_typehash",
        &keccak(&[b"Lock(bytes32 lockId,uint16 version,uint16 shard,uint64 seq,bytes32 partition,address payee,uint128 amount,uint64 deadline,address releaseKey)"]),
    );
    vectors.check("lock_group_typehash", &keccak(&[b"LockGroup(bytes32 root)"]));
    vectors.check("release_group_typehash", &keccak(&[b"ReleaseGroup(bytes32 root)"]));
    vectors.check("lock_hash_1", &lock(1).hash());
    let group = LockGroup::new(vec![lock(3), lock(1), lock(2)]).unwrap();
    vectors.check("lock_group_digest", &group.digest(&DOMAIN));
    let certificates: Vec<Certificate> = group.sign([0; 65]).collect();
    vectors.check("lock_group_root", &plain_root(&lock(2).hash(), &certificates[1].path));
    vectors.check("lock_path_0", &certificates[0].path.concat());
    vectors.check("lock_path_2", &certificates[2].path.concat());
    for certificate in certificates {
        assert_eq!(certificate.digest(&DOMAIN), Some(group.digest(&DOMAIN)));
    }
}

fn releases(vectors: &mut Vectors) {
    let entry = |n: u8| ReleaseEntry {
        lock: lock(n).lock.id,
        still_owed: Amount(100 * u128::from(n)),
        version: n.into(),
        index: u32::from(n) - 1,
        path: Vec::new(),
    };
    let mut entries: Vec<ReleaseEntry> = (1..=4).map(entry).collect();
    let leaves: Vec<Hash> = entries.iter().map(|entry| release_leaf(TENANT, HANDLE, entry)).collect();
    let nodes = [release_node(&leaves[0], &leaves[1]), release_node(&leaves[2], &leaves[3])];
    let root = release_node(&nodes[0], &nodes[1]);
    vectors.check("release_leaf_1", &leaves[0]);
    vectors.check("release_root", &root);
    vectors.check("release_digest", &DOMAIN.release_group_digest(&root));
    for (index, entry) in entries.iter_mut().enumerate() {
        entry.path = vec![leaves[index ^ 1], nodes[(index / 2) ^ 1]];
        assert_eq!(release_root(TENANT, HANDLE, entry), root);
        assert_ne!(release_root(TenantId(8), HANDLE, entry), root);
        assert_ne!(release_root(TENANT, PartitionHandle(9), entry), root);
    }
}

#[test]
fn a_group_has_its_size() {
    assert_eq!(LockGroup::new(Vec::new()).err(), Some(GroupSize(0)));
    assert_eq!(LockGroup::new(vec![lock(1); 257]).err(), Some(GroupSize(257)));
    let full = LockGroup::new(vec![lock(1); 256]).unwrap();
    assert!(full.sign([0; 65]).all(|certificate| certificate.path.len() == LOCK_PATH_MAX));
    let mut long = full.sign([0; 65]).next().unwrap();
    long.path.push([0; 32]);
    assert_eq!(long.digest(&DOMAIN), None);
}
