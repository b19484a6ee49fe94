//! The `id` field: one session, or up to [`MAX_IDS`] with a sequence number each.

use tnetstring::{List, ListIter, Map, Value};

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
    match parse_usual(map) {
        Some(id) => Ok(id),
        None => parse_any(map),
    }
}

/// The form that writers use, ours among them: `id`, then `seq`, nothing else. A fan-out packet has
/// 128 of these, each read twice.
fn parse_usual(map: Map<'_>) -> Option<Id<'_>> {
    let (id, rest) = tnetstring::parse(map.raw().strip_prefix(b"2:id,")?).ok()?;
    let (seq, rest) = tnetstring::parse(rest.strip_prefix(b"3:seq,")?).ok()?;
    let id = id.as_bytes().filter(|id| rest.is_empty() && id.len() <= MAX_ID_BYTES)?;
    Some(Id { id, seq: Some(u32::try_from(seq.as_int()?).ok()?) })
}

fn parse_any(map: Map<'_>) -> Result<Id<'_>, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways of reading an entry agree, or the quick one leaves it to the other.
    #[test]
    fn the_usual_form_reads_as_any_other() {
        let usual =
            [&b"2:id,5:0-1-a,3:seq,1:7#"[..], b"2:id,0:,3:seq,2:00#", b"2:id,1:x,3:seq,2:+1#"];
        let others = [
            &b"2:id,1:x,"[..],
            b"3:seq,1:7#2:id,1:x,",
            b"2:id,1:x,3:seq,1:7#2:id,1:y,",
            b"2:id,1:x,3:seq,2:-1#",
            b"2:id,1:x,3:seq,10:4294967296#",
            b"2:id,1:7#3:seq,1:7#",
            b"2:id,1:x,3:seq,1:7,",
            b"2:id,1:x,3:seq,1:7",
            b"",
        ];
        for (payloads, is_usual) in [(&usual[..], true), (&others[..], false)] {
            for payload in payloads {
                let frame = [payload.len().to_string().as_bytes(), b":", payload, b"}"].concat();
                let map = tnetstring::parse_all(&frame).unwrap().as_map().unwrap();
                let quick = parse_usual(map);
                assert_eq!(quick.is_some(), is_usual, "{}", payload.escape_ascii());
                assert!(
                    quick.is_none_or(|id| parse_any(map) == Ok(id)),
                    "{}",
                    payload.escape_ascii()
                );
            }
        }
    }
}
