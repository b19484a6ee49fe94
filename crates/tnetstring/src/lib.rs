//! The tnetstring encoding: a zero-copy reader and a writer.
