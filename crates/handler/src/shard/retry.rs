//! Response holds go back to the proxy that handed them over (spec/grip.md §7.4,
//! spec/internal-rpc.md §5).

use evloop::arena::Key;
use stats::Mode;
use zhttp::Kind;
use zrpc::{HttpRequest, Rid, inspect, retry};

use super::Shard;
use super::session::{Flags, NEVER, Origin, Session};
use crate::message::{Output, ToHub};

impl Shard {
    /// Whether the ids that the backend gave for the channels that `counts` names are behind what
    /// was published since. The remembered ones are then forgotten by
    /// [`Shard::forget_outdated`], when everybody who came with this session has been looked at.
    pub(super) fn conflicts(&mut self, key: Key, counts: impl Fn(u32) -> bool) -> bool {
        let Some(session) = self.sessions.get(key) else { return false };
        let origin = session.hold.as_ref().and_then(|hold| hold.origin.as_ref());
        let able = origin.is_some_and(|origin| !origin.proxy.is_empty());
        let able = able || !session.flags.has(Flags::RESPONSE);
        let Some(extra) = session.extra.as_ref().filter(|_| able) else { return false };
        let mut conflict = false;
        for own in extra.channels.iter().filter(|own| counts(own.channel)) {
            let Some(channel) = self.channels.at(own.channel) else { continue };
            let (Some(got), Some(expected)) = (&own.prev_id, &channel.last_id) else { continue };
            if **got != **expected {
                log::debug!("last ID inconsistency (got={got}, expected={expected}), retrying");
                conflict = true;
                let outdated = (own.channel, channel.hub);
                if !self.outdated.contains(&outdated) {
                    self.outdated.push(outdated);
                }
            }
        }
        conflict
    }

    /// Forgets the ids that led to conflicts.
    pub(super) fn forget_outdated(&mut self) {
        for (index, hub) in std::mem::take(&mut self.outdated) {
            // The last of its sessions may have taken the channel along.
            if let Some(channel) = self.channels.at_mut(index).filter(|c| c.hub == hub) {
                channel.last_id = None;
            }
            self.to_hub.push(ToHub::Forget { hub });
        }
    }

    /// Sends a session back that was never claimed, at once: its numbers are as they came, and it
    /// was no hold of which anybody had to hear that it is over.
    pub(super) fn retry_unclaimed(&mut self, now: u64, key: Key) {
        let extra = self.sessions.get_mut(key).and_then(|session| session.extra.as_mut());
        if let Some(links) = extra.and_then(|extra| extra.links.as_mut()) {
            links.gone = None;
        }
        self.hand_back(now, key);
    }

    /// Asks the connection manager to let a response hold go, so that it can be retried.
    pub(super) fn retry(&mut self, now: u64, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.hold.as_ref().is_some_and(|hold| hold.unconfirmed > 0) {
            // It is not ours yet.
            return self.update_later(now, key);
        }
        // A proxy that did not say who it is takes nothing back.
        let origin = session.hold.as_ref().and_then(|hold| hold.origin.as_ref());
        let able = origin.is_some_and(|origin| !origin.proxy.is_empty());
        if !able || session.flags.has(Flags::PAUSING) {
            return;
        }
        session.deadline = NEVER;
        self.write_one(key.index, |f| {
            f.kind(Kind::HandoffStart);
        });
        if let Some(session) = self.sessions.get_mut(key) {
            session.flags.set(Flags::PAUSING, true);
        }
        self.schedule(key);
    }

    /// The connection manager let the session go.
    pub(super) fn handoff_proceed(&mut self, now: u64, key: Key) {
        if self.sessions.get(key).is_some_and(|s| s.flags.has(Flags::PAUSING)) {
            self.hand_back(now, key);
        }
    }

