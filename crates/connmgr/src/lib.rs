//! The connection manager: clients on one side, ZHTTP on the other.
//!
//! [`Worker`] is the engine: it reads requests, sends ZHTTP packets, writes responses and keeps
//! the sessions' rules (`spec/connmgr.md`, `spec/zhttp.md`), on sockets that it knows through
//! [`Net`] only and on a clock that is an argument. [`driver`] runs it on real ones.

mod answer;
mod client;
mod config;
mod conn;
mod counters;
pub mod driver;
mod flush;
mod keepalive;
mod net;
pub mod options;
mod outqueue;
mod packets;
mod peers;
mod reading;
mod reqmode;
mod request;
mod response;
mod session;
mod survey;
mod target;
mod timeouts;
mod turn;
mod window;
mod words;
mod worker;
mod ws;
mod ws_in;
mod ws_out;

pub use client::{ClientConfig, ClientCounters, Message, Order, Outgo, Outgoing};
pub use config::{Blocks, Config};
pub use counters::Counters;
pub use net::Net;
pub use session::Session;
pub use survey::{LISTENERS_MAX, Named, Phase, Survey};
pub use worker::{Client, Output, Worker};

/// Bytes of state per connection (`--sizes`).
pub const CONNECTION_SIZE: usize = size_of::<conn::Conn>();
