//! Streams that follow ids, beside a backend that keeps everything: whatever is published, lost on
//! its way, fetched, refused or not taken in time, every client gets every item once, in order.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use std::collections::BTreeMap;

use bench::{Bench, action_item, hold};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// The backend has one more item; it is published, or that is lost.
    Item {
        published: bool,
    },
    /// More of them than may wait for a client.
    Many,
    Hint,
    Recover,
    /// A client takes more.
    Take(usize, u32),
    /// The backend has made its answer to the oldest request, and sends it with the next step.
    Make,
    /// It answers, at once or in two parts.
    Answer {
        parts: bool,
    },
    Refuse,
    Wait(u64),
    Join,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Item { published: true }),
        1 => Just(Step::Item { published: false }),
        1 => Just(Step::Many),
        1 => Just(Step::Hint),
        1 => Just(Step::Recover),
        3 => (0usize..4, prop_oneof![1u32..30, Just(100_000)]).prop_map(|(n, c)| Step::Take(n, c)),
        2 => Just(Step::Make),
        4 => any::<bool>().prop_map(|parts| Step::Answer { parts }),
        1 => Just(Step::Refuse),
        3 => prop_oneof![1u64..200, 200u64..7_000].prop_map(Step::Wait),
        1 => Just(Step::Join),
    ]
}

/// A request of the handler that is not answered yet.
struct Asked {
    id: String,
    after: u32,
    /// What the backend had when it made its answer.
    made: Option<u32>,
}

struct World {
    b: Bench,
    /// Items so far, numbered from 1.
    items: u32,
    asked: Vec<Asked>,
    refused: u32,
    /// By session: next number of its packets, the item it began after, what it got.
    clients: BTreeMap<String, (u32, u32, String)>,
}

const LINK: &str = "</next>; rel=next; timeout=100";

impl World {
    fn new() -> Self {
        let b = Bench::new();
        let mut w = Self { b, items: 0, asked: Vec::new(), refused: 0, clients: BTreeMap::new() };
        w.join();
        w
    }

    fn join(&mut self) {
        let name = self.clients.len().to_string();
        let channel = format!("c; prev-id={}", self.items);
        let call = hold("stream").session(&name).channel(&channel).credits(20);
        self.b.accept(call.header("Grip-Link", LINK));
        self.clients.insert(name, (1, self.items, String::new()));
    }

    fn take(&mut self, name: &str, credits: u32) {
        let Some((seq, ..)) = self.clients.get_mut(name) else { return };
        *seq += 1;
        let seq = *seq - 1;
        self.b.credit(name, seq, credits);
    }

    fn look(&mut self) {
        for packet in self.b.packets() {
            assert!(packet.more || packet.kind != zhttp::Kind::Data, "nothing ends: {packet:?}");
            for (id, _) in &packet.ids {
                self.clients.get_mut(id).unwrap().2.push_str(&packet.body);
            }
        }
        for (id, request) in self.b.requests() {
            let after = request.rsplit_once("last-id=").unwrap().1.parse().unwrap();
            self.asked.push(Asked { id, after, made: None });
        }
    }

    fn answer(&mut self, parts: bool) {
        if self.asked.is_empty() {
            return;
        }
        let Asked { id, after, made } = self.asked.remove(0);
        let last = made.unwrap_or(self.items);
        let body: String = (after + 1..=last).map(|n| format!("{n};")).collect();
        let channel = format!("c; prev-id={last}");
        let held = [("Grip-Hold", "stream"), ("Grip-Channel", &*channel), ("Grip-Link", LINK)];
        if parts {
            let (first, rest) = body.split_at(body.len() / 2);
            self.b.respond(&id, 0, 200, &held, first, true);
            self.look();
            self.b.respond_more(&id, 1, rest, false);
        } else {
            self.b.respond(&id, 0, 200, &held, &body, false);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Item { published } => {
                let prev = self.items;
                self.items += 1;
                let n = self.items;
                if *published {
                    self.b.publish(&format!(
                        r#"{{"channel":"c","id":"{n}","prev-id":"{prev}","http-stream":{{"content":"{n};"}}}}"#
                    ));
                }
            }
            Step::Many => {
                (0..120).for_each(|_| self.step(&Step::Item { published: true }));
            }
            Step::Hint => {
                let hint = action_item("c", "http-stream", "hint");
                self.b.handler.publish(self.b.now, vec![hint]);
                self.b.settle();
            }
            Step::Recover => {
                self.b.handler.recover(self.b.now);
                self.b.settle();
            }
            Step::Take(n, credits) => self.take(&n.to_string(), *credits),
            Step::Make => {
                if let Some(asked) = self.asked.first_mut() {
                    asked.made = Some(self.items);
                }
            }
            Step::Answer { parts } => self.answer(*parts),
            Step::Refuse if self.refused < 4 && !self.asked.is_empty() => {
                self.refused += 1;
                let asked = self.asked.remove(0);
                self.b.respond(&asked.id, 0, 500, &[], "", false);
            }
            Step::Wait(ms) => {
                let names: Vec<String> = self.clients.keys().cloned().collect();
                names.iter().for_each(|name| self.take(name, 1));
                self.b.run_to(self.b.now + ms);
            }
            Step::Join if self.clients.len() < 4 => self.join(),
            Step::Refuse | Step::Join => {}
        }
        self.look();
    }

    /// Everybody takes everything, and the backend answers.
    fn end(&mut self) {
        for _ in 0..40 {
            self.step(&Step::Wait(1_000));
            for n in 0..4 {
                self.step(&Step::Take(n, 100_000));
            }
            while !self.asked.is_empty() {
                self.step(&Step::Answer { parts: false });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_client_gets_every_item_once(steps in prop::collection::vec(step(), 0..60)) {
        let mut w = World::new();
        steps.iter().for_each(|step| w.step(step));
        // What was lost on its way is noticed with the next item, when nothing waits before it.
        w.end();
        w.step(&Step::Item { published: true });
        w.end();
        for (name, (_, first, got)) in &w.clients {
            let expected: String = (first + 1..=w.items).map(|n| format!("{n};")).collect();
            prop_assert_eq!(got, &expected, "client {}", name);
        }
    }
}
