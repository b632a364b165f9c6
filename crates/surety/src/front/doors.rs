//! The front doors of a process: opened, given new settings, and closed together.

use std::future::{Future, pending, poll_fn};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;

use gateway::{Gateway, LinkConfig, LinkNumbers};
use rest::{Rest, RestSettings, Tenant, TenantSettings};
use serde_json::{Map, Value, json};
use surety_client::Client;
use surety_protocol::TenantId;
use telemetry::Page;

use super::run::{Halves, Settings};
use crate::exit::{Exit, Failure};
use crate::remote;
use crate::renewable::Renewable;
use crate::traced::Watcher;
use crate::watched::Numbers;

/// The front doors that are open.
pub(super) struct Doors {
    tenant: TenantId,
    /// The identity of the command line: of the link, and of the tenant that names none.
    own: Renewable,
    link: Option<Link>,
    rest: Option<Applications>,
}

/// Acquirers' hosts over ISO 8583.
struct Link {
    name: String,
    gateway: Gateway,
}

/// Applications over REST.
struct Applications {
    rest: Rest,
    /// The identity of each tenant, in the order of the settings; none for that of the command line.
    identities: Vec<Option<Renewable>>,
}

/// What the front doors of a process count.
pub(super) struct DoorNumbers {
    link: Option<LinkNumbers>,
    rest: Option<rest::Metrics>,
    traces: Option<Arc<Watcher>>,
}

impl Numbers for DoorNumbers {
    fn tell(&self, page: &mut Page) {
        LinkNumbers::tell(self.link.as_slice(), page);
        if let Some(rest) = &self.rest {
            rest.tell(page);
        }
        if let Some(traces) = &self.traces {
            traces.tell(page);
        }
    }
}

impl Doors {
    /// Opens what the settings have: all of it, or nothing. `own` is the identity of the command line.
    pub(super) async fn open(address: SocketAddr, own: &Path, settings: Settings) -> Result<Self, Failure> {
        tracing::info!(%address, "learning from the engine what there is");
        let own = Renewable::connect(address, own).await?;
        let (client, tenant) = (own.client.clone(), own.client.tenant());
        // Nobody is served before all are sure to open: the one that can be held back is, and the other comes last.
        let rest = match settings.rest {
            Some(settings) => Some(Applications::prepare(address, client.clone(), settings).await?),
            None => None,
        };
        let link = match settings.link {
            Some(config) => Some(Link::open(client, config).await?),
            None => None,
        };
        Ok(Self { tenant, own, link, rest: rest.map(|open| open()) })
    }

    /// The line that scripts wait for.
    pub(super) fn ready(&self) -> Map<String, Value> {
        let mut ready = Map::new();
        let mut put = |key: &str, value: Value| ready.insert(key.to_owned(), value);
        put("ready", json!(true));
        put("tenant", json!(self.tenant.0));
        if let Some(Link { name, gateway }) = &self.link {
            put("link", json!(name));
            put("listen", json!(gateway.address().to_string()));
        }
        if let Some(applications) = &self.rest {
            put("rest", json!(applications.rest.address().to_string()));
        }
        ready
    }

    /// Whoever asks the engine for them.
    pub(super) fn clients(&self) -> impl Iterator<Item = &Client> {
        let tenants = self.rest.iter().flat_map(|applications| applications.identities.iter().flatten());
        [&self.own].into_iter().chain(tenants).map(|renewable| &renewable.client)
    }

