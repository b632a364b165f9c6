//! The first exchange of every stream: who is there, which version, where the shards are.

use alloc::vec::Vec;

use rkyv::{Archive, Deserialize, Serialize};

use crate::archive;
use crate::limits::{HELLO_TOKENS_MAX, SHARDS_MAX, TOKEN_BYTES};
use crate::token::Token;
use crate::{EngineId, Epoch, FrameError, FrameKind, Seq, ShardId, TenantId, Time};

/// The newest version of the wire that this crate speaks.
pub const PROTOCOL_VERSION: u16 = 2;
/// The oldest that is still spoken. An engine that lives on after a loss speaks nothing older than 2: what it then says has no words
/// in 1.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// From this version on a subscription has an epoch, and the heads of its frames have the epochs of their records.
pub const CURSORS_HAVE_EPOCHS: u16 = 2;
/// From this version on each quota of a tenant has a code of its own, and open locks have a quota.
pub const QUOTAS_HAVE_CODES: u16 = 2;
/// The ALPN protocol name of QUIC connections.
pub const ALPN: &[u8] = b"surety/1";
/// "SRTY", read as a little-endian number.
pub const HELLO_MAGIC: u32 = u32::from_le_bytes(*b"SRTY");
/// Bytes of a hello without its tokens.
pub const HELLO_BYTES: usize = 48;
/// Bytes of a hello reply.
pub const HELLO_REPLY_BYTES: usize = 64 + 2 * SHARDS_MAX;

/// What a client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Hello {
    /// [`HELLO_MAGIC`].
    pub magic: u32,
    /// The oldest version that the client speaks.
    pub version_min: u16,
    /// The newest version that the client speaks.
    pub version_max: u16,
    /// The tenant that the client believes to be; must be the certificate's.
    pub tenant: TenantId,
    /// Zero.
    pub reserved: u32,
    /// A name for the engine's logs, UTF-8 padded with zeros.
    pub name: [u8; 32],
}

/// What the engine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct HelloReply {
    /// Which engine.
    pub engine: EngineId,
    /// The engine's time.
    pub now: Time,
    /// The last seq that replies may speak of.
    pub acked: Seq,
    /// The last seq that a completed sync covers.
    pub synced: Seq,
    /// The epoch of this start.
    pub epoch: Epoch,
    /// The certificate's tenant.
    pub tenant: TenantId,
    /// The version that both speak from now on.
    pub version: u16,
    /// The shard behind this port.
    pub shard: ShardId,
    /// Shards of the engine.
    pub shards: u16,
    /// Requests that one frame may hold.
    pub frame_records_max: u16,
    /// Requests that the connection may have unanswered.
    pub in_flight_max: u32,
    /// The certificate's [`crate::Roles`].
    pub roles: u8,
    /// 0 `fsync`, 1 `os`.
    pub durability: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// The shard map: UDP port of shard *i*, on the host that was dialled. Unused entries are 0.
    pub ports: [u16; SHARDS_MAX],
}

const _: () = assert!(size_of::<ArchivedHello>() == HELLO_BYTES);
const _: () = assert!(size_of::<ArchivedHelloReply>() == HELLO_REPLY_BYTES);

impl Hello {
    /// A hello in this crate's versions. A longer name is cut.
    #[must_use]
    pub fn new(tenant: TenantId, name: &str) -> Self {
        let mut padded = [0; 32];
        let cut = name.floor_char_boundary(padded.len());
        padded[..cut].copy_from_slice(&name.as_bytes()[..cut]);
        Self {
            magic: HELLO_MAGIC,
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION,
            tenant,
            reserved: 0,
            name: padded,
        }
    }

