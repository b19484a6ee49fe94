//! pushpin-publish: publishes one item from the command line (spec/programs.md §6).

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use publish::{Error, Request};

/// Publish messages to Pushpin
#[derive(Parser)]
#[command(name = "pushpin-publish", version, max_term_width = 100)]
struct Options {
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

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => {
            println!("Published");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Error> {
    let spec = options.spec.or_else(|| std::env::var("GRIP_URL").ok());
    let request = Request {
        channel: options.channel,
        content: options.content,
        id: options.id,
        prev_id: options.prev_id,
        sender: options.sender,
        code: options.code,
        headers: options.headers,
        meta: options.meta,
        hint: options.hint,
        close: options.close,
        patch: options.patch,
        no_seq: options.no_seq,
        no_eol: options.no_eol,
        user: options.user,
        bearer: options.bearer,
    };
    let auth = request.auth()?;
    publish::send(
        spec.as_deref().unwrap_or("http://localhost:5561"),
        auth.as_ref(),
        &request.item()?,
    )
}
