//! `registry-bench`: puts load on a registry, ours or another one, and says what that costs.

mod content;
mod generate;
mod http;
mod report;
mod workload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};

use report::{Figures, Outcome, Run, Server};
use workload::{Image, Way, blobs, pull_blob, push_blob, run};

/// Puts load on an OCI registry and measures it.
#[derive(Parser)]
#[command(version, about)]
struct CommandLine {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Args)]
struct Target {
    /// Address of the registry; it is spoken to by plain HTTP.
    #[arg(long, global = true, default_value = "127.0.0.1:5000")]
    address: SocketAddr,
    /// A process of the registry, to measure its CPU and memory with all its children; may be given several times.
    #[arg(long = "server-pid", global = true)]
    pids: Vec<u32>,
    /// One JSON object for each measurement, for programs.
    #[arg(long, global = true)]
    json: bool,
    /// How often it is done. The first round warms up; look at the others.
    #[arg(long, global = true, default_value_t = 3)]
    rounds: usize,
}

#[derive(Subcommand)]
enum Workload {
    /// Push blobs of unique content.
    Push {
        /// Size of a blob.
        #[arg(long, default_value = "256MiB")]
        size: ByteSize,
        /// Blobs in all.
        #[arg(long, default_value_t = 4)]
        count: usize,
        /// Pushes at a time.
        #[arg(long, default_value_t = 1)]
        clients: usize,
        /// How they are uploaded.
        #[arg(long, value_enum, default_value = "put")]
        way: Way,
    },
    /// Pull one blob, many times.
    Pull {
        /// Size of the blob.
        #[arg(long, default_value = "256MiB")]
        size: ByteSize,
        /// Pulls in all.
        #[arg(long, default_value_t = 16)]
        count: usize,
        /// Pulls at a time.
        #[arg(long, default_value_t = 1)]
        clients: usize,
    },
    /// Many nodes pull an image of one layer of 256 MiB and twelve smaller blobs at once.
    Nodes {
        /// Nodes.
        #[arg(long, default_value_t = 64)]
        nodes: usize,
    },
    /// Push images of small layers.
    Images {
        /// Images in all.
        #[arg(long, default_value_t = 1000)]
        count: usize,
        /// Pushes at a time.
        #[arg(long, default_value_t = 8)]
        clients: usize,
        /// Layers of an image.
        #[arg(long, default_value_t = 3)]
        layers: usize,
        /// Size of a layer.
        #[arg(long, default_value = "2KiB")]
        size: ByteSize,
        /// How blobs are uploaded.
        #[arg(long, value_enum, default_value = "put")]
        way: Way,
        /// All into one repository, instead of a new one for each.
        #[arg(long)]
        same_repository: bool,
    },
    /// Get a manifest by its tag.
    Manifests {
        /// Requests in all.
        #[arg(long, default_value_t = 100_000)]
        count: usize,
        /// Connections.
        #[arg(long, default_value_t = 64)]
        clients: usize,
        /// Tags that the repository has.
        #[arg(long, default_value_t = 10)]
        tags: usize,
    },
    /// List the tags of a repository, whole and a page of 100.
    Tags {
        /// Tags that the repository has.
        #[arg(long, default_value_t = 10_000)]
        tags: usize,
        /// Lists in all, of each kind.
        #[arg(long, default_value_t = 200)]
        count: usize,
        /// Connections.
        #[arg(long, default_value_t = 2)]
        clients: usize,
    },
    /// Pushes and pulls of small images at once, three pulls to a push.
    Mixed {
        /// Operations in all.
        #[arg(long, default_value_t = 1000)]
        count: usize,
        /// Clients.
        #[arg(long, default_value_t = 10)]
        clients: usize,
        /// Size of the layer.
        #[arg(long, default_value = "1MiB")]
        size: ByteSize,
    },
    /// Fill a new root of payload-registry with metadata of so many blobs, without their bytes; then start it on that root.
    Generate {
        /// The root; must not exist.
        #[arg(long)]
        root: PathBuf,
        /// Blobs.
        #[arg(long, default_value_t = 1_000_000)]
        blobs: u64,
    },
}

fn main() -> ExitCode {
    let CommandLine { target, workload } = CommandLine::parse();
    if let Workload::Generate { root, blobs } = &workload {
        return match generate::generate(root, *blobs) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("registry-bench: cannot fill {}: {error}", root.display());
                ExitCode::FAILURE
            }
        };
    }
    let server = Server::new(&target.pids);
    let mut has_failed = false;
    for round in 0..target.rounds {
        for figures in measure(&target, &server, &workload, round) {
            has_failed |= !figures.outcome.failures.is_empty();
            if target.json {
                println!("{}", figures.json());
            } else {
                println!("{}", figures.line());
            }
        }
    }
    if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What must work before something can be measured.
fn prepare(outcome: &Outcome) {
    if let Some(failure) = outcome.failures.first() {
        eprintln!("registry-bench: the preparation failed: {failure}");
        std::process::exit(1);
    }
}

