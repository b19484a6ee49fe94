//! Long polls that follow ids, beside a backend that keeps everything: whatever is published or lost
//! between two of its answers, every client gets every item once, in order.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use std::collections::BTreeMap;

use bench::{Bench, action_item, hold};
use proptest::prelude::*;
use zhttp::Kind;

#[derive(Clone, Debug)]
enum Step {
    /// The backend has one more item; it is published, or that is lost.
    Item {
        published: bool,
    },
    Hint,
    Recover,
    /// Clients that have their answer ask again.
    Ask(usize),
    /// What the backend said last about held requests reaches the handler.
    Hold,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Item { published: true }),
        1 => Just(Step::Item { published: false }),
        1 => Just(Step::Hint),
        1 => Just(Step::Recover),
        6 => (0..CLIENTS).prop_map(Step::Ask),
        6 => Just(Step::Hold),
        3 => prop_oneof![1u64..200, 200u64..7_000].prop_map(Step::Wait),
    ]
}

const CLIENTS: usize = 3;

struct World {
    b: Bench,
    /// Items so far, numbered from 1.
    items: u32,
    /// What each client got.
    got: [String; CLIENTS],
    /// After which item each goes on.
    after: [u32; CLIENTS],
    /// Whose request the backend wants to be held, after which item.
    said: Vec<(usize, u32)>,
    /// Who asked under which session id; nobody asks twice.
    asks: BTreeMap<String, usize>,
    sessions: u32,
}

impl World {
    fn new() -> Self {
        Self {
            b: Bench::new(),
            items: 0,
            got: Default::default(),
            after: [0; CLIENTS],
            said: Vec::new(),
            asks: BTreeMap::new(),
            sessions: 0,
        }
    }

    fn is_asking(&self, client: usize) -> bool {
        self.asks.values().any(|asks| *asks == client)
            || self.said.iter().any(|(asks, _)| *asks == client)
    }

    /// The backend is asked for what comes after an item.
    fn ask(&mut self, client: usize, after: u32) {
        if after == self.items {
            return self.said.push((client, after));
        }
        let new: String = (after + 1..=self.items).map(|n| format!("{n};")).collect();
        self.got[client].push_str(&new);
        self.after[client] = self.items;
    }

    fn hold(&mut self) {
        for (client, after) in std::mem::take(&mut self.said) {
            self.sessions += 1;
            let id = self.sessions.to_string();
            self.asks.insert(id.clone(), client);
            self.b.accept(hold("response").session(&id).channel(&format!("c; prev-id={after}")));
        }
    }

    fn look(&mut self) {
        for packet in self.b.packets() {
            for (id, _) in &packet.ids {
                if packet.kind == Kind::HandoffStart {
                    self.b.packet(id, 1, |f| {
                        f.kind(Kind::HandoffProceed);
                    });
                } else if packet.kind == Kind::Data {
                    let client = self.asks.remove(id).unwrap();
                    self.got[client].push_str(&packet.body);
                    self.after[client] = packet.body.trim_end_matches(';').parse().unwrap();
                }
            }
        }
        for retry in self.b.retries() {
            let packet = zrpc::retry::Packet::parse(&retry).unwrap();
            let last_ids = packet.inspect.unwrap().last_ids;
            let after = std::str::from_utf8(last_ids[0].1).unwrap().parse().unwrap();
            for session in packet.requests {
                let id = std::str::from_utf8(session.rid.id).unwrap();
                let client = self.asks.remove(id).unwrap();
                self.ask(client, after);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Item { published } => {
                let prev = self.items;
                self.items += 1;
                let n = self.items;
                let body = format!(r#""http-response":{{"body":"{n};"}}"#);
                if *published {
                    let ids = format!(r#""id":"{n}","prev-id":"{prev}""#);
                    self.b.publish(&format!(r#"{{"channel":"c",{ids},{body}}}"#));
                }
            }
            Step::Hint => {
                let hint = action_item("c", "http-response", "hint");
                self.b.handler.publish(self.b.now, vec![hint]);
                self.b.settle();
            }
            Step::Recover => {
                self.b.handler.recover(self.b.now);
                self.b.settle();
            }
            Step::Ask(client) if !self.is_asking(*client) => self.ask(*client, self.after[*client]),
            Step::Ask(_) => {}
            Step::Hold => self.hold(),
            Step::Wait(ms) => self.b.run_to(self.b.now + ms),
        }
        self.look();
    }

    /// Everybody asks until nothing comes any more.
    fn end(&mut self) {
        for _ in 0..20 {
            (0..CLIENTS).for_each(|client| self.step(&Step::Ask(client)));
            self.step(&Step::Hold);
            self.step(&Step::Wait(1_000));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_client_gets_every_item_once(steps in prop::collection::vec(step(), 0..60)) {
        let mut w = World::new();
        steps.iter().for_each(|step| w.step(step));
        // What was lost on its way is noticed with the next item, when nothing waits before it.
        w.end();
        w.step(&Step::Item { published: true });
        w.end();
        let expected: String = (1..=w.items).map(|n| format!("{n};")).collect();
        for got in &w.got {
            prop_assert_eq!(got, &expected);
        }
    }
}
