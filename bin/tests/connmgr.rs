//! The connection manager program over real sockets, with a proxy that the test plays.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use zhttp::{Ext, Fields, Head, Id, Kind, Packet};

/// No wait of these tests is longer; a wait that ends by it is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n";

/// A running program; killed when dropped.
struct Program {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Program {
    fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let port = free_port();
        let mut child = command(dir.path(), port).args(args).spawn().expect("started");
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < PATIENCE, "does not listen");
            if child.try_wait().expect("status").is_some() {
                let output = child.wait_with_output().expect("output");
                panic!("ended early: {}", String::from_utf8_lossy(&output.stdout));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port, dir }
    }

    fn connect(&self) -> TcpStream {
        let address: SocketAddr = ([127, 0, 0, 1], self.port).into();
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream
    }

    fn request(&self) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(GET).expect("sent");
        stream
    }

    /// Sends TERM and waits for the end; gives the exit status.
    fn stop(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("status") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushpin-connmgr"));
    command
        .arg(format!("--listen=127.0.0.1:{port},stream"))
        .arg(format!("--zclient-stream=ipc://{}/z", dir.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// A port that nobody listens on, below those that the system gives to outgoing connections: one
/// of these may connect to itself, or be taken by another test.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 21_000 + (std::process::id() % 1_000) as u16 * 8;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 800;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The test's proxy.
struct Proxy {
    pull: zmq::Socket,
    router: zmq::Socket,
}

impl Proxy {
    fn new(program: &Program) -> Self {
        let context = zmq::Context::new();
        let make = |kind, name: &str| {
            let socket = context.socket(kind).expect("socket");
            socket.set_identity(b"px").expect("identity");
            socket.set_linger(0).expect("linger");
            socket.set_rcvtimeo(PATIENCE.as_millis() as i32).expect("timeout");
            let spec = format!("ipc://{}/z-{name}", program.dir.path().display());
            socket.connect(&spec).expect("connected");
            socket
        };
        let router = make(zmq::ROUTER, "out-stream");
        // Until hands are shaken, a ROUTER drops what it sends unless it is told not to.
        router.set_router_mandatory(true).expect("mandatory");
        Self { pull: make(zmq::PULL, "out"), router }
    }

    /// The session id of the next request.
    fn take(&self) -> Vec<u8> {
        let message = self.pull.recv_bytes(0).expect("a request");
        let packet = Packet::parse(&message).expect("a packet");
        packet.ids.only().expect("one id").id.to_vec()
    }

    fn send(&self, sessions: &[(&[u8], u32)], fill: impl FnOnce(&mut Fields<'_>)) {
        let ids: Vec<Id<'_>> =
            sessions.iter().map(|(id, seq)| Id { id, seq: Some(*seq) }).collect();
        let mut packet = Vec::new();
        let head = Head { from: b"px", ids: &ids, ext: Ext::OURS };
        zhttp::write(&mut packet, &head, fill);
        let start = Instant::now();
        while self.router.send_multipart([&b"connmgr"[..], b"", &packet], 0).is_err() {
            assert!(start.elapsed() < PATIENCE, "no hand shaken");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn hold(&self) -> Vec<u8> {
        let session = self.take();
        self.send(&[(&session, 0)], |f| {
            f.status(200, "OK").body(b"hello").flag("more", true);
        });
        session
    }

    /// The next packet of a running session: its kind and the sessions it names.
    fn next(&self) -> (Kind, usize) {
        let parts = self.router.recv_multipart(0).expect("a packet");
        let packet = Packet::parse(parts.last().expect("parts")).expect("a packet");
        (packet.kind, packet.ids.len())
    }
}

/// Reads until `wanted` stands at the end.
fn read_to(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut buf = [0; 4096];
    while !text.ends_with(wanted) {
        let n = stream.read(&mut buf).expect("bytes in time");
        assert!(n > 0, "closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buf[..n]));
    }
    text
}

/// Reads until the connection ends.
fn read_all(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an end in time");
    text
}

#[test]
fn serves_publishes_and_cancels_at_the_end() {
    for workers in ["--workers=1", "--workers=3"] {
        let mut program = Program::start(&[workers]);
        let proxy = Proxy::new(&program);
        let mut clients: Vec<TcpStream> = (0..20).map(|_| program.request()).collect();
        let sessions: Vec<Vec<u8>> = clients.iter().map(|_| proxy.hold()).collect();
        for client in &mut clients {
            read_to(client, "5\r\nhello\r\n");
        }
        let named: Vec<(&[u8], u32)> = sessions.iter().map(|s| (s.as_slice(), 1)).collect();
        proxy.send(&named, |f| {
            f.body(b"message").flag("more", true);
        });
        for client in &mut clients {
            assert_eq!(read_to(client, "message\r\n"), "7\r\nmessage\r\n");
        }
        assert_eq!(program.stop(), Some(0));
        let mut cancelled = 0;
        while cancelled < clients.len() {
            let (kind, count) = proxy.next();
            cancelled += if kind == Kind::Cancel { count } else { 0 };
        }
        for client in &mut clients {
            assert_eq!(read_all(client), "");
        }
    }
}

#[test]
fn exactly_maxconn_clients_are_served() {
    let program = Program::start(&["--workers=2", "--stream-maxconn=20", "--req-maxconn=2"]);
    let proxy = Proxy::new(&program);
    let mut clients: Vec<TcpStream> = (0..20).map(|_| program.request()).collect();
    for _ in &clients {
        proxy.hold();
    }
    for client in &mut clients {
        read_to(client, "hello\r\n");
    }
    let mut next = program.request();
    next.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
    assert!(next.read(&mut [0; 16]).is_err(), "the limit holds");
    clients.pop();
    proxy.hold();
    next.set_read_timeout(Some(PATIENCE)).expect("timeout");
    read_to(&mut next, "hello\r\n");
}

#[test]
fn sessions_of_a_vanished_proxy_end_at_once() {
    for workers in ["--workers=1", "--workers=2"] {
        let program = Program::start(&[workers]);
        let proxy = Proxy::new(&program);
        let mut held: Vec<TcpStream> = (0..5).map(|_| program.request()).collect();
        for _ in &held {
            proxy.hold();
        }
        for client in &mut held {
            read_to(client, "hello\r\n");
        }
        let mut taken = program.request();
        let session = proxy.take();
        proxy.send(&[(&session, 0)], |f| {
            f.kind(Kind::KeepAlive);
        });
        let mut untaken = program.request();
        proxy.take();
        // What is sent behind the keep-alive shows that it was applied.
        let mut last = program.request();
        proxy.hold();
        read_to(&mut last, "hello\r\n");
        let start = Instant::now();
        drop(proxy);
        for client in &mut held {
            assert_eq!(read_all(client), "");
        }
        assert!(read_all(&mut taken).starts_with("HTTP/1.1 500 "), "{workers}");
        assert!(read_all(&mut untaken).starts_with("HTTP/1.1 502 "), "{workers}");
        assert!(start.elapsed() < Duration::from_secs(5), "{workers}: {:?}", start.elapsed());
    }
}

/// Starts a program that must refuse to; gives its status and output.
fn refused(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().expect("started");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn says_why_it_does_not_start() {
    let dir = tempfile::tempdir().expect("directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("address").port();
    let (code, text) = refused(command(dir.path(), port));
    let wanted = format!("failed to bind 127.0.0.1:{port}: Address already in use");
    assert!(code == Some(1) && text.contains(&wanted), "{code:?} {text}");

    let (code, text) = refused(command(Path::new("/nonexistent"), free_port()));
    let wanted =
        "failed to set zhttp client stream specs: bind ipc:///nonexistent/z-out: No such file";
    assert!(code == Some(1) && text.contains(wanted), "{code:?} {text}");

    let mut zero = command(dir.path(), free_port());
    zero.arg("--workers=0");
    let (code, text) = refused(zero);
    assert!(code == Some(1) && text.contains("failed to parse workers: "), "{code:?} {text}");
}
