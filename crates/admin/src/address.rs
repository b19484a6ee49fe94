//! Where to listen, as options say it (`spec/connmgr.md §1.1`).

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use evloop::local::FileOwner;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Local(PathBuf, FileOwner),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Local(path, _) => path.display().fmt(f),
        }
    }
}

/// `[addr:]port[,prefix=P]` or `PATH,local[,mode=OCTAL][,user=NAME][,group=NAME][,prefix=P]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsSpec {
    /// Where.
    pub address: Address,
    /// What stands before every metric's name.
    pub prefix: String,
}

impl MetricsSpec {
    /// The value of a `prometheus_port` key (spec/stats.md §7.1): `[address:]port`, or `ipc://` and a
    /// path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_port(text: &str) -> Result<Self, String> {
        match text.strip_prefix("ipc://") {
            Some(path) => format!("{path},local").parse(),
            None => text.parse(),
        }
    }
}

impl FromStr for MetricsSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        let (mut local, mut owner, mut owned) = (false, FileOwner::default(), None);
        let mut prefix = String::new();
        for param in parts {
            match param.split_once('=').unwrap_or((param, "")) {
                ("local", "") => local = true,
                ("prefix", value) if metrics::is_prefix(value) => prefix = value.into(),
                _ => {
                    owner_param(&mut owner, param)?;
                    owned = Some(param);
                }
            }
        }
        let address = match owned {
            _ if local => Address::Local(first.into(), owner),
            Some(param) => return Err(format!("invalid param: {param}")),
            None => Address::Tcp(tcp_address(first)?),
        };
        Ok(Self { address, prefix })
    }
}

/// `PATH[,mode=OCTAL][,user=NAME][,group=NAME]`: a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugSpec {
    /// Where, always [`Address::Local`].
    pub address: Address,
}

impl FromStr for DebugSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let path = parts.next().unwrap_or_default();
        let mut owner = FileOwner::default();
        for param in parts {
            owner_param(&mut owner, param)?;
        }
        Ok(Self { address: Address::Local(path.into(), owner) })
    }
}

/// A port (on all IPv4 addresses), `a.b.c.d:port` or `[v6]:port`.
fn tcp_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse().map(|port: u16| (Ipv4Addr::UNSPECIFIED, port).into());
    port.or_else(|_| text.parse()).map_err(|_| format!("invalid TCP address or port: {text}"))
}

/// `mode=`, `user=`, `group=`.
fn owner_param(owner: &mut FileOwner, param: &str) -> Result<(), String> {
    match param.split_once('=') {
        Some(("mode", mode)) => {
            let mode = u32::from_str_radix(mode, 8);
            owner.mode = Some(mode.map_err(|e| format!("failed to parse mode: {e}"))?);
        }
        Some(("user", name)) => owner.user = Some(name.into()),
        Some(("group", name)) => owner.group = Some(name.into()),
        _ => return Err(format!("invalid param: {param}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MetricsSpec, String> {
        text.parse()
    }

    #[test]
    fn reads_specs() {
        for (text, address, prefix) in [
            ("9100", "0.0.0.0:9100", ""),
            ("127.0.0.1:9100,prefix=pp_", "127.0.0.1:9100", "pp_"),
            ("[::1]:9100", "[::1]:9100", ""),
            ("run/m,local,mode=660,user=u,group=g,prefix=x", "run/m", "x"),
        ] {
            let spec = parse(text).expect(text);
            assert_eq!((spec.address.to_string().as_str(), &*spec.prefix), (address, prefix));
        }
        let owner = FileOwner { mode: Some(0o660), user: Some("u".into()), group: None };
        let spec = parse("m,user=u,local,mode=660").expect("spec");
        assert_eq!(spec.address, Address::Local("m".into(), owner));
    }

    #[test]
    fn refuses_what_does_not_belong() {
        for (text, reason) in [
            ("localhost:1", "invalid TCP address or port: localhost:1"),
            ("", "invalid TCP address or port: "),
            ("1,mode=660", "invalid param: mode=660"),
            ("1,tls", "invalid param: tls"),
            ("1,local=x", "invalid param: local=x"),
            ("1,prefix=a b", "invalid param: prefix=a b"),
            ("x,local,mode=9", "failed to parse mode: invalid digit found in string"),
        ] {
            assert_eq!(parse(text), Err(reason.to_string()), "{text}");
        }
    }
}
