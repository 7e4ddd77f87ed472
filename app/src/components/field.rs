//! The fields of forms. What was typed is kept when a form comes back with an error, and the field at fault says so.

use super::{button, error};
use crate::env::flash;
use leptos::prelude::*;
use shared::can::Verdict;

/// A form by its action.
#[derive(Clone)]
pub struct Fields {
    action: String,
}

/// What a field of one line is like.
#[derive(Clone, Default)]
pub struct Line {
    pub name: &'static str,
    pub label: &'static str,
    pub hint: String,
    pub value: String,
    pub placeholder: String,
    /// `number`, `password`; `text` if empty.
    pub kind: &'static str,
    pub min: Option<u32>,
    pub max: Option<u32>,
    pub required: bool,
    pub autocomplete: &'static str,
    /// Whether it is a name in the sense of the API.
    pub is_name: bool,
}

/// What a name looks like, as an input's `pattern`.
const NAME: &str = "[a-z]([a-z0-9\\-]{0,61}[a-z0-9])?";

impl Fields {
    pub fn of(action: &str) -> Self {
        Self {
            action: action.to_owned(),
        }
    }

    /// What stood in a field when the form went wrong.
    pub fn typed(&self, name: &str) -> Option<String> {
        flash().with_untracked(|flash| {
            let flash = flash.as_ref().filter(|f| f.action == self.action)?;
            let (_, value) = flash.fields.iter().find(|(n, _)| n == name)?;
            Some(value.clone())
        })
    }

    /// Whether a box is ticked: as it was when the form went wrong, else `default`.
    pub fn ticked(&self, name: &str, default: bool) -> bool {
        let wrong = flash().with_untracked(|f| {
            f.as_ref()
                .is_some_and(|f| f.action == self.action && f.error.is_some())
        });
        if wrong {
            self.typed(name).is_some()
        } else {
            default
        }
    }

    /// Whether the box of a value is ticked, among several of one name: as it was when the form went wrong, else `default`.
    pub fn ticked_of(&self, name: &str, value: &str, default: bool) -> bool {
        flash().with_untracked(|flash| {
            let wrong = |f: &&crate::forms::Flash| f.action == self.action && f.error.is_some();
            let flash = flash.as_ref().filter(wrong);
            flash.map_or(default, |f| f.fields.iter().any(|(n, v)| n == name && v == value))
        })
    }

