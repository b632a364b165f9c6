//! Rollback: what clients remember of this engine, against what its data directory says.

use alloc::{format, string::String, vec::Vec};

use surety_protocol::{Cursor, Epoch, Seq, Token, sabotage};

/// What a shard knows of its own past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// Each known epoch with its first seq, in order; the last one is the current.
    pub starts: Vec<(Epoch, Seq)>,
    /// Those of them that began with an older copy of the log, after what came later was lost and the operator accepted it, each with
    /// the mark of its life: see [`Epochs::note_losses`].
    pub restored: Vec<(Epoch, u16)>,
}

/// Notes of epochs that are not those of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no epoch is noted that begins at seq {first}, where this shard goes on after a loss")]
pub struct NotNoted {
    /// Where it begins.
    pub first: Seq,
}

impl Epochs {
    /// Which of the epochs began after a loss is what the log says: `losses` are [`ledger::Ledger::losses_accepted`].
    ///
    /// # Errors
    /// [`NotNoted`] if one of them is not among the epochs: tokens and cursors could not be told from those of the life that is lost.
    pub fn note_losses(&mut self, losses: impl Iterator<Item = (Seq, u128)>) -> Result<(), NotNoted> {
        self.restored.clear();
        for (after, life) in losses {
            let first = after.next();
            // A start that came to nothing left its epoch at the same seq.
            let start = self.starts.iter().rev().find(|(_, start)| *start == first);
            let (epoch, _) = start.ok_or(NotNoted { first })?;
            self.restored.push((*epoch, Token::mark_of(life)));
        }
        Ok(())
    }

    /// The mark of the life that an epoch is of, in this log; 0 before any loss.
    fn life_at(&self, epoch: Epoch) -> u16 {
        let begun = self.restored.iter().rev().find(|(restored, _)| *restored <= epoch);
        begun.map_or(0, |(_, life)| *life)
    }

    /// The mark of the life that runs now.
    #[must_use]
    pub fn life(&self) -> u16 {
        self.restored.last().map_or(0, |(_, life)| *life)
    }

    fn is_restored(&self, epoch: Epoch) -> bool {
        self.restored.iter().any(|(restored, _)| *restored == epoch)
    }

    /// True if a genuine token can only have been made by a later run of this engine than the one that runs now, or by
    /// one that forked off.
    ///
    /// `synced` is the current run's mark; it has said nothing beyond. A token of a life that is lost proves no fork: that is known,
    /// and the operator has accepted it.
    #[must_use]
    pub fn prove_fork(&self, token: &Token, synced: Seq) -> bool {
        let Some((current, _)) = self.starts.last() else { return false };
        if token.epoch > *current && !sabotage!("fork-not-noticed") {
            return true;
        }
        let is_of_another_life = self.is_of_another_life(token);
        if token.epoch == *current {
            return is_of_another_life || token.synced > synced;
        }
        if is_of_another_life {
            // Begun out of the same log as ours, and not given up with what we have accepted to be lost.
            return !self.is_of_a_loss(token);
        }
        let after = self.starts.iter().find(|(epoch, _)| *epoch > token.epoch);
        after.is_some_and(|(epoch, first)| token.synced >= *first && !self.is_restored(*epoch))
    }

    /// True if a genuine token speaks of records that are lost.
    #[must_use]
    pub fn is_of_a_loss(&self, token: &Token) -> bool {
        let after = self.starts.iter().find(|(epoch, _)| *epoch > token.epoch);
        let is_behind =
            after.is_some_and(|(epoch, first)| token.synced >= *first && self.is_restored(*epoch));
        let is_given_up = self.restored.iter().any(|(epoch, _)| *epoch > token.epoch);
        is_behind || is_given_up && self.is_of_another_life(token)
    }

    /// Of a life that was begun out of the log that ours was begun out of, and is not ours.
    fn is_of_another_life(&self, token: &Token) -> bool {
        token.life != self.life_at(token.epoch) && !sabotage!("lives-not-told-apart")
    }

    /// The epoch of a record of this log; 0 if it is older than what is known.
    #[must_use]
    pub fn epoch_of(&self, seq: Seq) -> Epoch {
        let after = self.starts.partition_point(|(_, first)| *first <= seq);
        after.checked_sub(1).map_or(Epoch(0), |at| self.starts[at].0)
    }

    /// The first record of the epoch after that of `seq`, if there is one.
    #[must_use]
    pub fn next_start(&self, seq: Seq) -> Option<Seq> {
        let after = self.starts.partition_point(|(_, first)| *first <= seq);
        self.starts.get(after).map(|(_, first)| *first)
    }

    /// From which seq on, at the latest, a reader's records are not those of this log, or may not be; `None` if the record before
    /// its cursor is, and with it all before.
    #[must_use]
    pub fn parted_at(&self, cursor: Cursor) -> Option<Seq> {
        let last_read = Seq(cursor.next.0.saturating_sub(1));
        if last_read == Seq(0) || cursor.epoch == Cursor::ANEW || sabotage!("cursor-without-its-epoch") {
            return None;
        }
        if cursor.epoch == Epoch(0) {
            // It may have read on in the life that is lost, and does not know.
            return self.first_of_the_oldest_loss().filter(|first| last_read >= *first);
        }
        let ours = self.epoch_of(last_read);
        if cursor.epoch == ours || ours == Epoch(0) {
            return None;
        }
        let after = self.starts.iter().find(|(epoch, _)| *epoch > cursor.epoch);
        Some(after.map_or(last_read, |(_, first)| last_read.min(*first)))
    }

