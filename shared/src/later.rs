//! What is read of an answer only where it is shown.
//!
//! What takes an answer apart is most of what a browser would have to load for it. With the feature `later`, which only the
//! console in the browser has, a part stays as it came until it is read, and what reads it is loaded with the page that does.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
#[cfg(feature = "later")]
use serde_json::Value;

/// A part of an answer.
#[cfg(not(feature = "later"))]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Later<T>(T);

#[cfg(not(feature = "later"))]
mod now {
    use super::*;
    use std::ops::{Deref, DerefMut};

    impl<T> From<T> for Later<T> {
        fn from(part: T) -> Self {
            Self(part)
        }
    }

    impl<T> Deref for Later<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T> DerefMut for Later<T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.0
        }
    }

    impl<T> Later<T> {
        /// The part itself.
        pub fn into_inner(self) -> T {
            self.0
        }
    }

    impl<T: Clone> Later<T> {
        /// The part; none if it is not understood.
        pub fn read(&self) -> Option<T> {
            Some(self.0.clone())
        }
    }

    impl<T: Serialize> Later<T> {
        /// One value within the part, by its JSON pointer; none where there is none.
        pub fn peek<V: DeserializeOwned>(&self, pointer: &str) -> Option<V> {
            let value = serde_json::to_value(&self.0).ok()?;
            serde_json::from_value(value.pointer(pointer)?.clone()).ok()
        }
    }
}

/// A part of an answer, as it came.
#[cfg(feature = "later")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Later<T> {
    value: Value,
    #[serde(skip)]
    of: std::marker::PhantomData<fn() -> T>,
}

#[cfg(feature = "later")]
impl<T> Default for Later<T> {
    fn default() -> Self {
        let (value, of) = (Value::Null, std::marker::PhantomData);
        Self { value, of }
    }
}

#[cfg(feature = "later")]
impl<T: DeserializeOwned> Later<T> {
    /// The part; none if it is not understood.
    pub fn read(&self) -> Option<T> {
        serde_json::from_value(self.value.clone()).ok()
    }

    /// One value within the part, by its JSON pointer; none where there is none.
    pub fn peek<V: DeserializeOwned>(&self, pointer: &str) -> Option<V> {
        serde_json::from_value(self.value.pointer(pointer)?.clone()).ok()
    }
}
