//! The agent from outside: its command line, its configuration file, stories told to its engine, and (`netns`) a real kernel
//! with real peers.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod command_line;
mod config;
mod netns;
mod scenarios;
mod skip;
