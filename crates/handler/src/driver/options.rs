//! The command line and the configuration of the handler (spec/programs.md §3,
//! spec/config.md §6): words first, then resolved settings.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{ArgAction, Parser};
use config::specs::HandlerSpecs;
use config::{CONFIG_DIR, Overrides, Settings as File};

use crate::control::{Limits as Sizes, Rules};
use crate::limiter::Limits;
use crate::settings::Settings;

/// The options as words.
#[derive(Clone, Debug, Parser)]
#[command(name = "pushpin-handler", version, about = "Pushpin handler component")]
#[command(disable_version_flag = true)]
pub struct Words {
    /// Configuration file
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// File to log to; standard output if absent
    #[arg(short, long, value_name = "FILE")]
    pub(super) logfile: Option<PathBuf>,
    /// Log level: 0 error, 1 warning, 2 info, 3 debug, 4 trace
    #[arg(short = 'L', long, value_name = "N", default_value = "2")]
    pub(super) loglevel: u32,
    /// Same as --loglevel=3
    #[arg(long)]
    pub(super) verbose: bool,
    /// Overrides ipc_prefix of the configuration
    #[arg(long, value_name = "PREFIX")]
    pub(super) ipc_prefix: Option<String>,
    /// Overrides port_offset of the configuration
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) port_offset: Option<i64>,
    /// Print version
    #[arg(short = 'V', short_alias = 'v', long, action = ArgAction::Version)]
    version: (),
}

impl Words {
    /// The log level asked for.
    pub(super) fn level(&self) -> u32 {
        if self.verbose { self.loglevel.max(3) } else { self.loglevel }
    }
}

/// Everything the driver needs.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) settings: Settings,
    pub(super) specs: HandlerSpecs,
    pub(super) push_in_spec: Option<String>,
    pub(super) push_in_sub_specs: Vec<String>,
    pub(super) push_in_sub_connect: bool,
    pub(super) command_spec: Option<String>,
    pub(super) stats_spec: Option<String>,
    pub(super) state_spec: Option<String>,
    pub(super) ipc_file_mode: Option<u32>,
    pub(super) http: Option<SocketAddr>,
    pub(super) http_head_max: usize,
    pub(super) http_body_max: usize,
    pub(super) http_token: Option<String>,
    pub(super) prometheus_port: Option<String>,
    pub(super) prometheus_prefix: String,
    /// The supervisor shows this process's metrics.
    pub(super) asked_for_metrics: bool,
    /// Where the addresses that are bound are set, by key.
    places: Vec<(&'static str, String)>,
}

/// The keys of what is bound.
const BOUND: [&str; 7] = [
    "state_spec",
    "command_spec",
    "push_in_spec",
    "push_in_sub_specs",
    "stats_spec",
    "push_in_http_port",
    "prometheus_port",
];

impl Config {
    /// Reads the configuration file.
    pub(super) fn load(words: &Words) -> Result<Self, String> {
        let installed = Path::new(CONFIG_DIR).join("pushpin.conf");
        let path = words.config.as_deref().unwrap_or(&installed);
        let overrides =
            Overrides { ipc_prefix: words.ipc_prefix.clone(), port_offset: words.port_offset };
        let file = File::load(path, &overrides).map_err(|error| error.to_string())?;
        let config = Self::resolve(&file)?;
        file.problems().iter().for_each(|problem| log::warn!("{problem}"));
        Ok(config)
    }

    /// The text about an address that cannot be bound, with the place where it is set.
    pub(super) fn not_bound(&self, key: &str, error: &dyn fmt::Display) -> String {
        let place = self.places.iter().find(|(known, _)| *known == key);
        place.map_or_else(|| error.to_string(), |(_, place)| format!("{error} ({place})"))
    }

    /// What HTTP publishers have to keep to.
    pub(super) fn rules(&self) -> Rules {
        let limits = Sizes { head: self.http_head_max, body: self.http_body_max };
        Rules {
            limits,
            token: self.http_token.clone(),
            tells_receivers: self.settings.tells_receivers,
        }
    }

