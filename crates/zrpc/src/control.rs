//! WebSocket control packets between proxy and handler (spec/internal-rpc.md §6).

use tnetstring::{Value, Writer};

use crate::fields::{Error, bytes, int, map, need, root, text, truth};
use crate::session::{flag, optional};

/// Most connections that one `send` item may list in `cids` (ours only).
pub const MAX_CIDS: usize = 128;

/// Most items of a packet of ours (spec §6.3).
pub const MAX_ITEMS: usize = 128;

/// What an item does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Proxy: a new session, or its attributes again.
    Here,
    /// Proxy: the session lives.
    #[default]
    KeepAlive,
    /// Proxy: a control message of the backend.
    Grip,
    /// Proxy: an implicit subscription.
    Subscribe,
    /// Proxy: the keep-alive timer fired.
    NeedKeepAlive,
    /// Proxy: the session ended.
    Gone,
    /// Both: settles a request.
    Ack,
    /// Both: the session is not known, or is to end abnormally.
    Cancel,
    /// Handler: a message for the client.
    Send,
    /// Handler: close both sides.
    Close,
    /// Handler: let the backend go, keep the client.
    Detach,
    /// Handler: ask a backend that is reached by HTTP now.
    Refresh,
    /// Handler: start or stop the keep-alive timer.
    KeepAliveSetup,
}

const NAMES: [(Kind, &str); 13] = [
    (Kind::Here, "here"),
    (Kind::KeepAlive, "keep-alive"),
    (Kind::Grip, "grip"),
    (Kind::Subscribe, "subscribe"),
    (Kind::NeedKeepAlive, "need-keep-alive"),
    (Kind::Gone, "gone"),
    (Kind::Ack, "ack"),
    (Kind::Cancel, "cancel"),
    (Kind::Send, "send"),
    (Kind::Close, "close"),
    (Kind::Detach, "detach"),
    (Kind::Refresh, "refresh"),
    (Kind::KeepAliveSetup, "keep-alive-setup"),
];

impl Kind {
    /// The value of `type`.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    fn parse(name: &[u8]) -> Option<Self> {
        NAMES.iter().find(|(_, n)| n.as_bytes() == name).map(|(kind, _)| *kind)
    }
}

/// One item. A field that an item lacks has its default (spec §6.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item<'a> {
    /// The connection; empty if `cids` has them.
    pub cid: &'a [u8],
    /// `send` only, and only to a proxy that said `multi`: up to [`MAX_CIDS`] connections.
    pub cids: Vec<&'a [u8]>,
    /// What it does.
    pub kind: Kind,
    /// Asks for an `ack` with the same text.
    pub req_id: Option<&'a [u8]>,
    /// here: the client's URI.
    pub uri: &'a str,
    /// send: `text`, `binary`, `ping`, `pong`.
    pub content_type: &'a str,
    /// grip, send.
    pub message: &'a [u8],
    /// send: must not be dropped.
    pub queue: bool,
    /// close; absent and -1 are the same.
    pub code: Option<u16>,
    /// close.
    pub reason: &'a [u8],
    /// here.
    pub debug: bool,
    /// here: route id, also an automatic one.
    pub route: &'a str,
    /// here: the id is explicit.
    pub separate_stats: bool,
    /// here.
    pub channel_prefix: &'a str,
    /// here.
    pub log_level: Option<i64>,
    /// here.
    pub trusted: bool,
    /// here: this proxy takes `cids` (ours only).
    pub multi: bool,
    /// subscribe.
    pub channel: &'a str,
    /// here, keep-alive: seconds.
    pub ttl_s: Option<u32>,
    /// keep-alive-setup: seconds.
    pub timeout_s: Option<u32>,
    /// keep-alive-setup: `interval`, else idle.
    pub interval_mode: bool,
}

impl<'a> Item<'a> {
    /// An item that has nothing but its connection and kind.
    pub fn new(cid: &'a [u8], kind: Kind) -> Self {
        Self { cid, kind, ..Self::default() }
    }

    fn parse(value: Value<'a>) -> Result<Self, Error> {
        let mut item = Self::default();
        let mut kind = None;
        for entry in map("items", value)?.iter() {
            let (key, value) = entry?;
            match key {
                "cid" => item.cid = bytes("cid", value)?,
                "cids" => item.cids = cids(value)?,
                "type" => {
                    let name = bytes("type", value)?;
                    kind = Some(Kind::parse(name).ok_or(Error::Type("type"))?);
                }
                "req-id" => item.req_id = Some(bytes("req-id", value)?),
                "message" => item.message = bytes("message", value)?,
                "content-type" => item.content_type = text("content-type", value)?,
                "queue" => item.queue = truth("queue", value)?,
                _ => item.set(key, value)?,
            }
        }
        item.kind = need("type", kind)?;
        match item.cid.is_empty() && item.cids.is_empty() {
            true => Err(Error::Missing("cid")),
            false => Ok(item),
        }
    }

