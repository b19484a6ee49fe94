//! The grammar of one line: sections of a value and props (spec/routes.md §2).

use std::fmt;

/// Why a line is not used. The texts are those of spec/routes.md §2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// `\` ends the line inside quotes.
    UnterminatedEscape,
    /// `\` before anything but `\` and `"` inside quotes.
    UnexpectedEscape(char),
    /// No closing quote.
    UnterminatedQuote,
    /// An empty prop, for example after a trailing comma.
    ExpectingProp,
    /// A prop that starts with `=`.
    EmptyPropName,
    /// Only one section.
    NoTarget,
    /// `proto` is neither `http` nor `ws`.
    Proto,
    /// `ssl` is neither `yes` nor `no`.
    Ssl,
    /// `path_beg` is present and empty.
    PathBeg,
    /// `jsonp_mode` is neither `basic` nor `extended`.
    JsonpMode,
    /// A `header` without a name before its colon.
    Header,
    /// A target without a port.
    TargetFormat,
    /// A port that is not in 1..65535.
    TargetPort,
    /// A ZeroMQ address without `://`, or with a port that is no number.
    ZmqSpec,
    /// A certificate or key file could not be read: the whole text.
    File(String),
    /// The same domain, proto, ssl and path as an earlier line.
    Duplicate,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnexpectedEscape(c) => return write!(f, "unexpected escape character: {c}"),
            Self::File(text) => text,
            Self::UnterminatedEscape => "unterminated escape sequence",
            Self::UnterminatedQuote => "unterminated quoted section",
            Self::ExpectingProp => "expecting prop",
            Self::EmptyPropName => "empty prop name",
            Self::NoTarget => "must specify condition and at least one target",
            Self::Proto => "proto must be set to 'http' or 'ws'",
            Self::Ssl => "ssl must be set to 'yes' or 'no'",
            Self::PathBeg => "path_beg cannot be empty",
            Self::JsonpMode => "jsonp_mode must be set to 'basic' or 'extended'",
            Self::Header => "header must use format 'name:value'",
            Self::TargetFormat => "target bad format",
            Self::TargetPort => "target invalid port",
            Self::ZmqSpec => "target bad ZeroMQ address, expected scheme://address",
            Self::Duplicate => "skipping duplicate condition",
        })
    }
}

impl std::error::Error for Error {}

/// One section of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub value: String,
    pub props: Vec<(String, String)>,
}

impl Section {
    /// The last occurrence of a prop that takes one value.
    pub fn last(&self, name: &str) -> Option<&str> {
        self.props.iter().rev().find(|(n, _)| n == name).map(|(_, text)| text.as_str())
    }

    /// Whether a flag is there; its text does not matter.
    pub fn has(&self, name: &str) -> bool {
        self.last(name).is_some()
    }

    /// The values of a prop that takes several, last first.
    pub fn all_reversed<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.props.iter().rev().filter(move |(n, _)| n == name).map(|(_, text)| text.as_str())
    }

    fn add(&mut self, item: String, first: bool) -> Result<(), Error> {
        if first && !item.contains('=') {
            self.value = item;
            return Ok(());
        }
        if item.is_empty() {
            return Err(Error::ExpectingProp);
        }
        let (name, text) = item.split_once('=').unwrap_or((&item, ""));
        if name.is_empty() {
            return Err(Error::EmptyPropName);
        }
        self.props.push((name.to_owned(), text.to_owned()));
        Ok(())
    }
}

/// What ended an item.
enum End {
    Comma,
    Section,
    Line,
}

/// Takes a line apart. A blank or comment-only line gives no section.
pub(crate) fn sections(line: &str) -> Result<Vec<Section>, Error> {
    let mut found = Vec::new();
    let mut rest = line.chars();
    loop {
        rest = rest.as_str().trim_start_matches(' ').chars();
        if matches!(rest.as_str().chars().next(), None | Some('#')) {
            return Ok(found);
        }
        let mut section = Section::default();
        let end = read_section(&mut rest, &mut section)?;
        found.push(section);
        if matches!(end, End::Line) {
            return Ok(found);
        }
    }
}

fn read_section(rest: &mut std::str::Chars<'_>, section: &mut Section) -> Result<End, Error> {
    let mut first = true;
    loop {
        let (item, end) = read_item(rest)?;
        section.add(item, first)?;
        first = false;
        if !matches!(end, End::Comma) {
            return Ok(end);
        }
    }
}

fn read_item(rest: &mut std::str::Chars<'_>) -> Result<(String, End), Error> {
    let mut item = String::new();
    loop {
        match rest.next() {
            Some(',') => return Ok((item, End::Comma)),
            Some(' ') => return Ok((item, End::Section)),
            None | Some('#') => return Ok((item, End::Line)),
            Some('"') => read_quoted(rest, &mut item)?,
            Some(c) => item.push(c),
        }
    }
}

fn read_quoted(rest: &mut std::str::Chars<'_>, item: &mut String) -> Result<(), Error> {
    loop {
        match rest.next() {
            None => return Err(Error::UnterminatedQuote),
            Some('"') => return Ok(()),
            Some('\\') => match rest.next() {
                Some(c @ ('\\' | '"')) => item.push(c),
                Some(c) => return Err(Error::UnexpectedEscape(c)),
                None => return Err(Error::UnterminatedEscape),
            },
            Some(c) => item.push(c),
        }
    }
}
