//! The languages of the console: who gets which, and that each page is in one only.

use crate::site::{Answer, Site, form, send};
use app::Language;
use app::forms::LANGUAGE_COOKIE;
use reqwest::Method;

async fn page(site: &Site, headers: &[(&str, &str)], path: &str) -> Answer {
    let request = site.bare(Method::GET, path).header("accept", "text/html");
    send(
        headers
            .iter()
            .fold(request, |r, (name, value)| r.header(*name, *value)),
    )
    .await
}

/// That a page is in this language and has no sentence of another.
fn speaks(language: Language, path: &str, answer: &Answer) {
    let body = &answer.body;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    let lang = format!("lang=\"{}\"", language.code());
    assert!(body.contains(&lang), "{path}: {body}");
    let own = language.words();
    for other in Language::ALL.into_iter().filter(|other| *other != language) {
        for ((name, foreign), (_, text)) in other.words().all().into_iter().zip(own.all()) {
            // What is shorter may stand in an attribute.
            let telling = foreign.len() > 11 && foreign.contains(' ') && !foreign.contains('{');
            if telling && foreign != text {
                assert!(
                    !body.contains(foreign),
                    "{path} in {language:?} says {name}: {body}"
                );
            }
        }
    }
    // How long ago something was is said late, when the data have come.
    let foreign = match language {
        Language::English => [">vor ", "gerade eben"],
        Language::German => [" s ago", "just now"],
    };
    for words in foreign {
        assert!(
            !body.contains(words),
            "{path} in {language:?} says {words}: {body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pages_that_are_rendered_at_once_have_each_their_own_language() {
    let site = Site::start().await;
    let session = site.sign_in().await;
    site.machine("web-1").await;
    let cookie = |language: Language| format!("{session}; {LANGUAGE_COOKIE}={}", language.code());
    let ask = |language: Language, path: &'static str| {
        let (site, cookie) = (&site, cookie(language));
        async move { (language, path, page(site, &[("cookie", &cookie)], path).await) }
    };
    let paths = [
        "/",
        "/vms",
        "/vms/web-1",
        "/vms/new",
        "/jobs",
        "/settings",
        "/users",
    ];
    for _ in 0..10 {
        let asked = paths
            .iter()
            .flat_map(|path| Language::ALL.map(|language| ask(language, path)));
        for (language, path, answer) in futures::future::join_all(asked).await {
            speaks(language, path, &answer);
            let w = language.words();
            assert!(answer.body.contains(w.sign_out), "{path}: {answer:?}");
            if path == "/settings" {
                assert!(answer.body.contains(w.tokens_lead), "{answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_browser_is_asked_until_a_person_has_chosen() {
    let site = Site::start().await;
    let (english, german) = (Language::English.words(), Language::German.words());
    for (accepted, cookie, words) in [
        ("de-DE,de;q=0.9,en;q=0.8", "", german),
        ("fr,en;q=0.5", "", english),
        ("de", "offshoot_language=en", english),
        ("en", "offshoot_language=de", german),
        ("de", "offshoot_language=klingon", german),
    ] {
        let headers = [("accept-language", accepted), ("cookie", cookie)];
        let answer = page(&site, &headers, "/login?next=%2Fjobs").await;
        assert!(
            answer.body.contains(words.sign_in_hint),
            "{accepted}, {cookie}: {answer:?}"
        );
        assert_eq!(answer.header("vary"), "accept-language, cookie");
    }
    let welcome = page(&site, &[("accept-language", "de")], "/welcome/spent").await;
    assert!(
        welcome.body.contains("lang=\"de\"") && welcome.body.contains(german.welcome_lead),
        "{welcome:?}"
    );
}

#[tokio::test]
async fn a_language_is_chosen_without_scripts_and_by_nobody_yet() {
    let site = Site::start().await;
    let post = |path: &str, cookies: &str, fields: &[(&str, &str)]| {
        let request = site
            .bare(Method::POST, path)
            .header("accept", "text/html")
            .header("origin", site.url(""))
            .header("cookie", cookies);
        send(form(request, fields))
    };
    let fields = [("language", "de"), ("back", "/login?next=%2Fjobs")];
    let chosen = post("/do/language", "", &fields).await;
    assert_eq!(
        (chosen.status, chosen.header("location")),
        (303, "/login?next=%2Fjobs"),
        "{chosen:?}"
    );
    let cookie = chosen.header("set-cookie");
    assert!(
        cookie.starts_with("offshoot_language=de;") && cookie.contains("SameSite=Lax"),
        "{cookie}"
    );
    let none = post("/do/language", "", &[("language", "xx")]).await;
    assert_eq!((none.status, none.header("set-cookie")), (303, ""), "{none:?}");

    // What a form says is in the language of who sent it.
    let cookies = format!("{}; offshoot_language=de", site.sign_in().await);
    let fields = [("name", "by-form"), ("back", "/settings")];
    assert_eq!(post("/do/tokens/create", &cookies, &fields).await.status, 303);
    let settings = page(&site, &[("cookie", &cookies)], "/settings").await;
    speaks(Language::German, "/settings", &settings);
    let said = Language::German.words().flash_token;
    assert!(settings.body.contains(said), "{settings:?}");
    // What the server says of it stays as the API has it.
    assert_eq!(post("/do/tokens/create", &cookies, &fields).await.status, 303);
    let settings = page(&site, &[("cookie", &cookies)], "/settings").await;
    assert!(
        settings
            .body
            .to_lowercase()
            .contains("there is a token called by-form already"),
        "{settings:?}"
    );
}
