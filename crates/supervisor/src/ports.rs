//! Listeners: `[addr:]port` lists and unix socket paths to connmgr's `--listen` values
//! (spec/config.md §4, spec/programs.md §2.2).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use config::Settings;
use evloop::local::FileOwner;

use crate::fault::fault;

/// What connmgr is to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// Plain HTTP.
    Tcp(SocketAddr),
    /// HTTP over TLS.
    Tls(SocketAddr),
    /// A unix socket, and whose its file is.
    Local(PathBuf, FileOwner),
}

impl Listener {
    /// The value of `--listen`; `shared` lets several processes listen on the same port.
    pub fn spec(&self, shared: bool) -> String {
        let reuse = if shared { ",reuseport" } else { "" };
        match self {
            Self::Tcp(addr) => format!("{addr},stream{reuse}"),
            Self::Tls(addr) => {
                format!("{addr},stream,tls,default-cert=default_{}{reuse}", addr.port())
            }
            Self::Local(path, owner) => local_spec(path, owner),
        }
    }

    /// The port, if it speaks TLS.
    pub fn tls_port(&self) -> Option<u16> {
        match self {
            Self::Tls(addr) => Some(addr.port()),
            Self::Tcp(_) | Self::Local(..) => None,
        }
    }

    /// The path of a unix socket, and whose its file is.
    pub fn local(&self) -> Option<(PathBuf, FileOwner)> {
        match self {
            Self::Local(path, owner) => Some((path.clone(), owner.clone())),
            Self::Tcp(_) | Self::Tls(_) => None,
        }
    }

    /// The TCP address, and the key that names it.
    pub fn tcp(&self) -> Option<(SocketAddr, &'static str)> {
        match self {
            Self::Tcp(addr) => Some((*addr, "http_port")),
            Self::Tls(addr) => Some((*addr, "https_ports")),
            Self::Local(..) => None,
        }
    }
}

/// The listeners of a configuration, or the one of `--port` in their place.
///
/// # Errors
/// The text for the operator, naming file, line and key.
pub(crate) fn listeners(settings: &Settings, port: Option<&str>) -> Result<Vec<Listener>, String> {
    if let Some(text) = port {
        let addr = tcp(text).ok_or("port must be greater than or equal to 1")?;
        return Ok(vec![Listener::Tcp(addr)]);
    }
    let at = |key: &str, text: String| fault(settings, "runner", key, &text);
    let mut all = Vec::new();
    for text in settings.list("runner", "http_port") {
        let addr = tcp(&text).ok_or_else(|| at("http_port", format!("invalid http port: {text}")));
        all.push(Listener::Tcp(addr?));
    }
    for text in settings.list("runner", "https_ports") {
        let error = || at("https_ports", format!("invalid https port: {text}"));
        all.push(Listener::Tls(tcp(&text).ok_or_else(error)?));
    }
    for text in settings.list("runner", "local_ports") {
        all.push(local(&text).map_err(|error| at("local_ports", error))?);
    }
    if all.is_empty() {
        return Err("no server ports configured: set http_port or https_ports in [runner]".into());
    }
    Ok(all)
}

/// `port`, `addr:port` or `[v6]:port`, with a port of at least 1.
pub(crate) fn tcp(text: &str) -> Option<SocketAddr> {
    let addr = match text.parse::<u16>() {
        Ok(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        Err(_) => text.parse().ok()?,
    };
    (addr.port() != 0).then_some(addr)
}

/// `PATH,local,stream,mode=770,user=www,group=www`
fn local_spec(path: &Path, owner: &FileOwner) -> String {
    let mut spec = format!("{},local,stream", path.display());
    let FileOwner { mode, user, group } = owner;
    spec.extend(mode.map(|mode| format!(",mode={mode:o}")));
    spec.extend(user.iter().map(|user| format!(",user={user}")));
    spec.extend(group.iter().map(|group| format!(",group={group}")));
    spec
}

/// `/path?mode=770&user=www&group=www`
fn local(text: &str) -> Result<Listener, String> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    if path.is_empty() || path.contains(',') {
        return Err(format!("invalid local port: {text}"));
    }
    let given: Vec<_> = query.split('&').filter_map(|param| param.split_once('=')).collect();
    let value = |name: &str| given.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let octal = |mode| u32::from_str_radix(mode, 8).map_err(|_| format!("invalid mode: {mode}"));
    let owner = FileOwner {
        mode: value("mode").map(octal).transpose()?,
        user: value("user").map(str::to_owned),
        group: value("group").map(str::to_owned),
    };
    Ok(Listener::Local(path.into(), owner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Overrides;

    fn of(text: &str, port: Option<&str>) -> Result<Vec<String>, String> {
        let text = format!("[runner]\n{text}");
        let file = config::File::parse("c", &text);
        let settings = Settings::from_main(file, "".into(), &Overrides::default());
        let specs = |all: Vec<Listener>| all.iter().map(|one| one.spec(false)).collect();
        listeners(&settings, port).map(specs)
    }

    #[test]
    fn ports_become_listen_values() {
        let text = "http_port=8000,127.0.0.1:8001, [::1]:8002\nhttps_ports=443,[::1]:8443\n\
                    local_ports=/a?user=w&mode=770,/b\n";
        let expected = [
            "0.0.0.0:8000,stream",
            "127.0.0.1:8001,stream",
            "[::1]:8002,stream",
            "0.0.0.0:443,stream,tls,default-cert=default_443",
            "[::1]:8443,stream,tls,default-cert=default_8443",
            "/a,local,stream,mode=770,user=w",
            "/b,local,stream",
        ];
        assert_eq!(of(text, None).unwrap(), expected);
        assert_eq!(of(text, Some("9000")).unwrap(), ["0.0.0.0:9000,stream"]);
        assert_eq!(of("https_ports=443", Some("9000")).unwrap(), ["0.0.0.0:9000,stream"]);
        let shared = Listener::Tcp(tcp("1").unwrap()).spec(true);
        assert_eq!(shared, "0.0.0.0:1,stream,reuseport");
        let shared = Listener::Tls(tcp("1").unwrap()).spec(true);
        assert_eq!(shared, "0.0.0.0:1,stream,tls,default-cert=default_1,reuseport");
    }

    #[test]
    fn errors_name_the_place() {
        for (text, expected) in [
            ("http_port=80x\n", "c:2: http_port in [runner]: invalid http port: 80x"),
            ("http_port=1,0\n", "c:2: http_port in [runner]: invalid http port: 0"),
            ("http_port=localhost:1\n", "invalid http port: localhost:1"),
            ("local_ports=?x\n", "invalid local port: ?x"),
            ("local_ports=/a?mode=9\n", "invalid mode: 9"),
            ("https_ports=0\n", "c:2: https_ports in [runner]: invalid https port: 0"),
            ("", "no server ports configured"),
        ] {
            let error = of(text, None).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(of("", Some("0")).unwrap_err(), "port must be greater than or equal to 1");
    }
}
