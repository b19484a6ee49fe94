//! The file format alone: bytes to sections, keys and raw values (spec/config.md §2).
//! Knows nothing of include, variables or types; called by `settings`.

use std::collections::HashMap;

/// What stands behind one key: the items between unquoted commas, unescaped and trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    /// At least one item, possibly empty.
    pub items: Vec<String>,
    /// The line of the key, counted from 1.
    pub line: usize,
}

impl Value {
    /// The value as one string: empty for a list (an unquoted comma).
    pub fn text(&self) -> &str {
        if self.is_list() { "" } else { &self.items[0] }
    }

    /// Whether there was an unquoted comma.
    pub fn is_list(&self) -> bool {
        self.items.len() > 1
    }
}

/// A remark about a place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remark {
    pub line: usize,
    pub text: String,
}

/// A parsed file: (section, key) to the last value given, and what was skipped.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub values: HashMap<(String, String), Value>,
    pub skipped: Vec<Remark>,
}

/// Reads a whole file. Bytes that are not UTF-8 make it Latin-1, as old builds read it.
///
/// # Errors
/// A section header that is not closed, and a quoted value that never ends: both would hide all
/// that follows.
pub(crate) fn parse(bytes: &[u8]) -> Result<File, Remark> {
    let mut file = File::default();
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text).to_owned(),
        Err(_) => {
            let text = "not UTF-8, read as Latin-1".to_owned();
            file.skipped.push(Remark { line: 1, text });
            bytes.iter().map(|&b| char::from(b)).collect()
        }
    };
    let mut scanner = Scanner { rest: &text, line: 1 };
    let mut section = String::new();
    while let Some(c) = scanner.first_of_line() {
        match c {
            '#' | ';' => scanner.skip_line(),
            '[' => section = scanner.section()?,
            _ => scanner.assignment(&section, &mut file)?,
        }
    }
    Ok(file)
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Scanner<'a> {
    /// Moves to the first character of the next line that has one, without taking it.
    fn first_of_line(&mut self) -> Option<char> {
        loop {
            let c = self.rest.chars().next()?;
            if !c.is_whitespace() {
                return Some(c);
            }
            self.take();
        }
    }

    fn take(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        // "\r\n" counts at its "\n"
        if c == '\n' || (c == '\r' && !self.rest.starts_with('\n')) {
            self.line += 1;
        }
        Some(c)
    }

    /// Takes what is left of the line, without its end.
    fn take_line(&mut self) -> &'a str {
        let end = self.rest.find(['\n', '\r']).unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        line
    }

    fn skip_line(&mut self) {
        self.take_line();
    }

    fn section(&mut self) -> Result<String, Remark> {
        let line = self.take_line();
        match line[1..].split_once(']') {
            Some((name, _)) => Ok(name.trim().to_owned()),
            None => {
                let text = format!("section header without closing bracket: {line}");
                Err(Remark { line: self.line, text })
            }
        }
    }

    fn assignment(&mut self, section: &str, file: &mut File) -> Result<(), Remark> {
        let line = self.line;
        let end = self.rest.find(['=', ';', '\n', '\r']).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        let name = name.trim();
        if !rest.starts_with('=') {
            let text = format!("line without \"=\" ignored: {name}");
            file.skipped.push(Remark { line, text });
            self.skip_line();
            return Ok(());
        }
        self.rest = &rest[1..];
        let items = self.value(name)?;
        file.values.insert((section.to_owned(), name.to_owned()), Value { items, line });
        Ok(())
    }

    fn value(&mut self, name: &str) -> Result<Vec<String>, Remark> {
        let mut items = Vec::new();
        let mut item = Item::default();
        let mut quoted_since = None;
        loop {
            let line = self.line;
            let Some(c) = self.rest.chars().next() else { break };
            match (c, quoted_since) {
                ('\n' | '\r', None) => break,
                (';', None) => {
                    self.skip_line();
                    break;
                }
                _ => self.take(),
            };
            match (c, quoted_since) {
                ('\\', _) => self.escape(&mut item),
                ('"', None) => quoted_since = Some(line),
                ('"', Some(_)) => {
                    quoted_since = None;
                    item.protect();
                }
                (',', None) => items.push(std::mem::take(&mut item).finish()),
                (c, None) => item.plain(c),
                (c, Some(_)) => item.kept(c),
            }
        }
        if let Some(line) = quoted_since {
            let text = format!("{name}: the double quote opened here is never closed");
            return Err(Remark { line, text });
        }
        items.push(item.finish());
        Ok(items)
    }

    /// What follows a backslash, in or out of quotes.
    fn escape(&mut self, item: &mut Item) {
        let Some(c) = self.take() else { return };
        match c {
            '\r' if self.rest.starts_with('\n') => {
                self.take();
            }
            '\r' | '\n' => {}
            'n' => item.kept('\n'),
            'r' => item.kept('\r'),
            't' => item.kept('\t'),
            'a' => item.kept('\x07'),
            'b' => item.kept('\x08'),
            'f' => item.kept('\x0c'),
            'v' => item.kept('\x0b'),
            'x' => match self.number(0, 16) {
                Some(code) => item.kept(code),
                None => item.kept('x'),
            },
            '0'..='7' => {
                let first = c.to_digit(8).unwrap_or(0);
                item.kept(self.number(first, 8).unwrap_or('\0'));
            }
            other => item.kept(other),
        }
    }

    /// The digits of a numeric escape; a code that is no character becomes U+FFFD.
    fn number(&mut self, first: u32, radix: u32) -> Option<char> {
        let mut code = first;
        let mut digits = u32::from(radix == 8);
        while let Some(digit) = self.rest.chars().next().and_then(|c| c.to_digit(radix)) {
            code = code.saturating_mul(radix).saturating_add(digit);
            digits += 1;
            self.take();
        }
        (digits > 0).then(|| char::from_u32(code).unwrap_or('\u{fffd}'))
    }
}

