//! The model of Offshoot, asked by server and console alike: ids, states and their transitions, requests,
//! progress, errors, and what may be done in which state. No I/O; native and WASM.

pub mod access;
pub mod api;
pub mod can;
pub mod clone;
pub mod console;
pub mod copy;
pub mod edit;
pub mod feed;
pub mod fork;
pub mod id;
pub mod image;
pub mod job;
pub mod later;
pub mod migrate;
pub mod name;
pub mod notice;
pub mod place;
pub mod policy;
pub mod seed;
pub mod snapshot;
pub mod status;
pub mod target;
pub mod time;
pub mod vm;
pub mod word;

pub use crate::id::*;
pub use crate::name::{Name, NameError};
pub use crate::status::{Code, Status};
pub use crate::time::Timestamp;
