//! As much of a browser as a console needs: a cookie, a token, and one question after the other; over TLS with a certificate or without.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};

/// No answer takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody's browser.
#[derive(Clone)]
pub(crate) struct Browser {
    address: SocketAddr,
    pub(crate) host: String,
    pub(crate) cookie: Option<String>,
    pub(crate) tossed: Option<String>,
    pub(crate) token: String,
    /// None for plain HTTP.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// What requests go over.
trait Line: Read + Write {}
impl<T: Read + Write> Line for T {}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// A live page.
pub(crate) struct Live(BufReader<Box<dyn Line>>);

impl Browser {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            host: address.to_string(),
            cookie: None,
            tossed: None,
            token: String::new(),
            tls: None,
        }
    }

    pub(crate) fn origin(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.host)
    }

    pub(crate) fn sign_in(&mut self, link: &str) -> Answer {
        self.sign_in_with(&json!({ "link": link }))
    }

    pub(crate) fn sign_in_with(&mut self, body: &Value) -> Answer {
        let answer = self.post("/console/api/session", body);
        if let Some(cookie) = answer.header("set-cookie") {
            let value = cookie.split(';').next().and_then(|pair| pair.split_once('='));
            self.cookie = value.map(|(_, value)| value.to_owned());
            self.token = answer.json()["token"].as_str().unwrap_or_default().to_owned();
        }
        answer
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        let token = self.token.clone();
        self.ask("GET", path, &[("x-surety-token", token.as_str())], None)
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Answer {
        Answer::of(self.send_post(path, body))
    }

    /// Asks for something, and is gone before it is answered.
    pub(crate) fn post_and_leave(&mut self, path: &str, body: &Value) {
        drop(self.send_post(path, body));
    }

    fn send_post(&self, path: &str, body: &Value) -> Box<dyn Line> {
        let origin = self.origin();
        let headers = [
            ("origin", origin.as_str()),
            ("sec-fetch-site", "same-origin"),
            ("content-type", "application/json"),
            ("x-surety-token", self.token.as_str()),
        ];
        self.send("POST", path, &headers, Some(&body.to_string()))
    }

    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Answer {
        Answer::of(self.send(method, path, headers, body))
    }

    pub(crate) fn live(&mut self) -> Live {
        let token = [("x-surety-token", self.token.as_str())];
        let mut reader = BufReader::new(self.send("GET", "/console/api/live", &token, None));
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        Live(reader)
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Box<dyn Line> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.host);
        if let Some(cookie) = &self.cookie {
            let kept_apart = if self.tls.is_some() { "__Host-" } else { "" };
            let name = format!("{kept_apart}surety-console-{}", self.address.port());
            // Whoever serves another port of this host may have put one of the same name before it.
            let tossed = self.tossed.as_ref().map_or(String::new(), |tossed| format!("{name}={tossed}; "));
            request.push_str(&format!("cookie: other=1; {tossed}{name}={cookie}\r\n"));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = body.unwrap_or_default();
        request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut line: Box<dyn Line> = match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let name = ServerName::try_from("localhost").unwrap();
                Box::new(StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream))
            }
        };
        line.write_all(request.as_bytes()).unwrap();
        line.flush().unwrap();
        line
    }
}

impl Live {
    /// The next line that says something: what comes in chunks has their lengths between.
    pub(crate) fn next(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the live page has ended");
            if line.starts_with("data:") || line.starts_with("event:") {
                return line.trim_end().to_owned();
            }
        }
    }
}

impl Answer {
    fn of(mut line: Box<dyn Line>) -> Self {
        let mut text = Vec::new();
        // Whoever shuts the door on a handshake says so in TLS' own way, and that is an answer without a status.
        let _ = line.read_to_end(&mut text);
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Self { status: status.unwrap_or(0), headers, body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}
