//! The channel table under a crowd: one subscriber in each of N channels, and N in one. The
//! handler's engine alone, without sockets: the memory of a stream with its place in the index,
//! and how long a publish takes there. Wall time and memory of this process, not instructions.

use std::process::Command;
use std::time::{Duration, Instant};

use grip::{Item, Value};
use handler::{Handler, Output, Settings};
use tnetstring::Writer;
use zhttp::{Ext, Head, Headers, Id, Kind};
use zrpc::accept::Args;
use zrpc::{HttpRequest, HttpResponse, Rid, Session};

/// Streams, unless said otherwise.
const STREAMS: u32 = 1_000_000;

/// Connection managers that have them.
const MANAGERS: u32 = 8;

/// Messages that are timed one by one.
const MESSAGES: u32 = 1_000;

/// Runs each case in a process of its own, so that memory is its own.
pub fn table(streams: Option<&str>) -> Result<(), String> {
    let streams = number(streams)?;
    println!("| {streams} streams in the handler | {} |", COLUMNS.join(" | "));
    println!("|{}", "---|".repeat(COLUMNS.len() + 1));
    for case in ["each", "one"] {
        let program = std::env::current_exe().map_err(|e| format!("no program: {e}"))?;
        let status = Command::new(program).args(["channels", &streams.to_string(), case]).status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(format!("the case {case} failed"));
        }
    }
    Ok(())
}

const COLUMNS: [&str; 7] = [
    "bytes per stream",
    "accept call, us",
    "publish to one stream: p50 / p99, us",
    "publish to all, ms",
    "of it per stream, us",
    "another channel's message meanwhile, ms",
    "memory after all left, by before",
];

/// Measures one case and prints its row.
pub fn case(streams: &str, case: &str) -> Result<(), String> {
    let streams = number(Some(streams))?;
    let (name, channel): (_, fn(u32) -> String) = match case {
        "each" => ("one in each channel", |n| format!("channel-{n}")),
        "one" => ("all in one channel", |_| "channel-0".to_owned()),
        _ => return Err(format!("there is no case {case}: each, one")),
    };
    let mut crowd = Crowd::new();
    let before = resident()?;
    let opening = crowd.timed(|crowd| (0..streams).for_each(|n| crowd.open(n, &channel(n))));
    let bytes = (resident()? - before) as f64 / f64::from(streams);
    crowd.open(streams, "apart");
    let (p50, p99) = crowd.singles(streams, case == "each");
    let (all, apart) = crowd.everyone(streams, case == "each");
    crowd.leave(streams + 1);
    let after = resident()? as f64 / before as f64;
    println!(
        "| {name} | {bytes:.0} | {:.1} | {p50:.1} / {p99:.1} | {:.0} | {:.2} | {:.1} | {after:.1} |",
        micros(opening) / f64::from(streams),
        micros(all) / 1e3,
        micros(all) / f64::from(streams),
        micros(apart) / 1e3,
    );
    Ok(())
}

