//! Who is signed in: sessions that end by themselves, and with the certificate that opened them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use server::identity::Person;
use server::{Authority, Inside, Vouched};
use surety_client::{Client, Options};
use surety_protocol::{Caller, TenantId, Time};
use tokio::sync::Semaphore;

use crate::link::{Link, LinkError};
use crate::listener::Shown;
use crate::refusal::Refusal;

/// A session that nobody uses for so long ends.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// So does one that has lasted so long.
const LIFE: Duration = Duration::from_secs(8 * 3600);
/// Sessions at a time.
const SESSIONS_MAX: usize = 64;
/// Of these, what a tenant may have: nobody's colleagues keep all the others out.
const SESSIONS_TENANT_MAX: usize = 16;
/// Of these, what all tenants but the operator may have together: the operator always finds a place.
const SESSIONS_TENANTS_MAX: usize = SESSIONS_MAX - SESSIONS_TENANT_MAX;
/// Sessions of one certificate at a time; one more ends the oldest of them.
const SESSIONS_OWN_MAX: usize = 8;
/// Live streams of one session at a time: a page each.
const STREAMS_OWN_MAX: usize = 4;
/// Questions of one session to the history at a time: one page asks several.
const QUESTIONS_OWN_MAX: usize = 4;
/// Used links that are remembered. What is forgotten for a newer one is refused by its age.
const NONCES_MAX: usize = 4096;
/// Links of one certificate that are looked at within a second: each costs the checks of some signatures.
const TRIES_OWN_PER_S: u32 = 10;
/// The same of all certificates. Whoever reaches the console can make certificates that nobody vouches for, so it is far more than people need.
const TRIES_PER_S: usize = 400;

const _: () = assert!(IDLE.as_nanos() < LIFE.as_nanos(), "idle sessions end first");

/// Whom the authority vouches for, and may not in a minute.
pub(crate) struct Member {
    /// Name and key, which tell people apart.
    pub(crate) person: Person,
    /// Tenant, roles and principal.
    pub(crate) caller: Caller,
    chain: Vec<CertificateDer<'static>>,
    vouched: Mutex<Vouched>,
}

impl Member {
    /// The own certificate, by its hash.
    pub(crate) fn certificate(&self) -> String {
        self.chain.first().map_or_else(String::new, |own| blake3::hash(own).to_hex().to_string())
    }
}

#[cfg(test)]
impl Member {
    /// Of a certificate that nobody has judged.
    pub(crate) fn unjudged(pem: &str) -> Self {
        let identity = surety_client::Identity::from_pem(pem.as_bytes()).unwrap();
        let chain: Vec<_> = identity.chain().map(|der| CertificateDer::from(der.to_vec())).collect();
        let caller = server::identity::caller_of(&chain[0]).unwrap();
        let vouched = Vouched { caller, valid_until: Time::ZERO, generation: 0 };
        Self { person: Person::of(&chain[0]).unwrap(), caller, chain, vouched: Mutex::new(vouched) }
    }
}

/// By what somebody signs in.
#[derive(Clone, Copy)]
pub(crate) enum Proof<'a> {
    /// The text of a sign-in link.
    Link(&'a str),
    /// The certificates that their browser has shown in the handshake, maybe none.
    Certificate(&'a [CertificateDer<'static>]),
}

impl<'a> Proof<'a> {
    /// A link where there is one, else what the browser has shown.
    pub(crate) fn of(link: Option<&'a str>, shown: &'a Shown) -> Self {
        link.map_or(Self::Certificate(&shown.0), Self::Link)
    }
}

