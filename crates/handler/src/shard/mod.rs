//! A shard: the sessions of some connection managers, their timers, and the way of an item to
//! them. Pure: packets and messages of the hub go in with the time, packets come out.
//!
//! [`crate::engine`] drives it, in one thread with the hub or in a thread of its own.

mod accept;
mod answer;
mod channel;
mod client;
mod cross;
mod deliver;
mod fetch;
mod filtering;
mod group;
mod heads;
mod inspect;
mod latency;
mod life;
mod limited;
mod links;
mod named;
mod peers;
mod queue;
mod retry;
mod rounds;
mod session;
mod socket;
mod special;
mod stop;
mod subscribe;
mod table;
mod timers;

use std::collections::VecDeque;
use std::sync::Arc;

use evloop::arena::{Arena, Key};
use evloop::timer::Wheel;
use foldhash::fast::RandomState;
use grip::KeepAlive;
use hashbrown::HashTable;
use stats::Route;

use crate::intern::Interner;
use crate::limiter::Limiter;
use crate::message::{Output, Sums, ToHub, ToShard};
use crate::settings::Settings;
use channel::Channel;
pub(crate) use latency::BOUNDS_US as LATENCY_BOUNDS_US;
use peers::Peers;
use session::Session;
use socket::{Profile, Proxies, Socket};

/// Items on their way from which on inputs are left alone.
const UNDER_WAY_MAX: usize = 2_000;

/// Deliveries under a limit that may wait, from which on inputs are left alone.
const WAITING_MAX: usize = 500_000;

/// What was thrown away since the start, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Packets that could not be read, or say neither who sent them nor for whom they are.
    pub bad_packets: u64,
    /// Sessions and requests that packets named and nobody has: late packets, mostly.
    pub unknown: u64,
    /// Sessions ended by a packet of a type that nobody knows.
    pub unexpected: u64,
    /// Calls that could not be read.
    pub bad_calls: u64,
    /// Items for a session whose queue was full.
    pub queue_full: u64,
    /// Items for a channel with too many on their way.
    pub pass_full: u64,
    /// Deliveries above the mark of those that may wait.
    pub over_hwm: u64,
    /// Items that a filter could not be applied to.
    pub filter_failed: u64,
    /// Sessions ended by a wrong sequence number.
    pub bad_seq: u64,
    /// Sessions that expired.
    pub expired: u64,
    /// Sessions that were ended because their client took too little.
    pub slow_closed: u64,
    /// Control messages of WebSocket backends that could not be read.
    pub bad_controls: u64,
    /// Subscriptions beyond the most that one WebSocket may have.
    pub too_many_subscriptions: u64,
    /// WebSockets that were ended because a delayed message was not acknowledged.
    pub unacknowledged: u64,
    /// Gone links that were not told because too many waited.
    pub gone_links: u64,
}

/// What a shard holds and threw away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Response holds.
    pub responses: u64,
    /// Stream holds.
    pub streams: u64,
    /// WebSockets.
    pub sockets: u64,
    /// Items on their way.
    pub under_way: u64,
    /// Deliveries that wait under a limit.
    pub limited: u64,
    /// What was thrown away.
    pub drops: Drops,
}

/// Room for messages that is kept from one turn to the next; a crowd that comes or leaves needs
/// far more, and it goes back.
pub(crate) const KEPT_MESSAGES: usize = 256;

/// What the sessions of one route counted.
#[derive(Debug)]
struct RouteState {
    route: Route,
    sums: Sums,
    touched: bool,
}

