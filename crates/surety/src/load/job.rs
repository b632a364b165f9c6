//! What a generator is to do, as one process tells it another.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway::{LinkConfig, Macs};
use iso8583::{Codec, Draft, EncodeError, Message};
use loadtest::iso::{Host, HostError, HostOptions, Seal, Speech};
use loadtest::rest::{Asset, AssetError, Door, DoorError, DoorOptions, DoorTls};
use loadtest::{Clients, Front, Injection, Options, Pace, Rate, Scenario, Share};
use serde::{Deserialize, Serialize};
use surety_protocol::Time;
use tokio::sync::watch;

use super::{DoorArgs, Engine, Load, Transport};
use crate::ctl::Target;
use crate::directory::{self, Serving};
use crate::exit::{Exit, Failure};
use crate::remote::{self, Role};

/// Payments under way in a closed loop, unless something else is said.
const IN_FLIGHT_CLOSED: u32 = 64;
/// The same in an open one: no more.
const IN_FLIGHT_OPEN: u32 = 10_000;

/// Payments, how they arrive, and where they go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Job {
    data: Option<PathBuf>,
    connect: Option<SocketAddr>,
    identity: Option<PathBuf>,
    scenario: String,
    /// As on the command line. None: a closed loop.
    rate: Option<String>,
    is_poisson: bool,
    in_flight: u32,
    duration_ns: u64,
    acks: Option<PathBuf>,
    checks_money: bool,
    injection: Option<Injection>,
    door: Option<DoorJob>,
    share: Share,
    /// The engine's process, by the one generator that watches it.
    engine_process: Option<u32>,
}

/// A front door.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct DoorJob {
    address: SocketAddr,
    kind: DoorKind,
    tls: Option<(PathBuf, String)>,
}

/// What has to be known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum DoorKind {
    Rest {
        token: PathBuf,
        asset: String,
    },
    /// The file of the link's settings.
    Iso {
        link: PathBuf,
    },
}

impl DoorJob {
    fn of(transport: Transport, door: &DoorArgs) -> Result<Option<Self>, Failure> {
        let wants = |what: &str| Err(Failure::new(Exit::Usage, what));
        let tls = door.door_ca.clone().zip(door.door_name.clone());
        let kind = match (transport, &door.token, &door.link) {
            (Transport::Quic, ..) if door.door.is_none() => return Ok(None),
            (Transport::Quic, ..) => return wants("--door is for --transport rest and --transport iso8583"),
            (Transport::Rest, Some(token), None) => {
                // It is told before the run what makes no sense.
                let is_near = door.door.is_none_or(|address| address.ip().to_canonical().is_loopback());
                if tls.is_none() && !is_near {
                    return wants(
                        "--door is another machine, and the token would travel there in the clear: name its authority with --door-ca",
                    );
                }
                let _: Asset = door.asset.parse().map_err(usage)?;
                DoorKind::Rest { token: token.clone(), asset: door.asset.clone() }
            }
            (Transport::Iso8583, None, Some(link)) => {
                LinkConfig::load(link).map_err(usage)?;
                DoorKind::Iso { link: link.clone() }
            }
            (Transport::Rest, ..) => return wants("--transport rest wants --door and --token"),
            (Transport::Iso8583, ..) => return wants("--transport iso8583 wants --door and --link"),
        };
        match door.door {
            Some(address) => Ok(Some(Self { address, kind, tls })),
            None => wants("a front door is named by --door"),
        }
    }

    async fn open(&self, injection: Option<Injection>, seed: u64) -> Result<Front, Failure> {
        let tls = self.tls.clone().map(|(authority, name)| DoorTls { authority, name });
        let address = self.address;
        match &self.kind {
            DoorKind::Rest { token, asset } => {
                let text = std::fs::read_to_string(token)
                    .map_err(|error| usage(format!("{}: {error}", token.display())))?;
                let token = text.trim().to_owned();
                let asset = asset.parse().map_err(|error: AssetError| usage(error))?;
                let options = DoorOptions { address, token, asset, tls, injection, seed };
                let door = Door::open(options).await.map_err(|error| door_failure(&error))?;
                Ok(Front::Rest(Arc::new(door)))
            }
            DoorKind::Iso { link } => {
                let config = LinkConfig::load(link).map_err(usage)?;
                let macs = config.mac.as_ref().map(Macs::open).transpose().map_err(usage)?;
                let seal = macs.map(|macs| Arc::new(LinkSeal(macs)) as Arc<dyn Seal>);
                let speech =
                    Speech { header: config.header, codec: config.codec(), rules: config.rules.clone() };
                let options = HostOptions { address, speech, seal, tls, injection, seed };
                let host = Host::open(options).await.map_err(|error| host_failure(&error))?;
                Ok(Front::Iso(Arc::new(host)))
            }
        }
    }
}

/// The codes of a link's messages, made with its own keys.
struct LinkSeal(Macs);

impl Seal for LinkSeal {
    fn seal(&self, draft: &mut Draft, codec: Codec) -> Result<(), EncodeError> {
        self.0.sign(draft, codec)
    }

    fn is_right(&self, message: &Message<'_>, bytes: &[u8]) -> bool {
        self.0.is_right(message, bytes)
    }
}

fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, error)
}

fn door_failure(error: &DoorError) -> Failure {
    let exit = match error {
        DoorError::Connect { .. } | DoorError::Closed { .. } => Exit::Unreachable,
        DoorError::Authority(_) | DoorError::Name(_) | DoorError::Token => Exit::Usage,
    };
    Failure::new(exit, error)
}

