//! What the documentation says about keys is what the code does, and its samples are good files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use config::keys::{self, Use};
use config::{File, Overrides, Settings};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The lines between the headline of a section and the next headline.
fn chapter<'a>(text: &'a str, section: &str) -> &'a str {
    let start = text.find(&format!("\n### [{section}]\n")).expect(section);
    let rest = &text[start + 5..];
    &rest[..rest.find("\n### ").unwrap_or(rest.len())]
}

#[test]
fn every_key_is_documented_with_the_time_when_it_is_read() {
    let doc = text("docs/configuring.md");
    let internal = text("etc/internal.conf");
    for key in keys::all() {
        let (name, section) = (key.name, key.section);
        let time = match key.used {
            Use::Start => "start",
            Use::Reload => "reload",
            Use::Internal => {
                assert!(internal.contains(&format!("\n{name}=")), "{name}: etc/internal.conf");
                continue;
            }
            Use::Renamed(_) | Use::Nothing => {
                assert!(doc.contains(&format!("`{name}`")), "{name} is not mentioned");
                continue;
            }
        };
        let row = chapter(&doc, section).lines().find(|l| l.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("{name} of [{section}] has no row"));
        assert_eq!(row.split('|').nth(3).map(str::trim), Some(time), "{row}");
    }
}

#[test]
fn the_sample_names_every_key() {
    let sample = text("etc/pushpin.conf");
    let mut section = String::new();
    let mut named = Vec::new();
    for line in sample.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((name, _)) = line.trim_start_matches('#').split_once('=') {
            named.push((section.clone(), name.to_owned()));
        }
    }
    // deprecated
    let left_out = ["libdir"];
    for key in keys::all().filter(|key| matches!(key.used, Use::Start | Use::Reload)) {
        let name = (key.section.to_owned(), key.name.to_owned());
        assert!(named.contains(&name) || left_out.contains(&key.name), "{name:?}");
    }
}

fn problems(name: &str, text: &str) -> Vec<String> {
    let settings = Settings::from_main(File::parse(name, text), root(), &Overrides::default());
    settings.check();
    settings.problems().iter().map(ToString::to_string).collect()
}

/// The code blocks of a page that are configuration files.
fn samples(page: &str) -> Vec<String> {
    page.split("```ini\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(Into::into)
        .collect()
}

#[test]
fn every_sample_is_a_good_file() {
    let mut count = 0;
    for name in ["etc/pushpin.conf", "etc/internal.conf"] {
        assert_eq!(problems(name, &text(name)), [""; 0]);
    }
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let name = path.display().to_string();
        for sample in samples(&fs::read_to_string(&path).unwrap()) {
            assert_eq!(problems(&name, &sample), [""; 0], "{name}:\n{sample}");
            count += 1;
        }
    }
    assert!(count > 0, "no sample found");
}
