//! tnetstrings and ZHTTP packets: any bytes are read or refused, and what was read is written to
//! bytes that read the same.

use ::tnetstring::{Value, Writer, parse, parse_all};
use ::zhttp::{Head, Id, Packet, route, split, write};

/// Nesting up to which values are looked into.
const DEPTH_MAX: usize = 40;

/// Reads the bytes as one frame and writes it again.
pub fn tnetstring(data: &[u8]) {
    let Ok((value, rest)) = parse(data) else { return };
    let used = &data[..data.len() - rest.len()];
    assert_eq!(parse_all(used).map(|v| canonical(&v)), Ok(canonical(&value)));
    if let Some(again) = canonical(&value) {
        let value = parse_all(&again).expect("what was written is read");
        assert_eq!(canonical(&value).as_deref(), Some(&again[..]));
    }
}

/// The value written again; nothing if a part of it cannot be read.
fn canonical(value: &Value<'_>) -> Option<Vec<u8>> {
    let mut writer = Writer::new();
    copy(value, &mut writer, 0).then(|| writer.into_vec())
}

fn copy(value: &Value<'_>, w: &mut Writer, depth: usize) -> bool {
    if depth > DEPTH_MAX {
        return false;
    }
    let mut sound = true;
    match value {
        Value::Bytes(bytes) => w.bytes(bytes),
        Value::Int(n) => w.int(*n),
        Value::Float(n) => w.float(*n),
        Value::Bool(b) => w.bool(*b),
        Value::Null => w.null(),
        Value::List(list) => w.list(|w| {
            sound = list.iter().all(|item| item.is_ok_and(|item| copy(&item, w, depth + 1)));
        }),
        Value::Map(map) => w.map(|w| {
            sound = map.iter().all(|entry| {
                entry.is_ok_and(|(key, value)| {
                    w.str(key);
                    copy(&value, w, depth + 1)
                })
            });
        }),
    }
    sound
}

/// Reads the bytes as a message of packets, and as a message with frames around a packet.
pub fn zhttp(data: &[u8]) {
    let mut total = 0;
    for bytes in split(data) {
        total += bytes.len();
        if let Ok(packet) = Packet::parse(bytes) {
            rewrite(&packet);
        }
    }
    assert!(total <= data.len());
    if let Ok(inner) = route::published(b"me", data) {
        let _ = Packet::parse(inner);
    }
    let frames: Vec<&[u8]> = data.split(|byte| *byte == 0xff).collect();
    let _ = route::routed(&frames);
}

fn rewrite(packet: &Packet<'_>) {
    let ids: Vec<Id<'_>> = packet.ids.iter().collect();
    assert_eq!(ids.len(), packet.ids.len());
    assert!(ids.len() <= ::zhttp::MAX_IDS);
    if ids.is_empty() {
        // Req mode only, where nothing is written this way.
        return;
    }
    let head = Head { from: packet.from, ids: &ids, ext: packet.ext };
    let mut out = Vec::new();
    write(&mut out, &head, |f| {
        f.kind(packet.kind).method(packet.method).uri(packet.uri);
        f.header_list(packet.headers).body(packet.body).credits(packet.credits);
        f.flag("more", packet.more);
    });
    let again = Packet::parse(&out).expect("what was written is read");
    assert_eq!(again.from, packet.from);
    assert_eq!(again.ids.iter().collect::<Vec<_>>(), ids);
    assert_eq!((again.method, again.uri, again.body), (packet.method, packet.uri, packet.body));
    assert_eq!((again.credits, again.more), (packet.credits, packet.more));
    assert!(again.headers.iter().eq(packet.headers.iter()));
}
