//! An old copy of the directory put back: the tokens that clients hold prove it, and the engine locks nothing any more.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use surety_client::protocol::CloseCode;
use surety_client::transport::{Closed, OpenError};
use surety_client::{Client, ConnectError, Identity, LockRequest, Options, QuicConnector, QuicOptions};
use surety_protocol::{Amount, MerchantId};

use crate::bench::Bench;
use crate::mounts;
use crate::report::Report;
use crate::surety::Surety;
use crate::witness;

/// Copies, goes on, puts the copy back.
pub(super) fn run(surety: &Surety, report: &mut Report) -> Result<()> {
    let home = tempfile::tempdir()?;
    let (data, copy) = (home.path().join("data"), home.path().join("copy"));
    surety.init(&data, 1, 1 << 20)?;
    let mut bench = Bench::on(surety, &data, 1 << 20)?;
    let engine = bench.start()?;
    bench.load()?.wait_for(200, || Ok(false))?;
    engine.terminate()?;
    copy_directory(&data, &copy)?;
    let engine = bench.start()?;
    bench.load()?.wait_for(200, || Ok(false))?;
    let address = engine.address()?;
    let tokens = witness::runtime()?.block_on(async {
        let client = witness::connect(address, &data, "authorizer").await?;
        client.send(LockRequest::new(witness::partition(0)?, Amount(1), MerchantId(1))).await?;
        anyhow::Ok(client.tokens())
    })?;
    report.expect(!tokens.is_empty(), || "replies bring no token".to_owned());
    bench.finish(engine, report)?;

    // The operator puts the backup back and starts it: nothing in the directory is wrong.
    std::fs::remove_dir_all(&data)?;
    copy_directory(&copy, &data)?;
    let mut restored = Bench::on(surety, &data, 1 << 20)?;
    restored.serve.listen = address;
    let engine = restored.serve.start_well(surety)?;
    witness::runtime()?.block_on(async {
        let identity = Identity::from_file(data.join("pki/authorizer.pem"))?;
        let connector = Arc::new(QuicConnector::new(QuicOptions::new(address, identity))?);
        let refused = Client::over(connector, Options::default(), &tokens).await;
        let is_fork = matches!(
            refused,
            Err(ConnectError::Open { error: OpenError::Closed(Closed::ByServer(CloseCode::Fork)), .. })
        );
        report.expect(is_fork, || format!("a token of the future is answered {refused:?}"));
        // From now on it locks for nobody, whether they hold a token or not.
        let locked = match witness::connect(address, &data, "authorizer").await {
            Err(_) => None,
            Ok(client) => {
                let lock = LockRequest::new(witness::partition(0)?, Amount(1), MerchantId(1));
                client.send(lock).await.ok()
            }
        };
        report.expect(locked.is_none(), || format!("a forked engine locks: {locked:?}"));
        anyhow::Ok(())
    })?;
    report.add("forks_refused", 1);
    engine.kill()
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    mounts::command("cp", &["-a", &from.to_string_lossy(), &to.to_string_lossy()])
}
