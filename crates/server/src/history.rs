//! Questions to a history. Whoever keeps one is asked here, and answers on threads of its own; who may ask, how many questions are out and how
//! often they come is decided here. What stands in them is not read.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use surety_protocol::limits::{ANSWER_BYTES_MAX, QUERY_BYTES_MAX};
use surety_protocol::{Caller, QueryRefusal, Sight, TenantId, sabotage};
use tokio::sync::oneshot;

use crate::clock::boot_now;
use crate::config::Limits;
use crate::limiter::Limiter;

/// What is told to whoever asks an engine whose history nobody keeps.
pub const NO_HISTORY: &str =
    "nobody keeps a history of this engine: `surety serve --history` does, or `surety history run` beside it";

/// What is told to a tenant while whoever keeps the history does not answer.
pub const HISTORY_AWAY: &str = "the history cannot be asked now: try again in a moment";

/// Keeps the history of an engine, and answers questions to it.
pub trait Historian: fmt::Debug + Send + Sync {
    /// Begins to answer, and returns at once: it is called on a shard's thread, which waits for nothing.
    fn ask(&self, asked: Asked);
}

/// A question on its way. Dropping it without an answer tells the asker that the history is away.
#[derive(Debug)]
pub struct Asked {
    sight: Sight,
    document: Vec<u8>,
    answer: oneshot::Sender<Answered>,
    place: Place,
}

/// Why there is no answer, and what that is to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// What kind of refusal it is.
    pub why: QueryRefusal,
    /// A sentence. It goes to whoever has asked: it names nothing that is the operator's alone to know unless it is the operator.
    pub message: String,
}

impl Unanswered {
    /// A refusal with its sentence.
    pub fn new(why: QueryRefusal, message: impl Into<String>) -> Self {
        Self { why, message: message.into() }
    }
}

/// An answer, and the place that it takes until it is delivered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) answer: Result<Vec<u8>, Unanswered>,
    /// None of a question that was not asked.
    _place: Option<Place>,
}

impl Answered {
    /// That of a question that was not asked, or is given up.
    pub(crate) const fn refused(unanswered: Unanswered) -> Self {
        Self { answer: Err(unanswered), _place: None }
    }
}

impl Asked {
    /// What the asker may see, as its certificate says. The question is answered on that behalf, whatever it says itself.
    #[must_use]
    pub const fn sight(&self) -> Sight {
        self.sight
    }

    /// The question, as it came: whatever bytes, at most [`QUERY_BYTES_MAX`] of them.
    #[must_use]
    pub fn document(&self) -> &[u8] {
        &self.document
    }

    /// Ready when nobody waits for the answer any more.
    pub async fn given_up(&mut self) {
        self.answer.closed().await;
    }

    /// Answers. An answer that is too long for the wire is none.
    pub fn answer(self, answer: Result<Vec<u8>, Unanswered>) {
        let answer = answer.and_then(|document| match document.len() {
            0..=ANSWER_BYTES_MAX => Ok(document),
            found => Err(Unanswered::new(
                QueryRefusal::Away,
                format!("an answer of {found} bytes, {ANSWER_BYTES_MAX} fit: whoever answers is no history"),
            )),
        });
        // Whoever asked may have gone.
        let _ = self.answer.send(Answered { answer, _place: Some(self.place) });
    }
}

/// Where questions are left, by every shard.
#[derive(Debug)]
pub(crate) struct Inquiries {
    historian: Option<Arc<dyn Historian>>,
    most: usize,
    most_of_tenant: usize,
    out: Arc<Mutex<Out>>,
}

/// Questions that are out, answers that are not delivered among them.
#[derive(Debug)]
struct Out {
    all: usize,
    /// Those tenants only that have any.
    of: HashMap<TenantId, usize>,
    rates: Limiter<TenantId>,
}

/// One that is counted, for as long as it lives.
#[derive(Debug)]
struct Place {
    out: Arc<Mutex<Out>>,
    tenant: TenantId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut out = self.out.lock();
        out.all -= 1;
        match out.of.get_mut(&self.tenant) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = out.of.remove(&self.tenant),
        }
    }
}

impl Inquiries {
    pub(crate) fn new(historian: Option<Arc<dyn Historian>>, limits: &Limits) -> Self {
        let rates = Limiter::new(limits.queries_per_s_tenant);
        let out = Out { all: 0, of: HashMap::new(), rates };
        let (most, most_of_tenant) = (limits.queries, limits.queries_tenant);
        Self { historian, most, most_of_tenant, out: Arc::new(Mutex::new(out)) }
    }

    /// Leaves a question; the answer comes later, or what is returned is closed without one.
    ///
    /// # Errors
    /// Why it is not asked.
    pub(crate) fn ask(
        &self,
        caller: Caller,
        document: &[u8],
    ) -> Result<oneshot::Receiver<Answered>, Unanswered> {
        let Some(historian) = &self.historian else {
            return Err(Unanswered::new(QueryRefusal::NoHistory, NO_HISTORY));
        };
        let sight = caller.sight().ok_or_else(|| {
            let message = "the history is of all tenants together: it takes a reader, settler or admin";
            Unanswered::new(QueryRefusal::Forbidden, message)
        })?;
        let sight = if sabotage!("history-of-everybody-shown") { Sight::All } else { sight };
        if document.len() > QUERY_BYTES_MAX {
            let message = format!("a question of {} bytes; {QUERY_BYTES_MAX} may be asked", document.len());
            return Err(Unanswered::new(QueryRefusal::TooLong, message));
        }
        let place = self.place(caller.tenant)?;
        let (answer, answered) = oneshot::channel();
        historian.ask(Asked { sight, document: document.to_vec(), answer, place });
        Ok(answered)
    }

