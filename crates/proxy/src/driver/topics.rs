//! Who listens to the stats: the subscriptions of the stats socket, for the worker's loop.

/// Notes a subscription message of the stats socket: 1 or 0, and the topic.
pub(super) fn note_topic(topics: &mut Vec<Vec<u8>>, frame: &[u8]) -> bool {
    match frame {
        [1, topic @ ..] => topics.push(topic.to_vec()),
        [0, topic @ ..] => topics.retain(|known| known != topic),
        _ => return false,
    }
    true
}

/// Whether somebody listens for single connections, and for their maxima. Who asks for
/// everything is an old handler, which does not know maxima.
pub(super) fn listeners(topics: &[Vec<u8>]) -> (bool, bool) {
    let meets = |topic: &[u8], kind: &[u8]| kind.starts_with(topic) || topic.starts_with(kind);
    let conn = topics.iter().any(|topic| meets(topic, b"conn "));
    let maxima = topics.iter().any(|topic| topic.starts_with(b"conn-"));
    (conn, maxima)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens() {
        let topics = |list: &[&str]| list.iter().map(|t| t.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(listeners(&topics(&[""])), (true, false));
        assert_eq!(listeners(&topics(&["activity ", "report ", "conn-max "])), (false, true));
        assert_eq!(listeners(&topics(&["conn-max ", "conn "])), (true, true));
        let mut seen = Vec::new();
        assert!(note_topic(&mut seen, b"\x01conn ") && listeners(&seen).0);
        assert!(note_topic(&mut seen, b"\x00conn ") && !listeners(&seen).0);
        assert!(!note_topic(&mut seen, b""));
    }
}
