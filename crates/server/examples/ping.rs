//! Sends locks to a server in this process over real QUIC and prints how it went: where the time of a request goes can then
//! be asked of a profiler.
//!
//! ```text
//! cargo run --release -p server --example ping -- [os|fsync] [frames in flight] [requests per frame] [seconds] [partitions]
//! ```

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use server::{Config, Durability, Server, pki_path};
use surety_client::{Client, Identity, request};
use surety_protocol::{
    Address, Amount, AssetId, Id, Kind, LockBody, PartitionHandle, Policy, Record, Reply, Rights, ShardId,
    TenantBody, TenantId,
};

type Error = Box<dyn std::error::Error>;

const TENANT: TenantId = TenantId(1);

fn partition(number: u64) -> PartitionHandle {
    PartitionHandle::new(ShardId(0), number + 1)
}

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let durability = match arguments.next().as_deref() {
        Some("fsync") => Durability::Fsync,
        _ => Durability::Os,
    };
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse());
    let (frames, requests, seconds) = (number(1)?, number(1)?, number(3)?);
    let partitions = u64::try_from(number(1)?)?;
    let directory = tempfile::tempdir_in("target")?;
    let data = directory.path().join("data");
    server::init(&data, 1, 64 << 20)?;
    let loopback = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let config = Config { listen: loopback, admin: loopback, durability, ..Config::new(&data) };
    let server = Server::start(config)?;
    let pki = pki_path(&data);
    let identity = |name: &str| Identity::from_file(pki.join(name).with_extension("pem"));
    let (admin, settler, payer) = (identity("admin")?, identity("settler")?, identity("authorizer")?);
    let address = server.addresses()[0];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        furnish(address, admin, settler, partitions).await?;
        let client = Client::connect(address, payer).await?;
        let lasting = Duration::from_secs(u64::try_from(seconds)?);
        let mut latencies = send(&client, frames, requests, lasting, partitions).await?;
        latencies.sort_unstable();
        let at = |part: usize| latencies[(latencies.len() - 1) * part / 1000] / 1000;
        let rate = latencies.len() * requests / seconds;
        println!("{rate}/s; a frame takes p50 {} us, p99 {} us, p99.9 {} us", at(500), at(990), at(999));
        Ok::<_, Error>(())
    })?;
    println!("{}", metrics(server.admin().ok_or("no admin listener")?)?);
    server.shutdown();
    Ok(())
}

async fn furnish(
    address: SocketAddr,
    admin: Identity,
    settler: Identity,
    partitions: u64,
) -> Result<(), Error> {
    let admin = Client::connect(address, admin).await?;
    let settler = Client::connect(address, settler).await?;
    let quotas = TenantBody {
        tenant: TENANT,
        locks_max: 100_000_000,
        ids_max: 60_000_000,
        enabled: 1,
        ..TenantBody::default()
    };
    admin.send(request::set_tenant(PartitionHandle::new(ShardId(0), 0), &quotas)).await?;
    for number in 0..partitions {
        let partition = partition(number);
        let mut onchain = [7; 32];
        onchain[..8].copy_from_slice(&number.to_be_bytes());
        admin.send(request::create_partition(partition, onchain, AssetId(1), false)).await?;
        admin.submit_long(&request::set_policy(admin.new_id(), partition, &Policy::default())).await?;
        admin.send(request::grant(partition, TENANT, Rights::KNOWN)).await?;
        settler.send(request::deposit(partition, Address([3; 20]), Amount(1 << 90), 1)).await?;
    }
    Ok(())
}

/// Keeps so many frames in flight; returns how long each took, in nanoseconds.
async fn send(
    client: &Client,
    frames: usize,
    requests: usize,
    lasting: Duration,
    partitions: u64,
) -> Result<Vec<u128>, Error> {
    let (mut sender, mut receiver) = client.packed(ShardId(0)).await?.split();
    let start = Instant::now();
    let mut latencies = Vec::new();
    let mut sent_at = std::collections::VecDeque::new();
    let mut replies: Vec<Reply> = Vec::new();
    while start.elapsed() < lasting {
        while sent_at.len() < frames {
            for _ in 0..requests {
                let (id, body) = (client.new_id(), LockBody::default());
                let partition = partition(random(id) % partitions);
                sender.push_record(&Record::new(Kind::Lock, id, partition, Amount(1), &body));
            }
            sender.flush().await?;
            sent_at.push_back(Instant::now());
        }
        receiver.receive(&mut replies).await?;
        while replies.len() >= requests {
            if let Some(declined) = replies.drain(..requests).find(|reply| !reply.code().is_success()) {
                return Err(format!("a lock was answered {}", declined.code()).into());
            }
            latencies.extend(sent_at.pop_front().map(|at| at.elapsed().as_nanos()));
        }
    }
    Ok(latencies)
}

/// The low bits of an id are random.
fn random(id: Id) -> u64 {
    let [a, b, ..] = id.0.to_le_bytes();
    u64::from(u16::from_le_bytes([a, b]))
}

/// What the server has counted of its log and its frames.
fn metrics(address: SocketAddr) -> Result<String, Error> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let wanted = ["surety_frames_total", "surety_blocks_total", "surety_records_total", "_seconds_sum"];
    let lines =
        text.lines().filter(|line| !line.starts_with('#') && wanted.iter().any(|name| line.contains(name)));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}
