//! The live feed: nothing is lost between rendering and listening, over a lost link, or over a restart.

use crate::site::{Site, name, send};
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use shared::feed::Place;
use std::time::{Duration, Instant};

/// An event as a browser sees it.
#[derive(Debug)]
pub struct Event {
    pub id: Place,
    pub name: String,
    pub data: Value,
}

/// A browser's EventSource.
pub struct Source {
    bytes: futures::stream::BoxStream<'static, reqwest::Result<axum::body::Bytes>>,
    buffer: String,
}

impl Source {
    /// Somebody's, from now on.
    pub async fn by(site: &Site, token: &str) -> Self {
        let request = site.bare(Method::GET, "/api/v1/events").bearer_auth(token);
        Self {
            bytes: request.send().await.unwrap().bytes_stream().boxed(),
            buffer: String::new(),
        }
    }

    pub async fn open(site: &Site, query: &str, last: Option<&str>) -> Self {
        let mut request = site.request(Method::GET, &format!("/api/v1/events{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            bytes: response.bytes_stream().boxed(),
            buffer: String::new(),
        }
    }

    /// The next event; none at the end of the stream.
    pub async fn any(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let text: String = self.buffer.drain(..end + 2).collect();
                let field = |name: &str| {
                    let line = text.lines().find_map(|l| l.strip_prefix(name));
                    line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
                };
                return Some(Event {
                    id: field("id: ").parse().unwrap(),
                    name: field("event: "),
                    data: serde_json::from_str(&field("data: ")).unwrap(),
                });
            }
            let more = tokio::time::timeout(Duration::from_secs(20), self.bytes.next());
            let bytes = more.await.expect("the feed says something in time")?.ok()?;
            self.buffer.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// The next event that tells something.
    pub async fn next(&mut self) -> Event {
        loop {
            let event = self.any().await.expect("the feed goes on");
            if event.name != "alive" {
                return event;
            }
        }
    }
}

/// Makes a token called so: the simplest change there is.
async fn make(site: &Site, name: &str) -> String {
    let new = site.post("/api/v1/tokens", json!({ "name": name })).await;
    assert_eq!(new.status, 201, "{new:?}");
    new.json()["token"]["id"].as_str().unwrap().to_owned()
}

/// The next event about the token called so; uses of tokens are changes too.
async fn about(source: &mut Source, name: &str) -> Event {
    loop {
        let event = source.next().await;
        if event.data["name"] == name {
            return event;
        }
    }
}

#[tokio::test]
async fn a_page_misses_nothing_between_rendering_and_listening() {
    let site = Site::start().await;
    let rendered = site.running.server.feed.place();
    make(&site, "between").await;
    let mut source = Source::open(&site, &format!("?after={rendered}"), None).await;
    let event = about(&mut source, "between").await;
    assert_eq!((event.name.as_str(), event.id.epoch), ("token", rendered.epoch));
    make(&site, "later").await;
    let later = about(&mut source, "later").await;
    assert!(later.id.generation > event.id.generation);
}

#[tokio::test]
async fn without_a_place_it_begins_now_and_says_where() {
    let site = Site::start().await;
    make(&site, "before").await;
    let mut source = Source::open(&site, "", None).await;
    let first = source.any().await.unwrap();
    assert_eq!(first.name, "alive");
    assert!(first.id.generation > 0);
    make(&site, "after").await;
    assert_eq!(source.next().await.data["name"], "after");
}

#[tokio::test]
async fn a_lost_link_goes_on_where_it_was() {
    let site = Site::start().await;
    let start = site.running.server.feed.place();
    let mut source = Source::open(&site, &format!("?after={start}"), None).await;
    let id = make(&site, "one").await;
    let one = about(&mut source, "one").await;
    drop(source);
    make(&site, "two").await;
    assert_eq!(
        send(site.request(Method::DELETE, &format!("/api/v1/tokens/{id}")))
            .await
            .status,
        200
    );
    // The browser sends what it saw last, and the page's old address.
    let mut source = Source::open(&site, &format!("?after={start}"), Some(&one.id.to_string())).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let event = source.next().await;
        assert!(event.id.generation > one.id.generation, "{event:?}");
        if event.data["name"] == "two" || event.data["id"] == *id {
            seen.push(event.data);
        }
    }
    assert_eq!(seen[0]["name"], "two");
    assert_eq!((&seen[1]["deleted"], &seen[1]["id"]), (&json!(true), &json!(id)));
}

#[tokio::test]
async fn a_restart_keeps_the_epoch_and_loses_nothing() {
    let site = Site::start().await;
    let mut source = Source::open(&site, "", None).await;
    let last = source.any().await.unwrap().id;
    make(&site, "while-listening").await;
    let seen = about(&mut source, "while-listening").await.id;
    make(&site, "unseen").await;
    // A graceful stop ends the feed.
    let ended = async { while source.any().await.is_some() {} };
    let (site, ()) = tokio::join!(site.restart(), ended);
    let mut source = Source::open(&site, "", Some(&seen.to_string())).await;
    let event = about(&mut source, "unseen").await;
    assert_eq!(event.id.epoch, last.epoch);
}

