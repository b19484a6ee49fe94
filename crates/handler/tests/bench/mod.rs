//! The handler on virtual time, with the sockets' other ends played by the test.

#![allow(dead_code, reason = "each file of tests uses some of it")]

pub mod sockets;
pub mod state;

use grip::{Item, Value};
use handler::{Handler, Output, Settings};
use tnetstring::Writer;
use zhttp::{Ext, Fields, Head, Id, Kind, Packet};
use zrpc::{HttpRequest, HttpResponse, Rid, accept};

/// An accept call in the making.
pub struct Call {
    headers: Vec<(String, String)>,
    body: String,
    id: String,
    manager: String,
    also: Vec<String>,
    credits: u32,
    old: bool,
    minute_counted: bool,
    maxima: Vec<u64>,
    channel: String,
    session: bool,
    prefix: Option<String>,
    method: &'static str,
    cors: bool,
    jsonp: Option<(String, bool)>,
    sent: bool,
}

/// A call that holds in `mode`, on channel `c`.
pub fn hold(mode: &str) -> Call {
    Call {
        headers: vec![("Grip-Hold".to_owned(), mode.to_owned())],
        body: String::new(),
        id: String::new(),
        manager: "cm".to_owned(),
        also: Vec::new(),
        credits: 8192,
        old: false,
        minute_counted: false,
        maxima: Vec::new(),
        channel: "c".to_owned(),
        session: false,
        prefix: None,
        method: "GET",
        cors: false,
        jsonp: None,
        sent: false,
    }
}

/// A call without a hold, and without a channel.
pub fn no_hold() -> Call {
    Call { headers: Vec::new(), channel: String::new(), ..hold("") }
}

impl Call {
    pub fn session(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    /// The connection manager whose client it is, in the place of `cm`.
    pub fn manager(mut self, name: &str) -> Self {
        self.manager = name.to_owned();
        self
    }

    /// Another client asked the same, and is handed over together with the first.
    pub fn also(mut self, id: &str) -> Self {
        self.also.push(id.to_owned());
        self
    }

    pub fn body(mut self, body: &str) -> Self {
        self.body = body.to_owned();
        self
    }

    pub fn credits(mut self, credits: u32) -> Self {
        self.credits = credits;
        self
    }

    pub fn channel(mut self, channel: &str) -> Self {
        self.channel = channel.to_owned();
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The route keeps GRIP sessions.
    pub fn use_session(mut self) -> Self {
        self.session = true;
        self
    }

    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = Some(prefix.to_owned());
        self
    }

    pub fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// The route is open to scripts of other sites.
    pub fn cors(mut self) -> Self {
        self.cors = true;
        self
    }

    /// The client waits for a call of `callback`.
    pub fn jsonp(mut self, callback: &str, extended: bool) -> Self {
        self.jsonp = Some((callback.to_owned(), extended));
        self
    }

    /// The proxy has sent the response already.
    pub fn sent(mut self) -> Self {
        self.sent = true;
        self
    }

    pub fn minute_counted(mut self) -> Self {
        self.minute_counted = true;
        self
    }

    /// The proxy's numbers of connections, told with the call.
    pub fn maxima(mut self, maxima: &[u64]) -> Self {
        self.maxima = maxima.to_vec();
        self
    }

    pub fn old_peer(mut self) -> Self {
        self.old = true;
        self
    }

    /// The call as the proxy sends it.
    pub fn encode(&self) -> Vec<u8> {
        let mut headers = Writer::new();
        headers.list(|w| {
            let channel = ("Grip-Channel".to_owned(), self.channel.clone());
            let channel = Some(&channel).filter(|(_, value)| !value.is_empty());
            for (name, value) in self.headers.iter().chain(channel) {
                w.list(|w| [name, value].iter().for_each(|text| w.str(text)));
            }
        });
        let headers = headers.into_vec();
        let headers = zhttp::Headers::parse(tnetstring::parse_all(&headers).unwrap()).unwrap();
        let request = HttpRequest {
            method: self.method,
            uri: "http://api.example/stream",
            headers: zhttp::Headers::EMPTY,
            body: b"",
        };
        let session = zrpc::Session {
            rid: Rid { sender: self.manager.as_bytes(), id: self.id.as_bytes() },
            in_seq: 1,
            out_seq: 0,
            out_credits: self.credits,
            router_resp: !self.old,
            multi: !self.old,
            batch: !self.old,
            unreported_time_ms: self.minute_counted.then_some(0),
            response_code: self.sent.then_some(200),
            auto_cross_origin: self.cors || self.jsonp.is_some(),
            jsonp_callback: self.jsonp.as_ref().map(|(name, _)| name.as_bytes()),
            jsonp_extended_response: self.jsonp.as_ref().is_some_and(|(_, extended)| *extended),
            ..zrpc::Session::default()
        };
        let others = self
            .also
            .iter()
            .map(|id| zrpc::Session { rid: Rid { sender: b"cm", id: id.as_bytes() }, ..session });
        let mut maxima = Writer::new();
        maxima.list(|w| self.maxima.iter().for_each(|max| conn_max(*max).write_map(w)));
        let maxima = maxima.into_vec();
        let args = accept::Args {
            requests: [session].into_iter().chain(others).collect(),
            request,
            orig_request: request,
            response: HttpResponse { code: 200, reason: "OK", headers, body: self.body.as_bytes() },
            inspect: None,
            route: None,
            separate_stats: false,
            channel_prefix: self.prefix.as_deref(),
            log_level: None,
            channels: Vec::new(),
            trusted: false,
            use_session: self.session,
            response_sent: self.sent,
            conn_max: (!self.maxima.is_empty()).then(|| tnetstring::parse_all(&maxima).unwrap()),
        };
        let mut out = Vec::new();
        let from = Some(&b"proxy_1"[..]);
        zrpc::write_request(&mut out, from, Some(b"call"), "accept", |w| args.write(w));
        out
    }
}

/// How many connections the proxy has.
pub fn conn_max(max: u64) -> stats::Packet<'static> {
    let body = stats::Body::ConnMax { max, ttl: 60, retry_seq: None };
    stats::Packet { from: "proxy_1", route: None, body }
}

