//! A WebSocket whose backend speaks WebSocket too (spec/proxy.md §11).

use evloop::arena::Key;
use origin::{Event, Opening, WebSocketEvent};

use super::session::End;
use super::{Back, Kind};
use crate::session::Stage;
use crate::{Output, Proxy, forward, response};

/// Bytes of messages that a backend may send ahead of the client.
const WINDOW: usize = 200_000;

/// The window is extended in steps of this size, bytes.
const WINDOW_STEP: usize = 32 * 1024;

/// Bytes for the client above which the window is not extended.
const WAITING_MAX: usize = 64 * 1024;

/// Most bytes of a refusal's body.
const REFUSAL_MAX: usize = 100_000;

impl Proxy {
    /// Opens a WebSocket to the present target.
    pub(crate) fn open_socket(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let (Some(ws), Some(place)) = (&mut session.ws, &session.exchange.place) else { return };
        let Some(entry) = session.entry.clone() else { return };
        let Some(target) = entry.route.targets.get(session.target) else { return };
        let host = forward::host(place, target);
        let headers = session.exchange.headers.as_headers();
        let list = headers.iter().map(|(name, value)| (name.as_bytes(), value));
        let opening = Opening::new(&place.target, host, list, false, REFUSAL_MAX);
        let endpoint = crate::backend::endpoint(&entry, session.target, place);
        let (Some(endpoint), Ok(opening)) = (endpoint, opening) else {
            return self.answer_plain(key, 400, "Request cannot be sent on.");
        };
        ws.back = Back::Socket;
        session.count_opening();
        session.backend = true;
        self.outputs.push_back(Output::OpenWebSocket { key, endpoint, opening, window: WINDOW });
    }

    /// A message of the client, or a piece of one, or a control frame.
    pub(crate) fn pass_to_socket(&mut self, key: Key, kind: Kind, data: &[u8], more: bool) {
        let data = data.to_vec();
        if self.has_zmq_socket(key) {
            return self.pass_to_zmq(key, kind, data, more);
        }
        self.outputs.push_back(match kind {
            Kind::Text => Output::Message { key, kind: websocket::Type::Text, data, last: !more },
            Kind::Binary => {
                Output::Message { key, kind: websocket::Type::Binary, data, last: !more }
            }
            Kind::Ping => Output::Ping { key, data },
            Kind::Pong => Output::Pong { key, data },
        });
    }

    /// An event of a WebSocket to a backend.
    pub(crate) fn socket_event(&mut self, key: Key, event: Event<'_>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        match event {
            Event::WebSocket(event) => self.one_socket_event(key, event),
            Event::Queued(left) => self.return_ws_credits(key, left),
            Event::End => {
                session.backend = false;
                self.socket_ended(key);
            }
            Event::Failed(error) => {
                session.backend = false;
                self.socket_failed(key, error);
            }
            Event::Head { .. } | Event::Body(_) => {}
        }
    }

    fn one_socket_event(&mut self, key: Key, event: WebSocketEvent<'_>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let parting = session.stage == Stage::Parting;
        let (kind, data, more) = match event {
            WebSocketEvent::Open { reason, headers, .. } => {
                let headers = response::keep_all(headers);
                session.count_opened(reason, headers.as_headers());
                return self.ws_accepted(key, reason, headers.as_headers());
            }
            WebSocketEvent::Refused { code, reason, headers, body } => {
                session.backend = false;
                let headers = response::ordinary(headers);
                return self.refuse_websocket(key, code, reason, headers.as_headers(), body);
            }
            WebSocketEvent::Close { code, reason } => {
                return self.back_closed(key, code, reason.as_bytes());
            }
            WebSocketEvent::Piece { kind: websocket::Type::Text, data, last } => {
                (Kind::Text, data, !last)
            }
            WebSocketEvent::Piece { data, last, .. } => (Kind::Binary, data, !last),
            WebSocketEvent::Ping(data) => (Kind::Ping, data, false),
            WebSocketEvent::Pong(data) => (Kind::Pong, data, false),
        };
        if let Some(ws) = &mut session.ws {
            ws.owed_window = ws.owed_window.saturating_add(data.len() as u32);
        }
        if !parting {
            self.back_sent(key, kind, data, more);
        }
        self.extend_window(key);
    }

    /// Lets the backend send more, once the client has taken what came.
    pub(crate) fn extend_window(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = session.ws.as_mut().filter(|_| session.backend) else { return };
        let room = ws.out.waiting() < WAITING_MAX && !ws.out.is_full();
        if matches!(ws.back, Back::Socket) && room && ws.owed_window as usize >= WINDOW_STEP {
            let bytes = std::mem::take(&mut ws.owed_window) as usize;
            match session.zmq {
                Some(_) => self.grant_zmq(key, bytes),
                None => self.outputs.push_back(Output::Grant { key, bytes }),
            }
        }
    }

    /// Both sides of the backend's connection have closed.
    fn socket_ended(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.stage == Stage::Parting {
            return drop(self.remove(key));
        }
        if let Some(ws) = &mut session.ws {
            ws.back = Back::None;
        }
    }

    fn socket_failed(&mut self, key: Key, error: origin::Error) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let opening = session.stage == Stage::Asked;
        let Some(ws) = &mut session.ws else { return };
        log::debug!("{}: {error}", ws.cid);
        ws.back = Back::None;
        if opening {
            return self.on_failed(key, error);
        }
        match ws.client_closed && ws.close_out == End::No {
            // The client wanted the end in any case.
            true => self.close_client(key, None, b""),
            false if ws.close_out != End::No && session.stage != Stage::Parting => {}
            false => self.ws_fail(key),
        }
    }
}