    fn set(&mut self, key: &str, value: Value<'a>) -> Result<(), Error> {
        match key {
            "code" => self.code = u16::try_from(int("code", value)?).ok(),
            "reason" => self.reason = bytes("reason", value)?,
            "uri" => self.uri = text("uri", value)?,
            "debug" => self.debug = truth("debug", value)?,
            "route" => self.route = text("route", value)?,
            "separate-stats" => self.separate_stats = truth("separate-stats", value)?,
            "channel-prefix" => self.channel_prefix = text("channel-prefix", value)?,
            "log-level" => self.log_level = Some(int("log-level", value)?),
            "trusted" => self.trusted = truth("trusted", value)?,
            "multi" => self.multi = value.as_bool().unwrap_or(false),
            "channel" => self.channel = text("channel", value)?,
            "ttl" => self.ttl_s = Some(seconds("ttl", value)?),
            "timeout" => self.timeout_s = Some(seconds("timeout", value)?),
            "keep-alive-mode" => {
                self.interval_mode = bytes("keep-alive-mode", value)? == b"interval";
            }
            _ => {}
        }
        Ok(())
    }

    fn write(&self, w: &mut Writer) {
        w.map(|w| {
            if self.cids.is_empty() {
                w.str("cid");
                w.bytes(self.cid);
            } else {
                w.str("cids");
                w.list(|w| self.cids.iter().for_each(|cid| w.bytes(cid)));
            }
            w.str("type");
            w.str(self.kind.name());
            optional(w, "req-id", self.req_id);
            match self.kind {
                Kind::Here => self.write_here(w),
                Kind::KeepAlive => number(w, "ttl", self.ttl_s),
                Kind::Grip => optional(w, "message", Some(self.message)),
                Kind::Subscribe => optional(w, "channel", Some(self.channel.as_bytes())),
                Kind::Send => {
                    optional(w, "content-type", Some(self.content_type.as_bytes()));
                    optional(w, "message", Some(self.message));
                    flag(w, "queue", self.queue);
                }
                Kind::Close => {
                    number(w, "code", self.code.map(u32::from));
                    optional(w, "reason", Some(self.reason).filter(|r| !r.is_empty()));
                }
                Kind::KeepAliveSetup => {
                    number(w, "timeout", self.timeout_s);
                    let mode = if self.interval_mode { "interval" } else { "idle" };
                    optional(w, "keep-alive-mode", self.timeout_s.map(|_| mode.as_bytes()));
                }
                _ => {}
            }
        });
    }

    fn write_here(&self, w: &mut Writer) {
        w.str("uri");
        w.str(self.uri);
        number(w, "ttl", self.ttl_s);
        let present = |text: &'a str| Some(text.as_bytes()).filter(|text| !text.is_empty());
        optional(w, "route", present(self.route));
        optional(w, "channel-prefix", present(self.channel_prefix));
        flag(w, "debug", self.debug);
        flag(w, "separate-stats", self.separate_stats);
        flag(w, "trusted", self.trusted);
        flag(w, "multi", self.multi);
        if let Some(level) = self.log_level {
            w.str("log-level");
            w.int(level);
        }
    }
}

fn cids<'a>(value: Value<'a>) -> Result<Vec<&'a [u8]>, Error> {
    let list = value.as_list().ok_or(Error::Type("cids"))?;
    let mut out = Vec::new();
    for cid in list.iter() {
        if out.len() == MAX_CIDS {
            return Err(Error::Type("cids"));
        }
        out.push(bytes("cids", cid?)?);
    }
    Ok(out)
}

/// Below zero counts as zero (spec §6.2).
fn seconds(field: &'static str, value: Value<'_>) -> Result<u32, Error> {
    Ok(int(field, value)?.clamp(0, u32::MAX.into()) as u32)
}

fn number(w: &mut Writer, name: &str, n: Option<u32>) {
    if let Some(n) = n {
        w.str(name);
        w.int(n.into());
    }
}

/// A packet as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Instance id of the sender; empty from old peers.
    pub from: &'a [u8],
    /// In order.
    pub items: Vec<Item<'a>>,
}

