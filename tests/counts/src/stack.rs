//! The three engines without anything between them: each step takes what the step before gave.

use std::io::{self, ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;

use connmgr::{Config, Net, Worker};
use grip::{Item, Value};
use handler::{Handler, Settings};
use http1::Header;
use origin::Event;
use proxy::{Key, Proxy, Routes, Signing};

const REQUEST: &[u8] = b"GET /stream?topic=news HTTP/1.1\r\nHost: api.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: text/event-stream\r\n\
    Accept-Language: en-US,en;q=0.5\r\nCookie: session=0123456789abcdef\r\n\r\n";

/// How often a stream gets a keep-alive, by [`HOLD`].
pub const KEEP_ALIVE_MS: u64 = 20_000;

const HOLD: [Header<'static>; 4] = [
    Header { name: "Content-Type", value: b"text/event-stream" },
    Header { name: "Grip-Hold", value: b"stream" },
    Header { name: "Grip-Channel", value: b"news" },
    Header { name: "Grip-Keep-Alive", value: b":\\n\\n; format=cstring; timeout=20" },
];

/// Sockets that have one request to read and take everything.
#[derive(Default)]
struct Wire {
    is_read: bool,
    written: usize,
}

impl Net for Wire {
    fn read(&mut self, _conn: u32, buf: &mut [u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.is_read, true) {
            return Err(ErrorKind::WouldBlock.into());
        }
        buf[..REQUEST.len()].copy_from_slice(REQUEST);
        Ok(REQUEST.len())
    }

    fn write(&mut self, _conn: u32, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let size = bufs.iter().map(|buf| buf.len()).sum();
        self.written += size;
        Ok(size)
    }

    fn want_write(&mut self, _conn: u32, _on: bool) {}

    fn shutdown(&mut self, _conn: u32) {}

    fn close(&mut self, _conn: u32) {}
}

/// Connection manager, proxy and handler.
pub struct Stack {
    now: u64,
    wire: Wire,
    worker: Worker,
    proxy: Proxy,
    handler: Handler,
    item: Item,
}

impl Stack {
    /// With no client yet.
    pub fn new() -> Self {
        let no_files = |path: &str| Err(format!("failed to open {path}"));
        let (table, _) = routes::Table::parse("* backend:80\n", "routes", &no_files);
        let routes = Arc::new(Routes::new(table, &Signing::default(), Path::new("")));
        let content = "x".repeat(100);
        let json = format!(r#"{{"channel":"news","http-stream":{{"content":"{content}"}}}}"#);
        let value = Value::from_json(json.as_bytes()).expect("JSON");
        Self {
            now: 1_000,
            wire: Wire::default(),
            worker: Worker::new(Config::default()),
            proxy: Proxy::new(proxy::Settings::default(), routes),
            handler: Handler::new(1_000, Settings::default()),
            item: Item::from_json(&value, None).expect("an item"),
        }
    }

    /// Streams that the handler holds.
    pub fn held(&self) -> usize {
        self.handler.sessions()
    }

    /// Bytes that clients got.
    pub fn written(&self) -> usize {
        self.wire.written
    }

    /// A client connects.
    pub fn connect(&mut self) -> u32 {
        self.worker.accept(self.now, "192.0.2.1:40000".parse().ok())
    }

    /// A client's request; gives the packet for the proxy.
    pub fn request(&mut self, conn: u32) -> Vec<u8> {
        self.wire.is_read = false;
        self.worker.readable(self.now, &mut self.wire, conn, false);
        self.worker.end_turn(self.now, &mut self.wire);
        match self.worker.poll_output() {
            Some(connmgr::Output::First { packet, .. }) => packet,
            other => panic!("no request: {other:?}"),
        }
    }

    /// The proxy takes a request; gives the request for the backend.
    pub fn route(&mut self, packet: &[u8]) -> Key {
        self.proxy.request(self.now, packet);
        while let Some(output) = self.proxy.poll_output() {
            if let proxy::Output::Start { key, .. } = output {
                return key;
            }
        }
        panic!("the backend is not asked");
    }

    /// A new client's request is with the backend.
    pub fn asked(&mut self) -> Key {
        let conn = self.connect();
        let packet = self.request(conn);
        self.route(&packet)
    }

    /// The backend answers with a hold; gives the accept call.
    pub fn hold(&mut self, key: Key) -> Vec<u8> {
        let head = Event::Head { code: 200, reason: "OK", headers: &HOLD, length: Some(8) };
        for event in [head, Event::Body(b":opened\n"), Event::End] {
            self.proxy.origin_event(self.now, key, event);
        }
        while let Some(output) = self.proxy.poll_output() {
            if let proxy::Output::Accept { payload, .. } = output {
                return payload;
            }
        }
        panic!("no accept call");
    }

    /// The handler takes a call; gives the reply and the messages to the connection manager.
    pub fn accept(&mut self, call: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        self.handler.call(self.now, 0, Vec::new(), call);
        self.settle()
    }

    /// An item is published; gives the messages to the connection manager.
    pub fn publish(&mut self) -> Vec<Vec<u8>> {
        self.handler.publish(self.now, vec![self.item.clone()]);
        self.settle().1
    }

    /// The connection manager takes a message and writes it out.
    pub fn deliver(&mut self, message: &[u8]) {
        for packet in zhttp::split(message) {
            self.worker.packet(self.now, &mut self.wire, packet);
        }
        self.worker.end_turn(self.now, &mut self.wire);
    }

    /// A whole open: a client that is held.
    pub fn open(&mut self) {
        let key = self.asked();
        let call = self.hold(key);
        let (replies, messages) = self.accept(&call);
        replies.iter().for_each(|reply| self.proxy.accept_reply(self.now, reply));
        messages.iter().for_each(|message| self.deliver(message));
        while self.proxy.poll_output().is_some() {}
        while self.worker.poll_output().is_some() {}
    }

    /// Time goes by in the handler, at each of its deadlines.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(at) = self.handler.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.handler.timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    /// What the handler has to say: replies to calls, messages to the connection manager.
    fn settle(&mut self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (mut replies, mut messages) = (Vec::new(), Vec::new());
        while self.handler.work(self.now) {}
        while let Some(output) = self.handler.poll_output() {
            match output {
                handler::Output::Reply { payload, .. } => replies.push(payload),
                handler::Output::ToClient { message, .. } => messages.push(message),
                _ => {}
            }
        }
        (replies, messages)
    }
}
