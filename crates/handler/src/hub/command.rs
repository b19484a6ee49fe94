//! The command socket (spec/publish.md §5).

use std::sync::Arc;

use grip::{Value, parse_items};
use hashbrown::{HashMap, HashSet};
use zrpc::{Request, Response, write_error, write_request, write_success};

use super::Hub;
use crate::message::{Envelope, Output, ToShard};

/// Calls that may be open at a time.
const CALLS_MAX: usize = 100;

/// How long shards may take to answer.
const CALL_MS: u64 = 10_000;

/// An open call.
#[derive(Debug)]
struct Call {
    envelope: Envelope,
    id: Option<Vec<u8>>,
    what: What,
    /// Shards that have not answered yet.
    missing_answers: usize,
    until: u64,
}

/// What is asked.
#[derive(Debug)]
enum What {
    ConnCheck { ids: Arc<[String]>, found: HashSet<String> },
    Refresh { cid: Arc<[u8]>, found: bool },
}

/// The open calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: HashMap<u64, Call>,
    next: u64,
}

impl Calls {
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.open.values().map(|call| call.until).min()
    }
}

impl Hub {
    /// Takes a command; the answer is an output, perhaps later.
    pub fn command(&mut self, now: u64, envelope: Envelope, payload: &[u8]) {
        let request = match Request::parse(payload) {
            Ok(request) => request,
            Err(error) => {
                self.drops.bad_commands += 1;
                log::warn!("{}", error.skipping("zrpc server"));
                return;
            }
        };
        log::debug!("IN command: {} args={}", request.method, tnetstring::Value::Map(request.args));
        match request.method {
            "conncheck" => self.conncheck(now, envelope, &request),
            "get-zmq-uris" => {
                let uris = self.settings.uris.clone();
                self.succeed(envelope, &request, |w| {
                    w.map(|w| {
                        for (name, uri) in &uris {
                            w.str(name);
                            w.str(uri);
                        }
                    });
                });
            }
            "recover" => {
                self.succeed(envelope, &request, |w| w.null());
                self.recover();
            }
            "refresh" => self.refresh(now, envelope, &request),
            "publish" => self.command_publish(now, envelope, &request),
            _ => self.fail(envelope, &request, "method-not-found", None),
        }
    }

    fn succeed(
        &mut self,
        envelope: Envelope,
        request: &Request<'_>,
        value: impl FnOnce(&mut tnetstring::Writer),
    ) {
        let mut payload = Vec::new();
        write_success(&mut payload, request.id, value);
        self.out.push(Output::CommandReply { envelope, payload });
    }

    fn fail(&mut self, envelope: Envelope, request: &Request<'_>, why: &str, text: Option<&str>) {
        let mut payload = Vec::new();
        write_error(&mut payload, request.id, why, text.map(str::as_bytes));
        self.out.push(Output::CommandReply { envelope, payload });
    }

    /// The backends of WebSockets that are reached by HTTP are to be asked now.
    fn refresh(&mut self, now: u64, envelope: Envelope, request: &Request<'_>) {
        let given = |key| request.args.get(key).ok().flatten();
        match (given("cid"), given("channel")) {
            (Some(cid), _) => match cid.as_bytes() {
                Some(cid) => self.refresh_one(now, envelope, request, cid.into()),
                None => self.fail(envelope, request, "bad-request", None),
            },
            (None, Some(channel)) => match channel.as_str() {
                Some(channel) => {
                    self.refresh_channel(channel);
                    self.succeed(envelope, request, |w| w.null());
                }
                None => self.fail(envelope, request, "bad-request", None),
            },
            (None, None) => self.fail(envelope, request, "bad-request", None),
        }
    }

    fn refresh_channel(&mut self, channel: &str) {
        let record = self.find_record(channel).and_then(|key| self.records.get(key));
        for link in record.iter().flat_map(|record| &record.links) {
            self.to_shards.push((link.shard, ToShard::Refresh { channel: link.channel }));
        }
    }

    fn refresh_one(&mut self, now: u64, envelope: Envelope, request: &Request<'_>, cid: Arc<[u8]>) {
        let what = What::Refresh { cid: cid.clone(), found: false };
        let message = |call| ToShard::RefreshOne { call, cid: cid.clone() };
        self.ask_shards(now, envelope, request, what, message);
    }

    /// A shard told whether it knows a WebSocket. One that none knows may be a connection of
    /// another kind, or one that has no handler: the proxy can tell.
    pub(super) fn refreshed(&mut self, number: u64, here: bool) {
        let Some(call) = self.calls.open.get_mut(&number) else { return };
        let What::Refresh { cid, found } = &mut call.what else { return };
        *found |= here;
        call.missing_answers = call.missing_answers.saturating_sub(1);
        if call.missing_answers > 0 {
            return;
        }
        if *found {
            return self.finish(number);
        }
        let mut payload = Vec::new();
        let (id, cid) = (number.to_string(), cid.clone());
        write_request(&mut payload, None, Some(id.as_bytes()), "refresh", |w| {
            w.str("cid");
            w.bytes(&cid);
        });
        self.out.push(Output::ProxyCommand { call: number, payload });
    }

    /// Puts a question to every shard.
    fn ask_shards(
        &mut self,
        now: u64,
        envelope: Envelope,
        request: &Request<'_>,
        what: What,
        message: impl Fn(u64) -> ToShard,
    ) {
        if self.calls.open.len() >= CALLS_MAX {
            return self.fail(envelope, request, "service-unavailable", None);
        }
        self.calls.next += 1;
        let shards = self.settings.workers.max(1);
        let call = Call {
            envelope,
            id: request.id.map(<[u8]>::to_vec),
            what,
            missing_answers: shards,
            until: now + CALL_MS,
        };
        self.calls.open.insert(self.calls.next, call);
        self.to_shards.extend((0..shards).map(|shard| (shard, message(self.calls.next))));
    }

