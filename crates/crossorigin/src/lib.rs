//! Automatic cross-origin (spec/proxy.md §9): CORS headers on responses, and requests and
//! responses as JSON-P. The proxy uses it for what it relays, the handler for what it held.

pub mod cors;
pub mod json;
mod query;
mod request;
mod response;

pub use request::{Converted, Options, callback, convert};
pub use response::Jsonp;
