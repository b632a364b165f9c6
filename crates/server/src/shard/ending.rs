//! How a shard ends: goodbye, every answer to its peer, the seal, the connections. Each step is bounded in time, whatever
//! peers do. After them the shard's writer is waited for: where the disk does not answer, that call into the system is
//! the one thing that can keep the process.

use std::rc::Rc;
use std::time::Duration;

use quinn::VarInt;
use surety_protocol::CloseCode;
use tokio::time::{Instant, timeout, timeout_at};

use crate::server::ShardEnd;
use crate::shard::core::Core;
use crate::shard::{Endpoints, Shard};
use crate::shared::Order;

/// How long the log may take to be sealed.
const SEAL_PATIENCE: Duration = Duration::from_secs(10);
/// How long closed connections get to hear of it.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);

impl Shard {
    /// Turns until something holds. Completions of the disk are what makes it hold.
    pub(super) async fn until(self: &Rc<Self>, mut holds: impl FnMut(&mut Core) -> bool) {
        while !holds(&mut self.core.borrow_mut()) {
            self.flush.set();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Says goodbye, then waits until what was taken is answered, and the answers have arrived.
    pub(super) async fn drain(self: &Rc<Self>) {
        let deadline = Instant::now() + self.shared.limits.drain;
        let turn = self.core.borrow_mut().say_goodbye();
        self.finish(turn);
        let are_sent = timeout_at(deadline, self.until(Core::is_quiet)).await.is_ok();
        // QUIC still has them: closing a connection drops what its peer has not acknowledged.
        let streams = self.core.borrow_mut().finish_streams();
        let arrive = async {
            for delivered in streams {
                delivered.await;
            }
            self.until(|_| self.delivering.get() == 0).await;
        };
        let have_arrived = timeout_at(deadline, arrive).await.is_ok();
        if !are_sent || !have_arrived {
            tracing::warn!(shard = self.id.0, "some clients have not taken their replies; closing them");
        }
    }

    /// Writes the rest of the log and its seal, and waits until all of it is synced. False if that takes too long.
    pub(super) async fn seal(self: &Rc<Self>) -> bool {
        self.core.borrow_mut().stop();
        let sealed =
            self.until(|core| core.engine.is_stopped() && core.engine.synced() == core.engine.acked());
        let is_sealed = timeout(SEAL_PATIENCE, sealed).await.is_ok();
        if !is_sealed {
            let core = self.core.borrow();
            tracing::error!(
                shard = self.id.0,
                seq = core.marks().acked.0,
                lacks_segment = core.engine.wants_reserve().is_some(),
                "the log ends without a seal: the disk is full or does not answer; nothing that was answered is lost"
            );
        }
        is_sealed
    }

    pub(super) async fn close(&self, endpoints: Option<Endpoints>, end: Order) {
        if end == Order::Seal {
            self.close_all(CloseCode::Draining);
        }
        let Some(Endpoints { endpoint, .. }) = endpoints else { return };
        if end == Order::Seal {
            endpoint.close(VarInt::from_u32(CloseCode::Draining as u32), b"DRAINING");
            // Whoever does not hear it in time learns it by silence.
            let _ = timeout(CLOSE_PATIENCE, endpoint.wait_idle()).await;
        }
    }

    /// How it has ended.
    pub(super) fn end(&self, is_sealed: bool) -> ShardEnd {
        let marks = self.core.borrow().marks();
        ShardEnd { shard: self.id, seq: marks.acked, synced: marks.synced, is_sealed }
    }
}
