//! The bytes of a signed group.

use settlement::{Certificate, CertifiedLock, Hash, KeptLock, LOCK_GROUP_MAX, LOCK_PATH_MAX, LockGroup};

use crate::codec::{Damaged, Put, Take};

const MAGIC: &[u8; 4] = b"SLG1";
/// Magic, locks, hashes of the path.
pub(super) const HEAD_BYTES: usize = 8;
const SIGNATURE_BYTES: usize = 65;

/// Locks under one signature: all of its group, or one of them with its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// In the group's order.
    pub(super) kept: Vec<KeptLock>,
    /// Of the one lock, if the others of its group are elsewhere.
    pub(super) path: Vec<Hash>,
    pub(super) signature: [u8; SIGNATURE_BYTES],
}

impl Group {
    /// Bytes behind a head, by the two counts in it. `None` for counts that no group has.
    pub(super) fn body_bytes(head: &[u8; HEAD_BYTES]) -> Option<usize> {
        let (locks, path) = counts(head)?;
        Some(locks * KeptLock::BYTES + path * size_of::<Hash>() + SIGNATURE_BYTES + size_of::<u32>())
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut to = Put(Vec::with_capacity(HEAD_BYTES + (self.kept.len() + 1) * KeptLock::BYTES));
        let count = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
        to.raw(MAGIC).raw(&count(self.kept.len())).raw(&count(self.path.len()));
        self.kept.iter().for_each(|kept| _ = to.raw(&kept.to_bytes()));
        self.path.iter().for_each(|hash| _ = to.raw(hash));
        to.raw(&self.signature);
        let checksum = crc32c::crc32c(&to.0);
        to.u32(checksum);
        to.0
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(Damaged)?;
        if crc32c::crc32c(body).to_be_bytes() != *checksum {
            return Err(Damaged);
        }
        let mut from = Take(body);
        let (locks, path) = counts(&from.array()?).ok_or(Damaged)?;
        let kept = (0..locks).map(|_| KeptLock::from_bytes(&from.array()?).ok_or(Damaged));
        let kept = kept.collect::<Result<Vec<_>, _>>()?;
        // In any other order the paths would be of other locks.
        let place = |kept: &KeptLock| (kept.statement().shard, kept.statement().seq);
        if !kept.is_sorted_by(|one, other| place(one) < place(other)) {
            return Err(Damaged);
        }
        let path = (0..path).map(|_| from.array()).collect::<Result<_, _>>()?;
        let group = Self { kept, path, signature: from.array()? };
        from.end()?;
        Ok(group)
    }

    /// What it states of one of its locks.
    pub(super) fn statement(&self, index: usize) -> Option<&CertifiedLock> {
        self.kept.get(index).map(KeptLock::statement)
    }

    /// Each of its locks alone, with its path, under the same signature.
    pub(super) fn single(&self) -> Result<Vec<Self>, Damaged> {
        if !self.path.is_empty() {
            return Ok(vec![self.clone()]);
        }
        let statements = self.kept.iter().map(|kept| *kept.statement()).collect();
        let group = LockGroup::new(statements).map_err(|_| Damaged)?;
        let single = |(kept, certificate): (&KeptLock, Certificate)| Self {
            kept: vec![*kept],
            path: certificate.path,
            signature: certificate.signature,
        };
        Ok(self.kept.iter().zip(group.sign(self.signature)).map(single).collect())
    }

    /// The certificate of one of its locks.
    pub(super) fn certificate(&self, index: usize) -> Option<Certificate> {
        if !self.path.is_empty() {
            let lock = *self.kept.first()?.statement();
            return Some(Certificate { lock, path: self.path.clone(), signature: self.signature });
        }
        let locks = self.kept.iter().map(|kept| *kept.statement()).collect();
        LockGroup::new(locks).ok()?.certificate(index, self.signature)
    }
}

fn counts(head: &[u8; HEAD_BYTES]) -> Option<(usize, usize)> {
    let counts = head.strip_prefix(MAGIC)?;
    let (locks, path) = (
        usize::from(u16::from_be_bytes([counts[0], counts[1]])),
        usize::from(u16::from_be_bytes([counts[2], counts[3]])),
    );
    let is_whole = path == 0 && (1..=LOCK_GROUP_MAX).contains(&locks);
    let is_one = locks == 1 && path <= LOCK_PATH_MAX;
    (is_whole || is_one).then_some((locks, path))
}
