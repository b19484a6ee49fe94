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

/// Listens where the configuration says; gives the places of `workers`, or nothing if it does not.
///
/// # Errors
/// A text for the log: which port, and why.
pub(crate) fn bind(config: &config::Settings, workers: usize) -> Result<Vec<Board>, String> {
    let Some(port) = config.nonempty("proxy", "prometheus_port") else { return Ok(Vec::new()) };
    let prefix = config.nonempty("proxy", "prometheus_prefix").unwrap_or_default();
    let places: Places = (0..workers).map(|_| Mutex::default()).collect();
    let shown = Arc::clone(&places);
    admin::serve_port(&port, move || {
        let mut sum = Figures::default();
        for place in shown.iter() {
            sum.add(&place.lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum.page(&prefix)
    })?;
    let board = |own| Board { places: Arc::clone(&places), own, next_ms: 0 };
    Ok((0..workers).map(board).collect())
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