/// The shard.
#[derive(Debug)]
pub struct Shard {
    settings: Arc<Settings>,
    number: usize,
    /// The shard's instance id.
    from: String,
    sessions: Arena<Session>,
    /// How many of them are response holds.
    responses: u64,
    by_id: HashTable<u32>,
    hasher: RandomState,
    peers: Peers,
    channels: Arena<Channel>,
    fetches: queue::Fetches,
    rounds: rounds::Rounds,
    updates: queue::Updates,
    questions: filtering::Questions,
    sockets: Arena<Socket>,
    sockets_by_id: HashTable<u32>,
    proxies: Proxies,
    profiles: Interner<Profile>,
    socket_wheel: Wheel<Key>,
    socket_group: socket::Group,
    by_name: HashTable<u32>,
    /// Channels, with the hub's numbers, whose remembered id a hold just contradicted.
    outdated: Vec<(u32, u32)>,
    keep_alives: Interner<KeepAlive>,
    header_sets: Interner<heads::HeadSet>,
    route_names: Interner<Route>,
    routes: Vec<RouteState>,
    touched_routes: Vec<u32>,
    wheel: Wheel<Key>,
    /// Sessions whose deadlines came in great numbers.
    crowd: timers::Crowd,
    /// Those whose session keep-alives did.
    quiet_crowd: timers::Crowd,
    walks: timers::Walks,
    work: VecDeque<Key>,
    limiter: Option<Limiter<limited::Delivery>>,
    /// Items on their way over the channels' lists.
    under_way: usize,
    latency: latency::Latency,
    /// Sessions and WebSockets that belong to a GRIP session.
    named: usize,
    out: Vec<Output>,
    to_hub: Vec<ToHub>,
    listening: bool,
    random: u64,
    retry_seq: u32,
    stopping: bool,
    drops: Drops,
    /// What the hub was told last.
    told: Figures,
    group: group::Group,
}

impl Shard {
    /// The shard of that number, without sessions.
    pub fn new(settings: Arc<Settings>, number: usize) -> Self {
        let from = settings.shard_id(number);
        let random = settings.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number as u64 + 1);
        Self {
            number,
            sessions: Arena::new(),
            responses: 0,
            by_id: HashTable::new(),
            hasher: RandomState::default(),
            peers: Peers::new(number, &from),
            proxies: Proxies::new(number, &from),
            from,
            channels: Arena::new(),
            fetches: queue::Fetches::default(),
            rounds: rounds::Rounds::default(),
            updates: queue::Updates::default(),
            questions: filtering::Questions::default(),
            sockets: Arena::new(),
            sockets_by_id: HashTable::new(),
            profiles: Interner::new(),
            socket_wheel: Wheel::new(timers::TICK_MS),
            socket_group: socket::Group::default(),
            by_name: HashTable::new(),
            outdated: Vec::new(),
            keep_alives: Interner::new(),
            header_sets: Interner::new(),
            route_names: Interner::new(),
            routes: Vec::new(),
            touched_routes: Vec::new(),
            wheel: Wheel::new(timers::TICK_MS),
            crowd: timers::Crowd::default(),
            quiet_crowd: timers::Crowd::default(),
            walks: timers::Walks::default(),
            work: VecDeque::new(),
            limiter: settings.limits.clone().map(Limiter::new),
            under_way: 0,
            latency: latency::Latency::default(),
            named: 0,
            out: Vec::new(),
            to_hub: Vec::new(),
            listening: false,
            random: random | 1,
            retry_seq: 0,
            stopping: false,
            drops: Drops::default(),
            told: Figures::default(),
            group: group::Group::default(),
            settings,
        }
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sessions held.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// What was thrown away.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// Whether so many items are on their way that no more should be taken in.
    pub fn congested(&self) -> bool {
        let waiting = self.limiter.as_ref().map_or(0, Limiter::len);
        self.under_way > UNDER_WAY_MAX || waiting > WAITING_MAX
    }

    /// Goes on with other settings. Limits that were there are changed in their place.
    fn set_settings(&mut self, settings: Arc<Settings>) {
        if self.limiter.is_none() {
            self.limiter = settings.limits.clone().map(Limiter::new);
        }
        self.settings = settings;
    }

