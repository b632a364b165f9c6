//! Certificates that are ready to be handed out, by lock: the newest statement of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use settlement::{Domain, LockGroup, LockId};

use crate::certificate::CertificateFile;

/// Signed groups, and where in them each lock is. Shared between who signs and who hands out.
#[derive(Debug)]
pub struct Shelf {
    domain: Domain,
    places: Mutex<HashMap<LockId, Place>>,
}

#[derive(Debug)]
struct Place {
    group: Arc<Signed>,
    index: usize,
    version: u16,
}

#[derive(Debug)]
struct Signed {
    group: LockGroup,
    signature: [u8; 65],
}

impl Shelf {
    /// An empty one, for certificates of one contract.
    #[must_use]
    pub fn new(domain: Domain) -> Self {
        Self { domain, places: Mutex::default() }
    }

    /// Takes a signed group in.
    pub fn put(&self, group: LockGroup, signature: [u8; 65]) {
        let signed = Arc::new(Signed { group, signature });
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, lock) in signed.group.locks().iter().enumerate() {
            let newer = Place { group: signed.clone(), index, version: lock.version };
            let known = places.get(&lock.lock).is_some_and(|known| known.version > lock.version);
            if !known {
                places.insert(lock.lock, newer);
            }
        }
    }

    /// The newest certificate of a lock.
    #[must_use]
    pub fn certificate(&self, lock: &LockId) -> Option<CertificateFile> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Place { group, index, .. } = places.get(lock)?;
        let certificate = group.group.certificate(*index, group.signature)?;
        Some(CertificateFile { domain: self.domain, certificate })
    }

    /// How many locks it has one of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True if it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Throws away what nobody can use any more.
    pub(crate) fn keep_only(&self, is_wanted: impl Fn(&LockId) -> bool) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|lock, _| is_wanted(lock));
    }
}
