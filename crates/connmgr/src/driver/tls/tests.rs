//! TLS over real sockets, with a client of the same library.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore};

use super::*;
use crate::Net;
use crate::driver::listen::Stream;
use crate::driver::sockets::Sockets;
use crate::driver::tlsport::{Port, Shared};

mod odd_peers;

/// No wait of these tests is longer; a wait that ends by it is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// A directory with one certificate, the port that uses it, and who trusts it.
struct Site {
    _dir: tempfile::TempDir,
    context: Arc<Context>,
    roots: Arc<RootCertStore>,
}

impl Site {
    fn new(default: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(vec!["a.test".to_string()]).unwrap();
        std::fs::write(dir.path().join("a.test.crt"), pair.cert.pem()).unwrap();
        std::fs::write(dir.path().join("a.test.key"), pair.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(pair.cert.der().clone()).unwrap();
        let shared = Shared::new(dir.path());
        let port = Arc::new(Port::new(shared, default.map(str::to_string), "port".into()));
        let context = Arc::new(Context::new(port).unwrap());
        Self { _dir: dir, context, roots: Arc::new(roots) }
    }

    fn config(&self, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        Arc::new(config)
    }

    fn client(&self, version: &'static rustls::SupportedProtocolVersion, host: &str) -> Pair {
        self.connect(&self.config(version), host)
    }

    fn connect(&self, config: &Arc<ClientConfig>, host: &str) -> Pair {
        let host = ServerName::try_from(host.to_string()).unwrap();
        Pair::new(self, ClientConnection::new(config.clone(), host).unwrap())
    }
}

/// A server's stream and its client.
struct Pair {
    server: TlsStream,
    buffers: Buffers,
    client: ClientConnection,
    wire: std::net::TcpStream,
    /// Bytes that the client has for the wire.
    outgoing: Vec<u8>,
    got: Vec<u8>,
}

impl Pair {
    fn new(site: &Site, client: ClientConnection) -> Self {
        let (wire, accepted) = sockets_pair();
        let server = TlsStream::new(accepted, &site.context).unwrap();
        let (outgoing, got) = (Vec::new(), Vec::new());
        Self { server, buffers: Buffers::default(), client, wire, outgoing, got }
    }

    /// A pair that has shaken hands.
    fn running(site: &Site, version: &'static rustls::SupportedProtocolVersion) -> Self {
        let mut pair = site.client(version, "a.test");
        pair.until(|pair| pair.server.phase == Phase::Running && !pair.client.is_handshaking());
        pair
    }