fn measure(target: &Target, server: &Server, workload: &Workload, round: usize) -> Vec<Figures> {
    let address = target.address;
    let first = (round as u64) << 40;
    match workload {
        Workload::Push { size, count, clients, way } => {
            let blobs = blobs(first, *count, size.as_u64());
            let measured = Run::begin(server);
            let outcome = run(address, *clients, *count, |connection, number| {
                push_blob(connection, "bench/push", &blobs[number], *way)
            });
            vec![measured.end(&format!("push {count} x {size} by {clients}, {way:?}"), outcome)]
        }
        Workload::Pull { size, count, clients } => {
            let blob = blobs(first, 1, size.as_u64()).remove(0);
            prepare(&run(address, 1, 1, |connection, _| {
                push_blob(connection, "bench/pull", &blob, Way::Put)
            }));
            // Once more, so that the page cache has it.
            prepare(&run(address, 1, 1, |connection, _| pull_blob(connection, "bench/pull", &blob.digest)));
            let measured = Run::begin(server);
            let outcome = run(address, *clients, *count, |connection, _| {
                pull_blob(connection, "bench/pull", &blob.digest)
            });
            vec![measured.end(&format!("pull {count} x {size} by {clients}"), outcome)]
        }
        Workload::Nodes { nodes } => {
            let sizes: Vec<u64> =
                std::iter::once(256 << 20).chain((0..12).map(|size| 1 << (10 + size))).collect();
            let image = Image::new(first, &sizes);
            prepare(&run(address, 1, 1, |connection, _| {
                image.push(connection, "bench/nodes", "latest", Way::Put)
            }));
            prepare(&run(address, 1, 1, |connection, _| image.pull(connection, "bench/nodes", "latest")));
            let measured = Run::begin(server);
            let outcome =
                run(address, *nodes, *nodes, |connection, _| image.pull(connection, "bench/nodes", "latest"));
            vec![measured.end(&format!("{nodes} nodes pull an image"), outcome)]
        }
        Workload::Images { count, clients, layers, size, way, same_repository } => {
            let images: Vec<Image> = (0..*count as u64)
                .map(|number| Image::new(first + number, &vec![size.as_u64(); *layers]))
                .collect();
            let measured = Run::begin(server);
            let outcome = run(address, *clients, *count, |connection, number| {
                let own = format!("bench/image-{round}-{number}");
                let repository = if *same_repository { "bench/images" } else { &own };
                images[number].push(connection, repository, &format!("v{round}-{number}"), *way)
            });
            vec![measured.end(&format!("push images {layers} x {size} by {clients}, {way:?}"), outcome)]
        }
        Workload::Manifests { count, clients, tags } => {
            push_tags(address, "bench/manifests", *tags, first);
            let measured = Run::begin(server);
            let mut outcome = run(address, *clients, *count, |connection, number| {
                let target = format!("/v2/bench/manifests/manifests/t{}", number % tags);
                get(connection, &target)
            });
            outcome.bytes = 0;
            vec![measured.end(&format!("get manifest by tag, by {clients}"), outcome)]
        }
        Workload::Tags { tags, count, clients } => {
            push_tags(address, "bench/tags", *tags, first);
            [("whole", ""), ("a page of 100", "?n=100&last=t5")]
                .into_iter()
                .map(|(name, query)| {
                    let measured = Run::begin(server);
                    let mut outcome = run(address, *clients, *count, |connection, _| {
                        get(connection, &format!("/v2/bench/tags/tags/list{query}"))
                    });
                    outcome.bytes = 0;
                    measured.end(&format!("list {tags} tags, {name}"), outcome)
                })
                .collect()
        }
        Workload::Mixed { count, clients, size } => {
            let known = Image::new(first, &[size.as_u64()]);
            prepare(&run(address, 1, 1, |connection, _| {
                known.push(connection, "bench/mixed", "latest", Way::Put)
            }));
            let pushed: Vec<Image> = (1..=*count as u64 / 4 + 1)
                .map(|number| Image::new(first + number, &[size.as_u64()]))
                .collect();
            let measured = Run::begin(server);
            let outcome = run(address, *clients, *count, |connection, number| match number % 4 {
                0 => {
                    pushed[number / 4].push(connection, &format!("bench/mixed-{number}"), "latest", Way::Put)
                }
                _ => known.pull(connection, "bench/mixed", "latest"),
            });
            vec![measured.end(&format!("mixed 25/75, {size} by {clients}"), outcome)]
        }
        Workload::Generate { .. } => Vec::new(),
    }
}

fn get(connection: &mut http::Connection, target: &str) -> std::io::Result<u64> {
    let answer = connection.request_for("GET", target, "", b"", http::Body::Discard)?;
    if answer.status == 200 {
        Ok(answer.body_len)
    } else {
        Err(std::io::Error::other(format!("{target}: {}", answer.status)))
    }
}

/// An image with so many tags, `t0` and so on.
fn push_tags(address: SocketAddr, repository: &str, tags: usize, number: u64) {
    let image = Image::new(number, &[100]);
    prepare(&run(address, 1, 1, |connection, _| image.push(connection, repository, "t0", Way::Put)));
    prepare(&run(address, 8, tags, |connection, tag| {
        image.push(connection, repository, &format!("t{tag}"), Way::Put)
    }));
}
