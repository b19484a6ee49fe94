use proptest::prelude::*;

use super::*;

fn id(id: &str, seq: u32) -> Id<'_> {
    Id { id: id.as_bytes(), seq: Some(seq) }
}

const MULTI: Ext = Ext { multi: true, batch: false, quiet: false };

/// spec/zhttp.md §11 A.
const REQUEST: &[u8] = b"T280:4:from,3:cm1,2:id,6:0-7-2a,3:seq,1:0#3:ext,15:5:multi,4:true!}6:method,3:GET,3:uri,23:http://api.example/feed,7:headers,53:22:4:Host,11:api.example,]23:6:Accept,10:text/plain,]]7:credits,4:8192#6:stream,4:true!11:router-resp,4:true!12:peer-address,9:192.0.2.9,9:peer-port,5:40312#}";

#[test]
fn the_first_packet_of_the_spec() {
    let p = Packet::parse(REQUEST).unwrap();
    assert_eq!(p.from, b"cm1");
    assert_eq!(p.ids.only(), Some(id("0-7-2a", 0)));
    assert_eq!((p.kind, p.ext), (Kind::Data, MULTI));
    assert_eq!((p.method, p.uri), ("GET", "http://api.example/feed"));
    assert_eq!(p.headers.get("accept"), Some(&b"text/plain"[..]));
    assert_eq!((p.credits, p.stream, p.router_resp, p.more), (8192, true, true, false));
    assert_eq!((p.peer_address, p.peer_port), ("192.0.2.9", Some(40312)));

    let mut out = Vec::new();
    write(&mut out, &Head { from: b"cm1", ids: &[id("0-7-2a", 0)], ext: MULTI }, |f| {
        f.method("GET").uri("http://api.example/feed").headers(p.headers.iter()).credits(8192);
        f.flag("stream", true).flag("router-resp", true).peer("192.0.2.9", 40312);
    });
    assert_eq!(out, REQUEST);
}

#[test]
fn the_batched_keep_alive_of_the_spec() {
    let wire = b"T125:4:from,3:cm1,2:id,57:24:2:id,6:0-7-2a,3:seq,1:2#}25:2:id,6:0-9-31,3:seq,2:14#}]3:ext,15:5:multi,4:true!}4:type,10:keep-alive,}";
    let p = Packet::parse(wire).unwrap();
    let ids: Vec<_> = p.ids.iter().collect();
    assert_eq!(ids, [id("0-7-2a", 2), id("0-9-31", 14)]);
    assert_eq!(p.kind, Kind::KeepAlive);
    let mut out = Vec::new();
    write(&mut out, &Head { from: b"cm1", ids: &ids, ext: MULTI }, |f| {
        f.kind(Kind::KeepAlive);
    });
    assert_eq!(out, wire);
}

#[test]
fn the_handoff_of_the_spec() {
    for (wire, from, seq, kind) in [
        (&b"T60:4:from,2:px,2:id,6:0-7-2a,3:seq,1:2#4:type,13:handoff-start,}"[..], "px", 2, Kind::HandoffStart),
        (b"T88:4:from,3:cm1,2:id,6:0-7-2a,3:seq,1:2#3:ext,15:5:multi,4:true!}4:type,15:handoff-proceed,}", "cm1", 2, Kind::HandoffProceed),
        (b"T82:4:from,2:hd,2:id,6:0-7-2a,3:seq,1:3#4:type,10:keep-alive,3:ext,15:5:multi,4:true!}}", "hd", 3, Kind::KeepAlive),
    ] {
        let p = Packet::parse(wire).unwrap();
        assert_eq!((p.from, p.kind), (from.as_bytes(), kind));
        assert_eq!(p.ids.only(), Some(id("0-7-2a", seq)));
    }
}

#[test]
fn a_req_mode_response_has_no_from() {
    let p = Packet::parse(b"T49:2:id,5:0-2-5,4:code,3:204#6:reason,10:No Content,}").unwrap();
    assert!(p.from.is_empty());
    assert_eq!(p.ids.only(), Some(Id { id: b"0-2-5", seq: None }));
    assert_eq!((p.code, p.reason), (Some(204), "No Content"));
}

/// A packet of the frames in `inner`.
fn packet(inner: &str) -> Vec<u8> {
    format!("T{}:{inner}}}", inner.len()).into_bytes()
}

#[test]
fn what_is_no_packet_is_refused() {
    for (wire, text) in [
        (&b"J2:{}"[..], "unrecognized data format"),
        (b"", "unrecognized data format"),
        (b"T5:3:seq", "unexpected eof"),
        (b"T1:x?", "invalid data"),
        (b"T1:x,", "wrong type string, expected map"),
        (b"T0:]", "wrong type list, expected map"),
    ] {
        assert_eq!(Packet::parse(wire).unwrap_err().to_string(), text, "{wire:?}");
    }
}

#[test]
fn refusals_name_the_field() {
    for (inner, text) in [
        ("3:seq,4:true!", "seq must be of type int"),
        ("3:seq,2:-1#", "seq must not be negative"),
        ("4:code,5:70000#", "code is too large"),
        ("4:more,1:x,", "more must be of type bool"),
        ("4:more,2:5x#", "invalid data"),
        ("2:id,1:5#", "id must be of type map or string"),
        ("2:id,4:1:a,]", "id must be of type map or string"),
        ("3:uri,0:~", "uri must be of type string"),
        ("7:headers,4:1:a,]", "header item must be of type list"),
        ("7:headers,7:4:1:a,]]", "header item must have size 2"),
        ("3:ext,1:x,", "ext must be of type map"),
    ] {
        let error = Packet::parse(&packet(inner)).unwrap_err();
        assert_eq!(error.to_string(), text, "{inner}");
    }
}

