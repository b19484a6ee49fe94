mod content;

use proptest::prelude::*;

use super::*;

fn instruct(headers: &[(&str, &str)]) -> Result<Instruct, String> {
    with_body(headers, "")
}

fn with_body(headers: &[(&str, &str)], body: &str) -> Result<Instruct, String> {
    let headers: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
    let response =
        ResponseHead { code: 200, reason: "OK", headers: &headers, body: body.as_bytes() };
    Instruct::parse("http://api.example/a/b?c", &response)
}

fn json(body: &str) -> Result<Instruct, String> {
    with_body(&[("Content-Type", "application/grip-instruct; x=y")], body)
}

#[test]
fn a_stream_hold_with_all_its_headers() {
    let i = with_body(
        &[
            ("Content-Type", "text/event-stream"),
            ("grip-hold", "stream"),
            ("Grip-Channel", "room-7; prev-id=4; filter=skip-self, b;Prev-ID=\"x,\\\"y\""),
            ("Grip-Channel", " c ,"),
            ("Grip-Keep-Alive", ":\\n\\n; format=cstring; timeout=55"),
            ("Grip-Set-Meta", "user=\"ann\", a=1; b=2"),
            ("Grip-Link", "</next?x=1>; rel=next; timeout=3, <http://h/g>; rel=gone"),
            ("Connection", "close"),
            ("Content-Length", "5"),
        ],
        "hello",
    )
    .unwrap();
    assert_eq!(i.hold, Some(HoldMode::Stream));
    let names: Vec<_> = i.channels.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["room-7", "b", "c"]);
    assert_eq!(i.channels[0].prev_id.as_deref(), Some("4"));
    assert_eq!(i.channels[0].filters, ["skip-self"]);
    assert_eq!(i.channels[1].prev_id.as_deref(), Some("x,\"y"));
    let keep_alive = i.keep_alive.unwrap();
    assert_eq!((&keep_alive.data[..], keep_alive.timeout_s), (&b":\n\n"[..], 55));
    assert_eq!(keep_alive.mode, KeepAliveMode::Idle);
    assert_eq!(
        i.meta.into_iter().collect::<Vec<_>>(),
        [("a".to_owned(), "1".to_owned()), ("user".to_owned(), "ann".to_owned())]
    );
    let next = i.next.unwrap();
    assert_eq!((next.url.as_str(), next.timeout_s), ("http://api.example/next?x=1", 3));
    assert_eq!(i.gone.as_deref(), Some("http://h/g"));
    assert_eq!(i.reply.headers, [("Content-Type".to_owned(), b"text/event-stream".to_vec())]);
    assert_eq!(
        (i.reply.code, i.reply.reason.as_str(), &i.reply.body[..]),
        (200, "OK", &b"hello"[..])
    );
}

#[test]
fn defaults_and_limits_of_the_headers() {
    let i = instruct(&[("Grip-Hold", "response")]).unwrap();
    assert_eq!((i.timeout_s, i.keep_alive, i.channels.len()), (55, None, 0));
    assert_eq!(instruct(&[("Grip-Timeout", " 3 ")]).unwrap().timeout_s, 5);
    let keep = |line| instruct(&[("Grip-Keep-Alive", line)]).unwrap().keep_alive.unwrap();
    assert_eq!(keep("a, b").data, b"a, b");
    assert_eq!(keep("a;timeout=0").timeout_s, 1);
    assert_eq!(keep("YWI=;format=base64;mode=interval").data, b"ab");
    assert_eq!(keep("\\x41\\q\\\\;format=cstring").data, b"A\\");
    let i = instruct(&[
        ("Grip-Status", "404"),
        ("Grip-Expose-Headers", "x-a"),
        ("X-A", "1"),
        ("X-B", "2"),
    ])
    .unwrap();
    assert_eq!((i.reply.code, i.reply.reason.as_str()), (404, "Not Found"));
    assert_eq!(i.reply.headers.len(), 1);
    let i = instruct(&[("Grip-Status", "299 Very well")]).unwrap();
    assert_eq!((i.reply.code, i.reply.reason.as_str()), (299, "Very well"));
}

