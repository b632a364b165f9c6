//! The socket between who asks and who answers: whoever is at the other end.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use history::{
    ANSWER_BYTES_MAX, Ask, Asker, AskerError, Fault, Nothing, QUESTION_BYTES_MAX, Question, Store, bind,
    place, refusal, serve, socket, unbind,
};
use serde_json::json;
use surety_protocol::EngineId;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A directory whose path is longer than the address of a socket may be.
fn deep() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    (directory, deep)
}

/// Answers everything with the same document.
fn served(data: &Path, answer: Vec<u8>) -> (watch::Sender<bool>, JoinHandle<()>) {
    let (stop, stopped) = watch::channel(false);
    let answerer = Arc::new(move |_: &[u8]| answer.clone());
    (stop, tokio::spawn(serve(bind(data).unwrap(), answerer, stopped)))
}

fn question() -> Question {
    Question { of: None, ask: Ask::Status(Nothing {}) }
}

/// Answers one connection with these bytes, whatever is asked.
fn played(data: &Path, bytes: Vec<u8>) -> JoinHandle<()> {
    let listener = bind(data).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 4];
        stream.read_exact(&mut asked).await.unwrap();
        let mut body = vec![0; u32::from_le_bytes(asked) as usize];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    })
}

#[tokio::test]
async fn a_question_is_answered_however_long_the_path_and_nobody_else_may_ask() {
    let (_directory, data) = deep();
    let asker = Asker::new(&data);
    assert!(matches!(asker.ask(&question()).await, Err(AskerError::Nobody(_))));
    let (stop, service) = served(&data, br#"{"ok":{"x":1}}"#.to_vec());
    assert_eq!(asker.ask(&question()).await.unwrap(), json!({ "x": 1 }));
    assert_eq!(std::fs::metadata(socket(&data)).unwrap().permissions().mode() & 0o777, 0o600);
    stop.send_replace(true);
    service.await.unwrap();
    // A process that was killed leaves its socket: nobody is behind it, and the next one takes its place.
    assert!(matches!(asker.ask(&question()).await, Err(AskerError::Away(_))));
    let (_stop, _service) = served(&data, br#"{"ok":{"x":2}}"#.to_vec());
    assert_eq!(asker.ask(&question()).await.unwrap(), json!({ "x": 2 }));
    unbind(&data);
    assert!(matches!(asker.ask(&question()).await, Err(AskerError::Nobody(_))));
}

#[tokio::test]
async fn who_is_not_there_now_is_told_from_who_is_not_to_come() {
    let (_directory, data) = deep();
    let expected = Asker::expecting(&data);
    let asker = Asker::new(&data);
    assert!(!asker.is_known() && expected.is_known());
    // It has the index open, and its socket not yet.
    let store = Store::open(&place(&data), EngineId(7)).unwrap();
    assert!(asker.is_known());
    assert!(matches!(asker.ask(&question()).await, Err(AskerError::Away(_))));
    drop(store);
    assert!(matches!(asker.ask(&question()).await, Err(AskerError::Nobody(_))));
    assert!(asker.is_known(), "there is an index, which somebody may want to be kept");
    assert!(matches!(expected.ask(&question()).await, Err(AskerError::Away(_))));
}

#[tokio::test]
async fn a_refusal_comes_as_what_it_is() {
    for fault in Fault::ALL {
        let directory = tempfile::tempdir().unwrap();
        let (_stop, _service) = served(directory.path(), refusal(fault, "why"));
        match Asker::new(directory.path()).ask(&question()).await {
            Err(AskerError::Busy) => assert_eq!(fault, Fault::Busy),
            Err(AskerError::Refused { code, message, is_retryable }) => {
                assert_eq!(is_retryable, fault.is_retryable(), "{code}");
                assert_eq!((code.as_str(), message.as_str()), (fault.name(), "why"));
            }
            other => panic!("{fault:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn who_answers_nonsense_or_without_end_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let asker = Asker::new(directory.path());
    let too_long = u32::try_from(ANSWER_BYTES_MAX + 1).unwrap().to_le_bytes().to_vec();
    let play = played(directory.path(), too_long);
    assert!(matches!(asker.ask(&question()).await, Err(AskerError::AnswerTooLong { .. })));
    play.await.unwrap();
    for garbage in [&b"\x02\x00\x00\x00{]"[..], b"\x02\x00\x00\x00{}", b"\x00\x00\x00\x00"] {
        let play = played(directory.path(), garbage.to_vec());
        assert!(matches!(asker.ask(&question()).await, Err(AskerError::Answer(_))), "{garbage:?}");
        play.await.unwrap();
    }
    for cut in [&b""[..], b"\x02\x00", b"\x02\x00\x00\x00{"] {
        let play = played(directory.path(), cut.to_vec());
        assert!(matches!(asker.ask(&question()).await, Err(AskerError::Io(_))), "{cut:?}");
        play.await.unwrap();
    }
    let long = vec![b' '; QUESTION_BYTES_MAX + 1];
    assert!(matches!(asker.ask_bytes(&long).await, Err(AskerError::QuestionTooLong { .. })));
}

#[tokio::test]
async fn an_answer_that_takes_for_ever_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let listener = bind(directory.path()).unwrap();
    let asker = Asker::new(directory.path());
    let asking = asker.ask(&question()).await;
    assert!(matches!(asking, Err(AskerError::Slow)), "{asking:?}");
    drop(listener);
}