    fn place(&self, tenant: TenantId) -> Result<Place, Unanswered> {
        let busy = |message| Unanswered::new(QueryRefusal::Busy, message);
        let mut out = self.out.lock();
        let own = out.of.get(&tenant).copied().unwrap_or(0);
        if own >= self.most_of_tenant {
            return Err(busy("this tenant's other questions are not answered yet: ask again in a moment"));
        }
        // One is the operator's: whoever has to find out what is wrong can ask.
        let most = if tenant == TenantId(0) { self.most } else { self.most.saturating_sub(1).max(1) };
        if out.all >= most {
            return Err(busy("as many questions are asked as may be: ask again in a moment"));
        }
        if !out.rates.admit(tenant, boot_now()) {
            return Err(busy("this tenant asks too often: ask again in a second"));
        }
        out.all += 1;
        out.of.insert(tenant, own + 1);
        Ok(Place { out: Arc::clone(&self.out), tenant })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use surety_protocol::{ActorId, Roles};

    /// Keeps what it is asked.
    #[derive(Debug, Default)]
    struct Silent(Mutex<Vec<Asked>>);

    impl Historian for Silent {
        fn ask(&self, asked: Asked) {
            self.0.lock().push(asked);
        }
    }

    fn of(tenant: u32) -> Caller {
        Caller { tenant: TenantId(tenant), roles: Roles::READER, actor: ActorId(1) }
    }

    fn why(asked: Result<oneshot::Receiver<Answered>, Unanswered>) -> Option<QueryRefusal> {
        asked.err().map(|unanswered| unanswered.why)
    }

    #[test]
    fn places_are_counted_until_the_answer_is_delivered() {
        let silent = Arc::new(Silent::default());
        let limits = Limits { queries: 4, queries_tenant: 2, queries_per_s_tenant: 0, ..Limits::default() };
        let inquiries = Inquiries::new(Some(silent.clone()), &limits);
        let first = inquiries.ask(of(1), b"1").unwrap();
        let _second = inquiries.ask(of(1), b"2").unwrap();
        assert_eq!(why(inquiries.ask(of(1), b"3")), Some(QueryRefusal::Busy), "two of a tenant");
        let third = inquiries.ask(of(2), b"4").unwrap();
        assert_eq!(why(inquiries.ask(of(3), b"5")), Some(QueryRefusal::Busy), "three of all tenants");
        silent.0.lock().remove(0).answer(Ok(b"one".to_vec()));
        assert_eq!(why(inquiries.ask(of(3), b"5")), Some(QueryRefusal::Busy), "it is not delivered yet");
        let mut first = first;
        assert_eq!(first.try_recv().unwrap().answer, Ok(b"one".to_vec()));
        assert!(inquiries.ask(of(3), b"5").is_ok());
        // Whoever gives up does not give its place to another before the work has ended.
        drop(third);
        assert_eq!(why(inquiries.ask(of(4), b"6")), Some(QueryRefusal::Busy));
        silent.0.lock().clear();
        assert_eq!(inquiries.out.lock().all, 0);
        assert!(inquiries.out.lock().of.is_empty(), "who has none is forgotten");
    }

    #[test]
    fn who_may_not_ask_takes_no_place() {
        let silent = Arc::new(Silent::default());
        let limits = Limits { queries_per_s_tenant: 1, ..Limits::default() };
        let inquiries = Inquiries::new(Some(silent.clone()), &limits);
        let authorizer = Caller { roles: Roles::AUTHORIZER, ..of(0) };
        assert_eq!(why(inquiries.ask(authorizer, b"{}")), Some(QueryRefusal::Forbidden));
        let long = vec![b' '; QUERY_BYTES_MAX + 1];
        assert_eq!(why(inquiries.ask(of(1), &long)), Some(QueryRefusal::TooLong));
        assert_eq!(inquiries.out.lock().all, 0);
        for _ in 0..4 {
            assert!(inquiries.ask(of(1), &long[1..]).is_ok(), "a burst of four seconds");
            silent.0.lock().clear();
        }
        assert_eq!(why(inquiries.ask(of(1), b"{}")), Some(QueryRefusal::Busy), "too often");
        assert!(inquiries.ask(of(2), b"{}").is_ok(), "another tenant has its own rate");
        assert_eq!(silent.0.lock()[0].sight(), Sight::Tenant(TenantId(2)));
        assert_eq!(why(Inquiries::new(None, &limits).ask(of(0), b"{}")), Some(QueryRefusal::NoHistory));
    }

    #[test]
    fn what_does_not_fit_the_wire_is_no_answer() {
        let silent = Arc::new(Silent::default());
        let inquiries = Inquiries::new(Some(silent.clone()), &Limits::default());
        let mut answered = inquiries.ask(of(0), b"{}").unwrap();
        silent.0.lock().remove(0).answer(Ok(vec![0; ANSWER_BYTES_MAX + 1]));
        assert_eq!(answered.try_recv().unwrap().answer.unwrap_err().why, QueryRefusal::Away);
    }
}
