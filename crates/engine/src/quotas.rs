//! What a tenant may use of a shard at a time: requests per second, and requests without an answer.
//!
//! Looked at for live requests only: what is in the log was admitted, so replay asks nothing here and nothing here is part of
//! the state. The time is that of the batch, as the owner of the engine passes it in.

use alloc::vec::Vec;

use ledger::Ledger;
use surety_protocol::{Caller, Roles, TenantBody, TenantId, Time, sabotage};

/// A tenant that was silent may send so much of its rate at once.
const BURST: Time = Time::from_secs(1);

/// The tenants that have such quotas, or had them.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    /// By tenant, in order.
    tenants: Vec<Usage>,
}

/// One tenant's quotas, and how much of them is used.
#[derive(Debug)]
struct Usage {
    tenant: TenantId,
    /// Nanoseconds that a request costs; 0 without a limit.
    cost: u64,
    /// Requests that may be unanswered; 0 without a limit.
    in_flight_max: u32,
    in_flight: u32,
    /// The moment at which nothing of the rate is used any more.
    unused_at: Time,
}

impl Quotas {
    /// Reads the quotas as they are set now. What is used stays used.
    pub(crate) fn read(&mut self, ledger: &Ledger) {
        for state in ledger.tenants() {
            self.set(&state.quotas);
        }
    }

    fn set(&mut self, quotas: &TenantBody) {
        let cost = 1_000_000_000_u64.checked_div(u64::from(quotas.rate_per_s)).unwrap_or(0);
        let place = self.place(quotas.tenant).or_else(|place| {
            let is_limited = cost > 0 || quotas.in_flight_max > 0;
            is_limited
                .then(|| self.tenants.insert(place, Usage::new(quotas.tenant)))
                .map(|()| place)
                .ok_or(())
        });
        if let Ok(place) = place {
            let usage = &mut self.tenants[place];
            (usage.cost, usage.in_flight_max) = (cost, quotas.in_flight_max);
        }
    }

    fn place(&self, tenant: TenantId) -> Result<usize, usize> {
        self.tenants.binary_search_by_key(&tenant, |usage| usage.tenant)
    }

    /// The place of a caller's quotas, if it has any. The operator's own requests are not held to them.
    pub(crate) fn of(&self, caller: &Caller) -> Option<Place> {
        if self.tenants.is_empty() {
            return None;
        }
        let is_operator = caller.tenant == TenantId(0)
            && (caller.roles.has(Roles::SETTLER) || caller.roles.has(Roles::ADMIN));
        let place = self.place(caller.tenant).ok().filter(|_| !is_operator);
        place.map(Place)
    }

    /// Which of them is used up, if one is: then nothing new of this tenant is let in now.
    pub(crate) fn used_up(&self, Place(place): Place, now: Time) -> Option<Pace> {
        let usage = &self.tenants[place];
        let used = usage.unused_at.minus(now);
        if sabotage!("quota-not-counted") {
            return None;
        }
        if usage.cost > 0 && used.plus(Time(usage.cost)) > BURST {
            return Some(Pace::TooFast);
        }
        let is_too_many = usage.in_flight_max > 0 && usage.in_flight >= usage.in_flight_max;
        is_too_many.then_some(Pace::TooManyInFlight)
    }

    /// Counts a request that will be answered once its record is durable; says for whom.
    ///
    /// Repeats and look-ups are answered whatever the rate is, and draw on it only until it is used up: whoever asks again
    /// what became of a request is not shut out for it.
    pub(crate) fn count(&mut self, Place(place): Place, is_new: bool, now: Time) -> TenantId {
        let usage = &mut self.tenants[place];
        usage.in_flight += 1;
        let unused_at = usage.unused_at.max(now);
        let drawn = unused_at.plus(Time(usage.cost));
        // A chain may cost more than is left: it is one operation, and is paid for afterwards.
        usage.unused_at = if is_new { drawn } else { drawn.min(now.plus(BURST)).max(unused_at) };
        usage.tenant
    }

    /// A counted request is answered.
    pub(crate) fn answered(&mut self, tenant: TenantId) {
        if let Ok(place) = self.place(tenant) {
            debug_assert!(self.tenants[place].in_flight > 0, "one answer for each request");
            self.tenants[place].in_flight -= 1;
        }
    }
}

/// What a tenant has used up for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Its requests per second.
    TooFast,
    /// What it may have unanswered.
    TooManyInFlight,
}

