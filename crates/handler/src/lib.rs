//! The handler: holds, channels, publishing, stats.
//!
//! A [`hub::Hub`] and some [`shard::Shard`]s are the engine, pure state machines that exchange
//! messages; [`engine::Handler`] puts them into one thread. The driver has the sockets.

pub mod control;
pub mod driver;
pub mod engine;
pub mod hub;
mod intern;
pub mod limiter;
pub mod message;
mod room;
pub mod settings;
pub mod shard;

pub use engine::Handler;
pub use message::Output;
pub use settings::Settings;