#[test]
fn error_texts_of_the_headers() {
    for (name, value, text) in [
        ("Grip-Hold", "Stream", "Grip-Hold must be set to either 'response' or 'stream'"),
        (
            "Grip-Channel",
            "n; filter=a; filter=a; filter=a; filter=a; filter=a; filter=a",
            "too many filters for channel 'n'",
        ),
        ("Grip-Timeout", "x", "failed to parse Grip-Timeout"),
        ("Grip-Timeout", "-1", "Grip-Timeout has invalid value"),
        ("Grip-Keep-Alive", ";timeout=1", "Grip-Keep-Alive cannot be empty"),
        ("Grip-Keep-Alive", "a;mode=x", "no such Grip-Keep-Alive mode 'x'"),
        ("Grip-Keep-Alive", "a;timeout=x", "failed to parse Grip-Keep-Alive timeout value"),
        ("Grip-Keep-Alive", "a;timeout=-2", "Grip-Keep-Alive timeout has invalid value"),
        ("Grip-Keep-Alive", "a;format=x", "no such Grip-Keep-Alive format 'x'"),
        ("Grip-Keep-Alive", "a\\;format=cstring", "failed to parse Grip-Keep-Alive cstring format"),
        ("Grip-Keep-Alive", "\\q;format=cstring", "failed to parse Grip-Keep-Alive cstring format"),
        ("Grip-Set-Meta", "a=1,,b=2", "Grip-Set-Meta cannot be empty"),
        ("Grip-Link", "/x; rel=next", "failed to parse Grip-Link value"),
        ("Grip-Link", "<http://[x>; rel=next", "Grip-Link contains invalid link"),
        ("Grip-Link", "</x>; rel=next; timeout=a", "failed to parse Grip-Link timeout value"),
        ("Grip-Link", "</x>; rel=next; timeout=-1", "Grip-Link timeout has invalid value"),
        ("Grip-Status", "1000", "Grip-Status contains invalid status code"),
    ] {
        assert_eq!(instruct(&[(name, value)]).unwrap_err(), text, "{name}: {value}");
    }
}

#[test]
fn a_json_instruction() {
    let i = json(
        r#"{"hold": {"mode": "stream", "channels": [{"name": "room-7", "filters": ["skip-self"]}],
          "keep-alive": {"content": "\n", "timeout": 20}, "meta": {"user": "ann"}},
 "response": {"code": "402", "headers": {"Content-Type": "text/plain"}, "body": "hello\n"}}"#,
    )
    .unwrap();
    assert_eq!(i.hold, Some(HoldMode::Stream));
    assert_eq!(i.channels[0].name, "room-7");
    let keep_alive = i.keep_alive.unwrap();
    assert_eq!((keep_alive.mode, keep_alive.timeout_s), (KeepAliveMode::Interval, 20));
    assert_eq!((i.reply.code, i.reply.reason.as_str()), (402, "Payment Required"));
    assert_eq!(i.reply.headers, [("Content-Type".to_owned(), b"text/plain".to_vec())]);
    assert_eq!(i.reply.body, b"hello\n");
}

