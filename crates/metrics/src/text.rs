//! The writer.

use std::fmt::{self, Write as _};

use crate::Histogram;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// The value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count.
    Count(u64),
    /// A measure.
    Float(f64),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<u32> for Value {
    fn from(count: u32) -> Self {
        Self::Count(count.into())
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<f64> for Value {
    fn from(measure: f64) -> Self {
        Self::Float(measure)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Float(measure) if measure.is_infinite() => {
                f.write_str(if *measure > 0.0 { "+Inf" } else { "-Inf" })
            }
            Self::Float(measure) => measure.fmt(f),
        }
    }
}

/// Whether metric names may begin with it: letters, digits, `_` and `:`, no digit first.
pub fn is_prefix(prefix: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    prefix.chars().all(word) && !prefix.starts_with(|c: char| c.is_ascii_digit())
}

/// A page of metrics, written from top to bottom.
#[derive(Clone, Debug)]
pub struct Text {
    prefix: String,
    out: String,
}

impl Text {
    /// An empty page; `prefix` stands before every name.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_string(), out: String::with_capacity(4096) }
    }

    /// Starts a metric: its HELP and TYPE lines. The samples follow.
    pub fn family(&mut self, kind: Kind, name: &str, help: &str) -> Family<'_> {
        self.head(name, kind.name(), help);
        let name = [&self.prefix, name].concat();
        Family { name, out: &mut self.out }
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Into<Value>) {
        self.family(Kind::Counter, name, help).value(&[], value);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Into<Value>) {
        self.family(Kind::Gauge, name, help).value(&[], value);
    }

    /// A histogram without labels, in seconds; `name` should end with `_seconds`.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let name = [&self.prefix, name].concat();
        let (bucket, sum, count) =
            (format!("{name}_bucket"), format!("{name}_sum"), name + "_count");
        for (bound, below) in histogram.cumulative() {
            let bound = seconds(bound).to_string();
            sample(&mut self.out, &bucket, &[("le", &bound)], below.into());
        }
        let all = histogram.count();
        sample(&mut self.out, &bucket, &[("le", "+Inf")], all.into());
        sample(&mut self.out, &sum, &[], seconds(histogram.sum_us()).into());
        sample(&mut self.out, &count, &[], all.into());
    }

    /// The page.
    pub fn into_string(self) -> String {
        self.out
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let Self { prefix, out } = self;
        // Writing to a String does not fail, here and below.
        let _ = write!(out, "# HELP {prefix}{name} ");
        escape(out, help, false);
        let _ = writeln!(out, "\n# TYPE {prefix}{name} {kind}");
    }
}

/// One metric; each of its samples has other labels.
#[derive(Debug)]
pub struct Family<'t> {
    name: String,
    out: &'t mut String,
}

impl Family<'_> {
    /// Adds a sample. Values of labels may be any text.
    pub fn value(&mut self, labels: &[(&str, &str)], value: impl Into<Value>) -> &mut Self {
        sample(self.out, &self.name, labels, value.into());
        self
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: Value) {
    out.push_str(name);
    for (n, (label, text)) in labels.iter().enumerate() {
        out.push_str(if n == 0 { "{" } else { "," });
        out.push_str(label);
        out.push_str("=\"");
        escape(out, text, true);
        out.push('"');
    }
    if !labels.is_empty() {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

/// Backslashes and line ends, and quotation marks where the text stands between such.
fn escape(out: &mut String, text: &str, quoted: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quoted => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page() {
        let mut text = Text::new("pp_");
        text.counter("requests_total", "Requests \\ all\nof them", 2u64);
        text.family(Kind::Gauge, "connections", "By \"state\"")
            .value(&[("state", "idle"), ("listener", "a\"b\\c\nd")], 7usize)
            .value(&[], 0.5);
        let wanted = "# HELP pp_requests_total Requests \\\\ all\\nof them\n\
                      # TYPE pp_requests_total counter\n\
                      pp_requests_total 2\n\
                      # HELP pp_connections By \"state\"\n\
                      # TYPE pp_connections gauge\n\
                      pp_connections{state=\"idle\",listener=\"a\\\"b\\\\c\\nd\"} 7\n\
                      pp_connections 0.5\n";
        assert_eq!(text.into_string(), wanted);
    }

    #[test]
    fn histograms_are_cumulative() {
        let mut one = Histogram::new(&[1_000, 50_000]);
        for us in [0, 1_000, 1_001, 2_000_000] {
            one.observe(us);
        }
        let mut all = Histogram::new(&[1_000, 50_000]);
        all.observe(3);
        all.add(&one);
        let mut text = Text::new("");
        text.histogram("turn_seconds", "Turns", &all);
        let wanted = "# HELP turn_seconds Turns\n\
                      # TYPE turn_seconds histogram\n\
                      turn_seconds_bucket{le=\"0.001\"} 3\n\
                      turn_seconds_bucket{le=\"0.05\"} 4\n\
                      turn_seconds_bucket{le=\"+Inf\"} 5\n\
                      turn_seconds_sum 2.002004\n\
                      turn_seconds_count 5\n";
        assert_eq!(text.into_string(), wanted);
        assert_eq!((all.max_us(), all.count()), (2_000_000, 5));
    }

    #[test]
    fn odd_values() {
        assert_eq!(Value::from(f64::INFINITY).to_string(), "+Inf");
        assert_eq!(Value::from(f64::NEG_INFINITY).to_string(), "-Inf");
        assert_eq!(Value::from(f64::NAN).to_string(), "NaN");
    }

    #[test]
    fn prefixes() {
        for good in ["", "pp_", "a1:b"] {
            assert!(is_prefix(good), "{good}");
        }
        for bad in ["1a", "a b", "ä", "a-b", "a{"] {
            assert!(!is_prefix(bad), "{bad}");
        }
    }
}
