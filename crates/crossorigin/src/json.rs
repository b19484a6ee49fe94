//! The little JSON that is written by hand: strings inside scripts and claims. For JSON-P here, and for
//! what the proxy writes itself.

/// A JSON string, with its quotes.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    escape_into(&mut out, text);
    out.push('"');
    out
}

/// The inside of a JSON string. Line ends that JavaScript takes for its own are escaped too, since
/// some of these texts become scripts.
pub fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' || matches!(c, '\u{7f}' | '\u{2028}' | '\u{2029}') => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped() {
        assert_eq!(
            quote("a\"\\\n\r\t\u{1}\u{2028}\u{e9}"),
            "\"a\\\"\\\\\\n\\r\\t\\u0001\\u2028\u{e9}\""
        );
    }
}
