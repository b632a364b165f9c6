//! Asks the sources, and sends what they agree on to every shard.

use std::path::PathBuf;
use std::sync::Arc;

use surety_client::{Client, request};
use surety_protocol::{Amount, AssetId, Code, PartitionHandle, QuoteId, ShardId};

use super::memory::Memory;
use super::source::{PriceSource, PriceTrouble};
use super::{NoPrice, Quote, Rules, agree};

/// Which price, and when to believe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed {
    /// What is priced.
    pub asset: AssetId,
    /// In which currency.
    pub quote: QuoteId,
    /// The rules.
    pub rules: Rules,
}

/// A feed with its sources.
pub struct Feeder {
    feed: Feed,
    sources: Vec<Arc<dyn PriceSource>>,
    client: Client,
    /// The last price that was sent, or was about to be.
    last: Option<u128>,
    memory: Option<Memory>,
}

/// What a turn came to.
#[derive(Debug)]
pub struct Fed {
    /// The price, or why there is none.
    pub price: Result<Quote, NoPrice>,
    /// Shards that took it.
    pub shards: u16,
    /// Sources that had none, by name.
    pub trouble: Vec<(String, PriceTrouble)>,
}

impl Feeder {
    /// A feed. The client is the operator's settler.
    #[must_use]
    pub fn new(feed: Feed, sources: Vec<Arc<dyn PriceSource>>, client: Client) -> Self {
        Self { feed, sources, client, last: None, memory: None }
    }

    /// The same with a file that remembers the last price, so that the limit of jumps holds across a restart.
    ///
    /// # Errors
    /// The file is there, and cannot be read or is none.
    pub fn with_memory(self, file: PathBuf) -> std::io::Result<Self> {
        let memory = Memory::new(file);
        Ok(Self { last: memory.recall()?, memory: Some(memory), ..self })
    }

    /// Takes the next price however far it is from the last: somebody has looked.
    pub const fn accept_jump(&mut self) {
        self.last = None;
    }

    /// The feed.
    #[must_use]
    pub const fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Asks all sources at once, and sends the price where there is one. A shard that did not take it gets the next.
    pub async fn turn(&mut self) -> Fed {
        let asked: Vec<_> = self
            .sources
            .iter()
            .cloned()
            .map(|source| tokio::task::spawn_blocking(move || (source.name(), source.quote())))
            .collect();
        let (mut quotes, mut trouble) = (Vec::new(), Vec::new());
        for answer in asked {
            match answer.await {
                Ok((_, Ok(quote))) => quotes.push(quote),
                Ok((name, Err(why))) => trouble.push((name, why)),
                Err(_) => trouble.push((String::new(), PriceTrouble::Unreachable("it panicked".to_owned()))),
            }
        }
        let price = agree(&quotes, self.last, &self.feed.rules, self.client.now());
        let shards = match price {
            Ok(quote) => self.send(quote).await,
            Err(_) => 0,
        };
        Fed { price, shards, trouble }
    }

    async fn send(&mut self, quote: Quote) -> u16 {
        // Remembered first: a price that nobody remembers would let the next one be anything.
        if let Some(Err(error)) = self.memory.as_ref().map(|memory| memory.remember(quote.price)) {
            tracing::error!(%error, "a price that cannot be remembered is not sent");
            return 0;
        }
        let mut taken = 0;
        for shard in 0..self.client.shards() {
            let shard = PartitionHandle::new(ShardId(shard), 0);
            let Feed { asset, quote: currency, .. } = self.feed;
            let draft = request::price(shard, asset, currency, Amount(quote.price), quote.observed);
            // Sending a price twice does no harm, so a lost answer is left to the next turn.
            match self.client.send(draft).await.map(|reply| reply.code()) {
                Ok(Code::Approved) => taken += 1,
                // The shard has a newer one, from somebody else.
                Ok(Code::Exists) => {}
                Ok(code) => tracing::error!(%code, shard = %shard.shard(), "a price is declined"),
                Err(error) => tracing::warn!(%error, shard = %shard.shard(), "a price is not sent"),
            }
        }
        if taken > 0 || self.memory.is_some() {
            self.last = Some(quote.price);
        }
        taken
    }
}
