//! One connection manager, one proxy and one handler, joined by links that take a millisecond
//! and may lose what they carry.

use std::collections::{BTreeMap, HashMap};

use connmgr::{Config, Worker};
use grip::Item;
use handler::Handler;
use origin::Event;
use proxy::{Key, Proxy, Request};
use zhttp::Packet;

use crate::backend::{Act, Script, events, target};
use crate::faults::{Fate, Faults};
use crate::link::{Count, Link};
use crate::net::{Clients, Pipe};
use crate::parts::{new_handler, new_proxy, serde_item, shard_of};

/// How long a message is on the way, milliseconds.
const LATENCY_MS: u64 = 1;

/// What the proxy's driver gives a handler whose link was lost.
const HANDLER_GONE_MS: u64 = 1_000;

/// Steps after which a scenario counts as endless.
const STEPS_MAX: usize = 1_000_000;

#[derive(Debug)]
enum Arrival {
    Message(Link, usize, Vec<u8>),
    Backend(Key, Act),
}

/// Answers a request by its path, and WebSocket events by path and events.
type Backend = Box<dyn Fn(&str, Option<&str>) -> Script>;

/// The world.
pub struct World {
    /// Milliseconds since the start.
    pub now: u64,
    /// The connection manager; gone while it is dead.
    pub connmgr: Option<Worker>,
    /// The proxy; gone while it is dead.
    pub proxy: Option<Proxy>,
    /// The handler; gone while it is dead.
    pub handler: Option<Handler>,
    /// The clients' sockets.
    pub clients: Clients,
    /// Sockets that are over and whose number is another's by now.
    pub replaced: Vec<(u32, Pipe)>,
    /// What went over each link.
    pub counts: BTreeMap<Link, Count>,
    /// Requests that the backend got.
    pub requests: Vec<String>,
    /// WebSockets to the backend, and what they were told.
    pub sockets: Vec<Key>,
    /// What the backend's WebSockets were sent, all together.
    pub to_sockets: String,
    backend: Backend,
    on_the_way: BTreeMap<(u64, u64), Arrival>,
    sent: u64,
    lose: HashMap<Link, Vec<usize>>,
    /// What else happens to messages.
    pub faults: Faults,
    /// When the last message of a way arrives: none overtakes another.
    ways: HashMap<(Link, usize), u64>,
    /// From which message on a link brings nonsense.
    spoiled: HashMap<Link, usize>,
    /// How much longer a link takes, milliseconds.
    delays: HashMap<Link, u64>,
}

impl World {
    /// A world whose backend answers each path and query with a script.
    pub fn new(workers: usize, backend: impl Fn(&str) -> Script + 'static) -> Self {
        Self::with_events(workers, move |target, _| backend(target))
    }

    /// The same, with a backend that is given the events of WebSockets over HTTP too. Those below
    /// `/socket` are real WebSockets.
    pub fn with_events(
        workers: usize,
        backend: impl Fn(&str, Option<&str>) -> Script + 'static,
    ) -> Self {
        Self {
            now: 0,
            connmgr: Some(Worker::new(Config::default())),
            proxy: Some(new_proxy()),
            handler: Some(new_handler(workers)),
            clients: Clients::default(),
            replaced: Vec::new(),
            counts: BTreeMap::new(),
            requests: Vec::new(),
            backend: Box::new(backend),
            on_the_way: BTreeMap::new(),
            sent: 0,
            sockets: Vec::new(),
            to_sockets: String::new(),
            lose: HashMap::new(),
            faults: Faults::new(0),
            ways: HashMap::new(),
            spoiled: HashMap::new(),
            delays: HashMap::new(),
        }
    }

    /// Loses message number `n` (from now on, from 0) of a link.
    pub fn lose(&mut self, link: Link, n: usize) {
        let so_far = self.counts.get(&link).map_or(0, |count| count.messages);
        self.lose.entry(link).or_default().push(so_far + n);
    }

    /// From now on a link brings nonsense.
    pub fn spoil(&mut self, link: Link) {
        self.spoiled.insert(link, self.count(link).messages);
    }

    /// Everything on a link takes so much longer.
    pub fn delay(&mut self, link: Link, ms: u64) {
        self.delays.insert(link, ms);
    }

    /// The count of a link.
    pub fn count(&self, link: Link) -> Count {
        self.counts.get(&link).copied().unwrap_or_default()
    }

