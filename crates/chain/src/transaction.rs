//! Transactions of type 2 (EIP-1559), the only ones that are sent: encoding, signing, and reading back.

use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use alloy_rlp::{BufMut, Decodable, Encodable, Header};

use crate::key::{DigestSigner, KeyError, recover};

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The chain it is for.
    pub chain_id: u64,
    /// The sender's how-manieth transaction.
    pub nonce: u64,
    /// The most that the block's producer gets, in wei per gas.
    pub tip: u128,
    /// The most that is paid in all, in wei per gas.
    pub cap: u128,
    /// The most gas that it may use.
    pub gas_limit: u64,
    /// The callee, or none to create a contract.
    pub to: TxKind,
    /// Wei that go with it.
    pub value: U256,
    /// The call's bytes.
    pub input: Bytes,
}

/// A transaction as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTransaction {
    /// What was signed.
    pub transaction: Transaction,
    /// Who signed it.
    pub sender: Address,
    /// Its hash.
    pub hash: B256,
    /// Its bytes.
    pub raw: Bytes,
}

/// Bytes that are no transaction of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Another type of transaction, or none.
    #[error("not a transaction of type 2")]
    OtherType,
    /// Not what the type says.
    #[error("malformed: {0}")]
    Malformed(alloy_rlp::Error),
    /// Access lists are not used.
    #[error("a transaction with an access list")]
    AccessList,
    /// Nobody's signature.
    #[error("the signature is nobody's")]
    Signature,
}

const TYPE: u8 = 2;
/// An empty list.
const NO_ACCESS_LIST: u8 = 0xc0;

impl Transaction {
    /// The digest that is signed.
    #[must_use]
    pub fn digest(&self) -> B256 {
        keccak256(self.encode_with(&[]))
    }

    /// Signs it, and checks that the signature is the signer's: a service may answer with another key's.
    ///
    /// # Errors
    ///
    /// What the signer answers, and [`KeyError::WrongSignature`].
    pub fn sign(self, signer: &dyn DigestSigner) -> Result<SignedTransaction, KeyError> {
        let digest = self.digest();
        let signature = signer.sign(&digest)?;
        if recover(&digest, &signature[..64], signature[64] == 28) != Some(signer.address()) {
            return Err(KeyError::WrongSignature(signer.address()));
        }
        let mut tail = Vec::with_capacity(67);
        (signature[64] == 28).encode(&mut tail);
        U256::from_be_slice(&signature[..32]).encode(&mut tail);
        U256::from_be_slice(&signature[32..64]).encode(&mut tail);
        let raw = self.encode_with(&tail);
        Ok(SignedTransaction {
            sender: signer.address(),
            hash: keccak256(&raw),
            raw: raw.into(),
            transaction: self,
        })
    }

    /// Type byte and list, with the encoded signature at its end.
    fn encode_with(&self, tail: &[u8]) -> Vec<u8> {
        let mut fields = Vec::with_capacity(160 + self.input.len());
        self.chain_id.encode(&mut fields);
        self.nonce.encode(&mut fields);
        self.tip.encode(&mut fields);
        self.cap.encode(&mut fields);
        self.gas_limit.encode(&mut fields);
        self.to.encode(&mut fields);
        self.value.encode(&mut fields);
        self.input.encode(&mut fields);
        fields.put_u8(NO_ACCESS_LIST);
        fields.extend_from_slice(tail);
        let mut bytes = vec![TYPE];
        Header { list: true, payload_length: fields.len() }.encode(&mut bytes);
        bytes.extend_from_slice(&fields);
        bytes
    }
}

impl SignedTransaction {
    /// Reads a transaction, and finds out who signed it.
    ///
    /// # Errors
    ///
    /// [`TransactionError`], for whatever bytes.
    pub fn from_bytes(raw: &[u8]) -> Result<Self, TransactionError> {
        let Some((&TYPE, mut rest)) = raw.split_first() else { return Err(TransactionError::OtherType) };
        let mut fields = Header::decode_bytes(&mut rest, true).map_err(TransactionError::Malformed)?;
        if !rest.is_empty() {
            return Err(TransactionError::Malformed(alloy_rlp::Error::UnexpectedLength));
        }
        let (transaction, is_odd, r, s) = decode_fields(&mut fields)?;
        if !fields.is_empty() {
            return Err(TransactionError::Malformed(alloy_rlp::Error::UnexpectedLength));
        }
        let mut r_and_s = [0; 64];
        r_and_s[..32].copy_from_slice(&r.to_be_bytes::<32>());
        r_and_s[32..].copy_from_slice(&s.to_be_bytes::<32>());
        let sender = recover(&transaction.digest(), &r_and_s, is_odd).ok_or(TransactionError::Signature)?;
        Ok(Self { transaction, sender, hash: keccak256(raw), raw: Bytes::copy_from_slice(raw) })
    }
}

fn decode_fields(fields: &mut &[u8]) -> Result<(Transaction, bool, U256, U256), TransactionError> {
    fn next<T: Decodable>(fields: &mut &[u8]) -> Result<T, TransactionError> {
        T::decode(fields).map_err(TransactionError::Malformed)
    }
    let transaction = Transaction {
        chain_id: next(fields)?,
        nonce: next(fields)?,
        tip: next(fields)?,
        cap: next(fields)?,
        gas_limit: next(fields)?,
        to: next(fields)?,
        value: next(fields)?,
        input: next(fields)?,
    };
    let Some((&NO_ACCESS_LIST, rest)) = fields.split_first() else {
        return Err(TransactionError::AccessList);
    };
    *fields = rest;
    Ok((transaction, next(fields)?, next(fields)?, next(fields)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::LocalKey;
    use alloy_primitives::address;

    fn signed() -> SignedTransaction {
        let key = LocalKey::from_bytes(&[7; 32]).unwrap();
        let transaction = Transaction {
            chain_id: 31337,
            nonce: 5,
            tip: 1_000_000_000,
            cap: 30_000_000_000,
            gas_limit: 66_000,
            to: TxKind::Call(address!("00000000000000000000000000000000000000aa")),
            value: U256::from(3),
            input: vec![1; 300].into(),
        };
        transaction.sign(&key).unwrap()
    }

    #[test]
    fn what_was_signed_is_read_back() {
        let signed = signed();
        assert_eq!(SignedTransaction::from_bytes(&signed.raw), Ok(signed));
    }

    #[test]
    fn a_service_that_signs_with_another_key_is_found_out() {
        struct Service(LocalKey);
        impl DigestSigner for Service {
            fn address(&self) -> Address {
                Address::repeat_byte(1)
            }
            fn sign(&self, digest: &B256) -> Result<[u8; 65], KeyError> {
                self.0.sign(digest)
            }
        }
        let service = Service(LocalKey::from_bytes(&[7; 32]).unwrap());
        let error = signed().transaction.sign(&service).unwrap_err();
        assert_eq!(error, KeyError::WrongSignature(Address::repeat_byte(1)));
    }

    #[test]
    fn a_changed_transaction_is_somebody_elses_or_nobodys() {
        let signed = signed();
        for position in 0..signed.raw.len() {
            let mut raw = signed.raw.to_vec();
            raw[position] ^= 1;
            if let Ok(other) = SignedTransaction::from_bytes(&raw) {
                assert_ne!(other.sender, signed.sender, "byte {position}");
            }
        }
        for end in 0..signed.raw.len() {
            assert!(SignedTransaction::from_bytes(&signed.raw[..end]).is_err());
        }
    }
}
