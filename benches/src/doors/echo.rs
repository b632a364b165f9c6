//! The floors: what a server does that reads a request and writes as many bytes back, with the runtime of the front doors.

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::routing::post;
use axum::serve::ListenerExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Echoes every byte over TCP until the process ends. Prints a line with its address first.
///
/// # Errors
/// If there is no port.
pub fn tcp_echo() -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let listener = listen().await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(give_back(stream));
        }
    })
}

async fn give_back(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..count]).await?;
    }
}

/// Takes requests for locks over HTTP and answers each with `reply`, until the process ends. Prints a line with its address first.
///
/// # Errors
/// If there is no port.
pub fn axum_echo(reply: String) -> anyhow::Result<()> {
    let reply = Bytes::from(reply);
    let lock = move |_: Bytes| {
        let reply = reply.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], reply) }
    };
    let router = Router::new().route("/v1/locks", post(lock));
    runtime()?.block_on(async {
        let listener = listen().await?.tap_io(|stream| {
            // As a front door does: replies are small, and somebody waits for each.
            let _ = stream.set_nodelay(true);
        });
        Ok(axum::serve(listener, router).await?)
    })
}

async fn listen() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", json!({"listen": listener.local_addr()?.to_string()}));
    Ok(listener)
}

/// Like that of `surety gateway run`.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}
