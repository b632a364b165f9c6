//! What is sent to the chain: the poster's transactions as bytes, and what suppliers and merchants want.

use settlement::life::Fees;
use settlement::{Batch, CertifiedLock, Hash, LockId};
use surety_protocol::Address;

/// A batch with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// What is committed.
    pub batch: Batch,
    /// What its data hash is over.
    pub data: Vec<u8>,
}

/// A transaction of the poster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Its hash.
    pub hash: Hash,
    /// Of the poster's account.
    pub nonce: u64,
    /// What it pays.
    pub fees: Fees,
    /// None: it does nothing but to spend its nonce.
    pub commit: Option<Commit>,
}

/// What anybody else asks the contract for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Collateral comes in.
    Supply {
        /// Where to.
        partition: Hash,
        /// Whose it is.
        supplier: Address,
        /// In base units.
        amount: u128,
    },
    /// A payee takes all that it is credited.
    Claim {
        /// Out of which partition.
        partition: Hash,
        /// Who.
        payee: Address,
    },
    /// A merchant enforces a certificate.
    Call(CertifiedLock),
    /// The operator proves that a batch has credited a called lock.
    Answer(LockId),
    /// A called lock that nobody has answered in time is to be paid.
    Collect(LockId),
}

impl Signed {
    /// The bytes that are signed.
    #[must_use]
    pub fn write(nonce: u64, fees: Fees, commit: Option<&Commit>) -> Vec<u8> {
        let mut raw = Vec::new();
        raw.extend_from_slice(&nonce.to_be_bytes());
        raw.extend_from_slice(&fees.cap.to_be_bytes());
        raw.extend_from_slice(&fees.tip.to_be_bytes());
        if let Some(Commit { batch, data }) = commit {
            raw.extend_from_slice(&batch.seq.to_be_bytes());
            raw.extend_from_slice(&batch.lsn_to.to_be_bytes());
            raw.extend_from_slice(&batch.prev_head);
            raw.extend_from_slice(&batch.state_root);
            for sum in [batch.sum_locked, batch.sum_credit, batch.guaranteed_ack] {
                raw.extend_from_slice(&sum.to_be_bytes());
            }
            raw.extend_from_slice(&batch.count.to_be_bytes());
            raw.extend_from_slice(&batch.data_hash);
            raw.extend_from_slice(data);
        }
        raw
    }

    /// Reads such bytes; none that nobody signed.
    #[must_use]
    pub fn read(raw: &[u8], hash: Hash) -> Option<Self> {
        let mut rest = raw;
        let nonce = u64::from_be_bytes(take(&mut rest)?);
        let fees =
            Fees { cap: u128::from_be_bytes(take(&mut rest)?), tip: u128::from_be_bytes(take(&mut rest)?) };
        if rest.is_empty() {
            return Some(Self { hash, nonce, fees, commit: None });
        }
        let batch = Batch {
            seq: u64::from_be_bytes(take(&mut rest)?),
            lsn_to: u64::from_be_bytes(take(&mut rest)?),
            prev_head: take(&mut rest)?,
            state_root: take(&mut rest)?,
            sum_locked: u128::from_be_bytes(take(&mut rest)?),
            sum_credit: u128::from_be_bytes(take(&mut rest)?),
            guaranteed_ack: u128::from_be_bytes(take(&mut rest)?),
            count: u32::from_be_bytes(take(&mut rest)?),
            data_hash: take(&mut rest)?,
        };
        Some(Self { hash, nonce, fees, commit: Some(Commit { batch, data: rest.to_vec() }) })
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_reads_back() {
        let batch = Batch {
            seq: 3,
            lsn_to: 40,
            prev_head: [1; 32],
            state_root: [2; 32],
            sum_locked: 5,
            sum_credit: 6,
            guaranteed_ack: 7,
            count: 8,
            data_hash: [9; 32],
        };
        let fees = Fees { cap: 30, tip: 2 };
        for commit in [None, Some(Commit { batch, data: vec![1, 2, 3] })] {
            let raw = Signed::write(11, fees, commit.as_ref());
            let read = Signed::read(&raw, [4; 32]);
            assert_eq!(read, Some(Signed { hash: [4; 32], nonce: 11, fees, commit }));
        }
        assert_eq!(Signed::read(&[0; 41], [4; 32]), None);
    }
}
