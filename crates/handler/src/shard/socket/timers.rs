//! Stored messages of WebSockets: keep-alives, delayed ones and their acknowledgements; and
//! sessions whose proxy fell silent.

use evloop::arena::Key;
use grip::control::Message;
use zrpc::control::{Item, Kind};

use super::kind;
use super::state::Delayed;
use crate::shard::Shard;
use crate::shard::session::NEVER;
use crate::shard::timers::{TICK_MS, places, tenths};

/// How long a delayed message may stay without acknowledgement, tenths of a second.
const ACK: u32 = 80;

/// Delayed messages of one session that may be on their way.
const UNACKED_MAX: usize = 100;

/// Steps in which the walk for expired sessions visits every place.
const EXPIRY_STEPS: u64 = 50;

impl Shard {
    /// The proxy's keep-alive timer fired.
    pub(super) fn send_keep_alive(&mut self, key: Key) {
        let Some(socket) = self.sockets.get(key).filter(|socket| !socket.closed) else { return };
        let Some(message) = socket.extra.as_ref().and_then(|extra| extra.keep_alive.as_ref())
        else {
            return;
        };
        let route = socket.route;
        let send = Item {
            cid: &socket.cid,
            content_type: message.kind.name(),
            message: &message.content,
            ..kind(Kind::Send)
        };
        self.proxies.write(socket.proxy, &send);
        self.count(route, |sums| sums.activity += 1);
    }

    /// Sends a message later; one that waits already goes first, now.
    pub(super) fn delay(&mut self, now: u64, key: Key, message: Message, timeout_s: u32) {
        self.flush_delayed(now, key);
        let Some(socket) = self.sockets.get_mut(key).filter(|socket| !socket.closed) else {
            return;
        };
        let due = tenths(now).saturating_add(timeout_s.saturating_mul(10)).min(NEVER - 1);
        socket.extra().delayed = Some(Delayed { due, message });
        self.schedule_socket(key);
    }

    pub(super) fn flush_delayed(&mut self, now: u64, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(extra) = socket.extra.as_deref_mut() else { return };
        let Some(Delayed { message, .. }) = extra.delayed.take() else { return };
        let number = extra.next_req;
        extra.next_req += 1;
        extra.unacked.push_back((number, tenths(now) + ACK));
        let too_many = extra.unacked.len() > UNACKED_MAX;
        let req_id = number.to_string();
        let send = Item {
            req_id: Some(req_id.as_bytes()),
            content_type: message.kind.name(),
            message: &message.content,
            queue: true,
            ..kind(Kind::Send)
        };
        self.tell(key, send);
        if too_many {
            return self.give_up(now, key);
        }
        self.schedule_socket(key);
    }

    pub(super) fn acknowledged(&mut self, key: Key, req_id: Option<&[u8]>) {
        let number = req_id.and_then(|id| std::str::from_utf8(id).ok()?.parse::<u64>().ok());
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if let Some((extra, number)) = socket.extra.as_deref_mut().zip(number) {
            extra.unacked.retain(|(waits, _)| *waits != number);
        }
    }

    fn give_up(&mut self, now: u64, key: Key) {
        self.drops.unacknowledged += 1;
        log::debug!("wssession: a delayed message was not acknowledged, ending the session");
        self.cancel_socket(now, key);
    }

    fn schedule_socket(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Some(extra) = socket.extra.as_deref() else { return };
        let due = extra.delayed.as_ref().map_or(NEVER, |delayed| delayed.due);
        let target = extra.unacked.front().map_or(due, |(_, until)| due.min(*until));
        if target < socket.wheel {
            socket.wheel = target;
            self.socket_wheel.schedule(u64::from(target) * TICK_MS, key);
        }
    }

    /// Does what is due for the sessions in the wheel.
    pub(in crate::shard) fn socket_timeouts(&mut self, now: u64) {
        while let Some(keys) = self.socket_wheel.expired(now) {
            for key in &keys {
                self.look_at_socket(now, *key);
            }
            self.socket_wheel.recycle(keys);
        }
    }

    fn look_at_socket(&mut self, now: u64, key: Key) {
        let now_tenths = tenths(now);
        let Some(socket) = self.sockets.get_mut(key) else { return };
        if socket.wheel > now_tenths {
            return;
        }
        socket.wheel = NEVER;
        let Some(extra) = socket.extra.as_deref() else { return };
        if extra.unacked.front().is_some_and(|(_, until)| *until <= now_tenths) {
            return self.give_up(now, key);
        }
        if extra.delayed.as_ref().is_some_and(|delayed| delayed.due <= now_tenths) {
            self.flush_delayed(now, key);
        }
        self.schedule_socket(key);
    }

    /// Forgets sessions, in a step of a walk over all of them, whose proxy fell silent.
    pub(in crate::shard) fn walk_sockets(&mut self, now: u64, tick: u64) {
        for index in places(tick, EXPIRY_STEPS, self.sockets.capacity()) {
            let expired = self.sockets.at(index).is_some_and(|s| s.expires <= tenths(now));
            if let Some(key) = self.sockets.key_at(index).filter(|_| expired) {
                self.drops.expired += 1;
                self.remove_socket(now, key);
            }
        }
    }
}
