//! One record as one line: `[LEVEL] YYYY-MM-DD HH:MM:SS.mmm MESSAGE` in local time.

use std::cell::Cell;
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{Local, TimeZone};
use log::{Level, Record};

/// `YYYY-MM-DD HH:MM:SS`
type Second = [u8; 19];

thread_local! {
    /// The second formatted last: at 10,000 lines a second the calendar is asked once.
    static LAST: Cell<(u64, Second)> = const { Cell::new((u64::MAX, [b' '; 19])) };
}

/// Writes a record; the module only where debugging wants it.
pub(crate) fn write(out: &mut impl Write, record: &Record, module_tag: bool) -> io::Result<()> {
    write_head(out, record.level())?;
    if module_tag && record.level() >= Level::Debug {
        write!(out, "[{}] ", record.target())?;
    }
    writeln!(out, "{}", record.args())
}

/// Writes a line that is no record.
pub(crate) fn write_text(out: &mut Vec<u8>, level: Level, text: &str) {
    // a Vec takes everything
    let _ = write_head(out, level);
    let _ = writeln!(out, "{text}");
}

fn write_head(out: &mut impl Write, level: Level) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = now.subsec_millis();
    let digit = |n: u32| b'0' + u8::try_from(n % 10).unwrap_or(0);
    out.write_all(label(level))?;
    out.write_all(&second(now.as_secs()))?;
    out.write_all(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b' '])
}

fn label(level: Level) -> &'static [u8] {
    match level {
        Level::Error => b"[ERR] ",
        Level::Warn => b"[WARN] ",
        Level::Info => b"[INFO] ",
        Level::Debug => b"[DEBUG] ",
        Level::Trace => b"[TRACE] ",
    }
}

fn second(secs: u64) -> Second {
    let (at, text) = LAST.get();
    if at == secs {
        return text;
    }
    let text = format_second(secs);
    LAST.set((secs, text));
    text
}

fn format_second(secs: u64) -> Second {
    let time = Local.timestamp_opt(i64::try_from(secs).unwrap_or(0), 0).single();
    let text = time.map(|time| time.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default();
    text.as_bytes().try_into().unwrap_or([b'?'; 19])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, module_tag: bool) -> String {
        let mut out = Vec::new();
        let args = format_args!("hello");
        let record = Record::builder().level(level).target("a::b").args(args).build();
        write(&mut out, &record, module_tag).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Digits as `9`, so that a shape can be compared.
    fn shape(text: &str) -> String {
        text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect()
    }

    #[test]
    fn the_shape_of_a_line() {
        assert_eq!(shape(&line(Level::Info, true)), "[INFO] 9999-99-99 99:99:99.999 hello\n");
        assert_eq!(
            shape(&line(Level::Debug, true)),
            "[DEBUG] 9999-99-99 99:99:99.999 [a::b] hello\n"
        );
        assert_eq!(shape(&line(Level::Debug, false)), "[DEBUG] 9999-99-99 99:99:99.999 hello\n");
        let mut out = Vec::new();
        write_text(&mut out, Level::Error, "no x");
        assert_eq!(
            shape(std::str::from_utf8(&out).unwrap()),
            "[ERR] 9999-99-99 99:99:99.999 no x\n"
        );
    }

    #[test]
    fn the_cached_second_changes() {
        let a = second(1_000_000_000);
        assert_eq!(second(1_000_000_000), a);
        assert_ne!(second(1_000_000_001), a);
        assert_eq!(a.len(), "2001-09-09 01:46:40".len());
    }
}
