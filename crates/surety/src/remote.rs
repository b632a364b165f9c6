//! A running engine as `ctl`, `load` and `demo` reach it: address, identity, and requests over the wire.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use history::Question;
use ledger::Totals;
use loadtest::{Faulty, Injection};
use serde_json::Value;
use surety_client::transport::{Closed, Connector, OpenError};
use surety_client::{
    Client, ConnectError, Identity, Options, QueryError, QuicConnector, QuicOptions, StateError, SubmitError,
    TailBatch, TailError, Unknown,
};
use surety_protocol::{
    CloseCode, Code, Cursor, HelloReply, Id, Kind, PartitionHandle, QueryRefusal, Record, Reply, Seq,
    ShardId, StateQuery, StateRow, Time,
};

use crate::ctl::Target;
use crate::directory::{self, Serving};
use crate::exit::{self, Exit, Failure};
use crate::history::asker_failure;

/// Whose development identity to take from a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Reads.
    Reader,
    /// Runs the engine.
    Admin,
    /// Tells what became of payments and the chain.
    Settler,
    /// Sends payments, as tenant 1.
    Authorizer,
}

impl Role {
    const fn file(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Admin => "admin",
            Self::Settler => "settler",
            Self::Authorizer => "authorizer",
        }
    }
}

/// A connection to a running engine.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
}

/// The runtime of commands that talk to an engine.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, format!("no runtime: {error}")))
}

/// Every client of this process.
static CLIENTS: Mutex<Vec<Client>> = Mutex::new(Vec::new());

/// Runs a command to its end, then tells every engine that this process is about to go: it would wait for it otherwise.
pub(crate) fn run<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    runtime()?.block_on(async {
        let outcome = command.await;
        let clients = std::mem::take(&mut *CLIENTS.lock().unwrap_or_else(PoisonError::into_inner));
        for client in clients {
            client.shutdown().await;
        }
        outcome
    })
}

/// The wall clock.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

impl Target {
    /// Address of shard 0, and the identity file for a role.
    pub(crate) fn resolve(&self, role: Role) -> Result<(SocketAddr, PathBuf), Failure> {
        match (&self.data, self.connect, &self.identity) {
            (Some(data), _, identity) => {
                let own = || own_identity(data, role);
                Ok((Serving::find(data)?.listen, identity.clone().unwrap_or_else(own)))
            }
            (None, Some(address), Some(identity)) => Ok((address, identity.clone())),
            _ => Err(Failure::new(
                Exit::Usage,
                "which engine? give --data DIR, or --connect IP:PORT with --identity FILE",
            )),
        }
    }
}

/// A data directory's own identity file for a role.
pub(crate) fn own_identity(data: &Path, role: Role) -> PathBuf {
    directory::identity(data, role.file())
}

/// Reads an identity file.
pub(crate) fn identity(file: &Path) -> Result<Identity, Failure> {
    let advice = "`surety cert client` makes one";
    Identity::from_file(file).map_err(|error| Failure::new(Exit::Usage, format!("{error}; {advice}")))
}

/// Connects a client.
pub(crate) async fn connect(address: SocketAddr, file: &Path) -> Result<Client, Failure> {
    connect_over(address, Arc::new(connector(address, identity(file)?)?)).await
}

/// What dials an engine as somebody; it has dialled nothing yet.
pub(crate) fn connector(address: SocketAddr, identity: Identity) -> Result<QuicConnector, Failure> {
    let quic = QuicOptions { name: "surety".to_owned(), ..QuicOptions::new(address, identity) };
    QuicConnector::new(quic).map_err(|error| connect_failure(address, &error))
}

/// Connects a client over it, whose good-bye is its owner's.
pub(crate) async fn client_over(
    address: SocketAddr,
    connector: Arc<dyn Connector>,
) -> Result<Client, Failure> {
    let client = Client::over(connector, Options::default(), &[]).await;
    client.map_err(|error| connect_failure(address, &error))
}

/// Why a process ends that an engine was restored under.
pub(crate) fn life_lost() -> Failure {
    let meaning = CloseCode::LostLife.meaning();
    Failure::new(Exit::Declined, format!("LOST_LIFE: {meaning}"))
}

/// True if a stream was refused since the engine was restored without what its client was told.
pub(crate) const fn is_of_a_lost_life(error: &TailError) -> bool {
    matches!(error, TailError::Refused { error, .. } if is_lost_life(*error))
}

