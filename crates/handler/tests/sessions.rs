//! GRIP sessions: what goes to the service that keeps them, and what comes of its answers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use bench::{Bench, hold};
use tnetstring::Writer;

fn with_sessions() -> Bench {
    Bench::with(|settings| settings.sessions = true)
}

fn one_rule(w: &mut Writer) {
    w.list(|w| {
        w.map(|w| {
            for (key, value) in [("domain", "h"), ("path-prefix", "/p"), ("sid-ptr", "/sid")] {
                w.str(key);
                w.str(value);
            }
        });
    });
}

fn methods(calls: &[(u64, String)]) -> Vec<&str> {
    calls.iter().map(|(_, text)| text.as_str()).collect()
}

#[test]
fn a_response_names_its_session_and_how_to_find_it() {
    let mut b = with_sessions();
    let call = hold("response").session("1").header("Grip-Session-Id", "s1");
    let call = call.header("Grip-Session-Detect", "path-prefix=/p; sid-ptr=/sid");
    b.accept(call.header("Grip-Last", "c; last-id=5").use_session());
    assert_eq!(b.replies(), ["accepted"]);
    assert_eq!(
        methods(&b.state_calls()),
        [
            "session-detect-rules-set {rules=[{domain=api.example path-prefix=/p sid-ptr=/sid}]}",
            "session-create-or-update {sid=s1 last-ids={c=5}}",
        ]
    );
    // Without the route's option, and without a service, nothing is kept.
    b.accept(hold("response").session("2").header("Grip-Session-Id", "s2"));
    assert!(b.state_calls().is_empty());
    let mut b = Bench::new();
    b.accept(hold("response").session("1").header("Grip-Session-Id", "s1").use_session());
    assert!(b.state_calls().is_empty());
}

#[test]
fn a_request_gets_the_session_that_its_body_shows() {
    let mut b = with_sessions();
    b.inspect("http://H:80/p/q?r", r#"{"sid":"s1"}"#);
    let calls = b.state_calls();
    assert_eq!(methods(&calls), ["session-detect-rules-get {domain=h path=/p/q}"]);
    assert!(b.inspected().is_empty());
    b.state_knows(calls[0].0, one_rule);
    let calls = b.state_calls();
    assert_eq!(methods(&calls), ["session-get-last-ids {sid=s1}"]);
    b.state_knows(calls[0].0, |w| {
        w.map(|w| {
            w.str("c");
            w.str("7");
        });
    });
    assert_eq!(b.inspected(), ["s1 c=7"]);
}

#[test]
fn a_request_goes_on_without_a_session_whatever_fails() {
    let mut b = with_sessions();
    // No rule, another body, an unknown session.
    b.inspect("http://h/p", "{}");
    let call = b.state_calls()[0].0;
    b.state_knows(call, |w| w.list(|_| {}));
    b.inspect("http://h/p", "{}");
    let call = b.state_calls()[0].0;
    b.state_knows(call, one_rule);
    b.inspect("http://h/p", r#"{"sid":"s1"}"#);
    let call = b.state_calls()[0].0;
    b.state_knows(call, one_rule);
    let call = b.state_calls()[0].0;
    b.state_refuses(call);
    assert_eq!(b.inspected(), ["", "", ""]);
    // Nobody there, and no answer in time.
    b.inspect("http://h/p", "{}");
    let call = b.state_calls()[0].0;
    b.handler.state_failed(b.now, call);
    b.settle();
    assert_eq!(b.inspected(), [""]);
    b.inspect("http://h/p", "{}");
    b.run_to(b.now + 999);
    assert!(b.inspected().is_empty());
    b.run_to(b.now + 1);
    assert_eq!(b.inspected(), [""]);
    let late = b.state_calls()[0].0;
    b.state_knows(late, one_rule);
    assert!(b.inspected().is_empty() && b.state_calls().is_empty());
}

#[test]
fn sessions_have_seen_what_their_connections_receive() {
    let mut b = with_sessions();
    for (session, sid) in [("1", "s1"), ("2", "s2"), ("3", "s2")] {
        let call = hold("stream").session(session).prefix("p-").header("Grip-Session-Id", sid);
        b.accept(call.use_session());
    }
    b.accept(hold("stream").session("4").channel("p-c"));
    b.here_with("w", |item| item.channel_prefix = "p-");
    b.subscribe("w", "c");
    b.grip("w", r#"{"type":"session","id":"s3"}"#);
    b.state_calls();
    b.publish(&bench::sequenced("p-c", "1", ""));
    assert_eq!(
        methods(&b.state_calls()),
        ["session-update-many {sid-last-ids={s1={c=1} s2={c=1}}}"]
    );
    b.publish(r#"{"channel":"p-c","id":"2","ws-message":{"content":"x"}}"#);
    assert_eq!(methods(&b.state_calls()), ["session-update-many {sid-last-ids={s3={c=2}}}"]);
    // Without an id there is nothing to keep, nor for others, nor after they left.
    b.publish_stream("p-c", "x");
    b.publish(&bench::sequenced("other", "1", ""));
    b.grip("w", r#"{"type":"session"}"#);
    for session in ["1", "2", "3"] {
        b.packet(session, 1, |f| {
            f.kind(zhttp::Kind::Cancel);
        });
    }
    b.publish(&bench::sequenced("p-c", "3", ""));
    b.publish(r#"{"channel":"p-c","id":"4","ws-message":{"content":"x"}}"#);
    assert!(b.state_calls().is_empty());
}
