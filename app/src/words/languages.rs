//! The languages of the console. Nothing but `std` is used here: `scripts/words.rs` compiles this file alone, to write
//! what the browser loads.

// The browser has the words of one language only, and loads those.
#[path = "english.rs"]
mod english;
#[cfg(not(feature = "hydrate"))]
#[path = "german.rs"]
mod german;

/// A language of the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// What is spoken where nothing else is asked for.
    English,
    /// German.
    German,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::English, Self::German];

    /// As it stands on `<html>`, in the cookie and in `Accept-Language`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }

    /// What it calls itself.
    pub const fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::German => "Deutsch",
        }
    }

    /// The file that has its words, a line for each.
    pub fn file(self) -> String {
        format!("words-{}.txt", self.code())
    }
}

#[cfg(not(feature = "hydrate"))]
impl Language {
    /// Its words.
    pub const fn words(self) -> &'static Words {
        match self {
            Self::English => &english::ENGLISH,
            Self::German => &german::GERMAN,
        }
    }

    /// What stands in its file.
    pub fn lines(self) -> String {
        self.words().all().map(|(_, text)| text).join("\n")
    }

    /// That of a person: as the cookie has it, or else as `Accept-Language` does.
    pub fn of(cookie: Option<&str>, accepted: Option<&str>) -> Self {
        cookie
            .and_then(|code| code.parse().ok())
            .or_else(|| Self::accepted(accepted?))
            .unwrap_or(Self::English)
    }

    fn accepted(header: &str) -> Option<Self> {
        let mut best = (0.0, None);
        for range in header.split(',') {
            let mut parts = range.split(';').map(str::trim);
            // `de-AT` is German, too.
            let tag = parts.next()?.split('-').next()?.to_ascii_lowercase();
            let weight = parts.find_map(|p| p.strip_prefix("q="));
            let weight = weight.map_or(1.0, |q| q.parse().unwrap_or(0.0));
            if let Ok(language) = tag.parse()
                && weight > best.0
            {
                best = (weight, Some(language));
            }
        }
        best.1
    }
}

impl std::str::FromStr for Language {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|l| l.code() == s)
            .ok_or("it is none of en, de")
    }
}

macro_rules! table {
    ($($name:ident: $text:literal,)*) => {
        /// The words of a language.
        // Some are said in the browser alone, some by the server alone. In this order they travel.
        #[allow(dead_code, missing_docs)]
        #[repr(C)]
        pub struct Words { $(pub $name: &'static str,)* }

        /// How many there are.
        pub const COUNT: usize = [$(stringify!($name)),*].len();

        #[cfg(not(feature = "hydrate"))]
        pub static ENGLISH: Words = Words { $($name: $text,)* };

        #[cfg(not(feature = "hydrate"))]
        impl Words {
            /// Every word with its name, in the table's order.
            pub fn all(&self) -> [(&'static str, &'static str); COUNT] {
                [$((stringify!($name), self.$name),)*]
            }
        }
    };
}
use table;

#[cfg(any(test, feature = "hydrate"))]
pub use english::COUNT;
pub use english::Words;