    fn resolve(file: &File) -> Result<Self, String> {
        let spec = |key| file.nonempty("handler", key);
        let mut subs = file.list("handler", "push_in_sub_specs");
        subs.extend(file.list("handler", "push_in_sub_spec"));
        let mut settings = settings(file);
        let push_in_sub_connect = file.bool("handler", "push_in_sub_connect", false);
        let uris = [
            ("command", spec("command_spec")),
            ("publish-pull", spec("push_in_spec")),
            ("publish-sub", subs.first().cloned().filter(|_| !push_in_sub_connect)),
        ];
        settings.uris = uris.into_iter().filter_map(|(k, uri)| Some((k, uri?))).collect();
        let place = |key| match key {
            "push_in_sub_specs" if !file.has("handler", key) => "push_in_sub_spec",
            key => key,
        };
        let places = BOUND.map(|key| (key, file.place("handler", place(key)))).into();
        let size = |key, default| usize::try_from(file.int("handler", key, default)).unwrap_or(0);
        Ok(Self {
            settings,
            specs: HandlerSpecs::from(file),
            push_in_spec: spec("push_in_spec"),
            push_in_sub_specs: subs,
            push_in_sub_connect,
            command_spec: spec("command_spec"),
            stats_spec: spec("stats_spec"),
            state_spec: spec("state_spec"),
            ipc_file_mode: file.octal("handler", "ipc_file_mode"),
            http: http_address(file)?,
            http_head_max: size("push_in_http_max_headers_size", 10_000),
            http_body_max: size("push_in_http_max_body_size", 1_000_000),
            prometheus_port: file.nonempty("handler", "prometheus_port"),
            prometheus_prefix: file.nonempty("handler", "prometheus_prefix").unwrap_or_default(),
            asked_for_metrics: file.nonempty("runner", "prometheus_port").is_some(),
            http_token: file.nonempty("handler", "auth_token"),
            places,
        })
    }
}

fn settings(file: &File) -> Settings {
    let number =
        |section, key, default| u64::try_from(file.int(section, key, default)).unwrap_or(0);
    let json = file.string("handler", "stats_format").as_deref() == Some("json");
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    Settings {
        instance_id: format!("handler_{}", std::process::id()),
        workers: config::specs::handler_workers(file),
        subscriptions_max: number("handler", "connection_subscription_max", 20) as usize,
        linger_ms: number("handler", "subscription_linger", 60) * 1000,
        id_cache_ttl_ms: number("handler", "id_cache_ttl", 0) * 1000,
        message_wait_ms: number("handler", "message_wait", 5000),
        limits: Limits::new(
            file.int("handler", "message_rate", -1),
            file.int("handler", "message_hwm", -1),
        ),
        drain_ms: number("handler", "drain_time", 0) * 1000,
        close_slow: file.bool("handler", "close_slow_clients", false),
        message_block_size: number("handler", "message_block_size", 0),
        update_on_first_subscription: file.bool("handler", "update_on_first_subscription", true),
        tells_receivers: file.bool("handler", "publish_receivers", false),
        sessions: file.nonempty("handler", "state_spec").is_some(),
        share_all: file.bool("handler", "share_all", false),
        stats_format: if json { stats::Format::Json } else { stats::Format::Tnetstring },
        stats_connection_send: file.bool("global", "stats_connection_send", true),
        stats_connection_ttl_s: number("global", "stats_connection_ttl", 120).max(1),
        stats_subscription_ttl_s: number("handler", "stats_subscription_ttl", 60).max(1),
        stats_report_interval_ms: number("handler", "stats_report_interval", 10) * 1000,
        debug: file.bool("proxy", "debug", false),
        seed: nanos,
        uris: Vec::new(),
    }
}

fn http_address(file: &File) -> Result<Option<SocketAddr>, String> {
    let port = file.int("handler", "push_in_http_port", -1);
    if port < 0 {
        return Ok(None);
    }
    let port = if port > 0 { port.saturating_add(file.port_offset()) } else { 0 };
    let port = u16::try_from(port)
        .map_err(|_| format!("[handler] push_in_http_port: {port} is no port (0 to 65535)"))?;
    let address = match file.nonempty("handler", "push_in_http_addr") {
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(text) => text.parse().map_err(|_| {
            format!(
                "[handler] push_in_http_addr: '{text}' is no IP address (for example 127.0.0.1)"
            )
        })?,
    };
    Ok(Some(SocketAddr::new(address, port)))
}
