//! WebSockets on the bench: the test plays the proxy.

use zrpc::control::{Item, Kind, Packet, write_item, write_packet};

use super::Bench;

/// An item that the handler sent, as text: `cid kind ...`.
pub fn shown(item: &Item<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut words = match item.cids.is_empty() {
        true => vec![text(item.cid)],
        false => vec![item.cids.iter().map(|cid| text(cid)).collect::<Vec<_>>().join("+")],
    };
    words.push(item.kind.name().to_owned());
    words.extend(item.req_id.map(|id| format!("#{}", text(id))));
    if item.kind == Kind::Send {
        words.push(format!("{}:{}", item.content_type, text(item.message)));
    }
    words.extend(item.queue.then(|| "queue".to_owned()));
    words.extend(item.code.map(|code| code.to_string()));
    words.extend((!item.reason.is_empty()).then(|| text(item.reason)));
    words.extend(item.timeout_s.map(|seconds| format!("{seconds}s")));
    words.extend(item.interval_mode.then(|| "interval".to_owned()));
    words.join(" ")
}

impl Bench {
    /// A proxy that takes `cids` sends items.
    pub fn control(&mut self, items: &[Item<'_>]) {
        self.control_at(0, items);
    }

    pub fn control_at(&mut self, shard: usize, items: &[Item<'_>]) {
        self.tell_control(shard, items);
        self.settle();
    }

    /// The same, without letting anything come of it yet.
    pub fn tell_control(&mut self, shard: usize, items: &[Item<'_>]) {
        let mut frames = Vec::new();
        items.iter().for_each(|item| write_item(&mut frames, item));
        let packet = write_packet(b"proxy_1", &frames);
        self.handler.control(self.now, shard, &packet);
    }

    /// The packets to proxies since the last call, as they are.
    pub fn control_packets(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.controls).into_iter().map(|(_, packet)| packet).collect()
    }

    /// A WebSocket begins.
    pub fn here(&mut self, cid: &str) {
        self.here_with(cid, |_| {});
    }

    pub fn here_with(&mut self, cid: &str, change: impl FnOnce(&mut Item<'_>)) {
        let mut item = Item {
            uri: "ws://api.example/ws",
            ttl_s: Some(60),
            multi: true,
            ..Item::new(cid.as_bytes(), Kind::Here)
        };
        change(&mut item);
        self.control(&[item]);
    }

    /// Its backend sends a control message.
    pub fn grip(&mut self, cid: &str, message: &str) {
        self.control(&[Item {
            message: message.as_bytes(),
            ..Item::new(cid.as_bytes(), Kind::Grip)
        }]);
    }

    pub fn subscribe(&mut self, cid: &str, channel: &str) {
        self.grip(cid, &format!(r#"{{"type":"subscribe","channel":"{channel}"}}"#));
    }

    pub fn publish_ws(&mut self, channel: &str, content: &str) {
        self.publish(&format!(
            r#"{{"channel":"{channel}","ws-message":{{"content":"{content}"}}}}"#
        ));
    }

    /// The items sent to the proxy since the last call, in order.
    pub fn items(&mut self) -> Vec<String> {
        self.packets_of_items().concat()
    }

    /// The same by packet.
    pub fn packets_of_items(&mut self) -> Vec<Vec<String>> {
        let packets = std::mem::take(&mut self.controls);
        let read = |(_, packet): &(String, Vec<u8>)| {
            Packet::parse(packet).unwrap().items.iter().map(shown).collect()
        };
        packets.iter().map(read).collect()
    }
}
