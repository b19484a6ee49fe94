//! Crowds from a seed: clients join, leave and change channels while items are published, some of
//! them late or repeated, and messages between the processes are lost, late and repeated. A client
//! gets no item twice, none out of turn, and none is missing unless its connection was ended.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;

use grip::{Item, Value};
use handler::shard::Drops;
use handler::{Handler, Settings};
use sim::{Dice, World, backend};

const CHANNELS: u64 = 12;

/// One client and what it got.
struct Client {
    conn: u32,
    poll: bool,
    /// The channels of its requests, in order.
    channel: String,
    text: String,
    /// The last number seen in each channel.
    seen: BTreeMap<String, u64>,
    /// Numbers of its stream, in order.
    numbers: Vec<u64>,
    left: bool,
    /// The server ended its connection.
    ended: bool,
}

struct Crowd {
    world: World,
    dice: Dice,
    clients: Vec<Client>,
    published: BTreeMap<String, u64>,
    /// Items are published in the wrong order at times.
    swaps: bool,
    repeated: u64,
}

fn item(channel: &str, number: u64) -> Item {
    let prev = number - 1;
    let json = format!(
        r#"{{"channel":"{channel}","id":"{number}","prev-id":"{prev}","formats":{{
           "http-stream":{{"content":"{channel}:{number};"}},
           "http-response":{{"body":"{channel}:{number};"}}}}}}"#
    );
    Item::from_json(&Value::from_json(json.as_bytes()).unwrap(), None).unwrap()
}

impl Crowd {
    fn new(seed: u64, workers: usize) -> Self {
        let mut world = World::new(workers, |target| {
            let (path, channel) = target.split_once('?').unwrap();
            let mode = if path == "/poll" { "response" } else { "stream" };
            backend::hold(1, mode, channel, &[("Grip-Timeout", "30")])
        });
        let settings = Settings { workers, id_cache_ttl_ms: 600_000, seed, ..Settings::default() };
        world.handler = Some(Handler::new(0, settings));
        world.faults = sim::Faults::new(seed);
        Self {
            world,
            dice: Dice::new(seed),
            clients: Vec::new(),
            published: BTreeMap::new(),
            swaps: true,
            repeated: 0,
        }
    }

    fn some_channel(&mut self) -> String {
        format!("c{}", self.dice.below(CHANNELS))
    }

    fn join(&mut self) {
        let (poll, channel) = (self.dice.once_in(4), self.some_channel());
        self.ask(poll, channel);
    }

    fn ask(&mut self, poll: bool, channel: String) {
        let path = if poll { "poll" } else { "stream" };
        let conn = self.world.get(&format!("/{path}?{channel}"));
        for (number, pipe) in std::mem::take(&mut self.world.replaced) {
            let mut old = self.clients.iter_mut().filter(|c| c.conn == number && !c.is_over());
            if let Some(client) = old.next() {
                client.ended = true;
                client.take(&String::from_utf8_lossy(&pipe.to_client));
            }
        }
        self.clients.push(Client {
            conn,
            poll,
            channel,
            text: String::new(),
            seen: BTreeMap::new(),
            numbers: Vec::new(),
            left: false,
            ended: false,
        });
    }

    /// The first of each channel stays: without subscribers a channel has no order.
    fn leave(&mut self) {
        let pick = self.dice.below(self.clients.len() as u64).max(CHANNELS) as usize;
        if pick >= self.clients.len() {
            return;
        }
        let client = &mut self.clients[pick];
        if !client.is_over() && !self.world.is_closed(client.conn) {
            client.left = true;
            self.world.leave(client.conn);
        }
    }

    /// One to three items of a channel; at times in the wrong order, or one of them again.
    fn publish(&mut self) {
        let channel = self.some_channel();
        let last = self.published.entry(channel.clone()).or_default();
        let first = *last + 1;
        *last += 1 + self.dice.below(3);
        let mut items: Vec<Item> = (first..=*last).map(|n| item(&channel, n)).collect();
        if self.swaps && self.dice.once_in(3) {
            items.reverse();
        }
        if self.dice.once_in(3) {
            self.repeated += 1;
            items.push(items[0].clone());
        }
        let handler = self.world.handler.as_mut().unwrap();
        for item in items {
            handler.publish(self.world.now, vec![item]);
        }
    }

