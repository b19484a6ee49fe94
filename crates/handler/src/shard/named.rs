//! GRIP sessions of clients (spec/grip.md §13): what responses say of them goes to the hub, which
//! keeps them in a service outside, and so do the ids of what their connections receive.

use std::collections::BTreeSet;
use std::sync::Arc;

use evloop::arena::Key;
use grip::{Item, SessionInfo};
use stats::Mode;
use zrpc::accept;

use super::Shard;
use super::accept::head;
use super::links::origin;
use super::session::{Extra, Named, Session};
use crate::message::{SessionIds, Stored, ToHub};

impl Session {
    /// The GRIP session that it belongs to.
    pub(super) fn named(&self) -> Option<&Named> {
        self.extra.as_deref().and_then(|extra: &Extra| extra.named.as_deref())
    }
}

impl Shard {
    /// Passes on what a response says of its session, if the route keeps sessions; gives the
    /// session that its client belongs to.
    pub(super) fn note_session(&mut self, args: &accept::Args<'_>) -> Option<Box<Named>> {
        if !args.use_session || !self.settings.sessions {
            return None;
        }
        let headers: Vec<(&str, &[u8])> = args.response.headers.iter().collect();
        let info = SessionInfo::of(&head(args, &headers));
        let asked = args.inspect.as_ref().and_then(|inspect| inspect.sid);
        let asked = asked.map(|sid| String::from_utf8_lossy(sid).into_owned());
        let id = info.id.clone().or(asked);
        if info.id.is_some() || !info.rules.is_empty() {
            let (_, domain, _) = origin(args.orig_request.uri).unwrap_or_default();
            self.to_hub.push(ToHub::StoreSession(Box::new(Stored { domain, info })));
        }
        let prefix = args.channel_prefix.unwrap_or_default().into();
        Some(Box::new(Named { id: id?.into(), prefix }))
    }

    /// An item with an id goes to a channel: GRIP sessions of receivers have seen it.
    pub(super) fn tell_sessions(&mut self, channel: Key, item: &Item) {
        let Some(id) = item.id.as_ref().filter(|_| self.named > 0 && !item.no_seq) else { return };
        let Some(channel) = self.channels.get(channel) else { return };
        let mut seen: BTreeSet<(Arc<str>, &str)> = BTreeSet::new();
        for (mode, wanted) in [
            (Mode::Response, item.response.is_some()),
            (Mode::Stream, item.stream.is_some()),
            (Mode::Ws, item.ws.is_some()),
        ] {
            for subscriber in channel.subscribers(mode).iter().filter(|_| wanted) {
                let (sid, prefix) = match mode {
                    Mode::Ws => match self.sockets.at(subscriber.session) {
                        Some(socket) => (socket.sid(), self.prefix_of(socket)),
                        None => continue,
                    },
                    _ => match self.sessions.at(subscriber.session).and_then(Session::named) {
                        Some(named) => (Some(&named.id), &*named.prefix),
                        None => continue,
                    },
                };
                let Some(sid) = sid else { continue };
                let name = channel.name.strip_prefix(prefix).unwrap_or(&channel.name);
                seen.insert((sid.clone(), name));
            }
        }
        if seen.is_empty() {
            return;
        }
        let seen = seen.into_iter().map(|(sid, name)| (sid, name.into())).collect();
        self.to_hub.push(ToHub::SessionIds(Box::new(SessionIds { id: id.clone(), seen })));
    }
}
