//! The front doors as their users meet them: the real processes, clients that share nothing with them, and bare echoes of the same bytes.

mod echo;
mod host;
mod http;
mod programs;
mod wire;

pub use echo::{axum_echo, tcp_echo};
pub use host::{Host, parse_and_build_ns};
pub use http::Application;
pub use programs::{AMOUNT, DOOR, Door, Embedded, Program, surety};
pub use wire::{Speech, many_in_flight, one_in_flight, open_idle};