    /// All messages of all links.
    pub fn messages(&self) -> usize {
        self.counts.values().map(|count| count.messages).sum()
    }

    /// A client connects.
    pub fn connect(&mut self) -> u32 {
        let address = "192.0.2.1:1000".parse().ok();
        let conn = self.connmgr.as_mut().expect("alive").accept(self.now, address);
        let pipe = Pipe { room: usize::MAX, ..Pipe::default() };
        let old = self.clients.pipes.insert(conn, pipe);
        self.replaced.extend(old.map(|old| (conn, old)));
        conn
    }

    /// A client sends bytes.
    pub fn send(&mut self, conn: u32, text: &str) {
        self.send_bytes(conn, text.as_bytes());
    }

    /// A client sends what is no text.
    pub fn send_bytes(&mut self, conn: u32, bytes: &[u8]) {
        let pipe = self.clients.pipes.get_mut(&conn).expect("connected");
        pipe.to_server.extend_from_slice(bytes);
        let worker = self.connmgr.as_mut().expect("alive");
        worker.readable(self.now, &mut self.clients, conn, false);
    }

    /// A client connects and asks for `path`.
    pub fn get(&mut self, path: &str) -> u32 {
        let conn = self.connect();
        self.send(conn, &format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n\r\n"));
        conn
    }

    /// A client leaves.
    pub fn leave(&mut self, conn: u32) {
        self.clients.pipes.get_mut(&conn).expect("connected").client_closed = true;
        let worker = self.connmgr.as_mut().expect("alive");
        worker.readable(self.now, &mut self.clients, conn, true);
    }

    /// A slow client takes `room` bytes more.
    pub fn drain(&mut self, conn: u32, room: usize) {
        let pipe = self.clients.pipes.get_mut(&conn).expect("connected");
        pipe.room = pipe.room.saturating_add(room);
        if pipe.wants_write {
            let worker = self.connmgr.as_mut().expect("alive");
            worker.writable(self.now, &mut self.clients, conn);
        }
    }

    /// What a client got since the last call.
    pub fn received(&mut self, conn: u32) -> String {
        let pipe = self.clients.pipes.get_mut(&conn).expect("connected");
        String::from_utf8_lossy(&std::mem::take(&mut pipe.to_client)).into_owned()
    }

    /// Whether the server closed a client's connection.
    pub fn is_closed(&self, conn: u32) -> bool {
        self.clients.pipes[&conn].server_closed
    }

    /// Publishes to a channel, in all formats.
    pub fn publish(&mut self, channel: &str, content: &str) {
        let json = serde_item(channel, content);
        let value = grip::Value::from_json(json.as_bytes()).expect("JSON");
        let item = Item::from_json(&value, None).expect("an item");
        let handler = self.handler.as_mut().expect("alive");
        handler.publish(self.now, vec![item]);
    }

    /// Kills the handler; connection manager and proxy notice as the driver would.
    pub fn kill_handler(&mut self) {
        self.handler = None;
        self.connmgr.as_mut().expect("alive").peer_gone(self.now, b"handler_0");
        if let Some(proxy) = &mut self.proxy {
            proxy.handler_gone(self.now, HANDLER_GONE_MS);
            proxy.control_gone(self.now, b"handler_0");
        }
    }

    /// Kills the proxy; connection manager and handler notice as the driver would.
    pub fn kill_proxy(&mut self) {
        self.proxy = None;
        let worker = self.connmgr.as_mut().expect("alive");
        worker.push_disconnected(self.now);
        worker.peer_gone(self.now, b"proxy");
        if let Some(handler) = &mut self.handler {
            handler.proxy_gone(self.now, b"proxy");
        }
    }

    /// Runs until nothing is on the way, at most to `until`.
    pub fn settle(&mut self) {
        self.run_while(|world| world.has_arrivals());
    }

    /// Runs for so many milliseconds.
    pub fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        for _ in 0..STEPS_MAX {
            self.turn();
            let Some(next) = self.next_time().filter(|next| *next <= end) else {
                self.now = end;
                return self.turn();
            };
            self.now = self.now.max(next);
        }
        panic!("the scenario does not come to rest");
    }

    fn run_while(&mut self, go_on: impl Fn(&Self) -> bool) {
        for _ in 0..STEPS_MAX {
            self.turn();
            if !go_on(self) {
                return;
            }
            self.now = self.now.max(self.next_time().unwrap_or(self.now));
        }
        panic!("the scenario does not come to rest");
    }

