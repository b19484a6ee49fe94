//! The paths that are counted. Each prepares its input on warmed engines, then does its
//! operations inside [`measured`].

use std::hint::black_box;

use crate::stack::{KEEP_ALIVE_MS, Stack};

/// A path.
pub struct Path {
    /// Its name in `figures.txt`.
    pub name: &'static str,
    /// What one operation is.
    pub about: &'static str,
    /// Operations inside [`measured`].
    pub operations: u64,
    run: fn(u64),
}

const fn path(name: &'static str, operations: u64, run: fn(u64), about: &'static str) -> Path {
    Path { name, about, operations, run }
}

/// All paths.
pub const PATHS: [Path; 7] = [
    path("connmgr-request", 200, request, "a client's request head to a packet"),
    path("connmgr-packet-128", 50, packet, "a packet for 128 streams, decoded and written out"),
    path("proxy-request", 200, route, "a request packet to a request for the backend"),
    path("proxy-hold", 200, hold, "a backend's hold instruction to an accept call"),
    path("handler-accept", 200, accept, "an accept call to a held stream and its first packet"),
    path("handler-publish-10000", 3, publish, "one item to 10,000 streams, as packets"),
    path("handler-keepalive-1000", 1, keep_alive, "20 s of 1,000 streams, a keep-alive for each"),
];

/// Opens before an engine counts as warm.
const WARM: usize = 200;

/// Runs one path.
pub fn run(name: &str) -> Result<(), String> {
    let path = find(name)?;
    (path.run)(path.operations);
    Ok(())
}

/// The path of that name.
pub fn find(name: &str) -> Result<&'static Path, String> {
    let found = PATHS.iter().find(|path| path.name == name);
    found.ok_or_else(|| format!("there is no path {name}; counts list shows them"))
}

/// Callgrind counts in here only, by the name of this function.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    black_box(work)();
}

fn warm() -> Stack {
    let mut stack = Stack::new();
    for _ in 0..WARM {
        stack.open();
    }
    stack
}

fn request(operations: u64) {
    let mut stack = warm();
    let conns: Vec<u32> = (0..operations).map(|_| stack.connect()).collect();
    measured(&mut || {
        for conn in &conns {
            black_box(stack.request(*conn));
        }
    });
}

fn packet(operations: u64) {
    let mut stack = warm();
    let messages: Vec<Vec<u8>> = (0..operations)
        .flat_map(|_| stack.publish())
        .filter(|message| zhttp::Packet::parse(message).is_ok_and(|p| p.ids.len() == 128))
        .collect();
    assert_eq!(messages.len() as u64, operations, "a packet with 128 ids for each item");
    let before = stack.written();
    measured(&mut || messages.iter().for_each(|message| stack.deliver(message)));
    assert!(stack.written() - before > messages.len() * 128 * 100, "the bodies were written");
}

fn route(operations: u64) {
    let mut stack = warm();
    let packets: Vec<Vec<u8>> = (0..operations)
        .map(|_| {
            let conn = stack.connect();
            stack.request(conn)
        })
        .collect();
    measured(&mut || {
        for packet in &packets {
            black_box(stack.route(packet));
        }
    });
}

fn hold(operations: u64) {
    let mut stack = warm();
    let keys: Vec<proxy::Key> = (0..operations).map(|_| stack.asked()).collect();
    measured(&mut || {
        for key in &keys {
            black_box(stack.hold(*key));
        }
    });
}

fn accept(operations: u64) {
    let mut stack = warm();
    let calls: Vec<Vec<u8>> = (0..operations)
        .map(|_| {
            let key = stack.asked();
            stack.hold(key)
        })
        .collect();
    measured(&mut || {
        for call in &calls {
            black_box(stack.accept(call));
        }
    });
    assert_eq!(stack.held(), WARM + calls.len());
}

fn publish(operations: u64) {
    let mut stack = Stack::new();
    for _ in 0..10_000 {
        stack.open();
    }
    stack.publish();
    measured(&mut || {
        for _ in 0..operations {
            black_box(stack.publish());
        }
    });
    assert_eq!(stack.held(), 10_000);
}

fn keep_alive(operations: u64) {
    let mut stack = Stack::new();
    for _ in 0..1_000 {
        stack.open();
    }
    // The connection manager is silent meanwhile: streams would end after a minute.
    stack.pass(KEEP_ALIVE_MS);
    measured(&mut || (0..operations).for_each(|_| stack.pass(KEEP_ALIVE_MS)));
    assert_eq!(stack.held(), 1_000);
}
