//! A channel of a shard: who is on it, and the pass of items over them.
//!
//! Work is kept per channel, never per item and session: a pass has a cursor that walks the
//! subscriber list round and round; at each step all its items apply to the subscriber under
//! it, and an item is done when the cursor is back where it found it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrayvec::ArrayVec;
use evloop::arena::Key;
use grip::Item;
use stats::Mode;

use crate::intern::NONE;

/// Most items of one pass; more are refused and counted.
const PASS_MAX: usize = 100_000;

/// A session on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscriber {
    /// Its place in the arena; [`NONE`] if it left during a pass.
    pub(crate) session: u32,
    /// Number of the first item that it gets.
    pub(crate) join: u32,
}

/// The sessions of one mode.
#[derive(Debug, Default)]
pub(crate) struct List {
    pub(crate) subscribers: Vec<Subscriber>,
    /// Without those that left.
    pub(crate) live: u32,
    pub(crate) pass: Option<Box<Pass>>,
}

/// Items on their way over a list.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    pub(crate) items: VecDeque<Pending>,
    cursor: usize,
}

/// One item of a pass.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) item: Arc<Item>,
    pub(crate) seq: u32,
    /// When it was published.
    pub(crate) at: u64,
    start: usize,
    wrapped: bool,
}

impl Pending {
    /// An item that goes to certain sessions, outside of any pass.
    pub(crate) fn alone(item: Arc<Item>, at: u64) -> Self {
        Self { item, seq: 0, at, start: 0, wrapped: false }
    }
}

impl Pass {
    /// The next positions over which the set of items is the same, at most `limit`.
    pub(crate) fn window(&self, length: usize, limit: usize) -> Range<usize> {
        let ends = self.items.iter().filter(|p| p.wrapped).map(|p| p.start);
        let end = ends.min().unwrap_or(length).min(length).min(self.cursor + limit);
        self.cursor..end
    }

    /// The cursor reached `end`; items that are done go, and `done` learns when they were
    /// published.
    pub(crate) fn advance(&mut self, end: usize, length: usize, mut done: impl FnMut(u64)) {
        self.cursor = end;
        if end >= length {
            self.cursor = 0;
            self.items.iter_mut().for_each(|pending| pending.wrapped = true);
        }
        let cursor = self.cursor;
        while let Some(item) = self.items.front().filter(|p| p.wrapped && p.start <= cursor) {
            done(item.at);
            self.items.pop_front();
        }
    }
}

impl List {
    /// Adds a session that gets the items from `join` on; gives its position.
    pub(crate) fn add(&mut self, session: u32, join: u32) -> u32 {
        self.subscribers.push(Subscriber { session, join });
        self.live += 1;
        self.subscribers.len() as u32 - 1
    }

    /// Takes the session at `position` off; gives the session that took its place.
    pub(crate) fn remove(&mut self, position: u32) -> Option<u32> {
        let position = position as usize;
        self.live -= 1;
        if self.pass.is_some() {
            self.subscribers[position].session = NONE;
            return None;
        }
        self.subscribers.swap_remove(position);
        if self.subscribers.capacity() > 64
            && self.subscribers.len() < self.subscribers.capacity() / 4
        {
            self.subscribers.shrink_to(self.subscribers.len() * 2);
        }
        self.subscribers.get(position).map(|moved| moved.session)
    }

    /// Lets an item go over the list. False: too many are on their way.
    pub(crate) fn push(&mut self, item: &Arc<Item>, seq: u32, at: u64) -> bool {
        let pass = self.pass.get_or_insert_default();
        if pass.items.len() >= PASS_MAX {
            return false;
        }
        let start = pass.cursor;
        pass.items.push_back(Pending { item: item.clone(), seq, at, start, wrapped: false });
        true
    }

    /// Ends the pass and closes the gaps of those that left; tells who moved where.
    pub(crate) fn finish_pass(&mut self, mut moved: impl FnMut(u32, u32)) {
        self.pass = None;
        if self.live as usize == self.subscribers.len() {
            return;
        }
        let mut at = 0u32;
        self.subscribers.retain(|subscriber| {
            let keep = subscriber.session != NONE;
            if keep {
                moved(subscriber.session, at);
                at += 1;
            }
            keep
        });
    }
}

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) name: Arc<str>,
    /// The hub's number, [`NONE`] until it confirmed.
    pub(crate) hub: u32,
    pub(crate) last_id: Option<Arc<str>>,
    pub(crate) next_seq: u32,
    /// In the list of channels with work.
    pub(crate) queued: bool,
    turn: u8,
    responses: List,
    streams: List,
    /// Few channels have both HTTP sessions and WebSockets.
    sockets: Option<Box<List>>,
    /// Sessions that wait for the hub's confirmation.
    pub(crate) waiting: Vec<Key>,
}

