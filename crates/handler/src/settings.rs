//! The settings of the engine, resolved (spec/publish.md §11, spec/stats.md §4).

use std::sync::Arc;

use crate::limiter::Limits;

/// What the engine needs to know. The driver makes it from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `handler_<pid>`: the `from` of stats, and of packets where there is one shard.
    pub instance_id: String,
    /// Shards.
    pub workers: usize,
    /// Channels of one connection, implicit ones not counted.
    pub subscriptions_max: usize,
    /// How long the subscription of a response hold outlives it, milliseconds.
    pub linger_ms: u64,
    /// How long an id is remembered as seen, milliseconds; 0 switches it off.
    pub id_cache_ttl_ms: u64,
    /// How long an item waits for the one before it, milliseconds.
    pub message_wait_ms: u64,
    /// Deliveries a second, and how many may wait, where that is limited.
    pub limits: Option<Arc<Limits>>,
    /// Over how long the sessions end when the process stops, milliseconds.
    pub drain_ms: u64,
    /// A client that takes too little is ended instead of losing items.
    pub close_slow: bool,
    /// Bytes of a block; 0 counts no blocks.
    pub message_block_size: u64,
    /// Whether a fresh channel's sessions ask the backend once after a second.
    pub update_on_first_subscription: bool,
    /// Answers to publishes tell how many sessions they reach.
    pub tells_receivers: bool,
    /// A service keeps GRIP sessions.
    pub sessions: bool,
    /// Let all requests share one backend request.
    pub share_all: bool,
    /// Encoding of the stats socket.
    pub stats_format: stats::Format,
    /// Whether `conn` packets are sent at all.
    pub stats_connection_send: bool,
    /// Life of a `conn` packet, seconds.
    pub stats_connection_ttl_s: u64,
    /// Life of a `sub` packet, seconds.
    pub stats_subscription_ttl_s: u64,
    /// Milliseconds between reports; 0 switches them off.
    pub stats_report_interval_ms: u64,
    /// Error texts may tell the cause to any client.
    pub debug: bool,
    /// Start of the random numbers that spread keep-alives.
    pub seed: u64,
    /// Addresses for `get-zmq-uris`: command, publish-pull, publish-sub.
    pub uris: Vec<(&'static str, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            instance_id: "handler_0".to_owned(),
            workers: 1,
            subscriptions_max: 20,
            linger_ms: 60_000,
            id_cache_ttl_ms: 0,
            message_wait_ms: 5_000,
            limits: None,
            drain_ms: 0,
            close_slow: false,
            message_block_size: 0,
            update_on_first_subscription: true,
            tells_receivers: false,
            sessions: false,
            share_all: false,
            stats_format: stats::Format::Tnetstring,
            stats_connection_send: true,
            stats_connection_ttl_s: 120,
            stats_subscription_ttl_s: 60,
            stats_report_interval_ms: 10_000,
            debug: false,
            seed: 1,
            uris: Vec::new(),
        }
    }
}

impl Settings {
    /// These settings where `old` ones were in force: what is structural stays as it was, limits
    /// are changed for all that have them.
    #[must_use]
    pub fn after(self, old: &Self) -> Self {
        let limits = match &old.limits {
            Some(limits) => {
                limits.change(self.limits.as_deref());
                Some(limits.clone())
            }
            None => self.limits,
        };
        Self {
            instance_id: old.instance_id.clone(),
            workers: old.workers,
            limits,
            sessions: old.sessions,
            seed: old.seed,
            uris: old.uris.clone(),
            ..self
        }
    }

    /// The ZHTTP instance id of a shard.
    pub fn shard_id(&self, shard: usize) -> String {
        match self.workers {
            0 | 1 => self.instance_id.clone(),
            _ => format!("{}-{shard}", self.instance_id),
        }
    }
}
