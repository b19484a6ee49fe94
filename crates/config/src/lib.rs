//! The configuration: the INI rules of the field, include, variables, port offset, and what the
//! programs read out of it. Used by the supervisor, the proxy and the handler (spec/config.md).
//!
//! [`Settings::load`] reads a file once; the getters give typed values with every variable
//! expanded; [`specs`] resolves the ZeroMQ addresses; [`services`] and [`Workers`] say which
//! processes and threads are wanted.

mod ini;
pub mod paths;
pub mod services;
mod settings;
pub mod specs;
mod workers;

pub use services::Services;
pub use settings::{Error, Overrides, Settings};
pub use specs::{ClientSpecs, HandlerSpecs, ProxySpecs};
pub use workers::Workers;
