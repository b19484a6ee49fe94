//! Every key that any release knew (spec/config.md §3 to §6), with its type and what became of
//! it. Used by `check` to warn, by `environment`, and by the test that compares it with the docs.

/// What the value is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One text.
    Text,
    /// Items between commas.
    List,
    /// An integer.
    Number,
    /// True or false.
    Truth,
    /// Permissions in octal.
    Mode,
}

/// What a key does today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Read once, at the start.
    Start,
    /// Read again on HUP.
    Reload,
    /// An address between the processes: built in, may be set.
    Internal,
    /// An earlier name of another key, read still.
    Renamed(&'static str),
    /// Accepted, without effect.
    Nothing,
}

/// A key of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// `global`, `runner`, `proxy` or `handler`.
    pub section: &'static str,
    /// As it is written, case-sensitive.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What it does.
    pub used: Use,
}

use Kind::{List, Mode, Number, Text, Truth};
use Use::{Internal, Nothing, Reload, Renamed, Start};

type Row = (&'static str, Kind, Use);

const GLOBAL: &[Row] = &[
    ("include", Text, Start),
    ("libdir", Text, Start),
    ("rundir", Text, Start),
    ("ipc_prefix", Text, Start),
    ("port_offset", Number, Start),
    ("stats_connection_ttl", Number, Reload),
    ("stats_connection_send", Truth, Reload),
];

const RUNNER: &[Row] = &[
    ("services", List, Start),
    ("http_port", List, Start),
    ("https_ports", List, Start),
    ("local_ports", List, Start),
    ("rundir", Text, Renamed("rundir in [global]")),
    ("logdir", Text, Start),
    ("log_level", List, Reload),
    ("client_buffer_size", Number, Start),
    ("client_maxconn", Number, Reload),
    ("allow_compression", Truth, Start),
    ("connmgr_workers", Number, Start),
    ("connmgr_processes", Number, Start),
    ("tcp_keepalive", Number, Start),
    ("tcp_user_timeout", Number, Start),
    ("prometheus_port", Text, Start),
    ("prometheus_prefix", Text, Start),
    ("condure_bin", Text, Nothing),
    ("mongrel2_bin", Text, Nothing),
    ("m2sh_bin", Text, Nothing),
    ("zurl_bin", Text, Nothing),
];

const PROXY: &[Row] = &[
    ("routesfile", Text, Start),
    ("workers", Number, Start),
    ("origin", Text, Start),
    ("max_open_requests", Number, Reload),
    ("debug", Truth, Reload),
    ("auto_cross_origin", Truth, Reload),
    ("accept_x_forwarded_protocol", Truth, Reload),
    ("set_x_forwarded_protocol", Text, Reload),
    ("x_forwarded_for", List, Reload),
    ("x_forwarded_for_trusted", List, Reload),
    ("orig_headers_need_mark", List, Reload),
    ("accept_pushpin_route", Truth, Reload),
    ("cdn_loop", Text, Reload),
    ("log_from", Truth, Reload),
    ("log_user_agent", Truth, Reload),
    ("sig_iss", Text, Reload),
    ("sig_key", Text, Reload),
    ("upstream_key", Text, Reload),
    ("sockjs_url", Text, Reload),
    ("stats_connections_max_ttl", Number, Reload),
    ("stats_report_interval", Number, Reload),
    ("prometheus_port", Text, Start),
    ("prometheus_prefix", Text, Start),
    ("ipc_file_mode", Mode, Start),
    ("updates_check", Text, Nothing),
    ("organization_name", Text, Nothing),
    ("connmgr_in_specs", List, Internal),
    ("connmgr_in_stream_specs", List, Internal),
    ("connmgr_out_specs", List, Internal),
    ("connmgr_client_out_specs", List, Internal),
    ("connmgr_client_out_stream_specs", List, Internal),
    ("connmgr_client_in_specs", List, Internal),
    ("condure_in_specs", List, Renamed("connmgr_in_specs")),
    ("condure_in_stream_specs", List, Renamed("connmgr_in_stream_specs")),
    ("condure_out_specs", List, Renamed("connmgr_out_specs")),
    ("condure_client_out_specs", List, Renamed("connmgr_client_out_specs")),
    ("condure_client_out_stream_specs", List, Renamed("connmgr_client_out_stream_specs")),
    ("condure_client_in_specs", List, Renamed("connmgr_client_in_specs")),
    ("m2a_in_specs", List, Nothing),
    ("m2a_in_stream_specs", List, Nothing),
    ("m2a_out_specs", List, Nothing),
    ("zurl_out_specs", List, Internal),
    ("zurl_out_stream_specs", List, Internal),
    ("zurl_in_specs", List, Internal),
    ("handler_inspect_spec", Text, Internal),
    ("handler_accept_spec", Text, Internal),
    ("handler_retry_in_spec", Text, Internal),
    ("handler_ws_control_init_specs", List, Internal),
    ("handler_ws_control_stream_specs", List, Internal),
    ("handler_ws_control_in_spec", Text, Nothing),
    ("handler_ws_control_out_spec", Text, Nothing),
    ("stats_spec", Text, Internal),
    ("command_spec", Text, Internal),
    ("intreq_in_specs", List, Internal),
    ("intreq_in_stream_specs", List, Internal),
    ("intreq_out_specs", List, Internal),
];

const HANDLER: &[Row] = &[
    ("workers", Number, Start),
    ("ipc_file_mode", Mode, Start),
    ("push_in_spec", Text, Start),
    ("push_in_sub_specs", List, Start),
    ("push_in_sub_spec", Text, Renamed("push_in_sub_specs")),
    ("push_in_sub_connect", Truth, Start),
    ("push_in_http_addr", Text, Start),
    ("push_in_http_port", Number, Start),
    ("push_in_http_max_headers_size", Number, Reload),
    ("push_in_http_max_body_size", Number, Reload),
    ("push_in_max_headers_size", Number, Nothing),
    ("push_in_max_body_size", Number, Nothing),
    ("auth_token", Text, Reload),
    ("publish_receivers", Truth, Reload),
    ("stats_spec", Text, Start),
    ("command_spec", Text, Start),
    ("state_spec", Text, Start),
    ("share_all", Truth, Reload),
    ("message_rate", Number, Reload),
    ("message_hwm", Number, Reload),
    ("message_block_size", Number, Reload),
    ("message_wait", Number, Reload),
    ("id_cache_ttl", Number, Reload),
    ("update_on_first_subscription", Truth, Reload),
    ("connection_subscription_max", Number, Reload),
    ("subscription_linger", Number, Reload),
    ("stats_subscription_ttl", Number, Reload),
    ("stats_report_interval", Number, Reload),
    ("stats_format", Text, Reload),
    ("close_slow_clients", Truth, Reload),
    ("drain_time", Number, Reload),
    ("prometheus_port", Text, Start),
    ("prometheus_prefix", Text, Start),
    ("connmgr_in_stream_specs", List, Internal),
    ("connmgr_out_specs", List, Internal),
    ("condure_in_stream_specs", List, Renamed("connmgr_in_stream_specs")),
    ("condure_out_specs", List, Renamed("connmgr_out_specs")),
    ("m2a_in_stream_specs", List, Nothing),
    ("m2a_out_specs", List, Nothing),
    ("proxy_inspect_specs", List, Internal),
    ("proxy_accept_specs", List, Internal),
    ("proxy_retry_out_specs", List, Internal),
    ("proxy_ws_control_init_specs", List, Internal),
    ("proxy_ws_control_stream_specs", List, Internal),
    ("proxy_ws_control_in_spec", Text, Nothing),
    ("proxy_ws_control_out_spec", Text, Nothing),
    ("proxy_stats_specs", List, Internal),
    ("proxy_inspect_spec", Text, Renamed("proxy_inspect_specs")),
    ("proxy_accept_spec", Text, Renamed("proxy_accept_specs")),
    ("proxy_retry_out_spec", Text, Renamed("proxy_retry_out_specs")),
    ("proxy_stats_spec", Text, Renamed("proxy_stats_specs")),
    ("proxy_command_spec", Text, Internal),
    ("proxy_intreq_out_specs", List, Internal),
    ("proxy_intreq_out_stream_specs", List, Internal),
    ("proxy_intreq_in_specs", List, Internal),
];

const SECTIONS: [(&str, &[Row]); 4] =
    [("global", GLOBAL), ("runner", RUNNER), ("proxy", PROXY), ("handler", HANDLER)];

/// All keys, section by section.
pub fn all() -> impl Iterator<Item = Key> {
    SECTIONS.into_iter().flat_map(|(section, rows)| {
        rows.iter().map(move |&(name, kind, used)| Key { section, name, kind, used })
    })
}

/// Whether there is such a section.
pub fn is_section(name: &str) -> bool {
    SECTIONS.iter().any(|(section, _)| *section == name)
}

/// The key of this name.
pub fn find(section: &str, name: &str) -> Option<Key> {
    all().find(|key| key.section == section && key.name == name)
}

/// The section whose name is nearest, if one is near.
pub(crate) fn nearest_section(name: &str) -> Option<&'static str> {
    nearest(name, SECTIONS.iter().map(|(section, _)| *section), |section| section)
}

