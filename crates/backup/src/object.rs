//! A place in an object store that speaks S3: each file is an object, made whole or not at all, and never over another.
//!
//! What is asked of the store goes by [`Patience`]: every answer has a time, every question a number of tries. The store's settings are the
//! variables that every tool for S3 reads (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL` and so on). No secret is ever shown.

mod http;

use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, MultipartId, ObjectStore, ObjectStoreExt, PutMode, RetryConfig,
};
use tokio::runtime::Runtime;

pub use self::http::CaError;
use self::http::Connector;
use crate::copy::Hashed;
use crate::{Depot, DepotError};

/// Bytes that are sent at a time. One piece is in memory; S3 takes ten thousand of them for one object.
const PIECE_BYTES: usize = 16 << 20;
/// The scheme of such places.
const SCHEME: &str = "s3://";

/// How long an object store may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For an answer, with the sending of a piece; and between two parts of what is read.
    pub answer: Duration,
    /// How often a question is repeated.
    pub repeats: usize,
    /// The wait before the first repeat; it doubles with each, up to a hundred times as long.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(60),
            repeats: 4,
            pause: Duration::from_millis(100),
        }
    }
}

/// Why a place cannot be used at all. Nothing was asked of it yet.
#[derive(Debug, thiserror::Error)]
pub enum OpenObjectError {
    /// It has no bucket, or is not written as it should be.
    #[error("{0} is no place in an object store; write s3://BUCKET/PREFIX")]
    Name(String),
    /// A variable makes no sense.
    #[error("{place}: {reason}; see to the variables AWS_... that say how the store is reached")]
    Setting {
        /// The place.
        place: String,
        /// Which, and why.
        reason: String,
    },
    /// Payments, and the key that signs tokens, would go over the network for everybody to read.
    #[error("AWS_ENDPOINT_URL is {0}: without TLS a store is taken on this machine alone; give https://")]
    Plain(String),
    /// The authorities of the store's certificate.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The system grants no thread.
    #[error("cannot start a thread for the object store: {0}")]
    Thread(#[from] io::Error),
}

/// A prefix in a bucket.
pub struct ObjectDepot {
    place: String,
    prefix: Path,
    /// For what may be asked twice.
    store: AmazonS3,
    /// For an object that must not be there yet: a repeat is ours to judge.
    once: AmazonS3,
    patience: Patience,
    runtime: Arc<Background>,
}

impl fmt::Debug for ObjectDepot {
    /// The place alone: what else there is holds keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectDepot").field(&self.place).finish()
    }
}

impl ObjectDepot {
    /// True if a place is one of these.
    #[must_use]
    pub fn is_named(place: &str) -> bool {
        place.starts_with(SCHEME)
    }

