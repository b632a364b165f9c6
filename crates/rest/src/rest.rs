//! A running front door.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use surety_client::Client;
use surety_client::protocol::TenantId;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use trust::{Terms, Tls, TlsError};

use crate::config::{RestConfig, TenantConfig};
use crate::desk::Desk;
use crate::follow::follow;
use crate::guard::{Doors, Shared, TokenTwice};
use crate::metrics::{Metrics, Numbers};
use crate::routes;
use crate::server::{Floor, StartError, accept};
use crate::webhook::{Endpoint, Hook, WebhookConfig, is_name};

/// A tenant that is served: the client is whoever its certificate says.
#[derive(Debug)]
pub struct Tenant {
    /// Its client of the engine.
    pub client: Client,
    /// What its applications show, and where its events go.
    pub config: TenantConfig,
}

/// A REST front door, until it is stopped.
pub struct Rest {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    listener: JoinHandle<()>,
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
    config: RestConfig,
    /// They end with it.
    _followers: JoinSet<()>,
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rest").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A front door that knows what it has to and holds its address, and takes nobody yet: whoever connects waits.
pub struct Prepared {
    address: SocketAddr,
    listener: TcpListener,
    stop: watch::Sender<bool>,
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
    config: RestConfig,
    followers: JoinSet<()>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Prepared {
    /// Takes whoever comes, and carries events to endpoints.
    #[must_use]
    pub fn open(self) -> Rest {
        let Self { address, listener, stop, shared, tls, config, mut followers } = self;
        for hook in &shared.hooks {
            followers.spawn(hook.clone().run());
        }
        let floor = Floor {
            router: routes::router(shared.clone()),
            tls: tls.clone(),
            limits: shared.limits.clone(),
            numbers: shared.numbers.clone(),
            reloads: shared.reloads.subscribe(),
            stopping: stop.subscribe(),
        };
        let listener = tokio::spawn(accept(listener, floor));
        Rest { address, stop, listener, shared, tls, config, _followers: followers }
    }
}

/// Why new settings are not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It changes only by a new start.
    #[error("`rest.{0}` cannot change while the front door is open")]
    Fixed(&'static str),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A token is there twice.
    #[error(transparent)]
    Token(#[from] TokenTwice),
}

impl Rest {
    /// Learns what locks the engine has, then takes whoever comes.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: RestConfig, tenants: Vec<Tenant>) -> Result<Self, StartError> {
        Ok(Self::prepare(config, tenants).await?.open())
    }

    /// Does all of a start that can fail.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn prepare(config: RestConfig, tenants: Vec<Tenant>) -> Result<Prepared, StartError> {
        let address = config.listen;
        let listen = |error| StartError::Listen { address, error };
        let tls = config.tls.as_ref().map(|files| Tls::open(&files.files())).transpose()?.map(Arc::new);
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let limits = Arc::new(config.limits.clone());
        let assets: Arc<[_]> = config.assets.clone().into();
        let mut followers = JoinSet::new();
        let numbers = Arc::new(Numbers::new(routes::templates()));
        let mut desks: Vec<Arc<Desk>> = Vec::new();
        let mut configs = Vec::new();
        let mut hooks = Vec::new();
        for tenant in tenants {
            let id = tenant.client.tenant();
            if desks.iter().any(|desk| desk.client().tenant() == id) {
                return Err(StartError::Twice(id));
            }
            let desk = Arc::new(Desk::new(tenant.client, assets.clone(), limits.clone()));
            follow(&desk, &numbers, &mut followers).await?;
            for webhook in &tenant.config.webhooks {
                hooks.push(Arc::new(hook(&config, webhook, &desk, &hooks)?));
            }
            desks.push(desk);
            configs.push((id, tenant.config));
        }
        let (stop, stopping) = watch::channel(false);
        let doors = RwLock::new(Arc::new(Doors::new(configs, &config.limits)?));
        let certificates = config.certificates;
        let reloads = watch::Sender::new(());
        let shared =
            Arc::new(Shared { desks, doors, limits, certificates, hooks, numbers, reloads, stopping });
        Ok(Prepared { address, listener, stop, shared, tls, config, followers })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics(self.shared.clone())
    }

