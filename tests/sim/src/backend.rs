//! The virtual backend: what it answers to a request, and when.

use proxy::Request;

/// One thing that a backend does.
#[derive(Clone, Debug)]
pub enum Act {
    /// The response begins.
    Head(u16, Vec<(&'static str, String)>, Option<u64>),
    /// Bytes of body.
    Body(Vec<u8>),
    /// The response is complete.
    End,
    /// The request failed.
    Fail(origin::Error),
}

/// An act and how long after the request it comes, milliseconds.
pub type Script = Vec<(u64, Act)>;

/// The path and query of a request.
pub fn target(request: &Request) -> String {
    let head = String::from_utf8_lossy(&request.bytes);
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// A complete response with Content-Length, `delay_ms` after the request.
pub fn plain(delay_ms: u64, body: &str) -> Script {
    let headers = vec![("Content-Type", "text/plain".to_owned())];
    let length = body.len() as u64;
    vec![
        (delay_ms, Act::Head(200, headers, Some(length))),
        (delay_ms, Act::Body(body.into())),
        (delay_ms, Act::End),
    ]
}

/// A response with GRIP headers, `delay_ms` after the request.
pub fn hold(delay_ms: u64, mode: &str, channel: &str, more: &[(&'static str, &str)]) -> Script {
    let mut headers = vec![
        ("Content-Type", "text/event-stream".to_owned()),
        ("Grip-Hold", mode.to_owned()),
        ("Grip-Channel", channel.to_owned()),
    ];
    headers.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let body = "opened\n";
    vec![
        (delay_ms, Act::Head(200, headers, Some(body.len() as u64))),
        (delay_ms, Act::Body(body.into())),
        (delay_ms, Act::End),
    ]
}