    /// Takes a message of the hub.
    pub fn from_hub(&mut self, now: u64, message: ToShard) {
        match message {
            ToShard::Subscribed { channel, hub, last_id } => {
                self.subscribed(now, channel, hub, last_id);
            }
            ToShard::Publish { channel, item, at } => self.publish(channel, &item, at),
            ToShard::Forget { channel } => {
                if let Some(channel) = self.channels.get_mut(channel) {
                    channel.last_id = None;
                }
            }
            ToShard::Inspected { envelope, payload } => self.answer_call(envelope, payload),
            ToShard::Update { channel } => self.update(now, channel),
            ToShard::Refresh { channel } => self.refresh_channel(channel),
            ToShard::RefreshOne { call, cid } => {
                let found = self.refresh_socket(&cid);
                self.to_hub.push(ToHub::Refreshed { call, found });
            }
            ToShard::Listening(listening) => self.listening = listening,
            ToShard::Settings(settings) => self.set_settings(settings),
            ToShard::ConnCheck { call, ids } => {
                let found = ids.iter().filter(|id| self.knows(id)).cloned().collect();
                self.to_hub.push(ToHub::ConnFound { call, ids: found });
            }
        }
    }

    /// Moves what the hub is to know to `messages`.
    pub fn take_to_hub(&mut self, messages: &mut impl Extend<ToHub>) {
        for number in self.touched_routes.drain(..) {
            let state = &mut self.routes[number as usize];
            state.touched = false;
            let sums = std::mem::take(&mut state.sums);
            self.to_hub.push(ToHub::Sums(state.route.clone(), sums));
        }
        self.to_hub.extend(self.latency.take().map(ToHub::HandedOver));
        // Told together with other news: something changed then.
        if !self.to_hub.is_empty() {
            let figures = self.figures();
            if figures != self.told {
                self.told = figures;
                self.to_hub.push(ToHub::Figures(Box::new(figures)));
            }
        }
        messages.extend(self.to_hub.drain(..));
        self.to_hub.shrink_to(KEPT_MESSAGES);
    }

    fn figures(&self) -> Figures {
        Figures {
            responses: self.responses,
            streams: self.sessions.len() as u64 - self.responses,
            sockets: self.sockets.len() as u64,
            under_way: self.under_way as u64,
            limited: self.limiter.as_ref().map_or(0, Limiter::len) as u64,
            drops: self.drops,
        }
    }

    /// Whether the hub is to know something.
    pub fn has_news(&self) -> bool {
        !self.to_hub.is_empty() || !self.touched_routes.is_empty()
    }

    /// Moves what is to be sent to `outputs`.
    pub fn take_output(&mut self, outputs: &mut impl Extend<Output>) {
        self.peers.flush(&mut self.out);
        self.proxies.flush(&mut self.out);
        outputs.extend(self.out.drain(..));
        self.out.shrink_to(KEPT_MESSAGES);
    }

    /// Whether something is to be sent.
    pub fn has_output(&self) -> bool {
        !self.out.is_empty() || self.peers.has_output() || self.proxies.has_output()
    }

    /// Lets `count` add to the sums of a route.
    fn count(&mut self, route: u32, count: impl FnOnce(&mut Sums)) {
        let state = &mut self.routes[route as usize];
        count(&mut state.sums);
        if !state.touched {
            state.touched = true;
            self.touched_routes.push(route);
        }
    }

    /// The number of a route.
    fn route(&mut self, route: Route) -> u32 {
        let number = self.route_names.acquire(route.clone());
        while self.routes.len() <= number as usize {
            self.routes.push(RouteState { route: None, sums: Sums::default(), touched: false });
        }
        let state = &mut self.routes[number as usize];
        if state.route != route {
            // The number is used again: what its old route counted goes out under its name.
            let sums = std::mem::take(&mut state.sums);
            let old = std::mem::replace(&mut state.route, route);
            if sums != Sums::default() {
                self.to_hub.push(ToHub::Sums(old, sums));
            }
        }
        number
    }

    /// The next random number below `bound` (xorshift; spreads timers, nothing more).
    fn random(&mut self, bound: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((self.random >> 32) as u32) % bound.max(1)
    }
}
