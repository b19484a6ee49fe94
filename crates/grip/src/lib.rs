//! GRIP rules without I/O: what a backend instructs (spec/grip.md) and what is published
//! (spec/publish.md §3).
//!
//! The handler parses instructions and items with this crate and asks it for filters, header
//! merging and body patches; nothing here keeps state or knows the time.

mod base64;
pub mod control;
mod fields;
pub mod filter;
mod instruct;
mod item;
mod json_instruct;
pub mod jsonpatch;
mod links;
mod merge;
mod sessions;
mod status;
mod value;

pub use fields::{Params, list_pieces, parse_piece};
pub use instruct::{
    Channel, HoldMode, Instruct, KeepAlive, KeepAliveMode, NextLink, Reply, ResponseHead, is_hop,
};
pub use item::{
    Action, Body, Item, ResponseFormat, StreamFormat, WsFormat, WsType, parse_items, parse_message,
};
pub use merge::merge_headers;
pub use sessions::{DetectRule, SessionInfo};
pub use status::reason;
pub use value::Value;

/// Header names and values in order, as relayed to a client.
pub type Headers = Vec<(String, Vec<u8>)>;

/// Most filters on one channel (spec/grip.md §9).
pub const FILTERS_MAX: usize = 5;

#[cfg(test)]
mod tests;
