//! The syntax of GRIP's list headers (spec/grip.md §2).

/// Name and value of the parameters of a piece, values unquoted, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(pub Vec<(String, String)>);

impl Params {
    /// The value of the first parameter of that name, compared without case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The values of every parameter of exactly that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// The trimmed pieces of one header line, split at commas outside of quotes. An unterminated
/// quote makes the rest of the line one piece; a trailing comma gives no piece.
pub fn list_pieces(line: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = line;
    if rest.trim().is_empty() {
        return pieces;
    }
    loop {
        let end = end_of_piece(rest);
        pieces.push(rest[..end].trim());
        match rest.get(end + 1..) {
            Some(after) if !after.trim().is_empty() => rest = after,
            _ => return pieces,
        }
    }
}

/// Where the first piece of `text` ends: at a comma outside of quotes, or at the end.
fn end_of_piece(text: &str) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

/// A piece in form A: the primary value and the parameters; `None` for a syntax error.
pub fn parse_piece(piece: &str) -> Option<(&str, Params)> {
    match piece.split_once(';') {
        None => Some((piece.trim(), Params::default())),
        Some((primary, rest)) => Some((primary.trim(), parse_params(rest)?)),
    }
}

/// A piece in form B: parameters only; `None` for a syntax error.
pub(crate) fn parse_params(text: &str) -> Option<Params> {
    let mut params = Vec::new();
    let mut rest = text;
    loop {
        let (param, after) = parse_param(rest)?;
        params.push(param);
        match after {
            Some(after) => rest = after,
            None => return Some(Params(params)),
        }
    }
}

/// One `name` or `name=value`, and what follows its `;`.
fn parse_param(text: &str) -> Option<((String, String), Option<&str>)> {
    let end = text.find([';', '=']).unwrap_or(text.len());
    let name = text[..end].trim().to_owned();
    let Some(value) = text[end..].strip_prefix('=') else {
        return Some(((name, String::new()), text.get(end + 1..)));
    };
    if let Some(quoted) = value.strip_prefix('"') {
        let (value, after) = unquote(quoted)?;
        return Some(((name, value), after.split_once(';').map(|(_, rest)| rest)));
    }
    let (value, after) = match value.split_once(';') {
        Some((value, after)) => (value, Some(after)),
        None => (value, None),
    };
    Some(((name, value.trim().to_owned()), after))
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// An integer as GRIP headers have it: decimal with an optional sign, 32 bits, trimmed.
pub(crate) fn parse_int(text: &str) -> Option<i32> {
    text.trim().parse().ok()
}
