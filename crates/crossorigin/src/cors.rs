//! CORS headers (spec/proxy.md §9.1).

use zhttp::{HeaderBuf, Headers};

/// Response headers that scripts may read in any case.
const SAFE: [&str; 7] = [
    "cache-control",
    "content-language",
    "content-length",
    "content-type",
    "expires",
    "last-modified",
    "pragma",
];

fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Adds to a response's headers what lets scripts of other sites read it. Headers that are there
/// stay. `request`: the headers of the client's request.
pub fn add(request: Headers<'_>, response: &mut HeaderBuf) {
    let exposed = exposed(response.as_headers().iter().map(|(name, _)| name));
    let methods = request.get("access-control-request-method");
    let asked = all(request, "access-control-request-headers");
    let origin = request.get("origin");
    let values: [(&str, Option<&[u8]>); 6] = [
        (
            "Access-Control-Allow-Methods",
            Some(methods.unwrap_or(b"OPTIONS, HEAD, GET, POST, PUT, DELETE")),
        ),
        ("Access-Control-Allow-Headers", Some(&asked[..]).filter(|asked| !asked.is_empty())),
        ("Access-Control-Expose-Headers", Some(exposed.as_bytes()).filter(|e| !e.is_empty())),
        ("Access-Control-Allow-Credentials", Some(b"true")),
        ("Access-Control-Allow-Origin", Some(origin.unwrap_or(b"*"))),
        ("Access-Control-Max-Age", Some(b"3600")),
    ];
    for (name, value) in values {
        if let Some(value) = value.filter(|_| response.as_headers().get(name).is_none()) {
            response.push(name, value);
        }
    }
}

fn all(headers: Headers<'_>, wanted: &str) -> Vec<u8> {
    let values: Vec<&[u8]> = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value)
        .collect();
    values.join(&b", "[..])
}

/// The value of `Access-Control-Expose-Headers` for a response with headers of these names
/// (spec/proxy.md §9.1): those that scripts may not read in any case, each once as first spelled.
pub fn exposed<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in all {
        let hidden = SAFE.iter().any(|safe| name.eq_ignore_ascii_case(safe))
            || has_prefix(name, "access-control-")
            || has_prefix(name, "grip-");
        if !hidden && !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            names.push(name);
        }
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(of: &[(&str, &str)]) -> HeaderBuf {
        let mut list = HeaderBuf::new();
        of.iter().for_each(|(name, value)| list.push(name, value.as_bytes()));
        list
    }

    #[test]
    fn what_is_added() {
        let request = list(&[
            ("Origin", "http://a"),
            ("Access-Control-Request-Headers", "X-A"),
            ("access-control-request-headers", "X-B"),
        ]);
        let mut response = list(&[("Content-Type", "t"), ("X-Own", "1"), ("x-own", "2")]);
        add(request.as_headers(), &mut response);
        let text: Vec<String> = response
            .as_headers()
            .iter()
            .skip(3)
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
            .collect();
        assert_eq!(
            text,
            [
                "Access-Control-Allow-Methods: OPTIONS, HEAD, GET, POST, PUT, DELETE",
                "Access-Control-Allow-Headers: X-A, X-B",
                "Access-Control-Expose-Headers: X-Own",
                "Access-Control-Allow-Credentials: true",
                "Access-Control-Allow-Origin: http://a",
                "Access-Control-Max-Age: 3600",
            ]
        );
        let mut kept = list(&[("Access-Control-Allow-Origin", "x")]);
        add(HeaderBuf::new().as_headers(), &mut kept);
        assert_eq!(kept.as_headers().get("access-control-allow-origin"), Some(&b"x"[..]));
        assert!(kept.as_headers().get("access-control-expose-headers").is_none());
    }
}
