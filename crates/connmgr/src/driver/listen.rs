//! Listeners: the grammar of `--listen` (`spec/connmgr.md §1.1`) and the sockets.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use evloop::local::{FileOwner, SocketFile};
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token, event::Source};
use socket2::{Domain, Protocol, TcpKeepalive, Type};

use super::tls::TlsStream;
use super::tlsport::{Context, Port, Shared};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 8192;

/// Unanswered questions that show that a client vanished (`--tcp-keepalive`).
const KEEPALIVE_PROBES: u32 = 4;

/// How the kernel finds out that a client vanished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    /// Silence after which it asks, four times at a quarter of that; none: as the system is set.
    pub keepalive: Option<Duration>,
    /// How long sent bytes may stay unacknowledged; none: as the system is set.
    pub user_timeout: Option<Duration>,
}

/// One `--listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSpec {
    address: Address,
    reuse_port: bool,
    req: bool,
    tls: Option<TlsSpec>,
}

/// The TLS of a spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsSpec {
    /// Name of the certificate for clients for whose host there is none.
    pub(crate) default_cert: Option<String>,
}

impl ListenSpec {
    /// Whether its connections are of req mode.
    pub fn is_req(&self) -> bool {
        self.req
    }

    pub(crate) fn tls(&self) -> Option<&TlsSpec> {
        self.tls.as_ref()
    }

    /// The file of a Unix socket that has just been bound, to be removed at the end.
    pub(crate) fn file(&self) -> Option<SocketFile> {
        match &self.address {
            Address::Local(path, _) => SocketFile::of(path),
            Address::Tcp(_) => None,
        }
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
    default_cert: Option<String>,
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
            ("default-cert", name) => {
                (self.default_cert, self.tcp_only) = (Some(name.into()), Some(param.into()));
            }
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
        let req = params.req && !params.stream;
        let Params { local, owner, reuse_port, default_cert, .. } = params;
        let tls = params.tls.then_some(TlsSpec { default_cert });
        let address = if local {
            Address::Local(first.into(), owner)
        } else {
            Address::Tcp(tcp_address(first)?)
        };
        Ok(Self { address, reuse_port, req, tls })
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
pub(crate) struct Listener {
    socket: Socket,
    /// What TLS needs, if the port speaks it.
    tls: Option<Arc<Port>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Local(UnixListener),
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Local(UnixStream),
    Tls(Box<TlsStream>),
}

impl Listener {
    /// Binds and listens. The options that connections inherit are set here, once.
    pub(crate) fn bind(spec: &ListenSpec, options: &TcpOptions) -> io::Result<Self> {
        let socket = match &spec.address {
            Address::Tcp(address) => bind_tcp(*address, spec.reuse_port, options).map(Socket::Tcp),
            Address::Local(path, owner) => {
                evloop::local::bind(path, owner).map(UnixListener::from_std).map(Socket::Local)
            }
        };
        Ok(Self { socket: socket?, tls: None })
    }

    /// Makes it speak TLS, if the spec says so.
    pub(crate) fn with_tls(mut self, spec: &ListenSpec, shared: &Shared) -> Self {
        self.tls = spec.tls.as_ref().map(|tls| {
            let name = self.describe(spec);
            Arc::new(Port::new(shared.clone(), tls.default_cert.clone(), name))
        });
        self
    }

    pub(crate) fn tls(&self) -> Option<&Arc<Port>> {
        self.tls.as_ref()
    }

    /// The same socket for another worker.
    pub(crate) fn share(self) -> io::Result<(Self, Self)> {
        let (one, two) = match self.socket {
            Socket::Tcp(listener) => {
                let std: std::net::TcpListener = listener.into();
                let make = |std| Socket::Tcp(TcpListener::from_std(std));
                (make(std.try_clone()?), make(std))
            }
            Socket::Local(listener) => {
                let fd: std::os::fd::OwnedFd = listener.into();
                let make = |fd| {
                    Socket::Local(UnixListener::from_std(std::os::unix::net::UnixListener::from(
                        fd,
                    )))
                };
                (make(fd.try_clone()?), make(fd))
            }
        };
        let tls = self.tls.clone();
        Ok((Self { socket: one, tls }, Self { socket: two, tls: self.tls }))
    }

    /// Takes the next connection.
    pub(crate) fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                listener.accept().map(|(stream, address)| (Stream::Tcp(stream), Some(address)))
            }
            Socket::Local(listener) => listener.accept().map(|(s, _)| (Stream::Local(s), None)),
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let source: &mut dyn Source = match &mut self.socket {
            Socket::Tcp(listener) => listener,
            Socket::Local(listener) => listener,
        };
        source.register(registry, token, Interest::READABLE)
    }

    /// The address, with the port that the system chose.
    pub(crate) fn describe(&self, spec: &ListenSpec) -> String {
        match &self.socket {
            Socket::Tcp(listener) => {
                listener.local_addr().map_or(spec.to_string(), |a| a.to_string())
            }
            Socket::Local(_) => spec.to_string(),
        }
    }
}

impl Stream {
    /// Speaks TLS over it, if there is a context for that; never over a Unix socket.
    pub(crate) fn with_tls(self, context: Option<&Arc<Context>>) -> io::Result<Self> {
        match (self, context) {
            (Self::Tcp(stream), Some(context)) => {
                Ok(Self::Tls(Box::new(TlsStream::new(stream, context)?)))
            }
            (stream, _) => Ok(stream),
        }
    }

    /// Both directions at once: edge-triggered, so waiting for room costs no further call.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let source: &mut dyn Source = match self {
            Self::Tcp(stream) => stream,
            Self::Local(stream) => stream,
            Self::Tls(stream) => stream.socket(),
        };
        source.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }
}

fn bind_tcp(
    address: SocketAddr,
    reuse_port: bool,
    options: &TcpOptions,
) -> io::Result<TcpListener> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier process that linger must not stop the start.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.set_tcp_nodelay(true)?;
    match options.keepalive {
        None => socket.set_keepalive(true)?,
        Some(idle) => {
            let interval = (idle / KEEPALIVE_PROBES).max(Duration::from_secs(1));
            let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
            socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES))?;
        }
    }
    if let Some(timeout) = options.user_timeout {
        socket.set_tcp_user_timeout(Some(timeout))?;
    }
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
            ("443,stream,tls,default-cert=default_443", "0.0.0.0:443"),
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
        ] {
            assert_eq!(text.parse::<ListenSpec>(), Err(reason.to_string()));
        }
    }

    #[test]
    fn an_occupied_port_is_an_error() {
        let spec: ListenSpec = "127.0.0.1:0".parse().unwrap();
        let first = Listener::bind(&spec, &TcpOptions::default()).unwrap();
        let taken: ListenSpec = first.describe(&spec).parse().unwrap();
        let error = Listener::bind(&taken, &TcpOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn accepted_connections_have_the_tcp_options() {
        let options = TcpOptions {
            keepalive: Some(Duration::from_secs(40)),
            user_timeout: Some(Duration::from_secs(30)),
        };
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let spec: ListenSpec = address.parse().unwrap();
            let listener = Listener::bind(&spec, &options).unwrap();
            let client = std::net::TcpStream::connect(listener.describe(&spec)).unwrap();
            let (stream, peer) = listener.accept().unwrap();
            assert_eq!(peer, Some(client.local_addr().unwrap()));
            let Stream::Tcp(stream) = stream else { panic!("{stream:?}") };
            let socket = socket2::SockRef::from(&stream);
            assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(40));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
            assert_eq!(socket.tcp_user_timeout().unwrap(), options.user_timeout);
        }
    }
}
