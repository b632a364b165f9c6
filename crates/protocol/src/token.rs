//! Rollback tokens: what an engine has once said, so that it cannot later deny it.

use rkyv::{Archive, Deserialize, Serialize};

use crate::archive;
use crate::limits::TOKEN_BYTES;
use crate::{EngineId, Epoch, Seq, ShardId};

/// Carried by every reply frame, and presented by clients in their next hello.
///
/// A valid token from an epoch above the engine's own, or at or past the first seq of the epoch after the token's, proves
/// that the engine runs on an old copy of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Token {
    /// Which engine.
    pub engine: EngineId,
    /// The last seq covered by a completed sync.
    pub synced: Seq,
    /// The epoch that speaks.
    pub epoch: Epoch,
    /// Which shard.
    pub shard: ShardId,
    /// Two drawn bytes of the life that speaks, never zero; zero where no loss was accepted. They tell lives apart that were begun
    /// out of one backup.
    pub life: u16,
    /// The first 16 bytes of keyed BLAKE3 over the 32 bytes before it.
    pub tag: [u8; 16],
}

const _: () = assert!(size_of::<ArchivedToken>() == TOKEN_BYTES);

impl Token {
    /// Makes a token with the engine's secret key.
    #[must_use]
    pub fn sign(key: &[u8; 32], engine: EngineId, shard: ShardId, epoch: Epoch, synced: Seq) -> Self {
        Self { engine, synced, epoch, shard, life: 0, tag: [0; 16] }.of_life(key, 0)
    }

    /// The same of a life that has begun after a loss.
    #[must_use]
    pub fn of_life(mut self, key: &[u8; 32], life: u16) -> Self {
        self.life = life;
        self.tag = self.expected_tag(key);
        self
    }

    /// What tokens say of the life with this name.
    #[must_use]
    pub const fn mark_of(life: u128) -> u16 {
        let bytes = life.to_le_bytes();
        match u16::from_le_bytes([bytes[0], bytes[1]]) {
            0 => 1,
            mark => mark,
        }
    }

    /// True if the token was made with this key.
    #[must_use]
    pub fn is_genuine(&self, key: &[u8; 32]) -> bool {
        // Compare without an early exit, so that time tells nothing about the tag.
        let difference = self.tag.iter().zip(self.expected_tag(key)).fold(0, |sum, (a, b)| sum | (a ^ b));
        difference == 0
    }

    /// Writes 48 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; TOKEN_BYTES] {
        archive::write(self)
    }

    /// Reads 48 bytes; `None` for another length.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        archive::read(bytes)
    }

    fn expected_tag(&self, key: &[u8; 32]) -> [u8; 16] {
        let bytes = self.to_bytes();
        let mut tag = [0; 16];
        tag.copy_from_slice(&blake3::keyed_hash(key, &bytes[..32]).as_bytes()[..16]);
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_spoils_a_token() {
        let key = [5; 32];
        let token = Token::sign(&key, EngineId(1), ShardId(2), Epoch(3), Seq(4));
        for token in [token, token.of_life(&key, Token::mark_of(7))] {
            assert!(token.is_genuine(&key));
            assert!(!token.is_genuine(&[6; 32]));
            for bit in 0..TOKEN_BYTES * 8 {
                let mut bytes = token.to_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(Token::from_slice(&bytes).is_none_or(|token| !token.is_genuine(&key)), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_life_after_a_loss_has_a_mark() {
        for (life, mark) in [(0, 1), (1 << 16, 1), (1, 1), (0x1_ffff, 0xffff), (0x1234_5678, 0x5678)] {
            assert_eq!(Token::mark_of(life), mark, "{life}");
        }
    }
}
