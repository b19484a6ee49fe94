//! pushpin: the supervisor.

use std::collections::HashSet;
use std::process::ExitCode;

use supervisor::Options;
use supervisor::words::{Words, refuse};

fn main() -> ExitCode {
    let words = match Words::read() {
        Ok(words) => words,
        Err(error) => return refuse(&error),
    };
    let check = words.wants_check();
    let asked = words.explained().map(|(method, url)| (method.to_owned(), url.to_owned()));
    let options = Options::from(words);
    let done = match asked {
        Some((method, url)) => explain(&options, &method, &url),
        None if check => report(&options),
        None => return supervisor::run(&options).into(),
    };
    done.unwrap_or_else(|text| {
        eprintln!("error: {text}");
        ExitCode::FAILURE
    })
}

/// `--check`: the problems, one a line; the exit status says whether there are any.
fn report(options: &Options) -> Result<ExitCode, String> {
    let (settings, mut problems) = supervisor::check(options)?;
    problems.extend(proxy::explain::check(&settings, &options.routes));
    let mut all: Vec<String> = settings.problems().iter().map(ToString::to_string).collect();
    all.extend(problems);
    let mut seen = HashSet::new();
    all.retain(|problem| seen.insert(problem.clone()));
    all.iter().for_each(|problem| println!("{problem}"));
    if all.is_empty() {
        println!("no problems found");
    }
    Ok(ExitCode::from(u8::from(!all.is_empty())))
}

/// `--explain`: which route and target would serve a request.
fn explain(options: &Options, method: &str, url: &str) -> Result<ExitCode, String> {
    let (settings, _) = supervisor::check(options)?;
    print!("{}", proxy::explain::explain(&settings, &options.routes, method, url)?);
    Ok(ExitCode::SUCCESS)
}
