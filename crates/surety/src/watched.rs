//! `--metrics`: what the processes beside the engine tell whoever watches them.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use clap::Args as ClapArgs;
use surety_protocol::PROTOCOL_VERSION;
use telemetry::{Listener, Page, Source};

use crate::exit::{Exit, Failure};

/// Where a process tells how it is.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct MetricsArgs {
    /// Where /metrics (Prometheus), /livez, /readyz and /version are answered over HTTP, by a listener without authentication
    #[arg(long, value_name = "IP:PORT")]
    metrics: Option<SocketAddr>,
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Life {
    Starting = 0,
    Serving = 1,
    Stopping = 2,
}

/// The numbers of one command.
pub(crate) trait Numbers: Send + Sync + 'static {
    /// Writes all of them.
    fn tell(&self, page: &mut Page);

    /// What is told at an address of its own, as one JSON object.
    fn document(&self, _name: &str) -> Option<String> {
        None
    }
}

/// What is told of a process: its numbers once it has some, and whether it serves.
struct Told<N> {
    service: &'static str,
    life: AtomicU8,
    numbers: std::sync::OnceLock<N>,
}

/// A process as it is watched; by nobody, where nothing was asked for. The listener ends with it.
pub(crate) struct Watched<N> {
    told: Arc<Told<N>>,
    listener: Option<Listener>,
}

impl<N: Numbers> Watched<N> {
    /// Listens, if that is asked for, before anything else is done: a start may take its time, and whoever watches has to see that the
    /// process lives. `service` is what it calls itself.
    pub(crate) fn start(args: MetricsArgs, service: &'static str) -> Result<Self, Failure> {
        let told = Told { service, life: AtomicU8::new(Life::Starting as u8), numbers: Default::default() };
        let told = Arc::new(told);
        let listener = match args.metrics {
            None => None,
            Some(address) => {
                let taken = |error: std::io::Error| Failure::caused(Exit::Address, address, &error);
                let listener = TcpListener::bind(address).map_err(taken)?;
                Some(Listener::start(listener, told.clone())?)
            }
        };
        Ok(Self { told, listener })
    }

    /// Tells these numbers from now on. They are given once.
    pub(crate) fn tell(&self, numbers: N) {
        let _ = self.told.numbers.set(numbers);
    }

    /// Says what the process is doing now.
    pub(crate) fn set_life(&self, life: Life) {
        self.told.life.store(life as u8, Ordering::Release);
    }

    /// Where it is told.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().map(Listener::address)
    }
}

impl<N: Numbers> Source for Told<N> {
    fn ready(&self) -> Result<(), &'static str> {
        match self.life.load(Ordering::Acquire) {
            life if life == Life::Starting as u8 => Err("starting"),
            life if life == Life::Serving as u8 => Ok(()),
            _ => Err("stopping"),
        }
    }

    fn version(&self) -> String {
        let (service, version) = (self.service, env!("CARGO_PKG_VERSION"));
        serde_json::json!({ "service": service, "version": version, "protocol": PROTOCOL_VERSION })
            .to_string()
    }

    fn metrics(&self, page: &mut Page) {
        if let Some(numbers) = self.numbers.get() {
            numbers.tell(page);
        }
        page.build(env!("CARGO_PKG_VERSION"), PROTOCOL_VERSION);
    }

    fn document(&self, name: &str) -> Option<String> {
        self.numbers.get()?.document(name)
    }
}
