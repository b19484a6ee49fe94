//! The service that keeps GRIP sessions, played by the test.

use tnetstring::{Value, Writer};
use zhttp::Headers;
use zrpc::{Request, Response, inspect};

use super::Bench;

/// A value as text, keys in the order that they came in.
fn shown(value: Value<'_>) -> String {
    if let Some(text) = value.as_str() {
        return text.to_owned();
    }
    if let Some(list) = value.as_list() {
        let items: Vec<String> = list.iter().map(|item| shown(item.unwrap())).collect();
        return format!("[{}]", items.join(" "));
    }
    let entries = value.as_map().unwrap();
    let items: Vec<String> = entries
        .iter()
        .map(|entry| entry.map(|(key, value)| format!("{key}={}", shown(value))).unwrap())
        .collect();
    format!("{{{}}}", items.join(" "))
}

impl Bench {
    /// A proxy asks about a request to `uri` with that body.
    pub fn inspect(&mut self, uri: &str, body: &str) {
        let args = inspect::Args {
            method: "POST",
            uri,
            headers: Headers::EMPTY,
            body: body.as_bytes(),
            truncated: false,
            get_session: true,
            auto_share: false,
        };
        let mut payload = Vec::new();
        zrpc::write_request(&mut payload, None, Some(b"i"), inspect::METHOD, |w| args.write(w));
        self.handler.call(self.now, 0, vec![b"peer".to_vec()], &payload);
        self.settle();
    }

    /// Sessions and last ids of the answered `inspect` calls.
    pub fn inspected(&mut self) -> Vec<String> {
        let replies = std::mem::take(&mut self.replies);
        let read = |reply: &Vec<u8>| {
            let reply = Response::parse(reply).unwrap().result.unwrap();
            let reply = inspect::Reply::parse(reply).unwrap();
            let sid = reply.sid.map(|sid| String::from_utf8_lossy(sid).into_owned());
            let ids = reply.last_ids.iter();
            let ids = ids.map(|(name, id)| format!(" {name}={}", String::from_utf8_lossy(id)));
            sid.unwrap_or_default() + &ids.collect::<String>()
        };
        replies.iter().map(read).collect()
    }

    /// Number, method and arguments of the calls since the last time.
    pub fn state_calls(&mut self) -> Vec<(u64, String)> {
        let calls = std::mem::take(&mut self.state_calls);
        let read = |(call, payload): &(u64, Vec<u8>)| {
            let request = Request::parse(payload).unwrap();
            assert_eq!(request.id, Some(call.to_string().as_bytes()));
            (*call, format!("{} {}", request.method, shown(Value::Map(request.args))))
        };
        calls.iter().map(read).collect()
    }

    /// The service answers with a value.
    pub fn state_knows(&mut self, call: u64, value: impl FnOnce(&mut Writer)) {
        let mut payload = Vec::new();
        zrpc::write_success(&mut payload, Some(call.to_string().as_bytes()), value);
        self.handler.state_reply(self.now, &payload);
        self.settle();
    }

    pub fn state_refuses(&mut self, call: u64) {
        let mut payload = Vec::new();
        let id = call.to_string();
        zrpc::write_error(&mut payload, Some(id.as_bytes()), "item-not-found", None);
        self.handler.state_reply(self.now, &payload);
        self.settle();
    }
}
