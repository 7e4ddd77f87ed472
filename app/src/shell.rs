//! The document around the console.

use crate::app::App;
use crate::env::{Env, Theme};
use crate::forms::Flash;
use crate::words::Language;
use leptos::nonce::use_nonce;
use leptos::prelude::*;
use leptos_meta::MetaTags;
use serde::Deserialize;
use shared::Timestamp;
use shared::access::rights::Rights;
use std::sync::Arc;

/// Where the browser's files are, as `site/manifest.json` has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Assets {
    /// The folder below `/pkg/`, named by a hash of what is in it.
    pub version: String,
}

/// What the server knows of a page before it renders.
#[derive(Clone, Debug)]
pub struct ShellOptions {
    /// The files that the page loads.
    pub assets: Assets,
    /// Where in the feed the page stands: read it before the page's data are. Empty for a page without a feed.
    pub feed_place: String,
    /// The server's time.
    pub now: Timestamp,
    /// From the cookie [`crate::forms::THEME_COOKIE`].
    pub theme: Theme,
    /// That of the person; see [`Language::of`].
    pub language: Language,
    /// How the form went that the session posted just before; taken once.
    pub flash: Option<Flash>,
    /// What the button says that leads to the OpenID Connect provider, or nothing for its own words; none without a provider.
    pub oidc: Option<String>,
    /// What the person may do.
    pub rights: Arc<Rights>,
}

const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 20 20' fill='none' \
    stroke='%230b9b6b' stroke-width='1.9' stroke-linecap='round' stroke-linejoin='round'%3E%3Cpath d='M10 18V8M10 12C10 8 \
    6.5 6.5 3 6.5 3 10 6 12 10 12Z M10 9c0-4 3-6 7-6 0 4-3 6-7 6Z'/%3E%3C/svg%3E";

/// A part of the WASM that cannot be loaded, because the server has another version by now, ends the page: it is loaded
/// again, but not without end, and not while the person leaves it anyway.
const RELOAD: &str = "let left;addEventListener(\"beforeunload\",()=>left=1);for(const on of [\"error\",\"unhandledrejection\"])addEventListener(on,e=>{\
    const s=sessionStorage;if(!left&&(e.error??e.reason) instanceof WebAssembly.RuntimeError&&\
    !(Date.now()-s.reloaded<1e4)){s.reloaded=Date.now();location.reload()}});";

/// The whole document.
///
/// The page needs `script-src 'nonce-…' 'strict-dynamic' 'wasm-unsafe-eval'`, `style-src 'self'` and
/// `img-src 'self' data:`; it has no inline styles.
pub fn shell(options: ShellOptions) -> impl IntoView {
    let ShellOptions {
        assets,
        feed_place,
        now,
        theme,
        language,
        flash,
        oidc,
        rights,
    } = options;
    let pkg = |file: &str| format!("/pkg/{}/{file}", assets.version);
    let (js, split, wasm, css, words) = (
        pkg("app.js"),
        pkg("__wasm_split.js"),
        pkg("app_bg.wasm"),
        pkg("app.css"),
        pkg(&language.file()),
    );
    // What comes alive says what the server has said: so the words are there first.
    let script = format!(
        "{RELOAD}import init,{{hydrate}} from \"{js}\";\
         Promise.all([fetch(\"{words}\").then(a=>a.text()),init({{module_or_path:\"{wasm}\"}})]).then(([words])=>hydrate(words));"
    );
    // A flash is strings and numbers: it always serialises.
    let said = flash.as_ref().and_then(|f| serde_json::to_string(f).ok());
    // Whoever is nobody yet may do nothing.
    let may = (*rights != Rights::default()).then(|| serde_json::to_string(&*rights).ok());
    provide_context(assets.clone());
    provide_context(language);
    provide_context(Env {
        now,
        feed_place: feed_place.clone(),
        theme,
        language,
        flash,
        oidc: oidc.clone(),
        rights,
    });
    view! {
        <!DOCTYPE html>
        <html
            lang=language.code()
            data-theme=theme.word()
            data-now=now.to_string()
            data-feed=feed_place
            data-flash=said
            data-rights=may.flatten()
            data-oidc=oidc
        >
            <head>
                <meta charset="utf-8"/>
                <meta name="viewport" content="width=device-width, initial-scale=1"/>
                <meta name="color-scheme" content="light dark"/>
                <link rel="icon" href=ICON/>
                <link rel="stylesheet" href=css/>
                <link rel="modulepreload" href=js nonce=use_nonce()/>
                <link rel="modulepreload" href=split nonce=use_nonce()/>
                <link rel="preload" href=wasm r#as="fetch" r#type="application/wasm" crossorigin=""/>
                <link rel="preload" href=words r#as="fetch" crossorigin=""/>
                <script type="module" nonce=use_nonce() inner_html=script></script>
                <MetaTags/>
            </head>
            <body>
                <App/>
            </body>
        </html>
    }
}