impl Channel {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            hub: NONE,
            last_id: None,
            next_seq: 0,
            queued: false,
            turn: 0,
            responses: List::default(),
            streams: List::default(),
            sockets: None,
            waiting: Vec::new(),
        }
    }

    pub(crate) fn list(&mut self, mode: Mode) -> &mut List {
        match mode {
            Mode::Response => &mut self.responses,
            Mode::Stream => &mut self.streams,
            Mode::Ws => self.sockets.get_or_insert_default(),
        }
    }

    fn lists(&self) -> impl Iterator<Item = (Mode, &List)> {
        let http = [(Mode::Stream, &self.streams), (Mode::Response, &self.responses)];
        http.into_iter().chain(self.sockets.as_deref().map(|list| (Mode::Ws, list)))
    }

    /// The sessions of a mode.
    pub(crate) fn subscribers(&self, mode: Mode) -> &[Subscriber] {
        let list = self.lists().find(|(m, _)| *m == mode);
        list.map_or(&[], |(_, list)| &list.subscribers)
    }

    /// How many sessions of a mode are on it.
    pub(crate) fn live(&self, mode: Mode) -> u32 {
        self.lists().find(|(m, _)| *m == mode).map_or(0, |(_, list)| list.live)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lists().all(|(_, list)| list.live == 0)
    }

    /// Items on their way over the lists.
    pub(crate) fn under_way(&self) -> usize {
        self.lists().filter_map(|(_, list)| list.pass.as_ref()).map(|pass| pass.items.len()).sum()
    }

    /// Whether a pass is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.lists().any(|(_, list)| list.pass.is_some())
    }

    /// A list that has a pass under way; they take turns.
    pub(crate) fn next_busy(&mut self) -> Option<Mode> {
        let busy: ArrayVec<Mode, 3> =
            self.lists().filter(|(_, list)| list.pass.is_some()).map(|(mode, _)| mode).collect();
        self.turn = self.turn.wrapping_add(1);
        busy.get(usize::from(self.turn) % busy.len().max(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(n: usize) -> Arc<Item> {
        let text = format!(r#"{{"channel":"c","id":"{n}","http-stream":{{"content":"x"}}}}"#);
        let value = grip::Value::from_json(text.as_bytes()).unwrap();
        Arc::new(Item::from_json(&value, None).unwrap())
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join,
        Leave(usize),
        Publish,
        Work(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Join),
            any::<usize>().prop_map(Step::Leave),
            Just(Step::Publish),
            (1usize..5).prop_map(Step::Work),
        ]
    }

    /// Walks one window and notes what each session got.
    fn work(list: &mut List, limit: usize, got: &mut [Vec<u32>], at: &mut [u32]) -> bool {
        let Some(mut pass) = list.pass.take() else { return false };
        let window = pass.window(list.subscribers.len(), limit);
        for subscriber in &list.subscribers[window.clone()] {
            let items = pass.items.iter().map(|p| p.seq).filter(|seq| *seq >= subscriber.join);
            if subscriber.session != NONE {
                got[subscriber.session as usize].extend(items);
            }
        }
        pass.advance(window.end, list.subscribers.len(), |_| {});
        let done = pass.items.is_empty();
        list.pass = Some(pass);
        if done {
            list.finish_pass(|session, position| at[session as usize] = position);
        }
        true
    }

    proptest! {
        /// Whatever joins and leaves in between, everybody who stays gets every item that was
        /// published after joining, once, in order.
        #[test]
        fn nothing_is_missed_doubled_or_swapped(steps in prop::collection::vec(step(), 0..200)) {
            let mut list = List::default();
            let (mut got, mut at) = (Vec::new(), Vec::new());
            let mut expected: Vec<Option<Vec<u32>>> = Vec::new();
            let mut seq = 0;
            for step in steps {
                match step {
                    Step::Join => {
                        at.push(list.add(got.len() as u32, seq));
                        got.push(Vec::new());
                        expected.push(Some(Vec::new()));
                    }
                    Step::Leave(pick) if !expected.is_empty() => {
                        let session = pick % expected.len();
                        let stayed = expected[session].take();
                        if let Some(moved) = stayed.and_then(|_| list.remove(at[session])) {
                            at[moved as usize] = at[session];
                        }
                    }
                    Step::Publish if list.live > 0 => {
                        prop_assert!(list.push(&item(seq as usize), seq, 0));
                        expected.iter_mut().flatten().for_each(|e| e.push(seq));
                        seq += 1;
                    }
                    Step::Work(limit) => {
                        work(&mut list, limit, &mut got, &mut at);
                    }
                    _ => {}
                }
            }
            while work(&mut list, 3, &mut got, &mut at) {}
            for (session, expected) in expected.iter().enumerate() {
                if let Some(expected) = expected {
                    prop_assert_eq!(&got[session], expected);
                    prop_assert_eq!(list.subscribers[at[session] as usize].session, session as u32);
                }
            }
            prop_assert_eq!(list.live as usize, list.subscribers.len());
        }
    }
}
