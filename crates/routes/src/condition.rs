//! A route: the condition section of a line with its options (spec/routes.md §3).

use crate::scan::{Error, Section};
use crate::target::Target;

/// What a request is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proto {
    /// `proto=http`
    Http,
    /// `proto=ws`
    Ws,
}

/// How JSON-P answers are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonpMode {
    /// `jsonp_mode=basic`
    Basic,
    /// `jsonp_mode=extended`, the default.
    Extended,
}

/// One accepted line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its place in [`crate::Table::routes`].
    pub index: usize,
    /// Its line, from 1.
    pub line: usize,
    /// `*`, a host name as written, or empty: found by id only.
    pub domain: String,
    /// The `id` given, or the automatic one.
    pub id: String,
    /// The id was given: stats, logs and rate limits use it.
    pub explicit_id: bool,
    /// `proto`
    pub proto: Option<Proto>,
    /// `ssl`
    pub ssl: Option<bool>,
    /// `path_beg`; empty if unset.
    pub path_beg: String,
    /// `sig_iss`
    pub sig_iss: Option<String>,
    /// `sig_key` as written; the proxy reads `file:` keys.
    pub sig_key: Option<String>,
    /// `prefix` of channel names.
    pub prefix: String,
    /// `as_host`; empty if unset.
    pub as_host: String,
    /// Bytes to take from the start of the path.
    pub path_remove: usize,
    /// What to put before the rest of the path.
    pub path_replace: String,
    /// `debug`
    pub debug: bool,
    /// `aco`
    pub auto_cross_origin: bool,
    /// `jsonp_mode`
    pub jsonp_mode: JsonpMode,
    /// `jsonp_cb`
    pub jsonp_callback: String,
    /// `jsonp_body`
    pub jsonp_body: String,
    /// `jsonp_defcb`
    pub jsonp_default_callback: String,
    /// `jsonp_defmethod`
    pub jsonp_default_method: String,
    /// `session`
    pub session: bool,
    /// `sockjs` path prefix; empty if unset.
    pub sockjs: String,
    /// `sockjs_as_path`
    pub sockjs_as_path: String,
    /// `header` options in the order in which they are applied.
    pub headers: Vec<(String, String)>,
    /// `orig_headers`
    pub orig_headers: bool,
    /// Not `no_grip`.
    pub grip: bool,
    /// `log_level`, -1 if unset.
    pub log_level: i32,
    /// At least one.
    pub targets: Vec<Target>,
}

impl Route {
    /// The condition; the targets are added by the caller.
    pub(crate) fn from_section(section: &Section) -> Result<Self, Error> {
        let proto = choice(section, "proto", &[("http", Proto::Http), ("ws", Proto::Ws)])
            .ok_or(Error::Proto)?;
        let ssl = choice(section, "ssl", &[("yes", true), ("no", false)]).ok_or(Error::Ssl)?;
        let path_beg = text(section, "path_beg");
        if path_beg.is_empty() && section.has("path_beg") {
            return Err(Error::PathBeg);
        }
        let modes = [("basic", JsonpMode::Basic), ("extended", JsonpMode::Extended)];
        let jsonp_mode = choice(section, "jsonp_mode", &modes).ok_or(Error::JsonpMode)?;
        let jsonp_mode = jsonp_mode.unwrap_or(JsonpMode::Extended);
        let id = text(section, "id");
        let (path_remove, path_replace) = path_change(section, &path_beg);
        Ok(Self {
            index: 0,
            line: 0,
            explicit_id: !id.is_empty(),
            id: if id.is_empty() { automatic_id(section, proto, ssl, &path_beg) } else { id },
            domain: section.value.clone(),
            proto,
            ssl,
            path_beg,
            sig_iss: owned(section, "sig_iss"),
            sig_key: owned(section, "sig_key"),
            prefix: text(section, "prefix"),
            as_host: text(section, "as_host"),
            path_remove,
            path_replace,
            debug: section.has("debug"),
            auto_cross_origin: section.has("aco"),
            jsonp_mode,
            jsonp_callback: owned(section, "jsonp_cb").unwrap_or_else(|| "callback".into()),
            jsonp_body: text(section, "jsonp_body"),
            jsonp_default_callback: text(section, "jsonp_defcb"),
            jsonp_default_method: default_method(section, jsonp_mode),
            session: section.has("session"),
            sockjs: text(section, "sockjs"),
            sockjs_as_path: text(section, "sockjs_as_path"),
            headers: headers(section)?,
            orig_headers: section.has("orig_headers"),
            grip: !section.has("no_grip"),
            log_level: section.last("log_level").map_or(-1, |n| n.parse().unwrap_or(0)),
            targets: Vec::new(),
        })
    }

