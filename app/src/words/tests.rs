use super::languages::COUNT;
use super::*;
use std::collections::BTreeSet;
use std::sync::Barrier;

/// What is called the same in every language. A word that was forgotten would stand here, too: so each is named.
const SAME: &[&str] = &[
    "jobs",
    "live_word",
    "live",
    "simulated",
    "user_name",
    "name",
    "filter",
    "firmware",
    "label",
    "snapshot",
    "snapshot_dots",
    "image",
    "snapshots",
    "job",
    "kind_snapshot",
    "log",
    "tokens",
    "version",
    "images",
    "image_format",
    "image_sha256",
    "export_format",
    "code",
    "audit",
    "oidc_subject",
    "labels",
    "nic_number",
    "hosts",
    "network_nics",
    "passphrase",
    "migration",
    "source_uri",
    "hostname",
    "percent_done",
];

#[test]
fn parts_stand_where_the_language_wants_them() {
    assert_eq!(put("{1} of {0}, {0}", &["a", "b"]), "b of a, a");
    assert_eq!(put("plain", &[]), "plain");
    assert_eq!(put("{7}!", &[]), "!");
}

/// The numbers in braces.
fn parts(text: &str) -> BTreeSet<usize> {
    let part = |rest: &str| rest.split('}').next().and_then(|n| n.parse().ok());
    text.split('{')
        .skip(1)
        .map(|rest| part(rest).unwrap_or_else(|| panic!("{text}: in braces is no number")))
        .collect()
}

#[test]
fn every_language_has_every_word_with_the_same_parts() {
    for language in Language::ALL {
        for ((name, english), (_, text)) in Language::English.words().all().iter().zip(language.words().all())
        {
            assert!(!text.trim().is_empty(), "{name} is empty in {language:?}");
            assert!(!text.contains('\n'), "{name} is more than a line in {language:?}");
            assert_eq!(parts(english), parts(text), "{name} in {language:?}");
            // Whether it goes on: what follows it was written for that.
            assert_eq!(
                english.ends_with('…'),
                text.ends_with('…'),
                "{name} in {language:?}"
            );
        }
    }
}

#[test]
fn what_is_the_same_in_german_is_meant_to_be() {
    let english = Language::English.words().all();
    let same: Vec<_> = english
        .iter()
        .zip(Language::German.words().all())
        .filter(|((_, english), (_, german))| *english == *german)
        .map(|((name, _), _)| *name)
        .collect();
    assert_eq!(same, SAME);
}

#[test]
fn a_file_has_a_line_for_each_word() {
    for language in Language::ALL {
        let (lines, words) = (language.lines(), language.words().all());
        assert_eq!(lines.split('\n').count(), COUNT);
        assert!(lines.split('\n').eq(words.iter().map(|(_, text)| *text)));
    }
    assert_eq!(Language::German.file(), "words-de.txt");
}

#[test]
fn a_person_chooses_or_else_the_browser_does() {
    use Language::{English, German};
    for (cookie, accepted, language) in [
        (None, None, English),
        (None, Some("de-AT,de;q=0.9,en;q=0.8"), German),
        (None, Some("en;q=0.8, DE;q=0.9"), German),
        (None, Some("fr-FR, en;q=0.5, de;q=0.3"), English),
        (None, Some("fr, de;q=0.1"), German),
        (None, Some("de;q=0, *"), English),
        (None, Some("den, ;;q=, ,"), English),
        (Some("en"), Some("de"), English),
        (Some("de"), Some("en"), German),
        (Some("xx"), Some("de"), German),
    ] {
        assert_eq!(
            Language::of(cookie, accepted),
            language,
            "{cookie:?}, {accepted:?}"
        );
    }
}

#[test]
fn each_thread_speaks_its_own_language_and_none_is_left_behind() {
    let (english, german) = (Language::English.words(), Language::German.words());
    let meet = Barrier::new(2);
    let say = |language| {
        speaking(language, || {
            meet.wait();
            let said = w().overview;
            meet.wait();
            (said, w().overview)
        })
    };
    let (one, other) = std::thread::scope(|s| {
        let one = s.spawn(|| say(Language::German));
        let other = s.spawn(|| say(Language::English));
        (one.join().unwrap(), other.join().unwrap())
    });
    assert_eq!(one, (german.overview, german.overview));
    assert_eq!(other, (english.overview, english.overview));
    speaking(Language::German, || assert_eq!(w().overview, german.overview));
    assert_eq!(w().overview, english.overview);
}
