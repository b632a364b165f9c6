//! A place in an object store that speaks S3: each file is an object, made whole or not at all, and never over another.
//!
//! What is asked of the store goes by [`Patience`]: every answer has a time, every question a number of tries. The store's settings are the
//! variables that every tool for S3 reads (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL` and so on). No secret is ever shown.

mod http;
mod settings;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, Error, GetOptions, MultipartId, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, RetryConfig,
};
use tokio::runtime::Runtime;

pub use self::http::CaError;
use self::http::{Connector, IsObject};
use self::settings::{Settings, is_bucket};
use crate::copy::Hashed;
use crate::{Depot, DepotError};

/// Bytes that are sent at a time. One piece is in memory; S3 takes ten thousand of them for one object.
const PIECE_BYTES: usize = 16 << 20;
/// Names that are listed at most: a store that goes on for ever is none of ours.
const NAMES_MAX: usize = 1 << 22;
/// Pages without a name that are taken one after the other. A store may skip what was removed; one that never ends is none of ours.
const EMPTY_PAGES_MAX: usize = 1_000;
/// Characters of what a store says that are passed on.
const REASON_MAX: usize = 400;
/// Stands in the crate's errors between what was asked and what came of it.
const DASH: &str = " - ";
/// The scheme of such places.
const SCHEME: &str = "s3://";

/// Says who has written an object. Of two backups of one engine the first file has the same bytes.
const WRITER: Attribute = Attribute::Metadata(Cow::Borrowed("surety-writer"));

/// How long an object store may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For an answer, with the sending of a piece; and between two parts of what is read, or of the answer to the end of an upload, which has
    /// ten times as long in all.
    pub answer: Duration,
    /// How often a question is repeated, of a store that has answered before; of another no more often than by default.
    pub repeats: usize,
    /// The wait before the first repeat; it grows to twice as long at most with each.
    pub pause: Duration,
    /// The longest wait.
    pub pause_max: Duration,
}

impl Patience {
    /// For a copy of hours that cannot be gone on with: a store that is started anew, or whose address moves to another machine, is waited
    /// for. That takes half a minute to two minutes if it answers or refuses at once.
    #[must_use]
    pub fn of_a_copy() -> Self {
        Self {
            repeats: 12,
            pause: Duration::from_secs(2),
            pause_max: Duration::from_secs(10),
            ..Self::default()
        }
    }

    /// The wait at least where a store is at work on the same thing: to put an object together takes it seconds rather than milliseconds.
    fn settling(self) -> Duration {
        self.pause_max / 10
    }

