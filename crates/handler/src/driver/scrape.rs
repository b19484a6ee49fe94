//! The metrics listener: it serves the text that the hub's loop wrote last.

use std::sync::{Arc, Mutex, PoisonError};

use super::options::Config;
use crate::hub::Hub;

/// Milliseconds between two texts.
const REFRESH_MS: u64 = 250;

/// What the loop writes.
pub(super) struct Scrape {
    text: Arc<Mutex<String>>,
    next: u64,
}

impl Scrape {
    /// Listens where the configuration says. Nothing if nobody is to see the text: neither there
    /// nor at the supervisor.
    pub(super) fn bind(config: &Config) -> Result<Option<Self>, String> {
        let scrape = Self { text: Arc::default(), next: 0 };
        if let Some(port) = &config.prometheus_port {
            let (plain, prefix) = (scrape.page(), config.prometheus_prefix.clone());
            admin::serve_port(port, move || metrics::with_prefix(&prefix, &plain()))
                .map_err(|error| config.not_bound("prometheus_port", &error))?;
        }
        let wanted = config.prometheus_port.is_some() || config.asked_for_metrics;
        Ok(wanted.then_some(scrape))
    }

    /// Gives the text as it is, without a prefix.
    pub(super) fn page(&self) -> impl Fn() -> String + Send + use<> {
        let text = self.text.clone();
        move || text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the next text is due.
    pub(super) fn due(&self) -> u64 {
        self.next
    }

    /// Writes the text anew, if it is time.
    pub(super) fn turn(&mut self, now: u64, hub: &Hub) {
        if now >= self.next {
            self.next = now + REFRESH_MS;
            let text = hub.metrics("");
            *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
        }
    }
}
