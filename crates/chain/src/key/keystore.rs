//! Ethereum keystore files: Web3 Secret Storage, version 3.

use aes::Aes128;
use alloy_primitives::{Address, hex, keccak256};
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use pbkdf2::sha2::Sha256;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{DigestSigner, KeyError, LocalKey};

/// The most memory that deriving a key may take: twice what wallets ask for.
const SCRYPT_BYTES_MAX: u64 = 512 << 20;
const SCRYPT_LANES_MAX: u32 = 16;
const PBKDF2_ROUNDS_MAX: u32 = 10_000_000;
/// Half of it opens the cipher, half is bound into the checksum.
const DERIVED_BYTES: usize = 32;

#[derive(Deserialize)]
struct File {
    version: u32,
    address: Option<String>,
    #[serde(alias = "Crypto")]
    crypto: Crypto,
}

#[derive(Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParameters,
    ciphertext: String,
    kdf: String,
    kdfparams: Derivation,
    mac: String,
}

#[derive(Deserialize)]
struct CipherParameters {
    iv: String,
}

/// The parameters of either way.
#[derive(Deserialize)]
struct Derivation {
    dklen: usize,
    salt: String,
    n: Option<u64>,
    r: Option<u32>,
    p: Option<u32>,
    c: Option<u32>,
    prf: Option<String>,
}

/// Reads the key out of a file's bytes.
pub(super) fn open(file: &[u8], password: &[u8]) -> Result<LocalKey, KeyError> {
    let file: File = serde_json::from_slice(file).map_err(|_| KeyError::Keystore("no JSON of a keystore"))?;
    if file.version != 3 {
        return Err(KeyError::Keystore("another version than 3"));
    }
    let crypto = &file.crypto;
    if crypto.cipher != "aes-128-ctr" {
        return Err(KeyError::Keystore("another cipher than aes-128-ctr"));
    }
    let iv: [u8; 16] = bytes(&crypto.cipherparams.iv)?;
    let mut secret: Zeroizing<[u8; 32]> = Zeroizing::new(bytes(&crypto.ciphertext)?);
    let derived = derive(&crypto.kdf, &crypto.kdfparams, password)?;
    let mut sealed = Zeroizing::new([0; 48]);
    sealed[..16].copy_from_slice(&derived[16..]);
    sealed[16..].copy_from_slice(secret.as_slice());
    if keccak256(sealed.as_slice()) != bytes::<32>(&crypto.mac)? {
        return Err(KeyError::Password);
    }
    let mut cipher = Ctr128BE::<Aes128>::new_from_slices(&derived[..16], &iv)
        .map_err(|_| KeyError::Keystore("a key of the wrong length"))?;
    cipher.apply_keystream(secret.as_mut_slice());
    let key = LocalKey::from_bytes(&secret)?;
    let is_its_own = |text: &String| Address::from(bytes(text).unwrap_or_default()) == key.address();
    if file.address.as_ref().is_none_or(is_its_own) {
        Ok(key)
    } else {
        Err(KeyError::Keystore("it holds the key of another address than it says"))
    }
}

