//! `cargo xtask`: the one command of the workspace. Dispatch only; each command lives in a file of its name.

#[macro_use]
mod output;

mod agent;
mod agent_key;
mod bench;
mod boards;
mod catalogue;
mod descendants;
mod diff;
mod e2e;
mod fixes;
mod flash;
mod fleet;
mod fuzz;
mod guest;
mod image;
mod interrupt;
mod lock;
mod networks;
mod office;
mod origin;
mod papers;
mod plan;
mod power_cuts;
mod progress;
mod qemu;
mod reproduce;
mod rig;
mod site;
mod site_args;
mod site_boots;
mod soak;
mod source;
mod start_policy;
mod test;
mod tools;
mod usage;
mod verify;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// Build, try and test Footbridge images
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
enum Command {
    /// Build a flashable image for a board
    Image(image::Args),
    /// Print what `image` would put where, without building it
    Plan(plan::Args),
    /// Choose the packages of all images from today's signed lists
    Lock(lock::Args),
    /// List the boards images can be built for
    Boards(boards::Args),
    /// Cross-build the agent for a board and print the binary's path
    Agent(agent::Args),
    /// Boot an image in an emulator, the way the board's firmware would
    Qemu(qemu::Args),
    /// Write an image to a card and read it back
    Flash(flash::Args),
    /// Show or change the settings of an image or a card, without building anything
    Site(site::Args),
    /// Prepare the cards of many devices from one list, and ask the devices how they are
    #[command(subcommand)]
    Fleet(fleet::Fleet),
    /// Look through an image for what keeps a board from starting, or should never be on a card
    Verify(verify::Args),
    /// Write the list that Raspberry Pi Imager offers images from
    Catalogue(catalogue::Args),
    /// Show what two images differ in
    Diff(diff::Args),
    /// Build images twice, as different users and in different places, and check that they are the same
    Reproduce(reproduce::Args),
    /// Boot an image among simulated Wi-Fi networks in QEMU and check that it bridges; takes five minutes or more
    E2e(e2e::Args),
    /// Cut an emulated board's power again and again, and see it come back; each boot takes half a minute or more
    PowerCuts(power_cuts::Args),
    /// Boot devices of a fleet, cards with edited settings or Imager's, and members of a network with a server, and see each join its network
    SiteBoots(site_boots::Args),
    /// Measure the agent, the image builder, an image or `flash` beside what they replace
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Feed the agent's decoders and its engine with mutated input
    Fuzz(fuzz::Args),
    /// Live through a day of link flaps, moves, leases and kills in minutes
    Soak(soak::Args),
    /// Run every test; takes half an hour on two cores, and as root on Debian installs what it needs, after saying so
    Test(test::Args),
}

fn main() -> ExitCode {
    let command = Command::parse();
    progress::show_warnings();
    let result = interrupt::watch().and_then(|()| match command {
        Command::Image(args) => image::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Lock(args) => lock::run(&args),
        Command::Boards(args) => boards::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Qemu(args) => qemu::run(&args),
        Command::Flash(args) => flash::run(&args),
        Command::Site(args) => site::run(&args),
        Command::Fleet(fleet) => fleet::run(&fleet),
        Command::Verify(args) => verify::run(&args),
        Command::Catalogue(args) => catalogue::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Reproduce(args) => reproduce::run(&args),
        Command::E2e(args) => e2e::run(&args),
        Command::PowerCuts(args) => power_cuts::run(&args),
        Command::SiteBoots(args) => site_boots::run(&args),
        Command::Bench(bench) => bench::run(&bench),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Test(args) => test::run(&args),
    });
    // Waits if an interruption is being dealt with, which ends the program.
    let _settled = interrupt::hold();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => usage::report(&error),
    }
}
