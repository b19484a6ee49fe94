//! The item and its two encodings (spec/publish.md §3): JSON for HTTP, tnetstring for ZeroMQ.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tnetstring::Writer;

/// One item of the publisher.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The channel.
    pub channel: Vec<u8>,
    /// Its identity.
    pub id: Option<String>,
    /// The identity of the item before it.
    pub prev_id: Option<String>,
    /// Names and values.
    pub meta: Vec<(String, String)>,
    /// Past the sequencing.
    pub no_seq: bool,
    /// What to do.
    pub content: Content,
}

/// What an item does.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Send bytes in all three formats.
    Send {
        /// Of the response.
        code: u16,
        /// Of the response.
        headers: Vec<(String, String)>,
        /// The payload.
        bytes: Vec<u8>,
        /// Whether a newline follows in the two HTTP formats.
        eol: bool,
    },
    /// Patch the response that the backend gave.
    Patch {
        /// Of the response.
        code: u16,
        /// Of the response.
        headers: Vec<(String, String)>,
        /// The operations.
        patch: Vec<Value>,
    },
    /// Tell that there is something new.
    Hint,
    /// Close streams and WebSockets.
    Close,
}

const RESPONSE: &str = "http-response";
const STREAM: &str = "http-stream";
const MESSAGE: &str = "ws-message";

impl Item {
    /// The body of a publish by HTTP. Bytes that are not UTF-8 become base64 under the key with
    /// `-bin`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut item = json!({
            "channel": String::from_utf8_lossy(&self.channel),
            "formats": self.json_formats(),
        });
        if let Some(id) = &self.id {
            item["id"] = json!(id);
        }
        if let Some(id) = &self.prev_id {
            item["prev-id"] = json!(id);
        }
        for (name, value) in &self.meta {
            item["meta"][name] = json!(value);
        }
        if self.no_seq {
            item["no-seq"] = json!(true);
        }
        json!({ "items": [item] }).to_string().into_bytes()
    }

    fn json_formats(&self) -> Value {
        match &self.content {
            Content::Hint => {
                let hint = json!({ "action": "hint" });
                json!({ RESPONSE: hint, STREAM: hint, MESSAGE: hint })
            }
            Content::Close => {
                let close = json!({ "action": "close" });
                json!({ STREAM: close, MESSAGE: close })
            }
            Content::Patch { code, headers, patch } => {
                json!({ RESPONSE: response(*code, headers, "body-patch", json!(patch)) })
            }
            Content::Send { code, headers, bytes, eol } => {
                let http = with_eol(bytes, *eol);
                let (body, body_value) = payload("body", &http);
                let (content, value) = payload("content", &http);
                let (message, message_value) = payload("content", bytes);
                json!({
                    RESPONSE: response(*code, headers, &body, body_value),
                    STREAM: { content: value },
                    MESSAGE: { message: message_value },
                })
            }
        }
    }

    /// The frame of a publish by ZeroMQ.
    pub fn to_tnetstring(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(|w| {
            w.str("channel");
            w.bytes(&self.channel);
            w.str("formats");
            w.map(|w| self.tnet_formats(w));
            for (key, id) in [("id", &self.id), ("prev-id", &self.prev_id)] {
                if let Some(id) = id {
                    w.str(key);
                    w.str(id);
                }
            }
            if !self.meta.is_empty() {
                w.str("meta");
                w.map(|w| self.meta.iter().for_each(|(name, value)| text(w, name, value)));
            }
            if self.no_seq {
                w.str("no-seq");
                w.bool(true);
            }
        });
        out.into_vec()
    }

    fn tnet_formats(&self, w: &mut Writer) {
        match &self.content {
            Content::Hint => [RESPONSE, STREAM, MESSAGE].iter().for_each(|f| action(w, f, "hint")),
            Content::Close => [STREAM, MESSAGE].iter().for_each(|f| action(w, f, "close")),
            Content::Patch { code, headers, patch } => tnet_response(w, *code, headers, |w| {
                w.str("body-patch");
                w.list(|w| patch.iter().for_each(|value| tnet_value(w, value)));
            }),
            Content::Send { code, headers, bytes, eol } => {
                let http = with_eol(bytes, *eol);
                tnet_response(w, *code, headers, |w| {
                    w.str("body");
                    w.bytes(&http);
                });
                for (format, bytes) in [(STREAM, &http), (MESSAGE, bytes)] {
                    w.str(format);
                    w.map(|w| {
                        w.str("content");
                        w.bytes(bytes);
                    });
                }
            }
        }
    }
}

fn with_eol(bytes: &[u8], eol: bool) -> Vec<u8> {
    let mut out = bytes.to_owned();
    out.extend(eol.then_some(b'\n'));
    out
}

/// A response object whose payload is `value` under `key`.
fn response(code: u16, headers: &[(String, String)], key: &str, value: Value) -> Value {
    let mut object = json!({ "code": code, key: value });
    if !headers.is_empty() {
        object["headers"] = json!(headers);
    }
    object
}

/// Key and value of bytes in JSON.
fn payload(key: &str, bytes: &[u8]) -> (String, Value) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (key.to_owned(), json!(text)),
        Err(_) => (format!("{key}-bin"), json!(STANDARD.encode(bytes))),
    }
}

