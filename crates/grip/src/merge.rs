//! Headers of an answer to a response hold (spec/grip.md §7.1).

use crate::Headers;
use crate::fields::list_pieces;

/// The instructed headers without those that the item has, then the item's own; and
/// `Content-Length` for a body of `length` bytes, if the status allows one.
///
/// The item's `Grip-*` headers do not pass; what its `Grip-Expose-Headers` lists is removed
/// from the result, as publishers know it.
pub fn merge_headers(base: &Headers, item: &Headers, code: u16, length: usize) -> Headers {
    let is = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let hidden: Vec<String> = item
        .iter()
        .filter(|(name, _)| is(name, "Grip-Expose-Headers"))
        .flat_map(|(_, value)| {
            let line = String::from_utf8_lossy(value).into_owned();
            list_pieces(&line).into_iter().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let is_grip =
        |name: &str| name.as_bytes().get(..5).is_some_and(|p| p.eq_ignore_ascii_case(b"grip-"));
    let kept = base.iter().filter(|(name, _)| !item.iter().any(|(other, _)| is(name, other)));
    let added = item.iter().filter(|(name, _)| !is_grip(name));
    let mut merged: Headers = kept
        .chain(added)
        .filter(|(name, _)| !hidden.iter().any(|h| is(h, name)) && !is(name, "Content-Length"))
        .cloned()
        .collect();
    if !(matches!(code, 204 | 304) || code < 200) {
        merged.push(("Content-Length".to_owned(), length.to_string().into_bytes()));
    }
    merged
}
