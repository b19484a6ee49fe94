//! The retry packet: the handler gives client sessions back (spec/internal-rpc.md §5).

use tnetstring::Writer;

use crate::fields::{Error, need, root, text, uint};
use crate::inspect;
use crate::session::{HttpRequest, Session, optional, sessions, write_sessions};

/// The packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The client sessions.
    pub requests: Vec<Session<'a>>,
    /// The request as it first came from the client.
    pub request: HttpRequest<'a>,
    /// What `inspect` said, and the last ids of the hold's channels.
    pub inspect: Option<inspect::Reply<'a>>,
    /// Route id of the first pass.
    pub route: Option<&'a str>,
    /// Number of this retry for this proxy.
    pub retry_seq: Option<u32>,
}

impl<'a> Packet<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// If a field that must be there is missing, or one has the wrong type.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Error> {
        let (mut requests, mut request, mut seen) = (None, None, None);
        let (mut route, mut retry_seq) = (None, None);
        for entry in root(payload)?.iter() {
            match entry? {
                ("requests", value) => requests = Some(sessions(value)?),
                ("request-data", value) => {
                    request = Some(HttpRequest::parse("request-data", value, false)?);
                }
                ("inspect", value) => seen = Some(inspect::Reply::parse(value)?),
                ("route", value) => route = Some(text("route", value)?),
                ("retry-seq", value) => retry_seq = Some(uint("retry-seq", value)?),
                _ => {}
            }
        }
        Ok(Self {
            requests: need("requests", requests)?,
            request: need("request-data", request)?,
            inspect: seen,
            route,
            retry_seq,
        })
    }

    /// Appends the packet to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut w = Writer::append_to(std::mem::take(out));
        w.map(|w| {
            write_sessions(w, &self.requests);
            self.request.write(w, "request-data");
            if let Some(inspect) = &self.inspect {
                w.str("inspect");
                inspect.write(w);
            }
            optional(w, "route", self.route.map(str::as_bytes));
            if let Some(seq) = self.retry_seq {
                w.str("retry-seq");
                w.int(seq.into());
            }
        });
        *out = w.into_vec();
    }
}