fn derive(
    name: &str,
    asked: &Derivation,
    password: &[u8],
) -> Result<Zeroizing<[u8; DERIVED_BYTES]>, KeyError> {
    const CUT: KeyError = KeyError::Keystore("a parameter of the key derivation is missing");
    const COST: KeyError = KeyError::Keystore("a key derivation that costs nothing, or too much");
    if asked.dklen != DERIVED_BYTES {
        return Err(KeyError::Keystore("another length of the derived key than 32"));
    }
    let salt = hex::decode(&asked.salt).map_err(|_| KeyError::Keystore("a salt that is no hexadecimal"))?;
    let mut derived = Zeroizing::new([0; DERIVED_BYTES]);
    match name {
        "scrypt" => {
            let (n, r, p) = (asked.n.ok_or(CUT)?, asked.r.ok_or(CUT)?, asked.p.ok_or(CUT)?);
            let memory = n.checked_mul(u64::from(r)).and_then(|blocks| blocks.checked_mul(128));
            let is_bearable = memory.is_some_and(|bytes| bytes <= SCRYPT_BYTES_MAX) && p <= SCRYPT_LANES_MAX;
            if !is_bearable || !n.is_power_of_two() || n < 2 {
                return Err(COST);
            }
            let log_n = u8::try_from(n.ilog2()).map_err(|_| COST)?;
            let parameters = scrypt::Params::new(log_n, r, p).map_err(|_| COST)?;
            scrypt::scrypt(password, &salt, &parameters, derived.as_mut_slice()).map_err(|_| COST)?;
        }
        "pbkdf2" => {
            let rounds = asked.c.ok_or(CUT)?;
            if asked.prf.as_deref() != Some("hmac-sha256") {
                return Err(KeyError::Keystore("another function than hmac-sha256"));
            }
            if !(1..=PBKDF2_ROUNDS_MAX).contains(&rounds) {
                return Err(COST);
            }
            pbkdf2::pbkdf2_hmac::<Sha256>(password, &salt, rounds, derived.as_mut_slice());
        }
        _ => return Err(KeyError::Keystore("neither scrypt nor pbkdf2")),
    }
    Ok(derived)
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], KeyError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes)
        .map_err(|_| KeyError::Keystore("a field of the wrong length, or no hexadecimal"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both files are the examples of the format's definition; the secret of both is the same.
    const PBKDF2: &str = r#"{ "crypto": { "cipher": "aes-128-ctr",
        "cipherparams": { "iv": "6087dab2f9fdbbfaddc31a909735c1e6" },
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2", "kdfparams": { "c": 262144, "dklen": 32, "prf": "hmac-sha256",
        "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd" },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2" },
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6", "version": 3 }"#;
    const SCRYPT: &str = r#"{ "crypto": { "cipher": "aes-128-ctr",
        "cipherparams": { "iv": "83dbcc02d8ccb40e466191a123791e0e" },
        "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
        "kdf": "scrypt", "kdfparams": { "dklen": 32, "n": 262144, "p": 8, "r": 1,
        "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19" },
        "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097" },
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6", "version": 3 }"#;
    const SECRET: [u8; 32] = hex!("7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d");

    #[test]
    fn both_examples_of_the_definition_open() {
        let expected = LocalKey::from_bytes(&SECRET).unwrap().address();
        for file in [PBKDF2, SCRYPT] {
            let key = open(file.as_bytes(), b"testpassword").unwrap();
            assert_eq!(key.address(), expected);
            let named = file.replace("\"version\"", &format!("\"address\": \"{expected:x}\", \"version\""));
            assert_eq!(open(named.as_bytes(), b"testpassword").unwrap().address(), expected);
            let wrong =
                file.replace("\"version\"", &format!("\"address\": \"{}\", \"version\"", "00".repeat(20)));
            assert!(matches!(open(wrong.as_bytes(), b"testpassword"), Err(KeyError::Keystore(_))));
            assert_eq!(open(file.as_bytes(), b"testpasswore").unwrap_err(), KeyError::Password);
        }
    }

    #[test]
    fn a_damaged_file_opens_nothing() {
        let check = |from: &str, to: &str, file: &str| {
            let damaged = file.replacen(from, to, 1);
            assert_ne!(damaged, file);
            open(damaged.as_bytes(), b"testpassword").unwrap_err()
        };
        for (from, to) in [("5318", "5319"), ("517e", "517f"), ("ae3c", "ae3d")] {
            assert_eq!(check(from, to, PBKDF2), KeyError::Password, "{from}");
        }
        for (from, to) in [
            ("\"version\": 3", "\"version\": 2"),
            ("aes-128-ctr", "aes-256-cbc"),
            ("\"pbkdf2\"", "\"argon2\""),
            ("hmac-sha256", "hmac-md5"),
            ("262144", "4000000000"),
            ("262144", "0"),
            ("\"dklen\": 32", "\"dklen\": 16"),
            ("6087", "60"),
            ("6087", "xx87"),
            ("{ \"crypto\"", "\"crypto\""),
        ] {
            assert!(matches!(check(from, to, PBKDF2), KeyError::Keystore(_)), "{from} {to}");
        }
        for (from, to) in [
            ("262144", "262145"),
            ("262144", "1073741824"),
            ("262144", "1"),
            ("\"p\": 8", "\"p\": 4000000000"),
            ("\"r\": 1", "\"r\": 4000000000"),
            ("\"r\": 1", "\"r\": 0"),
            ("\"n\": 262144,", ""),
        ] {
            assert!(matches!(check(from, to, SCRYPT), KeyError::Keystore(_)), "{from} {to}");
        }
    }
}
