//! Whose words are said where many pages are rendered at once: those of the language in context. A page's
//! [`crate::shell`] puts it there, and no other page can see it.

use super::{Language, Words};
use leptos::prelude::{Owner, provide_context, use_context};

/// The words in the language of the person whose page this is.
pub fn w() -> &'static Words {
    use_context().unwrap_or(Language::English).words()
}

/// Does what is no part of a page in a language.
pub fn speaking<T>(language: Language, act: impl FnOnce() -> T) -> T {
    Owner::new().with(|| {
        provide_context(language);
        act()
    })
}
