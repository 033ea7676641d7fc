//! Servers beside each other: all run at once, and each round does a workload to one after the other, there and back,
//! so that what else the machine does hits all of them alike. The first round warms up and is not counted.

use std::path::Path;

use clap::{Args, Parser};
use serde_json::json;

use crate::directory::Directory;
use crate::peer::{Kind, Peer, Programs};
use crate::report::Figures;
use crate::scenario::Scenario;

/// What is compared when nothing else is asked for.
const SCENARIOS: [&str; 15] = [
    "push --count 4",
    "push --count 4 --way patch",
    "push --count 8 --clients 4",
    "push --count 2000 --clients 8 --size 4KiB",
    "pull --count 8",
    "pull --count 16 --clients 8",
    "pull --count 64 --clients 64",
    "pull --size 64MiB --count 256 --clients 256",
    "nodes --nodes 64",
    "images --count 400",
    "images --count 400 --same-repository",
    "manifests --count 20000",
    "manifests --count 20000 --tags 1000",
    "tags --tags 1000",
    "mixed --count 400",
];

/// Which servers, and how they are started.
#[derive(Args, Clone, Debug)]
pub struct Comparison {
    /// The servers; the first is what the others are compared with.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ours,docker-registry,nginx")]
    peers: Vec<Kind>,
    #[command(flatten)]
    programs: Programs,
    /// A workload with its options, such as `pull --clients 8`; may be given several times [default: fifteen of them].
    #[arg(long = "run", value_name = "WORKLOAD", value_parser = scenario)]
    scenarios: Vec<Scenario>,
}

#[derive(Parser)]
#[command(no_binary_name = true)]
struct Words {
    #[command(subcommand)]
    scenario: Scenario,
}

fn scenario(words: &str) -> Result<Scenario, String> {
    match Words::try_parse_from(words.split_whitespace()) {
        Ok(Words { scenario }) => Ok(scenario),
        Err(error) => Err(error.to_string()),
    }
}

/// Compares, and says whether nothing failed.
pub fn compare(comparison: &Comparison, rounds: usize, as_json: bool) -> Result<bool, String> {
    let scenarios = match comparison.scenarios.as_slice() {
        [] => SCENARIOS.iter().map(|words| scenario(words)).collect::<Result<_, _>>()?,
        given => given.to_vec(),
    };
    let directory = Directory::below(&comparison.programs.directory);
    let peers = start(comparison, directory.path())?;
    let mut has_failed = false;
    for (index, scenario) in scenarios.iter().enumerate() {
        let mut rows: Vec<Row> = Vec::new();
        for round in 0..=rounds {
            let mut order: Vec<&Peer> = peers.iter().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for peer in order.into_iter().filter(|peer| scenario.is_static() || peer.kind != Kind::Nginx) {
                let number = index * (rounds + 1) + round;
                let figures = scenario
                    .measure(peer.address, &peer.store, &peer.server, number)
                    .map_err(|error| format!("{}: {error}", peer.kind))?;
                for figures in figures {
                    has_failed |= !figures.outcome.failures.is_empty();
                    if let Some(failure) = figures.outcome.failures.first() {
                        eprintln!("registry-bench: {}, {}: {failure}", peer.kind, figures.workload);
                    }
                    if round > 0 {
                        add(&mut rows, peer.kind, figures);
                    }
                }
            }
        }
        rows.sort_by_key(|row| comparison.peers.iter().position(|kind| *kind == row.kind));
        print(&rows, as_json);
    }
    Ok(!has_failed)
}

