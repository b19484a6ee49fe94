//! `inspect`: a proxy asks what is known of a request (spec/internal-rpc.md §3).

use zrpc::{Request, inspect, write_success};

use super::Shard;
use super::links::{origin, path};
use crate::message::{Envelope, Question, ToHub};

impl Shard {
    pub(super) fn inspect(&mut self, envelope: Envelope, request: &Request<'_>) {
        let args = match inspect::Args::parse(request.args) {
            Ok(args) => args,
            Err(_) => return self.refuse(envelope, request, "bad-request", None),
        };
        let key = sharing_key(&args, self.settings.share_all);
        if args.get_session && self.settings.sessions {
            let (_, domain, _) = origin(args.uri).unwrap_or_default();
            let question = Question {
                envelope,
                id: request.id.map(<[u8]>::to_vec),
                sharing_key: key,
                domain,
                path: path(args.uri).to_owned(),
                body: args.body.to_vec(),
            };
            return self.to_hub.push(ToHub::FindSession(Box::new(question)));
        }
        let reply = inspect::Reply { sharing_key: key.as_deref(), ..inspect::Reply::default() };
        let mut payload = Vec::new();
        write_success(&mut payload, request.id, |w| reply.write(w));
        self.answer_call(envelope, payload);
    }
}

/// Under which key equal requests may share one backend request (spec/internal-rpc.md §3).
fn sharing_key(args: &inspect::Args<'_>, share_all: bool) -> Option<Vec<u8>> {
    if args.auto_share && args.method == "GET" {
        let path = args.uri.split('?').next().unwrap_or_default();
        let mut ids: Vec<&[u8]> = args
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("Grip-Last"))
            .map(|(_, value)| value)
            .collect();
        ids.sort_unstable();
        let mut key = [b"auto|", path.as_bytes()].concat();
        ids.iter().for_each(|id| key.extend([b"|", *id].concat()));
        return Some(key);
    }
    share_all.then(|| [args.method.as_bytes(), b"|", args.uri.as_bytes()].concat())
}