    /// Takes new tokens and secrets of webhooks, and reads the certificates again, for whatever comes from now on. Whoever could not come in
    /// any more is cut off: connections on which nothing but tokens that are gone was shown, connections whose client's certificate is
    /// accepted no more, live streams of events of such a token. What is being served for them goes on in the engine.
    ///
    /// # Errors
    /// If anything else differs, or the certificates cannot be used: nothing is taken then.
    pub fn reload(
        &self,
        config: &RestConfig,
        tenants: Vec<(TenantId, TenantConfig)>,
    ) -> Result<(), ReloadError> {
        let old = &self.config;
        let is_other = [
            ("listen", old.listen != config.listen),
            ("tls", old.tls.is_some() != config.tls.is_some()),
            ("asset", old.assets != config.assets),
            ("certificates", old.certificates != config.certificates),
            ("limits", old.limits != config.limits),
            ("webhooks", old.webhooks != config.webhooks),
            ("tenant", self.tenants() != tenants.iter().map(|(tenant, _)| *tenant).collect::<Vec<_>>()),
            ("tenant.webhook", !self.are_hooks(&tenants)),
        ];
        if let Some((key, _)) = is_other.into_iter().find(|(_, is_other)| *is_other) {
            return Err(ReloadError::Fixed(key));
        }
        let secrets: Vec<_> = tenants
            .iter()
            .flat_map(|(_, tenant)| &tenant.webhooks)
            .map(|hook| hook.secrets.clone())
            .collect();
        let mut doors = Doors::new(tenants, &config.limits)?;
        let terms = config.tls.as_ref().map(|files| Terms::read(&files.files())).transpose()?;
        if let Some((tls, terms)) = self.tls.as_ref().zip(terms) {
            tls.replace(terms);
        }
        for (hook, secrets) in self.shared.hooks.iter().zip(secrets) {
            hook.set_secrets(secrets);
        }
        let mut open = self.shared.doors.write();
        doors.take_over(&open);
        *open = Arc::new(doors);
        drop(open);
        self.shared.reloads.send_replace(());
        Ok(())
    }

    /// True if these are the webhooks that there are, each of its tenant, in their order.
    fn are_hooks(&self, tenants: &[(TenantId, TenantConfig)]) -> bool {
        let new = tenants.iter().flat_map(|(tenant, config)| {
            config.webhooks.iter().map(|webhook| (*tenant, &webhook.name, &webhook.url))
        });
        self.shared.hooks.iter().map(|hook| (hook.tenant(), &hook.name, &hook.url)).eq(new)
    }

    /// The tenants that are served.
    fn tenants(&self) -> Vec<TenantId> {
        self.shared.desks.iter().map(|desk| desk.client().tenant()).collect()
    }

    /// Takes no more connections, answers what is being served, and closes.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.listener.await;
    }
}

/// Opens a webhook, if its name and address are such.
fn hook(
    config: &RestConfig,
    webhook: &WebhookConfig,
    desk: &Arc<Desk>,
    others: &[Arc<Hook>],
) -> Result<Hook, StartError> {
    let is_twice = others.iter().any(|other| other.is_of(desk) && other.name == webhook.name);
    let rules = config.webhooks.as_ref().filter(|_| is_name(&webhook.name) && !is_twice);
    let rules = rules.ok_or_else(|| StartError::WebhookName(webhook.name.clone()))?;
    let endpoint = Endpoint::read(&webhook.url, rules.allow_private)
        .map_err(|error| StartError::Webhook { name: webhook.name.clone(), error })?;
    Ok(Hook::open(webhook.clone(), endpoint, Arc::new(rules.clone()), desk.clone())?)
}
