//! How many connections and readers of the change stream each tenant has.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use surety_protocol::{TenantId, sabotage};

/// Counts something for each tenant, up to a limit.
#[derive(Debug, Default)]
pub(super) struct TenantCounts {
    /// Those tenants only that have any.
    counts: RefCell<HashMap<TenantId, usize>>,
}

/// One that is counted, for as long as it lives.
#[derive(Debug)]
pub(super) struct Counted {
    counts: Rc<TenantCounts>,
    tenant: TenantId,
}

impl TenantCounts {
    /// Counts one more; none if the tenant has as many as it may.
    pub(super) fn take(self: &Rc<Self>, tenant: TenantId, most: usize) -> Option<Counted> {
        let mut counts = self.counts.borrow_mut();
        let count = counts.get(&tenant).copied().unwrap_or(0);
        (count < most || sabotage!("connections-of-a-tenant-not-limited")).then(|| {
            counts.insert(tenant, count + 1);
            Counted { counts: Rc::clone(self), tenant }
        })
    }

    /// Of all tenants.
    pub(super) fn total(&self) -> usize {
        self.counts.borrow().values().sum()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.counts.borrow_mut();
        match counts.get_mut(&self.tenant) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = counts.remove(&self.tenant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_so_many_and_gets_them_back() {
        let counts = Rc::new(TenantCounts::default());
        let first = counts.take(TenantId(1), 2).unwrap();
        let second = counts.take(TenantId(1), 2).unwrap();
        assert!(counts.take(TenantId(1), 2).is_none());
        let other = counts.take(TenantId(2), 2).unwrap();
        assert_eq!(counts.total(), 3);
        drop(first);
        let third = counts.take(TenantId(1), 2).unwrap();
        drop((second, third, other));
        assert_eq!(counts.total(), 0);
        assert!(counts.counts.borrow().is_empty(), "who has none is forgotten");
        assert!(counts.take(TenantId(1), 0).is_none());
    }
}
