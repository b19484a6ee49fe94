//! One target of a route (spec/routes.md §4).

use std::fmt;

use crate::scan::{Error, Section};
use crate::table::ReadFile;

/// Where a target's requests go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A host, IPv6 without brackets, and its port.
    Host(String, u16),
    /// The built-in test backend.
    Test,
    /// A ZHTTP worker in streaming mode: the base spec.
    Zhttp(String),
    /// A ZHTTP worker in request mode: the spec.
    ZhttpReq(String),
}

impl fmt::Display for Destination {
    /// As in log lines and debug texts (spec/proxy.md §13).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Test => f.write_str("test"),
            Self::Zhttp(spec) => write!(f, "zhttp/{spec}"),
            Self::ZhttpReq(spec) => write!(f, "zhttpreq/{spec}"),
        }
    }
}

/// A target with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where requests go.
    pub destination: Destination,
    /// `ssl`
    pub ssl: bool,
    /// Not `untrusted`.
    pub trusted: bool,
    /// `trust_connect_host`
    pub trust_connect_host: bool,
    /// `insecure`
    pub insecure: bool,
    /// `host`; empty if unset.
    pub host: String,
    /// `sub` channels.
    pub subscribe: Vec<String>,
    /// `over_http`
    pub over_http: bool,
    /// `one_event`
    pub one_event: bool,
    /// `ipc_file_mode`
    pub ipc_file_mode: Option<u32>,
    /// PEM text of `client_cert`; empty if unset.
    pub client_cert: String,
    /// PEM text of `client_key`; empty if unset.
    pub client_key: String,
}

impl Target {
    pub(crate) fn from_section(section: &Section, read: &ReadFile<'_>) -> Result<Self, Error> {
        Ok(Self {
            destination: destination(&section.value)?,
            ssl: section.has("ssl"),
            trusted: !section.has("untrusted"),
            trust_connect_host: section.has("trust_connect_host"),
            insecure: section.has("insecure"),
            host: section.last("host").unwrap_or_default().to_owned(),
            subscribe: subscribe(section),
            over_http: section.has("over_http"),
            one_event: section.has("one_event"),
            ipc_file_mode: section
                .last("ipc_file_mode")
                .and_then(|mode| u32::from_str_radix(mode, 8).ok()),
            client_cert: file(section, "client_cert", read)?,
            client_key: file(section, "client_key", read)?,
        })
    }
}

fn subscribe(section: &Section) -> Vec<String> {
    section.all_reversed("sub").filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn file(section: &Section, name: &str, read: &ReadFile<'_>) -> Result<String, Error> {
    match section.last(name) {
        Some(path) if !path.is_empty() => read(path).map_err(Error::File),
        _ => Ok(String::new()),
    }
}

fn destination(value: &str) -> Result<Destination, Error> {
    if value == "test" {
        return Ok(Destination::Test);
    }
    if let Some(spec) = value.strip_prefix("zhttp/") {
        check_base_spec(spec)?;
        return Ok(Destination::Zhttp(spec.to_owned()));
    }
    if let Some(spec) = value.strip_prefix("zhttpreq/") {
        return match spec.split_once("://") {
            Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() => {
                Ok(Destination::ZhttpReq(spec.to_owned()))
            }
            _ => Err(Error::ZmqSpec),
        };
    }
    let (host, port) = match value.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => value.split_once(':'),
    }
    .ok_or(Error::TargetFormat)?;
    let port: u16 = port.parse().map_err(|_| Error::TargetPort)?;
    if port == 0 {
        return Err(Error::TargetPort);
    }
    Ok(Destination::Host(host.to_owned(), port))
}

/// The reference aborts on these; here the line is refused (spec §4.1).
fn check_base_spec(spec: &str) -> Result<(), Error> {
    let (scheme, rest) = spec.split_once("://").ok_or(Error::ZmqSpec)?;
    if scheme.is_empty() || rest.is_empty() {
        return Err(Error::ZmqSpec);
    }
    match rest.rsplit_once(':') {
        // Three ports are used.
        Some((_, port)) => match port.parse::<u16>() {
            Ok(1..=65_533) => Ok(()),
            _ => Err(Error::ZmqSpec),
        },
        None => Ok(()),
    }
}
