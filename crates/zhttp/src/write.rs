//! Writing a packet.

use tnetstring::Writer;

use crate::packet::{Ext, Headers, Kind};
use crate::{MAX_IDS, ids::Id};

/// Who sends a packet and for which sessions.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The sender's instance id.
    pub from: &'a [u8],
    /// One to [`MAX_IDS`] sessions, none of them twice; none at all only in an answer of req mode
    /// to a request without an id.
    pub ids: &'a [Id<'a>],
    /// What the sender understands.
    pub ext: Ext,
}

/// The fields of a packet behind its head, written in the order of the calls. Absent means
/// default, so only call for what differs from it (spec/zhttp.md §3).
pub struct Fields<'w> {
    w: &'w mut Writer,
}

/// Appends `T` and the packet to `out`.
///
/// The ids go in single form if there is exactly one (spec/zhttp.md §4.2).
pub fn write(out: &mut Vec<u8>, head: &Head<'_>, fill: impl FnOnce(&mut Fields<'_>)) {
    debug_assert!(head.ids.len() <= MAX_IDS);
    out.push(b'T');
    let mut w = Writer::append_to(std::mem::take(out));
    w.map(|w| {
        if !head.from.is_empty() {
            w.str("from");
            w.bytes(head.from);
        }
        write_ids(w, head.ids);
        write_ext(w, head.ext);
        fill(&mut Fields { w });
    });
    *out = w.into_vec();
}

fn write_ids(w: &mut Writer, ids: &[Id<'_>]) {
    if ids.is_empty() {
        return;
    }
    w.str("id");
    match ids {
        [id] => {
            w.bytes(id.id);
            write_seq(w, id.seq);
        }
        ids => w.list(|w| {
            for id in ids {
                w.map(|w| {
                    w.str("id");
                    w.bytes(id.id);
                    write_seq(w, id.seq);
                });
            }
        }),
    }
}

fn write_seq(w: &mut Writer, seq: Option<u32>) {
    if let Some(seq) = seq {
        w.str("seq");
        w.int(seq.into());
    }
}

fn write_ext(w: &mut Writer, ext: Ext) {
    let flags = [("multi", ext.multi), ("batch", ext.batch), ("quiet", ext.quiet)];
    if flags.iter().all(|(_, set)| !set) {
        return;
    }
    w.str("ext");
    w.map(|w| {
        for (name, _) in flags.iter().filter(|(_, set)| *set) {
            w.str(name);
            w.bool(true);
        }
    });
}

impl Fields<'_> {
    /// `type`; nothing is written for data.
    pub fn kind(&mut self, kind: Kind) -> &mut Self {
        match kind.name() {
            Some(name) => self.str("type", name),
            None => self,
        }
    }

    /// `method`.
    pub fn method(&mut self, method: &str) -> &mut Self {
        self.str("method", method)
    }

    /// `uri`, absolute.
    pub fn uri(&mut self, uri: &str) -> &mut Self {
        self.str("uri", uri)
    }

    /// `code` and `reason` of a response.
    pub fn status(&mut self, code: u16, reason: &str) -> &mut Self {
        self.code(code).str("reason", reason)
    }

    /// `code` alone, as a WebSocket close has it.
    pub fn code(&mut self, code: u16) -> &mut Self {
        self.w.str("code");
        self.w.int(code.into());
        self
    }

    /// `headers`, name and value of each in order.
    pub fn headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        headers: impl Iterator<Item = (N, V)>,
    ) -> &mut Self {
        self.w.str("headers");
        self.w.list(|w| {
            for (name, value) in headers {
                w.list(|w| {
                    w.bytes(name.as_ref());
                    w.bytes(value.as_ref());
                });
            }
        });
        self
    }

    /// `headers` that are encoded already.
    pub fn header_list(&mut self, headers: Headers<'_>) -> &mut Self {
        self.w.str("headers");
        self.w.list(|w| w.raw(headers.raw()));
        self
    }

    /// `content-type` of a WebSocket message.
    pub fn content_type(&mut self, content_type: &str) -> &mut Self {
        self.str("content-type", content_type)
    }

    /// `body`, unless it is empty.
    pub fn body(&mut self, body: &[u8]) -> &mut Self {
        if !body.is_empty() {
            self.w.str("body");
            self.w.bytes(body);
        }
        self
    }

    /// `body` of several pieces, unless all are empty.
    pub fn body_pieces(&mut self, pieces: &[&[u8]]) -> &mut Self {
        if pieces.iter().any(|piece| !piece.is_empty()) {
            self.w.str("body");
            self.w.pieces(pieces);
        }
        self
    }

    /// `credits`, bytes.
    pub fn credits(&mut self, credits: u32) -> &mut Self {
        self.w.str("credits");
        self.w.int(credits.into());
        self
    }

    /// A boolean field, written only if true: `more`, `stream`, `router-resp` and others.
    pub fn flag(&mut self, name: &str, set: bool) -> &mut Self {
        if set {
            self.w.str(name);
            self.w.bool(true);
        }
        self
    }

    /// `peer-address` and `peer-port` of the client.
    pub fn peer(&mut self, address: &str, port: u16) -> &mut Self {
        self.str("peer-address", address);
        self.w.str("peer-port");
        self.w.int(port.into());
        self
    }

    /// `condition` of an error.
    pub fn condition(&mut self, condition: &str) -> &mut Self {
        self.str("condition", condition)
    }

    /// `user-data`, the frame as it came with the request.
    pub fn user_data(&mut self, frame: Option<&[u8]>) -> &mut Self {
        self.frame("user-data", frame)
    }

    /// Any field whose value is an encoded frame; nothing is written without one.
    pub fn frame(&mut self, name: &str, frame: Option<&[u8]>) -> &mut Self {
        if let Some(frame) = frame {
            self.w.str(name);
            self.w.raw(frame);
        }
        self
    }

    /// Any text field.
    pub fn str(&mut self, name: &str, text: &str) -> &mut Self {
        self.w.str(name);
        self.w.str(text);
        self
    }

    /// Any integer field.
    pub fn int(&mut self, name: &str, n: i64) -> &mut Self {
        self.w.str(name);
        self.w.int(n);
        self
    }
}
