//! An engine in this process, and clients of the engine itself.

use std::sync::Arc;

use loadtest::Clients;
use server::{Config, Durability, Embedded};
use surety_client::Client;
use surety_protocol::{ActorId, Caller, Roles, TenantId};
use tempfile::TempDir;

/// The engine that doors stand in front of.
pub(crate) struct Stage {
    pub(crate) engine: Embedded,
    pub(crate) clients: Clients,
    /// Of the engine; a door may keep its files there too.
    #[allow(dead_code, reason = "not every test program has such files")]
    pub(crate) directory: TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        server::init(directory.path(), 2, 1 << 20).unwrap();
        let engine = Embedded::start(Config {
            durability: Durability::Os,
            segment_bytes: 1 << 20,
            pin_threads: false,
            free_bytes_min: 0,
            ..Config::new(directory.path())
        })
        .unwrap();
        let clients = Clients {
            authorizer: client(&engine, 1, Roles::AUTHORIZER).await,
            settler: None,
            admin: Some(client(&engine, 0, Roles::ADMIN | Roles::SETTLER).await),
        };
        Self { engine, clients, directory }
    }

    /// One for a door, of the tenant whose payments are made.
    pub(crate) async fn authorizer(&self) -> Client {
        client(&self.engine, 1, Roles::AUTHORIZER).await
    }
}

async fn client(engine: &Embedded, tenant: u32, roles: Roles) -> Client {
    let caller = Caller { tenant: TenantId(tenant), roles, actor: ActorId(1) };
    let connector = Arc::new(engine.connector(caller));
    Client::over(connector, surety_client::Options::default(), &[]).await.unwrap()
}
