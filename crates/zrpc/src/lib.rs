//! The calls between proxy and handler (spec/internal-rpc.md): the envelope of §2.2, and the
//! contents of `inspect`, `accept`, the retry packet and WebSocket control packets. Pure: bytes
//! in, bytes out.

pub mod accept;
pub mod control;
mod envelope;
mod fields;
pub mod inspect;
pub mod retry;
mod session;

pub use envelope::{Request, Response, write_error, write_request, write_success};
pub use fields::Error;
pub use session::{HttpRequest, HttpResponse, Rid, Session};

#[cfg(test)]
mod tests;