    /// The client's side: sends at most `max` bytes of what it has to say, reads what is there.
    fn client_turn(&mut self, max: usize) -> io::Result<()> {
        self.client.write_tls(&mut self.outgoing)?;
        let n = self.outgoing.len().min(max);
        if n > 0 {
            match self.wire.write(&self.outgoing[..n]) {
                Ok(n) => drop(self.outgoing.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        match self.client.read_tls(&mut self.wire) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => drop(result?),
        }
        self.client.process_new_packets().map_err(io::Error::other)?;
        Ok(())
    }

    /// The server's side: reads all that is there.
    fn server_turn(&mut self) -> io::Result<Option<usize>> {
        self.server.arrived(false);
        self.server.flush()?;
        let mut buf = [0; 1000];
        let mut count = None;
        loop {
            match self.server.read(&mut self.buffers, &mut buf) {
                Ok(0) => return Ok(Some(count.unwrap_or(0))),
                Ok(n) => {
                    self.got.extend_from_slice(&buf[..n]);
                    count = Some(count.unwrap_or(0) + n);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
                Err(error) => return Err(error),
            }
        }
    }

    /// Both sides take turns until `done`.
    fn until(&mut self, done: impl Fn(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "not in time");
            self.client_turn(usize::MAX).unwrap();
            self.server_turn().unwrap();
        }
    }

    /// What the client has read so far, and whether that was a regular end.
    fn client_read(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let result = self.client.reader().read_to_end(&mut bytes);
        (bytes, result.is_ok())
    }
}

/// Both ends of a connection; small buffers, so that they can be filled.
fn sockets_pair() -> (std::net::TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let wire = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    wire.set_nonblocking(true).unwrap();
    wire.set_nodelay(true).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    socket2::SockRef::from(&accepted).set_send_buffer_size(16 * 1024).unwrap();
    accepted.set_nonblocking(true).unwrap();
    accepted.set_nodelay(true).unwrap();
    (wire, TcpStream::from_std(accepted))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[test]
fn shakes_hands_byte_by_byte() {
    let site = Site::new(None);
    for version in [&TLS12, &TLS13] {
        let mut pair = site.client(version, "a.test");
        pair.client.writer().write_all(b"early bird").unwrap();
        let start = Instant::now();
        while pair.got.len() < 10 {
            assert!(start.elapsed() < PATIENCE);
            pair.client_turn(1).unwrap();
            pair.server_turn().unwrap();
        }
        assert_eq!(pair.got, b"early bird");
        let slices = [IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo")];
        assert_eq!(pair.server.write(&mut pair.buffers, &slices).unwrap(), 5);
        pair.until(|pair| {
            pair.client.process_new_packets().unwrap().plaintext_bytes_to_read() == 5
        });
        assert_eq!(pair.client_read(), (b"hello".to_vec(), false));
        assert_eq!(pair.client.protocol_version(), Some(version.version));
    }
}

#[test]
fn a_blocked_client_pushes_back_and_loses_nothing() {
    let site = Site::new(None);
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::running(&site, version);
        let data = pattern(3_000_000);
        let (mut written, mut blocked, mut got) = (0, 0, Vec::new());
        let start = Instant::now();
        while got.len() < data.len() {
            assert!(start.elapsed() < PATIENCE);
            let rest = &data[written..];
            let cut = rest.len().min(100);
            let slices = [IoSlice::new(&rest[..cut]), IoSlice::new(&rest[cut..])];
            match pair.server.write(&mut pair.buffers, &slices) {
                Ok(n) => written += n,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    blocked += 1;
                    assert!(pair.server.waiting.len() <= RECORD_MAX && pair.server.held > 0);
                    pair.client_turn(0).unwrap();
                    got.extend(pair.client_read().0);
                    pair.server.flush().unwrap();
                    continue;
                }
            }
            if written == data.len() {
                pair.client_turn(0).unwrap();
                got.extend(pair.client_read().0);
            }
        }
        assert!(blocked > 10, "blocked {blocked} times");
        assert!(got == data, "other bytes than were sent");
        assert_eq!((pair.server.waiting.capacity(), pair.server.held), (0, 0));
    }
}

#[test]
fn an_upload_arrives_and_leaves_no_buffers() {
    let site = Site::new(None);
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::running(&site, version);
        let data = pattern(1_000_000);
        let mut sent = 0;
        let start = Instant::now();
        while pair.got.len() < data.len() {
            assert!(start.elapsed() < PATIENCE);
            if pair.outgoing.len() < 50_000 && sent < data.len() {
                sent += pair.client.writer().write(&data[sent..]).unwrap();
            }
            pair.client_turn(7_777).unwrap();
            pair.server_turn().unwrap();
        }
        assert!(pair.got == data, "other bytes than were sent");
        let TlsStream { input, plain, waiting, .. } = &pair.server;
        assert_eq!((input.capacity(), plain.capacity(), waiting.capacity()), (0, 0, 0));
    }
}

#[test]
fn a_regular_end_is_told() {
    let site = Site::new(None);
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::running(&site, version);
        pair.server.write(&mut pair.buffers, &[IoSlice::new(b"bye")]).unwrap();
        pair.server.close_notify(&mut pair.buffers).unwrap();
        let start = Instant::now();
        let (mut bytes, mut regular) = pair.client_read();
        while !regular {
            assert!(start.elapsed() < PATIENCE);
            pair.client_turn(0).unwrap();
            let (more, ended) = pair.client_read();
            bytes.extend(more);
            regular = ended;
        }
        assert_eq!(bytes, b"bye");
    }
}

#[test]
fn shutdown_ends_our_side_only() {
    let site = Site::new(None);
    let mut pair = Pair::running(&site, &TLS13);
    pair.server.shutdown(&mut pair.buffers).unwrap();
    pair.until(|pair| pair.client.process_new_packets().unwrap().peer_has_closed());
    pair.client.writer().write_all(b"still here").unwrap();
    pair.until(|pair| pair.got == b"still here");
}

#[test]
fn a_client_that_ends_regularly_may_still_be_answered() {
    let site = Site::new(None);
    let mut pair = Pair::running(&site, &TLS13);
    pair.client.writer().write_all(b"last").unwrap();
    pair.client.send_close_notify();
    let start = Instant::now();
    while pair.server_turn().unwrap() != Some(4) && !pair.server.ended {
        assert!(start.elapsed() < PATIENCE);
        pair.client_turn(usize::MAX).unwrap();
    }
    assert_eq!(pair.got, b"last");
    assert_eq!(pair.server_turn().unwrap(), Some(0));
    pair.server.write(&mut pair.buffers, &[IoSlice::new(b"answer")]).unwrap();
    pair.until(|pair| pair.client.process_new_packets().unwrap().plaintext_bytes_to_read() == 6);
}

#[test]
fn an_end_without_a_word_is_an_end() {
    let site = Site::new(None);
    let mut pair = Pair::running(&site, &TLS13);
    pair.wire.shutdown(Shutdown::Both).unwrap();
    let start = Instant::now();
    while !matches!(pair.server_turn(), Ok(Some(0)) | Err(_)) {
        assert!(start.elapsed() < PATIENCE);
    }
}

#[test]
fn unknown_hosts_get_the_alert_that_says_so() {
    let site = Site::new(None);
    for version in [&TLS12, &TLS13] {
        let mut pair = site.client(version, "b.test");
        let start = Instant::now();
        let error = loop {
            assert!(start.elapsed() < PATIENCE);
            if let Err(error) = pair.client_turn(usize::MAX) {
                break error;
            }
            // The server's side ends with an error, then only with that.
            let _ = pair.server_turn();
        };
        let alert = rustls::Error::AlertReceived(AlertDescription::UnrecognisedName);
        assert!(error.to_string().contains(&alert.to_string()), "{error}");
        assert_eq!(pair.server.phase, Phase::Failed);
    }
    let site = Site::new(Some("a.test"));
    let mut pair = site.client(&TLS13, "b.test");
    let error = loop {
        if let Err(error) = pair.client_turn(usize::MAX) {
            break error;
        }
        pair.server_turn().unwrap();
    };
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[test]
fn keys_are_renewed_when_the_client_asks() {
    let site = Site::new(None);
    let mut pair = Pair::running(&site, &TLS13);
    for n in 0..20u8 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client.writer().write_all(&[n]).unwrap();
        pair.until(|pair| pair.got.len() == usize::from(n) + 1);
        assert_eq!(pair.server.write(&mut pair.buffers, &[IoSlice::new(&[n])]).unwrap(), 1);
        pair.until(|pair| {
            pair.client.process_new_packets().unwrap().plaintext_bytes_to_read() == 1
        });
        assert_eq!(pair.client_read().0, [n]);
    }
}

#[test]
fn sessions_are_resumed_between_workers() {
    let site = Site::new(None);
    let other = Site {
        _dir: tempfile::tempdir().unwrap(),
        context: Arc::new(Context::new(site.context.port.clone()).unwrap()),
        roots: site.roots.clone(),
    };
    let config = site.config(&TLS13);
    let mut pair = site.connect(&config, "a.test");
    pair.client.writer().write_all(b"x").unwrap();
    pair.until(|pair| pair.client.tls13_tickets_received() > 0);
    let mut pair = other.connect(&config, "a.test");
    pair.until(|pair| !pair.client.is_handshaking());
    assert_eq!(pair.client.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
}

#[test]
fn plain_text_is_noticed_and_answered_in_plain_text() {
    let site = Site::new(None);
    let mut pair = site.client(&TLS13, "a.test");
    pair.wire.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let start = Instant::now();
    let error = loop {
        assert!(start.elapsed() < PATIENCE);
        if let Err(error) = pair.server_turn() {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(site.context.port.plain_clients.load(Ordering::Relaxed), 1);
    assert_eq!(pair.server.write(&mut pair.buffers, &[IoSlice::new(b"no")]).unwrap(), 2);
    pair.server.shutdown(&mut pair.buffers).unwrap();
    pair.wire.set_nonblocking(false).unwrap();
    let mut text = String::new();
    pair.wire.read_to_string(&mut text).unwrap();
    assert_eq!(text, "no");
}

#[test]
fn a_handshake_message_has_a_bound() {
    let site = Site::new(None);
    let mut pair = site.client(&TLS13, "a.test");
    // A ClientHello of 16 MB, in full records.
    let mut message = vec![1, 0xff, 0xff, 0xff];
    message.resize(PLAIN_MAX, 0);
    let mut record = vec![0x16, 3, 1, 0x40, 0];
    record.extend_from_slice(&message);
    let mut sent = 0;
    let start = Instant::now();
    while pair.server_turn().is_ok() {
        assert!(start.elapsed() < PATIENCE && sent < 10 * record.len());
        let from = sent % record.len();
        sent += pair.wire.write(&record[from..]).unwrap_or(0);
        assert!(pair.server.input.len() <= HANDSHAKE_MAX);
    }
    assert_eq!(pair.server.phase, Phase::Failed);
}

#[test]
fn a_crowd_that_shakes_hands_is_spread_over_turns() {
    let site = Site::new(None);
    let poll = mio::Poll::new().unwrap();
    let mut sockets = Sockets::default();
    let mut clients = Vec::new();
    for conn in 0..100 {
        let (mut wire, accepted) = sockets_pair();
        wire.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
        let stream = Stream::Tls(Box::new(TlsStream::new(accepted, &site.context).unwrap()));
        sockets.add(poll.registry(), conn, stream).unwrap();
        clients.push(wire);
    }
    let mut buf = [0; 10];
    for conn in (0..100).chain(0..100) {
        sockets.arrived(conn, false);
        let error = sockets.read(conn, &mut buf).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    assert!(sockets.is_ready());
    let later = sockets.start_turn();
    assert!(later.len() >= 36 && later.len() <= 100, "{} put off", later.len());
    assert!(!sockets.is_ready());
    sockets.arrived(later[0], false);
    let _ = sockets.read(later[0], &mut buf);
    assert!(!sockets.is_ready());
}

#[test]
fn one_record_is_gathered_from_many_pieces() {
    let (a, b) = (pattern(PLAIN_MAX + 5), pattern(10));
    let slices = [IoSlice::new(&b), IoSlice::new(&a), IoSlice::new(&b)];
    let whole = [&b[..], &a, &b].concat();
    let (mut at, mut into, mut sizes) = (0, Vec::new(), Vec::new());
    while at < whole.len() {
        let piece = gather(&slices, at, &mut into);
        assert_eq!(piece, &whole[at..at + piece.len()]);
        at += piece.len();
        sizes.push(piece.len());
    }
    assert_eq!(sizes, [PLAIN_MAX, 25]);
    assert!(gather(&slices, at, &mut into).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a client sends, in whatever pieces, ends in an error or waits for more.
    #[test]
    fn nothing_from_outside_breaks_it(
        flips in prop::collection::vec((0usize..600, any::<u8>()), 1..6),
        pieces in prop::collection::vec(1usize..200, 1..20),
        running in any::<bool>(),
        tls13 in any::<bool>(),
    ) {
        let site = Site::new(None);
        let version = if tls13 { &TLS13 } else { &TLS12 };
        let mut pair = site.client(version, "a.test");
        if running {
            pair = Pair::running(&site, version);
            pair.client.writer().write_all(&pattern(500)).unwrap();
        }
        pair.client.write_tls(&mut pair.outgoing).unwrap();
        for (at, value) in flips {
            let at = at % pair.outgoing.len();
            pair.outgoing[at] ^= value;
        }
        let mut pieces = pieces.into_iter().cycle();
        while !pair.outgoing.is_empty() {
            let n = pieces.next().unwrap().min(pair.outgoing.len());
            if pair.wire.write_all(&pair.outgoing[..n]).is_err() {
                break;
            }
            pair.outgoing.drain(..n);
            if let Err(error) = pair.server_turn() {
                // Plain text, as some flips make it look, is read on to be thrown away.
                let is_plain = error.kind() == ErrorKind::InvalidData;
                let again = pair.server_turn();
                prop_assert!(is_plain || again.is_err() || again.is_ok_and(|n| n == Some(0)));
            }
        }
        let _ = pair.server.write(&mut pair.buffers, &[IoSlice::new(b"x")]);
        let _ = pair.server.shutdown(&mut pair.buffers);
    }
}
