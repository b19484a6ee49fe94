//! The writer.

/// Appends frames to a buffer. Containers are written by a closure; their length is put in
/// front when it returns, which costs one short move of the payload.
///
/// ```
/// let mut w = tnetstring::Writer::new();
/// w.map(|w| {
///     w.str("n");
///     w.int(5);
/// });
/// assert_eq!(w.into_vec(), b"8:1:n,1:5#}");
/// ```
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// A writer with an empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer that appends to `out`; [`Writer::into_vec`] gives it back.
    pub fn append_to(out: Vec<u8>) -> Self {
        Self { out }
    }

    /// The bytes written so far.
    pub fn into_vec(self) -> Vec<u8> {
        self.out
    }

    /// A `,` frame.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.prefix(bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.push(b',');
    }

    /// A `,` frame of several pieces.
    pub fn pieces(&mut self, pieces: &[&[u8]]) {
        self.prefix(pieces.iter().map(|piece| piece.len()).sum());
        for piece in pieces {
            self.out.extend_from_slice(piece);
        }
        self.out.push(b',');
    }

    /// A `,` frame of text.
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A `#` frame.
    pub fn int(&mut self, n: i64) {
        let mut digits = [0; 20];
        let text = decimal(n.unsigned_abs(), &mut digits);
        self.prefix(text.len() + usize::from(n < 0));
        if n < 0 {
            self.out.push(b'-');
        }
        self.out.extend_from_slice(text);
        self.out.push(b'#');
    }

    /// A `^` frame.
    pub fn float(&mut self, n: f64) {
        let text = n.to_string();
        self.prefix(text.len());
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'^');
    }

    /// A `!` frame.
    pub fn bool(&mut self, b: bool) {
        self.out.extend_from_slice(if b { b"4:true!" } else { b"5:false!" });
    }

    /// A `~` frame.
    pub fn null(&mut self) {
        self.out.extend_from_slice(b"0:~");
    }

    /// A frame that is encoded already, as it is.
    pub fn raw(&mut self, frame: &[u8]) {
        self.out.extend_from_slice(frame);
    }

    /// A `]` frame with the items that `fill` writes.
    pub fn list(&mut self, fill: impl FnOnce(&mut Self)) {
        self.container(b']', fill);
    }

    /// A `}` frame with the keys and values that `fill` writes in turn.
    pub fn map(&mut self, fill: impl FnOnce(&mut Self)) {
        self.container(b'}', fill);
    }

    fn container(&mut self, kind: u8, fill: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        fill(self);
        let length = self.out.len() - start;
        let mut digits = [0; 20];
        let text = decimal(length as u64, &mut digits);
        let shift = text.len() + 1;
        self.out.resize(start + length + shift, 0);
        self.out.copy_within(start..start + length, start + shift);
        self.out[start..start + text.len()].copy_from_slice(text);
        self.out[start + text.len()] = b':';
        self.out.push(kind);
    }

    fn prefix(&mut self, length: usize) {
        let mut digits = [0; 20];
        self.out.extend_from_slice(decimal(length as u64, &mut digits));
        self.out.push(b':');
    }
}

/// `n` in decimal, in the tail of `digits`. By hand: the formatting machinery of the standard library
/// was half of what a fan-out packet cost.
fn decimal(mut n: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (n % 10) as u8;
        n /= 10;
        // Twenty digits hold every u64.
        if n == 0 || start == 0 {
            return &digits[start..];
        }
    }
}
