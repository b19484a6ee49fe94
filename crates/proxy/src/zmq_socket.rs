//! WebSockets to ZHTTP workers (spec/zhttp.md §9.3): what a worker says becomes the same events
//! as those of a backend that speaks WebSocket.

use evloop::arena::Key;
use origin::{Error, Event, WebSocketEvent};
use zhttp::{Kind as PacketKind, Packet};

use crate::Proxy;
use crate::backend::fields_size;
use crate::ws::{Back, Frame, Kind, Outgoing};
use crate::zmq_target::{Ask, PACKET_BODY_MAX, error_of};

/// What a connection to a worker has beside the request.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    /// Messages that wait for credits.
    out: Outgoing,
    /// A close that waits behind them.
    close: Option<(Option<u16>, Vec<u8>)>,
    told_close: bool,
    saw_close: bool,
}

impl Proxy {
    /// Opens a WebSocket to a worker.
    pub(crate) fn open_zmq_socket(&mut self, key: Key, spec: &str) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(ws) = &mut session.ws else { return };
        ws.back = Back::Socket;
        let Some(place) = session.exchange.place.clone() else { return };
        let headers = session.exchange.headers.clone();
        session.counters.server_header_bytes_sent += fields_size(headers.as_headers());
        let (place, headers) = (&place, headers.as_headers());
        let ask = Ask { method: "", place, headers, body: b"", more: false, hold: false };
        self.start_zmq(key, spec, false, &ask);
    }

    /// Whether a WebSocket's backend is a worker.
    pub(crate) fn has_zmq_socket(&self, key: Key) -> bool {
        let back = self.sessions.get(key).and_then(|session| session.zmq.as_ref());
        back.is_some_and(|back| back.socket.is_some())
    }

    /// A message of the client, or a piece of one, or a control frame.
    pub(crate) fn pass_to_zmq(&mut self, key: Key, kind: Kind, data: Vec<u8>, more: bool) {
        let Some(back) = self.sessions.get_mut(key).and_then(|s| s.zmq.as_mut()) else { return };
        let Some(socket) = &mut back.socket else { return };
        if socket.out.is_full() {
            log::warn!("too many messages wait for a ZHTTP worker, ending the connection");
            return self.ws_abandon(key, true);
        }
        socket.out.push(Frame { more, ..Frame::new(kind, data) });
        self.flush_zmq_socket(key);
    }

    /// Closes a worker's WebSocket, once it has everything before.
    pub(crate) fn close_zmq(&mut self, key: Key, code: Option<u16>, reason: &[u8]) {
        let Some(back) = self.sessions.get_mut(key).and_then(|s| s.zmq.as_mut()) else { return };
        let Some(socket) = &mut back.socket else { return };
        socket.out.end_message();
        socket.close = Some((code, reason.to_vec()));
        self.flush_zmq_socket(key);
    }

    /// Lets a worker send so many bytes more.
    pub(crate) fn grant_zmq(&mut self, key: Key, bytes: usize) {
        self.owe_worker(key, bytes as u32);
    }

    /// Sends what the worker's credits allow.
    fn flush_zmq_socket(&mut self, key: Key) {
        while let Some(back) = self.sessions.get_mut(key).and_then(|s| s.zmq.as_mut()) {
            let may_send = back.headed && !back.handing_over;
            let Some(socket) = back.socket.as_mut().filter(|_| may_send) else { return };
            let Some(piece) = socket.out.pop(back.credits, PACKET_BODY_MAX) else {
                let left = socket.out.waiting();
                self.return_ws_credits(key, left);
                break;
            };
            back.credits -= piece.data.len();
            self.send_zmq(key, |fields| piece.write(fields));
        }
        let Some(back) = self.sessions.get_mut(key).and_then(|s| s.zmq.as_mut()) else { return };
        let Some(socket) = back.socket.as_mut().filter(|socket| socket.out.is_empty()) else {
            return;
        };
        let Some((code, reason)) = socket.close.take() else { return };
        socket.told_close = true;
        let over = socket.saw_close;
        self.send_zmq(key, |fields| {
            fields.kind(PacketKind::Close);
            if let Some(code) = code {
                fields.code(code).body(&reason);
            }
        });
        if over {
            self.worker_ended(key, None);
        }
    }

    /// A packet of a worker about a WebSocket; sequence and credits are done.
    pub(crate) fn zmq_socket_said(&mut self, key: Key, packet: &Packet<'_>) {
        let now = self.now;
        let Some(back) = self.sessions.get_mut(key).and_then(|s| s.zmq.as_mut()) else { return };
        let headed = back.headed;
        let event = match packet.kind {
            PacketKind::Data if !headed => return self.zmq_socket_opens(key, packet),
            PacketKind::Data => {
                let kind = match Kind::of(packet.content_type) {
                    Kind::Binary => websocket::Type::Binary,
                    _ => websocket::Type::Text,
                };
                WebSocketEvent::Piece { kind, data: packet.body, last: !packet.more }
            }
            PacketKind::Ping if headed => WebSocketEvent::Ping(packet.body),
            PacketKind::Pong if headed => WebSocketEvent::Pong(packet.body),
            PacketKind::Close if headed => return self.zmq_socket_closes(key, packet),
            PacketKind::Error if packet.condition == "rejected" && !headed => {
                return self.zmq_socket_refuses(key, packet);
            }
            PacketKind::Error => {
                return self.worker_ended(key, Some(error_of(packet.condition)));
            }
            PacketKind::Cancel => return self.worker_ended(key, Some(Error::Closed)),
            _ => return self.flush_zmq_socket(key),
        };
        self.origin_event(now, key, Event::WebSocket(event));
        self.flush_zmq_socket(key);
    }

    fn zmq_socket_opens(&mut self, key: Key, packet: &Packet<'_>) {
        if packet.code != Some(101) {
            self.cancel_zmq(key);
            return self.worker_ended(key, Some(Error::BadResponse));
        }
        if let Some(back) = self.sessions.get_mut(key).and_then(|s| s.zmq.as_mut()) {
            back.headed = true;
        }
        let headers = headers_of(packet);
        let open =
            WebSocketEvent::Open { reason: packet.reason, headers: &headers, compressed: false };
        self.origin_event(self.now, key, Event::WebSocket(open));
        self.flush_zmq_socket(key);
    }

    fn zmq_socket_refuses(&mut self, key: Key, packet: &Packet<'_>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.zmq = None;
        let headers = headers_of(packet);
        let refused = WebSocketEvent::Refused {
            code: packet.code.unwrap_or(502),
            reason: packet.reason,
            headers: &headers,
            body: packet.body,
        };
        self.origin_event(self.now, key, Event::WebSocket(refused));
    }

    fn zmq_socket_closes(&mut self, key: Key, packet: &Packet<'_>) {
        let Some(back) = self.sessions.get_mut(key).and_then(|s| s.zmq.as_mut()) else { return };
        let Some(socket) = &mut back.socket else { return };
        socket.saw_close = true;
        let over = socket.told_close;
        let reason = String::from_utf8_lossy(packet.body);
        let close = WebSocketEvent::Close { code: packet.code, reason: &reason };
        self.origin_event(self.now, key, Event::WebSocket(close));
        if over {
            self.worker_ended(key, None);
        }
    }
}

/// The headers of a packet as those of a response.
pub(crate) fn headers_of<'a>(packet: &Packet<'a>) -> Vec<http1::Header<'a>> {
    packet.headers.iter().map(|(name, value)| http1::Header { name, value }).collect()
}
