//! How batches stand on chain. The settler is another process, and the only one that knows: its metrics listener is asked each few seconds, on the
//! console's own thread, whether or not anybody looks, so that there is a past to show.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use parking_lot::Mutex;
use serde_json::json;
use texts::batches::{self, Told};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::guard::signed_in;
use crate::overview::SettlementAges;
use crate::past;
use crate::reads::is_operator;
use crate::refusal::Refusal;
use crate::start::{Desk, json_answer};

/// Between two questions.
const BEAT: Duration = Duration::from_secs(3);
/// Within this the settler has answered.
const WITHIN: Duration = Duration::from_secs(2);
/// Far more than the batches of an engine of all shards that there can be take.
const BYTES_MAX: u64 = 2 << 20;

/// What is known of a settler.
#[derive(Debug)]
pub(crate) struct Settlement {
    /// Where its metrics are; none where no settler was named.
    settler: Option<SocketAddr>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    told: Option<(Told, Instant)>,
    /// Why there was no answer the last time.
    trouble: Option<String>,
}

/// Why a settler was not understood.
#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error("the settler's metrics listener at {0} does not answer: {1}")]
    Away(SocketAddr, std::io::Error),
    #[error("the settler's metrics listener at {0} takes too long")]
    Slow(SocketAddr),
    #[error("the settler at {0} tells nothing of batches yet, or what answers there is no settler")]
    NotThere(SocketAddr),
    #[error("what answers at {0} is no settler of this version: {1}")]
    Strange(SocketAddr, serde_json::Error),
}

impl Settlement {
    /// With a settler whose metrics are there, or with none.
    pub(crate) fn new(settler: Option<SocketAddr>) -> Self {
        Self { settler, known: Mutex::default() }
    }

    /// Asks the settler again and again, until the console ends.
    pub(crate) async fn follow(&self) {
        let Some(settler) = self.settler else { return };
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            self.take(ask(settler).await);
        }
    }

    fn take(&self, answer: Result<Told, Silence>) {
        let mut known = self.known.lock();
        match answer {
            Ok(told) => *known = Known { told: Some((told, Instant::now())), trouble: None },
            Err(silence) => known.trouble = Some(silence.to_string()),
        }
    }

    /// How old things are at this moment; none while nobody knows.
    pub(crate) fn ages(&self, now_ms: u64) -> Option<SettlementAges> {
        let known = self.known.lock();
        let (told, asked) = known.told.as_ref().filter(|_| known.trouble.is_none())?;
        ages(told, since(*asked), now_ms)
    }

    fn to_json(&self, now_ms: u64) -> serde_json::Value {
        let known = self.known.lock();
        let told = known.told.as_ref();
        json!({
            "named": self.settler.is_some(),
            "trouble": known.trouble,
            "asked_age_ms": told.map(|(_, asked)| since(*asked)),
            "turn_age_max_ms": told.map(|(told, _)| told.turn_age_max_ms()),
            "ages": told.and_then(|(told, asked)| ages(told, since(*asked), now_ms)),
            "told": told.map(|(told, _)| told),
        })
    }
}

/// How old what a settler told so long ago is by now; none where its last turn is too long ago for that.
fn ages(told: &Told, asked_age_ms: u64, now_ms: u64) -> Option<SettlementAges> {
    let older = asked_age_ms.saturating_add(told.turn_age_ms);
    // What does not wait gets no older.
    let grown = |age_ms: u64| if age_ms == 0 { 0 } else { age_ms.saturating_add(older) };
    let block_time_s = told.chain.as_ref().and_then(|chain| chain.block_time_s);
    (older <= told.turn_age_max_ms()).then(|| SettlementAges {
        waiting_age_ms: grown(told.waiting_age_ms),
        batch_age_ms: grown(told.unsettled_age_ms),
        chain_age_ms: block_time_s.map(|time| now_ms.saturating_sub(time.saturating_mul(1000))),
    })
}

/// How batches stand, for the operator.
pub(crate) async fn settlement(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let session = signed_in(&desk, &headers)?;
    if !is_operator(&session) || !past::may_ask(&session) {
        return Err(Refusal::NoRole(
            "batches are of all tenants together: they are the operator's, with reader, settler or admin",
        ));
    }
    Ok(json_answer(&desk.settlement.to_json(crate::live::now_ms())))
}

fn since(asked: Instant) -> u64 {
    u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn ask(settler: SocketAddr) -> Result<Told, Silence> {
    let text = match timeout(WITHIN, fetch(settler)).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(Silence::Away(settler, error)),
        Err(_) => return Err(Silence::Slow(settler)),
    };
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    if head.split(' ').nth(1) != Some("200") {
        return Err(Silence::NotThere(settler));
    }
    serde_json::from_str(body).map_err(|error| Silence::Strange(settler, error))
}

