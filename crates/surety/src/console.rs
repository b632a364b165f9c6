//! `serve --console` and `ctl console-link`: the console in the engine's process, and the way in.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use console::link::{LINK_LIFE, Link};
use console::{Asset, Console, ConsoleConfig, PolicyWords, StartError, TlsFiles};
use history::Asker;
use serde_json::{Value, json};
use server::{Authority, Running};
use surety_protocol::{EngineId, Policy, Time};

use crate::config::ConsoleSettings;
use crate::ctl::Target;
use crate::directory::{self, Serving};
use crate::exit::{Exit, Failure, say, tell};
use crate::policy_text::PolicyText;
use crate::remote::{self, Role, Session};

/// The console of this process.
pub(crate) struct Served {
    console: Console,
    authority: Arc<Authority>,
    is_tls: bool,
}

impl Served {
    /// Starts it, if the settings name an address. Its pages ask `history`.
    pub(crate) fn start(
        running: &Running,
        data: &Path,
        settings: &ConsoleSettings,
        history: &Asker,
    ) -> Result<Option<Self>, Failure> {
        let Some(listen) = settings.listen else { return Ok(None) };
        let authority = Authority::open(data).map_err(|error| Failure::new(Exit::Failure, error))?;
        let authority = Arc::new(authority);
        let tls = tls_files(settings, data)?;
        let history = Some(history.clone());
        let (assets, settler) = (assets(settings)?, settings.settler);
        let config = ConsoleConfig { listen, tls, assets, history, policy: POLICY_WORDS, settler };
        let console = Console::start(running.inside(), Arc::clone(&authority), config);
        let is_tls = settings.certificate.is_some();
        Ok(Some(Self { console: console.map_err(|error| failure(&error))?, authority, is_tls }))
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.console.address()
    }

    /// True if it speaks TLS.
    pub(crate) const fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Reads everything again. Each is taken if it can be read, whatever becomes of the other: who was revoked is out also where the
    /// console's own certificate is being renewed.
    pub(crate) fn reload(&self) {
        if let Err(error) = self.authority.reload() {
            tracing::error!(%error, "who is signed in at the console is judged by authority and revocations as they were");
        }
        if let Err(error) = self.console.reload() {
            tracing::error!(%error, "the console shakes hands by its certificate, and the authority, as they were");
        }
    }
}

/// Refuses settings that no console could be started with, before anything else is.
pub(crate) fn check(settings: &ConsoleSettings) -> Result<(), Failure> {
    match (settings.listen, tls_files(settings, Path::new(""))?) {
        (None, Some(_)) => {
            let message = "console: a certificate, and no address to listen on: set console.listen, or give --console IP:PORT";
            Err(Failure::new(Exit::Usage, message))
        }
        (None, None) if settings.settler.is_some() => {
            let message = "console: a settler to ask, and no address to listen on: set console.listen, or give --console IP:PORT";
            Err(Failure::new(Exit::Usage, message))
        }
        (Some(listen), None) if !listen.ip().is_loopback() => Err(failure(&StartError::NotLoopback(listen))),
        _ => assets(settings).map(|_| ()),
    }
}

/// Refuses files that no console could be started with, before the log is replayed. They may be better in a moment, as while they are renewed.
pub(crate) fn check_files(settings: &ConsoleSettings, data: &Path) -> Result<(), Failure> {
    match tls_files(settings, data)? {
        Some(files) => files.check().map_err(|error| failure(&error.into())),
        None => Ok(()),
    }
}

/// The files of its TLS, if it is to speak it: both, or neither.
fn tls_files(settings: &ConsoleSettings, data: &Path) -> Result<Option<TlsFiles>, Failure> {
    match (&settings.certificate, &settings.key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            authorities: server::pki_path(data).join("ca.pem"),
        })),
        _ => Err(Failure::new(
            Exit::Usage,
            "console: a certificate and its key go together: set console.certificate and console.key, or neither",
        )),
    }
}

