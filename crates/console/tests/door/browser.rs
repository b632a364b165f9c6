//! As much of a browser as a console needs: a cookie, a token, and one question after the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

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
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// A live page.
pub(crate) struct Live(BufReader<TcpStream>);

impl Browser {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, host: address.to_string(), cookie: None, tossed: None, token: String::new() }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.host)
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

    fn send_post(&self, path: &str, body: &Value) -> TcpStream {
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

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> TcpStream {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.host);
        if let Some(cookie) = &self.cookie {
            let name = format!("surety-console-{}", self.address.port());
            // Whoever serves another port of this host may have put one of the same name before it.
            let tossed = self.tossed.as_ref().map_or(String::new(), |tossed| format!("{name}={tossed}; "));
            request.push_str(&format!("cookie: other=1; {tossed}{name}={cookie}\r\n"));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = body.unwrap_or_default();
        request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
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
    fn of(mut stream: TcpStream) -> Self {
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
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
