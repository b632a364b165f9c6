//! A reply leaves only when what it speaks of may be told: it is on the disk, or with the operating system in that mode.

use surety_protocol::{Code, CodeClass, Kind, Reply, Seq};

use super::{Violation, hold};

const NAME: &str = "replies leave after the disk";

/// How far the disk has come, by the disk's own account.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reached {
    /// Blocks that were performed without an error hold everything up to here.
    pub written: Seq,
    /// What was appended when the reply was made.
    pub appended: Seq,
}

pub(super) fn check(reply: &Reply, reached: Reached) -> Result<(), Violation> {
    let code = reply.code();
    let is_look_up = reply.kind == Kind::Lookup as u8;
    let waits = reply.code().is_recorded() && reply.seq > Seq(0) || is_look_up && code.is_recorded();
    hold(NAME, !waits || reached.appended <= reached.written, || format!("{reply:?} left when {reached:?}"))?;
    let is_refusal = code.class() == CodeClass::Admission && code != Code::NotFound;
    hold(NAME, !is_refusal || reply.seq == Seq(0), || format!("a refusal with a record: {reply:?}"))
}
