//! Listeners for operators, in small threads of their own beside a program's loops: what is asked
//! there waits for the loops, never the other way round.

mod address;
mod debug;
mod later;
mod listen;
mod scrape;

pub use address::{Address, DebugSpec, MetricsSpec};
pub use debug::serve_debug;
pub use scrape::{Answer, Reply, Rules, serve, serve_metrics, serve_port};
