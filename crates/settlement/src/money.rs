//! A partition's money, added up from the stream: the table of the ledger's `RECORDS.md`, in checked arithmetic.

use surety_protocol::{ChangeBody, ConsumeBody, Flags, Kind, Record};

/// The quantities of a partition, in base units of its collateral.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Money {
    /// K: final on chain.
    pub on_chain: u128,
    /// D: K fell below what is owed.
    pub deficit: u128,
    /// F: free.
    pub free: u128,
    /// H + U + P: it guarantees something.
    pub locked: u128,
    /// W: owed to the chain.
    pub owed: u128,
    /// X: losses that nothing covered.
    pub exposure: u128,
}

impl Money {
    /// What the units own: F + H + U + P - D.
    #[must_use]
    pub const fn equity(&self) -> u128 {
        self.free.saturating_add(self.locked).saturating_sub(self.deficit)
    }

    /// True if `K + D = F + L + W`.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let left = self.on_chain.checked_add(self.deficit);
        let right = self.free.checked_add(self.locked).and_then(|sum| sum.checked_add(self.owed));
        left.is_some() && left == right
    }

    /// What a record that succeeded has moved. `None` if it cannot have been: the stream does not add up.
    #[must_use]
    pub fn after(mut self, kind: Kind, record: &Record) -> Option<Self> {
        let (amount, result) = (record.amount.0, record.result.0);
        let is_exposed = record.flags().has(Flags::EXPOSED);
        match kind {
            Kind::Lock => self.free_up(0_i128.checked_sub_unsigned(result)?)?,
            Kind::Increase
            | Kind::Decrease
            | Kind::Capture
            | Kind::Release
            | Kind::Reverse
            | Kind::Refund
            | Kind::Settle
            | Kind::Expire
            | Kind::AutoSettle
            | Kind::Mature => self.free_up(record.body::<ChangeBody>().freed)?,
            Kind::Advice => {
                self.free_up(record.body::<ChangeBody>().freed)?;
                if is_exposed {
                    self.exposure = self.exposure.checked_add(amount.checked_sub(result)?)?;
                }
            }
            Kind::Consume | Kind::AutoConsume => {
                let freed = record.body::<ConsumeBody>().freed;
                self.locked = self.locked.checked_sub(result)?;
                self.owed = self.owed.checked_add(result)?;
                if is_exposed {
                    self.exposure = self.exposure.checked_add(freed.unsigned_abs())?;
                } else {
                    self.free_up(freed)?;
                }
            }
            Kind::ReleaseGroup => self.free_up(i128::try_from(result).ok()?)?,
            Kind::Deposit | Kind::Reward => {
                self.on_chain = self.on_chain.checked_add(result)?;
                self.credit(result)?;
            }
            Kind::Withdraw | Kind::WithdrawPaid => {
                self.free = self.free.checked_sub(result)?;
                self.owed = self.owed.checked_add(result)?;
            }
            Kind::BatchFinal => {
                self.owed = self.owed.checked_sub(result)?;
                self.on_chain = self.on_chain.checked_sub(result)?;
            }
            Kind::GuaranteePaid => self.pay_guarantee(record)?,
            Kind::Deficit => {
                self.on_chain = self.on_chain.checked_sub(amount)?;
                self.free = self.free.checked_sub(result)?;
                self.deficit = self.deficit.checked_add(amount.checked_sub(result)?)?;
            }
            Kind::Cover | Kind::WriteOff => self.exposure = self.exposure.checked_sub(result)?,
            _ => {}
        }
        self.is_balanced().then_some(self)
    }

    fn pay_guarantee(&mut self, record: &Record) -> Option<()> {
        let (amount, result) = (record.amount.0, record.result.0);
        let freed = record.body::<ChangeBody>().freed;
        self.on_chain = self.on_chain.checked_sub(amount)?;
        self.deficit = self.deficit.checked_add(amount.checked_sub(result)?)?;
        // Negative: what F bore in place of the lock.
        self.locked = self.locked.checked_sub(result.checked_add_signed(freed.min(0))?)?;
        if freed < 0 {
            self.free = self.free.checked_sub(freed.unsigned_abs())?;
            Some(())
        } else {
            self.free_up(freed)
        }
    }

    /// From locked to free, or the other way.
    fn free_up(&mut self, freed: i128) -> Option<()> {
        let amount = freed.unsigned_abs();
        if freed < 0 {
            self.free = self.free.checked_sub(amount)?;
            self.locked = self.locked.checked_add(amount)?;
            return Some(());
        }
        self.locked = self.locked.checked_sub(amount)?;
        self.credit(amount)
    }

    /// A deficit is made good first.
    fn credit(&mut self, amount: u128) -> Option<()> {
        let repaid = amount.min(self.deficit);
        self.deficit -= repaid;
        self.free = self.free.checked_add(amount - repaid)?;
        Some(())
    }
}
