//! The caller's verbs for WebSockets.

use std::sync::Arc;

use evloop::arena::Key;
use websocket::{Opcode, Type};

use super::{Client, Sink};
use crate::socket::Socket;
use crate::talk::Talk;
use crate::{Endpoint, Error, Event, Opening};

impl Client {
    /// Opens a WebSocket under `key`, whose index nothing else has. What becomes of it comes as
    /// [`Event::WebSocket`]; after [`crate::WebSocketEvent::Refused`], [`Event::End`] or
    /// [`Event::Failed`] nothing follows.
    ///
    /// `window`: bytes of messages, pings and pongs that the caller takes for now; more by
    /// [`Client::grant`]. Bytes that wait to be written are told by [`Event::Queued`].
    pub fn open_websocket(
        &mut self,
        now_ms: u64,
        key: Key,
        endpoint: Arc<Endpoint>,
        opening: Opening,
        window: usize,
        sink: &mut Sink<'_>,
    ) {
        let Some(random) = self.tls.random() else {
            return sink(key, Event::Failed(Error::Overload));
        };
        let socket = Socket::new(opening, random, window);
        self.add(now_ms, key, endpoint, Talk::WebSocket(Box::new(socket)), true, sink);
    }

    /// A piece of a message for the backend; `last` completes the message. The type of a
    /// message's first piece counts. Nothing is sent before the WebSocket is open.
    pub fn message(
        &mut self,
        now_ms: u64,
        key: Key,
        kind: Type,
        data: &[u8],
        last: bool,
        sink: &mut Sink<'_>,
    ) {
        let Some(mask) = self.tls.random() else { return };
        let deflater = &mut self.deflater;
        let job = self.jobs.get_mut(key.index as usize).and_then(Option::as_deref_mut);
        if let Some(job) = job.filter(|job| job.key == key)
            && let Talk::WebSocket(socket) = &mut job.talk
        {
            socket.message(kind, data, last, mask, deflater);
            self.pump_job(now_ms, key, sink);
        }
    }

    /// A ping with at most 125 bytes; a longer one is not sent.
    pub fn ping(&mut self, now_ms: u64, key: Key, payload: &[u8], sink: &mut Sink<'_>) {
        self.control(now_ms, key, Opcode::Ping, payload, sink);
    }

    /// A pong with at most 125 bytes; a longer one is not sent. Pings are not answered by
    /// themselves: they go to the caller, who knows what is behind it.
    pub fn pong(&mut self, now_ms: u64, key: Key, payload: &[u8], sink: &mut Sink<'_>) {
        self.control(now_ms, key, Opcode::Pong, payload, sink);
    }

    fn control(
        &mut self,
        now_ms: u64,
        key: Key,
        opcode: Opcode,
        payload: &[u8],
        sink: &mut Sink<'_>,
    ) {
        let Some(mask) = self.tls.random() else { return };
        if let Some(socket) = self.socket(key) {
            socket.control(opcode, payload, mask);
            self.pump_job(now_ms, key, sink);
        }
    }

    /// Sends a close frame, the last thing from this side: without payload if there is no code or
    /// it is not one for the wire. [`Event::End`] comes when the backend has closed too.
    pub fn close_websocket(
        &mut self,
        now_ms: u64,
        key: Key,
        code: Option<u16>,
        reason: &str,
        sink: &mut Sink<'_>,
    ) {
        let Some(mask) = self.tls.random() else { return };
        if let Some(socket) = self.socket(key) {
            socket.close(code, reason, mask);
            self.pump_job(now_ms, key, sink);
        }
    }

    fn socket(&mut self, key: Key) -> Option<&mut Socket> {
        match &mut self.job(key)?.talk {
            Talk::WebSocket(socket) => Some(socket),
            Talk::Http(_) => None,
        }
    }

    fn pump_job(&mut self, now_ms: u64, key: Key, sink: &mut Sink<'_>) {
        if let Some(conn) = self.job(key).and_then(|job| job.conn) {
            self.pump(now_ms, conn, sink);
        }
    }
}
