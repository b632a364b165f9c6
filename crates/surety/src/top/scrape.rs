//! One question to an admin listener.

use std::net::SocketAddr;
use std::time::Duration;

use console::reading::Reading;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::exit::{Exit, Failure};

/// Within this the listener has answered.
const WITHIN: Duration = Duration::from_secs(5);
/// Far more than an engine of all shards that there can be tells.
const BYTES_MAX: u64 = 16 << 20;

/// Reads the numbers.
///
/// # Errors
/// Nobody answers there, or not with the numbers of an engine.
pub(super) async fn scrape(address: SocketAddr) -> Result<Reading, Failure> {
    let unreachable = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Unreachable, format!("the admin listener at {address} does not answer: {why}"))
    };
    let text = match timeout(WITHIN, ask(address)).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(unreachable(&error)),
        Err(_) => return Err(unreachable(&"it takes too long")),
    };
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let is_done = head.split(' ').nth(1) == Some("200");
    let reading = Reading::parse(body);
    if is_done && !reading.shards.is_empty() {
        return Ok(reading);
    }
    Err(Failure::new(Exit::Unreachable, format!("what answers at {address} is no engine's admin listener")))
}

async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the answer ends with the connection.
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    stream.take(BYTES_MAX).read_to_string(&mut text).await?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answered(answer: &'static str) -> Result<Reading, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        scrape(address).await
    }

    #[tokio::test]
    async fn only_an_engine_is_read() {
        let engine = "HTTP/1.0 200 OK\r\n\r\nsurety_ready 1\nsurety_in_flight{shard=\"0\"} 3\n";
        assert_eq!(answered(engine).await.unwrap().sum("in_flight"), 3);
        for wrong in [
            "HTTP/1.0 404 Not Found\r\n\r\nsurety_in_flight{shard=\"0\"} 3\n",
            "HTTP/1.0 200 OK\r\n\r\nother_metric 1\n",
            "SSH-2.0-x\r\n",
            "",
        ] {
            assert_eq!(answered(wrong).await.unwrap_err().exit(), Exit::Unreachable, "{wrong:?}");
        }
    }
}
