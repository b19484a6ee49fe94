//! The envelope: a request with method and arguments, a response with value or condition.

use tnetstring::{Map, Value, Writer};

use crate::fields::{Error, bytes, map, need, root, text, truth};

/// A call as it came.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Instance id of the caller, if it says so (`accept` does).
    pub from: Option<&'a [u8]>,
    /// Request id; without one no reply is expected.
    pub id: Option<&'a [u8]>,
    /// What to do.
    pub method: &'a str,
    /// Arguments, empty where none were given.
    pub args: Map<'a>,
}

impl<'a> Request<'a> {
    /// Reads the payload of a call.
    ///
    /// # Errors
    /// If it is no map, has no method, or a field of the wrong type.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Error> {
        let (mut from, mut id, mut method, mut args) = (None, None, None, Map::EMPTY);
        for entry in root(payload)?.iter() {
            match entry? {
                ("from", value) => from = Some(bytes("from", value)?),
                ("id", value) => id = Some(bytes("id", value)?),
                ("method", value) => method = Some(text("method", value)?),
                ("args", value) => args = map("args", value)?,
                _ => {}
            }
        }
        Ok(Self { from, id, method: need("method", method)?, args })
    }
}

/// An answer as it came.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The id of the call.
    pub id: Option<&'a [u8]>,
    /// The value on success, else the condition and perhaps a value.
    pub result: Result<Value<'a>, (&'a str, Option<Value<'a>>)>,
}

impl<'a> Response<'a> {
    /// Reads the payload of an answer.
    ///
    /// # Errors
    /// If it is no map, or lacks what its kind must have.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Error> {
        let (mut id, mut success, mut found, mut condition) = (None, None, None, None);
        for entry in root(payload)?.iter() {
            match entry? {
                ("id", value) => id = Some(bytes("id", value)?),
                ("success", value) => success = Some(truth("success", value)?),
                ("value", value) => found = Some(value),
                ("condition", value) => condition = Some(text("condition", value)?),
                _ => {}
            }
        }
        let result = if need("success", success)? {
            Ok(need("value", found)?)
        } else {
            Err((need("condition", condition)?, found))
        };
        Ok(Self { id, result })
    }
}

/// Appends a call to `out`; `args` writes the keys and values of the argument map.
pub fn write_request(
    out: &mut Vec<u8>,
    from: Option<&[u8]>,
    id: Option<&[u8]>,
    method: &str,
    args: impl FnOnce(&mut Writer),
) {
    let mut w = Writer::append_to(std::mem::take(out));
    w.map(|w| {
        if let Some(from) = from {
            w.str("from");
            w.bytes(from);
        }
        write_id(w, id);
        w.str("method");
        w.str(method);
        w.str("args");
        w.map(args);
    });
    *out = w.into_vec();
}

/// Appends a successful answer to `out`; `value` writes exactly one frame.
pub fn write_success(out: &mut Vec<u8>, id: Option<&[u8]>, value: impl FnOnce(&mut Writer)) {
    let mut w = Writer::append_to(std::mem::take(out));
    w.map(|w| {
        write_id(w, id);
        w.str("success");
        w.bool(true);
        w.str("value");
        value(w);
    });
    *out = w.into_vec();
}

/// Appends a failed answer to `out`.
pub fn write_error(out: &mut Vec<u8>, id: Option<&[u8]>, condition: &str, value: Option<&[u8]>) {
    let mut w = Writer::append_to(std::mem::take(out));
    w.map(|w| {
        write_id(w, id);
        w.str("success");
        w.bool(false);
        w.str("condition");
        w.str(condition);
        if let Some(value) = value {
            w.str("value");
            w.bytes(value);
        }
    });
    *out = w.into_vec();
}

fn write_id(w: &mut Writer, id: Option<&[u8]>) {
    if let Some(id) = id {
        w.str("id");
        w.bytes(id);
    }
}
