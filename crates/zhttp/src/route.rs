//! The frames around a packet on the way (spec/zhttp.md §8.4).

/// The message for a SUB socket: receiver, space, packet.
pub fn publish(receiver: &[u8], packet: &[u8]) -> Vec<u8> {
    [receiver, b" ", packet].concat()
}

/// The packet of a message that a SUB socket received, if it is for `me`.
///
/// # Errors
/// `packet not for us` if the text before the first space is another id or there is no space.
pub fn published<'a>(me: &[u8], message: &'a [u8]) -> Result<&'a [u8], &'static str> {
    message.strip_prefix(me).and_then(|rest| rest.strip_prefix(b" ")).ok_or("packet not for us")
}

/// The sender and the packet of a message that a ROUTER socket received: `[sender][empty][T…]`.
///
/// # Errors
/// `unable to determine packet address` if the frames are not these three.
pub fn routed<F: AsRef<[u8]>>(frames: &[F]) -> Result<(&[u8], &[u8]), &'static str> {
    match frames {
        [sender, empty, packet] if empty.as_ref().is_empty() => {
            Ok((sender.as_ref(), packet.as_ref()))
        }
        _ => Err("unable to determine packet address"),
    }
}
