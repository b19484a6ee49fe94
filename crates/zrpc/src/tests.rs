use proptest::prelude::*;
use tnetstring::Value;
use zhttp::{HeaderBuf, Headers};

use super::*;

fn session() -> Session<'static> {
    Session {
        rid: Rid { sender: b"connmgr", id: b"0-1-2" },
        in_seq: 1,
        out_credits: 8192,
        router_resp: true,
        multi: true,
        batch: true,
        user_data: Some(b"1:5#"),
        peer_address: "127.0.0.1",
        logical_peer_address: "192.0.2.1",
        jsonp_callback: Some(b"cb"),
        ..Session::default()
    }
}

fn request(headers: Headers<'_>) -> HttpRequest<'_> {
    HttpRequest { method: "GET", uri: "http://a/b", headers, body: b"" }
}

#[test]
fn an_accept_call_there_and_back() {
    let mut kept = HeaderBuf::new();
    kept.push("Grip-Hold", b"stream");
    let args = accept::Args {
        requests: vec![session()],
        request: request(kept.as_headers()),
        orig_request: request(Headers::EMPTY),
        response: HttpResponse { code: 200, reason: "OK", headers: kept.as_headers(), body: b"x" },
        inspect: Some(inspect::Reply {
            last_ids: vec![("room", b"1")],
            sid: Some(b"s"),
            ..inspect::Reply::default()
        }),
        route: Some("r"),
        separate_stats: true,
        channel_prefix: Some("p-"),
        log_level: Some(0),
        channels: vec!["a", "b"],
        trusted: true,
        use_session: true,
        response_sent: true,
        conn_max: None,
    };
    let mut out = Vec::new();
    write_request(&mut out, Some(b"proxy_1"), Some(b"7"), accept::METHOD, |w| args.write(w));
    let call = Request::parse(&out).unwrap();
    assert_eq!(
        (call.from, call.id, call.method),
        (Some(&b"proxy_1"[..]), Some(&b"7"[..]), "accept")
    );
    assert_eq!(accept::Args::parse(call.args).unwrap(), args);
}

#[test]
fn an_entry_of_the_old_proxy_is_understood() {
    // spec/internal-rpc.md §11, with the fields of 1.36.
    let mut w = tnetstring::Writer::new();
    w.map(|w| {
        w.str("rid");
        w.map(|w| {
            w.str("sender");
            w.str("condure");
            w.str("id");
            w.str("0-0-0");
        });
        w.str("in-seq");
        w.int(2);
        w.str("out-seq");
        w.int(2);
        w.str("out-credits");
        w.str("8192");
        w.str("response-code");
        w.int(-1);
    });
    let entry = w.into_vec();
    let read = Session::parse(tnetstring::parse(&entry).unwrap().0).unwrap();
    assert_eq!(read.rid, Rid { sender: b"condure", id: b"0-0-0" });
    assert_eq!((read.in_seq, read.out_seq, read.out_credits), (2, 2, 8192));
    assert_eq!((read.response_code, read.router_resp, read.multi), (None, false, false));
}

#[test]
fn what_is_missing_is_named() {
    let mut out = Vec::new();
    write_request(&mut out, None, None, "accept", |_| {});
    let call = Request::parse(&out).unwrap();
    assert_eq!(accept::Args::parse(call.args), Err(Error::Missing("requests")));
    assert_eq!(Request::parse(b"0:}").unwrap_err().to_string(), "'method' is missing");
    let error = Request::parse(b"15:6:method,3:bad]}").unwrap_err();
    assert_eq!(error.to_string(), "'method' has the wrong type");
    let error = Session::parse(Value::Map(tnetstring::Map::EMPTY)).unwrap_err();
    assert_eq!(error, Error::Missing("rid"));
}

#[test]
fn the_replies_of_accept() {
    let response = HttpResponse { code: 404, reason: "", headers: Headers::EMPTY, body: b"no" };
    for reply in
        [accept::Reply::Accepted, accept::Reply::Response(response), accept::Reply::Nothing]
    {
        let mut out = Vec::new();
        write_success(&mut out, Some(b"1"), |w| reply.write(w));
        let answer = Response::parse(&out).unwrap();
        assert_eq!(answer.id, Some(&b"1"[..]));
        assert_eq!(accept::Reply::parse(answer.result.unwrap()), Ok(reply));
    }
    let mut out = Vec::new();
    write_error(&mut out, Some(b"1"), "bad-format", Some(b"why"));
    let (condition, value) = Response::parse(&out).unwrap().result.unwrap_err();
    assert_eq!((condition, accept::error_text(value)), ("bad-format", Some(&b"why"[..])));
}

#[test]
fn inspect_and_retry_there_and_back() {
    let mut kept = HeaderBuf::new();
    kept.push("Host", b"a");
    let args = inspect::Args {
        method: "POST",
        uri: "http://a/",
        headers: kept.as_headers(),
        body: b"b",
        truncated: true,
        get_session: true,
        auto_share: false,
    };
    let mut out = Vec::new();
    write_request(&mut out, None, Some(b"1"), inspect::METHOD, |w| args.write(w));
    assert_eq!(inspect::Args::parse(Request::parse(&out).unwrap().args), Ok(args));

    let packet = retry::Packet {
        requests: vec![session(), session()],
        request: request(kept.as_headers()),
        inspect: Some(inspect::Reply {
            sharing_key: Some(b"k"),
            user_data: Some(b"0:~"),
            ..inspect::Reply::default()
        }),
        route: Some("r"),
        retry_seq: Some(3),
    };
    let mut out = Vec::new();
    packet.write(&mut out);
    assert_eq!(retry::Packet::parse(&out), Ok(packet));
}

proptest! {
    #[test]
    fn no_bytes_panic(input in any::<Vec<u8>>(), at in 0usize..400, byte in any::<u8>()) {
        let _ = Response::parse(&input);
        let _ = retry::Packet::parse(&input);
        let mut out = Vec::new();
        let packet = retry::Packet {
            requests: vec![session()],
            request: request(Headers::EMPTY),
            inspect: None,
            route: Some("r"),
            retry_seq: None,
        };
        packet.write(&mut out);
        let at = at % out.len();
        let _ = retry::Packet::parse(&out[..at]);
        out[at] = byte;
        let _ = retry::Packet::parse(&out);
        write_request(&mut out, None, None, "accept", |w| w.raw(&input));
        if let Ok(call) = Request::parse(&out) {
            let _ = accept::Args::parse(call.args);
        }
    }
}

#[test]
fn errors_name_the_stage_that_failed() {
    for (payload, stage) in [
        ("x", "tnetstring parse failed"),
        ("0:}", "parse failed"),
        ("2:id,", "parse failed"),
        ("13:6:method,1:1#}", "parse failed"),
    ] {
        assert_eq!(Request::parse(payload.as_bytes()).unwrap_err().stage(), stage, "{payload}");
    }
    let line = Request::parse(b"0:}").unwrap_err().skipping("zrpc client");
    let expected = "zrpc client: received message with invalid format (parse failed), skipping: \
                    'method' is missing";
    assert_eq!(line, expected);
}