    /// A place, `s3://BUCKET/PREFIX`, of the store that these variables describe. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`OpenObjectError`].
    pub fn open(
        place: &str,
        variables: impl IntoIterator<Item = (String, String)>,
        patience: Patience,
    ) -> Result<Self, OpenObjectError> {
        let name = || OpenObjectError::Name(place.to_owned());
        let rest = place.strip_prefix(SCHEME).ok_or_else(name)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = Path::parse(prefix).map_err(|_| name())?;
        if bucket.is_empty() || prefix.as_ref().is_empty() {
            return Err(name());
        }
        let settings = Settings::read(place, variables)?;
        check_endpoint(&settings)?;
        let connector = Connector::new(settings.ca_bundle.as_deref(), patience)?;
        let build = |repeats| {
            let builder = settings.builder.clone().with_bucket_name(bucket);
            let builder =
                builder.with_retry(retries(patience, repeats)).with_http_connector(connector.clone());
            builder.build().map_err(|error| setting(place, &error))
        };
        Ok(Self {
            place: format!("{SCHEME}{bucket}/{prefix}"),
            prefix,
            store: build(patience.repeats)?,
            once: build(0)?,
            patience,
            runtime: Arc::new(Background::start()?),
        })
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), Path::join)
    }

    /// Keeps what fits into memory by one request.
    fn put_small(&self, name: &str, bytes: Vec<u8>) -> Result<(), DepotError> {
        let path = self.path(name);
        let bytes = Bytes::from(bytes);
        let put = || self.once.put_opts(&path, bytes.clone().into(), PutMode::Create.into());
        self.complete(name, blake3::hash(&bytes), || self.runtime.wait(put()).map(drop))
    }

    /// Keeps what does not fit, piece by piece. It is there when the last request says so.
    fn put_large(&self, name: &str, first: Vec<u8>, from: &mut dyn Read) -> Result<(), DepotError> {
        let path = self.path(name);
        let upload = self.runtime.wait(self.store.create_multipart(&path));
        let upload = upload.map_err(|error| self.error("writing", name, &error))?;
        let complete = |parts: &[PartId]| self.once.complete_multipart(&path, &upload, parts.to_vec());
        let completed = self.send_pieces(name, &upload, first, from).and_then(|(parts, hash)| {
            self.complete(name, hash, || self.runtime.wait(complete(&parts)).map(drop))
        });
        if completed.is_err() {
            // What was sent takes room there; a store that does not answer keeps it until its own rules remove it.
            let _ = self.runtime.wait(self.store.abort_multipart(&path, &upload));
        }
        completed
    }

    fn send_pieces(
        &self,
        name: &str,
        upload: &MultipartId,
        first: Vec<u8>,
        from: &mut dyn Read,
    ) -> Result<(Vec<PartId>, blake3::Hash), DepotError> {
        let path = self.path(name);
        let (mut parts, mut hasher, mut piece) = (Vec::new(), blake3::Hasher::new(), first);
        while !piece.is_empty() {
            hasher.update(&piece);
            let sent = self.store.put_part(&path, upload, parts.len(), Bytes::from(piece).into());
            parts.push(self.runtime.wait(sent).map_err(|error| self.error("writing", name, &error))?);
            piece = read_piece(from).map_err(|source| self.io_error("writing", name, source))?;
        }
        Ok((parts, hasher.finalize()))
    }

    /// Sends the request that makes an object be there, until it is answered. One that had no answer may have been executed: then what
    /// stands there is looked at before another is blamed for it.
    fn complete(
        &self,
        name: &str,
        hash: blake3::Hash,
        mut request: impl FnMut() -> object_store::Result<()>,
    ) -> Result<(), DepotError> {
        let mut pause = self.patience.pause;
        for tried in 0.. {
            match request() {
                Ok(()) => return self.read_back(name, hash),
                // After the end of an upload there is none.
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotFound { .. })
                    if tried > 0 =>
                {
                    return self.check_ours(name, hash);
                }
                Err(Error::Generic { .. }) if tried < self.patience.repeats => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(self.patience.pause * 100);
                }
                Err(error) => return Err(self.error("writing", name, &error)),
            }
        }
        unreachable!("the last try returns")
    }

    /// Holds what the store gives against what it was given.
    fn read_back(&self, name: &str, hash: blake3::Hash) -> Result<(), DepotError> {
        let differs = || DepotError::Differs { place: self.place(), name: name.to_owned() };
        if self.hash_of(name)? == hash { Ok(()) } else { Err(differs()) }
    }

    /// Accepts an object that has the name already if it is the very one that was to be kept.
    fn check_ours(&self, name: &str, hash: blake3::Hash) -> Result<(), DepotError> {
        let exists = || DepotError::Exists { place: self.place(), name: name.to_owned() };
        match self.hash_of(name) {
            Ok(there) if there == hash => Ok(()),
            Ok(_) | Err(DepotError::Missing { .. }) => Err(exists()),
            Err(error) => Err(error),
        }
    }

    fn hash_of(&self, name: &str) -> Result<blake3::Hash, DepotError> {
        let mut there = Hashed::new(self.get(name)?);
        io::copy(&mut there, &mut io::sink())
            .map_err(|source| self.io_error("reading back", name, source))?;
        Ok(there.finish().1)
    }

    fn error(&self, doing: &'static str, name: &str, error: &Error) -> DepotError {
        let (place, name, reason) = (self.place(), name.to_owned(), reason(error));
        match error {
            _ if reason.starts_with("NoSuchBucket") => DepotError::NoBucket { place },
            Error::NotFound { .. } => DepotError::Missing { place, name },
            Error::AlreadyExists { .. } | Error::Precondition { .. } => DepotError::Exists { place, name },
            error if is_denied(error) => DepotError::Denied { doing, place, name, reason },
            _ => {
                let kind = if http::is_late(error) { io::ErrorKind::TimedOut } else { io::ErrorKind::Other };
                DepotError::Io { doing, place, name, source: io::Error::new(kind, reason) }
            }
        }
    }

    fn io_error(&self, doing: &'static str, name: &str, source: io::Error) -> DepotError {
        DepotError::Io { doing, place: self.place(), name: name.to_owned(), source }
    }
}