    /// The client's name, as far as it is UTF-8.
    #[must_use]
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        core::str::from_utf8(&self.name[..end]).unwrap_or("")
    }

    /// The newest version that both speak; `None` if there is none. `oldest` is the oldest that the engine speaks now.
    #[must_use]
    pub const fn common_version(&self, oldest: u16) -> Option<u16> {
        let newest = if self.version_max < PROTOCOL_VERSION { self.version_max } else { PROTOCOL_VERSION };
        if self.version_min <= newest && oldest <= newest { Some(newest) } else { None }
    }

    /// Writes the body of a hello frame.
    #[must_use]
    pub fn to_body(&self, tokens: &[Token]) -> Vec<u8> {
        let fixed: [u8; HELLO_BYTES] = archive::write(self);
        let mut body = fixed.to_vec();
        tokens.iter().take(HELLO_TOKENS_MAX).for_each(|token| body.extend_from_slice(&token.to_bytes()));
        body
    }

    /// Reads the body of a hello frame.
    ///
    /// # Errors
    /// [`FrameError::Body`] if magic or length are wrong, [`FrameError::Padding`] if a reserved byte is not zero.
    pub fn from_body(body: &[u8]) -> Result<(Self, Vec<Token>), FrameError> {
        let wrong = FrameError::Body(FrameKind::Hello);
        let (fixed, tokens) = body.split_at_checked(HELLO_BYTES).ok_or(wrong)?;
        let hello: Self = archive::read(fixed).ok_or(wrong)?;
        let tokens_fit = tokens.len() % TOKEN_BYTES == 0 && tokens.len() <= HELLO_TOKENS_MAX * TOKEN_BYTES;
        if hello.magic != HELLO_MAGIC || !tokens_fit {
            return Err(wrong);
        }
        if hello.reserved != 0 {
            return Err(FrameError::Padding);
        }
        let tokens =
            tokens.chunks_exact(TOKEN_BYTES).map(|bytes| Token::from_slice(bytes).ok_or(FrameError::Padding));
        Ok((hello, tokens.collect::<Result<_, _>>()?))
    }
}

impl HelloReply {
    /// Writes the body of a hello reply frame.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HELLO_REPLY_BYTES] {
        archive::write(self)
    }

    /// Reads the body of a hello reply frame.
    ///
    /// # Errors
    /// [`FrameError::Body`] if length or shard map are wrong, [`FrameError::Padding`] if a reserved byte is not zero.
    pub fn from_body(body: &[u8]) -> Result<Self, FrameError> {
        let wrong = FrameError::Body(FrameKind::HelloReply);
        let reply: Self = archive::read(body).ok_or(wrong)?;
        let shards = usize::from(reply.shards);
        let map_is_sound = (1..=SHARDS_MAX).contains(&shards)
            && reply.shard.0 < reply.shards
            && reply.ports[..shards].iter().all(|port| *port != 0)
            && reply.ports[shards..].iter().all(|port| *port == 0);
        if !map_is_sound {
            return Err(wrong);
        }
        if reply.reserved == [0; 2] { Ok(reply) } else { Err(FrameError::Padding) }
    }

    /// The UDP ports, one per shard.
    #[must_use]
    pub fn shard_map(&self) -> &[u16] {
        &self.ports[..usize::from(self.shards).min(SHARDS_MAX)]
    }
}

/// The `ports` field for a list of ports.
///
/// # Panics
/// If there are more than [`SHARDS_MAX`].
#[must_use]
pub fn shard_map(ports: &[u16]) -> [u16; SHARDS_MAX] {
    let mut map = [0; SHARDS_MAX];
    map[..ports.len()].copy_from_slice(ports);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_with_its_tokens() {
        let hello = Hello::new(TenantId(7), "router-1");
        let token = Token::sign(&[9; 32], EngineId(1), ShardId(0), Epoch(2), Seq(3));
        let body = hello.to_body(&[token, token]);
        assert_eq!(Hello::from_body(&body), Ok((hello, alloc::vec![token, token])));
        assert_eq!(hello.name(), "router-1");
        assert!(Hello::from_body(&body[..body.len() - 1]).is_err());
        let mut wrong = body.clone();
        wrong[0] ^= 1;
        assert!(Hello::from_body(&wrong).is_err());
    }

    #[test]
    fn versions_are_negotiated() {
        let hello = |min, max| Hello { version_min: min, version_max: max, ..Hello::new(TenantId(1), "") };
        let check = |min, max, oldest, expect| {
            assert_eq!(hello(min, max).common_version(oldest), expect, "{min} {max} {oldest}");
        };
        check(1, 1, 1, Some(1));
        check(1, 2, 1, Some(2));
        check(0, 9, 1, Some(2));
        check(2, 9, 1, Some(2));
        check(3, 9, 1, None);
        check(0, 0, 1, None);
        check(2, 1, 1, None);
        // After a loss.
        check(1, 1, 2, None);
        check(1, 2, 2, Some(2));
        check(2, 2, 2, Some(2));
        check(3, 2, 1, None);
    }
}
