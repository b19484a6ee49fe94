//! The engines of a world as they are at its start, and what is published in it.

use std::path::Path;
use std::sync::Arc;

use handler::Handler;
use proxy::{Proxy, Routes, Signing};

const ROUTES: &str = "*,proto=ws,path_beg=/socket backend:80\n*,proto=ws backend:80,over_http\n\
                      * backend:80\n";

pub(crate) fn new_proxy() -> Proxy {
    let no_files = |path: &str| Err(format!("failed to open {path}"));
    let (table, problems) = routes::Table::parse(ROUTES, "routes", &no_files);
    assert!(problems.is_empty());
    let routes = Routes::new(table, &Signing::default(), Path::new(""));
    Proxy::new(proxy::Settings::default(), Arc::new(routes))
}

pub(crate) fn new_handler(workers: usize) -> Handler {
    let settings = handler::Settings { workers, ..handler::Settings::default() };
    Handler::new(0, settings)
}

/// An item for all formats.
pub(crate) fn serde_item(channel: &str, content: &str) -> String {
    format!(
        r#"{{"channel":"{channel}","formats":{{"http-stream":{{"content":"{content}"}},
           "http-response":{{"body":"{content}"}},
           "ws-message":{{"content":"{content}"}}}}}}"#
    )
}

/// The number at the end of a shard's instance id.
pub(crate) fn shard_of(name: &str) -> usize {
    name.rsplit_once('-').and_then(|(_, n)| n.parse().ok()).unwrap_or(0)
}
