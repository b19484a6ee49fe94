//! Stats (spec/stats.md): the packets of the public and the internal stats socket, and the
//! sums behind them.
//!
//! Handler and proxy write packets with [`Packet::encode`] and read the other's with
//! [`Packet::parse`]. [`Reports`], [`Activity`] and [`Maxima`] are pure state: they are told
//! the time and asked what is due.

mod activity;
mod counters;
mod maxima;
mod packet;
mod report;

pub use activity::Activity;
pub use counters::{Counters, Report};
pub use maxima::Maxima;
pub use packet::{Body, ConnKind, Error, Format, Mode, Packet, Transport};
pub use report::Reports;

/// A route's explicit id; none for everything without one.
pub type Route = Option<std::sync::Arc<str>>;

/// Milliseconds between two looks at the sums of `activity`, `counts` and `conn-max`.
pub const AGGREGATE_MS: u64 = 100;

#[cfg(test)]
mod tests;
