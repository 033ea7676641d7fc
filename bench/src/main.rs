//! `registry-bench`: puts load on a registry, ours or another one, and says what that costs.

mod child;
mod collect;
mod collector;
mod compare;
mod content;
mod crowd;
mod directory;
mod generate;
mod head;
mod http;
mod objects;
mod peer;
mod population;
mod pulls;
mod report;
mod scenario;
mod server;
mod store;
mod workload;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use collect::Collecting;
use compare::Comparison;
use objects::Objects;
use report::Figures;
use scenario::Scenario;
use server::Server;
use store::Store;

/// Puts load on an OCI registry and measures it.
#[derive(Parser)]
#[command(version, about, max_term_width = 110)]
struct CommandLine {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Target {
    /// Where the registry is, such as `http://127.0.0.1:5000`; it is spoken to by plain HTTP, but for `objects`.
    #[arg(long, visible_alias = "url", global = true, default_value = "127.0.0.1:5000", value_parser = address)]
    address: SocketAddr,
    /// A process of the registry, to measure its CPU and memory with all its children; may be given several times.
    #[arg(long = "server-pid", value_name = "PID", global = true)]
    pids: Vec<u32>,
    /// It is a static file server with this root: what is to be pulled is written there instead of pushed.
    #[arg(long, value_name = "DIRECTORY", global = true)]
    files: Option<PathBuf>,
    /// One JSON object for each measurement, for programs.
    #[arg(long, global = true)]
    json: bool,
    /// How often it is done. Without `compare` and `collect`, the first round warms up; look at the others.
    #[arg(long, global = true, default_value_t = 3)]
    rounds: usize,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Scenario(Scenario),
    /// Start payload-registry and others, and do the same to each of them in turn.
    Compare(Comparison),
    /// Push small images into payload-registry and docker-registry, delete a third of them, and let each collect.
    Collect(Collecting),
    /// List tags as Kubernetes objects, of a `payload-registry-kapi` at the address: of a namespace, a page of all, all.
    Objects(Objects),
    /// Fill a new root of payload-registry with metadata of so many blobs, without their bytes; then start it on that root.
    Generate {
        /// The root; must not exist.
        #[arg(long)]
        root: PathBuf,
        /// Blobs.
        #[arg(long, default_value_t = 1_000_000)]
        blobs: u64,
        /// Namespaces that the images are spread over, `generated-0` and so on.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        namespaces: u64,
    },
}

fn main() -> ExitCode {
    let CommandLine { target, command } = CommandLine::parse();
    let result = match &command {
        Command::Scenario(scenario) => measure(&target, scenario),
        Command::Compare(comparison) => compare::compare(comparison, target.rounds, target.json),
        Command::Collect(collecting) => collect::collect(collecting, target.rounds, target.json),
        Command::Objects(objects) => measure_objects(&target, objects),
        Command::Generate { root, blobs, namespaces } => {
            match generate::generate(root, *blobs, *namespaces) {
                Ok(()) => Ok(true),
                Err(error) => Err(format!("cannot fill {}: {error}", root.display())),
            }
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("registry-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures a workload in each round, and says whether nothing failed.
fn measure(target: &Target, scenario: &Scenario) -> Result<bool, String> {
    let store = match &target.files {
        Some(_) if !scenario.is_static() => return Err("files can only be pulled".to_owned()),
        Some(root) => Store::Files(root.clone(), target.address),
        None => Store::Registry(target.address),
    };
    let server = Server::new(&target.pids);
    rounds(target, |round| scenario.measure(target.address, &store, &server, round))
}

/// Measures lists of objects in each round, and says whether nothing failed.
fn measure_objects(target: &Target, objects: &Objects) -> Result<bool, String> {
    let server = Server::new(&target.pids);
    rounds(target, |_| objects.measure(target.address, &server))
}

/// Prints the figures of each round, and says whether nothing failed.
fn rounds(target: &Target, measure: impl Fn(usize) -> Result<Vec<Figures>, String>) -> Result<bool, String> {
    let mut is_clean = true;
    for round in 0..target.rounds {
        for figures in measure(round)? {
            is_clean &= figures.outcome.failures.is_empty();
            if target.json {
                println!("{}", figures.json());
            } else {
                println!("{}", figures.line());
            }
        }
    }
    Ok(is_clean)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let host = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))
        .unwrap_or(text)
        .trim_end_matches('/');
    let with_port = if host.rsplit_once(':').is_some() { host.to_owned() } else { format!("{host}:80") };
    let mut addresses = with_port.to_socket_addrs().map_err(|error| error.to_string())?;
    addresses.next().ok_or_else(|| format!("{host} has no address"))
}
