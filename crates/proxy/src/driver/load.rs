//! The engine's settings from the configuration (spec/proxy.md §1.2).

use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::SecureRandom;

use crate::routing::Signing;
use crate::settings::{ForwardedFor, ForwardedProto, Settings};
use crate::sig::SigKey;

/// The settings of worker `n` of `count`.
pub(crate) fn settings(config: &config::Settings, n: usize, count: usize) -> Settings {
    let pid = std::process::id();
    let text = |key| config.string("proxy", key).unwrap_or_default();
    let truth = |key| config.bool("proxy", key, false);
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Settings {
        instance_id: if count > 1 { format!("proxy_{pid}-{n}") } else { format!("proxy_{pid}") },
        epoch_s: epoch.as_secs(),
        seed: seed(),
        sessions_max: (sessions_max(config) / count).max(1),
        debug: truth("debug"),
        auto_cross_origin: truth("auto_cross_origin"),
        accept_forwarded_proto: truth("accept_x_forwarded_protocol"),
        set_forwarded_proto: match text("set_x_forwarded_protocol").as_str() {
            "true" => ForwardedProto::Both,
            "proto-only" => ForwardedProto::ProtoOnly,
            _ => ForwardedProto::Off,
        },
        forwarded_for: ForwardedFor::parse(&config.list("proxy", "x_forwarded_for")),
        forwarded_for_trusted: ForwardedFor::parse(
            &config.list("proxy", "x_forwarded_for_trusted"),
        ),
        orig_headers_need_mark: config.list("proxy", "orig_headers_need_mark"),
        accept_route_header: truth("accept_pushpin_route"),
        cdn_loop: text("cdn_loop"),
        log_from: truth("log_from"),
        log_user_agent: truth("log_user_agent"),
        outside_client: matches!(config::specs::ClientSpecs::from(config), Ok(Some(_))),
        target_id: format!("proxy_{pid}"),
        worker: n,
        workers: count,
        sockjs_page: sockjs::Page::new(&text("sockjs_url")),
        upstream_key: SigKey::load(&text("upstream_key"), config.dir()),
        inspect_all: config.bool("handler", "share_all", false),
        connection_send: config.bool("global", "stats_connection_send", true),
        connection_ttl_s: at_least_one(config.int("global", "stats_connection_ttl", 120)),
        connections_max_ttl_s: at_least_one(config.int("proxy", "stats_connections_max_ttl", 60)),
        report_interval_ms: report_interval_ms(config),
    }
}

/// Random bytes of the system.
fn seed() -> [u8; 32] {
    let mut bytes = [0; 32];
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        log::error!("the system gives no random bytes, ids can be guessed");
    }
    bytes
}

fn at_least_one(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(1).max(1)
}

fn report_interval_ms(config: &config::Settings) -> u64 {
    let seconds = config.int("proxy", "stats_report_interval", 10);
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000)
}

/// The smaller of `max_open_requests` and `client_maxconn`.
fn sessions_max(config: &config::Settings) -> usize {
    let clients = config.int("runner", "client_maxconn", 50_000);
    let own = config.int("proxy", "max_open_requests", -1);
    let max = if own >= 0 { own.min(clients) } else { clients };
    usize::try_from(max).unwrap_or(0)
}

/// What signs requests of routes without own keys.
pub(crate) fn signing(config: &config::Settings) -> Signing {
    let key = config.string("proxy", "sig_key").unwrap_or_default();
    Signing {
        issuer: config.string("proxy", "sig_iss").unwrap_or_else(|| "pushpin".into()),
        key: SigKey::load(&key, config.dir()),
    }
}
