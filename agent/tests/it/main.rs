//! The agent from outside: its command line, its configuration file, stories told to its engine, a real kernel (`netns`), and
//! other people's DHCP servers and clients (`peers`).

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
#![expect(
    clippy::print_stderr,
    reason = "what was skipped, measured or went wrong is for whoever runs it"
)]

mod command_line;
mod config;
mod netns;
mod peers;
mod rules;
mod scenarios;
mod site;
mod skip;
mod supplicant;
mod unit_file;
