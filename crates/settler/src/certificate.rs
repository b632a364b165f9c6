//! A certificate as a merchant keeps it: one JSON file, and with nothing else the merchant is paid.

use alloy_primitives::{Address, B256, hex};
use alloy_sol_types::{SolCall, SolInterface};
use chain::bindings::Manager::ManagerErrors;
use chain::bindings::{self, Manager};
use chain::{At, Backend, BackendError, Call, CallError, Tag};
use serde_json::{Value, json};
use settlement::{Certificate, CertifiedLock, Domain, Hash, LockId, Word};
use surety_protocol::{EngineId, Seq, ShardId};

/// What the file calls itself.
const FORMAT: &str = "surety certificate 1";

/// A certificate, and for which contract it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFile {
    /// Chain, contract and engine.
    pub domain: Domain,
    /// The statement, its path, and the signature.
    pub certificate: Certificate,
}

/// Why a text is no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It is no JSON object that calls itself a certificate of this version.
    #[error("this is no certificate")]
    Format,
    /// A field is missing, or is none of its kind.
    #[error("`{0}` is missing, or does not read")]
    Field(&'static str),
}

/// How a certificate stands on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Whoever sends its call now starts the time to answer it, and after that it is paid.
    Enforceable,
    /// This lock was called, and waits to be answered or paid.
    Called,
    /// It was called, and nothing of it is owed any more.
    Dismissed,
    /// It was paid by guarantee.
    Paid,
    /// The contract refuses it, for this reason.
    Refused(String),
    /// Chain or contract are not those that it is for.
    Elsewhere,
}

impl CertificateFile {
    /// Asks the contract itself, which checks everything once more: signature, signer, range, deadline, state.
    ///
    /// # Errors
    /// The node cannot be asked.
    pub fn standing(&self, chain: &dyn Backend) -> Result<Standing, BackendError> {
        let manager = Address::from(self.domain.contract.0);
        let at = At::Tag(Tag::Latest);
        if chain.chain_id()? != self.domain.chain_id || chain.code(manager, at)?.is_empty() {
            return Ok(Standing::Elsewhere);
        }
        let ask =
            |input: Vec<u8>| chain.call(&Call { from: Address::ZERO, to: manager, input: input.into() }, at);
        let separator = match ask(Manager::domainSeparatorCall {}.abi_encode()) {
            Ok(output) => Manager::domainSeparatorCall::abi_decode_returns(&output).ok(),
            Err(CallError::Reverted(_)) => None,
            Err(CallError::Backend(error)) => return Err(error),
        };
        if separator.map(|separator| separator.0) != Some(self.domain.separator()) {
            return Ok(Standing::Elsewhere);
        }
        let nonsense = |error: alloy_sol_types::Error| BackendError::Nonsense(error.to_string());
        match ask(self.call().abi_encode()) {
            Ok(_) => return Ok(Standing::Enforceable),
            Err(CallError::Backend(error)) => return Err(error),
            Err(CallError::Reverted(data)) => match ManagerErrors::abi_decode(&data) {
                Ok(ManagerErrors::LockState(_)) => {}
                Ok(error) => return Ok(Standing::Refused(reason(&error).to_owned())),
                Err(_) => return Ok(Standing::Refused("no reason is given".to_owned())),
            },
        }
        let info = match ask(Manager::calledInfoCall { lockId: self.lock_id() }.abi_encode()) {
            Ok(output) => Manager::calledInfoCall::abi_decode_returns(&output).map_err(nonsense)?,
            Err(CallError::Backend(error)) => return Err(error),
            Err(CallError::Reverted(_)) => return Ok(Standing::Elsewhere),
        };
        Ok(match info.state {
            1 => Standing::Called,
            2 => Standing::Dismissed,
            3 => Standing::Paid,
            other => {
                return Err(BackendError::Nonsense(format!("state {other} of a lock that cannot be called")));
            }
        })
    }

