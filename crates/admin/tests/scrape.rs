//! The metrics listener over real sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use admin::{Address, Answer, Reply, Rules, serve_metrics};
use evloop::local::FileOwner;

fn serve() -> String {
    let address = Address::Tcp("127.0.0.1:0".parse().expect("address"));
    let mut scrapes = 0;
    let page = move || {
        scrapes += 1;
        format!("scrapes {scrapes}\n")
    };
    serve_metrics(&address, Rules::CONNMGR, page).expect("bound")
}

fn all(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read to the end");
    text
}

fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.write_all(request.as_bytes()).expect("sent");
    all(stream)
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
                    Connection: close\r\nContent-Length: 10\r\n\r\n";

#[test]
fn any_request_is_answered_once() {
    let address = serve();
    assert_eq!(
        ask(&address, "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"),
        format!("{HEAD}scrapes 1\n")
    );
    let two = "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";
    assert_eq!(ask(&address, two), format!("{HEAD}scrapes 2\n"));
    assert_eq!(ask(&address, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"), HEAD);
    let old = ask(&address, "GET / HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n") && old.ends_with("\r\n\r\nscrapes 4\n"));
}

#[test]
fn a_request_may_come_in_pieces() {
    let address = serve();
    let mut stream = TcpStream::connect(&address).expect("connected");
    for byte in b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" {
        stream.write_all(&[*byte]).expect("sent");
    }
    assert_eq!(all(stream), format!("{HEAD}scrapes 1\n"));
}

#[test]
fn what_is_no_request_is_refused() {
    let address = serve();
    let junk = ask(&address, "\u{1}\r\n\r\n");
    assert!(junk.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{junk}");
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(4096));
    let long = ask(&address, &long);
    assert!(long.ends_with("Request header size exceeded limit of 4096 bytes.\n"), "{long}");
    // A client that leaves without a request takes nothing with it.
    TcpStream::connect(&address).expect("connected").shutdown(Shutdown::Both).expect("shut");
    assert!(ask(&address, "GET / HTTP/1.0\r\n\r\n").ends_with("scrapes 1\n"));
}

#[test]
fn the_eleventh_connection_is_closed_at_once() {
    let address = serve();
    let mut held: Vec<TcpStream> =
        (0..10).map(|_| TcpStream::connect(&address).expect("connected")).collect();
    let mut more = TcpStream::connect(&address).expect("connected");
    let mut buf = [0; 1];
    assert_eq!(more.read(&mut buf).expect("closed"), 0);
    held[3].write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    assert!(all(held.remove(3)).ends_with("scrapes 1\n"));
}

#[test]
fn unix_sockets() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("metrics");
    let address =
        Address::Local(path.clone(), FileOwner { mode: Some(0o600), ..FileOwner::default() });
    serve_metrics(&address, Rules::PUSHPIN, || "x 1\n".into()).expect("bound");
    let mut stream = UnixStream::connect(&path).expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("sent");
    let text = all(stream);
    assert!(text.contains("\r\nContent-Type: text/plain\r\n") && text.ends_with("\r\n\r\nx 1\n"));
    let bad = Address::Local("/nonexistent/x".into(), FileOwner::default());
    assert!(serve_metrics(&bad, Rules::PUSHPIN, String::new).is_err());
}

#[test]
fn who_waits_for_an_answer_holds_up_nobody() {
    let address = Address::Tcp("127.0.0.1:0".parse().expect("address"));
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Arc::new(std::sync::Mutex::new(held));
    let address = admin::serve(&address, Rules::PUSHPIN, move |path| match path {
        "/slow" => {
            let held = held.clone();
            Answer::Later(Box::new(move || {
                held.lock().expect("one at a time").recv().expect("released");
                Reply::text(200, "OK", "slow\n")
            }))
        }
        _ => Answer::Now(Reply::text(200, "OK", "quick\n")),
    });
    let address = address.expect("bound");
    let mut first = TcpStream::connect(&address).expect("connected");
    first.write_all(b"GET /slow HTTP/1.1\r\n\r\n").expect("sent");
    // One that has said everything, and one that leaves.
    let mut second = TcpStream::connect(&address).expect("connected");
    second.write_all(b"GET /slow HTTP/1.1\r\n\r\n").expect("sent");
    second.shutdown(Shutdown::Write).expect("shut down");
    assert!(ask(&address, "GET / HTTP/1.1\r\n\r\n").ends_with("quick\n"));
    assert!(ask(&address, "GET / HTTP/1.1\r\n\r\n").ends_with("quick\n"));
    release.send(()).expect("sent");
    release.send(()).expect("sent");
    assert!(all(first).ends_with("slow\n"));
    assert!(all(second).ends_with("slow\n"));
}
