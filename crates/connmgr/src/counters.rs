//! What a worker counts. Every discard has its own counter.

/// Totals since the start of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Request heads read, those refused afterwards included.
    pub requests: u64,
    /// Connections taken in.
    pub accepts: u64,
    /// Bytes read from clients, their framing included.
    pub bytes_in: u64,
    /// Bytes written to clients, their framing included.
    pub bytes_out: u64,
    /// Responses that the peer gave to their end, refusals of WebSockets, and WebSockets that both
    /// sides closed.
    pub completed: u64,
    /// Requests that were answered 400.
    pub bad_requests: u64,
    /// Requests that were answered 500.
    pub failed: u64,
    /// Sessions that the peer ended with `cancel` or `error`.
    pub peer_cancels: u64,
    /// Clients that left before their response was complete.
    pub clients_left: u64,
    /// Connections of req mode ended by `--req-timeout`.
    pub req_timeouts: u64,
    /// Packets of other kinds than data in req mode; dropped.
    pub req_ignored: u64,
    /// Clients that spoke plain text on a TLS port, answered 400.
    pub plain_on_tls: u64,
    /// Clients that spoke TLS on a plain port, answered 400.
    pub tls_on_plain: u64,
    /// ZHTTP packets read, a packet for many sessions once.
    pub packets_in: u64,
    /// ZHTTP packets made, a packet for many sessions once.
    pub packets_out: u64,
    /// Packets for one session each: what `packets_in` delivered.
    pub deliveries: u64,
    /// Packets that are no packets, or lack a sender; dropped.
    pub malformed: u64,
    /// Entries for sessions that are over or never were; dropped.
    pub unknown: u64,
    /// Sessions ended by a wrong sequence number.
    pub bad_seq: u64,
    /// Sessions ended because the peer sent more than its credits.
    pub overruns: u64,
    /// Sessions ended by a packet that does not fit their state.
    pub unexpected: u64,
    /// WebSockets failed because of what the client sent.
    pub ws_violations: u64,
    /// WebSockets ended because too many messages were waiting for a client that does not read.
    pub messages_limit: u64,
    /// Packets for a WebSocket behind its close; dropped.
    pub after_close: u64,
    /// WebSockets whose close was not answered in time.
    pub close_timeouts: u64,
    /// Packets dropped because too many peers are known.
    pub too_many_peers: u64,
    /// Connections closed because too much was waiting for clients that do not read.
    pub pinned_limit: u64,
    /// Sessions ended by silence of the peer.
    pub session_timeouts: u64,
    /// Connections ended by silence of the client.
    pub stream_timeouts: u64,
    /// Requests that nobody took, answered 502.
    pub unanswered: u64,
    /// Sessions ended because their peer process left.
    pub peer_gone: u64,
    /// System calls that wrote to clients.
    pub writes: u64,
}
