//! Random frames, cuts, packets and times on WebSockets: nothing panics, every session's packets
//! are numbered without a gap, credits are kept to, nothing follows a cancel, whole messages come
//! through unchanged, and nothing is left behind.

mod kit;

use connmgr::Config;
use kit::{Bench, masked};
use proptest::prelude::*;
use websocket::{Decoder, Deflate, Deflater, Event, Role};
use zhttp::Kind;

#[derive(Clone, Debug)]
enum Step {
    /// The client sends this, in parts of so many bytes.
    Client(Said, usize),
    Leave,
    /// The client's side takes so many bytes more.
    Room(usize),
    Peer(What),
    Gone,
    Pass(u64),
}

/// What a client sends.
#[derive(Clone, Debug)]
enum Said {
    Message { text: Vec<u8>, frames: usize, compressed: bool },
    Control(u8, Vec<u8>),
    Junk(Vec<u8>),
}

#[derive(Clone, Debug)]
enum What {
    Body(usize, bool),
    Credit(u32),
    Plain(Kind),
    Close(Option<u16>),
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        6 => ("[a-cé]{0,300}", 1usize..4, any::<bool>()).prop_map(|(text, frames, compressed)| {
            Said::Message { text: text.into_bytes(), frames, compressed }
        }),
        2 => (prop::sample::select(vec![0x89u8, 0x8a]), proptest::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(bits, payload)| Said::Control(bits, payload)),
        1 => Just(Said::Control(0x88, b"\x03\xe8".to_vec())),
        1 => proptest::collection::vec(any::<u8>(), 1..40).prop_map(Said::Junk),
    ]
}

fn what() -> impl Strategy<Value = What> {
    let plain = prop::sample::select(vec![
        Kind::KeepAlive,
        Kind::KeepAlive,
        Kind::Ping,
        Kind::Pong,
        Kind::HandoffStart,
        Kind::Cancel,
    ]);
    prop_oneof![
        6 => (0usize..2000, any::<bool>()).prop_map(|(n, more)| What::Body(n, more)),
        4 => (0u32..500).prop_map(What::Credit),
        2 => plain.prop_map(What::Plain),
        1 => prop::option::of(900u16..5000).prop_map(What::Close),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (said(), prop_oneof![Just(10_000usize), 1usize..30])
            .prop_map(|(said, part)| Step::Client(said, part)),
        1 => Just(Step::Leave),
        2 => prop_oneof![Just(1usize << 40), 0usize..1000].prop_map(Step::Room),
        10 => what().prop_map(Step::Peer),
        1 => Just(Step::Gone),
        2 => (0u64..40_000).prop_map(Step::Pass),
    ]
}

/// What is known of the only session.
struct Model {
    conn: u32,
    id: String,
    deflate: bool,
    next_in: u32,
    next_out: u32,
    /// Bytes that may still come from the worker, and that may still be sent to it.
    credits: u32,
    window: u32,
    cancelled: bool,
    /// Messages that came, whole ones, and those that the client sent before anything else.
    message: Vec<u8>,
    came: Vec<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    junk: bool,
}

