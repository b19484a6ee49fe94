//! GRIP sessions (spec/grip.md §13): what a response says of them, and how a request shows which
//! one it belongs to. What is known of them is kept by a service outside.

use serde_json::Value as Json;

use crate::fields::{list_pieces, parse_params, parse_piece};
use crate::instruct::ResponseHead;

/// Rules and ids of one response that are used; more are left out.
const ENTRIES_MAX: usize = 100;

/// How requests show their session (`Grip-Session-Detect`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectRule {
    /// The beginning of the paths that it is for.
    pub path_prefix: String,
    /// JSON pointer (RFC 6901) to the session id in the request's body.
    pub sid_ptr: String,
    /// The form parameter whose value is the JSON document, instead of the body itself.
    pub json_param: Option<String>,
}

/// What a response says of its session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionInfo {
    /// `Grip-Session-Id`.
    pub id: Option<String>,
    /// `Grip-Session-Detect`.
    pub rules: Vec<DetectRule>,
    /// `Grip-Last`: channel and id.
    pub last_ids: Vec<(String, String)>,
}

impl SessionInfo {
    /// Reads the headers of a response. Entries that lack something are left out.
    pub fn of(response: &ResponseHead<'_>) -> Self {
        let id = lines(response, "Grip-Session-Id").next().filter(|id| !id.is_empty());
        let rules = pieces(response, "Grip-Session-Detect");
        let last = pieces(response, "Grip-Last");
        Self {
            id,
            rules: rules.iter().filter_map(|piece| rule(piece)).take(ENTRIES_MAX).collect(),
            last_ids: last.iter().filter_map(|piece| last_id(piece)).take(ENTRIES_MAX).collect(),
        }
    }
}

fn lines<'a>(response: &ResponseHead<'a>, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let matching = response.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name));
    matching.map(|(_, value)| String::from_utf8_lossy(value).trim().to_owned())
}

fn pieces(response: &ResponseHead<'_>, name: &str) -> Vec<String> {
    let split = |line: String| list_pieces(&line).into_iter().map(str::to_owned).collect();
    lines(response, name).flat_map::<Vec<String>, _>(split).collect()
}

fn rule(piece: &str) -> Option<DetectRule> {
    let params = parse_params(piece)?;
    let get = |name| params.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
    Some(DetectRule {
        path_prefix: get("path-prefix")?,
        sid_ptr: get("sid-ptr")?,
        json_param: get("json-param"),
    })
}

fn last_id(piece: &str) -> Option<(String, String)> {
    let (channel, params) = parse_piece(piece)?;
    let id = params.get("last-id").filter(|_| !channel.is_empty())?;
    Some((channel.to_owned(), id.to_owned()))
}

impl DetectRule {
    /// The session id that a request's body shows, if it does.
    pub fn find(&self, body: &[u8]) -> Option<String> {
        let document: Json = match &self.json_param {
            None => serde_json::from_slice(body).ok()?,
            Some(name) => {
                let mut params = url::form_urlencoded::parse(body);
                let (_, value) = params.find(|(param, _)| param == name)?;
                serde_json::from_str(&value).ok()?
            }
        };
        match document.pointer(&self.sid_ptr)? {
            Json::String(id) if !id.is_empty() => Some(id.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(headers: &[(&str, &str)]) -> SessionInfo {
        let headers: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
        let response = ResponseHead { code: 200, reason: "OK", headers: &headers, body: b"" };
        SessionInfo::of(&response)
    }

    fn a_rule(sid_ptr: &str, json_param: Option<&str>) -> DetectRule {
        DetectRule {
            path_prefix: "/p".to_owned(),
            sid_ptr: sid_ptr.to_owned(),
            json_param: json_param.map(str::to_owned),
        }
    }

    #[test]
    fn headers_name_the_session_its_ids_and_how_to_find_it() {
        let got = info(&[
            ("grip-session-id", " s1 "),
            ("Grip-Session-Detect", r#"path-prefix=/p; sid-ptr="/a/b", sid-ptr=/x"#),
            ("Grip-Session-Detect", "path-prefix=/p; sid-ptr=/c; json-param=m"),
            ("Grip-Last", "c; last-id=7, d"),
        ]);
        assert_eq!(got.id.as_deref(), Some("s1"));
        assert_eq!(got.rules, [a_rule("/a/b", None), a_rule("/c", Some("m"))]);
        assert_eq!(got.last_ids, [("c".to_owned(), "7".to_owned())]);
        assert_eq!(info(&[("Grip-Session-Id", ""), ("X", "y")]), SessionInfo::default());
    }

    #[test]
    fn a_body_shows_its_session() {
        for (rule, body, found) in [
            (a_rule("/a/b", None), r#"{"a":{"b":"s"}}"#, Some("s")),
            (a_rule("/a/0", None), r#"{"a":["t"]}"#, Some("t")),
            (a_rule("/a", None), r#"{"a":5}"#, None),
            (a_rule("/a", None), r#"{"a":""}"#, None),
            (a_rule("/a", None), "no JSON", None),
            (a_rule("a", None), r#"{"a":"s"}"#, None),
            (a_rule("/a", Some("m")), "x=1&m=%7B%22a%22%3A+%22u%22%7D", Some("u")),
            (a_rule("/a", Some("m")), r#"{"a":"s"}"#, None),
        ] {
            assert_eq!(rule.find(body.as_bytes()).as_deref(), found, "{body}");
        }
    }
}
