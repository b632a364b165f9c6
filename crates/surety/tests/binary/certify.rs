//! `settle certify`: a certified lock is signed beside a running engine, and its file handed out, through a kill.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256};
use chain::{DigestSigner, LocalKey};
use rustix::process::Signal;
use serde_json::{Value, json};
use settlement::{LockId, Word};
use surety_client::{Client, Identity, LockRequest, QuicOptions};
use surety_protocol::{Amount, Code, MerchantId, PartitionHandle, ShardId, TenantId};

use crate::process::{Data, Engine, ctl, send, surety, surety_with};

const PATIENCE: Duration = Duration::from_secs(60);
const PARTITION: PartitionHandle = PartitionHandle::new(ShardId(0), 1);
const SIGNER: [u8; 32] = [5; 32];

#[test]
fn a_certified_lock_has_its_file_also_after_a_kill() {
    let data = Data::init(1);
    let engine = Engine::start(&data, "os");
    ctl(&data, &["partition", "create", "0:1", "--asset", "1"]);
    ctl(&data, &["tenant", "set", "1", "--locks-max", "100"]);
    ctl(&data, &["grant", "0:1", "1", "authorize,read"]);
    let payee = Address::repeat_byte(0xbb).to_string().to_lowercase();
    ctl(&data, &["merchant", "4", "--tenant", "1", "--payee", &payee, "--release-key", &payee]);
    let supplier = ["--supplier", "0x00000000000000000000000000000000000000aa", "--nonce", "1"];
    ctl(&data, &[&["deposit", "0:1", "1000"], supplier.as_slice()].concat());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let lock = runtime.block_on(async {
        let identity = Identity::from_file(data.file("pki").join("authorizer.pem")).unwrap();
        let address: SocketAddr = engine.listen().parse().unwrap();
        let shop =
            Client::connect_with(QuicOptions::new(address, identity), surety_client::Options::default());
        let shop = shop.await.unwrap();
        let lock =
            LockRequest { is_certified: true, ..LockRequest::new(PARTITION, Amount(300), MerchantId(4)) };
        let reply = shop.send(lock).await.unwrap();
        assert_eq!(reply.code(), Code::Approved);
        LockId { tenant: TenantId(1), partition: PARTITION, id: reply.id }
    });

    let place = data.file("settlement.json");
    let manager = Address::repeat_byte(3).to_string();
    let contract = json!({
        "chain_id": 31337, "manager": manager, "code_hash": B256::repeat_byte(4).to_string(), "since_block": 0,
    });
    std::fs::write(&place, contract.to_string()).unwrap();
    let certify =
        ["settle", "certify", "--contract", place.to_str().unwrap(), "--data", data.path(), "--dir"];
    let (dir, out) = (data.file("certifier"), data.file("out"));
    let certify = [&certify[..], &[dir.to_str().unwrap(), "--out", out.to_str().unwrap()]].concat();
    surety(&certify).fails(2, "SURETY_SIGNER_KEY");
    let name = B256::from(lock.word()).to_string();
    let mut service = Service::start(&certify);
    let first = service.certificate(&name);
    service.child.kill().unwrap();
    service.child.wait().unwrap();
    let mut service = Service::start(&certify);
    assert_eq!(service.certificate(&name), first, "signed again, the same");
    let key = text(SIGNER);
    let second = [&certify[..], &["--listen", "127.0.0.1:0"]].concat();
    surety_with(&second, &[("SURETY_SIGNER_KEY", &key)]).exits(5);
    send(&service.child, Signal::TERM);
    assert_eq!(service.child.wait().unwrap().code(), Some(0));

    let file = out.join(format!("{name}.json"));
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(written, first);
    let signer = LocalKey::from_bytes(&SIGNER).unwrap().address().to_string();
    let verify = ["cert", "verify", file.to_str().unwrap(), "--signer", &signer, "--json"];
    let verified = surety(&verify).exits(0).json();
    assert_eq!((verified["amount"].as_str(), verified["ok"].as_bool()), (Some("300"), Some(true)));
    assert_eq!(verified["payee"].as_str().unwrap().to_lowercase(), payee);
    assert_eq!(engine.terminate(Signal::TERM), 0);
}

struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_surety"))
            .args(arguments)
            .args(["--listen", "127.0.0.1:0"])
            .env("SURETY_SIGNER_KEY", text(SIGNER))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["certifying"], true, "{line}");
        Self { child, address: ready["listen"].as_str().unwrap().parse().unwrap() }
    }

    fn certificate(&self, name: &str) -> Value {
        certificate(self.address, name)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks a service for a certificate until it is there.
pub(crate) fn certificate(service: SocketAddr, name: &str) -> Value {
    let begun = Instant::now();
    loop {
        let mut stream = TcpStream::connect(service).unwrap();
        write!(stream, "GET /certificate/{name} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if head.starts_with("HTTP/1.1 200") {
            return serde_json::from_str(body).unwrap();
        }
        assert!(begun.elapsed() < PATIENCE, "{head}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn text(secret: [u8; 32]) -> String {
    B256::from(secret).to_string()
}