impl<'a> Packet<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// If a field has the wrong type, or an item lacks what it must have or is of no known type:
    /// the whole packet is invalid then.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Error> {
        let (mut from, mut items) = (&b""[..], None);
        for entry in root(payload)?.iter() {
            match entry? {
                ("from", value) => from = bytes("from", value)?,
                ("items", value) => {
                    let list = value.as_list().ok_or(Error::Type("items"))?;
                    let parsed = list.iter().map(|item| Item::parse(item?));
                    items = Some(parsed.collect::<Result<_, _>>()?);
                }
                _ => {}
            }
        }
        Ok(Self { from, items: need("items", items)? })
    }
}

/// Appends an item to those of a packet that [`write_packet`] makes.
pub fn write_item(items: &mut Vec<u8>, item: &Item<'_>) {
    let mut w = Writer::append_to(std::mem::take(items));
    item.write(&mut w);
    *items = w.into_vec();
}

/// A packet. `from`: the sender's instance id; `items`: made by [`write_item`].
pub fn write_packet(from: &[u8], items: &[u8]) -> Vec<u8> {
    let mut w = Writer::append_to(Vec::with_capacity(items.len() + from.len() + 48));
    w.map(|w| {
        w.str("from");
        w.bytes(from);
        w.str("items");
        w.list(|w| w.raw(items));
    });
    w.into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_kinds() -> Vec<Item<'static>> {
        NAMES
            .iter()
            .map(|(kind, _)| match kind {
                Kind::Here => Item {
                    uri: "ws://h/",
                    ttl_s: Some(60),
                    route: "r",
                    channel_prefix: "p-",
                    debug: true,
                    separate_stats: true,
                    trusted: true,
                    multi: true,
                    log_level: Some(0),
                    req_id: Some(b"0"),
                    ..Item::new(b"c", *kind)
                },
                Kind::KeepAlive => Item { ttl_s: Some(60), ..Item::new(b"c", *kind) },
                Kind::Grip => Item { message: b"{}", ..Item::new(b"c", *kind) },
                Kind::Subscribe => Item { channel: "ch", ..Item::new(b"c", *kind) },
                Kind::Send => Item {
                    cids: vec![b"c", b"d"],
                    content_type: "text",
                    message: b"m",
                    queue: true,
                    ..Item::new(b"", *kind)
                },
                Kind::Close => Item { code: Some(1001), reason: b"x", ..Item::new(b"c", *kind) },
                Kind::KeepAliveSetup => {
                    Item { timeout_s: Some(5), interval_mode: true, ..Item::new(b"c", *kind) }
                }
                _ => Item::new(b"c", *kind),
            })
            .collect()
    }

    #[test]
    fn every_kind_survives_the_way() {
        let items = all_kinds();
        let mut list = Vec::new();
        items.iter().for_each(|item| write_item(&mut list, item));
        let out = write_packet(b"px", &list);
        let packet = Packet::parse(&out).unwrap();
        assert_eq!((packet.from, packet.items), (&b"px"[..], items));
    }

    #[test]
    fn what_makes_a_packet_invalid() {
        let whole = |item: &str| {
            let list = format!("{}:{item}]", item.len());
            let map = format!("5:items,{list}");
            format!("{}:{map}}}", map.len()).into_bytes()
        };
        let parse = |item: &str| Packet::parse(&whole(item)).map(|_| ());
        assert_eq!(parse("24:3:cid,1:c,4:type,4:gone,}"), Ok(()));
        assert_eq!(parse("24:3:cid,1:c,4:type,4:what,}"), Err(Error::Type("type")));
        assert_eq!(parse("14:4:type,4:gone,}"), Err(Error::Missing("cid")));
        assert_eq!(parse("10:3:cid,1:c,}"), Err(Error::Missing("type")));
        assert_eq!(Packet::parse(b"0:}").unwrap_err(), Error::Missing("items"));
        let many = "1:c,".repeat(MAX_CIDS + 1);
        let cids = format!("4:cids,{}:{many}]4:type,4:send,", many.len());
        assert_eq!(parse(&format!("{}:{cids}}}", cids.len())), Err(Error::Type("cids")));
    }

    #[test]
    fn negative_numbers_are_read_as_absent_or_zero() {
        let item = "3:cid,1:c,4:type,5:close,4:code,2:-1#7:timeout,2:-5#";
        let list = format!("{}:{item}}}", item.len());
        let map = format!("5:items,{}:{list}]", list.len());
        let payload = format!("{}:{map}}}", map.len());
        let packet = Packet::parse(payload.as_bytes()).unwrap();
        assert_eq!((packet.items[0].code, packet.items[0].timeout_s), (None, Some(0)));
    }
}
