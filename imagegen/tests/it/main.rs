//! The integration tests of imagegen, one binary.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says on stderr what it skipped"
)]

mod archive;
mod card;
mod card_disks;
mod catalogue;
mod debs;
mod diff;
mod fetching;
mod fleet;
mod hostile;
mod image;
mod mirror_server;
mod modules;
mod papers;
mod plan;
mod readers;
mod sample;
mod site_edit;
mod verify;
mod writers;
mod writers_disk;
mod writers_fat;
