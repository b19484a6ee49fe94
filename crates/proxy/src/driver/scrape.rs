//! The metrics listener: it shows the sums of what the workers' loops wrote last.

use std::sync::{Arc, Mutex, PoisonError};

use crate::figures::Figures;

/// Milliseconds between two writings of a worker.
const REFRESH_MS: u64 = 250;

/// Where the workers write, each in its place.
type Places = Arc<[Mutex<Figures>]>;

/// One worker's place.
pub(crate) struct Board {
    places: Places,
    own: usize,
    next_ms: u64,
}

/// All places, for whoever shows their sums.
pub(crate) struct Boards(Places);

impl Boards {
    /// Listens where the configuration says; nothing if nobody is to see the figures of `workers`:
    /// neither there nor at the supervisor.
    ///
    /// # Errors
    /// A text for the log: which port, and why.
    pub fn bind(config: &config::Settings, workers: usize) -> Result<Option<Self>, String> {
        let boards = Self((0..workers).map(|_| Mutex::default()).collect());
        let port = config.nonempty("proxy", "prometheus_port");
        let wanted = port.is_some() || config.nonempty("runner", "prometheus_port").is_some();
        if let Some(port) = port {
            let prefix = config.nonempty("proxy", "prometheus_prefix").unwrap_or_default();
            let page = boards.page();
            admin::serve_port(&port, move || page(&prefix))?;
        }
        Ok(wanted.then_some(boards))
    }

    /// The place of a worker.
    pub fn board(&self, own: usize) -> Board {
        Board { places: Arc::clone(&self.0), own, next_ms: 0 }
    }

    /// Gives the page of metrics; its argument stands before all names.
    pub fn page(&self) -> impl Fn(&str) -> String + Send + use<> {
        let places = Arc::clone(&self.0);
        move |prefix| {
            let mut sum = Figures::default();
            for place in places.iter() {
                sum.add(&place.lock().unwrap_or_else(PoisonError::into_inner));
            }
            sum.page(prefix)
        }
    }
}

impl Board {
    /// When the next writing is due.
    pub fn due(&self) -> u64 {
        self.next_ms
    }

    /// Writes, if it is time.
    pub fn turn(&mut self, now: u64, figures: impl FnOnce() -> Figures) {
        if now >= self.next_ms {
            self.next_ms = now + REFRESH_MS;
            *self.places[self.own].lock().unwrap_or_else(PoisonError::into_inner) = figures();
        }
    }
}