/// One item in the making: what quotes or escapes protect is never trimmed.
#[derive(Default)]
struct Item {
    text: String,
    protected: usize,
}

impl Item {
    fn plain(&mut self, c: char) {
        if !(c.is_whitespace() && self.text.is_empty()) {
            self.text.push(c);
        }
    }

    fn kept(&mut self, c: char) {
        self.text.push(c);
        self.protect();
    }

    fn protect(&mut self) {
        self.protected = self.text.len();
    }

    fn finish(mut self) -> String {
        let end = self.text.trim_end().len().max(self.protected);
        self.text.truncate(end);
        // the escape of the field for a literal "@" in front
        if self.text.starts_with("@@") {
            self.text.remove(0);
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn items(text: &str) -> Vec<String> {
        let file = parse(text.as_bytes()).unwrap();
        file.values[&("s".to_owned(), "k".to_owned())].items.clone()
    }

    #[test]
    fn values_follow_every_rule() {
        for (line, expected) in [
            ("k=v", vec!["v"]),
            ("  k  =  v w  ", vec!["v w"]),
            ("k=q- ; note", vec!["q-"]),
            ("k=a#b", vec!["a#b"]),
            ("k=", vec![""]),
            ("k=a=b", vec!["a=b"]),
            ("k=a,b", vec!["a", "b"]),
            ("k= a , , b ,", vec!["a", "", "b", ""]),
            ("k=\"a,b;c=d\"", vec!["a,b;c=d"]),
            ("k = \"/a b/c\"", vec!["/a b/c"]),
            ("k=\" a \" ", vec![" a "]),
            ("k=\"a\" b  ", vec!["a b"]),
            ("k='a,b'", vec!["'a", "b'"]),
            ("k=\"a,b\",c", vec!["a,b", "c"]),
            ("k=\"a\nb\"", vec!["a\nb"]),
            (r#"k=a\\b\"c"#, vec!["a\\b\"c"]),
            (r"k=a\n\r\t\a\b\f\v\0z", vec!["a\n\r\t\x07\x08\x0c\x0b\0z"]),
            (r#"k="\x41g\101h""#, vec!["AgAh"]),
            (r"k=\x", vec!["x"]),
            (r"k=\xffffffffff", vec!["\u{fffd}"]),
            (r"k=\q", vec!["q"]),
            ("k=127.0.0.\\\n1", vec!["127.0.0.1"]),
            ("k=127.0.0.\\\r\n1", vec!["127.0.0.1"]),
            ("k=@@x", vec!["@x"]),
            ("k=\u{e9}", vec!["\u{e9}"]),
            ("k=v\r", vec!["v"]),
            ("k=a\\", vec!["a"]),
        ] {
            assert_eq!(items(&format!("[s]\n{line}\n")), expected, "{line:?}");
        }
    }

    #[test]
    fn lines_and_sections() {
        let text =
            "\u{feff}; c\n# \"odd\n[ a ] x\nk=1\n  # c\n\n[b]\nk=2\nnot a pair\n[a]\r\nk=3\r\nK=4";
        let file = parse(text.as_bytes()).unwrap();
        let get = |s: &str, k: &str| file.values[&(s.to_owned(), k.to_owned())].clone();
        assert_eq!(get("a", "k"), Value { items: vec!["3".into()], line: 11 });
        assert_eq!(get("a", "K").text(), "4");
        assert_eq!(get("b", "k").text(), "2");
        assert_eq!(file.values.len(), 3);
        assert_eq!(file.skipped.len(), 1);
        assert_eq!(file.skipped[0].line, 9);
    }

    #[test]
    fn a_list_read_as_a_string_is_empty() {
        let value = Value { items: vec!["a".into(), "b".into()], line: 1 };
        assert_eq!(value.text(), "");
    }

    #[test]
    fn what_hides_the_rest_is_an_error() {
        let error = parse(b"[a]\nk=1\n[proxy\nx=1").unwrap_err();
        assert_eq!((error.line, error.text.contains("[proxy")), (3, true));
        let error = parse(b"[a]\n\nk=x\"y\nz=1\n").unwrap_err();
        assert_eq!((error.line, error.text.starts_with("k: ")), (3, true));
    }

    #[test]
    fn other_bytes_are_latin_1() {
        let file = parse(b"[s]\nk=\xe9\n").unwrap();
        assert_eq!(file.values[&("s".to_owned(), "k".to_owned())].text(), "\u{e9}");
        assert_eq!(file.skipped.len(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_lines_panic(text in "([\\[\\]=;#\"\\\\,x07 a\r\n@]{0,40})") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn quoted_text_comes_back(text in "[^@\\\\\"\r]{1,40}") {
            prop_assert_eq!(items(&format!("[s]\nk=\"{text}\"")), vec![text]);
        }
    }
}
