//! The figures of a report (spec/stats.md §5).

/// The twelve sums of bytes and messages of a report, in `Counters::NAMES` order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of spec/stats.md §5")]
pub struct Counters {
    pub client_header_bytes_received: u64,
    pub client_header_bytes_sent: u64,
    pub client_content_bytes_received: u64,
    pub client_content_bytes_sent: u64,
    pub client_messages_received: u64,
    pub client_messages_sent: u64,
    pub server_header_bytes_received: u64,
    pub server_header_bytes_sent: u64,
    pub server_content_bytes_received: u64,
    pub server_content_bytes_sent: u64,
    pub server_messages_received: u64,
    pub server_messages_sent: u64,
}

impl Counters {
    pub(crate) const NAMES: [&str; 12] = [
        "client-header-bytes-received",
        "client-header-bytes-sent",
        "client-content-bytes-received",
        "client-content-bytes-sent",
        "client-messages-received",
        "client-messages-sent",
        "server-header-bytes-received",
        "server-header-bytes-sent",
        "server-content-bytes-received",
        "server-content-bytes-sent",
        "server-messages-received",
        "server-messages-sent",
    ];

    pub(crate) fn fields(&mut self) -> [&mut u64; 12] {
        [
            &mut self.client_header_bytes_received,
            &mut self.client_header_bytes_sent,
            &mut self.client_content_bytes_received,
            &mut self.client_content_bytes_sent,
            &mut self.client_messages_received,
            &mut self.client_messages_sent,
            &mut self.server_header_bytes_received,
            &mut self.server_header_bytes_sent,
            &mut self.server_content_bytes_received,
            &mut self.server_content_bytes_sent,
            &mut self.server_messages_received,
            &mut self.server_messages_sent,
        ]
    }

    /// What passed between this server and backends.
    #[must_use]
    pub fn of_server(mut self) -> Self {
        let fields = Self::NAMES.iter().zip(self.fields());
        fields.filter(|(name, _)| name.starts_with("client-")).for_each(|(_, sum)| *sum = 0);
        self
    }

    /// Adds `other` field by field.
    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        for (mine, theirs) in self.fields().into_iter().zip(other.fields()) {
            *mine = mine.saturating_add(*theirs);
        }
    }
}

/// The fields of a `report` (spec/stats.md §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Most concurrent connections in the interval.
    pub connections: u64,
    /// Connection minutes begun.
    pub minutes: u64,
    /// Items processed; only without route.
    pub received: u64,
    /// Deliveries.
    pub sent: u64,
    /// Of them to response holds.
    pub http_response_sent: u64,
    /// Blocks of the items, where blocks are counted.
    pub blocks_received: u64,
    /// Blocks of the deliveries.
    pub blocks_sent: u64,
    /// Milliseconds covered.
    pub duration_ms: u64,
    /// Bytes and messages.
    pub counters: Counters,
}