    /// With one that has never answered: rather than away it is not there, or is called otherwise.
    fn at_first(self) -> Self {
        let usual = Self::default();
        Self {
            repeats: self.repeats.min(usual.repeats),
            pause: self.pause.min(usual.pause),
            pause_max: self.pause_max.min(usual.pause_max),
            ..self
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(60),
            repeats: 4,
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(10),
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
    #[error("AWS_ENDPOINT_URL is at {0}: without TLS a store is taken on this machine alone; give https://")]
    Plain(String),
    /// The authorities of the store's certificate.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The system grants no thread, or no random number.
    #[error("the system does not give what an object store needs: {0}")]
    System(#[from] io::Error),
}

/// When an object came to be there.
enum Made {
    /// By the request that was answered.
    Now,
    /// By an earlier one, whose answer was lost.
    Before,
}

/// A number that nobody else has drawn.
fn draw() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// A prefix in a bucket.
pub struct ObjectDepot {
    place: String,
    prefix: Path,
    /// For what may be asked twice.
    store: AmazonS3,
    /// The same with less patience: for one that has not answered yet, and for what is of no great use.
    hasty: AmazonS3,
    has_answered: AtomicBool,
    /// For an object that must not be there yet: a repeat is ours to judge.
    once: AmazonS3,
    patience: Patience,
    /// False if the machine is asked who is asking.
    has_keys: bool,
    /// Drawn for this place in this process; each object says by whom it was written.
    writer: String,
    /// The store was seen to keep what is there.
    keeps: AtomicBool,
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
        if !is_bucket(bucket) || prefix.as_ref().is_empty() {
            return Err(name());
        }
        let settings = Settings::read(place, variables)?;
        let connector =
            Connector::new(settings.ca_bundle.as_deref(), settings.token_file.as_deref(), patience)?;
        let build = |patience| {
            let store = settings.store(bucket, &retries(patience), &connector);
            store.map_err(|error| setting(place, &error))
        };
        Ok(Self {
            place: format!("{SCHEME}{bucket}/{prefix}"),
            prefix,
            store: build(patience)?,
            hasty: build(patience.at_first())?,
            has_answered: AtomicBool::new(false),
            once: build(Patience { repeats: 0, ..patience })?,
            patience,
            has_keys: settings.has_keys(),
            writer: draw()?,
            keeps: AtomicBool::new(false),
            runtime: Arc::new(Background::start()?),
        })
    }

    /// The store, with the patience that it deserves.
    fn store(&self) -> &AmazonS3 {
        if self.has_answered.load(Ordering::Relaxed) { &self.store } else { &self.hasty }
    }

    fn patience(&self) -> Patience {
        if self.has_answered.load(Ordering::Relaxed) { self.patience } else { self.patience.at_first() }
    }

    /// Waits for an answer, and notes that there was one.
    fn wait<T>(&self, asked: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
        let answer = self.runtime.wait(asked);
        if !matches!(answer, Err(Error::Generic { .. })) {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        answer
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), Path::join)
    }

    /// Keeps what fits into memory by one request.
    fn put_small(&self, name: &str, bytes: Vec<u8>) -> Result<(), DepotError> {
        let path = self.path(name);
        let bytes = Bytes::from(bytes);
        let options =
            PutOptions { mode: PutMode::Create, attributes: self.signed(), ..PutOptions::default() };
        let put = || self.once.put_opts(&path, bytes.clone().into(), options.clone());
        self.complete(name, blake3::hash(&bytes), || self.wait(put()).map(drop)).map(drop)
    }

    /// Keeps what does not fit, piece by piece. It is there when the last request says so.
    fn put_large(&self, name: &str, first: Vec<u8>, from: &mut dyn Read) -> Result<(), DepotError> {
        let path = self.path(name);
        let options = PutMultipartOptions { attributes: self.signed(), ..PutMultipartOptions::default() };
        let upload = self.wait(self.store().create_multipart_opts(&path, options));
        let upload = upload.map_err(|error| self.error("writing", name, &error))?;
        let complete = |parts: &[PartId]| self.once.complete_multipart(&path, &upload, parts.to_vec());
        let completed = self
            .send_pieces(name, &upload, first, from)
            .and_then(|(parts, hash)| self.complete(name, hash, || self.wait(complete(&parts)).map(drop)));
        if !matches!(completed, Ok(Made::Now)) {
            // What was sent takes room there; a store that does not answer keeps it until its own rules remove it.
            let _ = self.wait(self.hasty.abort_multipart(&path, &upload));
        }
        completed.map(drop)
    }

    /// Says who has written an object.
    fn signed(&self) -> Attributes {
        Attributes::from_iter([(WRITER, self.writer.clone())])
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
            let sent = self.store().put_part(&path, upload, parts.len(), Bytes::from(piece).into());
            parts.push(self.wait(sent).map_err(|error| self.error("writing", name, &error))?);
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
    ) -> Result<Made, DepotError> {
        let patience = self.patience();
        let mut pause = patience.pause;
        for tried in 0..=patience.repeats {
            let error = match request() {
                Ok(()) => return self.read_back(name, hash).map(|()| Made::Now),
                Err(error) => error,
            };
            // After the end of an upload there is none.
            let is_answered_late = tried > 0 && (is_taken(&error) || matches!(error, Error::NotFound { .. }));
            if is_answered_late && self.is_ours(name, hash)? {
                return Ok(Made::Before);
            }
            let is_worth_it = may_pass(&error) && tried < patience.repeats;
            if !is_answered_late && !is_worth_it {
                return Err(self.error("writing", name, &error));
            }
            if is_answered_late || is_conflict(&error) {
                pause = pause.max(patience.settling());
            }
            thread::sleep(pause);
            pause = (pause * 2).min(patience.pause_max);
        }
        let source = io::Error::other("the store neither has it nor takes it; try again");
        Err(self.io_error("writing", name, source))
    }

    /// Holds what the store gives against what it was given.
    fn read_back(&self, name: &str, hash: blake3::Hash) -> Result<(), DepotError> {
        let differs = || DepotError::Differs { place: self.place(), name: name.to_owned() };
        if self.hash_of(name)? == hash { Ok(()) } else { Err(differs()) }
    }

    /// True if an object that has the name already is the very one that was to be kept, from here; false if there is none.
    fn is_ours(&self, name: &str, hash: blake3::Hash) -> Result<bool, DepotError> {
        let (writer, from) = match self.look(name) {
            Err(DepotError::Missing { .. }) => return Ok(false),
            found => found?,
        };
        let there = self.hash_from(name, from)?;
        if there == hash && writer.as_deref() == Some(self.writer.as_str()) {
            return Ok(true);
        }
        Err(DepotError::Exists { place: self.place(), name: name.to_owned() })
    }

    /// Tries to write over a file until the store says that it is there. That another request for it is under way says nothing of that.
    fn check_refuses(
        &self,
        name: &str,
        mut try_over: impl FnMut() -> object_store::Result<()>,
    ) -> Result<(), DepotError> {
        let patience = self.patience();
        let mut pause = patience.pause;
        for tried in 0.. {
            match try_over() {
                Ok(()) => return Err(DepotError::Overwrites { place: self.place() }),
                Err(error) if is_taken(&error) => break,
                Err(error) if is_conflict(&error) && tried < patience.repeats => {}
                Err(error) => return Err(self.error("writing", name, &error)),
            }
            pause = pause.max(patience.settling());
            thread::sleep(pause);
            pause = (pause * 2).min(patience.pause_max);
        }
        Ok(())
    }

    /// Tries by one request to write over a file.
    fn try_over(&self, name: &str, contents: &[u8]) -> object_store::Result<()> {
        let (path, contents) = (self.path(name), Bytes::copy_from_slice(contents).into());
        let put = self.store().put_opts(&path, contents, PutMode::Create.into());
        self.wait(put).map(drop)
    }

    /// The same by the end of an upload in pieces.
    fn try_over_in_pieces(&self, name: &str, contents: &[u8]) -> object_store::Result<()> {
        let path = self.path(name);
        let store = self.store();
        self.wait(async {
            let upload = store.create_multipart(&path).await?;
            let tried = async {
                let piece = Bytes::copy_from_slice(contents).into();
                let part = store.put_part(&path, &upload, 0, piece).await?;
                store.complete_multipart(&path, &upload, vec![part]).await
            };
            let tried = tried.await;
            if tried.is_err() {
                let _ = store.abort_multipart(&path, &upload).await;
            }
            tried.map(drop)
        })
    }

    fn hash_of(&self, name: &str) -> Result<blake3::Hash, DepotError> {
        let (_, from) = self.look(name)?;
        self.hash_from(name, from)
    }

    fn hash_from(&self, name: &str, from: Object) -> Result<blake3::Hash, DepotError> {
        let mut there = Hashed::new(from);
        io::copy(&mut there, &mut io::sink())
            .map_err(|source| self.io_error("reading back", name, source))?;
        Ok(there.finish().1)
    }

    /// An object, and who has written it.
    fn look(&self, name: &str) -> Result<(Option<String>, Object), DepotError> {
        let mut options = GetOptions::default();
        options.extensions.insert(IsObject);
        let got = self.wait(self.store().get_opts(&self.path(name), options));
        let got = got.map_err(|error| self.error("reading", name, &error))?;
        let writer = got.attributes.get(&WRITER).map(|writer| writer.as_ref().to_owned());
        let left = got.meta.size;
        let runtime = Arc::clone(&self.runtime);
        Ok((writer, Object { runtime, stream: got.into_stream(), piece: Bytes::new(), left }))
    }

    /// Shows the name of each file below a directory, or of all, a page of the store's list in memory at a time.
    fn look_through(
        &self,
        directory: Option<&str>,
        found: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), DepotError> {
        let endless = |what: String| Err(self.io_error("listing", "", io::Error::other(what)));
        let below = format!("{}/", self.prefix.as_ref());
        let asked = directory.map_or_else(|| below.clone(), |directory| format!("{below}{directory}/"));
        let (mut names, mut empty_pages, mut page_token) = (0, 0, None);
        loop {
            let options = PaginatedListOptions { page_token, ..PaginatedListOptions::default() };
            let page = self.wait(self.store().list_paginated(Some(&asked), options));
            let page = page.map_err(|error| self.error("listing", "", &error))?;
            let objects = page.result.objects;
            names += objects.len();
            empty_pages = if objects.is_empty() { empty_pages + 1 } else { 0 };
            if names > NAMES_MAX {
                return endless(format!("there are more than {NAMES_MAX} objects"));
            }
            if empty_pages > EMPTY_PAGES_MAX {
                return endless(format!("more than {EMPTY_PAGES_MAX} pages of its list have no name"));
            }
            let here = objects.iter().filter_map(|meta| meta.location.as_ref().strip_prefix(&below));
            if here.into_iter().try_for_each(&mut *found).is_break() {
                return Ok(());
            }
            page_token = page.page_token.filter(|token| !token.is_empty());
            if page_token.is_none() {
                return Ok(());
            }
        }
    }

    fn list(&self, directory: Option<&str>) -> Result<Vec<String>, DepotError> {
        let mut names = Vec::new();
        self.look_through(directory, &mut |name| {
            names.push(name.to_owned());
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    fn error(&self, doing: &'static str, name: &str, error: &Error) -> DepotError {
        let (place, name, mut reason) = (self.place(), name.to_owned(), reason(error));
        match error {
            _ if reason.starts_with("NoSuchBucket") => DepotError::NoBucket { place },
            Error::NotFound { .. } if doing == "reading" => DepotError::Missing { place, name },
            error if is_taken(error) => DepotError::Exists { place, name },
            error if is_denied(error) => DepotError::Denied { doing, place, name, reason },
            _ => {
                if !self.has_keys {
                    reason.push_str("; AWS_ACCESS_KEY_ID is not set, so this machine was asked who it is");
                }
                DepotError::Io { doing, place, name, source: io::Error::new(http::kind(error), reason) }
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
        Ok(Box::new(self.look(name)?.1))
    }

    fn names(&self) -> Result<Vec<String>, DepotError> {
        self.list(None)
    }

    fn names_in(&self, directory: &str) -> Result<Vec<String>, DepotError> {
        self.list(Some(directory))
    }

    fn has_any(&self, is_meant: &dyn Fn(&str) -> bool) -> Result<bool, DepotError> {
        let mut is_there = false;
        self.look_through(None, &mut |name| {
            is_there = is_meant(name);
            if is_there { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(is_there)
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    fn check_keeps(&self, name: &str, contents: &[u8]) -> Result<(), DepotError> {
        if self.keeps.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.check_refuses(name, || self.try_over(name, contents))?;
        self.check_refuses(name, || self.try_over_in_pieces(name, contents))?;
        self.keeps.store(true, Ordering::Relaxed);
        Ok(())
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

fn setting(place: &str, error: &Error) -> OpenObjectError {
    OpenObjectError::Setting { place: place.to_owned(), reason: reason(error) }
}

fn retries(patience: Patience) -> RetryConfig {
    let pause = patience.pause.max(Duration::from_millis(1));
    let backoff =
        // The crate draws from a span, which must not be empty.
        BackoffConfig { init_backoff: pause, max_backoff: patience.pause_max.max(pause), base: 2.0 };
    // The count alone ends it: each try has its own time.
    RetryConfig { backoff, max_retries: patience.repeats, retry_timeout: Duration::MAX }
}

/// As much as is sent at a time; less only at the end.
fn read_piece(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut piece = Vec::new();
    from.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

/// True if the name has an object, whatever becomes of the request.
fn is_taken(error: &Error) -> bool {
    match error {
        Error::Precondition { .. } => true,
        Error::AlreadyExists { .. } => !is_conflict(error),
        _ => false,
    }
}

/// True if another request for the name was under way: whether there is an object then is not said. The crate has one error for
/// both; that of a name that is taken is made of one of its own.
fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::AlreadyExists { source, .. } if !source.is::<Error>())
}

/// True if the same request may be answered otherwise.
fn may_pass(error: &Error) -> bool {
    matches!(error, Error::Generic { .. }) && !is_denied(error) || is_conflict(error)
}

/// True if the store does not let the caller do it.
fn is_denied(error: &Error) -> bool {
    matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) || http::is_refused(error)
}

/// What went wrong, without what an answer repeats of the request: code and message if the store said them. One line, and no long one.
fn reason(error: &Error) -> String {
    let text = error.to_string();
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    match (element("Code"), element("Message")) {
        (Some(code), message) => cut(&format!("{code}: {}", message.unwrap_or_default()), REASON_MAX),
        (None, _) => asked_and_said(&text),
    }
}

/// A text of the crate: what was asked, with an address of any length, and behind a dash what went wrong, of any length, too.
fn asked_and_said(text: &str) -> String {
    match text.split_once(DASH) {
        Some((asked, said)) if text.len() > REASON_MAX => {
            let asked = cut(asked, REASON_MAX / 3);
            let said = cut(said, REASON_MAX - REASON_MAX / 3 - DASH.len());
            format!("{asked}{DASH}{said}")
        }
        _ => cut(text, REASON_MAX),
    }
}

/// So many characters of a text at most, on one line.
fn cut(text: &str, max: usize) -> String {
    let line = |character: char| if character.is_control() { ' ' } else { character };
    text.chars().map(line).take(max).collect()
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
        for bad in [
            "s3://",
            "s3://bucket",
            "s3://bucket/",
            "s3:///prefix",
            "s3://bucket/a//b",
            "bucket/a",
            "s3://who@bucket/a",
            "s3://buck?t/a",
            // A host's name has no such part.
            "s3://xn--/a",
        ] {
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
            ("HTTP://minio.example", false),
            ("http://169.254.1.1", false),
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
    fn a_variable_that_makes_no_sense_is_named_and_not_shown() {
        for (name, value) in [
            ("AWS_SESSION_TOKEN", "CANARY\n"),
            ("AWS_ACCESS_KEY_ID", "CANARY\u{fc}"),
            ("AWS_REGION", "CANARY.example/x"),
            ("AWS_ENDPOINT_URL", "CANARY:9000"),
            ("AWS_ENDPOINT_URL", "CANARY"),
            ("AWS_ENDPOINT_URL", "https://"),
            ("AWS_ENDPOINT_URL", "https://1.2.3.CANARY.999"),
            ("AWS_ENDPOINT_URL", "ftp://CANARY"),
            ("AWS_ENDPOINT_URL", "https://user:CANARY@store.example"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1@CANARY"),
            ("AWS_ENDPOINT_URL", "https://store.example/?CANARY"),
            ("AWS_ENDPOINT_URL", "https://{CANARY}"),
            ("AWS_METADATA_ENDPOINT", "CANARY"),
            ("AWS_METADATA_ENDPOINT", "http://CANARY address"),
            ("AWS_METADATA_ENDPOINT", "http://169.254.169.254:CANARY"),
            ("AWS_ENDPOINT_URL_STS", "sts.CANARY.example"),
            ("AWS_ENDPOINT_URL_STS", "https://${CANARY}"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "169.254.170.23/CANARY"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://user:CANARY@169.254.170.23/"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "v2/CANARY"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/CANARY a"),
        ] {
            let refused = open("s3://b/p", &[(name, value)]).unwrap_err();
            let text = format!("{refused} {refused:?}");
            assert!(matches!(refused, OpenObjectError::Setting { .. }), "{value}: {text}");
            assert!(text.contains(name) && !text.contains("CANARY"), "{text}");
        }
    }

    #[test]
    fn a_reason_is_one_line_and_no_long_one() {
        let said = |text: String| reason(&Error::Generic { store: "S3", source: text.into() });
        let long = said("x\n".repeat(1_000));
        assert!(long.chars().count() == REASON_MAX && !long.contains('\n'), "{long}");
        let body =
            "<Error><Code>Slow</Code><Message>down</Message><StringToSign>CANARY</StringToSign></Error>";
        assert_eq!(said(body.to_owned()), "Slow: down");
        for (address, page) in
            [("https://a", "b"), (&*"x".repeat(1_200), "b"), (&*"x".repeat(1_200), &*"b".repeat(9_000))]
        {
            let text =
                said(format!("Error performing GET {address} in 1s - HTTP error: 502 Bad Gateway: {page}"));
            assert!(text.chars().count() <= REASON_MAX, "{text}");
            assert!(
                text.contains("performing GET") && text.contains(" - HTTP error: 502 Bad Gateway: b"),
                "{text}"
            );
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
