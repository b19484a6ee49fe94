//! What becomes of requests at the backends, as packets for those who asked.

use evloop::arena::Key;
use http1::Header;
use origin::{Error, Event, WebSocketEvent};
use zhttp::Kind;

use super::session::Mode;
use super::{Order, Outgoing};

/// The error condition of a failure (`spec/zhttp.md §5.1`).
fn condition(error: Error) -> &'static str {
    match error {
        Error::Connect => "remote-connection-failed",
        Error::Timeout => "connection-timeout",
        Error::Tls => "tls-error",
        Error::Policy => "policy-violation",
        Error::RejectionTooLarge => "rejection-too-large",
        Error::Name
        | Error::Unreachable
        | Error::Closed
        | Error::BadResponse
        | Error::Protocol
        | Error::Overload => "undefined-condition",
    }
}

fn pairs<'h>(headers: &'h [Header<'h>]) -> impl Iterator<Item = (&'h str, &'h [u8])> {
    headers.iter().map(|header| (header.name, header.value))
}

impl Outgoing {
    /// An event of the backend's client for one of our keys.
    pub fn origin_event(&mut self, now: u64, key: Key, event: Event<'_>) {
        self.now = now;
        if self.sessions.get(key).is_none() {
            return;
        }
        match event {
            Event::Head { code, reason, headers, .. } => self.head(key, code, reason, headers),
            Event::Body(bytes) => self.body(key, bytes),
            Event::End => self.end(key),
            Event::Queued(left) => self.queued(key, left),
            Event::Failed(error) => self.fail(key, condition(error)),
            Event::WebSocket(event) => self.websocket(key, event),
        }
    }

    fn head(&mut self, key: Key, code: u16, reason: &str, headers: &[Header<'_>]) {
        log::debug!("client-conn {}: response: {code} {reason}", self.name(key));
        if self.is_followed(key, code, headers) {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.answered = true;
        session.ask = None;
        if let Mode::Req { response, .. } = &mut session.mode {
            (response.code, response.reason) = (code, reason.to_owned());
            for (name, value) in pairs(headers) {
                response.headers.push(name, value);
            }
            return;
        }
        self.send(key, |f| {
            f.status(code, reason).headers(pairs(headers)).flag("more", true);
        });
    }

    fn body(&mut self, key: Key, bytes: &[u8]) {
        if self.discard(key, bytes.len()) {
            return;
        }
        let (piece_max, max) = (self.config.buffer_size, self.config.body_buffer_size);
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let Mode::Req { response, .. } = &mut session.mode {
            response.body.extend_from_slice(bytes);
            if response.body.len() > max {
                self.order(key, Order::Cancel);
                self.fail(key, "undefined-condition");
            }
            return;
        }
        for piece in bytes.chunks(piece_max) {
            self.send(key, |f| {
                f.body(piece).flag("more", true);
            });
        }
    }

    /// The response is complete, or the WebSocket closed by both.
    fn end(&mut self, key: Key) {
        if self.follow(key) {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        self.counters.completed += 1;
        let websocket = session.websocket;
        if let Mode::Req { response, .. } = &mut session.mode {
            let response = std::mem::take(response);
            self.reply(key, |f| {
                f.status(response.code, &response.reason)
                    .header_list(response.headers.as_headers())
                    .body(&response.body);
            });
        } else if !websocket {
            self.send(key, |_| {});
        }
        self.forget(key);
    }

    /// Bytes for the backend have left: the requester may send as many again, in steps that are
    /// worth a packet (`spec/zhttp.md §6`).
    fn queued(&mut self, key: Key, left: usize) {
        let size = self.config.buffer_size;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let wanted = if session.websocket { session.answered } else { session.more };
        let room = size.saturating_sub(session.window + left);
        if !wanted || session.is_req() || (room < size / 4 && left > 0) || room == 0 {
            return;
        }
        session.window += room;
        self.send(key, |f| {
            f.kind(Kind::Credit).credits(room as u32);
        });
    }

    fn websocket(&mut self, key: Key, event: WebSocketEvent<'_>) {
        match event {
            WebSocketEvent::Open { reason, headers, compressed } => {
                self.open(key, reason, headers, compressed);
            }
            WebSocketEvent::Refused { code, reason, headers, body } => {
                if self.is_followed(key, code, headers) {
                    self.follow(key);
                    return;
                }
                self.counters.completed += 1;
                self.send(key, |f| {
                    f.kind(Kind::Error).condition("rejected").status(code, reason);
                    f.headers(pairs(headers)).body(body);
                });
                self.forget(key);
            }
            WebSocketEvent::Piece { kind, data, last } => self.piece(key, kind, data, last),
            WebSocketEvent::Ping(data) => self.send(key, |f| {
                f.kind(Kind::Ping).body(data);
            }),
            WebSocketEvent::Pong(data) => self.send(key, |f| {
                f.kind(Kind::Pong).body(data);
            }),
            WebSocketEvent::Close { code, reason } => self.send(key, |f| {
                f.kind(Kind::Close);
                if let Some(code) = code {
                    f.code(code).body(reason.as_bytes());
                }
            }),
        }
    }

    /// The backend took the handshake. How it compresses is between it and us.
    fn open(&mut self, key: Key, reason: &str, headers: &[Header<'_>], compressed: bool) {
        let credits = self.config.buffer_size;
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.answered = true;
        session.ask = None;
        session.window = credits;
        let hidden =
            |name: &str| compressed && name.eq_ignore_ascii_case("sec-websocket-extensions");
        self.send(key, |f| {
            f.status(101, reason).headers(pairs(headers).filter(|(name, _)| !hidden(name)));
            f.credits(credits as u32);
        });
    }

    fn piece(&mut self, key: Key, kind: websocket::Type, data: &[u8], last: bool) {
        if data.is_empty() && !last {
            return;
        }
        let kind = match kind {
            websocket::Type::Text => "text",
            websocket::Type::Binary => "binary",
        };
        let mut rest = data;
        loop {
            let (piece, behind) = rest.split_at(rest.len().min(self.config.buffer_size));
            rest = behind;
            let more = !(last && rest.is_empty());
            self.send(key, |f| {
                f.content_type(kind).body(piece).flag("more", more);
            });
            if rest.is_empty() {
                return;
            }
        }
    }
}
