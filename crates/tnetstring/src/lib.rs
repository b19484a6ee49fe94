//! The tnetstring encoding (spec/zhttp.md §1): `<length>:<payload><type>`.
//!
//! Every packet between the processes is built of these frames. The reader borrows from its
//! input and looks into a container only when asked; the writer appends to a `Vec<u8>`.

mod read;
mod text;
mod write;

pub use read::{Error, List, ListIter, Map, Value, parse, parse_all};
pub use write::Writer;

#[cfg(test)]
mod tests;