/// A packet that the handler sent.
#[derive(Clone, Debug)]
pub struct Got {
    pub from: String,
    pub ids: Vec<(String, u32)>,
    pub kind: Kind,
    pub code: Option<u16>,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub more: bool,
    pub multi: bool,
    pub batch: bool,
}

fn got(packet: &[u8]) -> Got {
    let p = Packet::parse(packet).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Got {
        from: text(p.from),
        ids: p.ids.iter().map(|id| (text(id.id), id.seq.unwrap())).collect(),
        kind: p.kind,
        code: p.code,
        headers: p.headers.iter().map(|(n, v)| (n.to_owned(), text(v))).collect(),
        body: text(p.body),
        more: p.more,
        multi: p.ext.multi,
        batch: p.ext.batch,
    }
}

/// The handler and everything that came out of it.
pub struct Bench {
    pub now: u64,
    pub handler: Handler,
    pub messages: Vec<(String, Vec<u8>)>,
    pub unsubscribed: Vec<String>,
    /// Proxies are to tell of single connections.
    pub listens_to_conn: bool,
    replies: Vec<Vec<u8>>,
    retries: Vec<Vec<u8>>,
    stats: Vec<Vec<u8>>,
    command_replies: Vec<Vec<u8>>,
    proxy_calls: Vec<(u64, Vec<u8>)>,
    internal: Vec<Vec<u8>>,
    controls: Vec<(String, Vec<u8>)>,
    state_calls: Vec<(u64, Vec<u8>)>,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            id_cache_ttl_ms: 60_000,
            update_on_first_subscription: false,
            ..Settings::default()
        };
        change(&mut settings);
        Self {
            now: 0,
            handler: Handler::new(0, settings),
            messages: Vec::new(),
            unsubscribed: Vec::new(),
            listens_to_conn: false,
            replies: Vec::new(),
            retries: Vec::new(),
            stats: Vec::new(),
            command_replies: Vec::new(),
            proxy_calls: Vec::new(),
            internal: Vec::new(),
            controls: Vec::new(),
            state_calls: Vec::new(),
        }
    }

    pub fn conncheck(&mut self, ids: &[&str]) {
        let mut payload = Vec::new();
        zrpc::write_request(&mut payload, None, Some(b"x"), "conncheck", |w| {
            w.str("ids");
            w.list(|w| ids.iter().for_each(|id| w.str(id)));
        });
        self.handler.command(self.now, Vec::new(), &payload);
        self.settle();
    }

    /// A command with texts as arguments.
    pub fn command(&mut self, method: &str, args: &[(&str, &str)]) {
        let mut payload = Vec::new();
        zrpc::write_request(&mut payload, None, Some(b"x"), method, |w| {
            args.iter().flat_map(|(key, value)| [key, value]).for_each(|text| w.str(text));
        });
        self.handler.command(self.now, Vec::new(), &payload);
        self.settle();
    }

    /// `success`, or the condition, of each answered command.
    pub fn conditions(&mut self) -> Vec<String> {
        let replies = std::mem::take(&mut self.command_replies);
        let read = |reply: &Vec<u8>| match zrpc::Response::parse(reply).unwrap().result {
            Ok(_) => "success".to_owned(),
            Err((condition, _)) => condition.to_owned(),
        };
        replies.iter().map(read).collect()
    }

    /// The proxy refuses what it was last asked.
    pub fn proxy_refuses(&mut self, condition: &str) {
        let (call, _) = self.proxy_calls.pop().unwrap();
        let mut payload = Vec::new();
        zrpc::write_error(&mut payload, Some(call.to_string().as_bytes()), condition, None);
        self.handler.proxy_reply(self.now, &payload);
        self.settle();
    }

    /// The known ids, or the condition, of each answered command.
    pub fn command_replies(&mut self) -> Vec<Result<Vec<String>, String>> {
        let replies = std::mem::take(&mut self.command_replies);
        let read = |reply: &Vec<u8>| {
            let result = zrpc::Response::parse(reply).unwrap().result;
            result.map(ids_of).map_err(|(condition, _)| condition.to_owned())
        };
        replies.iter().map(read).collect()
    }

    /// What the proxy was last asked about.
    pub fn asked_of_proxy(&mut self) -> Option<(u64, Vec<String>)> {
        let (call, payload) = self.proxy_calls.pop()?;
        let request = zrpc::Request::parse(&payload).unwrap();
        Some((call, ids_of(request.args.get("ids").unwrap().unwrap())))
    }

    pub fn proxy_knows(&mut self, call: u64, ids: &[&str]) {
        let mut payload = Vec::new();
        let id = call.to_string();
        zrpc::write_success(&mut payload, Some(id.as_bytes()), |w| {
            w.list(|w| ids.iter().for_each(|id| w.str(id)));
        });
        self.handler.proxy_reply(self.now, &payload);
        self.settle();
    }

    /// Requests of the handler: id, and what they ask for.
    pub fn requests(&mut self) -> Vec<(String, String)> {
        let packets = std::mem::take(&mut self.internal);
        let parsed = packets.iter().map(|packet| Packet::parse(packet).unwrap());
        let first = parsed.filter(|p| !p.method.is_empty());
        first
            .map(|p| {
                let mut text = format!("{} {}", p.method, p.uri);
                for (name, value) in p.headers.iter() {
                    text.push_str(&format!(" {name}={}", String::from_utf8_lossy(value)));
                }
                if !p.body.is_empty() {
                    text.push_str(&format!(" body={}", String::from_utf8_lossy(p.body)));
                }
                (String::from_utf8_lossy(p.ids.only().unwrap().id).into_owned(), text)
            })
            .collect()
    }

    /// Credits that the handler gave for answers, since the last call.
    pub fn credits_given(&mut self) -> Vec<u32> {
        let packets = std::mem::take(&mut self.internal);
        let parsed = packets.iter().map(|packet| Packet::parse(packet).unwrap());
        parsed.filter(|p| p.kind == Kind::Credit).map(|p| p.credits).collect()
    }

    /// The keep-alives that the handler sent for its requests since the last call.
    pub fn requests_kept_alive(&mut self) -> Vec<String> {
        let packets = std::mem::take(&mut self.internal);
        let parsed = packets.iter().map(|packet| Packet::parse(packet).unwrap());
        let kept = parsed.filter(|p| p.kind == Kind::KeepAlive);
        kept.map(|p| String::from_utf8_lossy(p.ids.only().unwrap().id).into_owned()).collect()
    }

    /// A proxy says that it has a request of the handler.
    pub fn proxy_has(&mut self, id: &str, seq: u32) {
        self.answer(id, seq, |f| {
            f.kind(Kind::KeepAlive);
        });
    }

    /// A proxy answers a request of the handler.
    pub fn respond(
        &mut self,
        id: &str,
        seq: u32,
        code: u16,
        headers: &[(&str, &str)],
        body: &str,
        more: bool,
    ) {
        self.answer(id, seq, |f| {
            f.status(code, "").headers(headers.iter().map(|(n, v)| (n, v)));
            f.body(body.as_bytes()).flag("more", more);
        });
    }

    /// The answer's body goes on.
    pub fn respond_more(&mut self, id: &str, seq: u32, body: &str, more: bool) {
        self.answer(id, seq, |f| {
            f.body(body.as_bytes()).flag("more", more);
        });
    }

    fn answer(&mut self, id: &str, seq: u32, fill: impl FnOnce(&mut Fields<'_>)) {
        let mut out = Vec::new();
        let ids = [Id { id: id.as_bytes(), seq: Some(seq) }];
        zhttp::write(&mut out, &Head { from: b"proxy_1", ids: &ids, ext: Ext::OURS }, fill);
        self.handler.internal_message(self.now, 0, &out);
        self.settle();
    }

    pub fn accept(&mut self, call: Call) {
        self.accept_at(0, call);
    }

    pub fn accept_at(&mut self, shard: usize, call: Call) {
        self.handler.call(self.now, shard, vec![b"peer".to_vec()], &call.encode());
        self.settle();
    }

    /// Lets everything happen that needs no time.
    pub fn settle(&mut self) {
        loop {
            let more = self.handler.work(self.now);
            while let Some(output) = self.handler.poll_output() {
                match output {
                    Output::ToClient { peer, message, .. } => {
                        let peer = String::from_utf8_lossy(&peer).into_owned();
                        self.messages.push((peer, message));
                    }
                    Output::Reply { payload, .. } => self.replies.push(payload),
                    Output::Retry { packet, .. } => self.retries.push(packet),
                    Output::Stats(packet) => self.stats.push(packet),
                    Output::CommandReply { payload, .. } => self.command_replies.push(payload),
                    Output::ProxyCommand { call, payload } => {
                        self.proxy_calls.push((call, payload));
                    }
                    Output::StateCall { call, payload } => self.state_calls.push((call, payload)),
                    Output::Internal { packet, .. } => self.internal.push(packet),
                    Output::ToProxy { proxy, packet, .. } => {
                        let proxy = String::from_utf8_lossy(&proxy).into_owned();
                        self.controls.push((proxy, packet));
                    }
                    Output::ListenConn(wanted) => self.listens_to_conn = wanted,
                    Output::Unsubscribe(channel) => self.unsubscribed.push(channel.to_string()),
                    _ => {}
                }
            }
            if !more {
                return;
            }
        }
    }

    /// Lets time go by until `end`.
    pub fn run_to(&mut self, end: u64) {
        while let Some(at) = self.handler.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.handler.timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    pub fn publish(&mut self, json: &str) {
        let item = item(json);
        self.handler.publish(self.now, vec![item]);
        self.settle();
    }

    pub fn publish_stream(&mut self, channel: &str, content: &str) {
        self.handler.publish(self.now, vec![stream_item(channel, content)]);
        self.settle();
    }

    pub fn publish_response(&mut self, channel: &str, body: &str) {
        self.publish(&format!(r#"{{"channel":"{channel}","http-response":{{"body":"{body}"}}}}"#));
    }

    /// A packet of the connection manager.
    pub fn packet(&mut self, id: &str, seq: u32, fill: impl FnOnce(&mut Fields<'_>)) {
        let mut out = Vec::new();
        let ids = [Id { id: id.as_bytes(), seq: Some(seq) }];
        let ext = Ext { multi: true, batch: false, quiet: false };
        zhttp::write(&mut out, &Head { from: b"cm", ids: &ids, ext }, fill);
        for shard in 0..self.handler.shards().len() {
            self.handler.client_message(self.now, shard, &out);
        }
        self.settle();
    }

    pub fn hear(&mut self, id: &str, seq: u32) {
        self.packet(id, seq, |f| {
            f.kind(Kind::KeepAlive);
        });
    }

    pub fn credit(&mut self, id: &str, seq: u32, credits: u32) {
        self.packet(id, seq, |f| {
            f.kind(Kind::Credit).credits(credits);
        });
    }

    /// What was sent to clients since the last call.
    pub fn packets(&mut self) -> Vec<Got> {
        let messages = std::mem::take(&mut self.messages);
        messages.iter().flat_map(|(_, message)| zhttp::split(message)).map(got).collect()
    }

    /// What the proxy was told since the last call.
    pub fn replies(&mut self) -> Vec<String> {
        let replies = std::mem::take(&mut self.replies);
        replies.iter().map(|reply| shown(reply)).collect()
    }

    pub fn retries(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.retries)
    }

    /// What the proxy says on its stats socket.
    pub fn proxy_says(&mut self, packet: &stats::Packet<'_>) {
        self.handler.proxy_stats(self.now, &packet.encode(stats::Format::Tnetstring));
        self.settle();
    }

    pub fn stats(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.stats)
    }
}

fn ids_of(value: tnetstring::Value<'_>) -> Vec<String> {
    let list = value.as_list().unwrap();
    list.iter().map(|id| id.unwrap().as_str().unwrap().to_owned()).collect()
}

fn shown(reply: &[u8]) -> String {
    match zrpc::Response::parse(reply).unwrap().result {
        Ok(value) => match accept::Reply::parse(value).unwrap() {
            accept::Reply::Accepted => "accepted".to_owned(),
            accept::Reply::Response(response) => format!("response {}", response.code),
            accept::Reply::Nothing => "nothing".to_owned(),
        },
        Err((condition, value)) => {
            let text = accept::error_text(value).unwrap_or_default();
            format!("{condition}: {}", String::from_utf8_lossy(text))
        }
    }
}

pub fn item(json: &str) -> Item {
    Item::from_json(&Value::from_json(json.as_bytes()).unwrap(), None).unwrap()
}

pub fn stream_item(channel: &str, content: &str) -> Item {
    item(&format!(r#"{{"channel":"{channel}","http-stream":{{"content":"{content}"}}}}"#))
}

pub fn action_item(channel: &str, format: &str, action: &str) -> Item {
    item(&format!(r#"{{"channel":"{channel}","{format}":{{"action":"{action}"}}}}"#))
}

/// An item whose content is its id.
pub fn sequenced(channel: &str, id: &str, prev: &str) -> String {
    let prev = match prev {
        "" => String::new(),
        prev => format!(r#""prev-id":"{prev}","#),
    };
    format!(r#"{{"channel":"{channel}","id":"{id}",{prev}"http-stream":{{"content":"{id}"}}}}"#)
}

pub fn kind_of(packet: &[u8]) -> String {
    String::from_utf8_lossy(packet).split(' ').next().unwrap_or_default().to_owned()
}
