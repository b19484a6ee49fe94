//! The coding of events: `TYPE SP <hex length> CRLF <content> CRLF`, or `TYPE CRLF`.

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The connection opens, or is accepted.
    Open,
    /// A text message.
    Text,
    /// A binary message.
    Binary,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
    /// A close, with code (2 bytes) and reason, or empty.
    Close,
    /// The connection ended without a close.
    Disconnect,
}

const NAMES: [(Kind, &str); 7] = [
    (Kind::Open, "OPEN"),
    (Kind::Text, "TEXT"),
    (Kind::Binary, "BINARY"),
    (Kind::Ping, "PING"),
    (Kind::Pong, "PONG"),
    (Kind::Close, "CLOSE"),
    (Kind::Disconnect, "DISCONNECT"),
];

/// One event of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What happened.
    pub kind: Kind,
    /// Its content, perhaps empty.
    pub content: &'a [u8],
}

impl<'a> Event<'a> {
    /// Code and reason of a close. The code 0 is none: the libraries of backends write it where
    /// they were given no code.
    pub fn close(&self) -> (Option<u16>, &'a [u8]) {
        match self.content {
            [0, 0, reason @ ..] => (None, reason),
            [high, low, reason @ ..] => (Some(u16::from_be_bytes([*high, *low])), reason),
            _ => (None, b""),
        }
    }
}

/// Appends an event. One without content has the short form.
pub fn write(out: &mut Vec<u8>, kind: Kind, content: &[u8]) {
    let name = NAMES.iter().find(|(k, _)| *k == kind).map_or("", |(_, name)| name);
    out.extend_from_slice(name.as_bytes());
    if !content.is_empty() {
        out.extend_from_slice(format!(" {:x}\r\n", content.len()).as_bytes());
        out.extend_from_slice(content);
    }
    out.extend_from_slice(b"\r\n");
}

/// The events of a body. Those of unknown types are left out, content that is cut short is taken
/// as it is.
///
/// # Errors
/// A line without its end, or a length that is no hexadecimal number.
pub fn parse(body: &[u8]) -> Result<Vec<Event<'_>>, &'static str> {
    let mut events = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\r\n");
        let end = end.ok_or("an event's line has no end")?;
        let (name, size) = line(&rest[..end])?;
        rest = &rest[end + 2..];
        let content = match size {
            None => &b""[..],
            Some(size) => {
                let content = &rest[..size.min(rest.len())];
                rest = rest.get(size.saturating_add(2)..).unwrap_or(b"");
                content
            }
        };
        if let Some((kind, _)) = NAMES.iter().find(|(_, known)| known.as_bytes() == name) {
            events.push(Event { kind: *kind, content });
        }
    }
    Ok(events)
}

/// Type and length of an event's line.
fn line(line: &[u8]) -> Result<(&[u8], Option<usize>), &'static str> {
    let Some(space) = line.iter().position(|&byte| byte == b' ') else { return Ok((line, None)) };
    let digits = std::str::from_utf8(&line[space + 1..]).ok();
    let size = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
    Ok((&line[..space], Some(size.ok_or("an event's length is no hexadecimal number")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, content: &[u8]) -> Event<'_> {
        Event { kind, content }
    }

    #[test]
    fn forms() {
        let mut out = Vec::new();
        write(&mut out, Kind::Open, b"");
        write(&mut out, Kind::Text, b"hello, world!!\r\n");
        write(&mut out, Kind::Text, b"");
        assert_eq!(out, b"OPEN\r\nTEXT 10\r\nhello, world!!\r\n\r\nTEXT\r\n");
        assert_eq!(
            parse(&out).unwrap(),
            [
                event(Kind::Open, b""),
                event(Kind::Text, b"hello, world!!\r\n"),
                event(Kind::Text, b"")
            ]
        );
        assert_eq!(parse(b"TEXT 0\r\n\r\nPING\r\n").unwrap().len(), 2);
        assert_eq!(parse(b"TEXT A\r\n0123456789\r\n").unwrap(), [event(Kind::Text, b"0123456789")]);
    }

    #[test]
    fn odd_bodies() {
        assert!(parse(b"OPEN").is_err() && parse(b"TEXT x\r\na\r\n").is_err());
        assert!(parse(b"TEXT \r\na\r\n").is_err() && parse(b"TEXT -1\r\na\r\n").is_err());
        assert_eq!(parse(b"TEXT 5\r\nab").unwrap(), [event(Kind::Text, b"ab")]);
        assert_eq!(parse(b"NEW 1\r\nx\r\nPING\r\n").unwrap(), [event(Kind::Ping, b"")]);
        assert_eq!(parse(b"TEXT 2\r\nabXXPING\r\n").unwrap().len(), 2);
        assert!(parse(b"TEXT ffffffffffffffff\r\nab").is_ok());
        assert_eq!(event(Kind::Close, b"\x03\xe8bye").close(), (Some(1000), &b"bye"[..]));
        assert_eq!(event(Kind::Close, b"\x03").close(), (None, &b""[..]));
        assert_eq!(event(Kind::Close, b"\0\0").close(), (None, &b""[..]));
    }
}
