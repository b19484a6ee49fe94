//! The configuration of all programs (spec/config.md): the file format, `include`, variables and
//! the port offset, typed access by section and key, and the ZeroMQ addresses that follow.
//!
//! Nothing is refused that old files rely on. What is certainly a mistake is kept as a
//! [`Problem`] with file, line and key; the program that reads the value decides.

mod check;
mod ini;
pub mod keys;
pub mod services;
mod settings;
pub mod specs;

pub use ini::{File, Problem};
pub use settings::{CONFIG_DIR, Error, Overrides, Settings};

#[cfg(test)]
mod tests;
