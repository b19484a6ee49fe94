//! Commands of the handler (spec/internal-rpc.md §8).

use zrpc::{Request, write_error, write_success};

use crate::Proxy;
use crate::ws::Cid;

impl Proxy {
    /// Answers a command; nothing if no reply is wanted.
    pub fn command(&mut self, now: u64, payload: &[u8]) -> Option<Vec<u8>> {
        self.now = now;
        let request = match Request::parse(payload) {
            Ok(request) => request,
            Err(cause) => {
                self.drops.malformed += 1;
                log::warn!("{}", cause.skipping("zrpc server"));
                return None;
            }
        };
        let mut out = Vec::new();
        match request.method {
            "conncheck" => self.conncheck(&request, &mut out),
            "refresh" => self.refresh_command(&request, &mut out),
            _ => write_error(&mut out, request.id, "method-not-found", None),
        }
        request.id.map(|_| out)
    }

    fn conncheck(&self, request: &Request<'_>, out: &mut Vec<u8>) {
        let ids = request.args.get("ids").ok().flatten().and_then(|ids| ids.as_list());
        let Some(ids) = ids else { return write_error(out, request.id, "bad-format", None) };
        let known: Vec<&[u8]> = ids
            .iter()
            .flatten()
            .filter_map(|id| id.as_bytes())
            .filter(|id| self.knows(id))
            .collect();
        write_success(out, request.id, |w| {
            w.list(|w| known.iter().for_each(|id| w.bytes(id)));
        });
    }

    /// Asks the backend of a WebSocket now, if it is reached by requests.
    fn refresh_command(&mut self, request: &Request<'_>, out: &mut Vec<u8>) {
        let cid = request.args.get("cid").ok().flatten().and_then(|cid| cid.as_bytes());
        let Some(cid) = cid else { return write_error(out, request.id, "bad-format", None) };
        match Cid::parse(cid).and_then(|cid| self.find_ws(cid)) {
            Some(key) => {
                self.refresh(key);
                write_success(out, request.id, |w| w.null());
            }
            None => write_error(out, request.id, "item-not-found", None),
        }
    }

    /// Whether it is a session here: `<sender>:<id>`, or the public id of a WebSocket.
    fn knows(&self, id: &[u8]) -> bool {
        if Cid::parse(id).is_some_and(|cid| self.find_ws(cid).is_some()) {
            return true;
        }
        let Some(at) = id.iter().position(|&b| b == b':') else { return false };
        let (sender, id) = (&id[..at], &id[at + 1..]);
        self.peers.find(sender, false).is_some_and(|peer| self.find(peer, id).is_some())
    }
}
