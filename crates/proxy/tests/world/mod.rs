//! A proxy engine on a clock of the test's own, with what it gave out, sorted. Used by the tests
//! of this folder.

#![allow(clippy::unwrap_used, reason = "a test may; only helpers need saying so")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;
use std::sync::Arc;

use origin::Event;
use proxy::{Key, Output, Proxy, Request, Routes, Settings, Signing};
use zhttp::{Ext, Head, Id, Kind, Packet};
use zrpc::accept::Reply;
use zrpc::inspect::Reply as Known;

pub const CM: &[u8] = b"connmgr";

/// A packet for a ZHTTP worker: request, worker, bytes.
pub type ToWorker = (Key, Option<Arc<[u8]>>, Vec<u8>);

/// An engine with what it gave out, sorted.
pub struct World {
    pub engine: Proxy,
    pub now: u64,
    /// Packets to connection managers.
    pub packets: Vec<Vec<u8>>,
    pub messages: usize,
    pub accepts: Vec<(Key, Vec<u8>)>,
    pub starts: Vec<(Key, u16, Request)>,
    pub bodies: Vec<(Vec<u8>, bool)>,
    pub cancels: usize,
    pub pauses: Vec<bool>,
    pub stats: Vec<String>,
    /// Requests for other workers.
    pub elsewhere: Vec<(usize, Vec<u8>)>,
    pub controls: Vec<Vec<u8>>,
    /// WebSockets that were opened to backends.
    pub openings: Vec<Key>,
    /// What the handler says that requests have in common; without it, it is not there.
    pub sharing: Option<&'static str>,
    /// The handler is there and answers nothing.
    pub mute: bool,
    /// Calls that it got meanwhile.
    pub inspects: Vec<(Key, Vec<u8>)>,
    /// What went to ZHTTP workers.
    pub to_worker: Vec<ToWorker>,
    /// What went to the WebSockets.
    pub to_socket: Vec<String>,
}

pub fn world_with(lines: &str, settings: Settings) -> World {
    let (table, problems) = routes::Table::parse(lines, "routes", &|_| Err("none".into()));
    assert!(problems.is_empty(), "{problems:?}");
    let routes = Routes::new(table, &Signing::default(), Path::new("."));
    World {
        engine: Proxy::new(settings, Arc::new(routes)),
        now: 0,
        packets: Vec::new(),
        messages: 0,
        accepts: Vec::new(),
        starts: Vec::new(),
        bodies: Vec::new(),
        cancels: 0,
        pauses: Vec::new(),
        stats: Vec::new(),
        elsewhere: Vec::new(),
        controls: Vec::new(),
        openings: Vec::new(),
        sharing: None,
        mute: false,
        inspects: Vec::new(),
        to_worker: Vec::new(),
        to_socket: Vec::new(),
    }
}

pub fn world(lines: &str) -> World {
    let (instance_id, target_id) = ("px".into(), "px".into());
    world_with(lines, Settings { instance_id, target_id, ..Settings::default() })
}