impl Depot for ObjectDepot {
    fn put(&self, name: &str, from: &mut dyn Read) -> Result<(), DepotError> {
        let first = read_piece(from).map_err(|source| self.io_error("writing", name, source))?;
        if first.len() < PIECE_BYTES {
            self.put_small(name, first)
        } else {
            self.put_large(name, first, from)
        }
    }

    fn get(&self, name: &str) -> Result<Box<dyn Read>, DepotError> {
        let got = self.runtime.wait(self.store.get(&self.path(name)));
        let got = got.map_err(|error| self.error("reading", name, &error))?;
        let left = got.meta.size;
        let runtime = Arc::clone(&self.runtime);
        Ok(Box::new(Object { runtime, stream: got.into_stream(), piece: Bytes::new(), left }))
    }

    fn names(&self) -> Result<Vec<String>, DepotError> {
        let listed = self.store.list(Some(&self.prefix)).try_collect::<Vec<_>>();
        let listed = self.runtime.wait(listed).map_err(|error| self.error("listing", "", &error))?;
        let below = format!("{}/", self.prefix);
        let names = listed.iter().filter_map(|meta| meta.location.as_ref().strip_prefix(&below));
        Ok(names.map(str::to_owned).collect())
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}

/// What an object holds, as it comes. It ends where the store said that it would, or with an error.
struct Object {
    runtime: Arc<Background>,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    piece: Bytes,
    /// Bytes that are still to come after this piece.
    left: u64,
}

impl Read for Object {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.runtime.wait(self.stream.next()) {
                None if self.left == 0 => return Ok(0),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(Err(error)) if http::is_late(&error) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, reason(&error)));
                }
                Some(Err(error)) => return Err(io::Error::other(reason(&error))),
                Some(Ok(piece)) => {
                    let left = self.left.checked_sub(piece.len() as u64);
                    self.left = left.ok_or_else(|| io::Error::other("more came than there is"))?;
                    self.piece = piece;
                }
            }
        }
        let read = buffer.len().min(self.piece.len());
        buffer[..read].copy_from_slice(&self.piece.split_to(read));
        Ok(read)
    }
}

/// The thread that talks to the store, for callers that wait.
struct Background(Option<Runtime>);

impl Background {
    fn start() -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("objects").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.as_ref().expect("it goes with the last who holds it").block_on(future)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Whoever lets go may be an async task, which must not wait.
            runtime.shutdown_background();
        }
    }
}

/// What the variables say.
struct Settings {
    builder: AmazonS3Builder,
    ca_bundle: Option<String>,
}

