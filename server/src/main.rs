//! `payload-registry`: the registry and its administrator's commands in one program.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use server::cli::{self, Command};
use server::settings::{self, Flags, Loaded};
use server::{logging, serve};

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => error.exit(),
    };
    match run(command) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("payload-registry: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match command {
        Command::Serve(flags) => {
            let settings = load(&flags)?.settings;
            logging::start(&settings.log);
            serve::serve(&settings, |address| announce(address, &settings.root))?;
        }
        Command::ConfigCheck(flags) => cli::print_settings(&load(&flags)?, &mut io::stdout().lock())?,
        Command::HashPassword { cost } => {
            cli::hash_password(&mut io::stdin().lock(), &mut io::stdout().lock(), cost)?
        }
        Command::Administer(command) => return Ok(command.run()),
    }
    Ok(ExitCode::SUCCESS)
}

fn load(flags: &Flags) -> Result<Loaded, settings::SettingsError> {
    settings::load(flags, std::env::vars_os())
}

fn announce(address: SocketAddr, root: &Path) {
    let root = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_path_buf());
    println!("listening on http://{address}");
    println!("data in {}", root.display());
    println!(
        "try: skopeo copy --dest-tls-verify=false docker-archive:IMAGE.tar docker://{address}/library/image:latest"
    );
}
