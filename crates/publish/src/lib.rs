//! The command-line publisher: makes one item of what is asked for and sends it to a server, over
//! HTTP, HTTPS or ZeroMQ (spec/publish.md §13). Called by the program pushpin-publish.

mod http;
mod item;
mod request;
mod tls;
pub mod words;

use std::fmt;

pub use item::{Content, Item};
pub use request::Request;

/// Why nothing was published; the text is shown behind `Error: `.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// How the publisher proves who it is; over HTTPS only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `USER:PASSWORD`.
    Basic(String),
    /// A token.
    Bearer(String),
}

/// Sends an item to `spec`: a GRIP URL (`http:`, `https:`), or else a ZeroMQ address that a PUSH
/// socket connects to.
///
/// # Errors
/// The address cannot be used or reached, or the server did not answer with 200; the text is then
/// what the server said.
pub fn send(spec: &str, auth: Option<&Auth>, item: &Item) -> Result<(), Error> {
    if spec.starts_with("http:") || spec.starts_with("https:") {
        return http::send(spec, auth, &item.to_json());
    }
    let push = || -> Result<(), zmq::Error> {
        let socket = zmq::Context::new().socket(zmq::PUSH)?;
        socket.connect(spec)?;
        // the default linger: leaving waits until the server has it
        socket.send(item.to_tnetstring(), 0)
    };
    push().map_err(|error| Error::new(format!("{spec}: {error}")))
}
