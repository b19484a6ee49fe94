//! Odd clients of a TLS port. Behind each: no buffer is held, and its end is counted by cause.

use super::*;

impl Site {
    /// Handshakes completed, and those that were not, by cause.
    fn counts(&self) -> (u64, Vec<(&'static str, u64)>) {
        let handshakes = self.context.port.handshakes();
        let done = handshakes.versions().iter().map(|(_, count)| count).sum();
        (done, handshakes.failures().into_iter().filter(|(_, count)| *count > 0).collect())
    }
}

impl Pair {
    /// What a client writes that knows no rules.
    fn wild(&mut self, bytes: &[u8]) {
        self.wire.write_all(bytes).unwrap();
    }

    /// The server reads until it has an error.
    fn server_error(&mut self) -> io::Error {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE);
            if let Err(error) = self.server_turn() {
                return error;
            }
        }
    }

    /// The server's memory for this client, beside the library's state.
    fn held_bytes(&self) -> usize {
        let TlsStream { input, plain, waiting, .. } = &self.server;
        input.capacity() + plain.capacity() + waiting.capacity()
    }
}

#[test]
fn half_a_handshake() {
    let site = Site::new(None);
    for bytes in [0, 1, 100] {
        let mut pair = site.client(&TLS13, "a.test");
        if bytes > 0 {
            pair.client_turn(bytes).unwrap();
        }
        pair.wire.shutdown(Shutdown::Write).unwrap();
        let start = Instant::now();
        while pair.server_turn().unwrap() != Some(0) {
            assert!(start.elapsed() < PATIENCE);
        }
        assert!(pair.held_bytes() <= bytes);
    }
    assert_eq!(site.counts(), (0, vec![("unfinished", 3)]));
}

#[test]
fn plain_text() {
    let site = Site::new(None);
    let mut pair = site.client(&TLS13, "a.test");
    pair.wild(b"GET / HTTP/1.1\r\n");
    assert_eq!(pair.server_error().kind(), ErrorKind::InvalidData);
    drop(pair);
    assert_eq!(site.counts(), (0, vec![("plain_http", 1)]));
}

#[test]
fn no_tls_at_all() {
    let site = Site::new(None);
    for bytes in [&b"\x16\x03\x01\xff\xff"[..], &[0; 100], b"\x16\x03\x01\x00\x04\x01\x00\x00\x00"]
    {
        let mut pair = site.client(&TLS13, "a.test");
        pair.wild(bytes);
        pair.server_error();
        assert_eq!(pair.server.phase, Phase::Failed);
    }
    assert_eq!(site.counts(), (0, vec![("bad_message", 3)]));
}

#[test]
fn a_client_that_does_not_trust_us() {
    let site = Site::new(None);
    let stranger = Site::new(None);
    let config = stranger.config(&TLS13);
    let mut pair = site.connect(&config, "a.test");
    let start = Instant::now();
    let error = loop {
        assert!(start.elapsed() < PATIENCE);
        // It says why before it fails.
        let _ = pair.client_turn(usize::MAX);
        if let Err(error) = pair.server_turn() {
            break error;
        }
    };
    assert!(error.to_string().contains("alert"), "{error}");
    assert_eq!(site.counts(), (0, vec![("refused_by_client", 1)]));
}

#[test]
fn completed_handshakes_are_counted_by_version() {
    let site = Site::new(None);
    for version in [&TLS12, &TLS12, &TLS13] {
        drop(Pair::running(&site, version));
    }
    assert_eq!(site.context.port.handshakes().versions(), [("1.2", 2), ("1.3", 1)]);
    assert_eq!(site.counts(), (3, vec![]));
}

#[test]
fn garbage_behind_the_handshake() {
    let site = Site::new(None);
    // A record that was not encrypted, a handshake message as of a renegotiation, noise.
    for bytes in
        [&b"\x17\x03\x03\x00\x02hi"[..], b"\x16\x03\x03\x00\x04\x01\x00\x00\x00", &[0xff; 50]]
    {
        for version in [&TLS12, &TLS13] {
            let mut pair = Pair::running(&site, version);
            pair.wild(bytes);
            pair.server_error();
            assert_eq!(pair.server.phase, Phase::Failed);
            assert!(pair.got.is_empty(), "nothing of it is passed on");
        }
    }
    assert_eq!(site.counts(), (6, vec![]), "their handshakes were fine");
}

#[test]
fn stops_in_the_middle_of_a_record() {
    let site = Site::new(None);
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::running(&site, version);
        pair.client.writer().write_all(&pattern(10_000)).unwrap();
        pair.client_turn(5_000).unwrap();
        let start = Instant::now();
        while pair.server.input.len() < 5_000 {
            assert!(start.elapsed() < PATIENCE);
            assert_eq!(pair.server_turn().unwrap(), None);
        }
        assert!(pair.got.is_empty() && pair.held_bytes() < 6_000);
        pair.until(|pair| pair.got.len() == 10_000);
        assert_eq!(pair.held_bytes(), 0);
    }
}

#[test]
fn drips_ciphertext() {
    let site = Site::new(None);
    let mut pair = Pair::running(&site, &TLS13);
    pair.client.writer().write_all(&pattern(2_000)).unwrap();
    let start = Instant::now();
    while pair.got.len() < 2_000 {
        assert!(start.elapsed() < PATIENCE);
        pair.client_turn(7).unwrap();
        pair.server_turn().unwrap();
        assert!(pair.held_bytes() <= 4_200, "no more than the record");
    }
    assert!(pair.got == pattern(2_000));
    assert_eq!(pair.held_bytes(), 0);
}

#[test]
fn what_it_does_not_take_is_counted_by_the_sockets() {
    let site = Site::new(None);
    let Pair { server, mut client, mut wire, .. } = Pair::running(&site, &TLS13);
    let poll = mio::Poll::new().unwrap();
    let mut sockets = Sockets::default();
    sockets.add(poll.registry(), 5, Stream::Tls(Box::new(server))).unwrap();
    let piece = pattern(20_000);
    while sockets.write(5, &[IoSlice::new(&piece)]).is_ok() {}
    assert!(sockets.unsent() > 0 && sockets.unsent() <= RECORD_MAX);
    let start = Instant::now();
    while sockets.unsent() > 0 {
        assert!(start.elapsed() < PATIENCE);
        match client.read_tls(&mut wire) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            Ok(_) => drop(client.process_new_packets().unwrap()),
        }
        let _ = io::copy(&mut client.reader(), &mut io::sink());
        sockets.has_room(5);
    }
    while sockets.write(5, &[IoSlice::new(&piece)]).is_ok() {}
    assert!(sockets.unsent() > 0);
    sockets.close(5);
    assert_eq!(sockets.unsent(), 0);
}