    fn hand_back(&mut self, now: u64, key: Key) {
        let Some(session) = self.sessions.get(key) else { return };
        let Some(origin) = session.hold.as_ref().and_then(|hold| hold.origin.clone()) else {
            return;
        };
        let Some(peer) = self.peers.get(session.peer) else { return };
        let mut packet = Vec::new();
        write_packet(&mut packet, session, &peer.id, &origin, self.retry_seq, now);
        self.retry_seq = self.retry_seq.wrapping_add(1);
        let proxy = origin.proxy.clone();
        let output = Output::Retry { shard: self.number, proxy, packet };
        let extra = self.sessions.get_mut(key).and_then(|session| session.extra.as_mut());
        let links = extra.and_then(|extra| extra.links.as_mut());
        match links.filter(|links| links.gone.is_some()) {
            Some(links) => links.handed_back = Some(Box::new(output)),
            None => self.out.push(output),
        }
        self.remove(now, key, true);
    }

    /// Sessions ask the backend again: response holds by a retry, streams by their next link.
    pub(super) fn update(&mut self, now: u64, channel: Option<Key>) {
        let keys: Vec<Key> = match channel {
            None => {
                for index in 0..self.channels.capacity() {
                    if let Some(channel) = self.channels.at_mut(index) {
                        channel.last_id = None;
                    }
                }
                self.sessions.iter().map(|(key, _)| key).collect()
            }
            Some(key) => {
                let Some(channel) = self.channels.get_mut(key) else { return };
                let mut indexes = Vec::new();
                for mode in [Mode::Response, Mode::Stream] {
                    indexes.extend(channel.list(mode).subscribers.iter().map(|s| s.session));
                }
                indexes.into_iter().filter_map(|index| self.sessions.key_at(index)).collect()
            }
        };
        for key in keys {
            let Some(session) = self.sessions.get(key) else { continue };
            let linked = session.extra.as_ref().is_some_and(|extra| extra.links.is_some());
            if session.flags.has(Flags::RESPONSE) || linked {
                self.update_later(now, key);
            }
        }
    }
}

fn write_packet(
    out: &mut Vec<u8>,
    session: &Session,
    sender: &[u8],
    origin: &Origin,
    retry_seq: u32,
    now: u64,
) {
    let address = session.address.map(|address| address.to_string()).unwrap_or_default();
    let unreported = now.saturating_sub(u64::from(session.minute) * super::timers::TICK_MS);
    let cross = session.hold.as_ref().and_then(|hold| hold.cross.as_ref());
    let jsonp = cross.and_then(|cross| cross.jsonp.as_ref());
    let given = zrpc::Session {
        rid: Rid { sender, id: session.id.bytes() },
        in_seq: session.in_seq,
        out_seq: session.out_seq,
        out_credits: session.credits,
        router_resp: session.flags.has(Flags::ROUTER),
        user_data: session.user_data(),
        peer_address: &address,
        https: session.flags.has(Flags::SSL),
        debug: session.flags.has(Flags::DEBUG),
        unreported_time_ms: i64::try_from(unreported).ok(),
        auto_cross_origin: cross.is_some_and(|cross| cross.on),
        jsonp_callback: jsonp.map(|jsonp| jsonp.callback().as_bytes()),
        jsonp_extended_response: jsonp.is_some_and(|jsonp| jsonp.is_extended()),
        ..zrpc::Session::default()
    };
    let parse_headers = |frame| zhttp::Headers::parse(tnetstring::parse_all(frame).ok()?).ok();
    let request = HttpRequest {
        method: &origin.method,
        uri: &origin.uri,
        headers: parse_headers(&origin.headers).unwrap_or(zhttp::Headers::EMPTY),
        body: &origin.body,
    };
    let inspected = origin
        .inspect
        .as_deref()
        .and_then(|frame| inspect::Reply::parse(tnetstring::parse_all(frame).ok()?).ok());
    let mut inspect = inspected.clone().unwrap_or_default();
    let channels = session.extra.iter().flat_map(|extra| &extra.channels);
    for channel in channels {
        if let Some(id) = &channel.prev_id {
            inspect.last_ids.retain(|(name, _)| *name != &*channel.name);
            inspect.last_ids.push((&channel.name, id.as_bytes()));
        }
    }
    let needed = inspected.is_some() || !inspect.last_ids.is_empty();
    let packet = retry::Packet {
        requests: vec![given],
        request,
        inspect: needed.then_some(inspect),
        route: origin.route.as_deref(),
        retry_seq: Some(retry_seq),
    };
    packet.write(out);
}
