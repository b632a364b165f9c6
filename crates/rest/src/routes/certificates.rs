//! `/v1/locks/{id}/certificate`: what the service that signs certificates hands out.

use std::net::SocketAddr;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query};
use axum::http::StatusCode;
use serde_json::Value;
use surety_client::protocol::{Code, Id, PartitionHandle, TenantId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::locks::look_up;
use super::{Answer, json, lock_id, named, query};
use crate::guard::Visit;
use crate::problem::Problem;
use crate::shapes::InPartition;

/// More than any certificate has.
const CERTIFICATE_BYTES_MAX: u64 = 64 * 1024;

/// Shows a lock's newest certificate, which can be enforced on chain.
///
/// It takes a moment from a certified lock to its certificate; ask again.
#[utoipa::path(
    get, path = "/v1/locks/{id}/certificate", tag = "locks", operation_id = "showCertificate",
    params(("id" = String, Path, pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$", description = "The lock."), InPartition),
    responses(
        (status = 200, description = "The certificate, as `surety cert verify` reads it.", body = Object),
        (status = "4XX", description = "The lock has none.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "No certificates are handed out here now.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    Extension(visit): Extension<Visit>,
    Path(id): Path<String>,
    parameters: Result<Query<InPartition>, QueryRejection>,
) -> Answer {
    let id = lock_id(&id)?;
    let named = named(query(parameters)?.partition.as_deref())?;
    let (partition, _) = visit.desk.find(id, named).await?;
    // The engine says whose lock it is: the service itself would tell anybody.
    if look_up(&visit, id, partition).await?.code() == Code::NotFound {
        return Err(Problem::of_code(Code::UnknownLock));
    }
    let Some(service) = visit.shared.certificates else {
        let detail = "No service of certificates is set up at this front door.";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "NO_CERTIFICATES", detail));
    };
    let tenant = visit.desk.client().tenant();
    let fetched = timeout_at(visit.deadline, fetch(service, tenant, partition, id)).await;
    let found = fetched.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(|error| {
        tracing::warn!(%error, "the service of certificates cannot be asked");
        Problem::unavailable("The service of certificates cannot be asked now.")
    })?;
    let none = "The lock has no certificate: it did not ask for one, or it is not signed yet.";
    json(&found.ok_or_else(|| Problem::not_found("NO_CERTIFICATE", none))?)
}

/// Asks the service. None if it has no certificate of this lock.
async fn fetch(
    service: SocketAddr,
    tenant: TenantId,
    partition: PartitionHandle,
    lock: Id,
) -> std::io::Result<Option<Value>> {
    // The lock's name on chain: tenant, partition and id, side by side.
    let name = format!("0x{:016x}{:016x}{:032x}", tenant.0, partition.0, lock.0);
    let mut stream = TcpStream::connect(service).await?;
    stream
        .write_all(format!("GET /certificate/{name} HTTP/1.1\r\nhost: {service}\r\n\r\n").as_bytes())
        .await?;
    let mut reply = Vec::new();
    stream.take(CERTIFICATE_BYTES_MAX).read_to_end(&mut reply).await?;
    read(&reply).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// The service closes behind each reply, so that all behind its head is the certificate.
fn read(reply: &[u8]) -> Option<Option<Value>> {
    let reply = std::str::from_utf8(reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    match head.split(' ').nth(1)? {
        "200" => serde_json::from_str(body).ok().map(Some),
        "404" => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_a_certificate_none_or_nonsense() {
        let certificate = read(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}\n");
        assert_eq!(certificate, Some(Some(serde_json::json!({}))));
        assert_eq!(read(b"HTTP/1.1 404 Not Found\r\n\r\n"), Some(None));
        for nonsense in [&b"HTTP/1.1 500 Oh\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\n\r\n{", b"", b"\xff"] {
            assert_eq!(read(nonsense), None);
        }
    }
}
