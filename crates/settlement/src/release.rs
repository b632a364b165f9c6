//! Releases of certified locks that a merchant has signed in a group: leaves, nodes, and where a path leads.

use surety_protocol::{PartitionHandle, ReleaseEntry, TenantId};

use crate::hash::{Hash, keccak, keccak_enc};
use crate::leaf::LockId;

/// The leaf of a lock: it names tenant and partition too, since an id alone is unique only there. Hashed twice, so that no
/// inner node can pass for one.
#[must_use]
pub fn release_leaf(tenant: TenantId, partition: PartitionHandle, entry: &ReleaseEntry) -> Hash {
    let lock = LockId { tenant, partition, id: entry.lock };
    keccak(&[&keccak_enc!(lock, entry.version, entry.still_owed.0)])
}

/// The node above two others; their order counts.
#[must_use]
pub fn release_node(left: &Hash, right: &Hash) -> Hash {
    keccak(&[left, right])
}

/// The root to which an entry's path leads.
#[must_use]
pub fn release_root(tenant: TenantId, partition: PartitionHandle, entry: &ReleaseEntry) -> Hash {
    let leaf = release_leaf(tenant, partition, entry);
    entry.path.iter().enumerate().fold(leaf, |here, (level, sibling)| {
        let is_left = entry.index.checked_shr(u32::try_from(level).unwrap_or(u32::MAX)).unwrap_or(0) & 1 == 0;
        if is_left { release_node(&here, sibling) } else { release_node(sibling, &here) }
    })
}
