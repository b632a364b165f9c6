//! Where a watcher begins that has never read its chain: before whatever was left for it can have been paid.

use crate::follower::Base;
use crate::source::{Source, SourceError};

/// How far before the newest block, or before the moment that counts, a first start begins.
const BLOCKS_BEFORE_START: u64 = 16;
/// How far the clock of a chain may be from the wall's.
const CLOCK_SLACK_S: u64 = 2 * 3600;

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With this block, whatever is before it.
    With(u64),
    /// After this block, which is to be remembered.
    After(Base),
}

/// The place of a first start. `left_s` is when the oldest watch was left that waits to be taken, if one does.
pub(crate) fn first(source: &impl Source, left_s: Option<u64>) -> Result<Start, SourceError> {
    let height = source.height()?;
    let Some(left_s) = left_s else { return Ok(Start::With(height.saturating_sub(BLOCKS_BEFORE_START))) };
    let first =
        block_at(source, height, left_s.saturating_sub(CLOCK_SLACK_S))?.saturating_sub(BLOCKS_BEFORE_START);
    let Some(before) = first.checked_sub(1) else { return Ok(Start::With(0)) };
    match source.block(before)? {
        Some(block) => Ok(Start::After(Base { at: block.at, clock_s: block.time_s })),
        None => Err(SourceError::Nonsense(format!("no block {before} below block {height}"))),
    }
}

/// A block of that moment or before it, as near to it as can be told without reading all.
fn block_at(source: &impl Source, height: u64, moment_s: u64) -> Result<u64, SourceError> {
    let is_late =
        |number| source.block(number).map(|block| block.is_none_or(|block| block.time_s > moment_s));
    let (mut early, mut late, mut back) = (height, height, 1);
    while early > 0 && is_late(early)? {
        late = early;
        early = early.saturating_sub(back);
        back *= 2;
    }
    while late - early > 1 {
        let middle = early + (late - early) / 2;
        if is_late(middle)? {
            late = middle;
        } else {
            early = middle;
        }
    }
    Ok(early)
}
