//! What a person can type: one file a command, each with its arguments beside what it does.

pub mod check;
pub mod lay_site;
pub mod reload_driver;
pub mod run;
pub mod status;