impl Settings {
    fn read(
        place: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, OpenObjectError> {
        // Which addresses may be asked without TLS is decided here, not by a variable.
        let options = ClientOptions::new().with_allow_http(true);
        let mut settings =
            Self { builder: AmazonS3Builder::new().with_client_options(options), ca_bundle: None };
        for (name, value) in variables.into_iter().filter(|(_, value)| !value.is_empty()) {
            if name == "AWS_CA_BUNDLE" {
                settings.ca_bundle = Some(value);
            } else if name == "AWS_BUCKET" || name == "AWS_BUCKET_NAME" {
                // The place says which.
            } else if name.starts_with("AWS_")
                && let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>()
                && !matches!(key, AmazonS3ConfigKey::Client(_) | AmazonS3ConfigKey::ConditionalPut)
            {
                settings.builder = settings.builder.with_config(key, value);
            }
        }
        let has = |key| settings.builder.get_config_value(&key).is_some();
        if has(AmazonS3ConfigKey::AccessKeyId) != has(AmazonS3ConfigKey::SecretAccessKey) {
            let reason = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together".to_owned();
            return Err(OpenObjectError::Setting { place: place.to_owned(), reason });
        }
        Ok(settings)
    }
}

fn setting(place: &str, error: &Error) -> OpenObjectError {
    OpenObjectError::Setting { place: place.to_owned(), reason: reason(error) }
}

fn check_endpoint(settings: &Settings) -> Result<(), OpenObjectError> {
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .into_iter()
        .find_map(|key| settings.builder.get_config_value(&key));
    let Some(endpoint) = endpoint else { return Ok(()) };
    let Some(rest) = endpoint.strip_prefix("http://") else { return Ok(()) };
    let authority = rest.split('/').next().unwrap_or_default();
    if is_here(authority) { Ok(()) } else { Err(OpenObjectError::Plain(format!("http://{authority}"))) }
}

/// True if `HOST` or `HOST:PORT` is this machine, and says so by itself.
fn is_here(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn retries(patience: Patience, repeats: usize) -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: patience.pause, max_backoff: patience.pause * 100, base: 2.0 };
    // The count alone ends it: each try has its own time.
    RetryConfig { backoff, max_retries: repeats, retry_timeout: Duration::MAX }
}

/// As much as is sent at a time; less only at the end.
fn read_piece(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut piece = Vec::new();
    from.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

/// True if the store does not let the caller do it. Of a list the crate says so in its text alone.
fn is_denied(error: &Error) -> bool {
    let is_said = |error: &Error| {
        let text = error.to_string();
        ["status code: 403", "status code: 401"].iter().any(|status| text.contains(status))
    };
    matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) || is_said(error)
}

/// What went wrong, without what an answer repeats of the request: code and message if the store said them.
fn reason(error: &Error) -> String {
    let text = error.to_string();
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    match (element("Code"), element("Message")) {
        (Some(code), message) => format!("{code}: {}", message.unwrap_or_default()),
        (None, _) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(place: &str, variables: &[(&str, &str)]) -> Result<ObjectDepot, OpenObjectError> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ObjectDepot::open(place, variables, Patience::default())
    }

    #[test]
    fn places_are_a_bucket_and_a_prefix() {
        for bad in ["s3://", "s3://bucket", "s3://bucket/", "s3:///prefix", "s3://bucket/a//b", "bucket/a"] {
            assert!(matches!(open(bad, &[]), Err(OpenObjectError::Name(_))), "{bad}");
        }
        assert_eq!(open("s3://bucket/a/b/", &[]).unwrap().place(), "s3://bucket/a/b");
    }

    #[test]
    fn without_tls_a_store_is_on_this_machine() {
        for (endpoint, is_taken) in [
            ("http://127.0.0.1:9000", true),
            ("http://[::1]:9000", true),
            ("http://localhost/", true),
            ("https://minio.example", true),
            ("http://minio.example:9000", false),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
            ("http://127.0.0.1@evil.example", false),
        ] {
            for name in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"] {
                // Nothing else lifts it.
                let opened = open("s3://b/p", &[(name, endpoint), ("AWS_ALLOW_HTTP", "true")]);
                assert_eq!(opened.is_ok(), is_taken, "{name} {endpoint}");
                assert!(is_taken || matches!(opened, Err(OpenObjectError::Plain(_))));
            }
        }
    }

    #[test]
    fn what_is_shown_has_no_secret() {
        let secrets = [("AWS_ACCESS_KEY_ID", "CANARYid"), ("AWS_SECRET_ACCESS_KEY", "CANARYsecret")];
        let depot = open("s3://b/p", &secrets).unwrap();
        assert!(!format!("{depot:?} {}", depot.place()).contains("CANARY"));
        let half = open("s3://b/p", &secrets[1..]).unwrap_err().to_string();
        assert!(half.contains("go together") && !half.contains("CANARY"), "{half}");
        assert!(matches!(
            open("s3://b/p", &[("AWS_CA_BUNDLE", "/nowhere.pem")]),
            Err(OpenObjectError::Ca(_))
        ));
    }
}