/// The assets of the settings, checked.
pub(crate) fn assets(settings: &ConsoleSettings) -> Result<Vec<Asset>, Failure> {
    let Some(texts) = &settings.assets else { return Ok(vec![Asset::amp()]) };
    let read = |text: &String| {
        Asset::read(text).map_err(|error| Failure::new(Exit::Usage, format!("console.assets: {error}")))
    };
    texts.iter().map(read).collect()
}

fn failure(error: &StartError) -> Failure {
    let exit = match error {
        StartError::NotLoopback(_) => Exit::Usage,
        StartError::Listen { .. } => Exit::Address,
        StartError::Tls(_) | StartError::Thread(_) => Exit::Failure,
    };
    Failure::caused(exit, "no console", error)
}

/// Policies as `ctl policy` writes and reads them.
const POLICY_WORDS: PolicyWords = PolicyWords { write: write_policy, read: read_policy };

fn write_policy(policy: &Policy) -> Value {
    PolicyText::from(policy).to_json()
}

fn read_policy(value: &Value) -> Result<Policy, String> {
    let text = serde_json::from_value::<PolicyText>(value.clone()).map_err(|error| error.to_string())?;
    text.to_policy().map_err(|error| error.to_string())
}

/// How to make a link.
#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    /// Whose development identity signs, with --data: admin or reader, where --identity names no other
    #[arg(long = "as", value_name = "NAME", default_value = "admin", value_parser = ["admin", "reader"])]
    role: String,
    /// Where a browser reaches the console, as through a tunnel: http://localhost:8080/ [default: where --data says it listens]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// `ctl console-link`.
pub(crate) async fn link(target: &Target, args: &LinkArgs, json: bool) -> Result<(), Failure> {
    let role = if args.role == "reader" { Role::Reader } else { Role::Admin };
    let url = base_url(target, args.url.as_deref())?;
    let (_, file) = target.resolve(role)?;
    // Asked over the wire: so it is known before whether the engine takes this identity, and what time it has.
    let session = Session::open(target, role).await?;
    let client = session.client();
    let link = make(&file, client.hello().engine, client.now())?;
    let address = format!("{url}#{}", link.to_text());
    if json {
        say(json!({ "ok": true, "url": address, "seconds": LINK_LIFE.0 / 1_000_000_000 }))?;
    } else {
        say(address)?;
        tell(format_args!("opens the console once, within {} s", LINK_LIFE.0 / 1_000_000_000));
    }
    Ok(())
}

/// Signs a link with an identity file.
pub(crate) fn make(file: &Path, engine: EngineId, now: Time) -> Result<Link, Failure> {
    let identity = remote::identity(file)?;
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| Failure::new(Exit::Failure, error))?;
    let link = Link::sign(&identity, engine, now, u128::from_le_bytes(nonce));
    link.map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", file.display())))
}

/// The address of a console.
pub(crate) fn url(address: SocketAddr, is_tls: bool) -> String {
    let scheme = if is_tls { "https" } else { "http" };
    format!("{scheme}://{address}/console/")
}

