//! What an operator asks before anything runs: whether routes and keys are good, and which route
//! and target would serve a request. Called by `pushpin --check` and `pushpin --explain`.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use config::Settings as Config;
use config::services::Services;
use http1::BodyKind;
use routes::{Destination, Proto, Target};
use zhttp::HeaderBuf;

use crate::driver::{RoutesFile, load};
use crate::forward::{self, Context, Place};
use crate::routing::{Entry, Routes};
use crate::sig::SigKey;
use crate::uri::Uri;

/// What is wrong with the routes and with the proxy's keys, each with its place: `FILE:LINE: text`
/// for a line of the routes file, the name of the key else. `lines`: of `--route`.
pub fn check(config: &Config, lines: &[String]) -> Vec<String> {
    if !Services::from(config).proxy {
        // nobody who would read them is started
        return Vec::new();
    }
    // Reading the values notes what is wrong with them in the configuration itself.
    let settings = load::settings(config, 0, 1);
    let mut file = RoutesFile::new(config, lines);
    let mut problems = match file.read() {
        Ok((table, mut problems, dir)) => {
            for route in table.routes() {
                let bad = |text: &&str| !text.is_empty() && SigKey::load(text, &dir).is_none();
                if route.sig_key.as_deref().filter(bad).is_some() {
                    let text = "sig_key cannot be used: its file or text is no key";
                    problems.push(format!("{}:{}: {text}", file.name(), route.line));
                }
            }
            if table.routes().is_empty() && problems.is_empty() {
                problems.push(format!("{}: no route in it, every request gets 502", file.name()));
            }
            problems
        }
        Err(text) => vec![text],
    };
    for (key, loaded) in [
        ("sig_key", load::signing(config).key.is_some()),
        ("upstream_key", settings.upstream_key.is_some()),
    ] {
        if !loaded && !config.string("proxy", key).unwrap_or_default().is_empty() {
            problems.push(format!("[proxy] {key}: cannot be used: its file or text is no key"));
        }
    }
    problems
}

/// Which route and target would serve `method url`, and the request that the backend would get.
///
/// # Errors
/// Why none would.
pub fn explain(
    config: &Config,
    lines: &[String],
    method: &str,
    url: &str,
) -> Result<String, String> {
    let uri = Uri::parse(url)
        .ok_or_else(|| format!("{url}: not an absolute URL of http, https, ws or wss"))?;
    let mut file = RoutesFile::new(config, lines);
    let (table, problems, dir) = file.read()?;
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    let routes = Routes::new(table, &load::signing(config), &dir);
    let entry = routes.by_host(&uri.host(), uri.proto, uri.secure, uri.path).ok_or_else(|| {
        format!("no route for {url}: the answer is 502 (no line for the host or `*` matches)")
    })?;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{method} {url}");
    let _ = writeln!(out, "route: {}:{} (id {})", file.name(), entry.route.line, entry.route.id);
    if !entry.route.sockjs.is_empty() && uri.path.starts_with(&entry.route.sockjs) {
        let _ = writeln!(out, "served by: SockJS at {}", entry.route.sockjs);
    }
    let place = forward::place(&uri, entry);
    for (n, target) in entry.route.targets.iter().enumerate() {
        let order = if n == 0 { "target" } else { "else" };
        let _ = writeln!(out, "{order}: {}", describe(target, &place, uri.proto));
    }
    let request = request(config, entry, &uri, &place, method)?;
    let _ = write!(out, "request to {}:\n{request}", entry.route.targets[0].destination);
    Ok(out)
}

fn describe(target: &Target, place: &Place, proto: Proto) -> String {
    let mut text = target.destination.to_string();
    let by = match (proto, target.over_http, target.ssl) {
        (Proto::Ws, true, false) => "WebSocket-over-HTTP by http",
        (Proto::Ws, true, true) => "WebSocket-over-HTTP by https",
        (Proto::Ws, false, false) => "ws",
        (Proto::Ws, false, true) => "wss",
        (Proto::Http, _, false) => "http",
        (Proto::Http, _, true) => "https",
    };
    if matches!(target.destination, Destination::Host(..)) {
        let _ = write!(text, " by {by}, Host {}", forward::host(place, target));
    }
    for channel in &target.subscribe {
        let _ = write!(text, ", subscribed to {channel}");
    }
    text
}

/// The head for the first target, with the headers that the proxy adds.
fn request(
    config: &Config,
    entry: &Entry,
    uri: &Uri<'_>,
    place: &Place,
    method: &str,
) -> Result<String, String> {
    let settings = load::settings(config, 0, 1);
    let mut original = HeaderBuf::new();
    original.push("Host", uri.authority.as_bytes());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let context = Context {
        settings: &settings,
        entry,
        uri: *uri,
        peer_address: "192.0.2.1",
        trusted: false,
        internal: false,
        last_ids: &[],
        session_id: None,
        now_s: now.as_secs(),
    };
    let headers = forward::headers(original.as_headers(), &context);
    let target = entry.route.targets.first().ok_or("the route has no target")?;
    let over_http = uri.proto == Proto::Ws && target.over_http;
    let method = if over_http { "POST" } else { method };
    let head = forward::encode(method, place, target, headers.as_headers(), BodyKind::None)
        .map_err(|cause| format!("the request cannot be made: {cause}"))?;
    let text = String::from_utf8_lossy(&head).replace("\r\n", "\n");
    Ok(text.trim_end().lines().map(|line| format!("  {line}\n")).collect())
}
