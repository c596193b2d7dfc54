//! The agent from outside: its command line, its configuration file, and (`netns`) a real kernel with real peers.

mod command_line;
mod config;
