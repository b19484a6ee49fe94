//! What hub and shards say to each other, and what the engine gives to its driver.
//!
//! Between one hub and one shard each way is one FIFO. A shard speaks of a channel by the
//! hub's number once it was told; the hub by the shard's key, so that neither looks up names
//! on the way of a publish.

use std::net::IpAddr;
use std::sync::Arc;

use evloop::arena::Key;
use grip::Item;
use stats::{Counters, Mode, Route};

use crate::settings::Settings;

/// From the hub to a shard.
#[derive(Clone, Debug)]
pub enum ToShard {
    /// The subscription is in force: every item after this comes, none before it.
    Subscribed {
        /// The shard's channel.
        channel: Key,
        /// The hub's number for it.
        hub: u32,
        /// Id of the last item published on it.
        last_id: Option<Arc<str>>,
    },
    /// An item for the sessions on a channel.
    Publish {
        /// The shard's channel.
        channel: Key,
        /// Parsed once, shared by all.
        item: Arc<Item>,
        /// When it was published.
        at: u64,
    },
    /// The remembered id of the channel led to a conflict elsewhere.
    Forget {
        /// The shard's channel.
        channel: Key,
    },
    /// Sessions on the channel are to ask the backend, if they can.
    Update {
        /// The shard's channel; none means every session, and all ids are forgotten.
        channel: Option<Key>,
    },
    /// The backends of the WebSockets on a channel are to be asked now, where that is possible.
    Refresh {
        /// The shard's channel.
        channel: Key,
    },
    /// As `Refresh`, for one WebSocket.
    RefreshOne {
        /// Given back with the answer.
        call: u64,
        /// Its connection id.
        cid: Arc<[u8]>,
    },
    /// What to answer to an `inspect` call.
    Inspected {
        /// As the call brought it.
        envelope: Envelope,
        /// Payload.
        payload: Vec<u8>,
    },
    /// Whether `conn` packets have a listener.
    Listening(bool),
    /// The configuration was read again.
    Settings(Arc<Settings>),
    /// Which of these connections are known?
    ConnCheck {
        /// Given back with the answer.
        call: u64,
        /// `SENDER:ID` each.
        ids: Arc<[String]>,
    },
}

/// From a shard to the hub.
#[derive(Clone, Debug)]
pub enum ToHub {
    /// The shard has a first session on a channel.
    Subscribe {
        /// The shard's key for it.
        channel: Key,
        /// Full name.
        name: Arc<str>,
    },
    /// How many sessions the shard has on a channel.
    Count {
        /// The hub's number of the channel.
        hub: u32,
        /// Kind of holds.
        mode: Mode,
        /// Sessions.
        count: u32,
    },
    /// The shard has nobody on the channel any more and has forgotten it.
    Release {
        /// The hub's number of the channel.
        hub: u32,
    },
    /// The remembered id of the channel led to a conflict.
    Forget {
        /// The hub's number of the channel.
        hub: u32,
    },
    /// The shard took a client connection over.
    Took(Box<Took>),
    /// A client connection ended or went back to the proxy.
    Left {
        /// `SENDER:ID`.
        id: String,
        /// Explicit route id.
        route: Route,
        /// It went back: the proxy speaks for it from now on.
        retry: bool,
    },
    /// A `conn` packet to send on.
    Conn(Vec<u8>),
    /// Sums since the last message.
    Sums(Route, Sums),
    /// A proxy's maximum of connections (spec/stats.md §6).
    ConnMax {
        /// Instance id of the proxy.
        from: String,
        /// Explicit route id.
        route: Route,
        /// Connections.
        max: u64,
        /// Life of the figure, seconds.
        ttl_s: u64,
    },
    /// Which GRIP session does this request belong to? Answered by [`ToShard::Inspected`].
    FindSession(Box<Question>),
    /// What a response says of its GRIP session.
    StoreSession(Box<Stored>),
    /// GRIP sessions have seen an item.
    SessionIds(Box<SessionIds>),
    /// Times from publishing to handing over, since the last message.
    HandedOver(Box<metrics::Histogram>),
    /// What the shard holds and threw away, if that changed.
    Figures(Box<crate::shard::Figures>),
    /// Answer to [`ToShard::RefreshOne`].
    Refreshed {
        /// Of the question.
        call: u64,
        /// Whether the WebSocket is known.
        found: bool,
    },
    /// Answer to [`ToShard::ConnCheck`].
    ConnFound {
        /// Of the question.
        call: u64,
        /// Those that are known.
        ids: Vec<String>,
    },
}