    fn command_publish(&mut self, now: u64, envelope: Envelope, request: &Request<'_>) {
        let mut w = tnetstring::Writer::new();
        w.map(|w| w.raw(request.args.raw()));
        let document = Value::from_tnetstring(&w.into_vec().into());
        let items = document.ok_or_else(|| "Invalid format.".to_owned());
        match items.and_then(|document| parse_items(&document, false)) {
            Ok(items) => {
                if !self.settings.tells_receivers {
                    self.succeed(envelope, request, |w| w.null());
                    self.publish(now, items);
                    return;
                }
                let receivers = self.publish(now, items);
                self.succeed(envelope, request, |w| {
                    w.map(|w| {
                        w.str("receivers");
                        w.int(i64::try_from(receivers).unwrap_or(i64::MAX));
                    });
                });
            }
            Err(text) => self.fail(envelope, request, "bad-request", Some(&text)),
        }
    }

    fn conncheck(&mut self, now: u64, envelope: Envelope, request: &Request<'_>) {
        let Some(ids) = conncheck_ids(request) else {
            return self.fail(envelope, request, "bad-request", None);
        };
        let found = ids.iter().filter(|id| self.sums.has_external(id)).cloned().collect();
        let ids: Arc<[String]> = ids.into();
        let what = What::ConnCheck { ids: ids.clone(), found };
        let message = |call| ToShard::ConnCheck { call, ids: ids.clone() };
        self.ask_shards(now, envelope, request, what, message);
    }

    /// A shard told which connections it knows.
    pub(super) fn conn_found(&mut self, number: u64, known: Vec<String>) {
        let Some(call) = self.calls.open.get_mut(&number) else { return };
        let What::ConnCheck { ids, found } = &mut call.what else { return };
        found.extend(known);
        call.missing_answers = call.missing_answers.saturating_sub(1);
        if call.missing_answers > 0 {
            return;
        }
        let missing: Vec<&String> = ids.iter().filter(|id| !found.contains(*id)).collect();
        if missing.is_empty() {
            return self.finish(number);
        }
        let mut payload = Vec::new();
        let id = number.to_string();
        write_request(&mut payload, None, Some(id.as_bytes()), "conncheck", |w| {
            w.str("ids");
            w.list(|w| missing.iter().for_each(|id| w.str(id)));
        });
        self.out.push(Output::ProxyCommand { call: number, payload });
    }

    /// The proxy answers what it was asked for a command.
    pub fn proxy_reply(&mut self, payload: &[u8]) {
        let Ok(response) = Response::parse(payload) else {
            self.drops.bad_commands += 1;
            return log::warn!("zrpc client: received message with invalid format, skipping");
        };
        let id = response.id.and_then(|id| std::str::from_utf8(id).ok());
        let Some(number) = id.and_then(|id| id.parse().ok()) else { return };
        let Some(call) = self.calls.open.get_mut(&number) else { return };
        match (&mut call.what, response.result) {
            (What::ConnCheck { found, .. }, Ok(value)) => {
                let Some(list) = value.as_list() else { return self.proxy_failed(number) };
                let known = list.iter().flatten().filter_map(|id| id.as_str().map(str::to_owned));
                found.extend(known);
                self.finish(number);
            }
            (What::ConnCheck { .. }, Err(_)) => self.proxy_failed(number),
            (What::Refresh { .. }, Ok(_)) => self.finish(number),
            (What::Refresh { .. }, Err((condition, _))) => self.give_up(number, condition),
        }
    }

    /// The proxy could not be asked, or did not know what to say.
    pub fn proxy_failed(&mut self, number: u64) {
        let condition = match self.calls.open.get(&number).map(|call| &call.what) {
            Some(What::Refresh { .. }) => "service-unavailable",
            _ => "proxy-request-failed",
        };
        self.give_up(number, condition);
    }

    fn give_up(&mut self, number: u64, condition: &str) {
        let Some(call) = self.calls.open.remove(&number) else { return };
        let mut payload = Vec::new();
        write_error(&mut payload, call.id.as_deref(), condition, None);
        self.out.push(Output::CommandReply { envelope: call.envelope, payload });
    }

    fn finish(&mut self, number: u64) {
        let Some(call) = self.calls.open.remove(&number) else { return };
        let mut payload = Vec::new();
        write_success(&mut payload, call.id.as_deref(), |w| match &call.what {
            What::ConnCheck { found, .. } => w.list(|w| found.iter().for_each(|id| w.str(id))),
            What::Refresh { .. } => w.null(),
        });
        self.out.push(Output::CommandReply { envelope: call.envelope, payload });
    }

    /// Calls that nobody answered fail.
    pub(super) fn expire_calls(&mut self, now: u64) {
        let open = self.calls.open.iter();
        let overdue: Vec<u64> =
            open.filter(|(_, call)| call.until <= now).map(|(number, _)| *number).collect();
        for number in overdue {
            match self.calls.open.get(&number).map(|call| &call.what) {
                Some(What::Refresh { .. }) => self.give_up(number, "timeout"),
                _ => self.proxy_failed(number),
            }
        }
    }
}

fn conncheck_ids(request: &Request<'_>) -> Option<Vec<String>> {
    let list = request.args.get("ids").ok()??.as_list()?;
    list.iter().map(|id| id.ok()?.as_str().map(str::to_owned)).collect()
}