async fn fetch(settler: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(settler).await?;
    // HTTP/1.0: the answer ends with the connection.
    stream
        .write_all(format!("GET /{} HTTP/1.0\r\nHost: {settler}\r\n\r\n", batches::DOCUMENT).as_bytes())
        .await?;
    let mut text = String::new();
    stream.take(BYTES_MAX).read_to_string(&mut text).await?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = r#"{"turn_age_ms":40,"interval_ms":2000,"sealed":3,"final":2,"booked":1,"waiting_records":5,"waiting_age_ms":1000,
        "unsettled_age_ms":0,"pending_transactions":1,"chain":{"block":9,"final_block":7,"block_time_s":100},"batches":[
        {"batch":3,"stage":"posted","held":null,"records":4,"partitions":1,"credited":"7","locked":"8","read":["11"],
        "transaction":"0x01","block":null,"sealed_ms":1,"posted_ms":2,"mined_ms":null,"final_ms":null,"booked_ms":null}]}"#;

    async fn answered(answer: Vec<u8>) -> Result<Told, Silence> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(&answer).await;
        });
        ask(address).await
    }

    #[tokio::test]
    async fn only_a_settler_is_understood() {
        let told = answered(format!("HTTP/1.0 200 OK\r\n\r\n{TOLD}\n").into_bytes()).await.unwrap();
        assert_eq!((told.last_final, told.batches[0].stage), (2, batches::Stage::Posted));
        let less = TOLD.replace("\"sealed\":3,", "");
        let endless = [b"HTTP/1.0 200 OK\r\n\r\n".as_slice(), &vec![b' '; 3 << 20]].concat();
        for (wrong, words) in [
            (b"HTTP/1.0 404 Not Found\r\n\r\n".to_vec(), "nothing of batches yet"),
            (b"SSH-2.0-x\r\n".to_vec(), "nothing of batches yet"),
            (Vec::new(), "nothing of batches yet"),
            (format!("HTTP/1.0 200 OK\r\n\r\n{less}").into_bytes(), "`sealed`"),
            (b"HTTP/1.0 200 OK\r\n\r\n\xff".to_vec(), "does not answer"),
            (endless, "no settler of this version"),
        ] {
            let silence = answered(wrong).await.unwrap_err().to_string();
            assert!(silence.contains(words), "{silence}");
        }
    }

    #[test]
    fn what_waits_grows_older_until_nobody_knows() {
        let told: Told = serde_json::from_str(TOLD).unwrap();
        let settler = SocketAddr::from(([127, 0, 0, 1], 9));
        let settlement = Settlement::new(Some(settler));
        assert_eq!(settlement.ages(101_000), None, "nothing was asked yet");
        let shown = ages(&told, 2_000, 101_000).unwrap();
        assert_eq!((shown.waiting_age_ms, shown.batch_age_ms, shown.chain_age_ms), (3040, 0, Some(1000)));
        settlement.take(Ok(told));
        assert!(settlement.ages(101_000).is_some_and(|ages| ages.waiting_age_ms >= 1040));
        settlement.take(Err(Silence::Slow(settler)));
        assert_eq!(settlement.ages(101_000), None);
        let shown = settlement.to_json(101_000);
        assert!(shown["trouble"].as_str().unwrap().contains("too long"), "{shown}");
        assert_eq!(
            shown["told"]["batches"][0]["batch"], 3,
            "what was known last is still shown, with its age"
        );
    }

    #[test]
    fn of_a_settler_whose_turns_fail_no_ages_are_told() {
        let mut told: Told = serde_json::from_str(TOLD).unwrap();
        let most = told.turn_age_max_ms();
        assert_eq!(ages(&told, most - 40, 101_000).map(|ages| ages.waiting_age_ms), Some(33_000));
        assert_eq!(ages(&told, most - 39, 101_000), None);
        let rare = Told { interval_ms: 600_000, ..told.clone() };
        assert!(ages(&rare, 599_000, 101_000).is_some(), "one that looks rarely has not failed");
        assert_eq!(ages(&rare, 630_000, 101_000), None);
        told.turn_age_ms = u64::MAX;
        assert_eq!(ages(&told, 1, 101_000), None);
        let settlement = Settlement::new(Some(SocketAddr::from(([127, 0, 0, 1], 9))));
        settlement.take(Ok(told));
        assert_eq!(settlement.ages(101_000), None, "the overview has a gap");
        let shown = settlement.to_json(101_000);
        assert_eq!((&shown["ages"], &shown["told"]["sealed"]), (&json!(null), &json!(3)), "{shown}");
    }
}
