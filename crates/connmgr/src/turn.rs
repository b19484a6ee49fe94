//! What one turn of the loop wants to write. All packets that are ready are applied first; then
//! each connection that they touched gets one `writev`. A body is encoded here once, however many
//! connections it goes to; a connection's share is a list of ranges.

use bytes::Bytes;
use hashbrown::HashMap;

use http1::{CHUNK_END, CHUNK_MAX, LAST_CHUNK};

use crate::conn::{Conn, NO_NODE, TOUCHED};

/// Pieces below this size are copied for a blocked connection, larger ones shared.
const SHARED_MIN: usize = 1024;

/// Room that is kept from turn to turn.
const KEPT_BYTES: usize = 256 * 1024;

/// A range of the turn's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// One piece for one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    /// Response body bytes in it.
    pub(crate) credit: u32,
    next: u32,
}

/// The turn.
#[derive(Debug)]
pub(crate) struct Turn {
    bytes: Vec<u8>,
    nodes: Vec<Node>,
    pub(crate) touched: Vec<u32>,
    shared: HashMap<Span, Bytes>,
}

impl Turn {
    /// Where the bytes of the last chunk stand in every turn.
    pub(crate) const LAST_CHUNK: Span = Span { start: 0, end: LAST_CHUNK.len() as u32 };

    pub(crate) fn new() -> Self {
        let bytes = LAST_CHUNK.to_vec();
        Self { bytes, nodes: Vec::new(), touched: Vec::new(), shared: HashMap::new() }
    }

    /// Bytes gathered so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends what `fill` writes.
    pub(crate) fn encode<E>(
        &mut self,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Span, E> {
        let start = self.bytes.len() as u32;
        fill(&mut self.bytes)?;
        Ok(Span { start, end: self.bytes.len() as u32 })
    }

    /// Appends what `fill` writes, which cannot fail.
    pub(crate) fn build(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.bytes.len() as u32;
        fill(&mut self.bytes);
        Span { start, end: self.bytes.len() as u32 }
    }

    /// Appends a WebSocket frame.
    pub(crate) fn frame(&mut self, frame: websocket::Frame, payload: &[u8]) -> Span {
        self.build(|out| websocket::frame(out, frame, payload, None))
    }

    /// Appends `bytes` as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        Span { start, end: self.bytes.len() as u32 }
    }

    /// Appends `body` as chunks; gives them and, if one was enough, the body in it.
    pub(crate) fn chunks(&mut self, body: &[u8]) -> (Span, Option<Span>) {
        let all = self.build(|out| http1::push_chunks(out, body));
        let end = all.end - CHUNK_END.len() as u32;
        let inner = Span { start: end - body.len() as u32, end };
        (all, (body.len() <= CHUNK_MAX).then_some(inner))
    }

    /// Lets the connection have `span`; `credit` of it is response body.
    pub(crate) fn add(&mut self, slot: u32, conn: &mut Conn, span: Span, credit: u32) {
        self.touch(slot, conn);
        if let Some(last) = self.nodes.get_mut(conn.last_node as usize)
            && last.span.end == span.start
        {
            last.span.end = span.end;
            last.credit += credit;
            return;
        }
        let index = self.nodes.len() as u32;
        self.nodes.push(Node { span, credit, next: NO_NODE });
        match self.nodes.get_mut(conn.last_node as usize) {
            Some(last) => last.next = index,
            None => conn.first_node = index,
        }
        conn.last_node = index;
    }

    /// Lists the connection for the end of the turn.
    pub(crate) fn touch(&mut self, slot: u32, conn: &mut Conn) {
        if !conn.has(TOUCHED) {
            conn.set(TOUCHED, true);
            self.touched.push(slot);
        }
    }

    /// Takes the connection's list.
    pub(crate) fn take(&self, conn: &mut Conn) -> NodeList<'_> {
        let next = conn.first_node;
        (conn.first_node, conn.last_node) = (NO_NODE, NO_NODE);
        NodeList { nodes: &self.nodes, next }
    }

    /// The bytes of a range.
    pub(crate) fn get(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..span.end as usize]
    }

    /// What is left of `span` after `skip` bytes, to be kept beyond the turn.
    pub(crate) fn detach(&mut self, span: Span, skip: usize) -> Bytes {
        let whole = &self.bytes[span.start as usize..span.end as usize];
        if whole.len() - skip < SHARED_MIN {
            return Bytes::copy_from_slice(&whole[skip..]);
        }
        self.shared.entry(span).or_insert_with(|| Bytes::copy_from_slice(whole)).slice(skip..)
    }

    /// Ready for the next turn.
    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(LAST_CHUNK.len());
        self.bytes.shrink_to(KEPT_BYTES);
        self.nodes.clear();
        self.nodes.shrink_to(KEPT_BYTES / size_of::<Node>());
        self.touched.clear();
        self.touched.shrink_to(KEPT_BYTES / size_of::<u32>());
        self.shared.clear();
    }
}

/// The pieces for one connection, in order.
#[derive(Clone, Debug)]
pub(crate) struct NodeList<'a> {
    nodes: &'a [Node],
    next: u32,
}

impl Iterator for NodeList<'_> {
    type Item = Node;

    fn next(&mut self) -> Option<Node> {
        let node = *self.nodes.get(self.next as usize)?;
        self.next = node.next;
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_piece() {
        let mut turn = Turn::new();
        let (mut a, mut b) = (Conn::new(None), Conn::new(None));
        let head = turn.raw(b"head ");
        let (chunk, inner) = turn.chunks(b"xyz");
        turn.add(1, &mut a, head, 0);
        turn.add(1, &mut a, chunk, 3);
        turn.add(1, &mut a, Turn::LAST_CHUNK, 0);
        turn.add(2, &mut b, inner.unwrap(), 3);
        let pieces: Vec<(Vec<u8>, u32)> =
            turn.take(&mut a).map(|n| (turn.get(n.span).to_vec(), n.credit)).collect();
        assert_eq!(pieces, [(b"head 3\r\nxyz\r\n".to_vec(), 3), (b"0\r\n\r\n".to_vec(), 0)]);
        assert_eq!(turn.take(&mut b).map(|n| turn.get(n.span)).collect::<Vec<_>>(), [b"xyz"]);
        assert_eq!(turn.take(&mut b).count(), 0);
        assert_eq!(turn.touched, [1, 2]);
    }

    #[test]
    fn large_rests_are_shared() {
        let mut turn = Turn::new();
        let span = turn.raw(&[7; 5000]);
        let one = turn.detach(span, 1000);
        let two = turn.detach(span, 2000);
        assert_eq!((one.len(), two.len()), (4000, 3000));
        assert_eq!(one[1000..].as_ptr(), two.as_ptr());
    }
}