    /// Writes it. Numbers that may have more digits than a number of JSON is read with are decimal texts.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Certificate { lock, path, signature } = &self.certificate;
        json!({
            "format": FORMAT,
            "chainId": self.domain.chain_id,
            "contract": Address::from(self.domain.contract.0).to_string(),
            "engine": self.domain.engine.0.to_string(),
            "lockId": B256::from(lock.lock.word()).to_string(),
            "version": lock.version,
            "shard": lock.shard.0,
            "seq": lock.seq.0.to_string(),
            "partition": B256::from(lock.partition).to_string(),
            "payee": Address::from(lock.payee.0).to_string(),
            "amount": lock.amount.to_string(),
            "deadline": lock.deadline_secs,
            "releaseKey": Address::from(lock.release_key.0).to_string(),
            "path": path.iter().map(|hash| B256::from(*hash).to_string()).collect::<Vec<_>>(),
            "signature": hex::encode_prefixed(signature),
        })
    }

    /// Reads it. Nothing is checked but that everything is there: see [`CertificateFile::signer`].
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn from_json(text: &[u8]) -> Result<Self, CertificateError> {
        let value: Value = serde_json::from_slice(text).map_err(|_| CertificateError::Format)?;
        if value["format"] != FORMAT {
            return Err(CertificateError::Format);
        }
        let fields = Fields(&value);
        let domain = Domain {
            chain_id: fields.number("chainId")?,
            contract: fields.address("contract")?,
            engine: EngineId(fields.decimal("engine")?),
        };
        let lock = CertifiedLock {
            lock: LockId::from_word(&fields.word("lockId")?).ok_or(CertificateError::Field("lockId"))?,
            version: fields.narrow("version")?,
            shard: ShardId(fields.narrow("shard")?),
            seq: Seq(fields.decimal("seq")?),
            partition: fields.word("partition")?,
            payee: fields.address("payee")?,
            amount: fields.decimal("amount")?,
            deadline_secs: fields.number("deadline")?,
            release_key: fields.address("releaseKey")?,
        };
        let wrong = CertificateError::Field("path");
        let path = value["path"].as_array().ok_or(wrong)?;
        let path = path.iter().map(|hash| hash.as_str()?.parse::<B256>().ok().map(|hash| hash.0));
        let path = path.collect::<Option<Vec<Hash>>>().ok_or(wrong)?;
        let wrong = CertificateError::Field("signature");
        let mut signature = [0; 65];
        let digits = value["signature"].as_str().ok_or(wrong)?;
        hex::decode_to_slice(digits, &mut signature).map_err(|_| wrong)?;
        Ok(Self { domain, certificate: Certificate { lock, path, signature } })
    }

    /// Whose signature it bears. `None` for one that is none.
    #[must_use]
    pub fn signer(&self) -> Option<Address> {
        let digest = self.certificate.digest(&self.domain)?;
        chain::signer_of(&B256::from(digest), &self.certificate.signature)
    }

    /// The lock's name on chain.
    #[must_use]
    pub fn lock_id(&self) -> B256 {
        B256::from(self.certificate.lock.lock.word())
    }

    /// What enforces it.
    #[must_use]
    pub fn call(&self) -> Manager::callGuaranteeCall {
        let Certificate { lock, path, signature } = &self.certificate;
        Manager::callGuaranteeCall {
            lock: bindings::Lock {
                lockId: self.lock_id(),
                version: lock.version,
                shard: lock.shard.0,
                seq: lock.seq.0,
                partition: lock.partition.into(),
                payee: lock.payee.0.into(),
                amount: lock.amount,
                deadline: lock.deadline_secs,
                releaseKey: lock.release_key.0.into(),
            },
            path: path.iter().map(|hash| B256::from(*hash)).collect(),
            signature: signature.to_vec().into(),
        }
    }
}

/// Why the contract does not take a call.
const fn reason(error: &ManagerErrors) -> &'static str {
    match error {
        ManagerErrors::BadSig(_) => "its signer may not certify this lock",
        ManagerErrors::TooLate(_) => "its deadline is past, or farther ahead than any engine's",
        ManagerErrors::TooLarge(_) => "its amount is none that is paid",
        ManagerErrors::UnknownPartition(_) => "there is no such partition",
        _ => "the contract does not take it",
    }
}

