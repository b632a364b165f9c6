//! What the engine is told: batches that are final, and how much may be at risk.

use surety_client::{Outcome, request::Draft};
use surety_protocol::{Amount, Code, ControlBody, Kind, PartitionHandle, Reply};

use crate::error::SettlerError;
use crate::points::Point;
use crate::settler::Settler;

impl Settler {
    /// Sends one request and makes its outcome definite. Nobody else has sent its id.
    pub(crate) async fn tell(&self, draft: Draft) -> Result<Reply, SettlerError> {
        let request = draft.into_record(|| self.client.new_id());
        match self.client.submit_definite(request).await? {
            Outcome::Executed(reply) | Outcome::Declined(reply) => Ok(reply),
            Outcome::Refused(reply) => Err(SettlerError::Engine(format!("it answers {}", reply.code()))),
            Outcome::Burned(reply) => {
                Err(SettlerError::Engine(format!("request {} was not admitted in time", reply.id)))
            }
        }
    }

    /// Books one partition's part of a final batch, once. What the engine has booked before is known from its stream.
    pub(crate) async fn book_partition(
        &mut self,
        batch: u64,
        partition: PartitionHandle,
        amount: u128,
    ) -> Result<(), SettlerError> {
        if self.facts.is_booked(partition, batch) {
            return Ok(());
        }
        let body = ControlBody { number: batch, ..ControlBody::default() };
        let reply = self.tell(Draft::new(Kind::BatchFinal, partition, Amount(amount), &body)).await?;
        self.pass(Point::Told)?;
        // The stream says so, too if this settler has booked it before a crash; and caps need to know what has left.
        self.catch_up(partition.shard(), reply.seq).await?;
        if self.facts.is_booked(partition, batch) {
            return Ok(());
        }
        Err(SettlerError::NotBooked { batch, partition, code: reply.code() })
    }

    /// Tells the engine how much each partition may have at risk, and until when. A settler that is silent for longer
    /// stops new locks.
    pub(crate) async fn send_caps(&mut self, included: u64) -> Result<(), SettlerError> {
        let Some(allowance) = self.config.allowance else { return Ok(()) };
        let now = self.client.now();
        if included == self.caps_for && now < self.caps_due {
            return Ok(());
        }
        let mut covered = self.covered.clone();
        for seq in self.log.booked_seq() + 1..=included {
            let Some(sealed) = self.log.sealed(seq) else { break };
            covered.include(&settlement::BatchData::from_bytes(&sealed.data)?);
        }
        let until = now.plus(self.config.cap_span);
        for partition in self.partitions() {
            let Some(onchain) = self.sealer.netting().onchain_of(partition) else { continue };
            let cap = covered.cap(&onchain, self.facts.left(partition), allowance);
            let cap = Amount(cap.min(surety_protocol::limits::AMOUNT_MAX));
            let body = ControlBody { until, ..ControlBody::default() };
            let reply = self.tell(Draft::new(Kind::RiskCap, partition, cap, &body)).await?;
            if reply.code() != Code::Approved {
                return Err(SettlerError::Engine(format!("a cap is answered {}", reply.code())));
            }
        }
        self.caps_for = included;
        self.caps_due = now.plus(surety_protocol::Time(self.config.cap_span.0 / 3));
        Ok(())
    }
}