    /// What is wrong with a field.
    fn wrong(&self, name: &'static str) -> impl Fn() -> Option<String> + Clone + Send + Sync + 'static {
        let (action, flash) = (self.action.clone(), flash());
        move || {
            flash.with(|flash| {
                let error = flash.as_ref().filter(|f| f.action == action)?.error.as_ref()?;
                (error.field() == Some(name)).then(|| error::sentence(error::said(error)))
            })
        }
    }

    /// What is wrong with the form, and marks that it shows this itself.
    pub fn error(&self, back: &str) -> AnyView {
        let (action, flash) = (self.action.clone(), flash());
        view! {
            <input type="hidden" name="back" value=back.to_owned()/>
            <input type="hidden" name="inline" value="1"/>
            {move || {
                flash
                    .with(|flash| {
                        let flash = flash.as_ref().filter(|f| f.action == action)?;
                        flash.error.as_ref().map(error::alert)
                    })
            }}
        }
        .into_any()
    }

    /// The button that sends the form; when that is not allowed it is there all the same, with the reason.
    pub fn submit(
        &self,
        class: &'static str,
        label: impl Into<String>,
        verdict: impl Fn() -> Verdict + Send + Sync + 'static,
    ) -> AnyView {
        let why = Signal::derive(move || button::reason(&verdict()));
        button::submit(&self.action, None, class, label.into(), why)
    }

    /// A field of one line.
    pub fn line(&self, line: Line) -> AnyView {
        let wrong = self.wrong(line.name);
        let bad = wrong.clone();
        let secret = line.kind == "password";
        let value = self.typed(line.name).filter(|_| !secret).unwrap_or(line.value);
        let id = format!("{}-{}", line.name, line.kind);
        let about = format!("{id}-about");
        view! {
            <div class="field">
                <label for=id.clone()>{line.label}</label>
                <input
                    id=id
                    name=line.name
                    type=if line.kind.is_empty() { "text" } else { line.kind }
                    value=value
                    placeholder=line.placeholder
                    min=line.min
                    max=line.max
                    required=line.required
                    pattern=line.is_name.then_some(NAME)
                    maxlength=line.is_name.then_some("63")
                    autocomplete=if line.autocomplete.is_empty() { "off" } else { line.autocomplete }
                    autocapitalize="none"
                    spellcheck="false"
                    aria-describedby=about.clone()
                    aria-invalid=move || bad().map(|_| "true")
                />
                <small id=about>
                    {line.hint} {move || wrong().map(|why| view! { <span class="wrong">{why}</span> })}
                </small>
            </div>
        }
        .into_any()
    }

    /// A field of many lines.
    pub fn text(&self, name: &'static str, label: &'static str, hint: &'static str) -> AnyView {
        self.text_of(name, label, hint, String::new())
    }

    /// A field of many lines that has something in it already.
    pub fn text_of(
        &self,
        name: &'static str,
        label: &'static str,
        hint: &'static str,
        value: String,
    ) -> AnyView {
        let value = self.typed(name).unwrap_or(value);
        let wrong = self.wrong(name);
        let bad = wrong.clone();
        let about = format!("{name}-about");
        view! {
            <div class="field">
                <label for=name>{label}</label>
                <textarea
                    id=name
                    name=name
                    rows="5"
                    spellcheck="false"
                    aria-describedby=about.clone()
                    aria-invalid=move || bad().map(|_| "true")
                >
                    {value}
                </textarea>
                <small id=about>
                    {hint} {move || wrong().map(|why| view! { <span class="wrong">{why}</span> })}
                </small>
            </div>
        }
        .into_any()
    }

    /// A box to tick.
    pub fn tick(&self, name: &'static str, label: String, hint: &'static str, default: bool) -> AnyView {
        let on = self.ticked(name, default);
        self.check(name, None, label, hint, on)
    }

    /// One of several that exclude each other.
    pub fn radio(
        &self,
        name: &'static str,
        value: &'static str,
        label: &str,
        hint: &'static str,
        default: bool,
    ) -> AnyView {
        let on = self.typed(name).map_or(default, |v| v == value);
        self.check(name, Some(value), label.to_owned(), hint, on)
    }

    fn check(
        &self,
        name: &'static str,
        value: Option<&'static str>,
        label: String,
        hint: &'static str,
        on: bool,
    ) -> AnyView {
        view! {
            <label class="check">
                <input type=if value.is_some() { "radio" } else { "checkbox" } name=name value=value checked=on/>
                <span>
                    {label} {(!hint.is_empty()).then(|| view! { <small>{hint}</small> })}
                </span>
            </label>
        }
        .into_any()
    }

    /// A choice: values with their words.
    pub fn choice(
        &self,
        name: &'static str,
        label: &'static str,
        hint: String,
        options: Vec<(String, String)>,
        default: &str,
    ) -> AnyView {
        let chosen = self.typed(name).unwrap_or_else(|| default.to_owned());
        let wrong = self.wrong(name);
        let about = format!("{name}-about");
        view! {
            <div class="field">
                <label for=name>{label}</label>
                <select id=name name=name aria-describedby=about.clone()>
                    {options
                        .into_iter()
                        .map(|(value, word)| {
                            let on = value == chosen;
                            view! {
                                <option value=value selected=on>
                                    {word}
                                </option>
                            }
                        })
                        .collect_view()}
                </select>
                <small id=about>
                    {hint} {move || wrong().map(|why| view! { <span class="wrong">{why}</span> })}
                </small>
            </div>
        }
        .into_any()
    }
}