/// Fields by name.
struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn text(&self, name: &'static str) -> Result<&str, CertificateError> {
        self.0[name].as_str().ok_or(CertificateError::Field(name))
    }

    fn number(&self, name: &'static str) -> Result<u64, CertificateError> {
        self.0[name].as_u64().ok_or(CertificateError::Field(name))
    }

    fn narrow(&self, name: &'static str) -> Result<u16, CertificateError> {
        self.number(name)?.try_into().map_err(|_| CertificateError::Field(name))
    }

    fn decimal<T: core::str::FromStr>(&self, name: &'static str) -> Result<T, CertificateError> {
        self.text(name)?.parse().map_err(|_| CertificateError::Field(name))
    }

    fn word(&self, name: &'static str) -> Result<Hash, CertificateError> {
        self.decimal::<B256>(name).map(|word| word.0)
    }

    fn address(&self, name: &'static str) -> Result<surety_protocol::Address, CertificateError> {
        self.decimal::<Address>(name).map(|address| surety_protocol::Address(address.into_array()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chain::{DigestSigner, LocalKey};
    use settlement::LockGroup;
    use surety_protocol::{Id, PartitionHandle, TenantId};

    fn files(count: u16) -> Vec<CertificateFile> {
        let lock = |number: u16| CertifiedLock {
            lock: LockId {
                tenant: TenantId(7),
                partition: PartitionHandle(3),
                id: Id(1 << 100 | u128::from(number)),
            },
            version: number,
            shard: ShardId(2),
            seq: Seq(u64::MAX - u64::from(number)),
            partition: [0xcc; 32],
            payee: surety_protocol::Address([1; 20]),
            amount: u128::MAX >> 32,
            deadline_secs: 1_900_000_000,
            release_key: surety_protocol::Address([0x71; 20]),
        };
        let domain = Domain {
            chain_id: 31_337,
            contract: surety_protocol::Address([0x17; 20]),
            engine: EngineId(u128::MAX),
        };
        let group = LockGroup::new((0..count).map(lock).collect()).unwrap();
        let signature = key().sign(&B256::from(group.digest(&domain))).unwrap();
        group.sign(signature).map(|certificate| CertificateFile { domain, certificate }).collect()
    }

    fn key() -> LocalKey {
        LocalKey::from_bytes(&[5; 32]).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back_and_signed() {
        for file in files(5) {
            let text = file.to_json().to_string();
            assert_eq!(CertificateFile::from_json(text.as_bytes()), Ok(file.clone()));
            assert_eq!(file.signer(), Some(key().address()));
        }
    }

    #[test]
    fn whatever_is_altered_is_another_statement_or_none() {
        let file = files(3).remove(1);
        let value = file.to_json();
        let digits = |text: &str| text.replacen('7', "3", 1).replacen('1', "2", 1).replacen('c', "d", 1);
        for (name, field) in value.as_object().unwrap() {
            let mut altered = value.clone();
            altered[name] = match field {
                Value::Number(number) => json!(number.as_u64().unwrap() + 1),
                Value::Array(path) => json!(path[1..]),
                Value::String(text) => json!(digits(text)),
                other => panic!("{name}: {other}"),
            };
            assert_ne!(altered[name], *field, "{name}");
            let read = CertificateFile::from_json(altered.to_string().as_bytes());
            let is_believed = read.is_ok_and(|read| read.signer() == Some(key().address()));
            assert!(!is_believed, "{name}");
            altered[name] = Value::Null;
            assert!(CertificateFile::from_json(altered.to_string().as_bytes()).is_err(), "{name}");
        }
        assert_eq!(CertificateFile::from_json(b"[1]"), Err(CertificateError::Format));
        assert_eq!(CertificateFile::from_json(b"{"), Err(CertificateError::Format));
    }
}
