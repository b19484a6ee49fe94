//! The virtual backend: what it answers to a request, and when.

use origin::WebSocketEvent;
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
    /// Something on a WebSocket.
    Socket(Socket),
}

/// One thing that a backend does on a WebSocket.
#[derive(Clone, Debug)]
pub enum Socket {
    /// Takes the handshake.
    Open(Vec<(&'static str, &'static str)>),
    /// Answers it otherwise: status and body.
    Refused(u16, &'static str),
    /// A message.
    Text(&'static str),
    /// Closes.
    Close(u16),
}

impl Socket {
    /// Gives the event that tells the proxy.
    pub fn tell(&self, take: impl FnOnce(WebSocketEvent<'_>)) {
        match self {
            Self::Open(headers) => {
                let headers: Vec<http1::Header<'_>> = headers
                    .iter()
                    .map(|(name, value)| http1::Header { name, value: value.as_bytes() })
                    .collect();
                take(WebSocketEvent::Open { reason: "Up", headers: &headers, compressed: false });
            }
            Self::Refused(code, body) => take(WebSocketEvent::Refused {
                code: *code,
                reason: "No",
                headers: &[],
                body: body.as_bytes(),
            }),
            Self::Text(text) => take(WebSocketEvent::Piece {
                kind: websocket::Type::Text,
                data: text.as_bytes(),
                last: true,
            }),
            Self::Close(code) => take(WebSocketEvent::Close { code: Some(*code), reason: "" }),
        }
    }
}

/// An act and how long after the request it comes, milliseconds.
pub type Script = Vec<(u64, Act)>;

/// The path and query of a request.
pub fn target(request: &Request) -> String {
    let head = String::from_utf8_lossy(&request.bytes);
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// The WebSocket events in a request's body, if that is what it has.
pub fn events(request: &Request) -> Option<String> {
    let text = String::from_utf8_lossy(&request.bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.contains("application/websocket-events").then(|| body.to_owned())
}

/// A response with WebSocket events, `delay_ms` after the request.
pub fn events_response(delay_ms: u64, events: &str) -> Script {
    let headers = vec![
        ("Content-Type", "application/websocket-events".to_owned()),
        ("Sec-WebSocket-Extensions", "grip".to_owned()),
    ];
    vec![
        (delay_ms, Act::Head(200, headers, Some(events.len() as u64))),
        (delay_ms, Act::Body(events.into())),
        (delay_ms, Act::End),
    ]
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
