//! Where `top` has its figures from.

use core::fmt;
use std::net::SocketAddr;

use console::reading::Reading;

use super::scrape::scrape;
use super::wire::Wire;
use crate::ctl::Target;
use crate::directory::Serving;
use crate::exit::{Exit, Failure};

/// An engine that is looked at.
pub(super) enum Source {
    /// By its admin listener, which tells everything.
    Admin(SocketAddr),
    /// By its wire; not listened to before it is asked, or since it was silent.
    Wire { target: Target, address: SocketAddr, wire: Option<Box<Wire>> },
}

impl Source {
    /// As the command line says.
    pub(super) fn of(target: &Target, admin: Option<SocketAddr>) -> Result<Self, Failure> {
        let usage = |message| Err(Failure::new(Exit::Usage, message));
        match (admin, &target.data, target.connect) {
            (Some(admin), ..) => Ok(Self::Admin(admin)),
            (None, Some(_), _) if target.identity.is_some() => {
                usage("--identity goes with --connect: an admin listener asks nobody who they are")
            }
            (None, Some(data), _) => Serving::find(data)?.admin.map(Self::Admin).ok_or_else(|| {
                let message = format!(
                    "{} is served without an admin listener: start `surety serve --admin IP:PORT`",
                    data.display()
                );
                Failure::new(Exit::Unreachable, message)
            }),
            (None, None, Some(address)) => Ok(Self::Wire { target: target.clone(), address, wire: None }),
            (None, None, None) => usage(
                "which engine? one of --data DIR, --admin IP:PORT and --connect IP:PORT with --identity FILE is required",
            ),
        }
    }

    /// How things are now.
    ///
    /// # Errors
    /// Nobody answers; the next time it is looked for anew.
    pub(super) async fn read(&mut self) -> Result<Reading, Failure> {
        match self {
            Self::Admin(address) => scrape(*address).await,
            Self::Wire { target, wire, .. } => {
                let mut open = match wire.take() {
                    Some(open) => open,
                    None => Box::new(Wire::open(target).await?),
                };
                let reading = open.read().await?;
                *wire = Some(open);
                Ok(reading)
            }
        }
    }

    /// True if what is not there is not, rather than not told.
    pub(super) const fn tells_all(&self) -> bool {
        matches!(self, Self::Admin(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin(address) | Self::Wire { address, .. } => address.fmt(f),
        }
    }
}
