//! The file format (spec/config.md §2): the INI rules of Qt, with `#` lines as plain comments.

use std::collections::HashMap;
use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

/// Something in a file that is certainly not meant so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named.
    pub file: String,
    /// Line, from 1; 0 for what is in no file.
    pub line: usize,
    /// What is wrong, with the key where there is one.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.text),
            line => write!(f, "{}:{line}: {}", self.file, self.text),
        }
    }
}

/// A value as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The items between unquoted commas.
    pub(crate) items: Vec<String>,
    /// The line of its key; 0 if a variable of the environment says it.
    pub(crate) line: usize,
    /// The line in which the same key was given before, in vain.
    pub(crate) earlier: Option<usize>,
}

/// A file taken apart. Of a key given twice the last one counts.
#[derive(Clone, Debug, Default)]
pub struct File {
    pub(crate) name: String,
    entries: HashMap<(String, String), Entry>,
    pub(crate) problems: Vec<Problem>,
}

impl File {
    /// Reads the text of a file; `name` is for messages.
    pub fn parse(name: &str, text: &str) -> Self {
        let mut file = Self { name: name.to_owned(), ..Self::default() };
        // some editors mark a file as UTF-8 so
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut scanner = Scanner { chars: text.chars().peekable(), line: 1 };
        let mut section = String::new();
        while let Some(line) = scanner.next_line() {
            match line {
                Line::Section(name) => section = name,
                Line::Key { key, items, line, closed } => {
                    if !closed {
                        file.problem(line, format!("{key}: a quote is not closed"));
                    }
                    let name = (section.clone(), key);
                    let earlier = file.entries.get(&name).map(|entry| entry.line);
                    file.entries.insert(name, Entry { items, line, earlier });
                }
                Line::Broken(line, text) => file.problem(line, text),
            }
        }
        file
    }

    fn problem(&mut self, line: usize, text: String) {
        self.problems.push(Problem { file: self.name.clone(), line, text });
    }

    pub(crate) fn get(&self, section: &str, key: &str) -> Option<&Entry> {
        self.entries.get(&(section.to_owned(), key.to_owned()))
    }

    /// Whether the file has the key.
    pub fn has(&self, section: &str, key: &str) -> bool {
        self.get(section, key).is_some()
    }

    /// Sets a key to what stands after its `=`.
    pub(crate) fn set(&mut self, section: &str, key: &str, text: &str) {
        let (items, _) = Scanner { chars: text.chars().peekable(), line: 1 }.value();
        let entry = Entry { items, line: 0, earlier: None };
        self.entries.insert((section.to_owned(), key.to_owned()), entry);
    }

    /// Every entry with its section and key, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&(String, String), &Entry)> {
        self.entries.iter()
    }
}

enum Line {
    Section(String),
    Key { key: String, items: Vec<String>, line: usize, closed: bool },
    Broken(usize, String),
}

struct Scanner<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    /// The next line that says something.
    fn next_line(&mut self) -> Option<Line> {
        loop {
            match *self.chars.peek()? {
                c if c.is_whitespace() => {
                    self.next();
                }
                '#' | ';' => {
                    self.until('\n');
                }
                '[' => return Some(self.section()),
                _ => {
                    if let Some(line) = self.key() {
                        return Some(line);
                    }
                }
            }
        }
    }

    /// Everything before `end` on this line, and whether it came.
    fn until(&mut self, end: char) -> (String, bool) {
        let mut text = String::new();
        while let Some(&c) = self.chars.peek() {
            if c == end {
                return (text, true);
            }
            if c == '\n' {
                break;
            }
            text.push(c);
            self.next();
        }
        (text, false)
    }

    fn section(&mut self) -> Line {
        let line = self.line;
        let (name, closed) = self.until(']');
        let name = name[1..].trim().to_owned();
        self.until('\n');
        if closed {
            Line::Section(name)
        } else {
            Line::Broken(line, format!("section [{name} has no closing bracket"))
        }
    }

    /// A key with its value; nothing for a line without `=`, which is ignored.
    fn key(&mut self) -> Option<Line> {
        let line = self.line;
        let (key, found) = self.until('=');
        if !found {
            return None;
        }
        self.next();
        let (items, closed) = self.value();
        Some(Line::Key { key: key.trim().to_owned(), items, line, closed })
    }

    /// The items of a value, and whether its quotes are balanced.
    fn value(&mut self) -> (Vec<String>, bool) {
        let mut items = Vec::new();
        let mut item = Item::default();
        let mut quoted = false;
        while let Some(c) = self.next() {
            match c {
                '"' => {
                    quoted = !quoted;
                    item.keep();
                }
                '\\' => {
                    if let Some(c) = self.escape() {
                        item.push(c, true);
                    }
                }
                '\n' if !quoted => break,
                ';' if !quoted => {
                    self.until('\n');
                }
                ',' if !quoted => items.push(std::mem::take(&mut item).text()),
                c => item.push(c, quoted),
            }
        }
        items.push(item.text());
        (items, !quoted)
    }

    /// The character of an escape; none for a line that goes on.
    fn escape(&mut self) -> Option<char> {
        Some(match self.next()? {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            'x' => return self.number(0, 16),
            digit @ '0'..='7' => return self.number(digit as u32 - '0' as u32, 8),
            '\n' => return None,
            '\r' => {
                self.chars.next_if_eq(&'\n');
                self.line += 1;
                return None;
            }
            other => other,
        })
    }

    fn number(&mut self, first: u32, radix: u32) -> Option<char> {
        let mut number = first;
        while let Some(digit) = self.chars.peek().and_then(|c| c.to_digit(radix)) {
            number = number.saturating_mul(radix).saturating_add(digit);
            self.next();
        }
        char::from_u32(number)
    }
}

/// One item while it is read: blanks at its ends count only if quoted or escaped.
#[derive(Default)]
struct Item {
    text: String,
    kept: usize,
    started: bool,
}

impl Item {
    fn push(&mut self, c: char, literal: bool) {
        if !literal && c.is_whitespace() {
            if self.started {
                self.text.push(c);
            }
            return;
        }
        self.text.push(c);
        self.keep();
    }

    fn keep(&mut self) {
        self.started = true;
        self.kept = self.text.len();
    }

    fn text(mut self) -> String {
        self.text.truncate(self.kept);
        match self.text.strip_prefix("@@") {
            Some(rest) => format!("@{rest}"),
            None => self.text,
        }
    }
}