fn host_failure(error: &HostError) -> Failure {
    match error {
        HostError::Door(error) => door_failure(error),
        HostError::SignOn { .. } => Failure::new(Exit::Unreachable, error),
        HostError::NoCurrency | HostError::Scale(_) => usage(error),
    }
}

impl Job {
    /// A run's, as the command line has it.
    pub(super) fn of(load: &Load) -> Result<Self, Failure> {
        let in_flight = |otherwise| load.in_flight.unwrap_or(otherwise);
        let (pace, in_flight) = match (load.rate.clone(), load.poisson) {
            (None, _) => {
                let in_flight = in_flight(IN_FLIGHT_CLOSED);
                (Pace::Max { in_flight: in_flight as usize }, in_flight)
            }
            (Some(rate), false) => (Pace::Constant { rate }, in_flight(IN_FLIGHT_OPEN)),
            (Some(rate), true) => (Pace::Poisson { rate }, in_flight(IN_FLIGHT_OPEN)),
        };
        if in_flight < load.processes {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "--in-flight {in_flight} leaves nothing for some of {} processes: give at least one payment to each",
                    load.processes
                ),
            ));
        }
        let job = Self::new(&load.engine, &pace, load.duration, in_flight)?;
        let door = DoorJob::of(load.transport, &load.door)?;
        Ok(Self { door, acks: load.acks.clone(), checks_money: load.check, injection: load.inject, ..job })
    }

    /// The whole of a run without files and checks.
    pub(super) fn new(engine: &Engine, pace: &Pace, duration: Time, in_flight: u32) -> Result<Self, Failure> {
        let (rate, is_poisson) = match pace {
            Pace::Max { .. } => (None, false),
            Pace::Constant { rate } => (Some(rate.to_string()), false),
            Pace::Poisson { rate } => (Some(rate.to_string()), true),
        };
        let engine_process =
            engine.data.as_deref().map(Serving::find).transpose()?.map(|serving| serving.pid);
        Ok(Self {
            data: engine.data.clone(),
            connect: engine.connect,
            identity: engine.identity.clone(),
            scenario: engine.scenario.clone(),
            rate,
            is_poisson,
            in_flight,
            duration_ns: duration.0,
            acks: None,
            checks_money: false,
            injection: None,
            door: None,
            share: Share::WHOLE,
            engine_process,
        })
    }

    /// One generator's part of it. One of them watches the engine's process for all.
    pub(super) fn shared(&self, share: Share) -> Self {
        let engine_process = self.engine_process.filter(|_| share.index == 0);
        Self { share, engine_process, ..self.clone() }
    }

    /// How long payments are begun.
    pub(super) const fn duration(&self) -> Duration {
        Duration::from_nanos(self.duration_ns)
    }

    /// The payments.
    pub(super) fn scenario(&self) -> Result<Scenario, Failure> {
        Scenario::load(&self.scenario).map_err(|error| Failure::new(Exit::Usage, error))
    }

    /// Who sends the payments of a run that is not spoiled, and who may make what they need.
    pub(super) async fn clients(&self) -> Result<Clients, Failure> {
        let (address, identity) = self.target().resolve(Role::Authorizer)?;
        let authorizer = remote::connect(address, &identity).await?;
        let Some(data) = &self.data else { return Ok(Clients { authorizer, settler: None, admin: None }) };
        let own = |name: &str| directory::identity(data, name);
        let settler = remote::connect(address, &own("settler")).await?;
        let admin = remote::connect(address, &own("admin")).await?;
        Ok(Clients { authorizer, settler: Some(settler), admin: Some(admin) })
    }

    /// Clients and options of a run. One of several generators leaves it to the one process behind them to make what is needed.
    pub(super) async fn prepare(&self, stop: watch::Receiver<bool>) -> Result<(Clients, Options), Failure> {
        let scenario = self.scenario()?;
        let mut options = Options::new(scenario, self.pace()?, self.duration());
        options.in_flight_max = self.in_flight as usize;
        options.acks.clone_from(&self.acks);
        options.checks_money = self.checks_money;
        options.share = self.share;
        options.engine_process = self.engine_process;
        options.stop = Some(stop);
        let mut clients = match self.share {
            Share::WHOLE => self.clients().await?,
            _ => {
                let (address, identity) = self.target().resolve(Role::Authorizer)?;
                let authorizer = remote::connect(address, &identity).await?;
                Clients { authorizer, settler: None, admin: None }
            }
        };
        if let Some(door) = &self.door {
            let seed = options.scenario.seed ^ u64::from(self.share.index);
            options.door = Some(door.open(self.injection, seed).await?);
        } else if let Some(injection) = self.injection {
            let (address, identity) = self.target().resolve(Role::Authorizer)?;
            let seed = options.scenario.seed ^ u64::from(self.share.index);
            let (spoiled, faults) = remote::connect_spoiled(address, &identity, injection, seed).await?;
            (clients.authorizer, options.faults) = (spoiled, Some(faults));
        }
        Ok((clients, options))
    }

    fn pace(&self) -> Result<Pace, Failure> {
        let Some(rate) = &self.rate else { return Ok(Pace::Max { in_flight: self.in_flight as usize }) };
        let rate = rate.parse::<Rate>().map_err(|error| Failure::new(Exit::Usage, error))?;
        Ok(if self.is_poisson { Pace::Poisson { rate } } else { Pace::Constant { rate } })
    }

    fn target(&self) -> Target {
        Target { data: self.data.clone(), connect: self.connect, identity: self.identity.clone() }
    }
}
