//! Query parameters, found and taken out.

/// The parameters of a URI's query that were not taken.
pub(crate) struct Query<'a> {
    before: &'a str,
    parts: Vec<&'a str>,
}

impl<'a> Query<'a> {
    /// The query of an absolute URI; none has no parameters.
    pub fn of(uri: &'a str) -> Self {
        let (before, query) = uri.split_once('?').unwrap_or((uri, ""));
        let parts = if query.is_empty() { Vec::new() } else { query.split('&').collect() };
        Self { before, parts }
    }

    /// Whether there is such a parameter.
    pub fn has(&self, name: &str) -> bool {
        self.parts.iter().any(|part| pair(part).0 == name)
    }

    /// Takes a parameter out, every occurrence of it; gives the first value, decoded. Empty if a
    /// `%` is not followed by two digits.
    pub fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        let value = self.parts.iter().map(|part| pair(part)).find(|(key, _)| *key == name)?.1;
        self.parts.retain(|part| pair(part).0 != name);
        Some(decode(value).unwrap_or_default())
    }

    /// The URI with the parameters that are left.
    pub fn uri(&self) -> String {
        let mut uri = self.before.to_owned();
        for (n, part) in self.parts.iter().enumerate() {
            uri.push(if n == 0 { '?' } else { '&' });
            uri.push_str(part);
        }
        uri
    }
}

/// Name and value of a part.
fn pair(part: &str) -> (&str, &str) {
    part.split_once('=').unwrap_or((part, ""))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        let digits = std::str::from_utf8(&digits).ok().filter(|d| !d.starts_with('+'))?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_taken_out() {
        let mut query = Query::of("http://h/p?a=1&cb=f%20g+&b&cb=x");
        assert!(query.has("cb") && query.has("b") && !query.has("c"));
        assert_eq!(query.take("cb"), Some(b"f g+".to_vec()));
        assert_eq!(query.take("cb"), None);
        assert_eq!(query.uri(), "http://h/p?a=1&b");
        let mut query = Query::of("http://h/p?a=&&cb=f&b=c=d");
        assert_eq!(query.take("cb"), Some(b"f".to_vec()));
        assert_eq!(query.uri(), "http://h/p?a=&&b=c=d", "what stays is as it was");
        let mut query = Query::of("http://h/p?cb=%4");
        assert_eq!((query.take("cb"), query.uri()), (Some(Vec::new()), "http://h/p".to_owned()));
        assert_eq!(decode("%zz").or(decode("%+1")).or(decode("%")), None);
    }
}
