//! How the browser brings the server's page to life: piece by piece, with its turn for the browser in between. What is
//! called for the first time is compiled then, so all of a page at once would keep a person on a slow machine waiting
//! for a third of a second.

#[cfg(feature = "hydrate")]
pub use browser::{alive, hydrates, piece, start, when};

/// A part of a page that is hydrated by itself.
#[cfg(not(feature = "hydrate"))]
pub fn piece(view: impl FnOnce() -> leptos::prelude::AnyView + Send + 'static) -> leptos::prelude::AnyView {
    view()
}

#[cfg(feature = "hydrate")]
mod browser {
    use crate::live::browser;
    use futures_util::FutureExt;
    use leptos::attr::any_attribute::AnyAttribute;
    use leptos::prelude::*;
    use leptos::reactive::computed::ScopedFuture;
    use leptos::tachys::hydration::Cursor;
    use leptos::tachys::no_attrs;
    use leptos::tachys::view::any_view::AnyViewState;
    use leptos::tachys::view::{Position, PositionState};
    use std::cell::Cell;
    use std::future::{Future, poll_fn};
    use std::pin::Pin;
    use std::task::Poll;

    /// How long hydration goes on before the browser has its turn, in milliseconds.
    const SLICE: f64 = 10.0;

    thread_local! {
        /// When the browser has had its turn, in milliseconds.
        static SINCE: Cell<f64> = const { Cell::new(0.0) };
        static ALIVE: ArcRwSignal<bool> = ArcRwSignal::new(false);
    }

    /// Brings the page to life.
    pub fn start<V: IntoView + 'static>(app: fn() -> V) {
        // A link that is clicked meanwhile is the browser's to follow: the router would have another page come alive on
        // what the server has drawn of this one.
        browser::on_document("click", |e| {
            if hydrates() {
                e.stop_propagation();
            }
        });
        wasm_bindgen_futures::spawn_local(async move {
            breathe().await;
            leptos::mount::hydrate_from_async(browser::body(), app)
                .await
                .forget();
            ALIVE.with(|alive| alive.set(true));
        });
    }

    /// Whether all of the page is hydrated. Before, nothing that is shown may change: what comes alive must find what the
    /// server has drawn.
    pub fn alive() -> bool {
        ALIVE.with(Get::get)
    }

    /// Whether it is not.
    pub fn hydrates() -> bool {
        !ALIVE.with(GetUntracked::get_untracked)
    }

    /// Gives the browser its turn when it is due: it paints, and does what the person asked for.
    async fn breathe() {
        if js_sys::Date::now() - SINCE.get() < SLICE {
            return;
        }
        let mut asked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            let waker = cx.waker().clone();
            browser::next(move || waker.wake());
            Poll::Pending
        })
        .await;
        SINCE.set(js_sys::Date::now());
    }

    /// A part of a page that is hydrated by itself.
    pub fn piece(view: impl FnOnce() -> AnyView + Send + 'static) -> AnyView {
        if !hydrates() {
            return view();
        }
        later(async { view() })
    }

    /// What it reads is not what the page around it depends on: that would be made anew whenever the data are.
    fn later(view: impl Future<Output = AnyView> + Send + 'static) -> AnyView {
        let view = ScopedFuture::new_untracked(view);
        Later(Box::pin(async {
            breathe().await;
            view.await
        }))
        .into_any()
    }

    /// What is hydrated when its data are there; later in the page's life there is `Suspend` for that.
    pub fn when(view: impl Future<Output = AnyView> + Send + 'static) -> AnyView {
        later(view)
    }

    struct Later(Pin<Box<dyn Future<Output = AnyView> + Send>>);

    impl Later {
        /// Without a turn for the browser, for what cannot wait.
        fn now(self) -> AnyView {
            SINCE.set(js_sys::Date::now());
            self.0.now_or_never().into_any()
        }
    }

    no_attrs!(Later);

    impl Render for Later {
        type State = AnyViewState;

        fn build(self) -> Self::State {
            self.now().build()
        }

        fn rebuild(self, state: &mut Self::State) {
            self.now().rebuild(state);
        }
    }

    impl RenderHtml for Later {
        type AsyncOutput = AnyView;
        type Owned = Self;

        const MIN_LENGTH: usize = 0;

        fn dry_resolve(&mut self) {}

        fn resolve(self) -> impl Future<Output = AnyView> + Send {
            self.0
        }

        fn to_html_with_buf(
            self,
            buf: &mut String,
            position: &mut Position,
            escape: bool,
            mark_branches: bool,
            extra_attrs: Vec<AnyAttribute>,
        ) {
            self.now()
                .to_html_with_buf(buf, position, escape, mark_branches, extra_attrs);
        }

        fn hydrate<const FROM_SERVER: bool>(self, cursor: &Cursor, position: &PositionState) -> Self::State {
            self.now().hydrate::<FROM_SERVER>(cursor, position)
        }

        async fn hydrate_async(self, cursor: &Cursor, position: &PositionState) -> Self::State {
            self.0.await.hydrate_async(cursor, position).await
        }

        fn into_owned(self) -> Self {
            self
        }
    }
}
