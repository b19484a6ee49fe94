//! The WebSocket of the built-in test backend: it echoes (spec/proxy.md §2.3).

use crate::test_target::channels;

/// The control messages that subscribe to the channels of a query.
pub(crate) fn subscriptions(query: &str) -> Vec<String> {
    let quoted = |name: &str| crossorigin::json::quote(name);
    let message = |name: &String| format!(r#"c:{{"channel":{},"type":"subscribe"}}"#, quoted(name));
    channels(query).iter().map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_become_messages() {
        assert_eq!(subscriptions(""), [r#"c:{"channel":"test","type":"subscribe"}"#]);
        assert_eq!(
            subscriptions("channel=a%22&channel=b"),
            [
                r#"c:{"channel":"a\"","type":"subscribe"}"#,
                r#"c:{"channel":"b","type":"subscribe"}"#
            ]
        );
    }
}
