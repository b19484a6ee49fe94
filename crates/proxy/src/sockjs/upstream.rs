//! The WebSocket of a session whose client polls: what it would tell its client, and what the
//! client's requests tell it.

use evloop::arena::Key;
use sockjs::Answer;
use zhttp::{HeaderBuf, Headers};

use crate::Proxy;
use crate::response::Head;
use crate::ws::{Kind, Piece};

impl Proxy {
    /// The session that a WebSocket belongs to, if its client polls.
    pub(crate) fn poll_of(&self, key: Key) -> Option<Key> {
        self.sessions.get(key)?.ws.as_ref()?.shape.poll_key()
    }

    /// Answers the waiting poll if there is something for it.
    pub(crate) fn answer_poll(&mut self, poll: Key) {
        let now = self.now;
        let Some(session) = self.polls.get_mut(poll) else { return };
        let Some(frame) = session.state.take(now) else { return };
        let (request, upstream) = (session.request.take(), session.upstream);
        if let Some(request) = request {
            self.sockjs_frame(request, &frame.text);
        }
        if let Some(upstream) = upstream.filter(|_| frame.size > 0) {
            if let Some(session) = self.sessions.get_mut(upstream) {
                session.credits = session.credits.saturating_add(frame.size as u32);
            }
            self.dirty.push(upstream);
        }
        self.schedule_poll(poll);
    }

    /// A piece of a message for a client that polls.
    pub(crate) fn poll_piece(&mut self, upstream: Key, poll: Key, piece: &Piece) {
        let Some(session) = self.polls.get_mut(poll) else { return };
        if let Err(why) = session.state.push(&piece.data, piece.more) {
            log::warn!("SockJS: {why}, ending the session");
            self.ws_abandon(upstream, true);
        }
    }

    /// The close has reached a client that polls, who agrees at once.
    pub(crate) fn poll_closed(
        &mut self,
        upstream: Key,
        poll: Key,
        code: Option<u16>,
        reason: &[u8],
    ) {
        if let Some(session) = self.polls.get_mut(poll) {
            session.state.close(code, reason);
        }
        self.answer_poll(poll);
        self.client_closed(upstream, code, reason);
    }

    /// The backend refused: its answer goes to the request that waits.
    pub(crate) fn poll_refused(
        &mut self,
        poll: Key,
        code: u16,
        reason: &str,
        headers: Headers<'_>,
        body: &[u8],
    ) {
        let Some(request) = self.polls.get_mut(poll).and_then(|poll| poll.request.take()) else {
            return;
        };
        let mut kept = HeaderBuf::new();
        headers.iter().for_each(|(name, value)| kept.push(name, value));
        let head = Head { code, reason: reason.to_owned(), headers: kept };
        self.sockjs_reply(request, head, body.to_vec());
    }

    /// The WebSocket is over. A session that was closed is remembered for a while.
    pub(crate) fn upstream_gone(&mut self, poll: Key) {
        let Some(session) = self.polls.get_mut(poll) else { return };
        session.upstream = None;
        let send = session.send.take();
        let stays = session.state.is_over();
        let request = if stays { None } else { session.request.take() };
        if !stays {
            self.polls.remove(poll);
        }
        for key in send.map(|(key, _)| key).into_iter().chain(request) {
            let answer = Answer::error(410, "Gone", "Session terminated");
            self.sockjs_answer(key, answer);
        }
    }

    /// A request is gone. With a poll that waited, the client has left.
    pub(crate) fn poll_left(&mut self, poll: Key, request: Key) {
        let now = self.now;
        let Some(session) = self.polls.get_mut(poll) else { return };
        if session.send.as_ref().is_some_and(|(key, _)| *key == request) {
            session.send = None;
        }
        if session.request != Some(request) {
            return;
        }
        session.request = None;
        let (opening, upstream) = (session.state.is_opening(), session.upstream);
        session.state.client_left(now);
        self.schedule_poll(poll);
        let Some(upstream) = upstream else { return };
        match opening {
            true => self.ws_abandon(upstream, false),
            false => self.client_closed(upstream, None, b""),
        }
    }

    /// The backend's side takes so many bytes more.
    pub(crate) fn add_poll_room(&mut self, upstream: Key, size: u32) {
        let Some(poll) = self.poll_of(upstream) else { return };
        if let Some(session) = self.polls.get_mut(poll) {
            session.room += size as usize;
            self.pass_sent(poll);
        }
    }

    /// Passes the messages of a request on, once there is room for all.
    pub(super) fn pass_sent(&mut self, poll: Key) {
        let Some(session) = self.polls.get_mut(poll) else { return };
        let Some(upstream) = session.upstream.filter(|_| !session.state.is_opening()) else {
            return;
        };
        let Some((request, messages)) = session.send.take() else { return };
        let size: usize = messages.iter().map(String::len).sum();
        if size > session.room {
            session.send = Some((request, messages));
            return;
        }
        session.room -= size;
        self.sockjs_ok(request);
        for message in &messages {
            self.client_sent(upstream, Kind::Text, message.as_bytes(), false);
        }
    }
}
