//! Operations: the units of execution inside a frame.

use crate::limits::{CHAIN_MAX, CONTINUATION_BYTES, LONG_RECORDS_MAX, RECORD_BYTES};
use crate::record::{ControlBody, Shape};
use crate::{ActorId, Code, Kind, Origin, Record, RecordError, Roles, TenantId};

/// Who asks, as the connection's certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whose requests these are; 0 is the operator.
    pub tenant: TenantId,
    /// What the certificate allows.
    pub roles: Roles,
    /// Which certificate.
    pub actor: ActorId,
}

/// The requests of a frame, grouped into what is executed at once: a request, a linked chain, or a long request.
///
/// The groups are checked to be requests at all ([`Record::check`]); an error is a reason to close the connection, and the
/// frame must then not be executed, not even in part: check it whole with [`Operations::check`] first.
#[derive(Clone, Debug)]
pub struct Operations<'a> {
    rest: &'a [[u8; RECORD_BYTES]],
}

impl<'a> Operations<'a> {
    /// The operations of a request frame's body. Bytes that do not fill a record are ignored; frame headers exclude them.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body.as_chunks().0 }
    }

    /// Reads the whole frame without executing it.
    ///
    /// # Errors
    /// What is wrong with the first bad record.
    pub fn check(body: &'a [u8]) -> Result<(), RecordError> {
        Self::new(body).try_for_each(|operation| operation.map(|_| ()))
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<&'a [[u8; RECORD_BYTES]], RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let length = match measure(self.rest) {
            Ok(length) => length,
            Err(error) => {
                self.rest = &[];
                return Some(Err(error));
            }
        };
        let (operation, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(Ok(operation))
    }
}

/// How many records the first operation takes.
fn measure(records: &[[u8; RECORD_BYTES]]) -> Result<usize, RecordError> {
    let mut length = 0;
    loop {
        let Some(bytes) = records.get(length) else {
            // The last request of a frame cannot be linked to the next frame's.
            return Err(RecordError::Cut { expected: length + 1, found: length });
        };
        let head = Shape::read(bytes)?;
        if head.kind == Kind::Continuation {
            return Err(RecordError::Cut { expected: 0, found: 1 });
        }
        let parts = head.continuations;
        if parts > 0 {
            check_parts(bytes, parts, &records[length + 1..])?;
        }
        length += 1 + parts;
        if !head.is_linked {
            return Ok(length);
        }
    }
}

/// Checks that `expected` continuations follow a head, and that what is neither payload nor kind in them is zero.
fn check_parts(
    head: &[u8; RECORD_BYTES],
    expected: usize,
    rest: &[[u8; RECORD_BYTES]],
) -> Result<(), RecordError> {
    let is_part = |bytes: &&[u8; RECORD_BYTES]| bytes[RECORD_BYTES - 2] == Kind::Continuation as u8;
    let found = rest.iter().take(expected).take_while(is_part).count();
    if found != expected {
        return Err(RecordError::Cut { expected, found });
    }
    rest[..expected].iter().try_for_each(|part| Shape::read(part).map(|_| ()))?;
    let bytes = usize::try_from(Record::from_bytes(head).body::<ControlBody>().number).unwrap_or(usize::MAX);
    let in_last = bytes - (expected - 1) * CONTINUATION_BYTES;
    let is_padded = rest[expected - 1][in_last..CONTINUATION_BYTES].iter().all(|byte| *byte == 0);
    if is_padded { Ok(()) } else { Err(RecordError::Padding(Kind::Continuation)) }
}

/// Checks an operation for what no ledger needs to know: size, shape, role.
///
/// The signature and the paths of a [`Kind::ReleaseGroup`] are believed here and in the ledger: whoever hands one to an
/// engine verifies them first.
///
/// # Errors
/// The admission code that answers every request of the operation.
pub fn admit(operation: &[Record], caller: &Caller) -> Result<(), Code> {
    let is_long = operation.first().is_some_and(|head| head.continuations() > 0);
    let limit = if is_long { LONG_RECORDS_MAX } else { CHAIN_MAX };
    if operation.len() > limit {
        return Err(Code::TooLarge);
    }
    let in_one_place = |record: &Record| {
        record.kind() == Some(Kind::Continuation)
            || record.partition.shard() == operation[0].partition.shard()
    };
    for record in operation {
        let kind = record.kind().ok_or(Code::Malformed)?;
        // A chain is made of plain requests of one shard; long requests and look-ups belong to no chain.
        let chained = !is_long && operation.len() > 1 || kind != Kind::Continuation && record.is_linked();
        if !record.is_well_formed(kind) || !in_one_place(record) || chained && !kind.may_be_linked() {
            return Err(Code::Malformed);
        }
        if kind != Kind::Continuation && !caller.may_send(kind, record.tenant) {
            return Err(Code::NoRight);
        }
    }
    Ok(())
}

