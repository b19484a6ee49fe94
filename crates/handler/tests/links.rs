//! What is published around the requests that holds make: nothing of it may be lost for anybody
//! (spec/grip.md §7.4, §8.2, §8.3).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use bench::{Bench, hold, sequenced};

#[test]
fn all_clients_of_a_call_that_is_behind_go_back() {
    for others in [false, true] {
        let mut b = Bench::new();
        let anyone = if others { "stream" } else { "response" };
        b.accept(hold(anyone).session("s"));
        b.publish(&sequenced("c", "b", ""));
        if !others {
            b.publish_response("c", "the only one leaves, the channel lingers");
        }
        b.accept(hold("response").session("1").also("2").also("3").channel("c; prev-id=a"));
        assert_eq!(b.retries().len(), 3, "others: {others}");
        assert_eq!(b.handler.sessions(), usize::from(others));
        // The id is forgotten then.
        b.accept(hold("response").session("4").channel("c; prev-id=a"));
        assert!(b.retries().is_empty(), "others: {others}");
    }
}
