//! What partitions, suppliers, withdrawals and tenants are like now, read page by page.

use surety_protocol::{
    FrameError, PartitionHandle, PartitionRow, ShardId, StateHead, StateKind, StateQuery, StateRow, Token,
    read_state_page,
};

use crate::client::Client;
use crate::transport::{Closed, OpenError, StateSource};

/// Why the state could not be read. Reading changes nothing, so it may always be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The engine could not be asked.
    #[error("shard {shard} cannot be asked for its state: {error}")]
    Open {
        /// Which shard.
        shard: ShardId,
        /// Why.
        error: OpenError,
    },
    /// The link ended before the answer.
    #[error("shard {shard} did not answer: {closed}")]
    Closed {
        /// Which shard.
        shard: ShardId,
        /// How.
        closed: Closed,
    },
    /// The answer makes no sense.
    #[error("shard {shard} sent a page that cannot be read: {error}")]
    Page {
        /// Which shard.
        shard: ShardId,
        /// What is wrong with it.
        error: FrameError,
    },
    /// The rows are not those that come next.
    #[error("shard {shard} sent rows that do not follow the ones before")]
    Order {
        /// Which shard.
        shard: ShardId,
    },
}

/// Reads rows of one kind, a page at a time, in the order of their keys.
pub struct StatePages<R> {
    source: Box<dyn StateSource>,
    shard: ShardId,
    /// The next question; none behind the last page.
    next: Option<StateQuery>,
    /// The most rows that are still wanted; none for all.
    wanted: Option<u32>,
    /// That of the last page.
    head: Option<StateHead>,
    rows: std::marker::PhantomData<fn() -> R>,
}

/// True if each key lies behind the one before; a question behind the last key there can be counts as the highest.
fn ascend(asked: StateQuery, keys: impl Iterator<Item = Option<StateQuery>>) -> bool {
    let key = |query: StateQuery| (query.partition, query.position, query.supplier, query.tenant);
    let mut last = Some(key(asked));
    for next in keys.map(|next| next.map(key)) {
        match (last, next) {
            (None, _) => return false,
            (Some(last), Some(next)) if next <= last => return false,
            _ => last = next,
        }
    }
    true
}

impl<R: StateRow> StatePages<R> {
    /// The next page; none behind the last one. Two pages may show the state at different moments.
    ///
    /// # Errors
    /// [`StateError`]; it is not called again then.
    pub async fn next_page(&mut self) -> Result<Option<Vec<R>>, StateError> {
        let Some(query) = self.next else { return Ok(None) };
        let shard = self.shard;
        let page = self.source.ask(&query).await.map_err(|closed| StateError::Closed { shard, closed })?;
        let (head, rows) = read_state_page::<R>(&page).map_err(|error| StateError::Page { shard, error })?;
        let keys = rows.iter().map(|row| row.after(query));
        let is_sound = head.shard == shard && (head.has_more == 0 || !rows.is_empty()) && ascend(query, keys);
        if !is_sound {
            return Err(StateError::Order { shard });
        }
        self.head = Some(head);
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        self.wanted = self.wanted.map(|wanted| wanted.saturating_sub(count));
        let has_more = head.has_more == 1 && self.wanted != Some(0);
        let after = rows.last().and_then(|last| last.after(query));
        self.next =
            after.filter(|_| has_more).map(|next| StateQuery { limit: self.wanted.unwrap_or(0), ..next });
        Ok(Some(rows))
    }

    /// What the last page says of its moment: the record that left its rows so, and the engine's time. None before the first page.
    #[must_use]
    pub const fn head(&self) -> Option<StateHead> {
        self.head
    }

    /// All rows that are left.
    ///
    /// # Errors
    /// As [`StatePages::next_page`].
    pub async fn all(mut self) -> Result<Vec<R>, StateError> {
        let mut all = Vec::new();
        while let Some(rows) = self.next_page().await? {
            all.extend(rows);
        }
        Ok(all)
    }
}

impl Client {
    /// Reads a shard's rows of a kind, from `query` on; its kind is that of the rows. `limit` counts over all pages.
    ///
    /// # Errors
    /// [`StateError::Open`] if the shard cannot be reached or refuses.
    pub async fn state<R: StateRow>(&self, query: StateQuery) -> Result<StatePages<R>, StateError> {
        let shard = query.shard;
        let tokens: Vec<Token> = self.tokens().into_iter().filter(|token| token.shard == shard).collect();
        let opened = self.connector().state(shard, &tokens).await;
        let source = opened.map_err(|error| StateError::Open { shard, error })?;
        let query = StateQuery { kind: R::KIND as u8, ..query };
        let wanted = (query.limit > 0).then_some(query.limit);
        Ok(StatePages {
            source,
            shard,
            next: Some(query),
            wanted,
            head: None,
            rows: std::marker::PhantomData,
        })
    }

    /// One partition's money and rules; none if it is not there, or not for this client.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn partition(&self, handle: PartitionHandle) -> Result<Option<PartitionRow>, StateError> {
        let query = StateQuery::new(handle.shard(), StateKind::Partitions);
        let rows = self.state::<PartitionRow>(StateQuery { partition: handle, limit: 1, ..query }).await?;
        Ok(rows.all().await?.into_iter().find(|row| row.partition == handle))
    }
}
