//! Calls of the service that keeps GRIP sessions (spec/internal-rpc.md §10). Whatever fails is
//! logged and otherwise ignored: a request whose session is not found is one without a session.

use std::collections::{BTreeMap, VecDeque};

use grip::DetectRule;
use hashbrown::HashMap;
use tnetstring::{Value, Writer};
use zrpc::{Response, inspect, write_request, write_success};

use super::Hub;
use crate::message::{Output, Question, SessionIds, Stored, ToShard};

/// How long the service may take, milliseconds.
const CALL_MS: u64 = 1_000;

/// Calls that may be open at a time.
const CALLS_MAX: usize = 10_000;

/// Sessions in one update.
const UPDATE_MAX: usize = 1_000;

/// What is asked.
#[derive(Debug)]
enum Asked {
    /// How requests of a host show their session; for the question of a shard.
    Rules(usize, Box<Question>),
    /// What the session has seen.
    LastIds(usize, Box<Question>, String),
    /// Nothing: something is to be kept.
    Keep(&'static str),
}

/// The open calls.
#[derive(Debug, Default)]
pub(super) struct State {
    open: HashMap<u64, Asked>,
    /// All have the same time.
    order: VecDeque<(u64, u64)>,
    next: u64,
}

impl State {
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.order.front().map(|(until, _)| *until)
    }
}

impl Hub {
    /// A shard asks for the session of a request.
    pub(super) fn find_session(&mut self, now: u64, shard: usize, question: Box<Question>) {
        let (domain, path) = (question.domain.clone(), question.path.clone());
        self.ask_state(now, Asked::Rules(shard, question), "session-detect-rules-get", |w| {
            for (key, value) in [("domain", &domain), ("path", &path)] {
                w.str(key);
                w.str(value);
            }
        });
    }

    /// A response said something of its session. The service gets it before whatever a later
    /// request asks.
    pub(super) fn store_session(&mut self, now: u64, stored: &Stored) {
        let Stored { domain, info } = stored;
        if !info.rules.is_empty() {
            let asked = Asked::Keep("store session rules");
            self.ask_state(now, asked, "session-detect-rules-set", |w| {
                w.str("rules");
                w.list(|w| info.rules.iter().for_each(|rule| write_rule(w, domain, rule)));
            });
        }
        if let Some(id) = &info.id {
            let asked = Asked::Keep("create/update session");
            self.ask_state(now, asked, "session-create-or-update", |w| {
                w.str("sid");
                w.str(id);
                w.str("last-ids");
                w.map(|w| {
                    for text in info.last_ids.iter().flat_map(|(name, id)| [name, id]) {
                        w.str(text);
                    }
                });
            });
        }
    }

    /// Sessions have seen an item.
    pub(super) fn session_ids(&mut self, now: u64, ids: &SessionIds) {
        let mut by_session: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (sid, name) in &ids.seen {
            by_session.entry(sid).or_default().push(name);
        }
        let sessions: Vec<_> = by_session.into_iter().collect();
        for part in sessions.chunks(UPDATE_MAX) {
            let asked = Asked::Keep("update sessions");
            self.ask_state(now, asked, "session-update-many", |w| {
                w.str("sid-last-ids");
                w.map(|w| part.iter().for_each(|(sid, names)| write_seen(w, sid, names, &ids.id)));
            });
        }
    }

    fn ask_state(&mut self, now: u64, asked: Asked, method: &str, args: impl FnOnce(&mut Writer)) {
        self.state.next += 1;
        let call = self.state.next;
        let full = self.state.open.len() >= CALLS_MAX;
        self.state.open.insert(call, asked);
        if full {
            return self.state_over(call, "too many calls");
        }
        self.state.order.push_back((now + CALL_MS, call));
        let mut payload = Vec::new();
        write_request(&mut payload, None, Some(call.to_string().as_bytes()), method, args);
        self.out.push(Output::StateCall { call, payload });
    }

