//! Commands of the handler (spec/internal-rpc.md §8).

use zrpc::{Request, write_error, write_success};

use crate::Proxy;

impl Proxy {
    /// Answers a command; nothing if no reply is wanted.
    pub fn command(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let request = match Request::parse(payload) {
            Ok(request) => request,
            Err(cause) => {
                self.drops.malformed += 1;
                log::warn!("zrpc server: received message with invalid format ({cause}), skipping");
                return None;
            }
        };
        let mut out = Vec::new();
        match request.method {
            "conncheck" => self.conncheck(&request, &mut out),
            // There are no WebSockets here.
            "refresh" => write_error(&mut out, request.id, "item-not-found", None),
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

    /// Whether `<sender>:<id>` is a session here.
    fn knows(&self, id: &[u8]) -> bool {
        let Some(at) = id.iter().position(|&b| b == b':') else { return false };
        let (sender, id) = (&id[..at], &id[at + 1..]);
        self.peers.find(sender, false).is_some_and(|peer| self.find(peer, id).is_some())
    }
}