/// Whose past and present somebody sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// All tenants' together, and what is nobody's.
    All,
    /// What is this tenant's, and nothing else.
    Tenant(TenantId),
}

impl Sight {
    /// Whose it is; none for all.
    #[must_use]
    pub const fn tenant(self) -> Option<TenantId> {
        match self {
            Self::All => None,
            Self::Tenant(tenant) => Some(tenant),
        }
    }
}

impl Caller {
    /// True for the operator's readers, settlers and admins: nothing is hidden from them.
    #[must_use]
    pub fn sees_all(&self) -> bool {
        let may_see_all = Roles::SETTLER | Roles::ADMIN | Roles::READER;
        self.tenant == TenantId(0) && self.roles.0 & may_see_all.0 != 0
    }

    /// On whose behalf the caller may ask what has happened; none for whom of the operator's callers may only authorize: they see nothing of
    /// all tenants'.
    #[must_use]
    pub fn sight(&self) -> Option<Sight> {
        match self.tenant {
            _ if self.sees_all() => Some(Sight::All),
            TenantId(0) => None,
            tenant => Some(Sight::Tenant(tenant)),
        }
    }

    /// True if the certificate allows records of this kind, about ids of this tenant (0 for the caller's own).
    ///
    /// Facts of the chain and the running of the engine are the operator's: a tenant's own admin keeps its merchant
    /// directory and no more. Only the operator's settlers and admins name another tenant's ids.
    #[must_use]
    pub fn may_send(&self, kind: Kind, tenant: TenantId) -> bool {
        let is_operator = self.tenant == TenantId(0);
        let is_operators_kind =
            matches!(kind.origin(), Origin::Chain | Origin::Admin) && kind != Kind::MerchantSet;
        let is_own =
            tenant == TenantId(0) || tenant == self.tenant || crate::sabotage!("another-tenants-name-taken");
        let may_name_others = is_operator && (self.roles.has(Roles::SETTLER) || self.roles.has(Roles::ADMIN));
        self.roles.allow(kind) && (is_operator || !is_operators_kind) && (is_own || may_name_others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Amount, Flags, Id, LockBody, PartitionHandle, ShardId, long};
    use alloc::vec::Vec;

    fn lock(id: u128) -> Record {
        Record::new(Kind::Lock, Id(id), PartitionHandle::new(ShardId(0), 1), Amount(1), &LockBody::default())
    }

    fn body(records: &[Record]) -> Vec<u8> {
        records.iter().flat_map(Record::to_bytes).collect()
    }

    fn lengths(records: &[Record]) -> Result<Vec<usize>, RecordError> {
        let body = body(records);
        Operations::new(&body).map(|operation| operation.map(<[_]>::len)).collect()
    }

    #[test]
    fn a_frame_falls_into_single_requests_chains_and_long_ones() {
        let linked = |id| lock(id).with_flags(Flags::LINKED);
        let policy = long::split(Kind::Policy, Id(9), PartitionHandle(1), 0, &[1; 360]);
        assert_eq!(lengths(&[lock(1), lock(2)]), Ok(alloc::vec![1, 1]));
        assert_eq!(lengths(&[linked(1), linked(2), lock(3), lock(4)]), Ok(alloc::vec![3, 1]));
        assert_eq!(lengths(&[&policy[..], &[lock(1)]].concat()), Ok(alloc::vec![4, 1]));
        assert!(lengths(&[lock(1), linked(2)]).is_err(), "a chain without its end");
        assert!(lengths(&policy[..3]).is_err(), "a long request without its end");
        assert!(lengths(&policy[1..]).is_err(), "continuations without a head");
        let mut unknown = lock(1);
        unknown.kind = 200;
        assert_eq!(lengths(&[lock(1), unknown]), Err(RecordError::UnknownKind(200)));
        unknown.kind = Kind::Expire as u8;
        assert!(lengths(&[unknown]).is_err(), "the engine's own kinds do not arrive");
    }

    #[test]
    fn other_tenants_are_named_by_the_operator_alone() {
        let check = |tenant, roles, kind, named, expect| {
            let caller = Caller { tenant: TenantId(tenant), roles, actor: ActorId(1) };
            assert_eq!(caller.may_send(kind, TenantId(named)), expect, "{tenant} {roles:?} {kind} {named}");
        };
        check(7, Roles::AUTHORIZER, Kind::Lock, 0, true);
        check(7, Roles::AUTHORIZER, Kind::Lock, 7, true);
        check(7, Roles::AUTHORIZER, Kind::Lock, 8, false);
        check(7, Roles::SETTLER, Kind::Settle, 7, true);
        check(7, Roles::SETTLER, Kind::Settle, 8, false);
        check(7, Roles::SETTLER, Kind::Deposit, 0, false);
        check(7, Roles::ADMIN, Kind::Grant, 0, false);
        check(7, Roles::ADMIN, Kind::MerchantSet, 0, true);
        check(7, Roles::ADMIN, Kind::MerchantSet, 8, false);
        check(0, Roles::SETTLER, Kind::Settle, 8, true);
        check(0, Roles::SETTLER, Kind::Deposit, 0, true);
        check(0, Roles::AUTHORIZER, Kind::Lock, 8, false);
        check(0, Roles::ADMIN, Kind::MerchantSet, 8, true);
    }

    #[test]
    fn the_past_is_the_operators_and_each_tenants_own() {
        let sight = |tenant, roles| Caller { tenant: TenantId(tenant), roles, actor: ActorId(1) }.sight();
        for roles in [Roles::READER, Roles::SETTLER, Roles::ADMIN, Roles::AUTHORIZER | Roles::READER] {
            assert_eq!(sight(0, roles), Some(Sight::All), "{roles:?}");
        }
        assert_eq!(sight(0, Roles::AUTHORIZER), None, "it sees nothing of all tenants'");
        for roles in [Roles::AUTHORIZER, Roles::READER, Roles::ADMIN, Roles::KNOWN] {
            assert_eq!(sight(7, roles), Some(Sight::Tenant(TenantId(7))), "{roles:?}");
        }
    }

    #[test]
    fn bytes_behind_a_payload_are_zero() {
        let long = long::split(Kind::Policy, Id(9), PartitionHandle(1), 0, &[1; 250]);
        let check = |byte: usize, expect: bool| {
            let mut bytes = body(&long);
            bytes[3 * RECORD_BYTES + byte] ^= 1;
            assert_eq!(Operations::check(&bytes).is_ok(), expect, "byte {byte} of the last continuation");
        };
        for byte in 0..10 {
            check(byte, true);
        }
        for byte in (10..126).chain([127]) {
            check(byte, false);
        }
    }

    #[test]
    fn roles_and_shape_are_checked_before_any_ledger() {
        let caller = |roles, tenant| Caller { tenant: TenantId(tenant), roles, actor: ActorId(1) };
        let authorizer = caller(Roles::AUTHORIZER, 7);
        assert_eq!(admit(&[lock(1)], &authorizer), Ok(()));
        assert_eq!(admit(&[lock(1)], &caller(Roles::READER, 7)), Err(Code::NoRight));
        let other = Record { tenant: TenantId(8), ..lock(1) };
        assert_eq!(admit(&[other], &authorizer), Err(Code::NoRight));
        let filled = Record { result: Amount(1), ..lock(1) };
        assert_eq!(admit(&[filled], &authorizer), Err(Code::Malformed));
        let huge = Record { amount: Amount(u128::MAX), ..lock(1) };
        assert_eq!(admit(&[huge], &authorizer), Err(Code::Malformed));
        let long = long::split(Kind::Policy, Id(9), PartitionHandle(1), 0, &[1; 360]);
        let admin = caller(Roles::ADMIN, 0);
        assert_eq!(admit(&long, &admin), Ok(()));
        assert_eq!(admit(&long, &caller(Roles::ADMIN, 7)), Err(Code::NoRight), "a tenant's admin");
        let group = long::split(Kind::ReleaseGroup, Id(9), PartitionHandle(1), 0, &[1; 360]);
        assert_eq!(admit(&group, &authorizer), Ok(()), "its signature is verified before");
        assert_eq!(admit(&group, &caller(Roles::READER, 7)), Err(Code::NoRight));
        let mut linked = long.clone();
        linked[0] = linked[0].with_flags(Flags::LINKED);
        linked.push(lock(1));
        assert_eq!(admit(&linked, &admin), Err(Code::Malformed), "long requests belong to no chain");
        let chain = alloc::vec![lock(1).with_flags(Flags::LINKED); CHAIN_MAX + 1];
        assert_eq!(admit(&chain, &authorizer), Err(Code::TooLarge));
    }
}
