//! Answers that have to be waited for. They are made one after another in a thread of their own, so
//! that nobody who asks for something else is held up. Used by `scrape`.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;

use mio::Waker;

use crate::Reply;

/// Makes an answer; may wait.
pub(crate) type Work = Box<dyn FnOnce() -> Reply + Send>;

/// Who waits for an answer. Without it the work is not even begun.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<()>);

impl Ticket {
    /// Whether an answer is the one that is waited for.
    pub fn is_for(&self, answer: &Weak<()>) -> bool {
        Weak::ptr_eq(&Arc::downgrade(&self.0), answer)
    }
}

type Job = (Weak<()>, Work);
type Made = (Weak<()>, Reply);

/// The thread, from the first work on.
#[derive(Debug)]
pub(crate) struct Later {
    waker: Arc<Waker>,
    thread: Option<(Sender<Job>, Receiver<Made>)>,
}

impl Later {
    /// Without a thread as yet; `waker` will tell that something was made.
    pub fn new(waker: Waker) -> Self {
        Self { waker: Arc::new(waker), thread: None }
    }

    /// Asks for an answer. There are never more that are waited for than tickets.
    ///
    /// # Errors
    /// What the system says about the thread.
    pub fn ask(&mut self, work: Work) -> io::Result<Ticket> {
        let ticket = Ticket(Arc::new(()));
        let (jobs, _) = match &mut self.thread {
            Some(thread) => thread,
            none => none.insert(start(self.waker.clone())?),
        };
        // Without the thread nobody answers, and the client's time is over some day.
        let _ = jobs.send((Arc::downgrade(&ticket.0), work));
        Ok(ticket)
    }

    /// What was made meanwhile.
    pub fn made(&self) -> impl Iterator<Item = Made> + '_ {
        self.thread.iter().flat_map(|(_, made)| made.try_iter())
    }
}

/// A thread that works off jobs until nobody can ask for more.
fn start(waker: Arc<Waker>) -> io::Result<(Sender<Job>, Receiver<Made>)> {
    let (jobs, todo) = channel::<Job>();
    let (finished, made) = channel();
    let work = move || {
        for (ticket, work) in todo {
            if ticket.strong_count() == 0 {
                continue;
            }
            if finished.send((ticket, work())).is_err() || waker.wake().is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("metrics-pages".into()).stack_size(1 << 20).spawn(work)?;
    Ok((jobs, made))
}