    /// The first record that is another one than in a life that is lost.
    fn first_of_the_oldest_loss(&self) -> Option<Seq> {
        self.starts.iter().find(|(epoch, _)| self.is_restored(*epoch)).map(|(_, first)| *first)
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
        is_ordered.then_some(Self { starts, restored: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use surety_protocol::{EngineId, ShardId};

    fn epochs() -> Epochs {
        let starts = vec![(Epoch(1), Seq(1)), (Epoch(2), Seq(10)), (Epoch(4), Seq(20))];
        Epochs { starts, restored: Vec::new() }
    }

    #[test]
    fn a_cursor_is_known_by_the_epoch_of_the_record_before_it() {
        let epochs = epochs();
        let check = |next, epoch, parted: Option<u64>| {
            let cursor = Cursor { next: Seq(next), epoch: Epoch(epoch) };
            assert_eq!(epochs.parted_at(cursor), parted.map(Seq), "{next} {epoch}");
        };
        // Its own, at both edges of each epoch; the next epoch's first record may not have been read yet.
        for (next, epoch) in [(2, 1), (10, 1), (11, 2), (20, 2), (21, 4), (9_999, 4)] {
            check(next, epoch, None);
        }
        // Without a loss whoever does not know is let in, and so is who has read nothing.
        for (next, epoch) in [(0, 3), (1, 3), (15, 0)] {
            check(next, epoch, None);
        }
        // Epoch 3 is of a life that is lost, and so is what epoch 2 went on with after seq 19.
        check(11, 1, Some(10));
        check(21, 2, Some(20));
        check(500, 2, Some(20));
        check(25, 3, Some(20));
        check(15, 3, Some(14));
        check(15, 4, Some(14));
        check(25, 5, Some(24));
        // What was never noted cannot be compared.
        let unknown = Epochs { starts: vec![(Epoch(4), Seq(20))], restored: Vec::new() };
        assert_eq!(unknown.parted_at(Cursor { next: Seq(20), epoch: Epoch(2) }), None);
        assert_eq!((unknown.epoch_of(Seq(19)), unknown.epoch_of(Seq(20))), (Epoch(0), Epoch(4)));
        assert_eq!((unknown.next_start(Seq(19)), unknown.next_start(Seq(20))), (Some(Seq(20)), None));
    }

    #[test]
    fn after_a_loss_a_cursor_that_knows_no_epoch_is_believed_as_far_as_all_lives_agree() {
        let epochs = Epochs { restored: vec![(Epoch(4), 1)], ..epochs() };
        let check = |next, parted: Option<u64>| {
            let cursor = Cursor::from(Seq(next));
            assert_eq!(epochs.parted_at(cursor), parted.map(Seq), "{next}");
        };
        assert_eq!(
            epochs.parted_at(Cursor::anew(Seq(500))),
            None,
            "who begins there has nothing that could be lost"
        );
        for (next, parted) in [(0, None), (1, None), (20, None), (21, Some(20)), (9_999, Some(20))] {
            check(next, parted);
        }
        let twice = Epochs {
            starts: vec![(Epoch(4), Seq(20)), (Epoch(9), Seq(30))],
            restored: vec![(Epoch(4), 1), (Epoch(9), 2)],
        };
        assert_eq!(twice.parted_at(Cursor::from(Seq(35))), Some(Seq(20)));
    }

    #[test]
    fn what_was_given_up_in_a_restore_proves_no_fork_and_all_else_does() {
        let starts =
            vec![(Epoch(1), Seq(1)), (Epoch(2), Seq(10)), (Epoch(65_538), Seq(20)), (Epoch(65_539), Seq(30))];
        let mut epochs = Epochs { starts, restored: Vec::new() };
        assert_eq!(epochs.note_losses([(Seq(20), 7)].into_iter()), Err(NotNoted { first: Seq(21) }));
        epochs.note_losses([(Seq(19), 7)].into_iter()).unwrap();
        let check_of = |life, epoch, synced, is_fork, is_lost| {
            let token = Token::sign(&[0; 32], EngineId(1), ShardId(0), Epoch(epoch), Seq(synced));
            let token = token.of_life(&[0; 32], life);
            let found = (epochs.prove_fork(&token, Seq(40)), epochs.is_of_a_loss(&token));
            assert_eq!(found, (is_fork, is_lost), "{life} {epoch} {synced}");
        };
        // What a token of that epoch says where it was made by the life that this one knows of it.
        let check = |epoch, synced, is_fork, is_lost| {
            check_of(if epoch < 65_538 { 0 } else { 7 }, epoch, synced, is_fork, is_lost);
        };
        check(2, 19, false, false);
        // The life that is lost: its last epoch that is known, and those after it.
        check(2, 20, false, true);
        check(2, 9_999, false, true);
        check(3, 25, false, true);
        check(65_537, 25, false, true);
        // Of before and of after it a token still proves a fork.
        check(1, 10, true, false);
        check(65_538, 29, false, false);
        check(65_538, 30, true, false);
        check(65_539, 41, true, false);
        check(65_540, 1, true, false);
        // Another life that was begun out of the same backup, earlier than this one: given up with what is lost.
        check_of(8, 65_537, 5, false, true);
        check_of(8, 65_537, 25, false, true);
        // At the same moment, or later: it may run beside this one, whatever it has said.
        check_of(8, 65_538, 21, true, false);
        check_of(8, 65_539, 31, true, false);
        check_of(0, 65_539, 31, true, false);
        check_of(8, 65_540, 1, true, false);
        // What is noted is read back; which of it was restored is the log's to say.
        let read = Epochs::parse(&epochs.to_text());
        assert_eq!(read, Some(Epochs { restored: Vec::new(), ..epochs }));
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
