//! State that takes room only while it says something.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// A type whose default stands for "nothing".
pub(crate) trait Blank: Default + 'static {
    /// The default.
    fn blank() -> &'static Self;
}

/// A value that is not stored while it is the default: it reads as such, is stored with the first
/// change, and goes with [`Rare::clear`]. Of a million sessions few are in the middle of something.
#[derive(Default)]
pub(crate) struct Rare<T>(Option<Box<T>>);

impl<T: Blank> Rare<T> {
    /// Stores a value.
    pub fn new(value: T) -> Self {
        Self(Some(Box::new(value)))
    }

    /// Back to the default.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    /// Takes the value and leaves the default.
    pub fn take(&mut self) -> T {
        self.0.take().map_or_else(T::default, |value| *value)
    }
}

impl<T: Blank> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => T::blank(),
        }
    }
}

impl<T: Blank> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: Blank + fmt::Debug> fmt::Debug for Rare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Makes types [`Blank`].
macro_rules! blank {
    ($($type:ty),*) => {$(
        impl $crate::rare::Blank for $type {
            fn blank() -> &'static Self {
                static BLANK: std::sync::LazyLock<$type> = std::sync::LazyLock::new(<$type>::default);
                &BLANK
            }
        }
    )*};
}

pub(crate) use blank;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Count(u64);

    blank!(Count);

    #[test]
    fn only_a_change_is_stored() {
        let mut count = Rare::<Count>::default();
        assert_eq!((count.0.is_some(), *count == Count(0)), (false, true));
        count.0.get_or_insert_default().0 += 1;
        assert_eq!(*count, Count(1));
        assert_eq!((count.take(), count.take()), (Count(1), Count(0)));
        let mut count = Rare::new(Count(2));
        count.clear();
        assert!(count.0.is_none());
        assert_eq!(size_of_val(&count), size_of::<usize>());
    }
}
