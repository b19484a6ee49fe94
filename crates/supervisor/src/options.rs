//! The command line of the server (spec/programs.md §2.1). Long options may have one dash or two,
//! values follow `=` or come next, as in all releases; a general parser knows no such rules.

use std::path::PathBuf;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start the server.
    Run(Options),
    /// Say how to use the program.
    Help,
    /// Say which version it is.
    Version,
}

/// How to start the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--logfile`
    pub logfile: Option<PathBuf>,
    /// `--loglevel`
    pub loglevel: Option<String>,
    /// `--verbose`; wins over the level.
    pub verbose: bool,
    /// `--merge-output`
    pub merge_output: bool,
    /// `--port`
    pub port: Option<String>,
    /// `--id`
    pub id: Option<u32>,
    /// Each `--route`.
    pub routes: Vec<String>,
}

struct Known {
    long: &'static str,
    short: &'static [char],
    /// The name of its value, if it has one.
    value: Option<&'static str>,
    help: &'static str,
}

const fn option(
    long: &'static str,
    short: &'static [char],
    value: Option<&'static str>,
    help: &'static str,
) -> Known {
    Known { long, short, value, help }
}

const KNOWN: &[Known] = &[
    option("help", &['h'], None, "Show this help and exit."),
    option("version", &['v', 'V'], None, "Show the version and exit."),
    option("config", &[], Some("file"), "Config file."),
    option("logfile", &[], Some("file"), "File for the log of this process (appended to)."),
    option("loglevel", &[], Some("x"), "0 to 4, or with services: 2,proxy:3 (default: 2)."),
    option("verbose", &[], None, "The same as --loglevel=3."),
    option("merge-output", &['m'], None, "Show the output of all processes, write no log files."),
    option("port", &[], Some("[addr:]port"), "A single HTTP port, instead of those configured."),
    option("id", &[], Some("x"), "Number of this instance, to run several at once."),
    option("route", &[], Some("line"), "A route, instead of the routes file (repeatable)."),
];

impl Command {
    /// Reads the arguments, the program's name not among them.
    ///
    /// # Errors
    /// What is wrong with the first wrong argument, in one line.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Options::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (known, mut value) = lookup(&argument)?;
            if known.value.is_some() && value.is_none() {
                value = arguments.next();
                if value.is_none() {
                    return Err(format!("Missing value after '{argument}'."));
                }
            }
            match known.long {
                "help" => return Ok(Self::Help),
                "version" => return Ok(Self::Version),
                _ => options.set(known.long, value.unwrap_or_default())?,
            }
        }
        Ok(Self::Run(options))
    }
}

impl Options {
    fn set(&mut self, long: &str, value: String) -> Result<(), String> {
        match long {
            "config" => self.config = Some(value.into()),
            "logfile" => self.logfile = Some(value.into()),
            "loglevel" => self.loglevel = Some(value),
            "verbose" => self.verbose = true,
            "merge-output" => self.merge_output = true,
            "port" => self.port = Some(value),
            "id" => self.id = Some(parse_id(&value)?),
            _ => self.routes.push(value),
        }
        Ok(())
    }
}

fn parse_id(value: &str) -> Result<u32, String> {
    value.parse().map_err(|_| "id must be greater than or equal to 0".to_owned())
}

/// The option that an argument names, and its value behind `=`.
fn lookup(argument: &str) -> Result<(&'static Known, Option<String>), String> {
    let unknown = |name: &str| format!("Unknown option '{name}'.");
    let Some(rest) = argument.strip_prefix('-') else {
        return Err(format!("Unexpected argument '{argument}'."));
    };
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    let (name, value) = match rest.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (rest, None),
    };
    let is_short = |known: &&Known| known.short.iter().any(|c| *name == c.to_string());
    let known = KNOWN.iter().find(|known| known.long == name || is_short(known));
    let known = known.ok_or_else(|| unknown(name))?;
    if known.value.is_none() && value.is_some() {
        return Err(format!("Unexpected value after '{}'.", known.long));
    }
    Ok((known, value))
}

/// The text of `--help`.
pub fn help() -> String {
    let mut text =
        "Usage: pushpin [options]\nReverse proxy for realtime web services.\n\nOptions:\n"
            .to_owned();
    for known in KNOWN {
        let short: String = known.short.iter().map(|c| format!("-{c}, ")).collect();
        let value = known.value.map(|value| format!(" <{value}>")).unwrap_or_default();
        let names = format!("{short}--{}{value}", known.long);
        text.push_str(&format!("  {names:<26} {}\n", known.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, String> {
        Command::parse(arguments.iter().map(|text| (*text).to_owned()))
    }

    fn options(arguments: &[&str]) -> Options {
        match parse(arguments).unwrap() {
            Command::Run(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_behind_an_equal_sign_and_after() {
        let expected = Options { config: Some("a=b".into()), ..Options::default() };
        assert_eq!(options(&["--config=a=b"]), expected);
        assert_eq!(options(&["--config", "a=b"]), expected);
        assert_eq!(options(&["-config", "a=b"]), expected);
        assert_eq!(options(&["-config=a=b"]), expected);
    }

    #[test]
    fn every_option() {
        let all = options(&[
            "--logfile=l",
            "--loglevel=2,proxy:3",
            "--verbose",
            "-m",
            "--port",
            "[::1]:80",
            "--id=3",
            "--route=* a:1",
            "-route",
            "b c:2",
        ]);
        let expected = Options {
            config: None,
            logfile: Some("l".into()),
            loglevel: Some("2,proxy:3".into()),
            verbose: true,
            merge_output: true,
            port: Some("[::1]:80".into()),
            id: Some(3),
            routes: vec!["* a:1".into(), "b c:2".into()],
        };
        assert_eq!(all, expected);
        assert_eq!(options(&[]), Options::default());
        assert!(options(&["--merge-output"]).merge_output);
    }

    #[test]
    fn help_and_version() {
        for words in ["-h", "--help", "-help"] {
            assert_eq!(parse(&[words]), Ok(Command::Help));
        }
        for words in ["-v", "-V", "--version", "-version"] {
            assert_eq!(parse(&[words]), Ok(Command::Version));
        }
        let text = help();
        for known in KNOWN {
            assert!(text.contains(&format!("--{}", known.long)), "{}", known.long);
        }
    }

    #[test]
    fn what_is_refused() {
        let error = |words: &[&str]| parse(words).unwrap_err();
        assert_eq!(error(&["--bogus=1"]), "Unknown option 'bogus'.");
        assert_eq!(error(&["-x"]), "Unknown option 'x'.");
        assert_eq!(error(&["stray"]), "Unexpected argument 'stray'.");
        assert_eq!(error(&["--config"]), "Missing value after '--config'.");
        assert_eq!(error(&["--verbose=1"]), "Unexpected value after 'verbose'.");
        for id in ["-1", "x", ""] {
            assert_eq!(error(&["--id", id]), "id must be greater than or equal to 0");
        }
    }
}
