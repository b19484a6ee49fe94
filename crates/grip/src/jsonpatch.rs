//! The patches of `body-patch` (spec/grip.md §7.2): names as in RFC 6902, with the deviations
//! that publishers know.

use serde_json::{Map, Value as Json};

use crate::value::Value;

/// Deepest nesting that a patch may make.
const DEPTH_MAX: usize = 256;

/// Bytes, about, that the copies of one patch may have in all: a few of them in a row could double
/// the document each.
const COPIED_MAX: usize = 10_000_000;

/// Applies `operations` to the JSON document `body`; the result is compact, its keys sorted,
/// with the line end that `body` had.
///
/// # Errors
/// A text for the log; the caller then sends an empty body.
pub fn patch_body(body: &[u8], operations: &[Value]) -> Result<Vec<u8>, String> {
    let mut document: Json = serde_json::from_slice(body)
        .ok()
        .filter(is_container)
        .ok_or("failed to parse original response body as JSON")?;
    let mut room = COPIED_MAX;
    for operation in operations {
        apply(&mut document, operation, &mut room)
            .map_err(|error| format!("failed to apply JSON patch: {error}"))?;
    }
    if !is_container(&document) {
        return Err("failed to apply JSON patch: result is no object or list".to_owned());
    }
    let mut out = serde_json::to_vec(&document).map_err(|error| error.to_string())?;
    let line_end: &[u8] = match body {
        [.., b'\r', b'\n'] => b"\r\n",
        [.., b'\n'] => b"\n",
        _ => b"",
    };
    out.extend_from_slice(line_end);
    Ok(out)
}

fn is_container(value: &Json) -> bool {
    value.is_object() || value.is_array()
}

/// `room`: for further copies.
fn apply(document: &mut Json, operation: &Value, room: &mut usize) -> Result<(), String> {
    let text = |key: &str| {
        operation.get(key).and_then(Value::as_text).ok_or_else(|| format!("no '{key}'"))
    };
    let value = || operation.get("value").map(to_json).ok_or_else(|| "no 'value'".to_owned());
    let name = text("op")?;
    let path = parse_path(&text("path")?)?;
    match name.as_str() {
        "add" => add(document, &path, value()?),
        "remove" => remove(document, &path).map(drop),
        "replace" => {
            let value = value()?;
            check_depth(&path, &value)?;
            *find(document, &path)? = value;
            Ok(())
        }
        "move" => {
            let from = parse_path(&text("from")?)?;
            if path.len() > from.len() && path.starts_with(&from) {
                return Err("cannot move into a child".to_owned());
            }
            let moved = remove(document, &from)?;
            add(document, &path, moved)
        }
        "copy" => {
            let from = parse_path(&text("from")?)?;
            let original = find(document, &from)?;
            *room = room.checked_sub(size(original)).ok_or("it copies too much")?;
            let copied = original.clone();
            add(document, &path, copied)
        }
        "test" => match equal(find(document, &path)?, &value()?) {
            true => Ok(()),
            false => Err("test failed".to_owned()),
        },
        other => Err(format!("unknown op '{other}'")),
    }
}

/// The steps of a path; `/` alone is the root.
fn parse_path(path: &str) -> Result<Vec<String>, String> {
    let rest = path.strip_prefix('/').ok_or("path does not start with '/'")?;
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    rest.split('/')
        .map(|step| match step {
            "" => Err("path has an empty step".to_owned()),
            step => Ok(step.replace("~1", "/").replace("~0", "~")),
        })
        .collect()
}

fn find<'a>(document: &'a mut Json, path: &[String]) -> Result<&'a mut Json, String> {
    path.iter().try_fold(document, |at, step| {
        let missing = || format!("no element '{step}'");
        match at {
            Json::Object(map) => map.get_mut(step).ok_or_else(missing),
            Json::Array(list) => {
                let index: usize = step.parse().map_err(|_| missing())?;
                list.get_mut(index).ok_or_else(missing)
            }
            _ => Err(missing()),
        }
    })
}

/// Bytes of a value in memory, about.
fn size(value: &Json) -> usize {
    let inner = match value {
        Json::String(text) => text.len(),
        Json::Array(list) => list.iter().map(size).sum(),
        Json::Object(map) => map.iter().map(|(key, value)| key.len() + size(value)).sum(),
        _ => 0,
    };
    inner + size_of::<Json>()
}

fn depth(value: &Json) -> usize {
    match value {
        Json::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Json::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn check_depth(path: &[String], value: &Json) -> Result<(), String> {
    match path.len() + depth(value) > DEPTH_MAX {
        true => Err("it nests too deeply".to_owned()),
        false => Ok(()),
    }
}

fn add(document: &mut Json, path: &[String], value: Json) -> Result<(), String> {
    check_depth(path, &value)?;
    let Some((last, parents)) = path.split_last() else {
        *document = value;
        return Ok(());
    };
    match find(document, parents)? {
        Json::Object(map) => {
            map.insert(last.clone(), value);
        }
        Json::Array(list) if last == "-" => list.push(value),
        // An index replaces: publishers rely on it.
        Json::Array(list) => {
            let index: usize = last.parse().map_err(|_| format!("bad index '{last}'"))?;
            *list.get_mut(index).ok_or_else(|| format!("no element '{last}'"))? = value;
        }
        _ => return Err(format!("no container for '{last}'")),
    }
    Ok(())
}

fn remove(document: &mut Json, path: &[String]) -> Result<Json, String> {
    let (last, parents) = path.split_last().ok_or("cannot remove the root")?;
    let missing = || format!("no element '{last}'");
    match find(document, parents)? {
        Json::Object(map) => map.remove(last).ok_or_else(missing),
        Json::Array(list) => {
            let index = last.parse::<usize>().ok().filter(|index| *index < list.len());
            index.map(|index| list.remove(index)).ok_or_else(missing)
        }
        _ => Err(missing()),
    }
}

/// Equality in which numbers are compared as rounded integers.
fn equal(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => {
            let rounded = |n: &serde_json::Number| n.as_f64().map(f64::round);
            a == b || rounded(a) == rounded(b)
        }
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        (a, b) => a == b,
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => Json::from(*n),
        Value::Float(f) => Json::from(*f),
        Value::Str(bytes) => Json::String(String::from_utf8_lossy(bytes).into_owned()),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| (key.clone(), to_json(value)));
            Json::Object(entries.collect::<Map<_, _>>())
        }
    }
}
