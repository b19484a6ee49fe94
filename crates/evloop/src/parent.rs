//! The tie between the supervisor and a process that it started: a socket, which is the process's
//! standard input. The process says there when it is up and answers what it is asked, the
//! supervisor finds out when the process has gone, and the other way round.
//!
//! Everything is lines: `ready`, `count N` and `page LENGTH`, which that many bytes follow, from the
//! process; `level N`, `clients N`, `part N`, `count` and `page` from the supervisor.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::signals::SMALL_STACK_BYTES;

/// The variable that the supervisor sets to `1` for its children.
pub const SUPERVISED: &str = "PUSHPIN_SUPERVISED";

/// How long an orderly stop may take once the supervisor is gone.
const STOP_MAX: Duration = Duration::from_secs(4);

/// Longest line, either way.
const LINE_MAX: u64 = 256;

/// Largest page, in bytes.
const PAGE_MAX: u64 = 8 << 20;

/// What the supervisor wants of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Log at this level, 0 to 4.
    Level(u32),
    /// Take so many clients.
    Clients(usize),
    /// Take so many of the clients that several processes may take together.
    Part(u64),
    /// Say how many clients there are.
    Count,
    /// Give the page of metrics.
    Page,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(level) => write!(f, "level {level}"),
            Self::Clients(count) => write!(f, "clients {count}"),
            Self::Part(count) => write!(f, "part {count}"),
            Self::Count => f.write_str("count"),
            Self::Page => f.write_str("page"),
        }
    }
}

impl Order {
    fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            None if line == "page" => Some(Self::Page),
            None if line == "count" => Some(Self::Count),
            Some(("level", number)) => number.parse().ok().map(Self::Level),
            Some(("clients", number)) => number.parse().ok().map(Self::Clients),
            Some(("part", number)) => number.parse().ok().map(Self::Part),
            _ => None,
        }
    }
}

/// What a process says to its supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Its sockets are bound, it works.
    Ready,
    /// It has so many clients.
    Count(u64),
    /// The page that was asked for.
    Page(String),
}

impl Said {
    /// Reads the next word of a process; none at the end.
    ///
    /// # Errors
    /// If it cannot be read, or is too long.
    pub fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        loop {
            let Some(line) = read_line(input)? else { return Ok(None) };
            let length = match line.split_once(' ') {
                None if line == "ready" => return Ok(Some(Self::Ready)),
                Some(("count", number)) if number.parse::<u64>().is_ok() => {
                    return Ok(number.parse().ok().map(Self::Count));
                }
                Some(("page", length)) => length,
                _ => continue,
            };
            let length = length.parse::<u64>().ok().filter(|length| *length <= PAGE_MAX);
            let length = length.ok_or_else(|| io::Error::other("a page that is too long"))?;
            let mut page = Vec::new();
            if input.take(length).read_to_end(&mut page)? as u64 != length {
                return Ok(None);
            }
            return Ok(Some(Self::Page(String::from_utf8_lossy(&page).into_owned())));
        }
    }
}

/// A line without its end; none at the end of the input.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    input.take(LINE_MAX).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return if line.is_empty() { Ok(None) } else { Err(io::Error::other("a line too long")) };
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

/// Says that this process is up. From then on `answer` is called for what the supervisor wants, in
/// a thread of its own, and gives the page or the number that was asked for; when the supervisor is gone, this
/// process stops as TERM would stop it. Does nothing unless started by the supervisor.
///
/// # Errors
/// If the thread cannot be started.
pub fn ready(answer: impl FnMut(Order) -> Option<String> + Send + 'static) -> io::Result<()> {
    if std::env::var_os(SUPERVISED).is_none_or(|value| value != "1") {
        return Ok(());
    }
    let output = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let input = BufReader::new(output.try_clone()?);
    let run = move || {
        // the end of the tie, or a fault in it, is the end of the supervisor
        let _ = serve(input, output, answer);
        let _ = kill_process(getpid(), Signal::TERM);
        thread::sleep(STOP_MAX);
        std::process::exit(1);
    };
    let thread = thread::Builder::new().name("parent".into()).stack_size(SMALL_STACK_BYTES);
    thread.spawn(run).map(drop)
}

/// Answers until the input ends.
fn serve(
    mut input: impl BufRead,
    mut output: impl Write,
    mut answer: impl FnMut(Order) -> Option<String>,
) -> io::Result<()> {
    // nobody may be there to hear it; then the input tells
    let _ = output.write_all(b"ready\n");
    while let Some(line) = read_line(&mut input)? {
        let Some(order) = Order::parse(&line) else { continue };
        let text = answer(order).unwrap_or_default();
        match order {
            Order::Page => output.write_all(format!("page {}\n{text}", text.len()).as_bytes())?,
            Order::Count => output.write_all(format!("count {text}\n").as_bytes())?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<Said> {
        let mut input = text.as_bytes();
        std::iter::from_fn(|| Said::read(&mut input).ok().flatten()).collect()
    }

    #[test]
    fn a_process_answers_until_its_supervisor_has_gone() {
        let orders =
            [Order::Level(3), Order::Page, Order::Clients(70), Order::Part(7), Order::Count];
        let input: String = orders.iter().map(|order| format!("{order}\n")).collect();
        let (mut seen, mut output) = (Vec::new(), Vec::new());
        let answer = |order| {
            seen.push(order);
            match order {
                Order::Page => Some("a 1\nb 2\n".to_owned()),
                Order::Count => Some("5".to_owned()),
                _ => None,
            }
        };
        serve(format!("what\n{input}").as_bytes(), &mut output, answer).unwrap();
        assert_eq!(seen, orders);
        let output = String::from_utf8(output).unwrap();
        let page = Said::Page("a 1\nb 2\n".into());
        assert_eq!(said(&output), [Said::Ready, page, Said::Count(5)]);
    }

    #[test]
    fn odd_words_are_refused_or_passed_over() {
        assert_eq!(said("hello\ncount x\nready\nready"), [Said::Ready]);
        assert_eq!(said("page 99999999999\nready\n"), []);
        assert_eq!(said("page 5\nabc"), []);
        assert_eq!(said(&"x".repeat(300)), []);
        assert_eq!(Order::parse("level x"), None);
    }
}
