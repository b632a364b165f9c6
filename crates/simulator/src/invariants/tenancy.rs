//! Who has no right in a partition learns nothing of it.

use surety_protocol::{Amount, Caller, Reply, TenantId};

use super::{Violation, hold};

const NAME: &str = "another tenant's partition does not exist";

/// The tenant that is never granted anything.
const STRANGER: TenantId = TenantId(9);

pub(super) fn check(reply: &Reply, caller: &Caller) -> Result<(), Violation> {
    let tells = reply.free != Amount::ZERO || reply.remaining != Amount::ZERO || reply.version != 0;
    hold(NAME, caller.tenant != STRANGER || !tells, || format!("{reply:?} to {caller:?}"))
}
