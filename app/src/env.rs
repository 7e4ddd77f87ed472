//! What a page knows of the moment and the person it is rendered for. The server puts it on `<html>`, where the
//! browser reads the very same: so both render the same page.

use crate::forms::Flash;
use crate::words::{Language, put, w};
use leptos::prelude::*;
use shared::access::rights::Rights;
use shared::access::{FORKING, Privilege};
use shared::can::Verdict;
use shared::{Code, Status, Timestamp, VmId};
use std::sync::Arc;

/// Sets the HTTP status of the page; provided by the server.
#[derive(Clone)]
pub struct SetStatus(pub Arc<dyn Fn(u16) + Send + Sync>);

/// Which colours a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// As the system has it.
    System,
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

impl Theme {
    /// As it stands in the cookie and on `<html>`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

impl std::str::FromStr for Theme {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        [Self::System, Self::Light, Self::Dark]
            .into_iter()
            .find(|t| t.word() == s)
            .ok_or("it is none of system, light, dark")
    }
}

/// The moment and the person of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Env {
    /// The server's time when it rendered.
    pub now: Timestamp,
    /// Where in the feed the page stands.
    pub feed_place: String,
    /// The person's colours.
    pub theme: Theme,
    /// The person's language.
    pub language: Language,
    /// How the form went that was posted just before.
    pub flash: Option<Flash>,
    /// What the button says that leads to the OpenID Connect provider, or nothing for its own words; none without a provider.
    pub oidc: Option<String>,
    /// What the person may do.
    pub rights: Arc<Rights>,
}

/// What the person may do, for the whole page.
#[derive(Clone)]
pub(crate) struct May(pub Arc<Rights>);

/// Whether the person may do this: on a machine, or on everything. The server asks the same.
pub(crate) fn may(privilege: Privilege, vm: Option<VmId>) -> Verdict {
    has(privilege, rights().has(privilege, vm))
}

/// Whether the person may do this on anything at all.
pub(crate) fn may_somewhere(privilege: Privilege) -> Verdict {
    has(privilege, rights().somewhere(privilege))
}

/// Whether the person may fork.
pub(crate) fn may_fork() -> Verdict {
    FORKING.iter().try_for_each(|p| may(*p, None))
}

fn rights() -> Arc<Rights> {
    use_context::<May>().map_or_else(|| Env::of_page().rights, |may| may.0)
}

fn has(privilege: Privilege, has: bool) -> Verdict {
    if has {
        return Ok(());
    }
    Err(Status::new(
        Code::PermissionDenied,
        put(w().lacks, &[privilege.word()]),
    ))
}

/// Time as a page sees it.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    /// The server's time now, to the second.
    pub now: RwSignal<Timestamp>,
    /// Minutes east of UTC in which the person lives; UTC until the browser has said.
    pub zone: RwSignal<i32>,
}

/// The answers to forms.
#[derive(Clone, Copy)]
pub(crate) struct Flashes(pub RwSignal<Option<Flash>>);

impl Env {
    /// Of this page.
    pub(crate) fn of_page() -> Self {
        use_context::<Self>().unwrap_or_else(Self::read)
    }

    #[cfg(feature = "hydrate")]
    fn read() -> Self {
        let root = crate::live::browser::root();
        let get = |name: &str| root.get_attribute(name).unwrap_or_default();
        Self {
            now: get("data-now").parse().unwrap_or_default(),
            feed_place: get("data-feed"),
            theme: get("data-theme").parse().unwrap_or(Theme::System),
            language: get("lang").parse().unwrap_or(Language::English),
            flash: serde_json::from_str(&get("data-flash")).ok(),
            oidc: root.get_attribute("data-oidc"),
            rights: Arc::new(serde_json::from_str(&get("data-rights")).unwrap_or_default()),
        }
    }

    #[cfg(not(feature = "hydrate"))]
    fn read() -> Self {
        Self {
            now: Timestamp::default(),
            feed_place: String::new(),
            theme: Theme::System,
            language: Language::English,
            flash: None,
            oidc: None,
            rights: Arc::default(),
        }
    }
}

pub(crate) fn clock() -> Clock {
    use_context().unwrap_or_else(|| Clock {
        now: RwSignal::new(Timestamp::default()),
        zone: RwSignal::new(0),
    })
}

pub(crate) fn flash() -> RwSignal<Option<Flash>> {
    use_context::<Flashes>().map_or_else(|| RwSignal::new(None), |f| f.0)
}
