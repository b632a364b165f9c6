//! Whether what is signed counts for anything: the contract, and the range of records for which the signer may certify.

use std::collections::BTreeMap;

use alloy_primitives::Address;
use alloy_sol_types::SolEvent;
use chain::bindings::Manager::{ManagerEvents, SignerSet};
use chain::{At, Backend, Tag};
use surety_protocol::{Seq, ShardId};

use super::Certifier;
use crate::contract::{Code, Contract};
use crate::error::SettlerError;

/// A range that holds for every shard that has none of its own.
const ANY_SHARD: u16 = u16::MAX;

/// Records for which a signer's certificates count: from, and up to.
type Ranges = BTreeMap<u16, (u64, u64)>;

impl Certifier {
    /// Whether chain, contract and key fit: the next record of every shard can be certified.
    ///
    /// The contract shows its signers by events alone, so all of those are read.
    ///
    /// # Errors
    /// [`SettlerError::NoContract`], [`SettlerError::WrongChain`], [`SettlerError::NotSigner`]; or the chain cannot be asked.
    pub fn check(&self, chain: &dyn Backend) -> Result<(), SettlerError> {
        let contract = Contract { chain, place: &self.config.place };
        let Some(latest) = chain.block(Tag::Latest)? else { return Err(SettlerError::NoContract) };
        let at = At::Hash(latest.hash);
        if chain.chain_id()? != self.config.place.chain_id {
            return Err(SettlerError::WrongChain);
        }
        match contract.code(at)? {
            Code::NotYet => return Err(SettlerError::NoContract),
            Code::Other => return Err(SettlerError::WrongChain),
            Code::Ours => {}
        }
        if contract.separator(at)? != self.domain.separator() {
            return Err(SettlerError::WrongChain);
        }
        let signer = self.desk.signer();
        let since = self.config.place.since_block;
        let events = contract.events_of(Some(SignerSet::SIGNATURE_HASH), since, latest.number)?;
        let ranges = ranges(&events, signer);
        for (shard, seq) in (0..).zip(&self.positions.0) {
            if !may_certify(&ranges, shard, seq.next()) {
                let is_known = !ranges.is_empty();
                return Err(SettlerError::NotSigner {
                    signer,
                    shard: ShardId(shard),
                    seq: seq.next(),
                    is_known,
                });
            }
        }
        Ok(())
    }
}

fn ranges(events: &[ManagerEvents], signer: Address) -> Ranges {
    let own = events.iter().filter_map(|event| match event {
        ManagerEvents::SignerSet(set) if set.signer == signer => Some((set.shard, (set.from, set.to))),
        _ => None,
    });
    // The last one counts.
    own.collect()
}

/// As the contract decides it: a shard's own range stands before the one of all, unless it ends at 0.
fn may_certify(ranges: &Ranges, shard: u16, seq: Seq) -> bool {
    let own = ranges.get(&shard).filter(|(_, to)| *to != 0);
    own.or_else(|| ranges.get(&ANY_SHARD)).is_some_and(|(from, to)| (*from..*to).contains(&seq.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shards_own_range_stands_before_the_one_of_all() {
        let ranges = Ranges::from([(ANY_SHARD, (1, 100)), (2, (5, 10)), (3, (7, 7)), (4, (0, 0))]);
        let check = |shard, seq, may| assert_eq!(may_certify(&ranges, shard, Seq(seq)), may, "{shard} {seq}");
        check(0, 1, true);
        check(0, 100, false);
        check(2, 4, false);
        check(2, 9, true);
        check(2, 50, false);
        check(3, 7, false);
        check(4, 50, true);
        assert!(!may_certify(&Ranges::new(), 0, Seq(1)));
    }
}
