//! The parts that pages are made of.

pub mod button;
pub mod copies;
pub mod dialog;
pub mod error;
pub mod field;
pub mod fork_point;
pub mod frame;
pub mod job;
pub mod language;
pub mod lineage;
pub mod list;
pub mod load;
pub mod palette;
pub mod place;
pub mod screen;
pub mod state;
pub mod table;
pub mod time;
pub mod tree;
