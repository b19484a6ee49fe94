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

/// Under which key equal requests may share one backend request (spec/internal-rpc.md §3). Unlike
/// there the query is part of it: it may be what tells one client's content from another's.
fn sharing_key(args: &inspect::Args<'_>, share_all: bool) -> Option<Vec<u8>> {
    if args.auto_share && args.method == "GET" {
        let mut ids: Vec<&[u8]> = args
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("Grip-Last"))
            .map(|(_, value)| value)
            .collect();
        ids.sort_unstable();
        let mut key = [b"auto|", args.uri.as_bytes()].concat();
        ids.iter().for_each(|id| key.extend([b"|", *id].concat()));
        return Some(key);
    }
    share_all.then(|| [args.method.as_bytes(), b"|", args.uri.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use tnetstring::Writer;

    use super::*;

    fn key(method: &str, uri: &str, last: &[&str], share_all: bool) -> Option<String> {
        let mut headers = Writer::new();
        headers.list(|w| {
            for value in last {
                w.list(|w| ["grip-last", value].iter().for_each(|text| w.str(text)));
            }
        });
        let headers = headers.into_vec();
        let args = inspect::Args {
            method,
            uri,
            headers: zhttp::Headers::parse(tnetstring::parse_all(&headers).unwrap()).unwrap(),
            body: b"",
            truncated: false,
            get_session: false,
            auto_share: true,
        };
        sharing_key(&args, share_all).map(|key| String::from_utf8(key).unwrap())
    }

    #[test]
    fn requests_share_an_answer_that_is_for_all_of_them() {
        let of = |uri, last: &[&str]| key("GET", uri, last, false).unwrap();
        assert_eq!(of("http://h/p", &["b; last-id=1", "a; last-id=2"]), {
            "auto|http://h/p|a; last-id=2|b; last-id=1"
        });
        assert_ne!(of("http://h/p?user=1", &[]), of("http://h/p?user=2", &[]));
        assert_ne!(of("http://h/p", &["a; last-id=1"]), of("http://h/p", &[]));
        assert_eq!(key("POST", "http://h/p", &[], false), None);
        assert_eq!(key("POST", "http://h/p?q", &[], true).unwrap(), "POST|http://h/p?q");
    }
}