    /// The service answers.
    pub fn state_reply(&mut self, now: u64, payload: &[u8]) {
        let Ok(response) = Response::parse(payload) else {
            return log::warn!("state service: received message with invalid format, skipping");
        };
        let id = response.id.and_then(|id| std::str::from_utf8(id).ok());
        let Some(call) = id.and_then(|id| id.parse().ok()) else { return };
        let value = match response.result {
            Ok(value) => value,
            Err((condition, _)) => return self.state_over(call, condition),
        };
        match self.state.open.remove(&call) {
            Some(Asked::Rules(shard, question)) => self.rules_known(now, shard, question, value),
            Some(Asked::LastIds(shard, question, sid)) => {
                self.answer_inspect(shard, *question, Some((&sid, value)));
            }
            Some(Asked::Keep(_)) | None => {}
        }
    }

    fn rules_known(&mut self, now: u64, shard: usize, question: Box<Question>, value: Value<'_>) {
        let rules = value.as_list().into_iter().flat_map(|list| list.iter().flatten());
        let sid = rules.filter_map(read_rule).find_map(|rule| rule.find(&question.body));
        let Some(sid) = sid else { return self.answer_inspect(shard, *question, None) };
        let asked = Asked::LastIds(shard, question, sid.clone());
        self.ask_state(now, asked, "session-get-last-ids", |w| {
            w.str("sid");
            w.str(&sid);
        });
    }

    /// The service could not be called.
    pub fn state_failed(&mut self, call: u64) {
        self.state_over(call, "service-unavailable");
    }

    /// A call came to nothing.
    fn state_over(&mut self, call: u64, condition: &str) {
        match self.state.open.remove(&call) {
            Some(Asked::Rules(shard, question)) => {
                log::debug!("couldn't get session rules: condition={condition}");
                self.answer_inspect(shard, *question, None);
            }
            // An id that is not known is no session.
            Some(Asked::LastIds(shard, question, _)) => {
                log::debug!("couldn't get session: condition={condition}");
                self.answer_inspect(shard, *question, None);
            }
            Some(Asked::Keep(what)) => log::warn!("couldn't {what}: condition={condition}"),
            None => {}
        }
    }

    fn answer_inspect(
        &mut self,
        shard: usize,
        question: Question,
        session: Option<(&str, Value<'_>)>,
    ) {
        let (sid, seen) = session.unzip();
        let reply = inspect::Reply {
            sharing_key: question.sharing_key.as_deref(),
            sid: sid.map(str::as_bytes),
            last_ids: seen.map(last_ids).unwrap_or_default(),
            ..inspect::Reply::default()
        };
        let mut payload = Vec::new();
        write_success(&mut payload, question.id.as_deref(), |w| reply.write(w));
        let envelope = question.envelope;
        self.to_shards.push((shard, ToShard::Inspected { envelope, payload }));
    }

    /// Calls that the service did not answer in time.
    pub(super) fn expire_state(&mut self, now: u64) {
        while let Some((until, call)) = self.state.order.front().copied() {
            if until > now {
                break;
            }
            self.state.order.pop_front();
            self.state_over(call, "timeout");
        }
    }
}

fn write_seen(w: &mut Writer, sid: &str, names: &[&str], id: &str) {
    w.str(sid);
    w.map(|w| {
        for name in names {
            w.str(name);
            w.str(id);
        }
    });
}

fn write_rule(w: &mut Writer, domain: &str, rule: &DetectRule) {
    w.map(|w| {
        let texts =
            [("domain", domain), ("path-prefix", &rule.path_prefix), ("sid-ptr", &rule.sid_ptr)];
        let param = rule.json_param.as_deref().map(|param| ("json-param", param));
        for (key, value) in texts.into_iter().chain(param) {
            w.str(key);
            w.str(value);
        }
    });
}

fn read_rule(value: Value<'_>) -> Option<DetectRule> {
    let map = value.as_map()?;
    let text = |key| map.get(key).ok().flatten().and_then(|value| value.as_str());
    Some(DetectRule {
        path_prefix: text("path-prefix")?.to_owned(),
        sid_ptr: text("sid-ptr")?.to_owned(),
        json_param: text("json-param").map(str::to_owned),
    })
}

fn last_ids(value: Value<'_>) -> Vec<(&str, &[u8])> {
    let map = value.as_map();
    let entries = map.iter().flat_map(|map| map.iter().flatten());
    entries.filter_map(|(name, id)| Some((name, id.as_bytes()?))).collect()
}
