//! The metrics listener: it serves the text that the hub's loop wrote last.

use std::sync::{Arc, Mutex, PoisonError};

use super::options::Config;
use crate::hub::Hub;

/// Milliseconds between two texts.
const REFRESH_MS: u64 = 250;

/// What the loop writes.
pub(super) struct Scrape {
    text: Arc<Mutex<String>>,
    prefix: String,
    next: u64,
}

impl Scrape {
    /// Listens where the configuration says.
    pub(super) fn bind(config: &Config) -> Result<Option<Self>, String> {
        let Some(port) = &config.prometheus_port else { return Ok(None) };
        let text = Arc::new(Mutex::new(String::new()));
        let shared = text.clone();
        let page = move || shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        admin::serve_port(port, page)?;
        Ok(Some(Self { text, prefix: config.prometheus_prefix.clone(), next: 0 }))
    }

    /// When the next text is due.
    pub(super) fn due(&self) -> u64 {
        self.next
    }

    /// Writes the text anew, if it is time.
    pub(super) fn turn(&mut self, now: u64, hub: &Hub) {
        if now >= self.next {
            self.next = now + REFRESH_MS;
            let text = hub.metrics(&self.prefix);
            *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
        }
    }
}
