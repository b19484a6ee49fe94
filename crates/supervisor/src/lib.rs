//! The supervisor: reads the configuration, starts connmgr, proxy and handler, gathers their
//! logs, and stops them all when asked to or when one of them dies (spec/programs.md §2).
//!
//! [`run`] is the whole program behind its command line. `plan` says from the settings what to
//! start, `lifecycle` is the state machine of running and stopping; both do no I/O. The rest
//! is processes, files and signals.

mod ahead;
mod balance;
mod board;
mod certs;
mod child;
mod cost;
mod fault;
mod find;
mod levels;
mod lifecycle;
mod limits;
mod lock;
mod merge;
mod notify;
mod plan;
mod ports;
mod probe;
mod run;
mod server;
mod tie;
mod values;
pub mod words;

pub use run::{Options, check, run};
