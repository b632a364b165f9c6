//! How many machines a payment rate takes: a model out of a few measured costs.
//!
//! A shard is one thread, and what a request costs on it is linear: so much for the request itself, so much for the frame that it came in,
//! which its neighbours in the frame share, and so much for what arrives alone, as the frames of many connections do: a packet each way, a
//! turn of the loop. Beside it run the threads that write and sync the log. Memory goes by what is open and what is remembered, the disk
//! by records.

use serde::Serialize;

/// What was measured of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Costs {
    /// Time of the shard's thread for each request, in nanoseconds.
    pub request_ns: f64,
    /// Time of the shard's thread for each frame, in nanoseconds: its header, its replies' token, its part of a block.
    pub frame_ns: f64,
    /// Time of the shard's thread for each frame that comes alone, in nanoseconds: its packets, its part of a turn.
    pub packet_ns: f64,
    /// Time of all other threads of the engine, for each nanosecond of the shard's.
    pub beside: f64,
    /// Resident bytes of an open lock, with its id.
    pub lock_bytes: f64,
    /// Resident bytes of a remembered id.
    pub id_bytes: f64,
    /// Bytes of the log for each request, padding of blocks included.
    pub log_bytes: f64,
}

/// What a network asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Demand {
    /// Payments a second, at the peak.
    pub payments_per_s: f64,
    /// Requests that a payment is made of: 3 for a lock, a capture and a settlement.
    pub requests_per_payment: f64,
    /// Requests that share a frame, on average.
    pub requests_per_frame: f64,
    /// Frames that share a packet, on average: 1 if many connections send, many if few send a lot.
    pub frames_per_packet: f64,
    /// How long a lock is open, in seconds.
    pub open_s: f64,
    /// How long ids are remembered, in seconds.
    pub remembered_s: f64,
    /// How much of a shard's time may be used at the peak: past some 70 % queues grow.
    pub use_max: f64,
}

/// A machine that can be had.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// Cores as fast as those that were measured.
    pub cores: f64,
    /// Memory for the engine, in bytes.
    pub memory_bytes: f64,
    /// What its disk writes in a row, in bytes a second.
    pub disk_bytes_per_s: f64,
}

/// What the demand comes to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Shards in all.
    pub shards: f64,
    /// Cores in all.
    pub cores: f64,
    /// Memory of locks and ids in all, in bytes.
    pub memory_bytes: f64,
    /// The log's growth in all, in bytes a second.
    pub log_bytes_per_s: f64,
    /// Machines, standby machines and room for failures not counted.
    pub machines: f64,
    /// What decides their number.
    pub bound_by: &'static str,
}

impl Costs {
    /// Fits the cost of requests, frames and packets to three measurements: a full link with few and with many requests a frame, as
    /// (requests in each frame, the shard's nanoseconds for each request), and single requests that come alone, in nanoseconds.
    #[must_use]
    pub fn fitted(few: (f64, f64), many: (f64, f64), alone_ns: f64, rest: Self) -> Self {
        let frame_ns = ((few.1 - many.1) / (1.0 / few.0 - 1.0 / many.0)).max(0.0);
        let request_ns = many.1 - frame_ns / many.0;
        Self { request_ns, frame_ns, packet_ns: (alone_ns - request_ns - frame_ns).max(0.0), ..rest }
    }

    /// Time of the shard's thread for each request, in nanoseconds, if so many share a frame, and so many frames a packet. On a link
    /// that is always full the frames of a packet are without number, and its cost is in that of the requests.
    #[must_use]
    pub fn shard_ns(&self, requests_per_frame: f64, frames_per_packet: f64) -> f64 {
        self.request_ns + (self.frame_ns + self.packet_ns / frames_per_packet) / requests_per_frame
    }

