//! Settings: who one is, one's password, one's tokens, the colours, the language.

use crate::components::button::{self, copy};
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::language;
use crate::components::load::{Bodies, all, body, load};
use crate::components::time::ago;
use crate::env::{Env, Theme, flash};
use crate::feed::on_change;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::access::{Me, Role, Session, Token};
use shared::api::{
    Call, GetMe, GetSummary, ListQuery, ListRoles, ListSessions, ListTokens, RawCall, RolePage, SessionPage,
    Summary, TokenPage,
};
use shared::feed::Noun;
use shared::{Status, Timestamp};

/// Where the forms of this page come back to.
const HERE: &str = "/settings";

#[derive(Clone, Debug, PartialEq)]
struct Data {
    me: Me,
    tokens: Vec<Token>,
    sessions: Vec<Session>,
    roles: Vec<Role>,
    summary: Summary,
}

pub fn page() -> AnyView {
    let looks = RwSignal::new(0_u32);
    on_change(move |change| {
        if matches!(change.noun(), Noun::Token | Noun::User | Noun::Role) {
            looks.update(|n| *n += 1);
        }
    });
    // A form of this page changes what the page shows, also where there is no feed.
    let flash = flash();
    Effect::new(move |_| {
        let mine = flash.with(|f| f.as_ref().is_some_and(|f| f.error.is_none()));
        if mine {
            looks.update(|n| *n += 1);
        }
    });
    view! {
        <Title text=w().settings/>
        {bar(Vec::new(), w().settings.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{w().settings}</h1>
        </div>
        {load(move || looks.get().to_string(), |_| all(calls()), read, |old, new| *old = new, shown)}
    }
    .into_any()
}

fn calls() -> [RawCall; 5] {
    let query = ListQuery::default();
    [
        GetMe {}.raw(),
        ListTokens { query: query.clone() }.raw(),
        ListSessions { user: None }.raw(),
        ListRoles { query }.raw(),
        GetSummary {}.raw(),
    ]
}

fn read(bodies: &Bodies) -> Result<Data, Status> {
    Ok(Data {
        me: body(bodies, 0)?,
        tokens: body::<TokenPage>(bodies, 1)?.tokens,
        sessions: body::<SessionPage>(bodies, 2)?.sessions,
        roles: body::<RolePage>(bodies, 3)?.roles,
        summary: body(bodies, 4)?,
    })
}

fn shown(data: RwSignal<Data>) -> AnyView {
    let tokens = Memo::new(move |_| data.with(|d| d.tokens.clone()));
    let sessions = Memo::new(move |_| data.with(|d| d.sessions.clone()));
    view! {
        <div class="cols">
            <div class="stack">
                <section class="panel" aria-labelledby="tokens-title">
                    <header>
                        <h2 id="tokens-title">{w().tokens}</h2>
                    </header>
                    <div class="in">
                        <p class="soft">{w().tokens_lead}</p>
                        {secret("/do/tokens/create", w().secret_once)}
                        {new_token(&data.with_untracked(|d| d.roles.clone()))}
                    </div>
                    {move || tokens.with(|t| list(t))}
                </section>
                <section class="panel" aria-labelledby="sessions-title">
                    <header>
                        <h2 id="sessions-title">{w().sessions}</h2>
                    </header>
                    <div class="in">
                        <p class="soft">{w().sessions_lead}</p>
                    </div>
                    {move || sessions.with(|s| super::people::sessions(s, "/do/sessions", HERE))}
                </section>
            </div>
            <div class="stack">
                <section class="panel" aria-labelledby="theme-title">
                    <header>
                        <h2 id="theme-title">{w().theme}</h2>
                    </header>
                    <div class="in">{theme()}</div>
                </section>
                <section class="panel" aria-labelledby="language-title">
                    <header>
                        <h2 id="language-title">{w().language}</h2>
                    </header>
                    <div class="in">{language::choice(HERE.to_owned())}</div>
                </section>
                <section class="panel" aria-labelledby="me-title">
                    <header>
                        <h2 id="me-title">{w().account}</h2>
                    </header>
                    <div class="in">
                        {move || data.with(|d| account(&d.me))}
                        {secret("/do/me/twoFactor/confirm", w().codes_once)}
                        {move || data.with(|d| super::people::two_factor::panel(d.me.user.two_factor))}
                        {password(data.with_untracked(|d| d.me.user.has_password))}
                    </div>
                </section>
                {move || data.with(|d| about(&d.summary))}
            </div>
        </div>
    }
    .into_any()
}

/// The secret that a form has just made: this once.
fn secret(action: &'static str, said: &'static str) -> AnyView {
    let flash = flash();
    (move || {
        let secret = flash.with(|f| f.as_ref().filter(|f| f.action == action)?.secret.clone())?;
        Some(view! {
            <div class="alert good" role="status">
                <p>
                    <b>{said}</b>
                </p>
                <div class="secret">
                    <code>{secret.clone()}</code>
                    {copy(secret, w().copy)}
                </div>
            </div>
        })
    })
    .into_any()
}

fn new_token(roles: &[Role]) -> AnyView {
    let action = "/do/tokens/create";
    let fields = Fields::of(action);
    let name = fields.line(Line {
        name: "name",
        label: w().token_name,
        hint: w().token_name_hint.to_owned(),
        required: true,
        is_name: true,
        ..Line::default()
    });
    let all = roles.iter().map(|r| (r.name.to_string(), r.name.to_string()));
    let whole = (String::new(), w().role_whole.to_owned());
    let options = std::iter::once(whole).chain(all).collect();
    let role = fields.choice("role", w().role, w().role_of_token_hint.to_owned(), options, "");
    let end = fields.line(Line {
        name: "expireTime",
        label: w().token_end,
        hint: w().token_end_hint.to_owned(),
        kind: "date",
        ..Line::default()
    });
    view! {
        <form method="post" action=action class="inline">
            {fields.error(HERE)}
            {name}
            {role}
            {end}
            <button class="go">{w().make_token}</button>
        </form>
    }
    .into_any()
}

fn list(tokens: &[Token]) -> AnyView {
    let rows: Vec<_> = tokens
        .iter()
        .map(|token| {
            let used = match token.last_used_time {
                // It is kept to the minute: one that is new would seem to have been used before.
                Some(t) => view! { {w().last_used} " " {ago(t.max(token.create_time))} }.into_any(),
                None => w().never_used.into_any(),
            };
            let role = token
                .role
                .as_ref()
                .map(|r| view! { " " <span class="tag">{r.to_string()}</span> });
            let end = token.expire_time.map(|t| {
                let over = t <= crate::env::clock().now.get_untracked();
                let word = if over { w().expired } else { w().expires };
                view! { " · " {word} " " <time datetime=t.to_string()>{day(t)}</time> }
            });
            let revoke = button::Button {
                to: format!("/do/tokens/{}/revoke", token.id),
                label: w().revoke,
                class: "danger quiet",
                back: HERE.to_owned(),
                of: token.name.to_string(),
                ..Default::default()
            };
            view! {
                <li>
                    <span class="what">
                        <b>{token.name.to_string()}</b>
                        {role}
                        <span class="sub">{w().made_at} " " {ago(token.create_time)} " · " {used} {end}</span>
                    </span>
                    {button::post(revoke, &Ok(()))}
                </li>
            }
        })
        .collect();
    if rows.is_empty() {
        return view! { <p class="none">{w().no_tokens}</p> }.into_any();
    }
    view! { <ul class="short">{rows}</ul> }.into_any()
}

fn theme() -> AnyView {
    let now = Env::of_page().theme;
    let one = |theme: Theme, label: &'static str| {
        view! {
            <button name="theme" value=theme.word() data-theme-choice=theme.word()>
                {label}
            </button>
        }
    };
    view! {
        <form method="post" action="/do/theme" class="choices" data-was=now.word()>
            <input type="hidden" name="back" value=HERE/>
            {one(Theme::System, w().theme_system)}
            {one(Theme::Light, w().theme_light)}
            {one(Theme::Dark, w().theme_dark)}
        </form>
    }
    .into_any()
}

fn account(me: &Me) -> AnyView {
    view! {
        <dl class="facts">
            <dt>{w().user_name}</dt>
            <dd>{me.user.name.to_string()}</dd>
            <dt>{w().added}</dt>
            <dd>{ago(me.user.create_time)}</dd>
        </dl>
        {(!me.user.has_password).then(|| view! { <div class="note">{w().no_password}</div> })}
    }
    .into_any()
}

fn password(has: bool) -> AnyView {
    let action = "/do/me/password";
    let fields = Fields::of(action);
    let line = |name, label, hint: &str| {
        fields.line(Line {
            name,
            label,
            kind: "password",
            hint: hint.to_owned(),
            required: true,
            autocomplete: "new-password",
            ..Line::default()
        })
    };
    let label = if has {
        w().change_password
    } else {
        w().set_password
    };
    view! {
        <form method="post" action=action class="stack">
            {fields.error(HERE)}
            {line("password", w().new_password, w().password_hint)}
            {line("again", w().password_again, "")}
            <button>{label}</button>
        </form>
    }
    .into_any()
}

fn about(summary: &Summary) -> AnyView {
    let real = if summary.simulated { w().simulated_why } else { "" };
    view! {
        <p class="faint">{put(w().version, &[&summary.version])} " " {real}</p>
    }
    .into_any()
}

/// A day, in UTC.
fn day(time: Timestamp) -> String {
    time.to_string().chars().take(10).collect()
}