fn base_url(target: &Target, wanted: Option<&str>) -> Result<String, Failure> {
    if let Some(wanted) = wanted {
        if !is_console(wanted) {
            let message = format!(
                "--url `{wanted}` is no address of a console: without TLS it is on the loopback alone, elsewhere through a tunnel, and whoever has \
                 the link may sign in; write http://localhost:PORT/ or https://HOST:PORT/"
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        let base = wanted.trim_end_matches('/').trim_end_matches("/console");
        return Ok(format!("{base}/console/"));
    }
    let Some(data) = &target.data else {
        return Err(Failure::new(
            Exit::Usage,
            "where is the console? give --url http://HOST:PORT/ with --connect",
        ));
    };
    let serving = Serving::find(data)?;
    let address = serving.console.ok_or_else(|| {
        let message =
            format!("{} is served without a console: start `surety serve --console IP:PORT`", data.display());
        Failure::new(Exit::Unreachable, message)
    })?;
    if serving.console_tls && address.ip().is_unspecified() {
        let message = format!(
            "the console listens on every address of its machine ({address}): give --url https://HOST:{port}/ by a name that is in its certificate",
            port = address.port()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(url(address, serving.console_tls))
}

/// True for the loopback, by number or as `localhost`, and with TLS for any host that can be one: nobody else is to be given a link.
fn is_console(url: &str) -> bool {
    let host = |rest: &str| {
        let rest = rest.strip_suffix('/').unwrap_or(rest).to_owned();
        rest.strip_suffix("/console").map_or(rest.clone(), str::to_owned)
    };
    if let Some(rest) = url.strip_prefix("https://") {
        return is_authority(&host(rest));
    }
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let host = host(rest);
    if let Some(port) = host.strip_prefix("localhost") {
        return port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    }
    let address = host.parse::<SocketAddr>().map(|address| address.ip());
    let name = host.trim_start_matches('[').trim_end_matches(']');
    address.ok().or_else(|| name.parse().ok()).is_some_and(|address: std::net::IpAddr| address.is_loopback())
}

/// True for `name`, `name:port` and an address of IPv6 in brackets, with a port or without.
fn is_authority(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
    };
    is_port && inner.map_or_else(|| is_name(name), |inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
}

/// A link for one of a data directory's own identities.
pub(crate) fn own_link(
    data: &Path,
    name: &str,
    running: &Running,
    console: SocketAddr,
) -> Result<String, Failure> {
    let link = make(&directory::identity(data, name), running.engine(), remote::now())?;
    Ok(format!("{}#{}", url(console, false), link.to_text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_pass_through_their_words_unchanged() {
        let policy = Policy { life_max: Time::from_secs(86_400), late_capture: 1, ..Policy::default() };
        assert_eq!(read_policy(&write_policy(&policy)), Ok(policy));
        let mut wrong = write_policy(&policy);
        wrong["life_max"] = json!("soon");
        assert!(read_policy(&wrong).unwrap_err().contains("soon"));
    }

    #[test]
    fn the_address_of_a_console_is_given_or_found() {
        let nowhere = Target { data: None, connect: None, identity: None };
        for given in ["http://localhost:8080", "http://localhost:8080/", "http://localhost:8080/console/"] {
            assert_eq!(base_url(&nowhere, Some(given)).unwrap(), "http://localhost:8080/console/");
        }
        for given in [
            "http://127.0.0.1:1",
            "http://[::1]:1/",
            "http://localhost",
            "http://[::1]",
            "http://127.0.0.1/console",
            "https://console.example:8443/",
            "https://10.0.0.1/console/",
            "https://[2001:db8::1]:1",
        ] {
            assert!(is_console(given), "{given}");
        }
        for wrong in [
            "localhost:8080",
            "ftp://localhost/",
            "https://",
            "https:///console",
            "https://a@b/",
            "https://a/b",
            "https://a#b",
            "https://:1",
            "https://a:b:c",
            "https://h:99999",
            "https://[::1",
            "http://x:8080/",
            "http://10.0.0.1:1/",
            "http://localhost.evil.example/",
            "http://localhost:1@evil.example/",
            "http://localhost:1/#y",
            "http://localhost:1/?y",
            "http://",
        ] {
            assert_eq!(base_url(&nowhere, Some(wrong)).unwrap_err().exit(), Exit::Usage, "{wrong}");
        }
        assert_eq!(base_url(&nowhere, None).unwrap_err().exit(), Exit::Usage);
    }

    #[test]
    fn assets_of_the_settings_are_checked() {
        let settings = |texts: &[&str]| ConsoleSettings {
            assets: Some(texts.iter().map(|text| (*text).to_owned()).collect()),
            ..ConsoleSettings::default()
        };
        assert_eq!(assets(&ConsoleSettings::default()).unwrap(), [Asset::amp()]);
        assert_eq!(assets(&settings(&["1=AMP/18", "2=USDC/6"])).unwrap().len(), 2);
        assert_eq!(assets(&settings(&["AMP"])).unwrap_err().exit(), Exit::Usage);
    }
}
