//! The real binary, driven as scripts drive it: every command's contract, exit codes, JSON, faults and kills.
#![allow(clippy::unwrap_used)]

mod answerer;
mod backup;
mod certify;
mod clients;
mod console;
mod contract;
mod ctl;
mod demo;
mod deploy;
mod doctor;
mod gateway;
mod guide;
mod history;
mod kill;
mod load;
mod loss;
mod mixed;
mod node;
mod objects;
mod process;
mod query;
mod rest;
mod revoked;
mod rot;
mod serve;
mod settle;
mod settler;
mod shipped;
mod statement;
#[path = "../../../backup/tests/store/mod.rs"]
mod store;
mod traces;
mod upgrade;
mod watch;
