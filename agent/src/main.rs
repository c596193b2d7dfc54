//! The `footbridge` program: reads the command line, dispatches, and turns the result into an exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use footbridge_agent::{command, hint};

/// Makes the hosts on a wired port members of a Wi-Fi network
#[derive(Debug, Parser)]
#[command(name = "footbridge", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(command::run::Args),
    Status(command::status::Args),
    Check(command::check::Args),
    ReloadDriver(command::reload_driver::Args),
    LaySite(command::lay_site::Args),
}

fn main() -> ExitCode {
    // A wrong command line ends here, with exit code 2.
    let cli = Cli::parse();
    let journal_stream = std::env::var("JOURNAL_STREAM").ok();
    let result = match cli.command {
        Command::Run(args) => command::run::run(args, journal_stream.as_deref()),
        Command::Status(args) => command::status::run(&args),
        Command::Check(args) => command::check::run(&args),
        Command::ReloadDriver(args) => {
            command::reload_driver::run(&args, journal_stream.as_deref())
        }
        Command::LaySite(args) => command::lay_site::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = hint::without_controls(&hint::render(&error));
            // With stderr closed there is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::FAILURE
        }
    }
}
