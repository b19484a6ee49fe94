//! Masking (RFC 6455 §5.3), the same both ways.

/// Masks or unmasks `bytes` with `key`, and turns the key so that it fits what follows.
pub fn apply(bytes: &mut [u8], key: &mut [u8; 4]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    key.rotate_left(rest.len() % 4);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cut in any::<proptest::sample::Index>(),
            key: [u8; 4],
        ) {
            let plain: Vec<u8> = bytes.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k).collect();
            let mut cut_up = bytes.clone();
            let (one, two) = cut_up.split_at_mut(cut.index(bytes.len() + 1));
            let mut turned = key;
            apply(one, &mut turned);
            apply(two, &mut turned);
            prop_assert_eq!(cut_up, plain);
        }
    }
}
