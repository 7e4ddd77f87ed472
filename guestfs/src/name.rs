//! Names of files: bytes there, text here.
//!
//! In text a byte that is no part of UTF-8, or is of a control character, is `\xHH`, and a backslash is `\\`. All else stands
//! for itself, so what most files are called is what they are called in JSON, and everything comes back as it was.

use std::fmt::Write as _;

/// A text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of a file: after a backslash comes another, or x and two hexadecimal digits")]
pub struct BadName(pub String);

/// The text of a name.
pub fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                text.push_str("\\\\");
            } else if c.is_control() {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    hex(&mut text, byte);
                }
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            hex(&mut text, *byte);
        }
    }
    text
}

/// The name of a text.
pub fn unescape(text: &str) -> Result<Vec<u8>, BadName> {
    let bad = || BadName(text.to_owned());
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            name.push(*first);
            continue;
        }
        match rest {
            [b'\\', after @ ..] => {
                name.push(b'\\');
                rest = after;
            }
            [b'x', high, low, after @ ..] => {
                let digit = |d: u8| char::from(d).to_digit(16).ok_or_else(bad);
                let byte = digit(*high)? * 16 + digit(*low)?;
                name.push(u8::try_from(byte).map_err(|_| bad())?);
                rest = after;
            }
            _ => return Err(bad()),
        }
    }
    Ok(name)
}

/// A word in guestfish's language: it means nothing else, whatever is in it.
pub(crate) fn quote(word: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in word {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b':' => {
                text.push(char::from(*byte));
            }
            _ => hex(&mut text, *byte),
        }
    }
    text.push('"');
    text
}

fn hex(text: &mut String, byte: u8) {
    // Writing to a string does not fail.
    let _ = write!(text, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_names_stand_for_themselves() {
        assert_eq!(escape("a file – ä.txt".as_bytes()), "a file – ä.txt");
        assert_eq!(escape(b"new\nline \\ \xff\xfe"), "new\\x0aline \\\\ \\xff\\xfe");
        assert_eq!(escape("\u{85}".as_bytes()), "\\xc2\\x85");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["\\", "\\n", "\\x", "\\x1", "\\xg0", "a\\x+1"] {
            assert_eq!(unescape(text), Err(BadName(text.to_owned())));
        }
    }

    #[test]
    fn a_quoted_word_ends_where_it_ends() {
        assert_eq!(quote(b"/a \"b\"\n#"), "\"/a\\x20\\x22b\\x22\\x0a\\x23\"");
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name: Vec<u8>) {
            prop_assert_eq!(unescape(&escape(&name)), Ok(name));
        }
    }
}
