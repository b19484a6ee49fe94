//! The settings of one worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Settings of one worker; times in milliseconds, sizes in bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Instance id: `from` of every packet.
    pub instance: Vec<u8>,
    /// Which worker of the process this is: first part of its session ids.
    pub worker: u16,
    /// How many workers the process has.
    pub workers: u16,
    /// Counter of the first session id; random, so that no packet of an earlier life fits.
    pub first_counter: u32,
    /// Most of a request head, and the credits of a response.
    pub buffer_size: u32,
    /// Most of a body in req mode, request and response alike.
    pub body_buffer_size: u32,
    /// Blocks of `buffer_size` that one connection may have, 2 to 255; two are everybody's.
    pub connection_blocks_max: u8,
    /// The blocks beyond those, shared by all workers.
    pub blocks: Blocks,
    /// Messages that may wait for one WebSocket client.
    pub messages_max: usize,
    /// Most connections of the process, stream and req mode; for log lines only, the driver
    /// enforces them.
    pub maxconn: (usize, usize),
    /// Silence of the client that ends a connection (`--stream-timeout`).
    pub stream_timeout_ms: u32,
    /// Whether WebSocket messages may be compressed (`--compression`).
    pub compression: bool,
    /// Whether clients may keep their compression window between messages, which holds about
    /// 43 KB for each of them (`--compression-takeover`).
    pub compression_takeover: bool,
    /// Most bytes of a client's WebSocket message, inflated (`--message-size-max`).
    pub message_size_max: u64,
    /// From being ready for a request to the end of its response, in req mode (`--req-timeout`).
    pub req_timeout_ms: u32,
    /// Bytes that may wait for clients that do not read, all together.
    pub pinned_max: usize,
    /// Most credits of a response whose client takes all at once; never less than a buffer.
    pub window_max: u32,
    /// Credits beyond a buffer for each that connections may have, all together.
    pub lent_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: b"connmgr".to_vec(),
            worker: 0,
            workers: 1,
            first_counter: 0,
            buffer_size: 8192,
            body_buffer_size: 100_000,
            connection_blocks_max: 2,
            blocks: Blocks::default(),
            messages_max: 100,
            maxconn: (10_000, 100),
            stream_timeout_ms: 1_800_000,
            compression: false,
            compression_takeover: false,
            message_size_max: u64::MAX,
            req_timeout_ms: 30_000,
            pinned_max: 1 << 30,
            window_max: 128 << 10,
            lent_max: 16 << 20,
        }
    }
}

/// A count of spare buffer blocks (`spec/connmgr.md §8`); clones share it.
#[derive(Clone, Debug, Default)]
pub struct Blocks(Arc<AtomicUsize>);

impl Blocks {
    /// So many spare blocks.
    pub fn new(count: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(count)))
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Gives `count` back.
    pub(crate) fn give_back(&self, count: u8) {
        self.0.fetch_add(count.into(), Relaxed);
    }

    /// Blocks that nobody has.
    pub fn left(&self) -> usize {
        self.0.load(Relaxed)
    }
}
