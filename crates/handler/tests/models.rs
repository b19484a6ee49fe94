//! The engine beside plain models: the order of items, and who is on which channel.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bench;

use std::collections::{BTreeMap, BTreeSet};

use bench::{Bench, hold};
use proptest::prelude::*;
use zhttp::Kind;
use zrpc::control::{Item, Kind as ControlKind, Packet};

/// The ids that a stream got, in order.
fn ids(b: &mut Bench) -> Vec<u32> {
    let bodies: String = b.packets().iter().map(|packet| packet.body.as_str()).collect();
    bodies.split_terminator(';').map(|id| id.parse().unwrap()).collect()
}

fn chained(n: u32) -> String {
    let prev = n.wrapping_sub(1);
    format!(r#"{{"channel":"c","id":"{n}","prev-id":"{prev}","http-stream":{{"content":"{n};"}}}}"#)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever order a chain of items comes in, with repetitions, it leaves in its own order
    /// and once; what is missing holds up what follows it until its time is over, and no longer.
    #[test]
    fn the_sequencer_puts_a_chain_in_order(
        order in Just((2u32..40).collect::<Vec<_>>()).prop_shuffle(),
        again in prop::collection::vec(2u32..40, 0..10),
        missing in prop::option::of(2u32..40),
    ) {
        let mut b = Bench::new();
        b.accept(hold("stream").session("1"));
        b.publish(&chained(1));
        let wanted = order.iter().chain(&again).filter(|n| Some(**n) != missing);
        for n in wanted {
            b.publish(&chained(*n));
        }
        let end = missing.unwrap_or(40);
        prop_assert_eq!(ids(&mut b), (1..end).collect::<Vec<_>>());
        b.hear("1", 1);
        b.run_to(7_000);
        // By then they go as they came, each with what waited for it (spec/publish.md §6).
        let mut late = ids(&mut b);
        late.sort_unstable();
        prop_assert_eq!(late, (end + 1..40).collect::<Vec<_>>());
        let drops = b.handler.hub().drops();
        prop_assert_eq!(drops.unsequenced, 0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Stream(u8, Vec<u8>),
    Leave(u8),
    Publish(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let channels = prop::collection::vec(0u8..6, 1..4);
    prop_oneof![
        3 => (any::<u8>(), channels).prop_map(|(session, list)| Step::Stream(session % 20, list)),
        2 => any::<u8>().prop_map(|session| Step::Leave(session % 20)),
        3 => (0u8..6).prop_map(Step::Publish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Who gets an item is who a plain map of channels says, on any number of shards; and no
    /// channel outlives its sessions.
    #[test]
    fn channels_are_as_a_plain_map_has_them(
        workers in prop_oneof![Just(1usize), Just(4)],
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut b = Bench::with(|settings| {
            settings.workers = workers;
            settings.linger_ms = 0;
        });
        let mut model: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Stream(session, channels) => {
                    let list: Vec<String> = channels.iter().map(|c| format!("k{c}")).collect();
                    let call = hold("stream").session(&session.to_string());
                    // The same client comes back to the shard that has it.
                    b.accept_at(usize::from(session) % workers, call.channel(&list.join(", ")));
                    model.insert(session, channels.into_iter().collect());
                    b.packets();
                }
                Step::Leave(session) => {
                    model.remove(&session);
                    b.packet(&session.to_string(), 1, |f| {
                        f.kind(Kind::Cancel);
                    });
                }
                Step::Publish(channel) => {
                    b.publish_stream(&format!("k{channel}"), "x");
                    let got: Vec<String> =
                        b.packets().into_iter().flat_map(|p| p.ids).map(|(id, _)| id).collect();
                    let on = model.iter().filter(|(_, channels)| channels.contains(&channel));
                    let expected: BTreeSet<String> = on.map(|(s, _)| s.to_string()).collect();
                    prop_assert_eq!(got.len(), expected.len(), "nobody twice");
                    prop_assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), expected);
                }
            }
        }
        let used: BTreeSet<u8> = model.values().flatten().copied().collect();
        let line = format!("handler_channels {}", used.len());
        let text = b.handler.hub().metrics("");
        prop_assert!(text.lines().any(|l| l == line), "{} is not in {}", line, text);
        let sum: usize = model.values().map(BTreeSet::len).sum();
        let line = format!("handler_subscriptions{{kind=\"stream\"}} {sum}");
        prop_assert!(text.lines().any(|l| l == line), "{} is not in {}", line, text);
    }
}

const SOCKETS: u64 = 2_000;
const CHANNELS: u64 = 10;

/// Numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }
}

/// One subscription of a WebSocket: the first item that it is to get, and where it ended.
#[derive(Debug)]
struct Period {
    first: u64,
    end: Option<u64>,
    got: Vec<u64>,
}

/// WebSockets that change channels while items are on their way.
struct Sockets {
    b: Bench,
    dice: Dice,
    published: Vec<u64>,
    /// By socket and channel.
    periods: BTreeMap<(u64, u64), Vec<Period>>,
}

impl Sockets {
    fn new(seed: u64, workers: usize) -> Self {
        let mut b = Bench::with(|settings| settings.workers = workers);
        for n in 0..SOCKETS {
            let cid = n.to_string();
            let here = Item { ttl_s: Some(600), multi: true, ..named(&cid, ControlKind::Here) };
            b.control_at(n as usize % workers, &[here]);
        }
        let published = vec![0; CHANNELS as usize];
        Self { b, dice: Dice(seed), published, periods: BTreeMap::new() }
    }

    fn say(&mut self, socket: u64, message: &str) {
        let shard = socket as usize % self.b.handler.shards().len();
        let cid = socket.to_string();
        let grip = Item { message: message.as_bytes(), ..named(&cid, ControlKind::Grip) };
        self.b.tell_control(shard, &[grip]);
    }

    /// A socket joins a channel, or leaves one that it is on.
    fn change(&mut self) {
        let (socket, channel) = (self.dice.below(SOCKETS), self.dice.below(CHANNELS));
        let next = self.published[channel as usize];
        let periods = self.periods.entry((socket, channel)).or_default();
        let kind = match periods.last_mut().filter(|period| period.end.is_none()) {
            Some(period) => {
                period.end = Some(next);
                "unsubscribe"
            }
            None => {
                periods.push(Period { first: next, end: None, got: Vec::new() });
                "subscribe"
            }
        };
        self.say(socket, &format!(r#"{{"type":"{kind}","channel":"k{channel}"}}"#));
    }

    fn publish(&mut self) {
        let channel = self.dice.below(CHANNELS) as usize;
        let number = self.published[channel];
        self.published[channel] += 1;
        let json = format!(
            r#"{{"channel":"k{channel}","ws-message":{{"content":"{channel}:{number}"}}}}"#
        );
        self.b.handler.publish(self.b.now, vec![bench::item(&json)]);
    }

    /// Puts what came into the period that it belongs to.
    fn read(&mut self) {
        self.b.settle();
        for packet in self.b.control_packets() {
            for item in Packet::parse(&packet).unwrap().items {
                if item.kind != ControlKind::Send {
                    continue;
                }
                let text = std::str::from_utf8(item.message).unwrap();
                let (channel, number) = text.split_once(':').unwrap();
                let (channel, number) = (channel.parse().unwrap(), number.parse().unwrap());
                let one = [item.cid];
                let cids = if item.cids.is_empty() { &one[..] } else { &item.cids };
                for cid in cids {
                    let socket: u64 = std::str::from_utf8(cid).unwrap().parse().unwrap();
                    self.note(socket, channel, number);
                }
            }
        }
    }

    fn note(&mut self, socket: u64, channel: u64, number: u64) {
        let periods = self.periods.get_mut(&(socket, channel)).unwrap();
        let period = periods
            .iter_mut()
            .find(|period| period.first <= number && period.end.is_none_or(|end| number < end));
        let period = period.unwrap_or_else(|| panic!("{socket} is not on {channel}"));
        let expected = period.got.last().map_or(period.first, |last| last + 1);
        assert_eq!(number, expected, "socket {socket}, channel {channel}");
        period.got.push(number);
    }

    /// Who stayed has everything; nobody is left behind when all go.
    fn check(mut self) {
        self.read();
        let mut gotten = 0;
        for ((_, channel), periods) in &self.periods {
            for period in periods {
                gotten += period.got.len() as u64;
                if period.end.is_none() {
                    let all = self.published[*channel as usize] - period.first;
                    assert_eq!(period.got.len() as u64, all, "{period:?}");
                }
            }
        }
        assert!(gotten > 50_000, "{gotten} deliveries are no load");
        for socket in 0..SOCKETS {
            let shard = socket as usize % self.b.handler.shards().len();
            let cid = socket.to_string();
            self.b.control_at(shard, &[named(&cid, ControlKind::Gone)]);
        }
        assert_eq!(self.b.handler.sockets(), 0);
        let text = self.b.handler.hub().metrics("");
        for line in ["handler_channels 0", "handler_queued{what=\"items\"} 0"] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
    }
}

fn named(cid: &str, kind: ControlKind) -> Item<'_> {
    Item::new(cid.as_bytes(), kind)
}

#[test]
fn sockets_that_change_channels_under_load_miss_nothing() {
    for (seed, workers) in [(11, 1), (12, 4)] {
        let mut sockets = Sockets::new(seed, workers);
        for _ in 0..12_000 {
            match sockets.dice.below(20) {
                0..=15 => sockets.change(),
                16 => sockets.read(),
                // A slice of work, so that changes fall between an item and its receivers.
                17 => drop(sockets.b.handler.work(sockets.b.now)),
                _ => sockets.publish(),
            }
        }
        sockets.check();
    }
}
