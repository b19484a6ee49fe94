//! `inspect`: the proxy asks the handler about a request (spec/internal-rpc.md §3).

use tnetstring::{Map, Value, Writer};
use zhttp::Headers;

use crate::fields::{Error, bytes, headers, map, need, text, truth};
use crate::session::{flag, optional};

/// The method's name.
pub const METHOD: &str = "inspect";

/// The arguments of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Args<'a> {
    /// Method of the request.
    pub method: &'a str,
    /// URI of the request, absolute.
    pub uri: &'a str,
    /// Headers as received.
    pub headers: Headers<'a>,
    /// The first part of the body.
    pub body: &'a [u8],
    /// More body exists.
    pub truncated: bool,
    /// Look for a GRIP session.
    pub get_session: bool,
    /// Equal requests may be answered from one.
    pub auto_share: bool,
}

impl<'a> Args<'a> {
    /// Reads the arguments of the call.
    ///
    /// # Errors
    /// If a field that must be there is missing, or one has the wrong type.
    pub fn parse(args: Map<'a>) -> Result<Self, Error> {
        let (mut method, mut uri, mut list, mut body) = (None, None, None, None);
        let (mut truncated, mut get_session, mut auto_share) = (false, false, false);
        for entry in args.iter() {
            match entry? {
                ("method", value) => method = Some(text("method", value)?),
                ("uri", value) => uri = Some(text("uri", value)?),
                ("headers", value) => list = Some(headers("headers", value)?),
                ("body", value) => body = Some(bytes("body", value)?),
                ("truncated", value) => truncated = truth("truncated", value)?,
                ("get-session", value) => get_session = truth("get-session", value)?,
                ("auto-share", value) => auto_share = truth("auto-share", value)?,
                _ => {}
            }
        }
        Ok(Self {
            method: need("method", method)?,
            uri: need("uri", uri)?,
            headers: need("headers", list)?,
            body: need("body", body)?,
            truncated,
            get_session,
            auto_share,
        })
    }

    /// Writes the keys and values of the argument map.
    pub fn write(&self, w: &mut Writer) {
        w.str("method");
        w.str(self.method);
        w.str("uri");
        w.str(self.uri);
        w.str("headers");
        w.list(|w| w.raw(self.headers.raw()));
        w.str("body");
        w.bytes(self.body);
        flag(w, "truncated", self.truncated);
        flag(w, "get-session", self.get_session);
        flag(w, "auto-share", self.auto_share);
    }
}

/// What the handler knows about the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Do not ask the backend.
    pub no_proxy: bool,
    /// Requests of the same key may be answered from one.
    pub sharing_key: Option<&'a [u8]>,
    /// GRIP session id.
    pub sid: Option<&'a [u8]>,
    /// Channel and last id of each.
    pub last_ids: Vec<(&'a str, &'a [u8])>,
    /// Encoded frame that goes back with accept and retry.
    pub user_data: Option<&'a [u8]>,
}

impl<'a> Reply<'a> {
    /// Reads the map.
    ///
    /// # Errors
    /// If `no-proxy` is missing, or a field has the wrong type.
    pub fn parse(value: Value<'a>) -> Result<Self, Error> {
        let mut reply = Self::default();
        let mut no_proxy = None;
        for entry in map("inspect", value)?.iter_raw() {
            let (key, frame) = entry?;
            let value = tnetstring::parse(frame)?.0;
            match key {
                "no-proxy" => no_proxy = Some(truth("no-proxy", value)?),
                "sharing-key" => reply.sharing_key = Some(bytes("sharing-key", value)?),
                "sid" => reply.sid = Some(bytes("sid", value)?),
                "last-ids" => {
                    for entry in map("last-ids", value)?.iter() {
                        let (channel, id) = entry?;
                        reply.last_ids.push((channel, bytes("last-ids", id)?));
                    }
                }
                "user-data" => reply.user_data = Some(frame),
                _ => {}
            }
        }
        reply.no_proxy = need("no-proxy", no_proxy)?;
        Ok(reply)
    }

    /// Writes the map.
    pub fn write(&self, w: &mut Writer) {
        w.map(|w| {
            w.str("no-proxy");
            w.bool(self.no_proxy);
            optional(w, "sharing-key", self.sharing_key);
            optional(w, "sid", self.sid);
            if !self.last_ids.is_empty() {
                w.str("last-ids");
                w.map(|w| {
                    for (channel, id) in &self.last_ids {
                        w.str(channel);
                        w.bytes(id);
                    }
                });
            }
            if let Some(frame) = self.user_data {
                w.str("user-data");
                w.raw(frame);
            }
        });
    }
}