fn text(w: &mut Writer, key: &str, value: &str) {
    w.str(key);
    w.str(value);
}

fn action(w: &mut Writer, format: &str, name: &str) {
    w.str(format);
    w.map(|w| text(w, "action", name));
}

fn tnet_response(
    w: &mut Writer,
    code: u16,
    headers: &[(String, String)],
    payload: impl FnOnce(&mut Writer),
) {
    w.str(RESPONSE);
    w.map(|w| {
        w.str("code");
        w.int(i64::from(code));
        if !headers.is_empty() {
            w.str("headers");
            w.list(|w| headers.iter().for_each(|(name, value)| tnet_header(w, name, value)));
        }
        payload(w);
    });
}

fn tnet_header(w: &mut Writer, name: &str, value: &str) {
    w.list(|w| {
        w.str(name);
        w.str(value);
    });
}

fn tnet_value(w: &mut Writer, value: &Value) {
    match value {
        Value::Null => w.null(),
        Value::Bool(b) => w.bool(*b),
        Value::Number(n) => match n.as_i64() {
            Some(n) => w.int(n),
            None => w.float(n.as_f64().unwrap_or_default()),
        },
        Value::String(text) => w.str(text),
        Value::Array(list) => w.list(|w| list.iter().for_each(|value| tnet_value(w, value))),
        Value::Object(map) => w.map(|w| {
            for (key, value) in map {
                w.str(key);
                tnet_value(w, value);
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(content: Content) -> Item {
        let channel = b"ch".to_vec();
        Item { channel, id: None, prev_id: None, meta: vec![], no_seq: false, content }
    }

    fn send(bytes: &[u8], eol: bool) -> Content {
        Content::Send { code: 200, headers: vec![], bytes: bytes.to_owned(), eol }
    }

    fn json_of(item: &Item) -> Value {
        let body: Value = serde_json::from_slice(&item.to_json()).unwrap();
        body["items"][0].clone()
    }

    #[test]
    fn text_in_json() {
        let formats = json!({
            "http-response": { "code": 200, "body": "hello\n" },
            "http-stream": { "content": "hello\n" },
            "ws-message": { "content": "hello" },
        });
        let expected = json!({ "channel": "ch", "formats": formats });
        assert_eq!(json_of(&item(send(b"hello", true))), expected);
    }

    #[test]
    fn bytes_in_json() {
        let formats = json!({
            "http-response": { "code": 200, "body-bin": "/wByYXc=" },
            "http-stream": { "content-bin": "/wByYXc=" },
            "ws-message": { "content-bin": "/wByYXc=" },
        });
        assert_eq!(json_of(&item(send(b"\xff\0raw", false)))["formats"], formats);
    }

    #[test]
    fn everything_around_the_content() {
        let headers = vec![("A".to_owned(), "b".to_owned())];
        let patch = vec![json!({ "n": 1, "x": null, "f": 1.5, "l": [true, "s"] })];
        let content = Content::Patch { code: 404, headers, patch: patch.clone() };
        let meta = vec![("sender".to_owned(), "me".to_owned())];
        let item = Item {
            id: Some("2".into()),
            prev_id: Some("1".into()),
            meta,
            no_seq: true,
            ..item(content)
        };
        let expected = json!({
            "channel": "ch", "id": "2", "prev-id": "1", "meta": { "sender": "me" }, "no-seq": true,
            "formats": { "http-response": {
                "code": 404, "headers": [["A", "b"]], "body-patch": patch,
            } },
        });
        assert_eq!(json_of(&item), expected);
        let expected = "220:7:channel,2:ch,7:formats,126:13:http-response,104:4:code,3:404#7:headers,\
                        11:8:1:A,1:b,]]10:body-patch,48:44:1:f,3:1.5^1:l,11:4:true!1:s,]1:n,1:1#1:x,0:\
                        ~}]}}2:id,1:2,7:prev-id,1:1,4:meta,14:6:sender,2:me,}6:no-seq,4:true!}";
        assert_eq!(String::from_utf8(item.to_tnetstring()).unwrap(), expected);
    }

    #[test]
    fn text_in_tnetstring() {
        let expected = "154:7:channel,2:ch,7:formats,124:13:http-response,29:4:code,3:200#4:body,6:hel\
                        lo\n,}11:http-stream,19:7:content,6:hello\n,}10:ws-message,18:7:content,5:hello\
                        ,}}}";
        let frame = String::from_utf8(item(send(b"hello", true)).to_tnetstring()).unwrap();
        assert_eq!(frame, expected);
    }

    #[test]
    fn actions() {
        let formats = json_of(&item(Content::Hint))["formats"].clone();
        let hint = json!({ "action": "hint" });
        let expected = json!({ "http-response": hint, "http-stream": hint, "ws-message": hint });
        assert_eq!(formats, expected);
        let formats = json_of(&item(Content::Close))["formats"].clone();
        let close = json!({ "action": "close" });
        assert_eq!(formats, json!({ "http-stream": close, "ws-message": close }));
        let frame = String::from_utf8(item(Content::Close).to_tnetstring()).unwrap();
        assert_eq!(frame.matches("6:action,5:close,").count(), 2);
    }
}
