//! Listeners: the grammar of `--listen` (`spec/connmgr.md §1.1`) and the sockets.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use evloop::local::FileOwner;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token, event::Source};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 8192;

/// One `--listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSpec {
    address: Address,
    reuse_port: bool,
    req: bool,
}

impl ListenSpec {
    /// Whether its connections are of req mode.
    pub fn is_req(&self) -> bool {
        self.req
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Tcp(SocketAddr),
    Local(PathBuf, FileOwner),
}

impl fmt::Display for ListenSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp(address) => address.fmt(f),
            Address::Local(path, _) => path.display().fmt(f),
        }
    }
}

/// The parameters of a spec, as they come.
#[derive(Default)]
struct Params {
    local: bool,
    req: bool,
    stream: bool,
    tls: bool,
    reuse_port: bool,
    owner: FileOwner,
    tcp_only: Option<String>,
    local_only: Option<String>,
}

impl Params {
    fn take(&mut self, param: &str) -> Result<(), String> {
        match param.split_once('=').unwrap_or((param, "")) {
            ("stream", "") => self.stream = true,
            ("req", "") => self.req = true,
            ("local", "") => self.local = true,
            ("tls", "") => (self.tls, self.tcp_only) = (true, Some(param.into())),
            ("reuseport", "") => (self.reuse_port, self.tcp_only) = (true, Some(param.into())),
            ("default-cert", _) => self.tcp_only = Some(param.into()),
            ("mode", mode) => {
                let mode = u32::from_str_radix(mode, 8);
                self.owner.mode = Some(mode.map_err(|e| format!("failed to parse mode: {e}"))?);
                self.local_only = Some(param.into());
            }
            ("user", name) => {
                (self.owner.user, self.local_only) = (Some(name.into()), Some(param.into()));
            }
            ("group", name) => {
                (self.owner.group, self.local_only) = (Some(name.into()), Some(param.into()));
            }
            _ => return Err(format!("invalid param: {param}")),
        }
        Ok(())
    }
}

impl FromStr for ListenSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        let mut params = Params::default();
        for param in parts {
            params.take(param)?;
        }
        let stray = if params.local { &params.tcp_only } else { &params.local_only };
        if let Some(param) = stray {
            return Err(format!("invalid param: {param}"));
        }
        if params.tls {
            return Err(format!("TLS is not part of this build: {text}"));
        }
        let req = params.req && !params.stream;
        let Params { local, owner, reuse_port, .. } = params;
        let address = if local {
            Address::Local(first.into(), owner)
        } else {
            Address::Tcp(tcp_address(first)?)
        };
        Ok(Self { address, reuse_port, req })
    }
}

/// A port, `a.b.c.d:port` or `[v6]:port`.
fn tcp_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::UNSPECIFIED, port).into());
    }
    text.parse().map_err(|_| format!("invalid TCP address or port: {text}"))
}

/// A listening socket of one worker; several workers have the same one.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Local(UnixListener),
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Local(UnixStream),
}

impl Listener {
    /// Binds and listens. The options that connections inherit are set here, once.
    pub(crate) fn bind(spec: &ListenSpec) -> io::Result<Self> {
        match &spec.address {
            Address::Tcp(address) => bind_tcp(*address, spec.reuse_port).map(Self::Tcp),
            Address::Local(path, owner) => {
                evloop::local::bind(path, owner).map(UnixListener::from_std).map(Self::Local)
            }
        }
    }

    /// The same socket for another worker.
    pub(crate) fn share(self) -> io::Result<(Self, Self)> {
        match self {
            Self::Tcp(listener) => {
                let std: std::net::TcpListener = listener.into();
                let copy = std.try_clone()?;
                Ok((Self::Tcp(TcpListener::from_std(std)), Self::Tcp(TcpListener::from_std(copy))))
            }
            Self::Local(listener) => {
                let fd: std::os::fd::OwnedFd = listener.into();
                let (one, two) = (fd.try_clone()?, fd);
                let make = |fd| UnixListener::from_std(std::os::unix::net::UnixListener::from(fd));
                Ok((Self::Local(make(one)), Self::Local(make(two))))
            }
        }
    }

    /// Takes the next connection.
    pub(crate) fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().map(|(stream, address)| (Stream::Tcp(stream), Some(address)))
            }
            Self::Local(listener) => listener.accept().map(|(s, _)| (Stream::Local(s), None)),
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let source: &mut dyn Source = match self {
            Self::Tcp(listener) => listener,
            Self::Local(listener) => listener,
        };
        source.register(registry, token, Interest::READABLE)
    }

    /// The address, with the port that the system chose.
    pub(crate) fn describe(&self, spec: &ListenSpec) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or(spec.to_string(), |a| a.to_string())
            }
            Self::Local(_) => spec.to_string(),
        }
    }
}

impl Stream {
    /// Both directions at once: edge-triggered, so waiting for room costs no further call.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let source: &mut dyn Source = match self {
            Self::Tcp(stream) => stream,
            Self::Local(stream) => stream,
        };
        source.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }
}

fn bind_tcp(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier process that linger must not stop the start.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_specs() {
        for (text, shown) in [
            ("7999", "0.0.0.0:7999"),
            ("127.0.0.1:80,stream", "127.0.0.1:80"),
            ("[::1]:81,stream,req", "[::1]:81"),
            ("82,reuseport,default-cert=x", "0.0.0.0:82"),
            ("/run/x.sock,local,mode=660,user=root,group=adm", "/run/x.sock"),
        ] {
            assert_eq!(text.parse::<ListenSpec>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn refuses_what_does_not_belong() {
        for (text, reason) in [
            ("localhost:80", "invalid TCP address or port: localhost:80"),
            ("65536", "invalid TCP address or port: 65536"),
            ("80,mode=660", "invalid param: mode=660"),
            ("x,local,tls", "invalid param: tls"),
            ("80,nonsense", "invalid param: nonsense"),
            ("x,local,mode=8", "failed to parse mode: invalid digit found in string"),
            ("80,tls", "TLS is not part of this build: 80,tls"),
        ] {
            assert_eq!(text.parse::<ListenSpec>(), Err(reason.to_string()));
        }
    }

    #[test]
    fn an_occupied_port_is_an_error() {
        let spec: ListenSpec = "127.0.0.1:0".parse().unwrap();
        let first = Listener::bind(&spec).unwrap();
        let taken: ListenSpec = first.describe(&spec).parse().unwrap();
        assert_eq!(Listener::bind(&taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
