//! Redirects (`spec/connmgr.md §10.5`).

use evloop::arena::Key;
use http1::Header;
use origin::{Event, WebSocketEvent};

use crate::{Rig, config};

const SECRETS: [(&str, &str); 4] =
    [("Authorization", "s"), ("Cookie", "s"), ("Proxy-Authorization", "s"), ("X-One", "1")];

fn asked(rig: &mut Rig, method: &str, uri: &str, body: &str) -> Key {
    rig.begun("a", |f| {
        let headers = SECRETS.into_iter().chain([("Content-Type", "t/p")]);
        f.method(method).uri(uri).headers(headers).body(body.as_bytes());
        f.flag("follow-redirects", true);
    })
}

/// The response that leads there.
fn lead(rig: &mut Rig, key: Key, code: u16, location: &'static str) {
    rig.head_with(key, code, &[("location", location)]);
    rig.event(key, Event::Body(b"gone"));
    rig.event(key, Event::End);
}

#[test]
fn methods_and_bodies() {
    for (code, method, then, keeps_body) in [
        (301, "POST", "GET", false),
        (302, "POST", "GET", false),
        (303, "POST", "GET", false),
        (303, "PUT", "GET", false),
        (307, "POST", "POST", true),
        (308, "POST", "POST", true),
        (302, "PUT", "PUT", true),
        (302, "GET", "GET", true),
        (303, "HEAD", "HEAD", true),
    ] {
        let mut rig = Rig::new();
        let body = if method == "GET" || method == "HEAD" { "" } else { "body" };
        let key = asked(&mut rig, method, "http://h/a", body);
        lead(&mut rig, key, code, "b?c");
        // The redirect's body is nobody's, so the window is as it was.
        assert_eq!(rig.out(), ["grant 4".to_owned(), format!("start h:80 {then} /b?c")]);
        assert_eq!((rig.window, rig.key), (50, Some(key)));
        let kept = rig.request.ends_with("\r\n\r\nbody");
        assert_eq!(kept, keeps_body && !body.is_empty(), "{code} {method}");
        assert_eq!(rig.request.contains("Content-Type"), keeps_body, "{code} {method}");
        // Within one origin secrets are told again.
        assert!(rig.request.contains("Authorization: s\r\nCookie: s\r\n"));
        rig.head(key, 200);
        rig.event(key, Event::End);
        assert_eq!(rig.out(), ["data a/1 200 Why more", "data a/2"]);
    }
}

#[test]
fn another_origin_is_told_no_secrets() {
    for to in ["http://other/", "https://h/", "http://h:81/"] {
        let mut rig = Rig::new();
        let key = rig.begun("a", |f| {
            f.method("GET").uri("http://h/a").headers(SECRETS.into_iter());
            f.flag("follow-redirects", true).str("client-cert", "c").str("client-key", "k");
        });
        lead(&mut rig, key, 302, to);
        rig.out();
        for (name, _) in &SECRETS[..3] {
            assert!(!rig.request.contains(name), "{to} {name}");
        }
        assert!(rig.request.contains("X-One: 1"));
        let tls = rig.endpoint.as_ref().and_then(|endpoint| endpoint.tls.as_ref());
        assert!(tls.is_none_or(|tls| tls.client_cert.is_empty() && tls.client_key.is_empty()));
    }
}

#[test]
fn the_list_of_refused_addresses_holds_for_every_hop() {
    let mut rig = Rig::with(connmgr::ClientConfig { deny_internal: true, ..config() });
    let key = asked(&mut rig, "GET", "http://outside/", "");
    lead(&mut rig, key, 302, "http://127.0.0.1/");
    rig.out();
    assert!(rig.endpoint.as_ref().is_some_and(|e| e.deny_internal && e.host == "127.0.0.1"));
    rig.event(key, Event::Failed(origin::Error::Policy));
    assert_eq!(rig.out(), ["error a/1 policy-violation"]);
}

#[test]
fn the_host_to_connect_to_stays() {
    let mut rig = Rig::new();
    let key = rig.begun("a", |f| {
        f.method("GET").uri("http://h/a").str("connect-host", "front").int("connect-port", 8080);
        f.flag("follow-redirects", true);
    });
    lead(&mut rig, key, 302, "http://other/b");
    assert_eq!(rig.out(), ["grant 4", "start front:8080 GET /b"]);
    assert!(rig.request.contains("Host: other\r\n"));
}

#[test]
fn the_ninth_is_one_too_many() {
    let mut rig = Rig::new();
    let key = asked(&mut rig, "GET", "http://h/a", "");
    for _ in 0..8 {
        lead(&mut rig, key, 302, "/a");
        assert_eq!(rig.out(), ["grant 4", "start h:80 GET /a"]);
    }
    lead(&mut rig, key, 302, "/a");
    assert_eq!(rig.out(), ["grant 4", "error a/1 too-many-redirects"]);
    assert!(rig.e.is_empty());
}

#[test]
fn what_cannot_be_followed_is_passed_on() {
    for headers in [&[][..], &[("Location", "ftp://h/")], &[("Location", "http://")]] {
        let mut rig = Rig::new();
        let key = asked(&mut rig, "GET", "http://h/a", "");
        rig.head_with(key, 302, headers);
        rig.event(key, Event::Body(b"x"));
        let out = rig.out();
        assert!(out[0].starts_with("data a/1 302 Why") && out[1] == "data a/2 x more", "{out:?}");
    }
    // A body that is still coming cannot be sent twice.
    let mut rig = Rig::new();
    let key = rig.begun("a", |f| {
        f.method("POST").uri("http://h/a").flag("follow-redirects", true).flag("more", true);
    });
    rig.head_with(key, 307, &[("Location", "/b")]);
    assert_eq!(rig.out(), ["data a/1 307 Why Location=/b more"]);
    // Nobody asked for it.
    let key = rig.begun("b", |f| {
        f.method("GET").uri("http://h/a");
    });
    rig.head_with(key, 302, &[("Location", "/b")]);
    assert_eq!(rig.out(), ["data b/1 302 Why Location=/b more"]);
}

#[test]
fn credits_that_came_meanwhile_count_for_the_last_hop() {
    let mut rig = Rig::new();
    let key = asked(&mut rig, "GET", "http://h/a", "");
    rig.packet("a", 1, |f| {
        f.kind(zhttp::Kind::Credit).credits(30);
    });
    lead(&mut rig, key, 302, "/b");
    assert_eq!((rig.out().len(), rig.window), (3, 80));
}

#[test]
fn the_requester_leaves_between_two_hops() {
    let mut rig = Rig::new();
    let key = asked(&mut rig, "GET", "http://h/a", "");
    rig.head_with(key, 302, &[("Location", "/b")]);
    rig.bare("a", 1, zhttp::Kind::Cancel);
    rig.event(key, Event::End);
    assert_eq!((rig.out(), rig.e.is_empty()), (vec!["cancel".to_owned()], true));
}

#[test]
fn a_websocket_is_led_on_too() {
    let mut rig = Rig::new();
    let key = rig.begun("a", |f| {
        f.uri("ws://h/a").flag("follow-redirects", true);
    });
    let headers = [Header { name: "Location", value: b"https://other/b" }];
    let refused = WebSocketEvent::Refused { code: 302, reason: "F", headers: &headers, body: b"x" };
    rig.event(key, Event::WebSocket(refused));
    assert_eq!(rig.out(), ["open other:443"]);
    assert!(rig.endpoint.as_ref().is_some_and(|endpoint| endpoint.tls.is_some()));
    rig.opened(key);
    assert_eq!(rig.out(), ["data a/1 101 Yes +100"]);
}