    fn has_arrivals(&self) -> bool {
        !self.on_the_way.is_empty()
    }

    fn next_time(&mut self) -> Option<u64> {
        let arrival = self.on_the_way.first_key_value().map(|((at, _), _)| *at);
        let connmgr = self.connmgr.as_ref().and_then(Worker::next_deadline);
        let proxy = self.proxy.as_mut().and_then(Proxy::next_deadline);
        let handler = self.handler.as_ref().and_then(Handler::next_deadline);
        [arrival, connmgr, proxy, handler].into_iter().flatten().min()
    }

    /// Everything that is due now, as the drivers do it.
    fn turn(&mut self) {
        while let Some(entry) = self.on_the_way.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let arrival = entry.remove();
            self.arrive(arrival);
        }
        if let Some(worker) = &mut self.connmgr {
            worker.timeout(self.now, &mut self.clients);
        }
        if let Some(proxy) = &mut self.proxy {
            proxy.timeout(self.now);
        }
        if let Some(handler) = &mut self.handler {
            handler.timeout(self.now);
            while handler.work(self.now) {}
        }
        self.connmgr_outputs();
        self.proxy_outputs();
        self.handler_outputs();
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Backend(key, act) => self.backend_acts(key, act),
            Arrival::Message(link, shard, bytes) => self.message(link, shard, &bytes),
        }
    }

    fn message(&mut self, link: Link, shard: usize, bytes: &[u8]) {
        let now = self.now;
        match link {
            Link::FromProxy | Link::FromHandler => {
                if let Some(worker) = &mut self.connmgr {
                    worker.packet(now, &mut self.clients, bytes);
                }
            }
            Link::Push => {
                if let Some(proxy) = &mut self.proxy {
                    proxy.request(now, bytes);
                }
            }
            Link::ToProxy => {
                if let Some(proxy) = &mut self.proxy {
                    proxy.client_packet(now, bytes);
                }
            }
            Link::AcceptReply => {
                if let Some(proxy) = &mut self.proxy {
                    proxy.accept_reply(now, bytes);
                }
            }
            Link::Retry => {
                if let Some(proxy) = &mut self.proxy {
                    proxy.retry(now, bytes);
                }
            }
            Link::ControlReply => {
                if let Some(proxy) = &mut self.proxy {
                    proxy.control_packet(now, bytes);
                }
            }
            Link::Control => {
                if let Some(handler) = &mut self.handler {
                    handler.control(now, shard, bytes);
                }
            }
            Link::ToHandler => {
                if let Some(handler) = &mut self.handler {
                    handler.client_message(now, shard, bytes);
                }
            }
            Link::Accept => {
                if let Some(handler) = &mut self.handler {
                    handler.call(now, shard, Vec::new(), bytes);
                }
            }
        }
    }

    fn backend_acts(&mut self, key: Key, act: Act) {
        let Some(proxy) = &mut self.proxy else { return };
        match act {
            Act::Head(code, headers, length) => {
                let headers: Vec<http1::Header<'_>> = headers
                    .iter()
                    .map(|(name, value)| http1::Header { name, value: value.as_bytes() })
                    .collect();
                let event = Event::Head { code, reason: "OK", headers: &headers, length };
                proxy.origin_event(self.now, key, event);
            }
            Act::Body(bytes) => proxy.origin_event(self.now, key, Event::Body(&bytes)),
            Act::End => proxy.origin_event(self.now, key, Event::End),
            Act::Fail(error) => proxy.origin_event(self.now, key, Event::Failed(error)),
            Act::Socket(act) => act.tell(|event| {
                proxy.origin_event(self.now, key, Event::WebSocket(event));
            }),
        }
    }

    fn connmgr_outputs(&mut self) {
        let Some(mut worker) = self.connmgr.take() else { return };
        worker.end_turn(self.now, &mut self.clients);
        while let Some(output) = worker.poll_output() {
            match output {
                connmgr::Output::First { packet, .. } => self.put(Link::Push, 0, packet),
                connmgr::Output::Req { .. } => unreachable!("no listener of req mode"),
                connmgr::Output::To { peer, packet } => {
                    let name = String::from_utf8_lossy(&peer);
                    match name.starts_with("handler_0") {
                        true => self.put(Link::ToHandler, shard_of(&name), packet),
                        false => self.put(Link::ToProxy, 0, packet),
                    }
                }
            }
        }
        self.connmgr = Some(worker);
    }

    fn proxy_outputs(&mut self) {
        let Some(mut proxy) = self.proxy.take() else { return };
        while let Some(output) = proxy.poll_output() {
            match output {
                proxy::Output::Client { message, .. } => self.put(Link::FromProxy, 0, message),
                proxy::Output::Accept { payload, .. } => {
                    // ZeroMQ gives each call to the next shard.
                    let calls = self.count(Link::Accept).messages;
                    let shards = self.handler.as_ref().map_or(1, |h| h.shards().len());
                    self.put(Link::Accept, calls % shards, payload);
                }
                proxy::Output::Start { key, request, .. } => self.ask_backend(key, &request),
                proxy::Output::Control { handler, payload } => {
                    let handler = handler.map(|name| String::from_utf8_lossy(&name).into_owned());
                    let shard = handler.as_deref().map_or(0, shard_of);
                    self.put(Link::Control, shard, payload);
                }
                output => self.socket_output(output),
            }
        }
        self.proxy = Some(proxy);
    }

    fn ask_backend(&mut self, key: Key, request: &Request) {
        let target = target(request);
        for (delay, act) in (self.backend)(&target, events(request).as_deref()) {
            self.deliver(delay, Arrival::Backend(key, act));
        }
        self.requests.push(target);
    }

    /// A WebSocket to the backend: it opens as the script for `/socket` says.
    fn socket_output(&mut self, output: proxy::Output) {
        match output {
            proxy::Output::OpenWebSocket { key, .. } => {
                self.sockets.push(key);
                for (delay, act) in (self.backend)("/socket", None) {
                    self.deliver(delay, Arrival::Backend(key, act));
                }
            }
            proxy::Output::Message { data, .. } => {
                self.to_sockets.push_str(&String::from_utf8_lossy(&data));
            }
            // The backend agrees to close.
            proxy::Output::Close { key, .. } => {
                self.to_sockets.push_str("[close]");
                self.backend_does(key, Act::End);
            }
            proxy::Output::Cancel(_) => self.to_sockets.push_str("[cancel]"),
            _ => {}
        }
    }

    /// The backend does something by itself, a moment from now.
    pub fn backend_does(&mut self, key: Key, act: Act) {
        self.deliver(LATENCY_MS, Arrival::Backend(key, act));
    }

    fn handler_outputs(&mut self) {
        let Some(mut handler) = self.handler.take() else { return };
        while let Some(output) = handler.poll_output() {
            match output {
                handler::Output::ToClient { message, .. } => {
                    self.put(Link::FromHandler, 0, message);
                }
                handler::Output::Reply { payload, .. } => self.put(Link::AcceptReply, 0, payload),
                handler::Output::ToProxy { packet, .. } => {
                    self.put(Link::ControlReply, 0, packet);
                }
                handler::Output::Retry { packet, .. } => self.put(Link::Retry, 0, packet),
                _ => {}
            }
        }
        self.handler = Some(handler);
    }

    /// Puts a message on its way, or loses it.
    fn put(&mut self, link: Link, shard: usize, mut bytes: Vec<u8>) {
        let count = self.counts.entry(link).or_default();
        let number = count.messages;
        count.messages += 1;
        if link.is_zhttp() {
            for packet in zhttp::split(&bytes) {
                count.packets += 1;
                let packet = Packet::parse(packet).expect("a packet");
                count.ids += packet.ids.len();
                count.bodies += usize::from(!packet.body.is_empty());
            }
        }
        if self.lose.get(&link).is_some_and(|lost| lost.contains(&number)) {
            return;
        }
        if self.spoiled.get(&link).is_some_and(|from| number >= *from) {
            bytes = b"T3:abc,nonsense".to_vec();
        }
        let (times, late) = match self.faults.fate() {
            Fate::Lost => return,
            Fate::Twice => (2, 0),
            Fate::Late(ms) => (1, ms),
            Fate::Arrives => (1, 0),
        };
        let more = self.delays.get(&link).copied().unwrap_or_default();
        let way = self.ways.entry((link, shard)).or_default();
        *way = (*way).max(self.now + LATENCY_MS + late + more);
        let delay = *way - self.now;
        for _ in 0..times {
            self.deliver(delay, Arrival::Message(link, shard, bytes.clone()));
        }
    }

    fn deliver(&mut self, delay: u64, arrival: Arrival) {
        self.sent += 1;
        self.on_the_way.insert((self.now + delay, self.sent), arrival);
    }
}