/// Somebody who is signed in.
pub(crate) struct Session {
    /// What their requests are sent through, as them.
    pub(crate) client: Client,
    /// Tenant, roles and principal.
    pub(crate) caller: Caller,
    /// Who it is: outlives the session where something was proposed in it.
    pub(crate) member: Arc<Member>,
    /// What a page must show beside the cookie. It is told once, at sign-in: whoever has the cookie alone has nothing.
    pub(crate) token: String,
    /// Live streams that may still be opened.
    pub(crate) streams: Arc<Semaphore>,
    /// Questions to the history that may still be asked.
    pub(crate) questions: Arc<Semaphore>,
    /// True if a certificate has opened it, by its key: then it is good over connections that have shown the same one.
    is_bound: bool,
    began: Instant,
    used: Mutex<Instant>,
}

impl Session {
    /// False if it is another's connection: cookie and token, taken from a browser, open nothing without its certificate's key.
    pub(crate) fn is_over(&self, shown: &Shown) -> bool {
        !self.is_bound || shown.0.first() == self.member.chain.first()
    }
}

/// What a cookie holds: only its hash is kept.
type Key = [u8; 32];

/// Everybody who is signed in.
pub(crate) struct Sessions {
    inside: Inside,
    authority: Arc<Authority>,
    all: Mutex<HashMap<Key, Arc<Session>>>,
    used_links: Mutex<UsedLinks>,
    /// By links, whose certificates anybody may put into one.
    tries: Mutex<Tries>,
    /// By certificates whose keys were shown.
    own_tries: Mutex<Tries>,
}

/// The links that were used, by their own time. Whatever is not younger than `floor` is refused, so that none is forgotten: neither by a restart,
/// nor by a clock that is set back, nor for want of room.
struct UsedLinks {
    floor: Time,
    all: BTreeSet<(Time, u128)>,
}

/// Tries to sign in, by certificate.
struct Tries {
    since: Instant,
    counts: HashMap<Key, u32>,
}

impl Sessions {
    pub(crate) fn new(inside: Inside, authority: Arc<Authority>) -> Self {
        let tries = || Mutex::new(Tries { since: Instant::now(), counts: HashMap::new() });
        // Whether a link was used before this process nobody knows any more.
        let used_links = UsedLinks { floor: server::readings().wall, all: BTreeSet::new() };
        Self {
            inside,
            authority,
            all: Mutex::default(),
            used_links: Mutex::new(used_links),
            tries: tries(),
            own_tries: tries(),
        }
    }

    /// Whom it would sign in. It is good for that afterwards as it was before.
    pub(crate) fn look(&self, proof: Proof<'_>) -> Result<Arc<Member>, Refusal> {
        self.read(proof).map(|(_, member)| member)
    }

    /// Opens a session, if `may` has nothing against who it is for; comes back with what its cookie is to hold.
    pub(crate) async fn sign_in(
        &self,
        proof: Proof<'_>,
        may: impl FnOnce(&Member) -> Result<(), Refusal>,
    ) -> Result<(String, Arc<Session>), Refusal> {
        let (link, member) = self.read(proof)?;
        may(&member)?;
        // Before the link is spent: it would be good for nothing else.
        check_room(&mut self.all.lock(), member.caller)?;
        // Nobody fills this memory whom the authority does not know.
        if let Some(link) = &link {
            self.used_links.lock().spend(link)?;
        }
        self.open(member, matches!(proof, Proof::Certificate(_))).await
    }

    fn read(&self, proof: Proof<'_>) -> Result<(Option<Link>, Arc<Member>), Refusal> {
        match proof {
            Proof::Link(text) => {
                let link = Link::read(text, self.inside.engine(), server::readings().wall)?;
                self.used_links.lock().check(&link)?;
                check_tries(&self.tries, link.chain())?;
                link.check_signature()?;
                let member = self.member(link.chain())?;
                Ok((Some(link), member))
            }
            Proof::Certificate([]) => Err(Refusal::NoCertificate),
            // That its holder has the key, the handshake has shown.
            Proof::Certificate(chain) => {
                check_tries(&self.own_tries, chain)?;
                Ok((None, self.member(chain)?))
            }
        }
    }

