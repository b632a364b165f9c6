//! A node that answers JSON-RPC, and any other HTTP, as a function says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The text of a result, an error of a node, or nothing at all: the connection is closed without a word.
pub enum Answer {
    Result(String),
    Error(i64, &'static str),
    Silence,
}

pub struct Node {
    pub url: String,
    is_over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Node {
    /// Answers questions by method and parameters.
    pub fn start(answer: impl Fn(&str, &Value) -> Answer + Send + 'static) -> Self {
        Self::serve(move |body| {
            let question: Value = serde_json::from_str(body).unwrap();
            let id = &question["id"];
            match answer(question["method"].as_str().unwrap(), &question["params"]) {
                Answer::Result(text) => {
                    let _: &RawValue = serde_json::from_str(&text).expect("a script of JSON");
                    Some(format!("{{\"id\":{id},\"result\":{text},\"error\":null}}"))
                }
                Answer::Error(code, message) => {
                    let error = json!({ "code": code, "message": message });
                    Some(json!({ "id": id, "result": null, "error": error }).to_string())
                }
                Answer::Silence => None,
            }
        })
    }

    /// Answers whatever HTTP request by its body.
    pub fn serve(answer: impl Fn(&str) -> Option<String> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                exchange(stream, &answer);
            }
        });
        Self { url, is_over, thread: Some(thread) }
    }
}

fn exchange(mut stream: TcpStream, answer: &dyn Fn(&str) -> Option<String>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    if let Some(text) = answer(std::str::from_utf8(&body).unwrap()) {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
        let _ = stream.write_all((head + &text).as_bytes());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}
