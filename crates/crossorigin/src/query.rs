//! Query parameters, found and taken out.

/// The parameters of a URI's query that were not taken.
pub(crate) struct Query<'a> {
    before: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Query<'a> {
    /// The query of an absolute URI; none has no parameters.
    pub fn of(uri: &'a str) -> Self {
        let (before, query) = uri.split_once('?').unwrap_or((uri, ""));
        let pair = |part: &'a str| part.split_once('=').unwrap_or((part, ""));
        let pairs = query.split('&').filter(|part| !part.is_empty()).map(pair).collect();
        Self { before, pairs }
    }

    /// Whether there is such a parameter.
    pub fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(key, _)| *key == name)
    }

    /// Takes a parameter out, every occurrence of it; gives the first value, decoded. Empty if a
    /// `%` is not followed by two digits.
    pub fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        let value = self.pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)?;
        self.pairs.retain(|(key, _)| *key != name);
        Some(decode(value).unwrap_or_default())
    }

    /// The URI with the parameters that are left.
    pub fn uri(&self) -> String {
        let mut uri = self.before.to_owned();
        for (n, (key, value)) in self.pairs.iter().enumerate() {
            uri.push(if n == 0 { '?' } else { '&' });
            uri.push_str(key);
            if !value.is_empty() {
                uri.push('=');
                uri.push_str(value);
            }
        }
        uri
    }
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
        let mut query = Query::of("http://h/p?cb=%4");
        assert_eq!((query.take("cb"), query.uri()), (Some(Vec::new()), "http://h/p".to_owned()));
        assert_eq!(decode("%zz").or(decode("%+1")).or(decode("%")), None);
    }
}
