//! WebSockets: what the proxy tells, and what it gets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use bench::Bench;
use zrpc::control::{Item, Kind};

#[test]
fn a_session_begins_is_subscribed_gets_messages_and_goes() {
    let mut b = Bench::new();
    b.here_with("1", |item| item.req_id = Some(b"0"));
    assert_eq!(b.items(), ["1 ack #0"]);
    b.control(&[Item {
        message: br#"{"type":"subscribe","channel":"c"}"#,
        req_id: Some(b"1"),
        ..Item::new(b"1", Kind::Grip)
    }]);
    assert_eq!(b.items(), ["1 ack #1"]);
    b.publish_ws("c", "hi");
    b.publish(r#"{"channel":"c","ws-message":{"type":"ping","content":"p"}}"#);
    b.publish(r#"{"channel":"c","ws-message":{"action":"refresh"}}"#);
    b.publish(r#"{"channel":"c","ws-message":{"action":"hint"}}"#);
    b.publish_stream("c", "not for sockets");
    assert_eq!(b.items(), ["1 send text:hi", "1 send ping:p", "1 refresh"]);
    b.control(&[Item::new(b"1", Kind::Gone)]);
    b.publish_ws("c", "late");
    assert!(b.items().is_empty());
    assert_eq!(b.handler.sockets(), 0);
    assert_eq!(b.unsubscribed, ["c"]);
}

#[test]
fn one_item_serves_up_to_128_sockets_and_a_burst_keeps_its_order() {
    let mut b = Bench::new();
    for n in 0..300 {
        b.here(&n.to_string());
        b.subscribe(&n.to_string(), "c");
    }
    b.publish_ws("c", "x");
    let items = b.items();
    let listed: Vec<usize> = items.iter().map(|item| item.split('+').count()).collect();
    assert_eq!(listed, [128, 128, 44]);
    let burst = (0..10)
        .map(|n| bench::item(&format!(r#"{{"channel":"c","ws-message":{{"content":"{n}"}}}}"#)))
        .collect();
    b.handler.publish(b.now, burst);
    b.settle();
    let items = b.items();
    assert_eq!(items.len(), 30);
    let of_first: Vec<&str> =
        items.iter().filter(|i| i.starts_with("0+")).map(|i| &i[i.len() - 1..]).collect();
    assert_eq!(of_first.concat(), "0123456789");
}

#[test]
fn a_proxy_that_never_said_multi_gets_an_item_for_each() {
    let mut b = Bench::new();
    for cid in ["1", "2"] {
        b.here_with(cid, |item| item.multi = false);
        b.subscribe(cid, "c");
    }
    b.publish_ws("c", "x");
    assert_eq!(b.packets_of_items(), [["1 send text:x", "2 send text:x"]]);
}

#[test]
fn a_published_close_is_the_last_that_a_socket_gets() {
    let mut b = Bench::new();
    for cid in ["1", "2"] {
        b.here(cid);
        b.subscribe(cid, "c");
    }
    let texts = [
        r#"{"channel":"c","ws-message":{"content":"a"}}"#,
        r#"{"channel":"c","ws-message":{"action":"close","code":4002,"reason":"enough"}}"#,
        r#"{"channel":"c","ws-message":{"content":"b"}}"#,
    ];
    b.handler.publish(b.now, texts.map(bench::item).into());
    b.settle();
    assert_eq!(b.items(), ["1+2 send text:a", "1 close 4002 enough", "2 close 4002 enough"]);
    b.subscribe("1", "c");
    b.publish_ws("c", "x");
    assert!(b.items().is_empty());
}

#[test]
fn leaving_and_unknown_sessions() {
    let mut b = Bench::new();
    b.here("1");
    b.subscribe("1", "c");
    b.grip("1", r#"{"type":"unsubscribe","channel":"c"}"#);
    b.publish_ws("c", "x");
    b.grip("1", r#"{"type":"detach"}"#);
    assert_eq!(b.items(), ["1 detach"]);
    b.control(&[
        Item { req_id: Some(b"7"), ..Item::new(b"9", Kind::Grip) },
        Item::new(b"9", Kind::Gone),
        Item::new(b"9", Kind::Cancel),
    ]);
    assert_eq!(b.items(), ["9 cancel", "9 ack #7"]);
}

#[test]
fn prefixes_and_implicit_channels() {
    let mut b = Bench::new();
    b.here_with("1", |item| item.channel_prefix = "p-");
    b.control(&[Item { channel: "room", ..Item::new(b"1", Kind::Subscribe) }]);
    b.subscribe("1", "c");
    // The backend cannot leave what the route subscribed.
    b.control(&[Item { channel: "p-i", ..Item::new(b"1", Kind::Subscribe) }]);
    b.grip("1", r#"{"type":"unsubscribe","channel":"i"}"#);
    b.publish_ws("c", "no");
    for channel in ["p-c", "room", "p-i"] {
        b.publish_ws(channel, channel);
    }
    assert_eq!(b.items(), ["1 send text:p-c", "1 send text:room", "1 send text:p-i"]);
}

#[test]
fn limits_of_subscriptions_and_filters() {
    let mut b = Bench::with(|settings| settings.subscriptions_max = 2);
    b.here("1");
    for channel in ["a", "b", "c"] {
        b.subscribe("1", channel);
    }
    ["a", "b", "c"].iter().for_each(|channel| b.publish_ws(channel, channel));
    assert_eq!(b.items(), ["1 send text:a", "1 send text:b"]);
    assert_eq!(b.handler.shards()[0].drops().too_many_subscriptions, 1);
    b.here("2");
    b.grip("2", r#"{"type":"subscribe","channel":"a","filters":["1","2","3","4","5","6"]}"#);
    assert_eq!(b.items(), ["2 close 1011"]);
    b.here_with("3", |item| item.debug = true);
    b.grip("3", r#"{"type":"subscribe","channel":"a","filters":["1","2","3","4","5","6"]}"#);
    assert_eq!(b.items(), ["3 close 1011 too many filters for channel 'a'"]);
}

#[test]
fn filters_look_at_meta_and_at_channels() {
    let mut b = Bench::new();
    for cid in ["ann", "bob"] {
        b.here(cid);
        b.grip(cid, &format!(r#"{{"type":"set-meta","name":"user","value":"{cid}"}}"#));
        let filters = r#"["skip-self","require-sub","var-subst"]"#;
        b.grip(cid, &format!(r#"{{"type":"subscribe","channel":"c","filters":{filters}}}"#));
    }
    b.subscribe("bob", "d");
    let item = |meta: &str, content: &str| {
        format!(r#"{{"channel":"c","meta":{meta},"ws-message":{{"content":"{content}"}}}}"#)
    };
    b.publish(&item(r#"{"sender":"ann"}"#, "to %(user)s"));
    assert_eq!(b.items(), ["bob send text:to bob"]);
    b.publish(&item(r#"{"require_sub":"d"}"#, "d"));
    assert_eq!(b.items(), ["bob send text:d"]);
    b.publish(&item("{}", "%(nobody)s"));
    assert!(b.items().is_empty());
    assert_eq!(b.handler.shards()[0].drops().filter_failed, 2);
    b.publish(r#"{"channel":"c","ws-message":{"content":"m","content-filters":[]}}"#);
    assert!(b.items().is_empty());
    b.publish(r#"{"channel":"c","ws-message":{"content":"m","content-filters":["var-subst"]}}"#);
    assert_eq!(b.items().len(), 2);
}

#[test]
fn keep_alives_are_kept_by_the_proxy_and_sent_on_demand() {
    let mut b = Bench::new();
    b.here("1");
    b.control(&[Item::new(b"1", Kind::NeedKeepAlive)]);
    assert!(b.items().is_empty());
    b.grip("1", r#"{"type":"keep-alive","content":"ka","message-type":"ping","timeout":9,"mode":"interval"}"#);
    assert_eq!(b.items(), ["1 keep-alive-setup 9s interval"]);
    b.control(&[Item::new(b"1", Kind::NeedKeepAlive)]);
    assert_eq!(b.items(), ["1 send ping:ka"]);
    b.grip("1", r#"{"type":"keep-alive"}"#);
    assert_eq!(b.items(), ["1 keep-alive-setup 0s"]);
    b.control(&[Item::new(b"1", Kind::NeedKeepAlive)]);
    assert!(b.items().is_empty());
}

#[test]
fn delayed_messages_are_sent_in_time_and_must_be_acknowledged() {
    let mut b = Bench::new();
    b.here("1");
    b.grip("1", r#"{"type":"send-delayed","content":"a","timeout":5}"#);
    b.run_to(4_900);
    assert!(b.items().is_empty());
    b.run_to(5_100);
    assert_eq!(b.items(), ["1 send #0 text:a queue"]);
    b.control(&[Item { req_id: Some(b"0"), ..Item::new(b"1", Kind::Ack) }]);
    // A second one sends the first at once.
    b.grip("1", r#"{"type":"send-delayed","content":"b","timeout":50}"#);
    b.grip("1", r#"{"type":"send-delayed","content":"c","timeout":50}"#);
    assert_eq!(b.items(), ["1 send #1 text:b queue"]);
    b.grip("1", r#"{"type":"flush-delayed"}"#);
    assert_eq!(b.items(), ["1 send #2 text:c queue"]);
    b.control(&[Item { req_id: Some(b"2"), ..Item::new(b"1", Kind::Ack) }]);
    b.run_to(14_000);
    assert_eq!(b.items(), ["1 cancel"]);
    assert_eq!(b.handler.sockets(), 0);
}

#[test]
fn a_session_lives_as_long_as_its_proxy_says() {
    let mut b = Bench::new();
    b.here("1");
    b.subscribe("1", "c");
    b.run_to(50_000);
    b.control(&[Item { ttl_s: Some(60), ..Item::new(b"1", Kind::KeepAlive) }]);
    b.run_to(109_000);
    assert_eq!(b.handler.sockets(), 1);
    b.run_to(116_000);
    assert_eq!(b.handler.sockets(), 0);
    assert_eq!(b.unsubscribed, ["c"]);
    assert!(b.items().is_empty());
}

#[test]
fn a_vanished_proxy_takes_its_sessions_along() {
    let mut b = Bench::new();
    for cid in ["1", "2"] {
        b.here(cid);
        b.subscribe(cid, "c");
    }
    b.handler.proxy_gone(b.now, b"proxy_1");
    b.settle();
    assert_eq!((b.handler.sockets(), b.unsubscribed.len()), (0, 1));
}

#[test]
fn stats_tell_of_sockets() {
    let mut b = Bench::new();
    b.handler.stats_subscription(b.now, b"\x01");
    b.here("1");
    b.subscribe("1", "c");
    b.publish_ws("c", "x");
    b.control(&[Item::new(b"1", Kind::Gone)]);
    let packets = b.stats();
    let shown: Vec<String> = packets
        .iter()
        .map(|packet| match stats::Packet::parse(packet).unwrap().body {
            stats::Body::Sub { mode, subscribers, .. } => format!("sub {mode:?} {subscribers}"),
            stats::Body::SubGone { mode, .. } => format!("gone {mode:?}"),
            stats::Body::Message { count, transport, .. } => {
                format!("{} {count}", transport.name())
            }
            body => format!("{body:?}"),
        })
        .collect();
    assert_eq!(shown, ["sub Ws 1", "ws-message 1", "gone Ws"]);
}

#[test]
fn refresh_commands_find_sockets_by_channel_and_by_id() {
    let mut b = Bench::new();
    b.here("1");
    b.subscribe("1", "c");
    b.command("refresh", &[("channel", "c")]);
    assert_eq!((b.items(), b.conditions()), (vec!["1 refresh".into()], vec!["success".into()]));
    b.command("refresh", &[("channel", "nobody")]);
    b.command("refresh", &[("cid", "1")]);
    assert_eq!(b.items(), ["1 refresh"]);
    assert_eq!(b.conditions(), ["success", "success"]);
    b.command("refresh", &[("cid", "2")]);
    assert!(b.conditions().is_empty());
    b.proxy_refuses("item-not-found");
    b.command("refresh", &[]);
    assert_eq!(b.conditions(), ["item-not-found", "bad-request"]);
    b.command("refresh", &[("cid", "2")]);
    b.run_to(b.now + 10_100);
    assert_eq!(b.conditions(), ["timeout"]);
}

#[test]
fn packets_that_cannot_be_read_are_counted() {
    let mut b = Bench::new();
    b.handler.control(b.now, 0, b"nonsense");
    let nameless = zrpc::control::write_packet(b"", b"");
    b.handler.control(b.now, 0, &nameless);
    assert_eq!(b.handler.shards()[0].drops().bad_packets, 2);
    b.here("1");
    b.grip("1", "{");
    b.subscribe("1", "c");
    b.publish_ws("c", "alive");
    assert_eq!(b.items(), ["1 send text:alive"]);
}