const fn is_lost_life(error: OpenError) -> bool {
    matches!(error, OpenError::Closed(Closed::ByServer(CloseCode::LostLife)))
}

/// Connects a client over it.
pub(crate) async fn connect_over(
    address: SocketAddr,
    connector: Arc<dyn Connector>,
) -> Result<Client, Failure> {
    let client = client_over(address, connector).await?;
    CLIENTS.lock().unwrap_or_else(PoisonError::into_inner).push(client.clone());
    Ok(client)
}

/// Connects a client over links that are spoiled on purpose. It gives a reply up after a second, so that what is lost is
/// looked for soon.
pub(crate) async fn connect_spoiled(
    address: SocketAddr,
    file: &Path,
    injection: Injection,
    seed: u64,
) -> Result<(Client, Arc<Faulty>), Failure> {
    let refused = |error| connect_failure(address, &error);
    let connector = connector(address, identity(file)?)?;
    let faults = Arc::new(Faulty::new(Arc::new(connector), injection, seed));
    let options =
        Options { deadline: Duration::from_secs(1), links_lost_max: u32::MAX, ..Options::default() };
    let client = Client::over(faults.clone(), options, &[]).await.map_err(refused)?;
    CLIENTS.lock().unwrap_or_else(PoisonError::into_inner).push(client.clone());
    Ok((client, faults))
}

/// Why there is no client, with its exit code.
pub(crate) fn connect_failure(address: SocketAddr, error: &ConnectError) -> Failure {
    match error {
        ConnectError::Open { error, .. } if is_lost_life(*error) => life_lost(),
        ConnectError::Open { .. } => Failure::new(
            Exit::Unreachable,
            format!("{address}: {error}; check address, identity and authority"),
        ),
        ConnectError::Identity(_) | ConnectError::NoAddress => Failure::new(Exit::Usage, error),
    }
}

impl Session {
    /// Connects with the identity for a role.
    pub(crate) async fn open(target: &Target, role: Role) -> Result<Self, Failure> {
        let (address, identity) = target.resolve(role)?;
        Ok(Self { client: connect(address, &identity).await? })
    }

    /// The same for one of many connections of a process, whose good-bye is its owner's.
    pub(crate) async fn open_by_itself(target: &Target, role: Role) -> Result<Self, Failure> {
        let (address, file) = target.resolve(role)?;
        let connector = connector(address, identity(&file)?)?;
        Ok(Self { client: client_over(address, Arc::new(connector)).await? })
    }

    /// Shards of the engine.
    pub(crate) fn shards(&self) -> u16 {
        self.client.hello().shards
    }

    /// A new id on the engine's clock.
    pub(crate) fn id(&self) -> Id {
        self.client.new_id()
    }

    /// The client itself.
    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// Sends a request; an admission code comes back as a reply, too.
    pub(crate) async fn ask(&self, request: Record) -> Result<Reply, Failure> {
        self.check(request.partition.shard())?;
        answer(&request, self.client.submit(request).await)
    }

    /// Sends a long request.
    pub(crate) async fn ask_long(&self, records: Vec<Record>) -> Result<Reply, Failure> {
        let Some(head) = records.first().copied() else {
            return Err(Failure::new(Exit::Usage, "an empty request"));
        };
        self.check(head.partition.shard())?;
        answer(&head, self.client.submit_long(&records).await)
    }

    /// What a shard says of itself.
    pub(crate) async fn hello(&self, shard: ShardId) -> Result<HelloReply, Failure> {
        self.check(shard)?;
        let link = self.client.packed(shard).await;
        let link =
            link.map_err(|error| Failure::new(Exit::Unreachable, format!("shard {shard}: {error}")))?;
        Ok(*link.hello())
    }

