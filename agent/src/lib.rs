//! Footbridge's agent: a layer-3 pseudo-bridge between a station and a wired port.
//!
//! ```text
//! kernel, sockets --bytes--> wire --Input--> engine --Action--> shell --> kernel, sockets
//! ```
//!
//! `wire` reads and writes bytes and has no policy. `shell` owns every socket, the clock and the kernel's settings, and decides
//! nothing: it turns what happens into an `Input`, hands it to `engine` with the time, and performs the `Action`s that come
//! back, in their order. `engine` decides everything and touches nothing. `command` is what a person types, `config` what a
//! file may say, `site` what a card may, before anything runs.

pub mod addr;
pub mod wire;

pub mod engine;
pub mod shell;

pub mod config;
pub mod hint;
mod plain_file;
pub mod site;

pub mod command;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