/// Where a tenant's quotas are, until they are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Usage {
    const fn new(tenant: TenantId) -> Self {
        Self { tenant, cost: 0, in_flight_max: 0, in_flight: 0, unused_at: Time::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::ActorId;

    const TENANT: TenantId = TenantId(7);

    fn caller(tenant: u32, roles: Roles) -> Caller {
        Caller { tenant: TenantId(tenant), roles, actor: ActorId(1) }
    }

    fn quotas(rate_per_s: u32, in_flight_max: u32) -> Quotas {
        let mut quotas = Quotas::default();
        quotas.set(&TenantBody { tenant: TENANT, rate_per_s, in_flight_max, ..TenantBody::default() });
        quotas
    }

    /// How many new requests one after the other are let in at a moment.
    fn admitted(quotas: &mut Quotas, now: Time) -> usize {
        let place = quotas.of(&caller(7, Roles::AUTHORIZER)).unwrap();
        (0..1000)
            .take_while(|_| {
                let may_pass = quotas.used_up(place, now).is_none();
                if may_pass {
                    let tenant = quotas.count(place, true, now);
                    quotas.answered(tenant);
                }
                may_pass
            })
            .count()
    }

    #[test]
    fn a_second_worth_passes_at_once_then_the_rate_holds() {
        for rate in [1, 3, 10, 100] {
            let mut quotas = quotas(rate, 0);
            let start = Time::from_secs(1000);
            assert_eq!(admitted(&mut quotas, start), rate as usize);
            assert_eq!(admitted(&mut quotas, start), 0);
            let one = start.plus(Time(1_000_000_000 / u64::from(rate)));
            assert_eq!(admitted(&mut quotas, one), 1, "{rate}");
            assert_eq!(
                admitted(&mut quotas, start.plus(Time::from_secs(60))),
                rate as usize,
                "no more than a second"
            );
        }
    }

    #[test]
    fn a_chain_is_paid_for_afterwards() {
        let mut quotas = quotas(10, 0);
        let place = quotas.of(&caller(7, Roles::AUTHORIZER)).unwrap();
        let now = Time::from_secs(5);
        assert_eq!(quotas.used_up(place, now), None);
        for _ in 0..30 {
            quotas.count(place, true, now);
        }
        assert_eq!(quotas.used_up(place, now.plus(Time::from_millis(2000))), Some(Pace::TooFast));
        assert_eq!(quotas.used_up(place, now.plus(Time::from_millis(2100))), None);
        // Without a rate there is nothing to pay.
        quotas.set(&TenantBody { tenant: TENANT, in_flight_max: 99, ..TenantBody::default() });
        assert_eq!(quotas.used_up(place, now), None);
    }

    #[test]
    fn repeats_use_the_rate_up_and_no_more() {
        let mut quotas = quotas(10, 0);
        let place = quotas.of(&caller(7, Roles::AUTHORIZER)).unwrap();
        let now = Time::from_secs(5);
        for _ in 0..1000 {
            quotas.count(place, false, now);
        }
        assert_eq!(quotas.used_up(place, now), Some(Pace::TooFast));
        assert_eq!(quotas.used_up(place, now.plus(Time::from_millis(100))), None);
    }

    #[test]
    fn so_many_are_unanswered_and_no_more() {
        let mut quotas = quotas(0, 3);
        let place = quotas.of(&caller(7, Roles::AUTHORIZER)).unwrap();
        for _ in 0..3 {
            assert_eq!(quotas.used_up(place, Time::ZERO), None);
            quotas.count(place, true, Time::ZERO);
        }
        assert_eq!(quotas.used_up(place, Time::ZERO), Some(Pace::TooManyInFlight));
        // Where both are used up, the rate is told.
        quotas.set(&TenantBody { tenant: TENANT, rate_per_s: 1, in_flight_max: 3, ..TenantBody::default() });
        quotas.count(place, true, Time::ZERO);
        assert_eq!(quotas.used_up(place, Time::ZERO), Some(Pace::TooFast));
        quotas.answered(TENANT);
        assert_eq!(quotas.used_up(place, Time::from_secs(1)), Some(Pace::TooManyInFlight));
        quotas.answered(TENANT);
        assert_eq!(quotas.used_up(place, Time::from_secs(1)), None);
    }

    #[test]
    fn quotas_are_those_of_the_caller_and_not_of_the_operator() {
        let mut quotas = quotas(1, 1);
        quotas.set(&TenantBody { rate_per_s: 1, ..TenantBody::default() });
        assert_eq!(quotas.of(&caller(8, Roles::AUTHORIZER)), None);
        assert_eq!(quotas.of(&caller(0, Roles::ADMIN)), None);
        assert_eq!(quotas.of(&caller(0, Roles::SETTLER)), None);
        assert!(quotas.of(&caller(0, Roles::AUTHORIZER)).is_some());
        // Taken back, they hold nobody up.
        quotas.set(&TenantBody { tenant: TENANT, ..TenantBody::default() });
        assert_eq!(admitted(&mut quotas, Time::ZERO), 1000);
    }
}