impl World {
    pub fn pull(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Client { message, .. } => {
                    self.messages += 1;
                    self.packets.extend(zhttp::split(&message).map(<[u8]>::to_vec));
                }
                Output::Elsewhere { worker, message } => self.elsewhere.push((worker, message)),
                Output::Accept { key, payload } => self.accepts.push((key, payload)),
                Output::Start { key, endpoint, request } => {
                    self.starts.push((key, endpoint.port, request));
                }
                Output::Body { data, last, .. } => self.bodies.push((data, last)),
                Output::Cancel(_) => self.cancels += 1,
                Output::Pause(_) => self.pauses.push(true),
                Output::Resume(_) => self.pauses.push(false),
                Output::Worker { key, to, message, .. } => self.to_worker.push((key, to, message)),
                Output::OpenWebSocket { key, .. } => self.openings.push(key),
                Output::Message { data, last, .. } => {
                    let end = if last { "." } else { "+" };
                    self.to_socket.push(String::from_utf8_lossy(&data).into_owned() + end);
                }
                Output::Ping { data, .. } => {
                    self.to_socket.push(format!("ping {}", String::from_utf8_lossy(&data)));
                }
                Output::Pong { data, .. } => {
                    self.to_socket.push(format!("pong {}", String::from_utf8_lossy(&data)));
                }
                Output::Close { code, reason, .. } => {
                    self.to_socket.push(format!("close {code:?} {reason}"));
                }
                Output::Grant { bytes, .. } => self.to_socket.push(format!("grant {bytes}")),
                Output::Control { payload, .. } => self.controls.push(payload),
                Output::Stats(packet) => self.stats.push(String::from_utf8(packet).unwrap()),
                Output::Inspect { key, payload } if self.mute => self.inspects.push((key, payload)),
                Output::Inspect { key, payload } => self.inspected(key, &payload),
            }
        }
    }

    fn inspected(&mut self, key: Key, payload: &[u8]) {
        let Some(name) = self.sharing else { return self.engine.inspect_failed(self.now, key) };
        let call = zrpc::Request::parse(payload).unwrap();
        let known = Known { sharing_key: Some(name.as_bytes()), ..Known::default() };
        let mut out = Vec::new();
        zrpc::write_success(&mut out, call.id, |w| known.write(w));
        self.engine.inspect_reply(self.now, &out);
    }

    pub fn request(&mut self, id: &str, fill: impl FnOnce(&mut zhttp::Fields<'_>)) {
        let packet = from_client(id, 0, fill);
        self.engine.request(self.now, &packet);
        self.pull();
    }

    pub fn get(&mut self, id: &str, uri: &str) {
        self.request(id, |f| {
            let headers = [("Host", "h"), ("Accept", "*/*")];
            f.method("GET").uri(uri).headers(headers.into_iter()).credits(8192);
            f.flag("stream", true).flag("router-resp", true).peer("192.0.2.1", 5);
        });
    }

    pub fn client(&mut self, id: &str, seq: u32, fill: impl FnOnce(&mut zhttp::Fields<'_>)) {
        let packet = from_client(id, seq, fill);
        self.engine.client_packet(self.now, &packet);
        self.pull();
    }

    /// The client's side let the session go.
    pub fn proceed(&mut self, id: &str, seq: u32) {
        self.client(id, seq, |f| {
            f.kind(Kind::HandoffProceed);
        });
    }

    pub fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.engine.timeout(self.now);
        self.pull();
    }

    pub fn event(&mut self, event: Event<'_>) {
        let key = self.starts.last().expect("a request to a backend").0;
        self.engine.origin_event(self.now, key, event);
    }

    /// A whole response of the backend, in one turn.
    pub fn respond(&mut self, code: u16, headers: &[(&str, &str)], body: &[u8]) {
        self.begin(code, headers, Some(body.len() as u64));
        if !body.is_empty() {
            self.event(Event::Body(body));
        }
        self.event(Event::End);
        self.pull();
    }

    pub fn begin(&mut self, code: u16, headers: &[(&str, &str)], length: Option<u64>) {
        let headers: Vec<http1::Header<'_>> = headers
            .iter()
            .map(|(name, value)| http1::Header { name, value: value.as_bytes() })
            .collect();
        self.event(Event::Head { code, reason: "OK", headers: &headers, length });
    }

    pub fn reply(&mut self, reply: &Reply<'_>) {
        let (_, payload) = self.accepts.last().expect("a call").clone();
        let call = zrpc::Request::parse(&payload).unwrap();
        let mut out = Vec::new();
        zrpc::write_success(&mut out, call.id, |w| reply.write(w));
        self.engine.accept_reply(self.now, &out);
        self.pull();
    }

    /// The packets so far: seq, type or status, body, whether more follows.
    /// The bytes and messages of all reports up to now, in the order of time.
    pub fn counters(&mut self) -> stats::Counters {
        self.pass(10_000);
        let mut sums = stats::Counters::default();
        for text in &self.stats {
            if let Ok(stats::Packet { body: stats::Body::Report(report), .. }) =
                stats::Packet::parse(text.as_bytes())
            {
                sums.add(&report.counters);
            }
        }
        sums
    }

    pub fn sent(&self) -> Vec<String> {
        self.packets.iter().map(|packet| show(packet)).collect()
    }
}

pub fn from_client(id: &str, seq: u32, fill: impl FnOnce(&mut zhttp::Fields<'_>)) -> Vec<u8> {
    let ids = [Id { id: id.as_bytes(), seq: Some(seq) }];
    let mut out = Vec::new();
    zhttp::write(&mut out, &Head { from: CM, ids: &ids, ext: Ext::OURS }, fill);
    out
}

pub fn show(bytes: &[u8]) -> String {
    let packet = Packet::parse(bytes).unwrap();
    let seq = packet.ids.iter().next().unwrap().seq;
    let what = match packet.kind.name() {
        Some("credit") => format!("credit {}", packet.credits),
        Some("error") => format!("error {} {}", packet.condition, packet.code.unwrap_or(0)),
        Some(name) => name.to_owned(),
        None => packet.code.map_or("-".to_owned(), |code| code.to_string()),
    };
    let body = match packet.body.len() {
        0..=60 => String::from_utf8_lossy(packet.body).replace('\n', "|"),
        size => format!("{size}B"),
    };
    let seq = seq.map_or("?".to_owned(), |seq| seq.to_string());
    format!("{seq} {what} {body}{}", if packet.more { "..." } else { "" })
}