fn start(comparison: &Comparison, directory: &Path) -> Result<Vec<Peer>, String> {
    let start = |kind: &Kind| comparison.programs.start(*kind, &directory.join(kind.to_string()), &[]);
    comparison.peers.iter().map(start).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// All counted rounds of a workload on a server.
struct Row {
    workload: String,
    kind: Kind,
    rounds: Vec<Figures>,
}

fn add(rows: &mut Vec<Row>, kind: Kind, figures: Figures) {
    match rows.iter_mut().find(|row| row.kind == kind && row.workload == figures.workload) {
        Some(row) => row.rounds.push(figures),
        None => rows.push(Row { workload: figures.workload.clone(), kind, rounds: vec![figures] }),
    }
}

impl Row {
    fn median(&self, value: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.rounds.iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let high = values.get(middle)?;
        match values.len() % 2 {
            1 => Some(*high),
            _ => Some((values.get(middle - 1)? + high) / 2.0),
        }
    }

    fn failures(&self) -> usize {
        self.rounds.iter().map(|figures| figures.outcome.failures.len()).sum()
    }
}

fn print(rows: &[Row], as_json: bool) {
    let mut workloads: Vec<&str> = Vec::new();
    for row in rows {
        if !workloads.contains(&row.workload.as_str()) {
            workloads.push(&row.workload);
        }
    }
    for workload in workloads {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.workload == workload).collect();
        if as_json {
            rows.iter().for_each(|row| print_json(row, rows[0]));
        } else {
            println!("{workload}");
            println!(
                "  {:<18}{:>10}{:>9}{:>11}{:>10}{:>10}{:>10}{:>7}{:>8}{:>9}{:>7}",
                "",
                "each/s",
                "MB/s",
                "CPU-s/GiB",
                "µs CPU",
                "p50 ms",
                "p99 ms",
                "MiB",
                "failed",
                "speed ×",
                "CPU ×"
            );
            rows.iter().for_each(|row| print_line(row, rows[0]));
        }
    }
}

/// How many times `base` has what `row` has.
fn ratio(row: &Row, base: &Row, value: impl Fn(&Figures) -> Option<f64> + Copy) -> Option<f64> {
    Some(base.median(value)? / row.median(value)?).filter(|ratio| ratio.is_finite())
}

fn print_line(row: &Row, base: &Row) {
    let cell = |value: Option<f64>, decimals: usize| match value {
        Some(value) => format!("{value:.decimals$}"),
        None => "-".to_owned(),
    };
    println!(
        "  {:<18}{:>10}{:>9}{:>11}{:>10}{:>10}{:>10}{:>7}{:>8}{:>9}{:>7}",
        row.kind.to_string(),
        cell(row.median(|figures| Some(figures.rate())), 1),
        cell(row.median(Figures::megabytes_per_second), 0),
        cell(row.median(Figures::cpu_per_gib), 3),
        cell(row.median(Figures::cpu_per_operation), 1),
        cell(row.median(|figures| figures.percentile(50)), 2),
        cell(row.median(|figures| figures.percentile(99)), 2),
        cell(row.median(|figures| figures.peak_mib), 0),
        row.failures(),
        cell(ratio(row, base, |figures| Some(figures.rate())), 2),
        cell(ratio(row, base, Figures::cpu_per_operation), 2),
    );
}

fn print_json(row: &Row, base: &Row) {
    let value = json!({
        "workload": row.workload,
        "server": row.kind.to_string(),
        "rounds": row.rounds.len(),
        "operationsPerSecond": row.median(|figures| Some(figures.rate())),
        "megabytesPerSecond": row.median(Figures::megabytes_per_second),
        "cpuSecondsPerGib": row.median(Figures::cpu_per_gib),
        "cpuMicrosecondsPerOperation": row.median(Figures::cpu_per_operation),
        "peakMib": row.median(|figures| figures.peak_mib),
        "milliseconds": {
            "p50": row.median(|figures| figures.percentile(50)),
            "p90": row.median(|figures| figures.percentile(90)),
            "p99": row.median(|figures| figures.percentile(99)),
            "max": row.median(|figures| figures.percentile(100)),
        },
        "failures": row.failures(),
        "speedRatio": ratio(row, base, |figures| Some(figures.rate())),
        "cpuRatio": ratio(row, base, Figures::cpu_per_operation),
    });
    println!("{value}");
}
