//! Long requests: policies, and the releases that a merchant has signed for many certified locks at once.

use alloc::vec::Vec;

use surety_protocol::{
    Address, Amount, Code, ControlBody, MerchantId, Policy, Record, ReleaseEntry, ReleaseGroup, long,
};

use super::{Ask, Outcome};
use crate::index::Found;
use crate::ledger::Ledger;
use crate::lock::flag;

impl Ledger {
    pub(super) fn policy(&mut self, ask: &Ask, head: &mut Record, parts: &[Record]) -> Result<Outcome, Code> {
        let payload = payload(head, parts)?;
        let policy = Policy::from_bytes(&payload).filter(Policy::is_valid).ok_or(Code::Malformed)?;
        let partition = self.partition_mut(ask.partition);
        // Open values that nobody kept cannot be limited.
        if policy.merchant_open_max != Amount::ZERO && !partition.tracks_merchants {
            return Err(Code::Malformed);
        }
        partition.policy = policy;
        partition.policy_seq = ask.seq;
        self.touched(ask.partition);
        Ok(Outcome::new(Code::Approved))
    }

    /// Frees what only certificates kept. Signature and paths are verified by the server before it lets the group in; the
    /// ledger checks each lock's merchant, release key and version. Entries that do not apply move
    /// nothing: PARTIAL if there are such; UNKNOWN_LOCK if no entry applies, FORBIDDEN if the key is not even the merchant's present one.
    pub(super) fn release_group(
        &mut self,
        ask: &Ask,
        head: &mut Record,
        parts: &[Record],
    ) -> Result<Outcome, Code> {
        let body: ControlBody = head.body();
        let group = ReleaseGroup::from_bytes(&payload(head, parts)?).map_err(|_| Code::Malformed)?;
        let applicable: Vec<(u32, &ReleaseEntry)> = group
            .entries
            .iter()
            .filter_map(|entry| Some((self.releasable(ask, MerchantId(body.user), group.key, entry)?, entry)))
            .collect();
        if applicable.iter().any(|(slot, _)| self.is_overdue(self.locks.get(*slot))) {
            return Err(Code::Overloaded);
        }
        if applicable.is_empty() {
            let merchant = self.merchants.get(&(ask.tenant.0, body.user));
            let is_its_key = merchant.is_some_and(|merchant| merchant.release_key == group.key);
            for entry in &group.entries {
                if self.find(ask.account, entry.lock.0).is_none() {
                    self.check_lock_not_lost(ask, entry.lock.0)?;
                }
            }
            return Ok(Outcome::new(if is_its_key { Code::UnknownLock } else { Code::Forbidden }));
        }
        let code = if applicable.len() == group.entries.len() { Code::Approved } else { Code::Partial };
        let freed = applicable.iter().map(|(slot, entry)| self.free_pending(*slot, entry.still_owed.0)).sum();
        head.result = Amount(freed);
        Ok(Outcome::new(code).moving(freed))
    }

    /// The lock of an entry, if the merchant's release covers it: its own, certified, under the key that its certificate
    /// states, not called, and not changed since.
    fn releasable(&self, ask: &Ask, merchant: MerchantId, key: Address, entry: &ReleaseEntry) -> Option<u32> {
        let Found::Lock(slot) = self.find(ask.account, entry.lock.0)? else { return None };
        let lock = self.locks.get(slot);
        let covers = lock.merchant == merchant
            && lock.has(flag::CERTIFIED)
            && key != Address::default()
            && self.exts.get(lock.ext).release_key == key
            && !lock.has(flag::CALLED)
            && entry.version >= u32::from(self.version(lock));
        covers.then_some(slot)
    }

    /// Moves from P to F what is more than still owed; what H and U hold counts first.
    fn free_pending(&mut self, slot: u32, still_owed: u128) -> u128 {
        let lock = self.locks.get(slot);
        let guaranteed = self.remaining(lock) + self.open_of(lock);
        let pending = self.exts.get(lock.ext).pending;
        let kept = pending.min(still_owed.saturating_sub(guaranteed));
        let freed = pending - kept;
        if freed == 0 {
            return 0;
        }
        let edit = &mut self.edit(slot);
        self.ext_of(edit).pending = kept;
        let money = self.money(edit);
        money.pending -= freed;
        money.credit(freed);
        self.commit(edit);
        freed
    }
}

fn payload(head: &Record, parts: &[Record]) -> Result<Vec<u8>, Code> {
    let mut records = Vec::with_capacity(1 + parts.len());
    records.push(*head);
    records.extend_from_slice(parts);
    long::join(&records).map_err(|_| Code::Malformed)
}
