//! Rollback: what clients remember of this engine, against what its data directory says.

use alloc::{format, string::String, vec::Vec};

use surety_protocol::{Epoch, Seq, Token, sabotage};

/// What a shard knows of its own past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// Each known epoch with its first seq, in order; the last one is the current.
    pub starts: Vec<(Epoch, Seq)>,
}

impl Epochs {
    /// True if a genuine token can only have been made by a later run of this engine than the one that runs now, or by
    /// one that forked off.
    ///
    /// `synced` is the current run's mark; it has said nothing beyond.
    #[must_use]
    pub fn prove_fork(&self, token: &Token, synced: Seq) -> bool {
        let Some((current, _)) = self.starts.last() else { return false };
        if token.epoch > *current && !sabotage!("fork-not-noticed") {
            return true;
        }
        if token.epoch == *current {
            return token.synced > synced;
        }
        let after = self.starts.iter().find(|(epoch, _)| *epoch > token.epoch);
        after.is_some_and(|(_, first)| token.synced >= *first)
    }

    /// Writes one line for each epoch.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.starts.iter().map(|(epoch, first)| format!("{epoch} {first}\n")).collect()
    }

    /// Reads what [`Epochs::to_text`] wrote; `None` if it makes no sense.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let line = |line: &str| {
            let (epoch, first) = line.split_once(' ')?;
            Some((Epoch(epoch.parse().ok()?), Seq(first.parse().ok()?)))
        };
        let starts: Vec<(Epoch, Seq)> = text.lines().map(line).collect::<Option<_>>()?;
        let is_ordered = starts.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        is_ordered.then_some(Self { starts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use surety_protocol::{EngineId, ShardId};

    fn epochs() -> Epochs {
        Epochs { starts: vec![(Epoch(1), Seq(1)), (Epoch(2), Seq(10)), (Epoch(4), Seq(20))] }
    }

    #[test]
    fn tokens_of_another_future_prove_a_fork() {
        let check = |epoch, synced, expect| {
            let token = Token::sign(&[0; 32], EngineId(1), ShardId(0), Epoch(epoch), Seq(synced));
            assert_eq!(epochs().prove_fork(&token, Seq(25)), expect, "{epoch} {synced}");
        };
        check(4, 25, false);
        check(4, 26, true);
        check(5, 0, true);
        check(2, 19, false);
        check(2, 20, true);
        check(3, 19, false);
        check(3, 20, true);
        check(1, 9, false);
        check(1, 10, true);
        // An engine that knows nothing of its past can prove nothing.
        let token = Token::sign(&[0; 32], EngineId(1), ShardId(0), Epoch(9), Seq(9));
        assert!(!Epochs::default().prove_fork(&token, Seq(0)));
    }

    #[test]
    fn the_text_is_read_back_and_nonsense_is_not() {
        assert_eq!(Epochs::parse(&epochs().to_text()), Some(epochs()));
        assert_eq!(Epochs::parse(""), Some(Epochs::default()));
        for bad in ["1", "1 x\n", "x 1\n", "2 1\n1 1\n", "1 5\n2 4\n", "1 1\n1 1\n"] {
            assert_eq!(Epochs::parse(bad), None, "{bad}");
        }
    }
}
