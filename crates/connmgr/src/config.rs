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
            pinned_max: 1 << 30,
        }
    }
}
