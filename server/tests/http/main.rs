//! The server's face, through its real router and over real connections.
#![allow(clippy::unwrap_used)]

mod access;
mod audit;
mod commands;
mod consoles;
mod errors;
mod feed;
mod idp;
mod language;
mod notices;
mod offered;
mod oidc;
mod pages;
mod people;
mod places;
mod policies;
mod root;
mod routes;
mod sessions;
mod site;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod two_factor;
mod vms;
