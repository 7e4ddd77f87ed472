//! Every word that the console shows, in one table for each language.
//!
//! A language is a [`Words`]: the compiler sees to it that none is missing. `{0}`, `{1}` … stand for what [`put`]
//! fills in, so that a language may have them in its own order.
//!
//! The server has all languages. The browser has none built in: it loads the file of the page's language beside the
//! WASM, and [`learn`]s it before the page comes alive.

mod languages;

#[cfg(not(feature = "hydrate"))]
mod server;

#[cfg(feature = "hydrate")]
pub use browser::{learn, w};
pub use languages::{Language, Words};
#[cfg(not(feature = "hydrate"))]
pub use server::{speaking, w};

#[cfg(feature = "hydrate")]
mod browser {
    use super::languages::{COUNT, Words};
    use std::sync::OnceLock;

    static WORDS: OnceLock<&'static Words> = OnceLock::new();

    /// The words in the language of the page.
    pub fn w() -> &'static Words {
        // Nothing is said before they are there.
        WORDS.get_or_init(|| of(Box::new([""; COUNT])))
    }

    /// Takes the words of a language, a line for each. False if they are not those of this program.
    pub fn learn(lines: String) -> bool {
        let lines: Vec<&'static str> = lines.leak().split('\n').collect();
        let texts: Result<Box<[&'static str; COUNT]>, _> = lines.into_boxed_slice().try_into();
        texts.is_ok_and(|texts| WORDS.set(of(texts)).is_ok())
    }

    /// A field for each would be some kilobytes of code.
    fn of(texts: Box<[&'static str; COUNT]>) -> &'static Words {
        const { assert!(size_of::<Words>() == size_of::<[&str; COUNT]>()) };
        let texts: *const [&'static str; COUNT] = Box::leak(texts);
        // SAFETY: it is leaked, so it stays and nobody changes it; a `repr(C)` struct whose fields are all of one type
        // has them where an array has its elements.
        unsafe { &*texts.cast::<Words>() }
    }
}

/// A sentence with its parts filled in.
pub fn put(sentence: &str, parts: &[&str]) -> String {
    let mut out = String::with_capacity(sentence.len() + 16);
    let mut rest = sentence;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}') else { break };
        let number = rest[at + 1..at + end].parse::<usize>();
        out.push_str(
            number
                .ok()
                .and_then(|n| parts.get(n))
                .copied()
                .unwrap_or_default(),
        );
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    out
}

#[cfg(all(test, not(feature = "hydrate")))]
mod tests;
