//! Who looks at an engine while it is paid with: people at its console, as browsers are, and programs that ask its history.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use history::{Ask, Conditions, OfLock, Question};
use serde_json::{Value, json};
use surety_client::{Client, Identity, QueryError};

use crate::echo::on_client;
use crate::locks::CLIENT_CORE;

/// What pages keep up to date. A browser shows one of them at a time; a viewer here has all of them open.
const PAGES: [&str; 4] = ["partitions", "partitions/0:1", "tenants", "proposals"];
/// How often a page asks.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// How long whatever is waited for may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it has come.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Rows of a page of records.
const ROWS: usize = 100;

/// Somebody who has the console open: signed in by a link, its live stream running, its pages kept up to date.
#[derive(Debug)]
pub struct Viewer {
    host: String,
    badge: Badge,
    is_over: Arc<AtomicBool>,
    frames: Arc<AtomicU64>,
    stream: TcpStream,
    live: JoinHandle<()>,
    pages: JoinHandle<anyhow::Result<u64>>,
}

/// What every request of a session shows.
#[derive(Clone, Debug, Default)]
struct Badge {
    cookie: String,
    token: String,
}

impl Viewer {
    /// Signs in to the console of the engine that serves this directory, and waits until a second of it was shown.
    ///
    /// # Errors
    /// If the console does not let us in, or shows nothing.
    pub fn sign_in(surety: &Path, data: &Path) -> anyhow::Result<Self> {
        let link = Command::new(surety)
            .args(["ctl", "--json", "console-link", "--as", "reader", "--data"])
            .arg(data)
            .output()?;
        ensure!(link.status.success(), "{}", String::from_utf8_lossy(&link.stderr));
        let link: Value = serde_json::from_slice(&link.stdout)?;
        let (console, link) =
            link["url"].as_str().and_then(|url| url.split_once('#')).context("a link without a secret")?;
        let host = console.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        let host = host.with_context(|| format!("{console} is not where we can look"))?.to_owned();
        let badge = signed_in(&host, link)?;
        ask(&host, &badge, "GET overview", "")?;
        let (is_over, frames) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stream, live) = follow(&host, &badge, &frames)?;
        let pages = std::thread::spawn({
            let (host, badge, is_over) = (host.clone(), badge.clone(), Arc::clone(&is_over));
            move || keep_up(&host, &badge, &is_over)
        });
        let viewer = Self { host, badge, is_over, frames, stream, live, pages };
        let begun = Instant::now();
        while viewer.frames.load(Ordering::Relaxed) == 0 {
            ensure!(begun.elapsed() < PATIENCE, "the console's live page shows nothing");
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(viewer)
    }

    /// Signs out; seconds that were shown, and answers that pages got.
    ///
    /// # Errors
    /// If a page was refused.
    pub fn sign_out(self) -> anyhow::Result<(u64, u64)> {
        self.is_over.store(true, Ordering::Relaxed);
        self.pages.thread().unpark();
        let answers = self.pages.join().map_err(|_| anyhow::anyhow!("a page has panicked"))??;
        let frames = self.frames.load(Ordering::Relaxed);
        self.stream.shutdown(Shutdown::Both)?;
        self.live.join().map_err(|_| anyhow::anyhow!("the live page has panicked"))?;
        ask(&self.host, &self.badge, "POST session/end", "")?;
        Ok((frames, answers))
    }
}

fn signed_in(host: &str, link: &str) -> anyhow::Result<Badge> {
    let (head, body) = ask(host, &Badge::default(), "POST session", &json!({ "link": link }).to_string())?;
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    let cookie = cookie.and_then(|line| line.split(';').next()).context("a session without a cookie")?;
    let me: Value = serde_json::from_str(&body)?;
    let token = me["token"].as_str().context("a session without a token")?;
    Ok(Badge { cookie: cookie.to_owned(), token: token.to_owned() })
}

/// Opens the live stream, whose seconds are counted until it ends.
fn follow(host: &str, badge: &Badge, frames: &Arc<AtomicU64>) -> anyhow::Result<(TcpStream, JoinHandle<()>)> {
    let stream = say(host, badge, "GET live", "")?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let status = lines.next().context("the live page says nothing")??;
    ensure!(status.starts_with("HTTP/1.1 200"), "the live page is answered {status}");
    let frames = Arc::clone(frames);
    let live = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            frames.fetch_add(u64::from(line.starts_with("data:")), Ordering::Relaxed);
        }
    });
    Ok((stream, live))
}

