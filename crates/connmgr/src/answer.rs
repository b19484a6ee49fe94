//! The answers that the connection manager gives by itself (`spec/connmgr.md §4.5`).

use std::borrow::Cow;

use http1::write::Response;
use http1::{BodyKind, Reason};

use crate::conn::{Conn, HEAD, LINGER, PERSIST, STARTED, State};
use crate::peers::PeerId;
use crate::session::Session;
use crate::worker::Worker;
use crate::ws_out::INTERNAL_ERROR;

/// Status and body of an answer; the connection is closed behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    code: u16,
    reason: &'static str,
    text: Cow<'static, str>,
}

impl Answer {
    /// The peer gave up, or said something that does not fit.
    pub(crate) const FAILED: Self =
        Self::fixed(500, "Internal Server Error", "Failed to process request.\n");

    /// The processes that could have taken the request are gone.
    pub(crate) const NOBODY: Self =
        Self::fixed(502, "Bad Gateway", "No proxy process took the request.\n");

    /// The response has too many headers.
    pub(crate) const RESPONSE_HEADERS: Self = Self::fixed(
        500,
        "Internal Server Error",
        "The number of response headers exceeded the limit of 64.\n",
    );

    /// An upgrade that is none.
    pub(crate) const BAD_WEBSOCKET: Self = Self::fixed(
        400,
        "Bad Request",
        "Request contained an Upgrade header with value \"websocket\" but the request was not a \
         valid WebSocket request.\n",
    );

    /// An upgrade where whole requests and responses are exchanged.
    pub(crate) const REQ_WEBSOCKET: Self =
        Self::fixed(400, "Bad Request", "WebSockets not supported on req mode interface.\n");

    /// A client without TLS on a TLS port.
    pub(crate) const PLAIN_ON_TLS: Self = Self::fixed(
        400,
        "Bad Request",
        "This port speaks TLS (https), the request came without it.\n",
    );

    /// A client with TLS on a plain port.
    pub(crate) const TLS_ON_PLAIN: Self = Self::fixed(
        400,
        "Bad Request",
        "This port speaks plain HTTP, the request came with TLS (https).\n",
    );

    const fn fixed(code: u16, reason: &'static str, text: &'static str) -> Self {
        Self { code, reason, text: Cow::Borrowed(text) }
    }

    /// The request cannot be read.
    pub(crate) fn unreadable(reason: Reason) -> Self {
        let text = Cow::Owned(format!("Failed to parse request: {reason}\n"));
        Self { code: 400, reason: "Bad Request", text }
    }

    /// The head does not fit.
    pub(crate) fn too_large(limit: usize) -> Self {
        let text = Cow::Owned(format!("Request header size exceeded limit of {limit} bytes.\n"));
        Self { code: 400, reason: "Bad Request", text }
    }

    /// The response to an upgrade that was refused does not fit.
    pub(crate) fn rejection_too_large(limit: u32) -> Self {
        let text = format!("Non-101 response body size exceeded limit of {limit} bytes.\n");
        Self { code: 500, reason: "Internal Server Error", text: Cow::Owned(text) }
    }
}

impl Worker {
    /// Ends the session with this answer, or by closing if the response has been started; a
    /// WebSocket gets a close frame. The peer is not told; [`Worker::cancel`] does that.
    pub(crate) fn answer(&mut self, slot: u32, answer: &Answer) {
        if self.conns.at(slot).is_some_and(Conn::is_open_ws) {
            return self.fail_ws(slot, INTERNAL_ERROR);
        }
        self.set_peer(slot, PeerId::NONE);
        let Some(conn) = self.conns.at_mut(slot) else { return };
        conn.state = State::Ending;
        conn.gather = None;
        let session = Session { worker: self.config.worker, slot, counter: conn.counter };
        log::debug!("server-conn {session}: process error: {}", answer.text.trim_end());
        conn.set(PERSIST, false);
        if conn.has(STARTED) {
            conn.set(crate::conn::ABORT, true);
            return self.turn.touch(slot, conn);
        }
        conn.set(STARTED, true);
        conn.set(LINGER, true);
        self.counters.bad_requests += u64::from(answer.code == 400);
        self.counters.failed += u64::from(answer.code == 500);
        let parts = Response {
            version: conn.version(),
            code: answer.code,
            reason: answer.reason.as_bytes(),
            persistent: false,
            body: BodyKind::Length(answer.text.len() as u64),
        };
        let headers = [(&b"Content-Type"[..], &b"text/plain"[..])];
        if let Ok(span) = self.turn.encode(|out| http1::write::response(out, &parts, headers)) {
            self.turn.add(slot, conn, span, 0);
        }
        if !conn.has(HEAD) {
            let span = self.turn.raw(answer.text.as_bytes());
            self.turn.add(slot, conn, span, 0);
        }
    }
}