    /// Whether `path` (percent-encoded, without query) begins as the route wants.
    pub fn path_matches(&self, path: &str) -> bool {
        path.starts_with(self.path_beg.as_str())
    }

    pub(crate) fn matches(&self, proto: Proto, ssl: bool, path: &str) -> bool {
        self.proto.is_none_or(|p| p == proto)
            && self.ssl.is_none_or(|s| s == ssl)
            && self.path_matches(path)
    }

    /// Whether this matching route is preferred to `best`, an earlier one (spec §6.1).
    pub(crate) fn beats(&self, best: &Self) -> bool {
        if self.proto.is_some() != best.proto.is_some() {
            return self.proto.is_some();
        }
        self.path_beg.len() > best.path_beg.len() || (best.ssl.is_none() && self.ssl.is_some())
    }
}

fn text(section: &Section, name: &str) -> String {
    section.last(name).unwrap_or_default().to_owned()
}

fn owned(section: &Section, name: &str) -> Option<String> {
    section.last(name).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The value of a prop with few words: nothing if it is absent, no answer if the word is unknown.
fn choice<T: Copy>(section: &Section, name: &str, words: &[(&str, T)]) -> Option<Option<T>> {
    match section.last(name) {
        None => Some(None),
        Some(word) => words.iter().find(|(w, _)| *w == word).map(|(_, value)| Some(*value)),
    }
}

/// `replace_beg` overrides `path_rem`, whatever the order.
fn path_change(section: &Section, path_beg: &str) -> (usize, String) {
    match section.last("replace_beg") {
        Some(text) => (path_beg.len(), text.to_owned()),
        None => (section.last("path_rem").and_then(|n| n.parse().ok()).unwrap_or(0), String::new()),
    }
}

fn default_method(section: &Section, mode: JsonpMode) -> String {
    let default = if mode == JsonpMode::Basic { "POST" } else { "GET" };
    owned(section, "jsonp_defmethod").unwrap_or_else(|| default.to_owned())
}

fn headers(section: &Section) -> Result<Vec<(String, String)>, Error> {
    let split = |text: &str| match text.split_once(':') {
        Some((name, value)) if !name.is_empty() => {
            Ok((name.to_owned(), value.trim_start_matches(' ').to_owned()))
        }
        _ => Err(Error::Header),
    };
    section.all_reversed("header").map(split).collect()
}

/// `domain,proto,ssl,path`, opaque; the reference has the words of the third field the wrong way
/// round, and a handler of its generation may compare them (spec §3).
fn automatic_id(section: &Section, proto: Option<Proto>, ssl: Option<bool>, path: &str) -> String {
    let or_star = |text: &str| if text.is_empty() { "*".to_owned() } else { text.to_owned() };
    let proto = match proto {
        Some(Proto::Http) => "http",
        Some(Proto::Ws) => "ws",
        None => "*",
    };
    let ssl = match ssl {
        Some(true) => "no-ssl",
        Some(false) => "ssl",
        None => "*",
    };
    format!("{},{proto},{ssl},{}", or_star(&section.value), or_star(path))
}