    /// Whom a chain speaks for, if the authority vouches for it.
    fn member(&self, chain: &[CertificateDer<'static>]) -> Result<Arc<Member>, Refusal> {
        let refused = |error: String| Refusal::NotVouched(error);
        let vouched = self.authority.vouch(chain).map_err(|error| refused(error.to_string()))?;
        let own = chain.first().ok_or(Refusal::NoCertificate)?;
        let person = Person::of(own).map_err(|error| refused(error.to_string()))?;
        let (caller, chain) = (vouched.caller, chain.to_vec());
        Ok(Arc::new(Member { person, caller, chain, vouched: Mutex::new(vouched) }))
    }

    async fn open(&self, member: Arc<Member>, is_bound: bool) -> Result<(String, Arc<Session>), Refusal> {
        let caller = member.caller;
        let connector = Arc::new(self.inside.connector(caller));
        let client = Client::over(connector, Options::default(), &[]).await;
        let client = client.map_err(|error| Refusal::NotLetIn(error.to_string()))?;
        let now = Instant::now();
        let session = Arc::new(Session {
            client,
            caller,
            member,
            token: random_text()?,
            streams: Arc::new(Semaphore::new(STREAMS_OWN_MAX)),
            questions: Arc::new(Semaphore::new(QUESTIONS_OWN_MAX)),
            is_bound,
            began: now,
            used: Mutex::new(now),
        });
        let cookie = random_text()?;
        {
            let mut all = self.all.lock();
            check_room(&mut all, caller)?;
            end_oldest(&mut all, caller);
            all.insert(key_of(&cookie), Arc::clone(&session));
        }
        tracing::info!(
            tenant = caller.tenant.0, actor = %caller.actor, name = session.member.person.name(), "signed in at the console"
        );
        Ok((cookie, session))
    }

    /// The session that a cookie and its token open together. A browser may hold several cookies of one name, some of them put there by
    /// others; the token says which is ours. `is_use` says whether somebody is there, or only a page that keeps itself up to date.
    pub(crate) fn find<'a>(
        &self,
        cookies: impl Iterator<Item = &'a str>,
        token: &str,
        is_use: bool,
    ) -> Result<Arc<Session>, Refusal> {
        // Hashes, so that the time of the comparison tells nothing of the token.
        let token = blake3::hash(token.as_bytes());
        let is_own = |session: &Session| blake3::hash(session.token.as_bytes()) == token;
        let found = self.of(cookies).into_iter().find(|(_, session)| is_own(session));
        let (key, session) = found.ok_or(Refusal::SignedOut)?;
        if !self.is_good(&session, Instant::now()) {
            self.all.lock().remove(&key);
            return Err(Refusal::SignedOut);
        }
        if is_use {
            *session.used.lock() = Instant::now();
        }
        Ok(session)
    }

    /// Whose sessions a browser holds the cookies of, with or without their tokens: good for ending them and for nothing else.
    pub(crate) fn of<'a>(&self, cookies: impl Iterator<Item = &'a str>) -> Vec<(Key, Arc<Session>)> {
        let all = self.all.lock();
        cookies
            .filter_map(|cookie| all.get_key_value(&key_of(cookie)))
            .map(|(k, s)| (*k, Arc::clone(s)))
            .collect()
    }

    /// False once it is over: by time, by its certificate, or since it was signed out.
    pub(crate) fn is_alive(&self, session: &Arc<Session>) -> bool {
        let is_kept = self.all.lock().values().any(|kept| Arc::ptr_eq(kept, session));
        is_kept && self.is_good(session, Instant::now())
    }

    /// False once nobody vouches for a certificate any more.
    pub(crate) fn is_vouched_for(&self, member: &Member) -> bool {
        self.authority.still_vouches(&mut member.vouched.lock(), &member.chain)
    }

    /// Ends a session.
    pub(crate) fn end(&self, session: &Arc<Session>) {
        self.all.lock().retain(|_, kept| !Arc::ptr_eq(kept, session));
        let caller = session.caller;
        tracing::info!(tenant = caller.tenant.0, actor = %caller.actor, "signed out of the console");
    }

    /// Ends those whose time is over, and their links to the shards with them.
    pub(crate) fn sweep(&self, now: Instant) {
        self.all.lock().retain(|_, session| self.is_good(session, now));
    }

    fn is_good(&self, session: &Session, now: Instant) -> bool {
        is_in_time(now.duration_since(*session.used.lock()), now.duration_since(session.began))
            && self.is_vouched_for(&session.member)
    }
}

