//! The Prometheus text format, version 0.0.4: what the programs' metrics listeners answer. Pure;
//! the listener is in `admin`.
//!
//! Nothing here is for hot paths: engines count in plain integers of their own, and a snapshot of
//! these is written out when somebody asks.

mod histogram;
mod merged;
mod text;

pub use histogram::Histogram;
pub use merged::{Merged, with_prefix};
pub use text::{Family, Kind, Text, Value, is_prefix};
