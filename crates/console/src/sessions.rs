//! Who is signed in: sessions that end by themselves, and with the certificate that opened them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use server::{Authority, Inside, Vouched};
use surety_client::{Client, Options};
use surety_protocol::{Caller, Time};
use tokio::sync::Semaphore;

use crate::link::{CLOCK_AHEAD_MAX, LINK_LIFE, Link};
use crate::refusal::Refusal;

/// A session that nobody uses for so long ends.
pub(crate) const IDLE: Duration = Duration::from_secs(15 * 60);
/// So does one that has lasted so long.
pub(crate) const LIFE: Duration = Duration::from_secs(8 * 3600);
/// Sessions at a time.
const SESSIONS_MAX: usize = 64;
/// Sessions of one certificate at a time.
const SESSIONS_OWN_MAX: usize = 8;
/// Live streams of one session at a time: a page each.
const STREAMS_OWN_MAX: usize = 4;
/// Used links that are remembered: as many as can be tried in the time for which one counts.
const NONCES_MAX: usize = 4096;
/// Tries to sign in within a second: each costs the checks of some signatures.
const TRIES_PER_S: u32 = 20;

/// Somebody who is signed in.
pub(crate) struct Session {
    /// What their requests are sent through, as them.
    pub(crate) client: Client,
    /// Tenant, roles and principal.
    pub(crate) caller: Caller,
    /// What a page must show beside the cookie to have something done.
    pub(crate) token: String,
    /// Live streams that may still be opened.
    pub(crate) streams: Arc<Semaphore>,
    chain: Vec<CertificateDer<'static>>,
    vouched: Mutex<Vouched>,
    began: Instant,
    used: Mutex<Instant>,
}

/// What a cookie holds: only its hash is kept.
type Key = [u8; 32];

/// Everybody who is signed in.
pub(crate) struct Sessions {
    inside: Inside,
    authority: Arc<Authority>,
    all: Mutex<HashMap<Key, Arc<Session>>>,
    nonces: Mutex<HashMap<u128, Instant>>,
    tries: Mutex<Tries>,
}

/// Tries to sign in, of all who try.
struct Tries {
    since: Instant,
    count: u32,
}

impl Sessions {
    pub(crate) fn new(inside: Inside, authority: Arc<Authority>) -> Self {
        let tries = Mutex::new(Tries { since: Instant::now(), count: 0 });
        Self { inside, authority, all: Mutex::default(), nonces: Mutex::default(), tries }
    }

    /// Opens a session by a link; comes back with what its cookie is to hold.
    pub(crate) async fn sign_in(&self, text: &str) -> Result<(String, Arc<Session>), Refusal> {
        if !self.tries.lock().may(Instant::now()) {
            return Err(Refusal::Crowded);
        }
        let link = Link::read(text, self.inside.engine(), server::readings().wall)?;
        let vouched =
            self.authority.vouch(link.chain()).map_err(|error| Refusal::NotVouched(error.to_string()))?;
        // Nobody fills this memory whom the authority does not know.
        self.spend(link.nonce(), Instant::now())?;
        self.open(link.chain().to_vec(), vouched).await
    }

    async fn open(
        &self,
        chain: Vec<CertificateDer<'static>>,
        vouched: Vouched,
    ) -> Result<(String, Arc<Session>), Refusal> {
        let caller = vouched.caller;
        self.check_room(caller)?;
        let connector = Arc::new(self.inside.connector(caller));
        let client = Client::over(connector, Options::default(), &[]).await;
        let client = client.map_err(|error| Refusal::NotLetIn(error.to_string()))?;
        let now = Instant::now();
        let session = Arc::new(Session {
            client,
            caller,
            token: random_text()?,
            streams: Arc::new(Semaphore::new(STREAMS_OWN_MAX)),
            chain,
            vouched: Mutex::new(vouched),
            began: now,
            used: Mutex::new(now),
        });
        let cookie = random_text()?;
        self.check_room(caller)?;
        self.all.lock().insert(key_of(&cookie), Arc::clone(&session));
        tracing::info!(tenant = caller.tenant.0, actor = %caller.actor, "signed in at the console");
        Ok((cookie, session))
    }

    /// The session of a cookie. `is_use` says whether somebody is there, or only a page that keeps itself up to date.
    pub(crate) fn find(&self, cookie: &str, is_use: bool) -> Result<Arc<Session>, Refusal> {
        let session = self.all.lock().get(&key_of(cookie)).cloned().ok_or(Refusal::SignedOut)?;
        if !self.is_alive(&session) {
            self.end(cookie);
            return Err(Refusal::SignedOut);
        }
        if is_use {
            *session.used.lock() = Instant::now();
        }
        Ok(session)
    }

    /// False once it is over: by time, by its certificate, or since it was signed out.
    pub(crate) fn is_alive(&self, session: &Arc<Session>) -> bool {
        let is_kept = self.all.lock().values().any(|kept| Arc::ptr_eq(kept, session));
        is_kept && self.is_in_time(session, Instant::now()) && self.is_vouched_for(session)
    }

    /// Ends a session.
    pub(crate) fn end(&self, cookie: &str) {
        if let Some(session) = self.all.lock().remove(&key_of(cookie)) {
            let caller = session.caller;
            tracing::info!(tenant = caller.tenant.0, actor = %caller.actor, "signed out of the console");
        }
    }

    fn is_in_time(&self, session: &Session, now: Instant) -> bool {
        now.duration_since(*session.used.lock()) < IDLE && now.duration_since(session.began) < LIFE
    }

    fn is_vouched_for(&self, session: &Session) -> bool {
        let mut vouched = session.vouched.lock();
        self.authority.still_vouches(&mut vouched, &session.chain)
    }

    fn check_room(&self, caller: Caller) -> Result<(), Refusal> {
        let now = Instant::now();
        let mut all = self.all.lock();
        all.retain(|_, session| self.is_in_time(session, now) && self.is_vouched_for(session));
        let own = all.values().filter(|session| session.caller.actor == caller.actor).count();
        if all.len() < SESSIONS_MAX && own < SESSIONS_OWN_MAX { Ok(()) } else { Err(Refusal::SessionsFull) }
    }

    /// Takes a link's number, once.
    fn spend(&self, nonce: u128, now: Instant) -> Result<(), Refusal> {
        let mut nonces = self.nonces.lock();
        let counts = nanos(LINK_LIFE.plus(CLOCK_AHEAD_MAX)) + Duration::from_secs(1);
        nonces.retain(|_, used| now.duration_since(*used) < counts);
        if nonces.contains_key(&nonce) {
            return Err(Refusal::LinkUsed);
        }
        if nonces.len() >= NONCES_MAX {
            return Err(Refusal::Crowded);
        }
        nonces.insert(nonce, now);
        Ok(())
    }
}

impl Tries {
    fn may(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= TRIES_PER_S
    }
}

const fn nanos(span: Time) -> Duration {
    Duration::from_nanos(span.0)
}

fn key_of(cookie: &str) -> Key {
    *blake3::hash(cookie.as_bytes()).as_bytes()
}

/// 256 bits that nobody can guess.
fn random_text() -> Result<String, Refusal> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| Refusal::Full("the system has no randomness"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_to_sign_in_are_few_within_a_second() {
        let begin = Instant::now();
        let mut tries = Tries { since: begin, count: 0 };
        assert!((0..TRIES_PER_S).all(|_| tries.may(begin)));
        assert!(!tries.may(begin + Duration::from_millis(999)));
        assert!(tries.may(begin + Duration::from_secs(1)));
    }
}
