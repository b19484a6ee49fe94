//! How holds begin: what their backend said about channels and headers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use std::sync::Arc;

use bench::{Bench, hold, sequenced};
use handler::Settings;
use handler::message::{Output, ToHub, ToShard};
use handler::shard::Shard;

#[test]
fn of_a_channel_that_is_named_twice_the_later_one_counts() {
    let mut b = Bench::new();
    // Without an id nothing is compared, and without a filter nothing is left out.
    let channel = "c; prev-id=x; filter=skip-self, c";
    let call = hold("stream").session("1").channel(channel).header("Grip-Set-Meta", "user=ann");
    b.accept(call.header("Grip-Link", "</next>; rel=next; timeout=100"));
    b.packets();
    b.publish(r#"{"channel":"c","id":"2","meta":{"sender":"ann"},"http-stream":{"content":"y"}}"#);
    let got = b.packets();
    assert_eq!((got.len(), got[0].body.as_str()), (1, "y"));
    b.run_to(1_000);
    assert!(b.requests().is_empty());
    let call = hold("response").session("2").channel("d; prev-id=1, d; prev-id=2");
    b.accept(call);
    b.publish(&sequenced("d", "3", "2").replace("stream\":{\"content", "response\":{\"body"));
    assert_eq!(b.packets().last().unwrap().body, "3");
}

#[test]
fn a_hold_that_goes_back_before_it_began_has_no_end_to_tell() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("s"));
    b.publish(&sequenced("c", "b", ""));
    let call = hold("response").session("1").channel("c; prev-id=a");
    b.accept(call.header("Grip-Link", "</gone>; rel=gone"));
    assert_eq!(b.retries().len(), 1);
    assert!(b.requests().is_empty());
}

#[test]
fn scripts_of_other_sites_may_read_the_headers_of_items_too() {
    let exposed = |got: &bench::Got| {
        let is = |(name, _): &&(String, String)| name == "Access-Control-Expose-Headers";
        let values: Vec<_> = got.headers.iter().filter(is).map(|(_, v)| v.clone()).collect();
        assert!(values.len() < 2, "{values:?}");
        values.concat()
    };
    // The second one is not served together with others.
    for channel in ["c", "c; filter=skip-self"] {
        let mut b = Bench::new();
        let call = |session: &str| hold("response").session(session).channel(channel).cors();
        b.accept(call("1").header("X-Own", "1").header("X-Both", "1"));
        b.accept(call("2").header("Access-Control-Expose-Headers", "X-Said"));
        b.accept(hold("response").session("3").channel(channel));
        b.packets();
        let headers = r#"{"X-Both": "2", "X-Item": "3", "Content-Type": "a/b"}"#;
        b.publish(&format!(
            r#"{{"channel":"c","http-response":{{"headers":{headers},"body":""}}}}"#
        ));
        let got = b.packets();
        let of = |id: &str| got.iter().find(|p| p.ids[0].0 == id).map(exposed).unwrap();
        assert_eq!([of("1"), of("2"), of("3")], ["X-Own, X-Both, X-Item", "X-Said", ""]);
        let methods = "Access-Control-Allow-Methods";
        let open = |p: &bench::Got| p.headers.iter().any(|(name, _)| name == methods);
        assert_eq!(got.iter().filter(|p| open(p)).count(), 2);
    }
}

/// The hub is in another thread: between its answers for two channels an item of the first comes.
#[test]
fn a_hint_for_a_hold_that_is_not_confirmed_yet_is_kept() {
    let mut shard = Shard::new(Arc::new(Settings::default()), 0);
    let call = hold("response").session("1").channel("c, d");
    shard.call(0, vec![b"peer".to_vec()], &call.encode());
    let (mut messages, mut outputs) = (Vec::new(), Vec::new());
    shard.take_to_hub(&mut messages);
    let subscribe = |message| match message {
        ToHub::Subscribe { channel, .. } => Some(channel),
        _ => None,
    };
    let channels: Vec<_> = messages.into_iter().filter_map(subscribe).collect();
    let subscribed =
        |hub| ToShard::Subscribed { channel: channels[hub as usize], hub, last_id: None };
    let hint = Arc::new(bench::action_item("c", "http-response", "hint"));
    shard.from_hub(0, subscribed(0));
    shard.from_hub(0, ToShard::Publish { channel: channels[0], item: hint, at: 0 });
    while shard.work(0) {}
    shard.from_hub(0, subscribed(1));
    while let Some(now) = shard.next_deadline().filter(|now| *now < 1_000) {
        shard.timeout(now);
    }
    shard.take_output(&mut outputs);
    let kinds = outputs.iter().filter_map(|output| match output {
        Output::ToClient { message, .. } => {
            Some(zhttp::split(message).map(|packet| zhttp::Packet::parse(packet).unwrap().kind))
        }
        _ => None,
    });
    assert!(kinds.flatten().any(|kind| kind == zhttp::Kind::HandoffStart));
}

#[test]
fn a_channel_beyond_the_most_that_one_may_have_does_not_count_as_subscribed() {
    let mut b = Bench::with(|settings| settings.subscriptions_max = 2);
    let mut got = |session: &str, channels: &str| {
        b.accept(hold("stream").session(session).channel(channels));
        b.packets();
        b.publish(r#"{"channel":"c","meta":{"require_sub":"x"},"http-stream":{"content":"y"}}"#);
        let ids: Vec<_> = b.packets().into_iter().flat_map(|p| p.ids).collect();
        ids.iter().any(|(id, _)| id == session)
    };
    assert!(got("1", "c; filter=require-sub, x"));
    assert!(!got("2", "c; filter=require-sub, b, x"));
}
