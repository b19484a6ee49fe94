//! The `id` field: one session, or up to [`MAX_IDS`] with a sequence number each.

use tnetstring::{List, ListIter, Value};

use crate::packet::Error;
use crate::{MAX_ID_BYTES, MAX_IDS};

/// One session that a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a> {
    /// The session id.
    pub id: &'a [u8],
    /// The sequence number in the packet's direction; absent in req mode and from simple peers.
    pub seq: Option<u32>,
}

/// The sessions that a packet is for, checked when the packet was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids<'a> {
    form: Form<'a>,
    len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form<'a> {
    Single(Id<'a>),
    Multi(List<'a>, Option<u32>),
}

impl<'a> Ids<'a> {
    /// The `id` field given as a string.
    pub(crate) fn single(id: &'a [u8], seq: Option<u32>) -> Result<Self, Error> {
        if id.len() > MAX_ID_BYTES {
            return Err(Error::IdTooLong);
        }
        Ok(Self { form: Form::Single(Id { id, seq }), len: 1 })
    }

    /// The `id` field given as a list of maps; `seq` at the top level is the first entry's.
    pub(crate) fn multi(list: List<'a>, seq: Option<u32>) -> Result<Self, Error> {
        let mut len = 0;
        for entry in list.iter() {
            len += 1;
            if len > MAX_IDS {
                return Err(Error::TooManyIds);
            }
            parse_entry(entry?)?;
        }
        Ok(Self { form: Form::Multi(list, seq), len })
    }

    /// A packet without an id (req mode only).
    pub(crate) const NONE: Self = Self { form: Form::Multi(List::EMPTY, None), len: 0 };

    /// How many sessions are listed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no session is listed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The only session listed, if it is the only one.
    pub fn only(&self) -> Option<Id<'a>> {
        if self.len == 1 { self.iter().next() } else { None }
    }

    /// The sessions in order.
    pub fn iter(&self) -> IdsIter<'a> {
        match self.form {
            Form::Single(id) => IdsIter { single: Some(id), list: None, first_seq: None },
            Form::Multi(list, seq) => {
                IdsIter { single: None, list: Some(list.iter()), first_seq: seq }
            }
        }
    }
}

/// Walks the sessions of a packet.
#[derive(Clone, Debug)]
pub struct IdsIter<'a> {
    single: Option<Id<'a>>,
    list: Option<ListIter<'a>>,
    first_seq: Option<u32>,
}

impl<'a> Iterator for IdsIter<'a> {
    type Item = Id<'a>;

    fn next(&mut self) -> Option<Id<'a>> {
        if let Some(id) = self.single.take() {
            return Some(id);
        }
        // Entries were checked when the packet was parsed.
        let mut id = parse_entry(self.list.as_mut()?.next()?.ok()?).ok()?;
        id.seq = id.seq.or(self.first_seq.take());
        self.first_seq = None;
        Some(id)
    }
}

/// One `{id, seq}` map.
fn parse_entry(entry: Value<'_>) -> Result<Id<'_>, Error> {
    let map = entry.as_map().ok_or(Error::Type("id", "map"))?;
    let mut found = Id { id: b"", seq: None };
    for field in map.iter() {
        match field? {
            ("id", value) => found.id = value.as_bytes().ok_or(Error::Type("id", "string"))?,
            ("seq", value) => found.seq = Some(crate::packet::uint("seq", value)?),
            _ => {}
        }
    }
    if found.id.len() > MAX_ID_BYTES {
        return Err(Error::IdTooLong);
    }
    Ok(found)
}