    /// Completes once the engine was restored without what one of them was told, and says so.
    pub(super) async fn parted(&self) -> Failure {
        let link = async {
            match &self.link {
                Some(link) => link.gateway.parted().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.life_lost() => remote::life_lost(),
            error = link => Failure::new(Exit::Declined, error),
        }
    }

    /// Completes once the engine has refused a token of what it has given up.
    async fn life_lost(&self) {
        let mut lost: Vec<_> = self.clients().map(|client| Box::pin(client.life_lost())).collect();
        poll_fn(|cx| match lost.iter_mut().any(|lost| lost.as_mut().poll(cx).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// What they count.
    pub(super) fn numbers(&self, traces: Option<Arc<Watcher>>) -> DoorNumbers {
        DoorNumbers {
            traces,
            link: self.link.as_ref().map(|link| link.gateway.numbers()),
            rest: self.rest.as_ref().map(|applications| applications.rest.metrics()),
        }
    }

    /// What cannot be taken is told, and that front door goes on as it was.
    pub(super) async fn reload(&self, new: Halves) {
        let link = match (&self.link, new.link) {
            (_, Err(failure)) => Some(Err(failure.to_string())),
            (Some(link), Ok(Some(config))) => {
                Some(link.gateway.reload(config).map_err(|error| error.to_string()))
            }
            (None, Ok(None)) => None,
            _ => Some(Err("a link is opened and closed by a new start alone".to_owned())),
        };
        let rest = match (&self.rest, new.rest) {
            (_, Err(failure)) => Some(Err(failure.to_string())),
            (Some(applications), Ok(Some(settings))) => Some(applications.reload(settings, self.own.file())),
            (None, Ok(None)) => None,
            _ => Some(Err("[rest] is opened and closed by a new start alone".to_owned())),
        };
        for (door, taken) in [("ISO 8583", link), ("REST", rest)] {
            match taken {
                None => {}
                Some(Ok(())) => tracing::info!(door, "SIGHUP: settings were read again"),
                Some(Err(error)) => tracing::error!(door, %error, "SIGHUP: settings stay as they were"),
            }
        }
        // Last, since the engine is asked.
        self.renew().await;
    }

    /// Reads the identities again. One that cannot be used is told, and the one before it stays.
    async fn renew(&self) {
        let tenants = self.rest.iter().flat_map(|applications| applications.identities.iter().flatten());
        for renewable in [&self.own].into_iter().chain(tenants) {
            if let Err(error) = renewable.renew().await {
                tracing::error!(%error, "SIGHUP: the engine is still shown the identity that was there before");
            }
        }
    }

    /// Answers what is being served, and closes every socket.
    pub(super) async fn close(self) {
        let link = async {
            if let Some(link) = self.link {
                link.gateway.stop().await;
            }
        };
        let rest = async {
            if let Some(applications) = self.rest {
                applications.rest.stop().await;
            }
        };
        tokio::join!(link, rest);
    }
}

impl Link {
    async fn open(client: Client, config: LinkConfig) -> Result<Self, Failure> {
        let name = config.name.clone();
        let gateway = Gateway::start(client, config).await.map_err(link_failure)?;
        Ok(Self { name, gateway })
    }
}

impl Applications {
    /// Does all that can fail; what comes back opens.
    async fn prepare(
        address: SocketAddr,
        client: Client,
        settings: RestSettings,
    ) -> Result<impl FnOnce() -> Self + use<>, Failure> {
        let (mut identities, mut tenants) = (Vec::new(), Vec::new());
        for tenant in settings.tenants {
            let renewable = match &tenant.identity {
                Some(identity) => Some(Renewable::connect(address, identity).await?),
                None => None,
            };
            let client = renewable.as_ref().map_or(&client, |renewable| &renewable.client).clone();
            tenants.push(Tenant { client, config: tenant.config });
            identities.push(renewable);
        }
        let rest = Rest::prepare(settings.config, tenants).await.map_err(rest_failure)?;
        Ok(move || Self { rest: rest.open(), identities })
    }

    /// Tenants stay who they were, in their order: their clients are connected. Whose an identity is, its file says, now as at the start: a
    /// file that has become another tenant's is refused by the front door, as one that is somewhere else is here.
    fn reload(&self, settings: RestSettings, own: &Path) -> Result<(), String> {
        let here = self.identities.iter().map(|renewable| renewable.as_ref().map_or(own, Renewable::file));
        let wanted = |tenant: &TenantSettings| tenant.identity.as_deref().unwrap_or(own).to_owned();
        let files: Vec<PathBuf> = settings.tenants.iter().map(wanted).collect();
        if !here.eq(&files) {
            return Err("the identities of `rest.tenant` change by a new start alone".to_owned());
        }
        let mut tenants = Vec::new();
        for (file, tenant) in files.iter().zip(settings.tenants) {
            let identity = remote::identity(file).map_err(|failure| failure.to_string())?;
            tenants.push((identity.tenant(), tenant.config));
        }
        self.rest.reload(&settings.config, tenants).map_err(|error| error.to_string())
    }
}

/// Why a link cannot be served, with its exit code.
pub(crate) fn link_failure(error: gateway::StartError) -> Failure {
    use gateway::StartError;
    match error {
        StartError::Listen { .. } => Failure::new(Exit::Address, error),
        StartError::Stream(ref stream) if remote::is_of_a_lost_life(stream) => remote::life_lost(),
        StartError::Stream(_) => Failure::new(Exit::Unreachable, error),
        StartError::Book(_) | StartError::Mac(_) | StartError::Tls(_) => Failure::new(Exit::Usage, error),
    }
}

/// Why applications cannot be served, with its exit code.
fn rest_failure(error: rest::StartError) -> Failure {
    use rest::StartError;
    match error {
        StartError::Listen { .. } => Failure::new(Exit::Address, error),
        StartError::Stream(ref stream) if remote::is_of_a_lost_life(stream) => remote::life_lost(),
        StartError::Stream(_) => Failure::new(Exit::Unreachable, error),
        StartError::Webhooks(_) => Failure::new(Exit::Failure, error),
        StartError::Tls(_)
        | StartError::Twice(_)
        | StartError::Token(_)
        | StartError::Webhook { .. }
        | StartError::WebhookName(_) => Failure::new(Exit::Usage, error),
    }
}
