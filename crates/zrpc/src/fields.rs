//! Reading fields of maps. "Int" fields take what the reference takes: anything that can be
//! converted (spec/internal-rpc.md §2.1).

use std::fmt;

use tnetstring::{Map, Value};
use zhttp::Headers;

/// Why a packet is invalid as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It is no tnetstring map.
    Format(tnetstring::Error),
    /// A field that must be there is not.
    Missing(&'static str),
    /// A field has another type than it must have.
    Type(&'static str),
}

impl Error {
    /// What failed, in the words of the log (spec/publish.md §5, spec/proxy.md §14).
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Format(_) => "tnetstring parse failed",
            Self::Missing(_) | Self::Type(_) => "parse failed",
        }
    }

    /// The log line about a message that `reader` (as in `zrpc client`) skips because of it.
    pub fn skipping(&self, reader: &str) -> String {
        let stage = self.stage();
        format!("{reader}: received message with invalid format ({stage}), skipping: {self}")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(error) => error.fmt(f),
            Self::Missing(field) => write!(f, "'{field}' is missing"),
            Self::Type(field) => write!(f, "'{field}' has the wrong type"),
        }
    }
}

impl std::error::Error for Error {}

impl From<tnetstring::Error> for Error {
    fn from(error: tnetstring::Error) -> Self {
        Self::Format(error)
    }
}

/// The map that `payload` must be.
pub(crate) fn root(payload: &[u8]) -> Result<Map<'_>, Error> {
    map("packet", tnetstring::parse(payload)?.0)
}

/// A field that must be there.
pub(crate) fn need<T>(field: &'static str, value: Option<T>) -> Result<T, Error> {
    value.ok_or(Error::Missing(field))
}

pub(crate) fn map<'a>(field: &'static str, value: Value<'a>) -> Result<Map<'a>, Error> {
    value.as_map().ok_or(Error::Type(field))
}

pub(crate) fn bytes<'a>(field: &'static str, value: Value<'a>) -> Result<&'a [u8], Error> {
    value.as_bytes().ok_or(Error::Type(field))
}

pub(crate) fn text<'a>(field: &'static str, value: Value<'a>) -> Result<&'a str, Error> {
    value.as_str().ok_or(Error::Type(field))
}

pub(crate) fn truth(field: &'static str, value: Value<'_>) -> Result<bool, Error> {
    value.as_bool().ok_or(Error::Type(field))
}

pub(crate) fn int(field: &'static str, value: Value<'_>) -> Result<i64, Error> {
    match value {
        Value::Int(n) => Ok(n),
        Value::Bool(b) => Ok(b.into()),
        Value::Float(n) => Ok(n.round() as i64),
        Value::Bytes(_) => {
            value.as_str().and_then(|text| text.trim().parse().ok()).ok_or(Error::Type(field))
        }
        _ => Err(Error::Type(field)),
    }
}

/// An int that is not negative and fits.
pub(crate) fn uint<T: TryFrom<i64>>(field: &'static str, value: Value<'_>) -> Result<T, Error> {
    T::try_from(int(field, value)?).map_err(|_| Error::Type(field))
}

pub(crate) fn headers<'a>(field: &'static str, value: Value<'a>) -> Result<Headers<'a>, Error> {
    Headers::parse(value).map_err(|_| Error::Type(field))
}
