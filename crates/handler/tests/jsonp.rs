//! Holds whose clients wait for a call of JSON-P (spec/proxy.md §9.3).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use bench::{Bench, action_item, hold, stream_item};
use zhttp::Kind;

/// Everything that the client got so far.
fn body(b: &mut Bench) -> String {
    b.packets().into_iter().filter(|p| p.kind == Kind::Data).map(|p| p.body).collect()
}

#[test]
fn a_stream_is_one_call_whose_body_grows() {
    let mut b = Bench::new();
    let call = hold("stream").header("X-A", "1").header("Content-Type", "text/plain");
    let call = call.header("Grip-Keep-Alive", "k\\n; format=cstring; timeout=20");
    b.accept(call.session("1").body("one\n").jsonp("cb", true));
    let got = b.packets();
    assert_eq!((got[0].code, got[0].more), (Some(200), true));
    assert_eq!(got[0].headers, [("Content-Type".to_owned(), "application/javascript".to_owned())]);
    let start = "/**/cb({\"code\": 200, \"reason\": \"OK\", \"headers\": \
        {\"Content-Type\":\"text/plain\",\"X-A\":\"1\"}, \"body\": \"";
    assert_eq!(got[0].body, format!("{start}one\\n"));
    b.publish_stream("c", r#"say \"hi\"\n"#);
    assert_eq!(body(&mut b), r#"say \"hi\"\n"#);
    b.run_to(21_000);
    assert_eq!(body(&mut b), r"k\n");
    b.handler.publish(b.now, vec![action_item("c", "http-stream", "close")]);
    b.settle();
    let end = b.packets();
    assert_eq!((end[0].body.as_str(), end[0].more), ("\"});\n", false));
    assert_eq!(b.handler.sessions(), 0);
}

#[test]
fn a_stream_in_basic_mode_is_the_argument_itself() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1").body("[1,\n").jsonp("f", false));
    b.publish_stream("c", r"2]\n");
    let items = vec![action_item("c", "http-stream", "close")];
    b.handler.publish(b.now, items);
    b.settle();
    assert_eq!(body(&mut b), "/**/f([1,\n2]);\n");
}

#[test]
fn a_call_that_the_proxy_began_is_only_gone_on_with() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1").jsonp("f", true).sent());
    assert_eq!(body(&mut b), "");
    b.publish_stream("c", "\u{2028}");
    let items = vec![stream_item("c", "x"), action_item("c", "http-stream", "close")];
    b.handler.publish(b.now, items);
    b.settle();
    assert_eq!(body(&mut b), "\\u2028x\"});\n");
}

#[test]
fn only_its_own_client_gets_the_call() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1").jsonp("f", false));
    b.accept(hold("stream").session("2"));
    b.packets();
    b.publish_stream("c", r"x\n");
    let got: Vec<_> = b.packets().into_iter().map(|p| (p.ids[0].0.clone(), p.body)).collect();
    assert_eq!(got.len(), 2);
    assert!(got.contains(&("1".into(), "x".into())) && got.contains(&("2".into(), "x\n".into())));
}

#[test]
fn a_stop_closes_the_call() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1").jsonp("f", false));
    b.handler.begin_stop();
    b.handler.end_part(b.now, 1);
    b.settle();
    assert_eq!(body(&mut b), "/**/f();\n");
}
