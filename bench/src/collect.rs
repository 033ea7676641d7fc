//! Collections: of payload-registry and docker-registry beside each other, on the same content; and what pulls notice of ours.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use serde_json::json;

use crate::collector::{Collected, Mode, NO_AGES, collect_docker_registry, collect_ours, gc};
use crate::directory::Directory;
use crate::peer::{Kind, Peer, Programs};
use crate::population::Population;
use crate::pulls::Pulls;
use crate::report::{Figures, Outcome, Run};
use crate::store::Store;
use crate::workload::Image;

/// Pulls that are measured without a collection, as long as this, in each round.
const QUIET: Duration = Duration::from_secs(5);

/// The number of the image that is pulled: no population gets there.
const PULLED: u64 = u64::MAX >> 16;

/// Which servers, and what they have.
#[derive(Args, Clone, Debug)]
pub struct Collecting {
    /// The servers.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ours,docker-registry")]
    peers: Vec<Kind>,
    /// The modes of ours; each has content of its own.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "read-only,online")]
    modes: Vec<Mode>,
    /// Images that are pushed. Every third is deleted.
    #[arg(long, default_value_t = 3000)]
    images: usize,
    /// Repositories that they are spread over.
    #[arg(long, default_value_t = 7)]
    repositories: usize,
    /// Layers of an image.
    #[arg(long, default_value_t = 3)]
    layers: usize,
    /// Size of a layer. Ours keeps those of up to 4,000 bytes without a file.
    #[arg(long, default_value = "2KiB")]
    size: ByteSize,
    /// Pushes at a time.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Measure instead how long pulls from ours take, in turn without and while it collects.
    #[arg(long)]
    pulls: bool,
    /// Pulls of an image that begin in a second, by four clients.
    #[arg(long, default_value_t = 200, requires = "pulls", value_parser = clap::value_parser!(u64).range(1..))]
    pull_rate: u64,
    /// Size of the layer that is pulled.
    #[arg(long, default_value = "1MiB", requires = "pulls")]
    pull_size: ByteSize,
    #[command(flatten)]
    programs: Programs,
}

/// Measures, and says whether nothing failed.
pub fn collect(collecting: &Collecting, rounds: usize, as_json: bool) -> Result<bool, String> {
    if collecting.peers.contains(&Kind::Nginx) {
        return Err("nginx has nothing to collect".to_owned());
    }
    let directory = Directory::below(&collecting.programs.directory);
    if collecting.pulls {
        collecting.measure_pulls(directory.path(), rounds, as_json)
    } else {
        collecting.measure(directory.path(), rounds, as_json)
    }
}

impl Collecting {
    fn measure(&self, directory: &Path, rounds: usize, as_json: bool) -> Result<bool, String> {
        let mut is_clean = true;
        for round in 0..rounds {
            let population = self.population(round as u64 * self.images as u64);
            for kind in &self.peers {
                let modes = match kind {
                    Kind::Ours => self.modes.iter().copied().map(Some).collect(),
                    _ => vec![None],
                };
                for mode in modes {
                    let name = mode.map_or("stopped", Mode::name);
                    let directory = directory.join(format!("{kind}-{name}-{round}"));
                    let (collected, verified) = self
                        .measure_one(*kind, mode, &population, &directory)
                        .map_err(|error| format!("{kind}, {name}: {error}"))?;
                    // What follows needs the space.
                    let _ = fs::remove_dir_all(&directory);
                    is_clean &= verified.failures.is_empty();
                    if as_json {
                        let value = json!({
                            "server": kind.to_string(), "mode": name, "images": self.images,
                            "collection": collected.json(), "failures": verified.failures.len(),
                        });
                        println!("{value}");
                    } else {
                        println!("{kind:<17} {name:<10}{}", collected.line());
                    }
                    if let Some(failure) = verified.failures.first() {
                        eprintln!(
                            "registry-bench: {kind}, {} failures, the first: {failure}",
                            verified.failures.len()
                        );
                    }
                }
            }
        }
        Ok(is_clean)
    }

