//! The routes file and route look-up (spec/routes.md).
//!
//! [`Table::parse`] reads the lines, [`Table::by_host`] and [`Table::by_id`] find the route of a
//! request. Pure: the caller reads the file and gives a function for the few files that options
//! name. Used by the proxy.

mod condition;
mod scan;
mod table;
mod target;

pub use condition::{JsonpMode, Proto, Route};
pub use scan::Error;
pub use table::{ById, ReadFile, Table};
pub use target::{Destination, Target};

#[cfg(test)]
mod tests;
