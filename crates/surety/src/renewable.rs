//! A client of an engine whose identity is renewed while it is connected.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use surety_client::transport::{BoxFuture, Connector, Link, OpenError, QueryError, StateSource, TailSource};
use surety_client::{Client, Identity, QuicConnector};
use surety_protocol::{Cursor, ShardId, Token};

use crate::exit::{Exit, Failure};
use crate::remote;

/// The client, and the file of its identity.
pub(crate) struct Renewable {
    pub(crate) client: Client,
    dialling: Arc<Dialling>,
    address: SocketAddr,
    file: PathBuf,
    /// What stood in the file when its identity was taken.
    taken: Mutex<Vec<u8>>,
}

impl Renewable {
    /// Connects it.
    pub(crate) async fn connect(address: SocketAddr, file: &Path) -> Result<Self, Failure> {
        let taken = read(file)?;
        let connector = Arc::new(remote::connector(address, identity(file, &taken)?)?);
        let dialling =
            Arc::new(Dialling { connectors: Mutex::new(Connectors { now: connector, before: Vec::new() }) });
        let client = remote::connect_over(address, dialling.clone()).await?;
        Ok(Self { client, dialling, address, file: file.to_owned(), taken: Mutex::new(taken) })
    }

    /// The file of its identity.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Takes what the file holds now, if the engine takes it: for the connections that are opened from then on. Those that are open go on until the
    /// engine ends them, as it does when their own certificate ends or is revoked.
    pub(crate) async fn renew(&self) -> Result<(), Failure> {
        let wrong = |error: &dyn Display| wrong(&self.file, error);
        let text = read(&self.file)?;
        if *lock(&self.taken) == text {
            return Ok(());
        }
        let identity = identity(&self.file, &text)?;
        if identity.tenant() != self.client.tenant() {
            return Err(wrong(&"it is of another tenant"));
        }
        let connector = remote::connector(self.address, identity)?;
        let tokens: Vec<Token> =
            self.client.tokens().into_iter().filter(|token| token.shard == ShardId(0)).collect();
        let link = connector.open(ShardId(0), &tokens).await.map_err(|error| wrong(&error))?;
        if link.hello.engine != self.client.hello().engine {
            return Err(wrong(&OpenError::OtherEngine));
        }
        self.dialling.turn_to(Arc::new(connector));
        *lock(&self.taken) = text;
        tracing::info!(file = %self.file.display(), "SIGHUP: the engine is shown the renewed identity");
        Ok(())
    }
}

/// Dials as whoever it was told last. What it has opened before stays open.
struct Dialling {
    connectors: Mutex<Connectors>,
}

struct Connectors {
    now: Arc<QuicConnector>,
    /// They may have open connections, which are told of the end.
    before: Vec<Arc<QuicConnector>>,
}

impl Dialling {
    fn now(&self) -> Arc<QuicConnector> {
        lock(&self.connectors).now.clone()
    }

    fn turn_to(&self, connector: Arc<QuicConnector>) {
        let mut connectors = lock(&self.connectors);
        let before = std::mem::replace(&mut connectors.now, connector);
        connectors.before.push(before);
        // Those through which nothing is open, and nobody dials, are of no use: each keeps a socket.
        connectors.before.retain(|before| Arc::strong_count(before) > 1 || !before.is_idle());
    }
}

impl Connector for Dialling {
    fn open<'a>(&'a self, shard: ShardId, tokens: &'a [Token]) -> BoxFuture<'a, Result<Link, OpenError>> {
        Box::pin(async move { self.now().open(shard, tokens).await })
    }

    fn subscribe<'a>(
        &'a self,
        shard: ShardId,
        from: Cursor,
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Box<dyn TailSource>, OpenError>> {
        Box::pin(async move { self.now().subscribe(shard, from, tokens).await })
    }

    fn state<'a>(
        &'a self,
        shard: ShardId,
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Box<dyn StateSource>, OpenError>> {
        Box::pin(async move { self.now().state(shard, tokens).await })
    }

    fn query<'a>(
        &'a self,
        question: &'a [u8],
        tokens: &'a [Token],
    ) -> BoxFuture<'a, Result<Vec<u8>, QueryError>> {
        Box::pin(async move { self.now().query(question, tokens).await })
    }

    fn farewell(&self) -> BoxFuture<'_, ()> {
        let all: Vec<_> = {
            let mut connectors = lock(&self.connectors);
            let before = std::mem::take(&mut connectors.before);
            before.into_iter().chain([connectors.now.clone()]).collect()
        };
        Box::pin(async move {
            for connector in all {
                connector.farewell().await;
            }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| wrong(file, &error))
}

/// The identity in a file that was read: once, so that nobody changes it in between.
fn identity(file: &Path, text: &[u8]) -> Result<Identity, Failure> {
    Identity::from_pem(text).map_err(|error| wrong(file, &format!("{error}; `surety cert client` makes one")))
}

fn wrong(file: &Path, error: &dyn Display) -> Failure {
    Failure::new(Exit::Usage, format!("{}: {error}", file.display()))
}