    fn population(&self, first: u64) -> Population {
        let layers = vec![self.size.as_u64(); self.layers];
        Population::new(first, self.images, self.repositories, &layers, self.clients)
    }

    fn measure_one(
        &self,
        kind: Kind,
        mode: Option<Mode>,
        population: &Population,
        directory: &Path,
    ) -> Result<(Collected, Outcome), String> {
        let text = |error: std::io::Error| error.to_string();
        let peer = self.programs.start(kind, directory, &NO_AGES).map_err(text)?;
        population.push(peer.address)?;
        population.delete(peer.address)?;
        let (peer, collected) = match mode {
            Some(mode) => {
                let collected = collect_ours(&self.programs, &peer, directory, mode).map_err(text)?;
                (peer, collected)
            }
            None => collect_docker_registry(&self.programs, peer, directory).map_err(text)?,
        };
        Ok((collected, population.verify(peer.address)))
    }

    fn measure_pulls(&self, directory: &Path, rounds: usize, as_json: bool) -> Result<bool, String> {
        let text = |error: std::io::Error| error.to_string();
        let directory = directory.join("pulls");
        let peer = self.programs.start(Kind::Ours, &directory, &NO_AGES).map_err(text)?;
        let image = Image::new(PULLED, &[2048, self.pull_size.as_u64()]);
        Store::Registry(peer.address).put_image("bench/pulled", &image, &["latest".to_owned()])?;
        let clients = 4;
        let pulls = Pulls {
            address: peer.address,
            clients,
            period: Duration::from_secs(clients as u64).div_f64(self.pull_rate as f64),
            requests: image.pull("bench/pulled", "latest"),
        };
        let mut is_clean = true;
        for mode in &self.modes {
            let mut all: [Vec<Figures>; 2] = Default::default();
            for round in 0..rounds {
                let first = (*mode as u64 * rounds as u64 + round as u64) * self.images as u64;
                let population = self.population(first);
                population.push(peer.address)?;
                population.delete(peer.address)?;
                // Each is first as often as the other.
                let order = if round % 2 == 0 { [false, true] } else { [true, false] };
                for is_collecting in order {
                    let figures = self.pull(&pulls, &peer, &directory, is_collecting.then_some(*mode))?;
                    is_clean &= figures.outcome.failures.is_empty();
                    match as_json {
                        true => println!("{}", figures.json()),
                        false => println!("{}", figures.line()),
                    }
                    all[usize::from(is_collecting)].push(figures);
                }
            }
            let [quiet, collecting] = all.map(Figures::pooled);
            if let (Some(quiet), Some(collecting), false) = (quiet, collecting, as_json) {
                println!("all rounds, {}:\n{}\n{}", mode.name(), quiet.line(), collecting.line());
                let ratio = |percent| collecting.percentile(percent).zip(quiet.percentile(percent));
                let ratio = |percent| ratio(percent).map_or(f64::NAN, |(one, other)| one / other);
                println!("while it collects ÷ without: p50 {:.2}, p99 {:.2}", ratio(50), ratio(99));
            }
        }
        Ok(is_clean)
    }

    /// Pulls, for a while or until a collection ends.
    fn pull(
        &self,
        pulls: &Pulls,
        peer: &Peer,
        directory: &Path,
        mode: Option<Mode>,
    ) -> Result<Figures, String> {
        let run = Run::begin(&peer.server);
        let Some(mode) = mode else {
            let ((), outcome) = pulls.beside(|| thread::sleep(QUIET));
            return Ok(run.end("pulls", outcome));
        };
        let (ended, outcome) = pulls.beside(|| gc(&self.programs, directory, mode).output());
        match ended {
            Ok(ended) if ended.status.success() => {
                Ok(run.end(&format!("pulls while it collects, {}", mode.name()), outcome))
            }
            Ok(ended) => Err(format!("the collection ended with {}", ended.status)),
            Err(error) => Err(format!("the collection does not begin: {error}")),
        }
    }
}
