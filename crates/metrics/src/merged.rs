//! Pages of several processes as one: every metric once with its HELP and TYPE lines, the samples
//! of each process below, told apart by a label. Used by the supervisor's listener.

use std::collections::HashMap;

/// One metric: its HELP and TYPE lines, and all samples.
#[derive(Clone, Debug, Default)]
struct Family {
    head: String,
    samples: String,
}

/// The page while it grows.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    prefix: String,
    families: Vec<Family>,
    places: HashMap<String, usize>,
}

impl Merged {
    /// An empty page; `prefix` is put before every name.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), ..Self::default() }
    }

    /// Adds a page, with a label (name and value) for all of its samples. What is not in the form
    /// that [`crate::Text`] writes is left out.
    pub fn add(&mut self, label: Option<(&str, &str)>, page: &str) {
        let label = label.map(|(name, value)| format!("{name}=\"{value}\"")).unwrap_or_default();
        let mut place = None;
        let mut fresh = false;
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let name = rest.split(' ').next().unwrap_or_default();
                let next = self.families.len();
                let at = *self.places.entry(name.to_owned()).or_insert(next);
                fresh = at == next;
                if fresh {
                    self.families.push(Family::default());
                }
                place = Some(at);
            }
            let Some(family) = place.and_then(|at| self.families.get_mut(at)) else { continue };
            match line.strip_prefix("# ").and_then(|rest| rest.split_once(' ')) {
                Some((word, rest)) if fresh => {
                    family.head += &format!("# {word} {}{rest}\n", self.prefix);
                }
                Some(_) => {}
                None => family.samples += &sample(&self.prefix, &label, line).unwrap_or_default(),
            }
        }
    }

    /// The page.
    pub fn into_string(self) -> String {
        self.families.into_iter().map(|family| family.head + &family.samples).collect()
    }
}

/// A page with a prefix before all of its names.
pub fn with_prefix(prefix: &str, page: &str) -> String {
    let mut merged = Merged::new(prefix);
    merged.add(None, page);
    merged.into_string()
}

/// A sample's line with prefix and label.
fn sample(prefix: &str, label: &str, line: &str) -> Option<String> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let rest = match rest.strip_prefix('{') {
        Some(labels) if label.is_empty() => format!("{{{labels}"),
        Some(labels) => format!("{{{label},{labels}"),
        None if label.is_empty() => rest.to_owned(),
        None => format!("{{{label}}}{rest}"),
    };
    Some(format!("{prefix}{name}{rest}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "# HELP a Some a\n# TYPE a counter\na 1\n\
                       # HELP t Times\n# TYPE t histogram\nt_bucket{le=\"+Inf\"} 2\nt_count 2\n";

    #[test]
    fn processes_stand_side_by_side() {
        let mut merged = Merged::new("p_");
        merged.add(Some(("process", "x")), ONE);
        merged.add(Some(("process", "y")), "# HELP b B\n# TYPE b gauge\nb{k=\"v w\"} 3\n");
        merged.add(Some(("process", "y")), ONE);
        let expected = "# HELP p_a Some a\n# TYPE p_a counter\n\
                        p_a{process=\"x\"} 1\np_a{process=\"y\"} 1\n\
                        # HELP p_t Times\n# TYPE p_t histogram\n\
                        p_t_bucket{process=\"x\",le=\"+Inf\"} 2\np_t_count{process=\"x\"} 2\n\
                        p_t_bucket{process=\"y\",le=\"+Inf\"} 2\np_t_count{process=\"y\"} 2\n\
                        # HELP p_b B\n# TYPE p_b gauge\np_b{process=\"y\",k=\"v w\"} 3\n";
        assert_eq!(merged.into_string(), expected);
    }

    #[test]
    fn a_prefix_alone_changes_nothing_else() {
        assert_eq!(with_prefix("", ONE), ONE);
        assert_eq!(with_prefix("h_", ONE).matches("h_").count(), 7);
        assert_eq!(with_prefix("h_", "nonsense\n\nx 1\n"), "");
    }
}
