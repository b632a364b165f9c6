//! How `ctl` tells an engine's answers.

use std::io::Write;

use serde_json::{Value, json};
use surety_protocol::{Code, Reply};

use crate::exit::{Exit, Failure};
use crate::record_text::{is_done, reply_json};

/// Tells the answers to one command: done if all of them are.
///
/// # Errors
/// [`Exit::Declined`] with the first code that is no success, or [`Exit::Unknown`] if that says nothing.
pub(crate) fn tell(json: bool, done: &str, replies: &[Reply]) -> Result<(), Failure> {
    tell_advised(json, done, replies, advice)
}

/// The same with other advice on what was refused.
///
/// # Errors
/// As [`tell`].
pub(crate) fn tell_advised(
    json: bool,
    done: &str,
    replies: &[Reply],
    advice: impl Fn(&Reply) -> &'static str,
) -> Result<(), Failure> {
    let refused = replies.iter().find(|reply| !is_done(reply.code()));
    let exit = refused.map_or(Exit::Done, |reply| exit_of(reply.code()));
    if json {
        let value = json!({
            "ok": refused.is_none(),
            "exit": exit as u8,
            "error": refused.map(|reply| format!("the engine answered {}: {}", reply.code(), advice(reply))),
            "code": refused.or(replies.first()).map(|reply| reply.code().name()),
            "replies": replies.iter().map(reply_json).collect::<Vec<_>>(),
        });
        writeln!(std::io::stdout(), "{value}")?;
    }
    if let Some(reply) = refused {
        let code = reply.code();
        return Err(Failure::new(exit, format!("the engine answered {code}: {}", advice(reply))).told());
    }
    if !json {
        let seqs: Vec<String> =
            replies.iter().map(|reply| format!("{}:{}", reply.shard, reply.seq)).collect();
        writeln!(std::io::stdout(), "{done} (seq {})", seqs.join(", "))?;
    }
    Ok(())
}

/// Tells what was read.
pub(crate) fn show(json: bool, value: &Value, lines: &[String]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{value}")?;
    } else {
        for line in lines {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

const fn exit_of(code: Code) -> Exit {
    match code {
        Code::UnknownAfterRestore => Exit::Unknown,
        _ => Exit::Declined,
    }
}

fn advice(reply: &Reply) -> &'static str {
    match reply.code() {
        Code::Exists => "it exists already, or the nonce was used",
        Code::UnknownPartition => "no such partition, or none that this identity may see",
        Code::UnknownLock | Code::NotFound => "no such lock under this tenant and partition",
        Code::Frozen => "the partition is frozen: `surety ctl partition unfreeze` lets it take this again",
        Code::NoRight => "this identity's role does not allow it; take another --identity",
        Code::Malformed => "a value is out of its range",
        Code::Insufficient => "there is not enough",
        Code::Overloaded => "the engine is busy; try again",
        code if code.is_quota() => "the tenant is at this quota: `surety ctl tenant list` shows what it uses",
        Code::UnknownAfterRestore => {
            "the engine goes on after a loss: nobody can tell what was decided here before, or the partition is not reconciled yet"
        }
        _ => "nothing was changed",
    }
}