/// A client connection that a shard took over.
#[derive(Clone, Debug)]
pub struct Took {
    /// `SENDER:ID`.
    pub id: String,
    /// Explicit route id.
    pub route: Route,
    /// Logical address of the client.
    pub address: Option<IpAddr>,
    /// The client's side is TLS.
    pub ssl: bool,
    /// Whether the proxy keeps the minutes, and no minute is to be counted now.
    pub minute_counted: bool,
}

/// An `inspect` call that asks for the GRIP session of a request.
#[derive(Clone, Debug)]
pub struct Question {
    /// As the call brought it.
    pub envelope: Envelope,
    /// Id of the call.
    pub id: Option<Vec<u8>>,
    /// For the answer.
    pub sharing_key: Option<Vec<u8>>,
    /// Host of the request.
    pub domain: String,
    /// Path of the request.
    pub path: String,
    /// The first part of its body.
    pub body: Vec<u8>,
}

/// What a response says of its GRIP session.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Host of the request.
    pub domain: String,
    /// Id, rules and last ids.
    pub info: grip::SessionInfo,
}

/// GRIP sessions that have seen an item.
#[derive(Clone, Debug)]
pub struct SessionIds {
    /// Of the item.
    pub id: String,
    /// Sessions, and the channel as their backend names it.
    pub seen: Vec<(Arc<str>, Box<str>)>,
}

/// What a shard counted for one route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Connections that came, less those that went.
    pub connections: i64,
    /// Connection minutes begun.
    pub minutes: u64,
    /// Deliveries.
    pub sent: u64,
    /// Of them to response holds.
    pub http_response_sent: u64,
    /// Blocks of the deliveries.
    pub blocks_sent: u64,
    /// Keep-alives written.
    pub activity: u64,
    /// Bytes to clients.
    pub counters: Counters,
}

/// Frames of a ZeroMQ message around a call, to be put around its answer.
pub type Envelope = Vec<Vec<u8>>;

/// What the driver is to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a message to a connection manager.
    ToClient {
        /// Which shard's sockets.
        shard: usize,
        /// Instance id of the connection manager.
        peer: Arc<[u8]>,
        /// By the ROUTER socket, else by PUB.
        router: bool,
        /// One packet, or several for a peer that takes batches.
        message: Vec<u8>,
    },
    /// Send a WebSocket control packet to a proxy.
    ToProxy {
        /// Which shard's sockets.
        shard: usize,
        /// Instance id of the proxy.
        proxy: Arc<[u8]>,
        /// One packet.
        packet: Vec<u8>,
    },
    /// Answer an accept or inspect call.
    Reply {
        /// Which shard's sockets.
        shard: usize,
        /// As the call brought it.
        envelope: Envelope,
        /// Payload.
        payload: Vec<u8>,
    },
    /// Give client sessions back to a proxy.
    Retry {
        /// Which shard's sockets.
        shard: usize,
        /// Instance id of the proxy; empty if it never said.
        proxy: Arc<[u8]>,
        /// Payload.
        packet: Vec<u8>,
    },
    /// Send a packet of a request of our own.
    Internal {
        /// Which shard's sockets.
        shard: usize,
        /// Instance id of the proxy; none yet for the first packet, which any may take.
        proxy: Option<Arc<[u8]>>,
        /// One packet.
        packet: Vec<u8>,
    },
    /// Answer a command.
    CommandReply {
        /// As the call brought it.
        envelope: Envelope,
        /// Payload.
        payload: Vec<u8>,
    },
    /// Ask the proxy for what a command needs.
    ProxyCommand {
        /// Given back if it cannot be asked.
        call: u64,
        /// Payload.
        payload: Vec<u8>,
    },
    /// Call the service that keeps GRIP sessions.
    StateCall {
        /// Given back if it cannot be called.
        call: u64,
        /// Payload.
        payload: Vec<u8>,
    },
    /// Send a frame on the stats socket.
    Stats(Vec<u8>),
    /// The SUB input is to receive a channel.
    Subscribe(Arc<str>),
    /// The SUB input is to stop receiving a channel.
    Unsubscribe(Arc<str>),
    /// Whether the proxies are to send every `conn` packet.
    ListenConn(bool),
}
