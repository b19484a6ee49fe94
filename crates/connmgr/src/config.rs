//! The settings of one worker.

/// Settings of one worker; times in milliseconds, sizes in bytes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Instance id: `from` of every packet.
    pub instance: Vec<u8>,
    /// Which worker of the process this is: first part of its session ids.
    pub worker: u16,
    /// Counter of the first session id; random, so that no packet of an earlier life fits.
    pub first_counter: u32,
    /// Most of a request head, and the credits of a response.
    pub buffer_size: u32,
    /// Silence of the client that ends a connection (`--stream-timeout`).
    pub stream_timeout_ms: u32,
    /// Whether WebSocket messages may be compressed (`--compression`).
    pub compression: bool,
    /// Whether clients may keep their compression window between messages, which holds about
    /// 43 KB for each of them (`--compression-takeover`).
    pub compression_takeover: bool,
    /// Messages that may wait for one client that does not read (`--messages-max`).
    pub messages_max: usize,
    /// Most bytes of a client's WebSocket message, inflated (`--message-size-max`).
    pub message_size_max: u64,
    /// Bytes that may wait for clients that do not read, all together.
    pub pinned_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: b"connmgr".to_vec(),
            worker: 0,
            first_counter: 0,
            buffer_size: 8192,
            stream_timeout_ms: 1_800_000,
            compression: false,
            compression_takeover: false,
            messages_max: 100,
            message_size_max: u64::MAX,
            pinned_max: 1 << 30,
        }
    }
}
