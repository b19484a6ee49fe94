//! A JSON-P request made an ordinary one (spec/proxy.md §9.2).

use serde_json::{Map, Value};
use zhttp::{HeaderBuf, Headers};

use crate::query::Query;
use crate::response::Jsonp;

/// How JSON-P is done on a route.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// `jsonp_cb`: the parameter that holds the callback.
    pub callback_parameter: &'a str,
    /// `jsonp_body`: the parameter that holds the body; empty for none.
    pub body_parameter: &'a str,
    /// `jsonp_defcb`: the callback if only the body is there; empty for none.
    pub default_callback: &'a str,
    /// `jsonp_defmethod`
    pub default_method: &'a str,
    /// `jsonp_mode` is `extended`.
    pub extended: bool,
}

/// The request that is meant.
#[derive(Debug)]
pub struct Converted {
    /// Method.
    pub method: String,
    /// URI without the parameters that were used.
    pub uri: String,
    /// Headers.
    pub headers: HeaderBuf,
    /// Body.
    pub body: Vec<u8>,
    /// How the response is wrapped.
    pub jsonp: Jsonp,
}

/// Takes a GET apart whose query has a callback. `uri` is absolute; `host`: for the Host header.
/// Nothing if it is no JSON-P request.
///
/// # Errors
/// The text of the answer 400.
pub fn convert(
    uri: &str,
    host: &str,
    headers: Headers<'_>,
    options: &Options<'_>,
) -> Result<Option<Converted>, &'static str> {
    let mut query = Query::of(uri);
    let has_body = !options.body_parameter.is_empty() && query.has(options.body_parameter);
    let by_default = !options.default_callback.is_empty() && has_body;
    if !query.has(options.callback_parameter) && !by_default {
        return Ok(None);
    }
    let named = query.take(options.callback_parameter);
    let named = named.unwrap_or_else(|| options.default_callback.as_bytes().to_vec());
    let callback = callback(named).ok_or("Invalid callback parameter.")?;
    let method = match query.take("_method") {
        Some(method) => text(method).ok_or("Invalid _method parameter.")?,
        None => options.default_method.to_owned(),
    };
    let extra = match query.take("_headers") {
        Some(json) => object(&json).ok_or("Invalid _headers parameter.")?,
        None => Map::new(),
    };
    let body = if has_body {
        let body = query.take(options.body_parameter);
        Some(body.filter(|body| !body.is_empty()).ok_or("Invalid body parameter.")?)
    } else if options.body_parameter.is_empty() && query.has("_body") {
        let body = query.take("_body").filter(|body| !body.is_empty());
        Some(body.ok_or("Invalid _body parameter.")?)
    } else {
        None
    };
    let jsonp = Jsonp::new(&callback, options.extended);
    let headers = request_headers(&extra, has_body, host, headers);
    let body = body.unwrap_or_default();
    Ok(Some(Converted { method, uri: query.uri(), headers, body, jsonp }))
}

/// The callback that a client named, if it is one: a name or a path of names, as `a.b["c"]`.
pub fn callback(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok().filter(|text| is_callback(text))
}

/// A name or a path of names, as `a.b["c"]`: whatever else it may be would be a script of
/// whoever made the URI.
fn is_callback(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_$.[]'\"".contains(&b);
    (1..=256).contains(&text.len()) && text.bytes().all(allowed)
}

fn text(bytes: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(bytes).ok()?;
    (!text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
}

fn object(json: &[u8]) -> Option<Map<String, Value>> {
    let value: Value = serde_json::from_slice(json).ok()?;
    let Value::Object(map) = value else { return None };
    let good =
        |value: &Value| value.as_str().is_some_and(|text| !text.contains(['\r', '\n', '\0']));
    map.values().all(good).then_some(map)
}

fn request_headers(
    extra: &Map<String, Value>,
    has_body: bool,
    host: &str,
    original: Headers<'_>,
) -> HeaderBuf {
    let is = |name: &str, other: &str| name.eq_ignore_ascii_case(other);
    let mut sorted: Vec<(&String, &str)> =
        extra.iter().filter_map(|(name, value)| Some((name, value.as_str()?))).collect();
    sorted.sort();
    let mut out = HeaderBuf::new();
    for (name, value) in sorted {
        if !(is(name, "host") || is(name, "accept") || (has_body && is(name, "content-type"))) {
            out.push(name, value.as_bytes());
        }
    }
    if has_body {
        out.push("Content-Type", b"application/json");
    }
    out.push("Host", host.as_bytes());
    out.push("Accept", b"*/*");
    for (name, value) in original.iter() {
        if !(is(name, "host") || is(name, "accept")) {
            out.push(name, value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options<'_> = Options {
        callback_parameter: "callback",
        body_parameter: "",
        default_callback: "",
        default_method: "GET",
        extended: true,
    };

    fn run(uri: &str, options: &Options<'_>) -> Result<Option<Converted>, &'static str> {
        let mut headers = HeaderBuf::new();
        headers.push("Host", b"h");
        headers.push("Cookie", b"c");
        convert(uri, "h", headers.as_headers(), options)
    }

    #[test]
    fn requests_are_converted() {
        assert!(run("http://h/?x=1", &OPTIONS).unwrap().is_none());
        let uri = "http://h/p?callback=f&_method=POST&_body=b%20c&_headers=%7B%22X%22:%22y%22,\
            %22host%22:%22evil%22%7D&keep=1";
        let seen = run(uri, &OPTIONS).unwrap().unwrap();
        assert_eq!((seen.method.as_str(), seen.uri.as_str()), ("POST", "http://h/p?keep=1"));
        assert_eq!(seen.body, b"b c");
        let names: Vec<_> = seen.headers.as_headers().iter().map(|(n, _)| n.to_owned()).collect();
        assert_eq!(names, ["X", "Host", "Accept", "Cookie"]);
        let basic = Options {
            body_parameter: "body",
            default_callback: "d",
            default_method: "POST",
            extended: false,
            ..OPTIONS
        };
        let seen = run("http://h/?body=%7B%7D", &basic).unwrap().unwrap();
        assert_eq!(seen.method, "POST");
        assert_eq!(seen.headers.as_headers().get("content-type"), Some(&b"application/json"[..]));
    }

    #[test]
    fn what_is_refused() {
        let error = |query: &str| run(&format!("http://h/?{query}"), &OPTIONS).err().unwrap_or("");
        for query in ["callback=", "callback=%", "callback=alert(1)//", "callback=%ff"] {
            assert_eq!(error(query), "Invalid callback parameter.", "{query}");
        }
        assert_eq!(error("callback=f&_method="), "Invalid _method parameter.");
        assert_eq!(error("callback=f&_method=a%0ab"), "Invalid _method parameter.");
        assert_eq!(error("callback=f&_headers=%5B%5D"), "Invalid _headers parameter.");
        assert_eq!(error("callback=f&_headers=%7B%22a%22:1%7D"), "Invalid _headers parameter.");
        assert_eq!(error("callback=f&_body="), "Invalid _body parameter.");
        assert_eq!(error("callback=a.b%5B%22c%22%5D"), "");
    }
}