#[test]
fn a_port_may_come_as_text() {
    assert_eq!(Packet::parse(&packet("9:peer-port,2:80,")).unwrap().peer_port, Some(80));
    assert_eq!(Packet::parse(&packet("9:peer-port,2:80#")).unwrap().peer_port, Some(80));
}

#[test]
fn unknown_types_and_keys_do_not_break_the_packet() {
    let wire = packet("4:type,4:what,3:foo,3:bar,");
    let p = Packet::parse(&wire).unwrap();
    assert_eq!(p.kind, Kind::Unknown);
}

#[test]
fn up_to_128_ids_and_no_more() {
    let names: Vec<String> = (0..129).map(|n| format!("0-{n}-a")).collect();
    let ids: Vec<Id<'_>> = names.iter().map(|name| id(name, 1)).collect();
    for (count, good) in [(127, true), (128, true)] {
        let mut out = Vec::new();
        write(&mut out, &Head { from: b"h", ids: &ids[..count], ext: MULTI }, |f| {
            f.body(b"x").flag("more", true);
        });
        assert_eq!(Packet::parse(&out).is_ok(), good);
        assert_eq!(Packet::parse(&out).unwrap().ids.iter().count(), count);
    }
    let mut w = tnetstring::Writer::append_to(b"T".to_vec());
    w.map(|w| {
        w.str("id");
        w.list(|w| {
            ids.iter().for_each(|id| {
                w.map(|w| {
                    w.str("id");
                    w.bytes(id.id);
                })
            })
        });
    });
    assert_eq!(Packet::parse(&w.into_vec()).unwrap_err(), Error::TooManyIds);
}

#[test]
fn a_message_is_split_into_its_packets() {
    let one = b"T60:4:from,2:px,2:id,6:0-7-2a,3:seq,1:2#4:type,13:handoff-start,}";
    assert_eq!(split(one).collect::<Vec<_>>(), [one]);
    let two = [&one[..], REQUEST].concat();
    assert_eq!(split(&two).collect::<Vec<_>>(), [&one[..], REQUEST]);
    let junk = [&one[..], b"junk"].concat();
    assert_eq!(split(&junk).collect::<Vec<_>>(), [one]);
    assert_eq!(split(b"junk").collect::<Vec<_>>(), [b"junk"]);
    assert_eq!(split(b"T5:junk").collect::<Vec<_>>(), [b"T5:junk"]);
    assert_eq!(split(b"").collect::<Vec<_>>(), [b""], "no packet either");
}

#[test]
fn frames_around_a_packet() {
    assert_eq!(route::published(b"cm1", &route::publish(b"cm1", b"T")), Ok(&b"T"[..]));
    assert!(route::published(b"cm", b"cm1 T").is_err());
    assert!(route::published(b"cm1", b"cm1").is_err());
    assert_eq!(route::routed(&[&b"px"[..], b"", b"T"]), Ok((&b"px"[..], &b"T"[..])));
    assert!(route::routed(&[&b"px"[..], b"T"]).is_err());
    assert!(route::routed(&[&b"px"[..], b"x", b"T"]).is_err());
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        names in prop::collection::vec("[a-z0-9-]{1,64}", 1..128),
        first_seq in 0u32..1000,
        from in "[a-z_0-9]{1,64}",
        code in prop::option::of(any::<u16>()),
        headers in prop::collection::vec(("[A-Za-z-]{1,20}", any::<Vec<u8>>()), 0..64),
        body in any::<Vec<u8>>(),
        more in any::<bool>(),
        credits in any::<u32>(),
    ) {
        let ids: Vec<Id<'_>> =
            names.iter().enumerate().map(|(n, name)| id(name, first_seq + n as u32)).collect();
        let mut out = b"before".to_vec();
        write(&mut out, &Head { from: from.as_bytes(), ids: &ids, ext: Ext::OURS }, |f| {
            if let Some(code) = code {
                f.status(code, "why");
            }
            f.headers(headers.iter().map(|(n, v)| (n, v))).body(&body).credits(credits);
            f.flag("more", more).user_data(Some(b"1:5#"));
        });
        let p = Packet::parse(&out[6..]).unwrap();
        prop_assert_eq!(p.from, from.as_bytes());
        prop_assert_eq!(p.ids.iter().collect::<Vec<_>>(), ids);
        prop_assert_eq!(p.ext, Ext::OURS);
        prop_assert_eq!(p.code, code);
        prop_assert_eq!(p.body, &body[..]);
        prop_assert_eq!((p.more, p.credits, p.user_data), (more, credits, Some(&b"1:5#"[..])));
        let read: Vec<_> = p.headers.iter().map(|(n, v)| (n.to_owned(), v.to_vec())).collect();
        prop_assert_eq!(&read, &headers);

        let mut kept = HeaderBuf::new();
        headers.iter().for_each(|(name, value)| kept.push(name, value));
        prop_assert_eq!(kept.as_headers(), p.headers);
    }

    #[test]
    fn no_bytes_panic(input in any::<Vec<u8>>(), cut in 0..REQUEST.len(), byte in any::<u8>()) {
        let _ = Packet::parse(&input);
        split(&input).for_each(drop);
        let mut broken = REQUEST.to_vec();
        broken[cut] = byte;
        if let Ok(p) = Packet::parse(&broken) {
            p.ids.iter().for_each(drop);
            p.headers.iter().for_each(drop);
        }
        let _ = Packet::parse(&REQUEST[..cut]);
    }
}
