//! `serve --iso`: acquirers' links inside the engine's own process, without a network between them.

use std::path::PathBuf;
use std::sync::Arc;

use gateway::{Gateway, LinkConfig, LinkNumbers};
use serde_json::{Value, json};
use server::Running;
use surety_client::{Client, Options};
use surety_protocol::{ActorId, Caller, Roles, TenantId};
use telemetry::{Page, Source};
use tokio::task::JoinSet;

use crate::exit::{Exit, Failure};
use crate::front::{Settings, link_failure};

/// A link that is to be served.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    tenant: TenantId,
    file: PathBuf,
}

impl Wanted {
    /// Reads `TENANT=FILE`.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let (tenant, file) = text.split_once('=').ok_or("write TENANT=FILE")?;
        // The operator has no payments.
        let tenant = tenant.parse().ok().filter(|tenant| *tenant > 0);
        Ok(Self { tenant: TenantId(tenant.ok_or("a tenant is a number from 1 on")?), file: file.into() })
    }

    fn load(&self) -> Result<LinkConfig, Failure> {
        let Settings { link, rest } = Settings::load(&self.file)?;
        match (link, rest) {
            (Some(config), None) => Ok(config),
            // Nobody would open it here.
            _ => Err(Failure::new(
                Exit::Usage,
                format!("{}: [rest] is for `surety gateway run`", self.file.display()),
            )),
        }
    }
}

/// The links of this process.
pub(crate) struct Links {
    links: Vec<(Wanted, Gateway)>,
}

impl Links {
    /// Serves them all, or none.
    pub(crate) async fn start(running: &Running, wanted: &[Wanted]) -> Result<Self, Failure> {
        let mut links = Self { links: Vec::new() };
        for wanted in wanted {
            match links.add(running, wanted).await {
                Ok(()) => {}
                Err(failure) => {
                    links.stop().await;
                    return Err(failure);
                }
            }
        }
        running.attach(Arc::new(Numbers(links.links.iter().map(|(_, gateway)| gateway.numbers()).collect())));
        Ok(links)
    }

    async fn add(&mut self, running: &Running, wanted: &Wanted) -> Result<(), Failure> {
        let config = wanted.load()?;
        // No certificate speaks for it: its principal is nobody's.
        let caller = Caller { tenant: wanted.tenant, roles: Roles::AUTHORIZER, actor: ActorId(0) };
        let client = Client::over(Arc::new(running.connector(caller)), Options::default(), &[]).await;
        let client = client.map_err(|error| Failure::new(Exit::Failure, error))?;
        let gateway = Gateway::start(client, config).await.map_err(link_failure)?;
        self.links.push((wanted.clone(), gateway));
        Ok(())
    }

    /// Where they listen, for the line that scripts wait for.
    pub(crate) fn to_json(&self) -> Value {
        let link = |(wanted, gateway): &(Wanted, Gateway)| json!({"tenant": wanted.tenant.0, "listen": gateway.address().to_string()});
        self.links.iter().map(link).collect()
    }

    /// Reads their settings again. What cannot be taken is told, and the link goes on as it was.
    pub(crate) fn reload(&self) {
        for (wanted, gateway) in &self.links {
            let taken = wanted.load().map_err(|failure| failure.to_string());
            let taken = taken.and_then(|config| gateway.reload(config).map_err(|error| error.to_string()));
            if let Err(error) = taken {
                tracing::error!(%error, file = %wanted.file.display(), "settings stay as they were");
            }
        }
    }

    /// Answers what is being served, and closes every socket: before the engine drains. All are told at once, so that none takes messages
    /// while another waits for a host that does not read.
    pub(crate) async fn stop(self) {
        let mut stopping: JoinSet<()> = self.links.into_iter().map(|(_, gateway)| gateway.stop()).collect();
        while stopping.join_next().await.is_some() {}
    }
}

/// What the engine's own listener tells of its links.
struct Numbers(Vec<LinkNumbers>);

impl Source for Numbers {
    fn ready(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn version(&self) -> String {
        String::new()
    }

    fn metrics(&self, page: &mut Page) {
        LinkNumbers::tell(&self.0, page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_of_a_tenant() {
        assert!(
            matches!(Wanted::read("7=a=b"), Ok(Wanted { tenant: TenantId(7), file }) if file.ends_with("a=b"))
        );
        for wrong in ["", "link.toml", "0=link.toml", "x=link.toml"] {
            assert!(Wanted::read(wrong).is_err(), "{wrong}");
        }
    }
}