    /// Reads what came, and checks it; a poll that was answered asks again, perhaps elsewhere.
    fn read(&mut self) {
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if client.is_over() {
                continue;
            }
            client.take(&self.world.received(client.conn));
            client.ended = self.world.is_closed(client.conn);
            if client.poll && client.is_answered() && !client.ended {
                self.ask_again(at);
            }
        }
    }

    fn ask_again(&mut self, at: usize) {
        let channel = self.some_channel();
        let client = &mut self.clients[at];
        client.text.clear();
        client.channel.clone_from(&channel);
        let conn = client.conn;
        self.world.send(conn, &format!("GET /poll?{channel} HTTP/1.1\r\nHost: h\r\n\r\n"));
    }

    /// A stream on every channel, and the first item of each.
    fn begin(&mut self) {
        for n in 0..CHANNELS {
            self.ask(false, format!("c{n}"));
        }
        self.world.run(100);
        for n in 0..CHANNELS {
            let channel = format!("c{n}");
            let handler = self.world.handler.as_mut().unwrap();
            handler.publish(self.world.now, vec![item(&channel, 1)]);
            self.published.insert(channel, 1);
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.dice.below(10) {
                0..=4 => self.join(),
                5 => self.leave(),
                6 | 7 => self.publish(),
                _ => self.world.run(self.dice.below(40)),
            }
            if self.dice.once_in(20) {
                self.read();
            }
        }
        // What was lost is noticed with the next keep-alive, at the latest.
        self.world.faults.stop();
        for _ in 0..60 {
            self.world.run(1_000);
            self.read();
        }
    }

    fn happened(&self) -> u64 {
        self.world.faults.happened
    }

    /// Streams that are open have everything since their first item; gives how many are not.
    fn check_streams(&self) -> usize {
        let mut ended = 0;
        for client in self.clients.iter().filter(|client| !client.poll && !client.left) {
            let numbers = &client.numbers;
            let whole = numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            assert!(whole, "{}: a gap in {numbers:?}", client.channel);
            if client.ended || !client.text.contains("HTTP/1.1 200") {
                ended += 1;
            } else if let Some(last) = numbers.last() {
                assert_eq!(last, &self.published[&client.channel], "the end is missing");
            }
        }
        ended
    }

    /// Everybody leaves: nothing stays anywhere.
    fn check_leaks(&mut self) {
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if !client.is_over() {
                client.left = true;
                self.world.leave(client.conn);
            }
        }
        self.world.run(150_000);
        assert_eq!(self.world.handler.as_ref().unwrap().sessions(), 0);
        assert_eq!(self.world.proxy.as_ref().unwrap().sessions(), 0);
        assert!(self.world.connmgr.as_ref().unwrap().is_empty());
        let text = self.world.handler.as_ref().unwrap().hub().metrics("");
        let is_there = |line: &str| assert!(text.lines().any(|l| l == line), "{line}: {text}");
        is_there("handler_channels 0");
        is_there("handler_subscriptions{kind=\"stream\"} 0");
        is_there("handler_queued{what=\"items\"} 0");
        is_there("handler_queued{what=\"sequenced_items\"} 0");
    }
}

impl Client {
    fn is_over(&self) -> bool {
        self.left || self.ended
    }

    /// Takes in what came, and checks it.
    fn take(&mut self, text: &str) {
        self.text.push_str(text);
        for (channel, number) in self.take_items() {
            assert_eq!(channel, self.channel, "an item of another channel");
            let before = self.seen.insert(channel, number);
            let rises = before.is_none_or(|before| before < number);
            assert!(rises, "{}: {number} after {before:?}, twice or out of turn", self.channel);
            if !self.poll {
                self.numbers.push(number);
            }
        }
    }

    /// The items in what came, taken out of it.
    fn take_items(&mut self) -> Vec<(String, u64)> {
        let mut items = Vec::new();
        let Some(start) = self.text.find("\r\n\r\n").map(|at| at + 4) else { return items };
        let Some(end) = self.text.rfind(';').filter(|end| *end >= start) else { return items };
        for piece in self.text[start..end].split(';') {
            let at = piece.rfind('c').unwrap();
            let (channel, number) = piece[at..].split_once(':').unwrap();
            items.push((channel.to_owned(), number.parse().unwrap()));
        }
        // A poll's answer is looked at for its end.
        self.text.replace_range(start..=end, if self.poll { "done" } else { "" });
        items
    }

    /// Whether a poll has its answer: an item, or what was instructed at its timeout.
    fn is_answered(&self) -> bool {
        self.text.ends_with("done") || self.text.ends_with("opened\n")
    }
}

#[test]
fn without_faults_nobody_misses_anything() {
    for workers in [1, 4] {
        let mut crowd = Crowd::new(7, workers);
        crowd.begin();
        crowd.run(4_000);
        assert_eq!(crowd.check_streams(), 0, "{workers} workers");
        let handler = crowd.world.handler.as_ref().unwrap();
        assert_eq!(handler.hub().drops().duplicates, crowd.repeated);
        assert_eq!(handler.hub().drops().unsequenced, 0);
        for shard in handler.shards() {
            // Credits for a response that has ended meanwhile are no loss: one packet at most for
            // each client.
            let late = shard.drops().unknown;
            assert!(late <= crowd.clients.len() as u64, "{late} late packets");
            assert_eq!(shard.drops(), Drops { unknown: late, ..Drops::default() });
        }
        let gotten: usize = crowd.clients.iter().map(|client| client.numbers.len()).sum();
        assert!(gotten > 10_000, "{gotten} items are no crowd");
        crowd.check_leaks();
    }
}

#[test]
fn late_messages_change_nothing() {
    for workers in [1, 4] {
        let mut crowd = Crowd::new(8, workers);
        crowd.begin();
        crowd.world.faults.delay = 10;
        crowd.run(2_000);
        assert_eq!(crowd.check_streams(), 0, "{workers} workers");
        crowd.check_leaks();
    }
}

#[test]
fn lost_and_repeated_messages_end_connections_but_leave_no_gap() {
    for (seed, workers) in [(1, 1), (2, 4), (3, 1), (4, 4)] {
        let mut crowd = Crowd::new(seed, workers);
        crowd.begin();
        // The streams that keep a channel's order may end.
        crowd.swaps = false;
        crowd.world.faults.lose = 300;
        crowd.world.faults.repeat = 300;
        crowd.world.faults.delay = 20;
        crowd.run(2_000);
        let happened = crowd.happened();
        let ended = crowd.check_streams();
        assert!(happened > 0 && ended > 0, "seed {seed}: {happened} faults, {ended} ended");
        crowd.check_leaks();
    }
}