fn number(text: Option<&str>) -> Result<u32, String> {
    let number = text.map_or(Ok(STREAMS), str::parse);
    number.ok().filter(|n| *n > 0).ok_or_else(|| "the number of streams is no number".to_owned())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Bytes of memory that this process has in use.
fn resident() -> Result<u64, String> {
    // What was freed a moment ago goes back within this time.
    std::thread::sleep(Duration::from_secs(2));
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").map_err(|e| e.to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| "no memory figures".to_owned())
}

/// The handler and what its streams need.
struct Crowd {
    now: u64,
    handler: Handler,
    apart: Apart,
}

/// The message to the channel `apart`.
#[derive(Clone, Copy)]
enum Apart {
    Unwatched,
    Awaited,
    Came(Instant),
}

impl Crowd {
    fn new() -> Self {
        // A first stream, so that what any stream needs is there before memory is looked at.
        let handler = Handler::new(1_000, Settings::default());
        let mut crowd = Self { now: 1_000, handler, apart: Apart::Unwatched };
        crowd.open(u32::MAX, "first");
        crowd.leave_one(u32::MAX);
        crowd
    }

    fn timed(&mut self, work: impl FnOnce(&mut Self)) -> Duration {
        let start = Instant::now();
        work(self);
        start.elapsed()
    }

    /// A proxy passes stream `n` on.
    fn open(&mut self, n: u32, channel: &str) {
        let payload = call(n, channel);
        self.handler.call(self.now, 0, Vec::new(), &payload);
        self.settle();
    }

    fn publish(&mut self, channel: &str) {
        self.handler.publish(self.now, vec![item(channel)]);
    }

    /// Lets everything happen that needs no time; gives the messages for connection managers.
    fn settle(&mut self) -> usize {
        let mut messages = 0;
        loop {
            let more = self.handler.work(self.now);
            while let Some(output) = self.handler.poll_output() {
                let Output::ToClient { message, .. } = output else { continue };
                messages += 1;
                if matches!(self.apart, Apart::Awaited) && has_apart(&message) {
                    self.apart = Apart::Came(Instant::now());
                }
            }
            if !more {
                return messages;
            }
        }
    }

    /// Publishes to one stream at a time: p50 and p99 until its packet is out, microseconds.
    fn singles(&mut self, streams: u32, spread: bool) -> (f64, f64) {
        let mut times: Vec<f64> = (0..MESSAGES)
            .map(|k| {
                // Far apart in the table, so that no cache helps.
                let n = (u64::from(k) * 7_919_777 % u64::from(streams)) as u32;
                let channel = if spread { format!("channel-{n}") } else { "apart".to_owned() };
                let time = self.timed(|crowd| {
                    crowd.publish(&channel);
                    assert_eq!(crowd.settle(), 1, "one packet for one stream");
                });
                micros(time)
            })
            .collect();
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[times.len() * 99 / 100])
    }

    /// Publishes to everybody, and to another channel right behind it: how long each took.
    fn everyone(&mut self, streams: u32, spread: bool) -> (Duration, Duration) {
        let start = Instant::now();
        if spread {
            (0..streams).for_each(|n| {
                self.publish(&format!("channel-{n}"));
                // As the driver does: what comes in waits for what is under way.
                while self.handler.congested() {
                    self.settle();
                }
            });
        } else {
            self.publish("channel-0");
        }
        let behind = Instant::now();
        self.apart = Apart::Awaited;
        self.handler.publish(self.now, vec![item_of("apart", APART)]);
        self.settle();
        let Apart::Came(at) = self.apart else { panic!("the message to another channel is lost") };
        (start.elapsed(), at - behind)
    }

    /// All clients leave.
    fn leave(&mut self, streams: u32) {
        (0..streams).for_each(|n| self.leave_one(n));
        assert_eq!(self.handler.sessions(), 0, "sessions that are left");
        // Channels without subscribers linger for a while.
        for _ in 0..600 {
            self.now += 1_000;
            self.handler.timeout(self.now);
            self.settle();
        }
    }

    fn leave_one(&mut self, n: u32) {
        let mut packet = Vec::new();
        let id = id(n);
        let ids = [Id { id: id.as_bytes(), seq: Some(1) }];
        let from = manager(n);
        let head = Head { from: from.as_bytes(), ids: &ids, ext: Ext::OURS };
        zhttp::write(&mut packet, &head, |f| {
            f.kind(Kind::Cancel);
        });
        self.handler.client_message(self.now, 0, &packet);
        self.settle();
    }
}

/// What is published to the channel `apart`.
const APART: &str = "this one is for the channel apart";

fn has_apart(message: &[u8]) -> bool {
    message.windows(APART.len()).any(|part| part == APART.as_bytes())
}

fn id(n: u32) -> String {
    format!("0-{n}-{:x}", n.wrapping_add(0x1234_5678))
}

fn manager(n: u32) -> String {
    format!("connmgr-{}", n % MANAGERS)
}

fn item(channel: &str) -> Item {
    item_of(channel, &"x".repeat(100))
}

fn item_of(channel: &str, content: &str) -> Item {
    let json = format!(r#"{{"channel":"{channel}","http-stream":{{"content":"{content}"}}}}"#);
    let value = Value::from_json(json.as_bytes()).expect("JSON");
    Item::from_json(&value, None).expect("an item")
}

/// The accept call for stream `n`, as a proxy of ours writes it.
fn call(n: u32, channel: &str) -> Vec<u8> {
    let mut headers = Writer::new();
    headers.list(|w| {
        for (name, value) in [
            ("Content-Type", "text/event-stream"),
            ("Grip-Hold", "stream"),
            ("Grip-Channel", channel),
            ("Grip-Keep-Alive", ":\\n\\n; format=cstring; timeout=55"),
        ] {
            w.list(|w| [name, value].iter().for_each(|text| w.str(text)));
        }
    });
    let headers = headers.into_vec();
    let headers = tnetstring::parse_all(&headers).expect("own headers");
    let request = HttpRequest {
        method: "GET",
        uri: "http://api.example.com/stream",
        headers: Headers::EMPTY,
        body: b"",
    };
    let (sender, id) = (manager(n), id(n));
    let session = Session {
        rid: Rid { sender: sender.as_bytes(), id: id.as_bytes() },
        in_seq: 1,
        // Enough for all messages of a run.
        out_credits: 1 << 20,
        router_resp: true,
        multi: true,
        batch: true,
        peer_address: "192.0.2.1",
        ..Session::default()
    };
    let args = Args {
        requests: vec![session],
        request,
        orig_request: request,
        response: HttpResponse {
            code: 200,
            reason: "OK",
            headers: Headers::parse(headers).expect("own headers"),
            body: b":opened\n",
        },
        inspect: None,
        route: Some("stream"),
        separate_stats: false,
        channel_prefix: None,
        log_level: None,
        channels: Vec::new(),
        trusted: false,
        use_session: false,
        response_sent: false,
        conn_max: None,
    };
    let mut out = Vec::new();
    zrpc::write_request(&mut out, Some(b"proxy"), Some(b"1"), "accept", |w| args.write(w));
    out
}
