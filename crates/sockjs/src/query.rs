//! Parameters of queries and forms.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// The function that a client's page waits for: parameter `callback`, or `c` without one. Bytes
/// as the client wrote them; whether they are a function's name is for the caller to say.
pub fn callback(query: &str) -> Option<Vec<u8>> {
    let value = query_field(query, "callback").or_else(|| query_field(query, "c"))?;
    Some(value).filter(|value| !value.is_empty())
}

/// The first value of a parameter of a query.
pub fn query_field(query: &str, name: &str) -> Option<Vec<u8>> {
    field(query.as_bytes(), name).map(|value| percent_decode(value).collect())
}

/// The first value of a field of a form (`application/x-www-form-urlencoded`), in which a space
/// may be a plus sign.
pub fn form_field(form: &[u8], name: &str) -> Option<Vec<u8>> {
    let value = field(form, name)?;
    let spaced: Cow<'_, [u8]> = match value.contains(&b'+') {
        true => value.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect(),
        false => value.into(),
    };
    Some(percent_decode(&spaced).collect())
}

fn field<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    text.split(|&b| b == b'&')
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks() {
        assert_eq!(callback("t=1&c=a%2Eb").as_deref(), Some(&b"a.b"[..]));
        assert_eq!(callback("c=a&callback=b+c").as_deref(), Some(&b"b+c"[..]));
        for query in ["", "c=", "cc=x", "c", "xc=1"] {
            assert_eq!(callback(query), None, "{query}");
        }
    }

    #[test]
    fn forms() {
        assert_eq!(
            form_field(b"a=1&d=%5B%22x+%2b%22%5D&d=2", "d").as_deref(),
            Some(&b"[\"x +\"]"[..])
        );
        assert_eq!(form_field(b"[\"x\"]", "d"), None);
    }
}
