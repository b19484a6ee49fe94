//! The command line of the publisher (spec/programs.md §6).

use std::ffi::OsString;

use clap::Parser;

use crate::{Error, Request, send};

/// Publish messages to Pushpin
#[derive(Parser)]
#[command(name = "pushpin-publish", version, max_term_width = 100)]
pub struct Words {
    /// Channel to send to
    channel: OsString,
    /// Content of HTTP body and WebSocket message, or @FILE
    #[arg(allow_hyphen_values = true)]
    content: Option<OsString>,
    /// Payload ID
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    /// Previous payload ID
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    prev_id: String,
    /// Sender meta value
    #[arg(long, value_name = "SENDER", default_value = "", hide_default_value = true)]
    sender: String,
    /// HTTP response code to use
    #[arg(long, value_name = "N", default_value = "200", allow_hyphen_values = true)]
    code: String,
    /// Add HTTP response header
    #[arg(short = 'H', long = "header", value_name = "K: V")]
    headers: Vec<String>,
    /// Add meta variable
    #[arg(short = 'M', long, value_name = "K=V")]
    meta: Vec<String>,
    /// Send hint instead of content
    #[arg(long)]
    hint: bool,
    /// Close streaming and WebSocket connections
    #[arg(long)]
    close: bool,
    /// Content is JSON patch
    #[arg(long)]
    patch: bool,
    /// Bypass sequencing buffer
    #[arg(long)]
    no_seq: bool,
    /// Don't add newline to HTTP payloads
    #[arg(long)]
    no_eol: bool,
    /// GRIP URL or ZeroMQ PUSH spec [default: $GRIP_URL, else http://localhost:5561]
    #[arg(long, value_name = "SPEC")]
    spec: Option<String>,
    /// Authenticate using basic auth
    #[arg(short, long, value_name = "USER:PASS")]
    user: Option<String>,
    /// Authenticate using bearer auth
    #[arg(short = 'B', long, value_name = "TOKEN")]
    bearer: Option<String>,
}

impl Words {
    /// Publishes what is asked for.
    ///
    /// # Errors
    /// The words do not fit together, or the item could not be delivered.
    pub fn run(self) -> Result<(), Error> {
        let spec = self.spec.or_else(|| std::env::var("GRIP_URL").ok());
        let request = Request {
            channel: self.channel,
            content: self.content,
            id: self.id,
            prev_id: self.prev_id,
            sender: self.sender,
            code: self.code,
            headers: self.headers,
            meta: self.meta,
            hint: self.hint,
            close: self.close,
            patch: self.patch,
            no_seq: self.no_seq,
            no_eol: self.no_eol,
            user: self.user,
            bearer: self.bearer,
        };
        let auth = request.auth()?;
        send(spec.as_deref().unwrap_or("http://localhost:5561"), auth.as_ref(), &request.item()?)
    }
}
