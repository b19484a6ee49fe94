//! What the engine is told at its start, resolved from the configuration.

use crate::sig::SigKey;

/// Which X-Forwarded-Proto headers a backend gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedProto {
    /// None.
    #[default]
    Off,
    /// X-Forwarded-Proto.
    ProtoOnly,
    /// X-Forwarded-Protocol too.
    Both,
}

/// A rule of `x_forwarded_for`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardedFor {
    /// Keep only so many of the last values.
    pub truncate: Option<usize>,
    /// Add the peer's address.
    pub append: bool,
}

impl ForwardedFor {
    /// Reads the items of the setting; a bad number ends it (spec/proxy.md §1.2).
    pub fn parse<S: AsRef<str>>(items: &[S]) -> Self {
        let mut rule = Self::default();
        for item in items {
            match item.as_ref().strip_prefix("truncate:") {
                Some(number) => match number.trim().parse() {
                    Ok(count) => rule.truncate = Some(count),
                    Err(_) => break,
                },
                None => rule.append |= item.as_ref() == "append",
            }
        }
        rule
    }
}

/// The engine's settings. Every field is one of spec/proxy.md §1.2.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `from` of every packet: `proxy_<pid>` or `proxy_<pid>-<n>`.
    pub instance_id: String,
    /// Unix time in seconds at `now` = 0.
    pub epoch_s: u64,
    /// 32 secret random bytes, for ids that nobody can guess.
    pub seed: [u8; 32],
    /// Most sessions; more requests wait in ZeroMQ.
    pub sessions_max: usize,
    /// `debug`
    pub debug: bool,
    /// `auto_cross_origin`
    pub auto_cross_origin: bool,
    /// `accept_x_forwarded_protocol`
    pub accept_forwarded_proto: bool,
    /// `set_x_forwarded_protocol`
    pub set_forwarded_proto: ForwardedProto,
    /// `x_forwarded_for`
    pub forwarded_for: ForwardedFor,
    /// `x_forwarded_for_trusted`
    pub forwarded_for_trusted: ForwardedFor,
    /// `orig_headers_need_mark`
    pub orig_headers_need_mark: Vec<String>,
    /// `accept_pushpin_route`
    pub accept_route_header: bool,
    /// `cdn_loop`; empty for none.
    pub cdn_loop: String,
    /// `log_from`
    pub log_from: bool,
    /// `log_user_agent`
    pub log_user_agent: bool,
    /// Requests to hosts go through an outside ZHTTP client.
    pub outside_client: bool,
    /// `from` of packets to ZHTTP workers, the same for all workers of the process.
    pub target_id: String,
    /// Which of the workers this is, from 0.
    pub worker: usize,
    /// How many workers there are.
    pub workers: usize,
    /// The page with `sockjs_url`.
    pub sockjs_page: sockjs::Page,
    /// `upstream_key`
    pub upstream_key: Option<SigKey>,
    /// Ask the handler about every request (`share_all`).
    pub inspect_all: bool,
    /// `stats_connection_send`: single connections may be told.
    pub connection_send: bool,
    /// `stats_connection_ttl`, seconds.
    pub connection_ttl_s: u64,
    /// `stats_connections_max_ttl`, seconds.
    pub connections_max_ttl_s: u64,
    /// `stats_report_interval`, milliseconds; 0 for none.
    pub report_interval_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            instance_id: "proxy".into(),
            epoch_s: 0,
            seed: [0; 32],
            sessions_max: 50_000,
            debug: false,
            auto_cross_origin: false,
            accept_forwarded_proto: false,
            set_forwarded_proto: ForwardedProto::Off,
            forwarded_for: ForwardedFor::default(),
            forwarded_for_trusted: ForwardedFor::default(),
            orig_headers_need_mark: Vec::new(),
            accept_route_header: false,
            cdn_loop: String::new(),
            log_from: false,
            log_user_agent: false,
            outside_client: false,
            target_id: "proxy".into(),
            worker: 0,
            workers: 1,
            sockjs_page: sockjs::Page::new(""),
            upstream_key: None,
            inspect_all: false,
            connection_send: true,
            connection_ttl_s: 120,
            connections_max_ttl_s: 60,
            report_interval_ms: 10_000,
        }
    }
}