/// The key that was probably meant: of the same name in another section, else with a name that
/// is near, in the same section or else in any.
pub(crate) fn nearest_key(section: &str, name: &str) -> Option<Key> {
    let useful = || all().filter(|key| matches!(key.used, Start | Reload | Internal));
    let elsewhere = useful().find(|key| key.name == name);
    let here = || nearest(name, useful().filter(|key| key.section == section), |key| key.name);
    elsewhere.or_else(here).or_else(|| nearest(name, useful(), |key| key.name))
}

/// The candidate that fewest changes lead to; none if they would be more than a third of the name.
fn nearest<T: Copy>(
    name: &str,
    candidates: impl Iterator<Item = T>,
    text: impl Fn(T) -> &'static str,
) -> Option<T> {
    let lower = name.to_ascii_lowercase();
    let changes = |candidate: T| strsim::damerau_levenshtein(&lower, text(candidate));
    let best = candidates.map(|one| (changes(one), one)).min_by_key(|(changes, _)| *changes);
    best.filter(|(changes, _)| *changes <= (name.chars().count() / 3).max(1)).map(|(_, one)| one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_there_twice_and_renamed_ones_lead_somewhere() {
        let mut seen = std::collections::HashSet::new();
        for key in all() {
            assert!(seen.insert((key.section, key.name)), "{key:?}");
            if let Renamed(new) = key.used {
                let (name, section) = new.split_once(" in ").unwrap_or((new, key.section));
                let target = find(section.trim_matches(['[', ']']), name).expect(new);
                assert!(!matches!(target.used, Renamed(_) | Nothing), "{target:?}");
            }
        }
    }

    #[test]
    fn what_was_meant() {
        let meant = |section: &str, name: &str| {
            nearest_key(section, name).map(|key| format!("{}/{}", key.section, key.name))
        };
        for (section, name, expected) in [
            ("runner", "htpp_port", Some("runner/http_port")),
            ("runner", "Log_Level", Some("runner/log_level")),
            ("handler", "mesage_rate", Some("handler/message_rate")),
            ("handler", "stats_connection_ttl", Some("global/stats_connection_ttl")),
            ("proxy", "message_hwn", Some("handler/message_hwm")),
            ("proxy", "entirely_different", None),
            ("proxy", "x", None),
        ] {
            assert_eq!(meant(section, name).as_deref(), expected, "{name}");
        }
        assert_eq!(nearest_section("runer"), Some("runner"));
        assert_eq!(nearest_section("other"), None);
    }
}
