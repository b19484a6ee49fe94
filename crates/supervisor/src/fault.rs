//! Error texts about the configuration: file, line, key, and what is wrong with its value.

use config::Settings;

/// The text for the operator; without file and line if the key is absent.
pub(crate) fn fault(settings: &Settings, section: &str, key: &str, text: &str) -> String {
    settings.note(section, key, text);
    let text = format!("{key} in [{section}]: {text}");
    let problems = settings.problems();
    let noted = problems.iter().find(|problem| problem.text == text);
    noted.map_or(text, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_there_is_found() {
        let file = config::File::parse("a.conf", "[x]\n\nk=1\n");
        let settings = Settings::from_main(file, "".into(), &config::Overrides::default());
        assert_eq!(fault(&settings, "x", "k", "is bad"), "a.conf:3: k in [x]: is bad");
        assert_eq!(fault(&settings, "x", "other", "is bad"), "other in [x]: is bad");
    }
}
