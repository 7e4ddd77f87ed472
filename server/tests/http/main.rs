//! The server's face, through its real router and over real connections.
#![allow(clippy::unwrap_used)]

mod access;
mod commands;
mod errors;
mod feed;
mod pages;
mod routes;
mod site;
mod vms;