#[tokio::test]
async fn an_unknown_place_is_answered_by_reset() {
    let site = Site::start().await;
    make(&site, "a").await;
    let here = site.running.server.feed.place();
    let other = Place {
        epoch: here.epoch ^ 1,
        ..here
    };
    let ahead = Place {
        generation: here.generation + 1000,
        ..here
    };
    for last in [other.to_string(), ahead.to_string(), "nonsense".to_owned()] {
        let mut source = Source::open(&site, "", Some(&last)).await;
        let event = source.any().await.unwrap();
        assert_eq!(
            (event.name.as_str(), event.id.epoch),
            ("reset", here.epoch),
            "{last}"
        );
        make(&site, &format!("b{}", last.len())).await;
        about(&mut source, &format!("b{}", last.len())).await;
    }
    assert_eq!(site.get("/api/v1/events?after=nonsense").await.field(), "after");
}

#[tokio::test]
async fn too_many_missed_changes_are_answered_by_reset() {
    let site = Site::start().await;
    let start = site.running.server.feed.place();
    site.running
        .server
        .world()
        .db
        .write(|tx| {
            Box::pin(async move {
                for n in 0..1100 {
                    tx.changed(shared::feed::Noun::Token, n, true);
                }
                Ok(())
            })
        })
        .await
        .unwrap();
    let mut source = Source::open(&site, &format!("?after={start}"), None).await;
    assert_eq!(source.any().await.unwrap().name, "reset");
}

#[tokio::test]
async fn a_listener_that_is_slow_loses_nothing() {
    let site = Site::start().await;
    let server = &site.running.server;
    let caller = server.access.by_token(&site.token).await.unwrap().unwrap();
    let mut slow = std::pin::pin!(server.feed.listen(caller, None));
    // More than wait for a listener: it has to read the rest from the database.
    for n in 0..400 {
        let change = server.world().db.write(move |tx| {
            Box::pin(async move {
                tx.changed(shared::feed::Noun::Image, n, true);
                Ok(())
            })
        });
        change.await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 400 {
        let bytes = slow.next().await.unwrap().unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        for data in text.lines().filter_map(|l| l.strip_prefix("data: ")) {
            let data: Value = serde_json::from_str(data).unwrap();
            if data["deleted"] == true {
                seen.push(data["id"].as_str().unwrap().to_owned());
            }
        }
    }
    assert_eq!(seen, (0..400).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn it_says_that_it_lives() {
    let site = Site::start().await;
    let mut source = Source::open(&site, "", None).await;
    assert_eq!(source.any().await.unwrap().name, "alive");
    let began = Instant::now();
    loop {
        let event = source.any().await.unwrap();
        if event.name == "alive" {
            break;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn it_ends_for_whom_is_signed_out() {
    let site = Site::start().await;
    let session = site.sign_in().await;
    let response = site
        .bare(Method::GET, "/api/v1/events")
        .header("cookie", &session)
        .send()
        .await
        .unwrap();
    let mut source = Source {
        bytes: response.bytes_stream().boxed(),
        buffer: String::new(),
    };
    source.any().await.unwrap();
    let out = site
        .bare(Method::POST, "/logout")
        .header("origin", site.url(""))
        .header("cookie", &session);
    send(out).await;
    while source.any().await.is_some() {}
}

#[tokio::test]
async fn another_persons_tokens_are_not_told() {
    let site = Site::start().await;
    let access = &site.running.server.access;
    access.add_user(name("eve"), None, None).await.unwrap();
    let eve = access
        .token_for(&name("eve"), name("eve-token"))
        .await
        .unwrap()
        .secret;
    let response = site
        .bare(Method::GET, "/api/v1/events")
        .bearer_auth(&eve)
        .send()
        .await
        .unwrap();
    let mut source = Source {
        bytes: response.bytes_stream().boxed(),
        buffer: String::new(),
    };
    source.any().await.unwrap();
    let id = make(&site, "secret-plan").await;
    send(site.request(Method::DELETE, &format!("/api/v1/tokens/{id}"))).await;
    let own = site
        .bare(Method::POST, "/api/v1/tokens")
        .bearer_auth(&eve)
        .json(&json!({"name": "own"}));
    assert_eq!(send(own).await.status, 201);
    loop {
        let event = source.next().await;
        assert!(
            event.data["name"] != "secret-plan" && event.data["id"] != *id,
            "{event:?}"
        );
        if event.data["name"] == "own" {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_listeners_hear_each_change_once_and_in_order() {
    let site = Site::start().await;
    let mut listeners = Vec::new();
    for _ in 0..200 {
        let mut source = Source::open(&site, "", None).await;
        source.any().await.unwrap();
        listeners.push(tokio::spawn(async move {
            let mut last = 0;
            let mut heard = Vec::new();
            while heard.len() < 20 {
                let event = source.next().await;
                assert!(event.id.generation > last, "{event:?}");
                last = event.id.generation;
                if event.data["name"].as_str().is_some_and(|n| n.starts_with("n-")) {
                    heard.push(event.data["name"].as_str().unwrap().to_owned());
                }
            }
            heard
        }));
    }
    for n in 0..20 {
        make(&site, &format!("n-{n}")).await;
    }
    let expected: Vec<_> = (0..20).map(|n| format!("n-{n}")).collect();
    for listener in listeners {
        assert_eq!(listener.await.unwrap(), expected);
    }
}
