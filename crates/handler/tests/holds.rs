//! How holds begin: what their backend said about channels and headers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use bench::{Bench, hold, sequenced};

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