#[test]
fn error_texts_of_the_json_form() {
    for (body, text) in [
        ("not json", "failed to parse application/grip-instruct content as JSON"),
        ("5", "failed to parse application/grip-instruct content as JSON"),
        ("[]", "instruct must be an object"),
        (r#"{"hold":[]}"#, "instruct contains 'hold' with wrong type"),
        (r#"{"hold":{"mode":1}}"#, "hold contains 'mode' with wrong type"),
        (
            r#"{"hold":{"mode":"x","channels":[]}}"#,
            "hold 'mode' must be set to either 'response' or 'stream'",
        ),
        (r#"{"hold":{}}"#, "hold does not contain 'channels'"),
        (r#"{"hold":{"channels":{}}}"#, "hold contains 'channels' with wrong type"),
        (r#"{"hold":{"channels":[1]}}"#, "channel is not an object"),
        (r#"{"hold":{"channels":[{}]}}"#, "channel does not contain 'name'"),
        (r#"{"hold":{"channels":[{"name":null}]}}"#, "channel contains 'name' with wrong type"),
        (
            r#"{"hold":{"channels":[{"name":"a","filters":[1]}]}}"#,
            "filters contains value with wrong type",
        ),
        (r#"{"hold":{"channels":[],"timeout":-1}}"#, "hold contains 'timeout' with invalid value"),
        (r#"{"hold":{"channels":[],"timeout":null}}"#, "hold contains 'timeout' with wrong type"),
        (
            r#"{"hold":{"channels":[],"keep-alive":1}}"#,
            "hold contains 'keep-alive' with wrong type",
        ),
        (
            r#"{"hold":{"channels":[],"keep-alive":{"content":1}}}"#,
            "keep-alive contains 'content' with wrong type",
        ),
        (r#"{"hold":{"channels":[],"meta":{"a":1}}}"#, "'meta' contains 'a' with wrong type"),
        (r#"{"response":1}"#, ""),
        (r#"{"response":{"code":99999}}"#, "response contains 'code' with invalid value"),
        (r#"{"response":{"headers":"x"}}"#, "response contains 'headers' with wrong type"),
        (r#"{"response":{"headers":[1]}}"#, "headers contains element with wrong type"),
        (
            r#"{"response":{"headers":[["a"]]}}"#,
            "headers contains list with wrong number of elements",
        ),
        (r#"{"response":{"headers":[[1,"a"]]}}"#, "header contains name element with wrong type"),
        (r#"{"response":{"headers":[["a",1]]}}"#, "header contains value element with wrong type"),
        (r#"{"response":{"headers":{"a":1}}}"#, "headers contains 'a' with wrong type"),
        ("{}", "filter error: "),
    ] {
        assert_eq!(json(body).unwrap_err(), text, "{body}");
    }
    assert!(json(r#"{"response":{"body":""}}"#).is_ok());
}

fn item(text: &str) -> Result<Item, String> {
    let value = Value::from_json(text.as_bytes()).unwrap();
    Item::from_json(&value, None).map_err(|error| error.to_string())
}

#[test]
fn items_of_both_encodings_are_equal() {
    let from_json = item(
        r#"{"channel":"c","id":"2","prev-id":"1","meta":{"sender":"s"},"size":3,"no-seq":true,
        "formats":{"http-stream":{"content":"hi"},"http-response":{"body":"hi","code":201},
        "ws-message":{"content":"hi"},"other":1}}"#,
    )
    .unwrap();
    let mut w = tnetstring::Writer::new();
    w.map(|w| {
        for (key, value) in [("channel", "c"), ("id", "2"), ("prev-id", "1")] {
            w.str(key);
            w.str(value);
        }
        w.str("meta");
        w.map(|w| ["sender", "s"].iter().for_each(|text| w.str(text)));
        w.str("size");
        w.int(3);
        w.str("no-seq");
        w.bool(true);
        w.str("formats");
        w.map(|w| {
            w.str("http-stream");
            w.map(|w| ["content", "hi"].iter().for_each(|text| w.str(text)));
            w.str("http-response");
            w.map(|w| {
                ["body", "hi", "code"].iter().for_each(|text| w.str(text));
                w.int(201);
            });
            w.str("ws-message");
            w.map(|w| ["content", "hi"].iter().for_each(|text| w.str(text)));
        });
    });
    let value = Value::from_tnetstring(&w.into_vec().into()).unwrap();
    assert_eq!(Item::from_tnetstring(&value, None).unwrap(), from_json);
    assert_eq!(from_json.response.as_ref().unwrap().reason, "Created");
    assert_eq!(Item::from_tnetstring(&value, Some("topic")).unwrap().channel, "topic");
}

#[test]
fn short_forms_binary_content_and_actions() {
    let i = item(r#"{"channel":"c","http-stream":{"content-bin":"AP8=","content":"x"}}"#).unwrap();
    assert_eq!(&i.stream.unwrap().content[..], b"\0\xff");
    let i = item(r#"{"channel":"c","http-stream":{"action":"close","content":5}}"#).unwrap();
    assert_eq!(i.stream.unwrap().action, Action::Close);
    let i = item(r#"{"channel":"c","ws-message":{"content-bin":"AP8="}}"#).unwrap();
    assert_eq!(i.ws.unwrap().kind, WsType::Binary);
    let i = item(r#"{"channel":"c","ws-message":{"action":"close","code":1000,"reason":"r"}}"#)
        .unwrap();
    assert_eq!(i.ws.unwrap().code, Some(1000));
    assert!(item(r#"{"channel":"c","formats":{"other":{}}}"#).is_ok());
}

#[test]
fn error_texts_of_items() {
    for (body, text) in [
        ("[]", "publish item object is not an object"),
        ("{}", "publish item object does not contain 'channel'"),
        (r#"{"channel":5}"#, "publish item object contains 'channel' with wrong type"),
        (r#"{"channel":"a"}"#, "no formats specified"),
        (r#"{"channel":"a","formats":{}}"#, "no formats specified"),
        (
            r#"{"channel":"a","formats":[]}"#,
            "publish item object contains 'formats' with wrong type",
        ),
        (
            r#"{"channel":"a","meta":"m","http-stream":{"content":""}}"#,
            "publish item object contains 'meta' with wrong type",
        ),
        (
            r#"{"channel":"a","meta":{"k":1},"http-stream":{"content":""}}"#,
            "'meta' contains 'k' with wrong type",
        ),
        (
            r#"{"channel":"a","size":-1,"http-stream":{"content":""}}"#,
            "publish item object contains 'size' with invalid value",
        ),
        (
            r#"{"channel":"a","no-seq":1,"http-stream":{"content":""}}"#,
            "publish item object contains 'no-seq' with wrong type",
        ),
    ] {
        assert_eq!(item(body).unwrap_err(), text, "{body}");
    }
}

#[test]
fn error_texts_of_formats() {
    for (body, text) in [
        (r#"{"channel":"a","http-stream":[]}"#, "'http-stream' is not an object"),
        (
            r#"{"channel":"a","http-stream":{}}"#,
            "'http-stream' does not contain 'content' or 'content-bin'",
        ),
        (
            r#"{"channel":"a","http-stream":{"content":1}}"#,
            "'http-stream' contains 'content' with wrong type",
        ),
        (r#"{"channel":"a","http-stream":{"action":"explode"}}"#, ""),
        (
            r#"{"channel":"a","http-stream":{"content":"","content-filters":1}}"#,
            "'http-stream' contains 'content-filters' with wrong type",
        ),
        (
            r#"{"channel":"a","http-stream":{"content":"","content-filters":[1]}}"#,
            "content-filters contains element with wrong type",
        ),
        (
            r#"{"channel":"a","http-response":{}}"#,
            "'http-response' does not contain 'body', 'body-bin', or 'body-patch'",
        ),
        (
            r#"{"channel":"a","http-response":{"code":5000,"body":""}}"#,
            "'http-response' contains 'code' with invalid value",
        ),
        (
            r#"{"channel":"a","http-response":{"headers":1,"body":""}}"#,
            "'http-response' contains 'headers' with wrong type",
        ),
        (
            r#"{"channel":"a","ws-message":{}}"#,
            "'ws-message' does not contain 'content' or 'content-bin'",
        ),
        (
            r#"{"channel":"a","ws-message":{"type":"odd","content":""}}"#,
            "'ws-message' contains 'type' with unknown value",
        ),
    ] {
        assert_eq!(item(body).unwrap_err(), text, "{body}");
    }
}

#[test]
fn error_texts_of_lists_of_items() {
    let items = |text: &str| parse_items(&Value::from_json(text.as_bytes()).unwrap(), true);
    assert_eq!(items("[]").unwrap_err(), "Invalid format.");
    assert_eq!(items("{}").unwrap_err(), "Invalid format: object does not contain 'items'");
    assert_eq!(
        items(r#"{"items":{}}"#).unwrap_err(),
        "Invalid format: object contains 'items' with wrong type"
    );
    assert_eq!(
        items(r#"{"items":[{}]}"#).unwrap_err(),
        "Invalid format: publish item object does not contain 'channel'"
    );
    assert_eq!(items(r#"{"items":[]}"#).unwrap(), []);
}

#[test]
fn base64_is_lenient() {
    for (text, bytes) in [
        ("YWJj", &b"abc"[..]),
        ("YW Jj\n", b"abc"),
        ("YQ==", b"a"),
        ("YQ", b"a"),
        ("!", b""),
        ("Y", b""),
    ] {
        assert_eq!(base64::decode(text.as_bytes()), bytes, "{text}");
    }
}

#[test]
fn how_messages_are_framed_is_not_for_documents_and_items_to_say() {
    let headers = r#"[["content-length", "5"], ["Transfer-Encoding", "chunked"], ["A", "b"],
        ["Connection", "close"], ["Keep-Alive", "x"], ["Content-Encoding", "gzip"]]"#;
    let left = |headers: &Headers| -> Vec<String> {
        headers.iter().map(|(name, _)| name.clone()).collect()
    };
    let i = json(&format!(r#"{{"response": {{"headers": {headers}, "body": ""}}}}"#)).unwrap();
    assert_eq!(left(&i.reply.headers), ["A", "Content-Encoding"]);
    let i = json(r#"{"response": {"headers": {"Content-Length": "5"}, "body": ""}}"#).unwrap();
    assert!(i.reply.headers.is_empty());
    let i = item(&format!(
        r#"{{"channel": "c", "http-response": {{"headers": {headers}, "body": ""}}}}"#
    ));
    assert_eq!(left(&i.unwrap().response.unwrap().headers), ["A", "Content-Encoding"]);
}

#[test]
fn headers_of_an_answer() {
    let list = |pairs: &[(&str, &str)]| -> Headers {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())).collect()
    };
    let base = list(&[("X-A", "1"), ("X-B", "2"), ("x-hide", "3")]);
    let item = list(&[("x-a", "9"), ("Grip-Foo", "z"), ("Grip-Expose-Headers", "X-Hide, y")]);
    let merged = merge_headers(&base, &item, 200, 5);
    assert_eq!(merged, list(&[("X-B", "2"), ("x-a", "9"), ("Content-Length", "5")]));
    assert_eq!(merge_headers(&base, &Headers::new(), 304, 5), base);
}

#[test]
fn a_message_has_one_item_or_several() {
    let message = |text: &str, topic| {
        let items = parse_message(&Value::from_json(text.as_bytes()).unwrap(), topic, true);
        items.map(|items| items.into_iter().map(|item| item.channel).collect::<Vec<_>>())
    };
    let one = r#"{"channel":"a","http-stream":{"content":"x"}}"#;
    let bare = r#"{"http-stream":{"content":"x"}}"#;
    assert_eq!(message(one, None).unwrap(), ["a"]);
    assert_eq!(message(&format!(r#"{{"items":[{one},{one}]}}"#), None).unwrap(), ["a", "a"]);
    assert_eq!(message(&format!(r#"{{"items":[{one},{bare}]}}"#), Some("t")).unwrap(), ["t", "t"]);
    assert_eq!(message(r#"{"items":[]}"#, None).unwrap(), Vec::<String>::new());
    let error = message(&format!(r#"{{"items":[{one},{bare}]}}"#), None).unwrap_err();
    assert_eq!(error.to_string(), "publish item object does not contain 'channel'");
    let error = message(r#"{"items":5}"#, None).unwrap_err();
    assert_eq!(error.to_string(), "object contains 'items' with wrong type");
    // It has formats of its own: an item, whatever else is in it.
    let text = r#"{"items":5,"channel":"b","formats":{"http-stream":{"content":"x"}}}"#;
    assert_eq!(message(text, None).unwrap(), ["b"]);
}

proptest! {
    /// Channels written out as headers are read as what they were.
    #[test]
    fn channels_are_read_as_they_were_written(
        channels in prop::collection::vec(
            ("[a-zA-Z0-9_/-]{1,12}", prop::option::of("[a-z0-9:\"\\\\, ;]{1,8}"),
             prop::collection::vec("skip-self|var-subst|other", 0..5)),
            0..5,
        ),
        one_line in any::<bool>(),
    ) {
        let quoted = |id: &str| id.replace('\\', "\\\\").replace('"', "\\\"");
        let lines: Vec<String> = channels
            .iter()
            .map(|(name, prev, filters)| {
                let prev = prev.iter().map(|id| format!("; prev-id=\"{}\"", quoted(id)));
                let filters = filters.iter().map(|filter| format!("; filter={filter}"));
                name.clone() + &prev.chain(filters).collect::<String>()
            })
            .collect();
        let joined = lines.join(", ");
        let headers: Vec<(&str, &str)> = match one_line {
            true => vec![("Grip-Channel", joined.as_str())],
            false => lines.iter().map(|line| ("grip-channel", line.as_str())).collect(),
        };
        let read = instruct(&headers).unwrap().channels;
        prop_assert_eq!(read.len(), channels.len());
        for (read, (name, prev, filters)) in read.iter().zip(&channels) {
            prop_assert_eq!(&read.name, name);
            prop_assert_eq!(&read.prev_id, prev);
            prop_assert_eq!(&read.filters, filters);
        }
    }

    #[test]
    #[test]
    fn no_header_panics(name in "Grip-(Hold|Channel|Timeout|Keep-Alive|Set-Meta|Link|Status|Expose-Headers)", value in "[ -~]{0,40}", raw in any::<Vec<u8>>()) {
        let _ = instruct(&[(&name, &value)]);
        let response = ResponseHead { code: 200, reason: "", headers: &[(&name, &raw)], body: b"" };
        let _ = Instruct::parse("http://h/", &response);
    }

    #[test]
    fn no_document_panics(text in any::<Vec<u8>>(), keys in "[{}\\[\\]\":,a-z0-9 ]{0,60}") {
        for text in [&text[..], keys.as_bytes()] {
            if let Some(value) = Value::from_json(text) {
                let _ = Item::from_json(&value, None);
            }
            if let Some(value) = Value::from_tnetstring(&text.to_vec().into()) {
                let _ = Item::from_tnetstring(&value, Some("t"));
            }
        }
        let _ = json(&keys);
    }

    #[test]
    fn list_pieces_never_lose_text(line in "[a-z,\"\\\\; ]{0,30}") {
        let kept: usize = list_pieces(&line).iter().map(|piece| piece.len()).sum();
        prop_assert!(kept <= line.len());
    }
}

#[test]
fn a_json_document_may_begin_with_the_mark_of_utf_8() {
    let document = Value::from_json(b"\xef\xbb\xbf{\"a\":1}").unwrap();
    assert_eq!(document.get("a"), Some(&Value::Int(1)));
    assert_eq!(Value::from_json(b"{\"a\":1}\xef\xbb\xbf"), None);
}

#[test]
fn halves_of_a_character_are_question_marks() {
    for (escapes, text) in [
        (r"a\ud83db", "a?b"),
        (r"\udc00", "?"),
        (r"\uDE00\ud83D", "??"),
        (r"\ud83d\ud83d\ude00", "?\u{1f600}"),
        (r"\ud83d\n", "?\n"),
        (r"\ud83d\\ud83d", r"?\ud83d"),
    ] {
        let read = Value::from_json(format!("\"{escapes}\"").as_bytes());
        assert_eq!(read, Some(Value::Str(text.to_owned().into())), "{escapes}");
    }
    for text in [r#"["\ud83d"#, r#""\ud83"#, r#""\ud83x""#, r#""\"#, r#""\ud83d\x""#] {
        assert_eq!(Value::from_json(text.as_bytes()), None, "{text}");
    }
}

proptest! {
    #[test]
    fn escapes_never_panic(text in r#"["\\ud83ce0x]{0,24}"#) {
        Value::from_json(text.as_bytes());
    }
}