/// What costs nothing is checked before; signatures cost.
fn check_tries(tries: &Mutex<Tries>, chain: &[CertificateDer<'_>]) -> Result<(), Refusal> {
    let own = chain.first().map_or([0; 32], |own| *blake3::hash(own).as_bytes());
    if tries.lock().may(own, Instant::now()) { Ok(()) } else { Err(Refusal::Crowded) }
}

/// True as long as a session was used lately and has not lasted too long.
fn is_in_time(unused: Duration, lasted: Duration) -> bool {
    unused < IDLE && lasted < LIFE
}

/// Refuses a tenant's session if there is no place for it. A certificate with its full number makes its own.
fn check_room(all: &mut HashMap<Key, Arc<Session>>, caller: Caller) -> Result<(), Refusal> {
    let callers: Vec<Caller> = all.values().map(|session| session.caller).collect();
    if has_room(&callers, caller) { Ok(()) } else { Err(Refusal::SessionsFull) }
}

fn has_room(there: &[Caller], caller: Caller) -> bool {
    let count = |is: &dyn Fn(&Caller) -> bool| there.iter().filter(|there| is(there)).count();
    if count(&|there| there.actor == caller.actor) >= SESSIONS_OWN_MAX {
        return true;
    }
    let of_tenant = count(&|there| there.tenant == caller.tenant);
    let of_tenants = count(&|there| there.tenant != TenantId(0));
    let is_operator = caller.tenant == TenantId(0);
    of_tenant < SESSIONS_TENANT_MAX && (is_operator || of_tenants < SESSIONS_TENANTS_MAX)
}

/// Whoever comes back without having signed out finds a place: the own oldest one.
fn end_oldest(all: &mut HashMap<Key, Arc<Session>>, caller: Caller) {
    let own = || all.iter().filter(|(_, session)| session.caller.actor == caller.actor);
    if own().count() >= SESSIONS_OWN_MAX
        && let Some(oldest) = own().min_by_key(|(_, session)| session.began).map(|(key, _)| *key)
    {
        all.remove(&oldest);
    }
}

impl UsedLinks {
    fn check(&self, link: &Link) -> Result<(), Refusal> {
        if self.all.contains(&(link.time(), link.nonce())) {
            return Err(Refusal::LinkUsed);
        }
        if link.time() <= self.floor { Err(LinkError::Past.into()) } else { Ok(()) }
    }

    /// Takes a link's number, once.
    fn spend(&mut self, link: &Link) -> Result<(), Refusal> {
        self.check(link)?;
        self.all.insert((link.time(), link.nonce()));
        if self.all.len() > NONCES_MAX
            && let Some((time, _)) = self.all.pop_first()
        {
            self.floor = self.floor.max(time);
        }
        Ok(())
    }
}

impl Tries {
    fn may(&mut self, certificate: Key, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, counts: HashMap::new() };
        }
        if self.counts.len() >= TRIES_PER_S && !self.counts.contains_key(&certificate) {
            return false;
        }
        let count = self.counts.entry(certificate).or_default();
        *count = count.saturating_add(1);
        *count <= TRIES_OWN_PER_S
    }
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
    use server::pki::DevelopmentPki;
    use surety_client::Identity;
    use surety_protocol::{ActorId, EngineId, Roles};

    use super::*;

    #[test]
    fn tries_to_sign_in_are_few_within_a_second() {
        let begin = Instant::now();
        let mut tries = Tries { since: begin, counts: HashMap::new() };
        assert!((0..TRIES_OWN_PER_S).all(|_| tries.may([0; 32], begin)));
        assert!(!tries.may([0; 32], begin + Duration::from_millis(999)));
        assert!(tries.may([1; 32], begin), "another certificate is another's");
        for number in 2..TRIES_PER_S {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            assert!(tries.may(key, begin));
        }
        assert!(!tries.may([9; 32], begin), "so many of all");
        assert!(tries.may([0; 32], begin + Duration::from_secs(1)));
    }

    #[test]
    fn a_session_ends_when_it_is_unused_and_when_it_is_old() {
        let second = Duration::from_secs(1);
        assert!(is_in_time(IDLE.saturating_sub(second), LIFE.saturating_sub(second)));
        assert!(!is_in_time(IDLE, IDLE));
        assert!(!is_in_time(Duration::ZERO, LIFE));
    }

    #[test]
    fn the_operator_finds_a_place_however_many_others_there_are() {
        let caller =
            |tenant, actor| Caller { tenant: TenantId(tenant), roles: Roles::READER, actor: ActorId(actor) };
        let mut there: Vec<Caller> = Vec::new();
        for actor in (0..).take(SESSIONS_TENANT_MAX) {
            assert!(has_room(&there, caller(7, actor)));
            there.push(caller(7, actor));
        }
        assert!(!has_room(&there, caller(7, 99)), "one tenant's are full");
        for actor in (100..).take(SESSIONS_TENANTS_MAX - SESSIONS_TENANT_MAX) {
            assert!(has_room(&there, caller(actor, actor)));
            there.push(caller(actor, actor));
        }
        assert!(!has_room(&there, caller(8, 98)), "all tenants' are full");
        for actor in (0..).take(SESSIONS_TENANT_MAX) {
            assert!(has_room(&there, caller(0, 1000 + actor)), "the operator's are kept");
            there.push(caller(0, 1000 + actor));
        }
        assert_eq!(there.len(), SESSIONS_MAX);
        assert!(!has_room(&there, caller(0, 97)));
        there.truncate(0);
        there.extend([caller(7, 1); SESSIONS_OWN_MAX]);
        there.extend([caller(7, 2); SESSIONS_TENANT_MAX - SESSIONS_OWN_MAX]);
        assert!(has_room(&there, caller(7, 1)), "whoever has all of theirs makes room themselves");
    }

    #[test]
    fn a_used_link_stays_used_whatever_the_clock_does() {
        let pem = DevelopmentPki::generate().unwrap().client(TenantId(0), Roles::ADMIN, "x").unwrap();
        let identity = Identity::from_pem(pem.as_bytes()).unwrap();
        let link = |time, nonce| Link::sign(&identity, EngineId(1), time, nonce).unwrap();
        let start = Time::from_secs(1000);
        let mut used = UsedLinks { floor: start, all: BTreeSet::new() };
        assert_eq!(used.spend(&link(start, 1)), Err(LinkError::Past.into()), "as old as the process");
        let first = link(start.plus(Time(1)), 1);
        assert_eq!(used.spend(&first), Ok(()));
        assert_eq!(used.spend(&first), Err(Refusal::LinkUsed));
        // Far later, and then the clock is set back: the time of the link counts, not that of its use.
        for number in 0..NONCES_MAX as u64 {
            used.all.insert((start.plus(Time(2 + number)), 7));
        }
        let last = link(start.plus(Time::from_secs(9)), 8);
        assert_eq!(used.spend(&last), Ok(()));
        assert!(used.all.len() <= NONCES_MAX + 1);
        assert!(used.spend(&first).is_err(), "forgotten, and refused all the same");
        assert_eq!(used.spend(&last), Err(Refusal::LinkUsed));
    }
}