/// Asks for what pages show, in turns, until it is over; how many answers there were.
fn keep_up(host: &str, badge: &Badge, is_over: &AtomicBool) -> anyhow::Result<u64> {
    let each = POLL_EVERY / PAGES.len() as u32;
    let (begun, mut answers) = (Instant::now(), 0);
    for page in PAGES.iter().cycle() {
        ask(host, badge, &format!("GET {page}"), "")?;
        answers += 1;
        let due = begun + each * answers;
        while !is_over.load(Ordering::Relaxed) && Instant::now() < due {
            std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
        }
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(u64::from(answers))
}

/// Head and body of an answer that is not a refusal.
fn ask(host: &str, badge: &Badge, what: &str, body: &str) -> anyhow::Result<(String, String)> {
    let mut text = String::new();
    say(host, badge, what, body)?.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("{what} is not answered"))?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{what} is answered {head} {body}");
    Ok((head.to_owned(), body.to_owned()))
}

fn say(host: &str, badge: &Badge, what: &str, body: &str) -> anyhow::Result<TcpStream> {
    let (method, path) = what.split_once(' ').context("a method and a path")?;
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} /console/api/{path} HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\nconnection: close\r\n\
         cookie: {}\r\nx-surety-token: {}\r\nx-surety-poll: 1\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        badge.cookie,
        badge.token,
        body.len()
    )?;
    Ok(stream)
}

/// Somebody who asks an engine's history over the wire, at a steady rate.
#[derive(Debug)]
pub struct Questioner {
    is_over: Arc<AtomicBool>,
    asking: JoinHandle<anyhow::Result<Answers>>,
}

/// What became of the questions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    /// Questions that were answered.
    pub answered: u64,
    /// Bytes of their answers.
    pub bytes: u64,
    /// Questions that were refused: too many at once, or nobody there to answer.
    pub refused: u64,
}

impl Questioner {
    /// Begins: in turns a page of records, the newest first, and one lock with all that happened to it. Returns when the first answer is there.
    ///
    /// # Errors
    /// If the history does not answer, or has no locks.
    pub fn start(address: SocketAddr, identity: Identity, per_s: f64) -> anyhow::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let (begins, has_begun) = std::sync::mpsc::channel();
        let asking = std::thread::spawn(move || {
            on_client(CLIENT_CORE, move || async move {
                let client = Client::connect(address, identity).await?;
                let lock = any_lock(&client).await?;
                // A handshake is no question, and would cost as much as several.
                begins.send(())?;
                let questions = [page_of_records()?, one_lock(lock)?];
                ask_steadily(&client, &questions, per_s, &over).await
            })
        });
        match has_begun.recv() {
            Ok(()) => Ok(Self { is_over, asking }),
            // It has ended, and knows why.
            Err(_) => bail!(Self { is_over, asking }.end().err().context("nobody asks")?),
        }
    }

    /// Ends.
    ///
    /// # Errors
    /// If asking has failed.
    pub fn end(self) -> anyhow::Result<Answers> {
        self.is_over.store(true, Ordering::Relaxed);
        self.asking.join().map_err(|_| anyhow::anyhow!("whoever asks has panicked"))?
    }
}

async fn ask_steadily(
    client: &Client,
    questions: &[Vec<u8>],
    per_s: f64,
    is_over: &AtomicBool,
) -> anyhow::Result<Answers> {
    let mut due = tokio::time::interval(Duration::from_secs_f64(1.0 / per_s));
    let mut answers = Answers::default();
    for question in questions.iter().cycle() {
        due.tick().await;
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        match client.query(question).await {
            Ok(answer) => {
                ensure!(answer.starts_with(b"{\"ok\""), "{}", String::from_utf8_lossy(&answer));
                answers.answered += 1;
                answers.bytes += answer.len() as u64;
            }
            Err(QueryError::Refused { .. }) => answers.refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    client.shutdown().await;
    Ok(answers)
}

/// The id of a lock that the history has; it comes a moment after the lock.
async fn any_lock(client: &Client) -> anyhow::Result<String> {
    let begun = Instant::now();
    let conditions = Conditions { limit: Some(1), ..Conditions::default() };
    let question = document(Ask::Locks(conditions))?;
    loop {
        if let Ok(answer) = client.query(&question).await {
            let answer: Value = serde_json::from_slice(&answer)?;
            if let Some(lock) = answer["ok"]["rows"][0]["lock"].as_str() {
                return Ok(lock.to_owned());
            }
        }
        ensure!(begun.elapsed() < PATIENCE, "the history has no lock");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn page_of_records() -> anyhow::Result<Vec<u8>> {
    document(Ask::Records(Conditions { limit: Some(ROWS), ..Conditions::default() }))
}

fn one_lock(id: String) -> anyhow::Result<Vec<u8>> {
    document(Ask::Lock(OfLock { id, ..OfLock::default() }))
}

fn document(ask: Ask) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&Question { of: None, ask })?)
}
