//! A link's listener: takes its hosts' sockets, and ends them together.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use iso8583::payment::{Currency, Rules};
use surety_client::protocol::PartitionHandle;
use surety_client::{Client, TailError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use trust::{Terms, Tls};

use crate::book_file::BookError;
use crate::config::LinkConfig;
use crate::connection::{self, End, Socket};
use crate::desk::Desk;
use crate::follow::follow;
use crate::mac::{MacError, Macs};
use crate::metrics::LinkNumbers;
use crate::tls::TlsError;

/// A running link.
pub struct Gateway {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    listener: JoinHandle<()>,
    desk: Arc<Desk>,
    tls: Arc<Option<Tls>>,
    config: Arc<LinkConfig>,
    /// They end with it.
    followers: JoinSet<()>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("link", &self.config.name).field("address", &self.address).finish()
    }
}

/// Why a link cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// What payments there are cannot be learned.
    #[error("cannot read the change stream: {0}")]
    Stream(#[from] TailError),
    /// The book of totals cannot be used.
    #[error(transparent)]
    Book(#[from] BookError),
    /// There are no keys to authenticate messages with.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// It cannot speak TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why new settings are not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// They change what only a new start can change.
    #[error("`{0}` cannot change while the link is served")]
    Fixed(&'static str),
    /// There are no keys to authenticate messages with.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// The files of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// True if every currency is still taken, and is worth the same. One that was left out could come back as something else, and what was
/// paid in it could not be taken back meanwhile.
fn keeps_currencies(old: &[Currency], new: &[Currency]) -> bool {
    let is_kept = |old: &Currency| {
        let mut same = new.iter().filter(|new| new.number == old.number).peekable();
        same.peek().is_some() && same.all(|new| new.scale == old.scale)
    };
    old.iter().all(is_kept)
}

/// True if what is known of partitions is held in what it was: those that a currency names, to which cards are or were led, or in
/// which something was counted.
fn keeps_held(old: &Rules, new: &Rules, counted: &BTreeSet<PartitionHandle>) -> bool {
    let routed = old.routes.iter().flat_map(|route| route.partitions.iter().chain(&route.former));
    let mut known = old.held_in.keys().chain(routed).chain(counted);
    known.all(|partition| old.held_in(*partition) == new.held_in(*partition))
}

impl Gateway {
    /// Learns what payments the engine has, then listens. The client's certificate says whose payments these are.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(client: Client, config: LinkConfig) -> Result<Self, StartError> {
        let address = config.listen;
        let listen = |error| StartError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let desk = Arc::new(Desk::new(client, &config)?);
        let tls = config.tls.as_ref().map(|tls| Tls::open(&tls.files())).transpose();
        let tls = Arc::new(tls.map_err(TlsError::from)?);
        let followers = follow(&desk).await?;
        let (stop, stopping) = watch::channel(false);
        let config = Arc::new(config);
        let listener = tokio::spawn(accept(listener, tls.clone(), desk.clone(), config.clone(), stopping));
        Ok(Self { address, stop, listener, desk, tls, config, followers })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Completes once the engine was restored under it, or is another one: what it knows of payments, and has counted, may not be what
    /// the engine has. It should be stopped then, and its process started anew.
    pub async fn parted(&self) -> TailError {
        self.desk.parted().await
    }

    /// What it counts.
    #[must_use]
    pub fn numbers(&self) -> LinkNumbers {
        LinkNumbers {
            name: self.config.name.clone(),
            listen: self.address,
            metrics: self.desk.metrics().clone(),
        }
    }

    /// Takes routes, merchants, more currencies, the mark of parts, keys of MACs and files of TLS from new settings, for the messages that come from now on.
    /// Hosts whose certificates these files do not vouch for are cut off: what is being served for them goes on, and is not answered.
    /// Cards that are led elsewhere are still looked for where they led, until the link is started anew: then the settings have to say it
    /// (`former`).
    ///
    /// # Errors
    /// If anything else differs, if a currency is left out or worth something else, if a known partition is held in another, or if cards would have led to more partitions than
    /// can be looked in: nothing is taken then.
    pub fn reload(&self, config: LinkConfig) -> Result<(), ReloadError> {
        let (old, new) = (&self.config, &config);
        let served = self.desk.rules();
        let is_other = [
            ("name", old.name != new.name),
            ("listen", old.listen != new.listen),
            ("header", old.header != new.header),
            ("profile", old.profile != new.profile),
            ("edition", old.rules.dialect != new.rules.dialect),
            // Repeats and reversals of what was served before would be other messages.
            ("id_key_file", old.rules.id_key != new.rules.id_key),
            // A repeat of an increase would be another payment.
            ("increase_mark", old.rules.increase != new.rules.increase),
            ("book_file", old.book_file != new.book_file),
            ("mac", old.mac != new.mac),
            ("tls", old.tls.is_some() != new.tls.is_some()),
            ("needs_sign_on", old.needs_sign_on != new.needs_sign_on),
            ("limits", old.limits != new.limits),
            ("currency", !keeps_currencies(&served.currencies, &new.rules.currencies)),
            // Days that were told already would come to something else.
            ("currency.partitions", !keeps_held(&served, &new.rules, &self.desk.books().partitions())),
        ];
        if let Some((key, _)) = is_other.into_iter().find(|(_, is_other)| *is_other) {
            return Err(ReloadError::Fixed(key));
        }
        // All or nothing: what can fail comes first.
        let terms = config.tls.as_ref().map(|tls| Terms::read(&tls.files())).transpose();
        let terms = terms.map_err(TlsError::from)?;
        let rules = config.rules.following(&served).ok_or(ReloadError::Fixed("route"))?;
        self.desk.macs().map_or(Ok(()), Macs::reload)?;
        if let Some((tls, terms)) = self.tls.as_ref().as_ref().zip(terms) {
            tls.replace(terms);
        }
        self.desk.set_rules(rules);
        Ok(())
    }

    /// Takes no more messages, answers those that are being served, and closes every socket.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let _ = self.listener.await;
        self.followers.shutdown().await;
        self.desk.books().save().await;
        self.desk.books().close();
    }
}

/// Waits until the link is stopped, or its owner is gone.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn accept(
    listener: TcpListener,
    tls: Arc<Option<Tls>>,
    desk: Arc<Desk>,
    config: Arc<LinkConfig>,
    mut stopping: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(config.limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, as a rule: they come back when sockets close.
                tracing::warn!(link = config.name, %error, "no socket taken");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            tracing::warn!(link = config.name, %peer, "closed: too many sockets");
            desk.metrics().sockets_refused.raise();
            continue;
        };
        let (tls, desk, config, stopping) = (tls.clone(), desk.clone(), config.clone(), stopping.clone());
        connections.spawn(async move {
            serve(stream, peer, &tls, desk, config, stopping).await;
            drop(place);
        });
    }
    while connections.join_next().await.is_some() {}
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    tls: &Option<Tls>,
    desk: Arc<Desk>,
    config: Arc<LinkConfig>,
    stopping: watch::Receiver<bool>,
) {
    let name = config.name.clone();
    tracing::info!(link = name, %peer, "connected");
    let metrics = desk.metrics().clone();
    metrics.sockets.raise();
    let _open = metrics.sockets_open.hold();
    // A reply is complete when it is written: there is nothing to wait for.
    let _ = stream.set_nodelay(true);
    let end = match tls {
        None => connection::serve(stream, Socket { peer, standing: None }, desk, config, stopping).await,
        Some(tls) => match timeout(config.limits.frame_within, tls.accept(stream)).await {
            Ok(Ok((stream, standing))) => {
                let socket = Socket { peer, standing: Some(standing) };
                connection::serve(stream, socket, desk, config, stopping).await
            }
            _ => End::Handshake,
        },
    };
    metrics.closed(end);
    tracing::info!(link = name, %peer, %end, "disconnected");
}
