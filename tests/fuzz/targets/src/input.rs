//! The fuzzer's bytes as choices: what runs out is zero.

/// What is left of the input.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A byte as a size that is also sometimes large.
    pub(crate) fn size(&mut self) -> usize {
        let byte = usize::from(self.byte());
        if byte < 128 { byte } else { (byte - 127) * 100 }
    }

    /// As many bytes as the next one says, or what is left.
    pub(crate) fn piece(&mut self) -> &'a [u8] {
        let size = usize::from(self.byte()).min(self.0.len());
        let (piece, rest) = self.0.split_at(size);
        self.0 = rest;
        piece
    }
}
