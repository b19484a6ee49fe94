//! Timers of sessions: keep-alives of both kinds, and sessions of which nothing is heard.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use std::collections::HashSet;

use bench::{Bench, Got, hold};
use zhttp::Kind;

#[test]
fn session_keep_alives_are_grouped_and_spread() {
    let mut b = Bench::new();
    for n in 0..640 {
        b.accept(hold("stream").session(&n.to_string()));
    }
    b.packets();
    b.run_to(45_100);
    let got = b.packets();
    assert!(got.iter().all(|p| p.kind == Kind::KeepAlive));
    let listed: usize = got.iter().map(|p| p.ids.len()).sum();
    assert!((640..=645).contains(&listed), "{listed}");
    // One for each two seconds of the round.
    assert!(got.len() <= 24, "{}", got.len());
}

#[test]
fn session_keep_alives_of_many_connection_managers_do_not_leave_all_at_once() {
    let mut b = Bench::new();
    for n in 0..6_000 {
        let manager = format!("cm{}", n % 40);
        b.accept(hold("stream").manager(&manager).session(&n.to_string()));
    }
    b.packets();
    let (mut most, mut ids) = (0, 0);
    while let Some(at) = b.handler.next_deadline().filter(|at| *at <= 45_200) {
        b.run_to(at);
        let told: HashSet<&String> = b.messages.iter().map(|(to, _)| to).collect();
        assert_eq!(told.len(), b.messages.len(), "one packet for each");
        most = most.max(told.len());
        ids += b.packets().iter().map(|p| p.ids.len()).sum::<usize>();
    }
    assert!((6_000..=6_020).contains(&ids), "{ids}");
    assert!((1..=4).contains(&most), "{most} connection managers are woken at once");
}

#[test]
fn keep_alives_of_the_stream_come_in_their_period_and_items_put_them_off() {
    let mut b = Bench::new();
    let call = hold("stream").header("Grip-Keep-Alive", "ka;timeout=20");
    b.accept(call.session("1"));
    b.packets();
    b.run_to(18_900);
    assert!(b.packets().iter().all(|p| p.body.is_empty()));
    b.publish_stream("c", "x");
    b.packets();
    b.run_to(37_800);
    assert!(b.packets().iter().all(|p| p.body.is_empty()));
    b.run_to(39_100);
    let bodies: Vec<Got> = b.packets().into_iter().filter(|p| p.kind == Kind::Data).collect();
    assert_eq!(bodies.len(), 1);
    assert_eq!(bodies[0].body, "ka");
}

#[test]
fn grip_keep_alives_due_together_share_packets() {
    let mut b = Bench::new();
    for n in 0..2000 {
        let call = hold("stream").header("Grip-Keep-Alive", "ka;timeout=30;mode=interval");
        b.accept(call.session(&n.to_string()));
    }
    b.packets();
    b.run_to(30_100);
    let got: Vec<Got> = b.packets().into_iter().filter(|p| p.kind == Kind::Data).collect();
    assert_eq!(got.iter().map(|p| p.ids.len()).sum::<usize>(), 2000);
    assert!(got.len() <= 10 * 2 + 16, "{} packets", got.len());
}

#[test]
fn a_silent_session_expires_and_a_cancelled_one_goes() {
    let mut b = Bench::new();
    b.accept(hold("stream").session("1"));
    b.accept(hold("stream").session("2"));
    b.packet("2", 1, |f| {
        f.kind(Kind::Cancel);
    });
    assert_eq!(b.handler.sessions(), 1);
    b.run_to(60_100);
    assert_eq!(b.handler.sessions(), 0);
    assert!(b.unsubscribed.contains(&"c".to_owned()));
}

#[test]
fn timers_of_a_crowd_that_left_do_not_stay() {
    let mut b = Bench::new();
    let ids: Vec<String> = (0..300).map(|n| format!("s{n}")).collect();
    for id in &ids {
        b.accept(hold("stream").session(id));
    }
    let timers =
        |b: &Bench| b.handler.shards().iter().map(handler::shard::Shard::timers).sum::<usize>();
    assert!(timers(&b) >= ids.len());
    b.handler.peer_gone(b.now, b"cm");
    assert_eq!((b.handler.sessions(), timers(&b)), (0, 0));
}
