//! PostgreSQL: the payment in a function, a row per partition locked with `SELECT ... FOR UPDATE`, a row per lock.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio_postgres::{Client, NoTls, Statement};

use super::{COLLATERAL, Link, PARTITIONS, PATIENCE, Payment, Peer, Process, free_port, program, wait_for};
use crate::echo::on_client;
use crate::locks::CLIENT_CORE;

/// Where Debian and its derivatives put the server's programs.
const ELSEWHERE: [&str; 4] = [
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/15/bin",
    "/usr/lib/postgresql/14/bin",
];

const SETTINGS: [&str; 9] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "max_connections=300",
    "shared_buffers=512MB",
    "max_wal_size=8GB",
    "checkpoint_timeout=30min",
    "wal_buffers=16MB",
    "autovacuum=on",
];

const SCHEMA: &str = "
CREATE TABLE partitions (id bigint PRIMARY KEY, free bigint NOT NULL, held bigint NOT NULL) WITH (fillfactor = 50);
CREATE TABLE locks (high bigint, low bigint, partition bigint NOT NULL, amount bigint NOT NULL, state smallint NOT NULL,
                    PRIMARY KEY (high, low)) WITH (fillfactor = 80);
CREATE FUNCTION lock_payment(h bigint, l bigint, p bigint, a bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE f bigint;
BEGIN
  SELECT free INTO f FROM partitions WHERE id = p FOR UPDATE;
  IF f IS NULL THEN RETURN 'U'; END IF;
  INSERT INTO locks VALUES (h, l, p, a, CASE WHEN f >= a THEN 1 ELSE 3 END) ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN RETURN 'R'; END IF;
  IF f < a THEN RETURN 'D'; END IF;
  UPDATE partitions SET free = free - a, held = held + a WHERE id = p;
  RETURN 'A';
END $$;
CREATE FUNCTION release_payment(h bigint, l bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE p bigint; a bigint;
BEGIN
  UPDATE locks SET state = 2 WHERE high = h AND low = l AND state = 1 RETURNING partition, amount INTO p, a;
  IF NOT FOUND THEN RETURN 'N'; END IF;
  UPDATE partitions SET free = free + a, held = held - a WHERE id = p;
  RETURN 'A';
END $$;";

/// A server of its own.
pub struct Postgres {
    port: u16,
    _process: Process,
    _directory: tempfile::TempDir,
}

/// A connection.
pub struct PostgresLink {
    client: Client,
    lock: Statement,
    release: Statement,
}

impl Postgres {
    /// Starts a server on a new cluster and furnishes it.
    ///
    /// # Errors
    /// If there is none on this machine, or it does not start.
    pub fn start(parent: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in(parent)?;
        let data = directory.path().join("data");
        std::fs::create_dir(&data)?;
        let owner = owner(&[directory.path(), &data])?;
        let log = directory.path().join("postgres.log");
        let mut init = as_owner(&program("initdb", &ELSEWHERE)?, owner);
        init.args(["--auth=trust", "--username=bench", "--no-instructions", "-D"]).arg(&data);
        let made = init.stdout(File::create(&log)?).stderr(Stdio::piped()).output().context("initdb")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr).trim());
        let port = free_port()?;
        let mut command = as_owner(&program("postgres", &ELSEWHERE)?, owner);
        command.arg("-D").arg(&data).arg("-p").arg(port.to_string());
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let log_file = File::create(&log)?;
        let mut child = command.stdin(Stdio::null()).stderr(log_file).spawn().context("postgres")?;
        let ready = wait_for(port, &mut child, &log);
        let postgres = Self { port, _process: Process(child), _directory: directory };
        ready.context("postgres")?;
        postgres.furnish()?;
        Ok(postgres)
    }

    fn furnish(&self) -> anyhow::Result<()> {
        on_client(CLIENT_CORE, move || async move {
            // It answers on its port before it lets anybody in.
            let started = Instant::now();
            let client = loop {
                match self.client().await {
                    Ok(client) => break client,
                    Err(error) if started.elapsed() > PATIENCE => return Err(error),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            client.batch_execute(SCHEMA).await?;
            let (last, free) = (PARTITIONS - 1, COLLATERAL);
            let rows =
                format!("INSERT INTO partitions SELECT p, {free}, 0 FROM generate_series(0, {last}) p");
            client.batch_execute(&rows).await?;
            Ok(())
        })
    }

    async fn client(&self) -> anyhow::Result<Client> {
        let target = format!("host=127.0.0.1 port={} user=bench dbname=postgres", self.port);
        let (client, connection) = tokio_postgres::connect(&target, NoTls).await?;
        // Ends with the client.
        tokio::task::spawn_local(connection);
        Ok(client)
    }
}

/// PostgreSQL does not run as root: whoever is root gives the directories to the distribution's own user for it.
fn owner(directories: &[&Path]) -> anyhow::Result<Option<&'static str>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    for directory in directories {
        let given = Command::new("chown").arg("postgres").arg(directory).status().context("chown")?;
        ensure!(given.success(), "cannot give {} to the user postgres", directory.display());
    }
    Ok(Some("postgres"))
}

fn as_owner(program: &PathBuf, owner: Option<&str>) -> Command {
    match owner {
        None => Command::new(program),
        Some(owner) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", owner, "--regid", owner, "--clear-groups", "--"]).arg(program);
            command
        }
    }
}

impl Peer for Postgres {
    type Link = PostgresLink;

    async fn connect(&self) -> anyhow::Result<PostgresLink> {
        let client = self.client().await?;
        let lock = client.prepare("SELECT lock_payment($1, $2, $3, $4)").await?;
        let release = client.prepare("SELECT release_payment($1, $2)").await?;
        Ok(PostgresLink { client, lock, release })
    }

    fn settings(&self) -> String {
        format!("postgres {}, prepared, requests of one connection pipelined", SETTINGS.join(" "))
    }
}

impl Link for PostgresLink {
    async fn lock(&mut self, payments: &[Payment]) -> anyhow::Result<()> {
        let Self { client, lock, .. } = &*self;
        // Asked at once, they travel one behind the other.
        let asked = payments.iter().map(|payment| async move {
            let (high, low) = halves(payment.id);
            let (partition, amount) = (payment.partition.cast_signed(), payment.amount.cast_signed());
            client.query_one(lock, &[&high, &low, &partition, &amount]).await
        });
        all_approved(futures_util::future::try_join_all(asked).await?)
    }

    async fn release(&mut self, payments: &[Payment]) -> anyhow::Result<()> {
        let Self { client, release, .. } = &*self;
        let asked = payments.iter().map(|payment| async move {
            let (high, low) = halves(payment.id);
            client.query_one(release, &[&high, &low]).await
        });
        all_approved(futures_util::future::try_join_all(asked).await?)
    }
}

fn all_approved(rows: Vec<tokio_postgres::Row>) -> anyhow::Result<()> {
    for row in rows {
        let answer: &str = row.try_get(0)?;
        ensure!(answer == "A", "PostgreSQL answered {answer}");
    }
    Ok(())
}

fn halves(id: u128) -> (i64, i64) {
    (((id >> 64) as u64).cast_signed(), (id as u64).cast_signed())
}
