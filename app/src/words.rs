//! Every word that the console shows, in one table for each language.
//!
//! A language is a [`Words`]: the compiler sees to it that none is missing. `{0}`, `{1}` … stand for what [`put`]
//! fills in, so that a language may have them in its own order.

mod english;

/// The words in the language of the person.
pub const fn w() -> &'static Words {
    &english::ENGLISH
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

macro_rules! table {
    ($($name:ident: $text:literal,)*) => {
        /// The words of a language.
        // Some are said in the browser alone, some by the server alone.
        #[allow(dead_code)]
        pub struct Words { $(pub $name: &'static str,)* }

        pub static ENGLISH: Words = Words { $($name: $text,)* };

        /// Every word, for a test that looks at them.
        #[cfg(test)]
        pub const ALL: &[(&str, &str)] = &[$((stringify!($name), $text),)*];
    };
}
use table;

pub use english::Words;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_where_the_language_wants_them() {
        assert_eq!(put("{1} of {0}, {0}", &["a", "b"]), "b of a, a");
        assert_eq!(put("plain", &[]), "plain");
        assert_eq!(put("{7}!", &[]), "!");
    }

    #[test]
    fn no_word_is_empty_and_every_brace_is_a_number() {
        for (name, text) in english::ALL {
            assert!(!text.trim().is_empty(), "{name} is empty");
            for part in text.split('{').skip(1) {
                let number = part.split('}').next().unwrap();
                assert!(number.parse::<usize>().is_ok(), "{name}: {{{number}}}");
            }
        }
    }
}