impl Model {
    fn open(bench: &mut Bench, deflate: bool) -> Self {
        let conn = bench.connect();
        let offer = if deflate { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
        let id = bench.handshake(conn, offer);
        bench.peer("px", &[(&id, 0)], |f| {
            f.status(101, "S").credits(300);
        });
        bench.got(conn);
        Self {
            conn,
            id,
            deflate,
            next_in: 1,
            next_out: 1,
            credits: 300,
            window: 8192,
            cancelled: false,
            message: Vec::new(),
            came: Vec::new(),
            sent: Vec::new(),
            junk: false,
        }
    }

    fn wire(&mut self, said: Said) -> Vec<u8> {
        let mut wire = Vec::new();
        match said {
            Said::Control(bits, payload) => wire.extend(masked(bits, &payload)),
            Said::Junk(bytes) => {
                self.junk = true;
                wire = bytes;
            }
            Said::Message { text, frames, compressed } => {
                let compressed = compressed && self.deflate;
                let mut deflated = Vec::new();
                Deflater::default().piece(&mut deflated, &text, true);
                let bytes = if compressed { deflated } else { text.clone() };
                let mut pieces: Vec<&[u8]> = bytes.chunks(bytes.len() / frames + 1).collect();
                pieces.resize(pieces.len().max(1), b"");
                for (n, piece) in pieces.iter().enumerate() {
                    let first = if compressed { 0x41 } else { 0x01 };
                    let fin = if n + 1 == pieces.len() { 0x80 } else { 0 };
                    wire.extend(masked(fin | if n == 0 { first } else { 0 }, piece));
                }
                if !self.junk {
                    self.sent.push(text);
                }
            }
        }
        wire
    }

    /// Checks what the worker sent.
    fn take(&mut self, bench: &mut Bench) {
        for sent in bench.sent() {
            let (id, seq) = &sent.ids[0];
            assert_eq!((id, *seq, self.cancelled), (&self.id, self.next_in, false), "{sent:?}");
            self.next_in += 1;
            self.cancelled = sent.kind == "cancel";
            self.window += sent.credits;
            if sent.kind == "close" {
                continue;
            }
            self.credits = self.credits.checked_sub(sent.body.len() as u32).expect("credits");
            if sent.kind == "data" {
                self.message.extend(&sent.body);
                if !sent.more {
                    self.came.push(std::mem::take(&mut self.message));
                }
            }
        }
    }

    fn run(&mut self, bench: &mut Bench, step: Step) {
        match step {
            Step::Client(said, part) => {
                for part in self.wire(said).chunks(part) {
                    bench.client(self.conn, part);
                }
            }
            Step::Leave => bench.leave(self.conn),
            Step::Room(room) => bench.room(self.conn, room),
            Step::Peer(what) => self.packet(bench, &what),
            Step::Gone => bench.worker.peer_gone(bench.now, b"px"),
            Step::Pass(ms) => bench.pass(ms),
        }
        bench.end();
    }

    fn packet(&mut self, bench: &mut Bench, what: &What) {
        let size = match what {
            What::Body(size, _) => (*size as u32).min(self.window),
            _ => 0,
        };
        self.window -= size;
        if let What::Credit(credits) = what {
            self.credits += credits;
        }
        let seq = self.next_out;
        self.next_out += 1;
        bench.apply("px", &[(&self.id, seq)], |f| match what {
            What::Body(_, more) => {
                f.body(&vec![b'b'; size as usize]).flag("more", *more);
            }
            What::Credit(credits) => {
                f.kind(Kind::Credit).credits(*credits);
            }
            What::Plain(kind) => {
                f.kind(*kind);
            }
            What::Close(code) => {
                f.kind(Kind::Close);
                if let Some(code) = code {
                    f.code(*code);
                }
            }
        });
    }
}

/// What the client got is frames by the rules, and nothing behind a close.
fn check_frames(bytes: &[u8], deflate: bool) {
    let mut decoder = Decoder::new(Role::Client, deflate.then(Deflate::default), u64::MAX);
    let (mut used, mut closed) = (0, false);
    loop {
        let mut piece = Vec::new();
        let step = decoder.decode(&bytes[used..], 1 << 20, &mut piece).expect("frames");
        used += step.consumed;
        if step.event.is_none() && step.consumed == 0 {
            break;
        }
        assert!(!closed || step.event.is_none(), "behind a close");
        closed |= matches!(step.event, Some(Event::Close { .. }));
    }
    assert!(!closed || used == bytes.len(), "behind a close");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn sessions_stay_in_order(
        deflate: bool,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let config = Config { compression: deflate, messages_max: 1000, ..Config::default() };
        let mut bench = Bench::with(config);
        let mut model = Model::open(&mut bench, deflate);
        for step in steps {
            model.run(&mut bench, step);
            model.take(&mut bench);
        }
        check_frames(&bench.got_bytes(model.conn), deflate);
        prop_assert!(model.came.len() <= model.sent.len() || model.junk);
        let both = model.came.iter().zip(&model.sent);
        for (came, sent) in both.take(if model.junk { 0 } else { usize::MAX }) {
            prop_assert_eq!(came, sent);
        }
        bench.worker.shutdown(bench.now, &mut bench.net);
        model.take(&mut bench);
        prop_assert!(bench.worker.is_empty() && bench.net.socks.is_empty());
        prop_assert_eq!(bench.worker.pinned(), 0);
    }
}
