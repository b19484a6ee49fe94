//! The headers that a backend instructed, once for all sessions that have the same, and what becomes
//! of them in an answer (spec/grip.md §7.1, spec/proxy.md §9.1).

use crossorigin::cors;
use grip::{Headers, merge_headers};

/// Tells scripts which headers they may read.
const EXPOSE: &str = "Access-Control-Expose-Headers";

/// Headers of a hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct HeadSet {
    pub(crate) headers: Headers,
    /// They have CORS headers of ours, which name the others; also those of an item.
    exposes: bool,
}

impl From<Headers> for HeadSet {
    fn from(headers: Headers) -> Self {
        Self { headers, exposes: false }
    }
}

impl HeadSet {
    /// `headers` are those that the backend `gave`, with CORS headers.
    pub(crate) fn with_cors(headers: Headers, gave: &Headers) -> Self {
        Self { headers, exposes: !names_exposed(gave) }
    }

    /// The headers of an answer with those of an item, and a body of that length.
    pub(crate) fn answer(&self, item: &Headers, code: u16, length: usize) -> Headers {
        let mut merged = merge_headers(&self.headers, item, code, length);
        if self.exposes && !names_exposed(item) {
            merged.retain(|(name, _)| !name.eq_ignore_ascii_case(EXPOSE));
            let names = cors::exposed(merged.iter().map(|(name, _)| name.as_str()));
            if !names.is_empty() {
                merged.push((EXPOSE.to_owned(), names.into_bytes()));
            }
        }
        merged
    }
}

fn names_exposed(headers: &Headers) -> bool {
    headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(EXPOSE))
}
