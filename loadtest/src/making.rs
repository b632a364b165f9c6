//! The steps of a payment, one after another, however they are said.

use std::future::Future;
use std::ops::ControlFlow;
use std::time::Instant;

use crate::step::Step;

/// A payment that is made step by step.
pub(crate) trait Making: Send {
    /// Makes a step. Breaks where the payment ends early.
    fn make(&mut self, step: &Step, intended: Instant) -> impl Future<Output = ControlFlow<()>> + Send;
}

/// Makes the steps that are for this lot. Latency counts from `intended`, and for later steps from the answer before, or from the end
/// of the wait that the step begins with.
pub(crate) async fn make_all(payment: &mut impl Making, steps: &[Step], lot: u32, mut intended: Instant) {
    for step in steps.iter().filter(|step| step.is_for(lot)) {
        if !step.after.is_zero() {
            intended = intended.max(Instant::now()) + step.after;
            tokio::time::sleep_until(intended.into()).await;
        }
        if payment.make(step, intended).await.is_break() {
            break;
        }
        intended = Instant::now();
    }
}