    /// The machines that a demand takes.
    #[must_use]
    pub fn plan(&self, demand: &Demand, machine: &Machine) -> Plan {
        let requests_per_s = demand.payments_per_s * demand.requests_per_payment;
        let busy = requests_per_s * self.shard_ns(demand.requests_per_frame, demand.frames_per_packet) / 1e9;
        let shards = (busy / demand.use_max).ceil().max(1.0);
        // A shard has a core of its own; its helpers share the others by what they use.
        let cores = shards + (busy * self.beside / demand.use_max).ceil();
        let open = demand.payments_per_s * demand.open_s * self.lock_bytes;
        // The request that makes a lock is remembered by the lock itself while that is there.
        let remembered = requests_per_s * demand.remembered_s * self.id_bytes;
        let memory_bytes = open + remembered;
        let log_bytes_per_s = requests_per_s * self.log_bytes;
        let bounds = [
            ("cores", cores / machine.cores),
            ("memory", memory_bytes / machine.memory_bytes),
            ("disk", log_bytes_per_s / machine.disk_bytes_per_s),
        ];
        let (bound_by, most) = bounds
            .into_iter()
            .fold(("cores", 0.0), |most, bound| if bound.1 > most.1 { bound } else { most });
        Plan { shards, cores, memory_bytes, log_bytes_per_s, machines: most.ceil().max(1.0), bound_by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs {
        request_ns: 1_000.0,
        frame_ns: 8_000.0,
        packet_ns: 12_000.0,
        beside: 0.25,
        lock_bytes: 200.0,
        id_bytes: 70.0,
        log_bytes: 140.0,
    };
    const DEMAND: Demand = Demand {
        payments_per_s: 100_000.0,
        requests_per_payment: 3.0,
        requests_per_frame: 20.0,
        frames_per_packet: 1.0,
        open_s: 600.0,
        remembered_s: 86_400.0,
        use_max: 0.7,
    };
    const MACHINE: Machine = Machine { cores: 8.0, memory_bytes: 64e9, disk_bytes_per_s: 1e9 };

    #[test]
    fn three_points_give_the_model_through_them() {
        let nothing = Costs { request_ns: 0.0, frame_ns: 0.0, packet_ns: 0.0, ..COSTS };
        let fitted = Costs::fitted((1.0, 9_000.0), (20.0, 1_400.0), 21_000.0, nothing);
        assert!((fitted.request_ns - 1_000.0).abs() < 1e-6 && (fitted.frame_ns - 8_000.0).abs() < 1e-6);
        assert!((fitted.packet_ns - 12_000.0).abs() < 1e-6);
        assert!((fitted.shard_ns(4.0, 2.0) - 4_500.0).abs() < 1e-6);
        assert!((fitted.shard_ns(4.0, f64::INFINITY) - 3_000.0).abs() < 1e-6);
    }

    #[test]
    fn what_is_scarcest_decides() {
        let check = |demand: Demand, machine: Machine, machines: f64, bound_by: &str| {
            let plan = COSTS.plan(&demand, &machine);
            assert_eq!((plan.machines, plan.bound_by), (machines, bound_by), "{plan:?}");
        };
        // 0.6 busy shards; a day of ids takes 1.8 TB.
        check(DEMAND, MACHINE, 29.0, "memory");
        // An hour of ids: 75.6 GB and 12 GB of locks.
        check(Demand { remembered_s: 3_600.0, ..DEMAND }, MACHINE, 2.0, "memory");
        check(
            Demand { remembered_s: 60.0, payments_per_s: 5e6, open_s: 1.0, ..DEMAND },
            MACHINE,
            7.0,
            "cores",
        );
        check(
            Demand { remembered_s: 60.0, ..DEMAND },
            Machine { disk_bytes_per_s: 1e7, ..MACHINE },
            5.0,
            "disk",
        );
        check(Demand { payments_per_s: 1.0, ..DEMAND }, MACHINE, 1.0, "cores");
    }

    #[test]
    fn frames_that_are_full_take_fewer_shards() {
        let demand = Demand { payments_per_s: 1e6, ..DEMAND };
        let alone = COSTS.plan(&Demand { requests_per_frame: 1.0, ..demand }, &MACHINE);
        let packed = COSTS.plan(&Demand { requests_per_frame: 64.0, ..demand }, &MACHINE);
        assert!(alone.shards > 10.0 * packed.shards, "{} and {}", alone.shards, packed.shards);
    }
}