    /// Reads a shard's change stream from `from`, or the oldest that is left, up to what is acknowledged now. `take` gets consecutive records and
    /// says whether it wants more.
    pub(crate) async fn read(
        &self,
        shard: ShardId,
        from: Option<Seq>,
        mut take: impl FnMut(&TailBatch<'_>) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let until = self.hello(shard).await?.acked;
        let first = from.unwrap_or(Seq(1));
        let mut tail = self.client.tail(shard, Cursor::anew(first));
        if until < first {
            return Ok(());
        }
        loop {
            let batch = match tail.next_batch().await {
                Ok(batch) => batch,
                Err(TailError::Lost { oldest, .. }) if from.is_none() => {
                    exit::tell(format_args!(
                        "the log of shard {shard} begins at seq {oldest}: what came before is no longer kept"
                    ));
                    tail = self.client.tail(shard, Cursor::anew(oldest));
                    continue;
                }
                Err(error) => return Err(Failure::new(Exit::Failure, error)),
            };
            let goes_on = take(&batch)?;
            if !goes_on || batch.through >= until {
                return Ok(());
            }
        }
    }

    /// Asks the engine's history.
    pub(crate) async fn query(&self, question: &Question) -> Result<Value, Failure> {
        let document = serde_json::to_vec(question).map_err(std::io::Error::from)?;
        let answer = self.client.query(&document).await.map_err(|error| unasked(&error))?;
        history::read_answer(&answer).map_err(|error| asker_failure(&error))
    }

    /// A shard's rows of one kind, all of them.
    pub(crate) async fn rows<R: StateRow>(&self, query: StateQuery) -> Result<Vec<R>, Failure> {
        self.check(query.shard)?;
        let pages = self.client.state::<R>(query).await.map_err(unread)?;
        pages.all().await.map_err(unread)
    }

    /// One partition's money and rules; none if it is not there, or not for this identity.
    pub(crate) async fn partition(&self, handle: PartitionHandle) -> Result<Option<Totals>, Failure> {
        self.check(handle.shard())?;
        let row = self.client.partition(handle).await.map_err(unread)?;
        Ok(row.as_ref().map(Totals::from))
    }

    fn check(&self, shard: ShardId) -> Result<(), Failure> {
        let count = self.shards();
        if shard.0 < count {
            return Ok(());
        }
        let message = format!("no shard {shard}: there are {count}, counted from 0");
        Err(Failure::new(Exit::Usage, message))
    }
}

fn unasked(error: &QueryError) -> Failure {
    let exit = match error {
        QueryError::Open(_) | QueryError::Closed(_) | QueryError::Slow => Exit::Unreachable,
        QueryError::OldEngine(_) => Exit::Failure,
        QueryError::TooLong { .. } => Exit::Usage,
        QueryError::Refused { why, .. } => match why {
            QueryRefusal::NoHistory | QueryRefusal::Forbidden => Exit::Declined,
            QueryRefusal::Away | QueryRefusal::Busy => Exit::Unreachable,
            QueryRefusal::Malformed | QueryRefusal::TooLong => Exit::Usage,
        },
    };
    Failure::new(exit, error)
}

fn unread(error: StateError) -> Failure {
    Failure::new(Exit::Unreachable, error)
}

/// Why the engine cannot tell, and what whoever asked does: a command that is said again takes a new id.
fn after_restore(request: &Record, error: &SubmitError) -> Failure {
    const WAIT: &str = "ids up to the moment that `surety restore` was given with --lost-until are taken for lost: once it is over, \
                        say the command again, which takes a new id";
    let code = Code::UnknownAfterRestore;
    let message = match request.kind() {
        Some(Kind::Lookup) => format!("{code}: {error}"),
        Some(Kind::Reconcile) => format!("{code}: nothing was done yet: {WAIT}"),
        _ => format!(
            "{code}: {error}. Either the partition is not reconciled yet (`surety ctl partition reconcile`), or {WAIT}"
        ),
    };
    Failure::new(Exit::Unknown, message)
}

/// The reply to a request, also where it is a refusal; everything else is a failure.
fn answer(request: &Record, answer: Result<Reply, SubmitError>) -> Result<Reply, Failure> {
    let error = match answer {
        Ok(reply) => return Ok(reply),
        Err(error) => error,
    };
    match (error.refusal(), error) {
        (Some(code), _) => Ok(refusal(request, code)),
        (None, SubmitError::Unknown { cause: Unknown::AfterRestore, .. }) => {
            Err(after_restore(request, &error))
        }
        (None, _) => Err(Failure::new(Exit::Unreachable, error)),
    }
}

/// An admission code as the reply that carried it.
pub(crate) fn refusal(request: &Record, code: Code) -> Reply {
    Reply { id: request.id, kind: request.kind, code: code as u8, ..Reply::default() }
}
