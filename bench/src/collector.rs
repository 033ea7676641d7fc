//! How a server collects what nothing needs any more, and what that costs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::child;
use crate::peer::{Kind, Peer, Programs};

/// Whether ours pauses writing while it marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// It does.
    ReadOnly,
    /// It does not.
    Online,
}

impl Mode {
    /// As the command line of `gc` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Online => "online",
        }
    }
}

/// Settings of ours that make all garbage old enough to be collected at once.
pub const NO_AGES: [(&str, &str); 3] = [
    ("PAYLOAD_REGISTRY_GC_UNTAGGED_AGE", "0s"),
    ("PAYLOAD_REGISTRY_GC_BLOB_AGE", "0s"),
    ("PAYLOAD_REGISTRY_GC_TOLD_AGE", "0s"),
];

/// What a collection has done, and what it has cost.
pub struct Collected {
    /// From the command's beginning to its end, in seconds.
    pub seconds: f64,
    /// How long nothing could be pushed, in milliseconds.
    pub window_ms: f64,
    /// CPU seconds of the server and the command.
    pub cpu_seconds: f64,
    /// Memory of the process that collects, in MiB: before, where it ran before, and at most.
    pub resident_mib: (f64, f64),
    /// Files below the root that are gone, and bytes of the disk that are free again.
    pub freed: Stored,
    /// What it says itself, if it says anything: ours.
    pub report: Value,
}

/// Collects on a server of ours that runs, with its root in `directory`.
pub fn collect_ours(programs: &Programs, peer: &Peer, directory: &Path, mode: Mode) -> io::Result<Collected> {
    let before = Stored::below(&directory.join("root"));
    peer.server.forget_peak();
    let resident = peer.server.peak_mib().unwrap_or_default();
    let cpu = peer.server.cpu_seconds_settled().unwrap_or_default();
    let answer = directory.join("collected.json");
    let spent = child::run(gc(programs, directory, mode).stdout(File::create(&answer)?))?;
    let cpu = peer.server.cpu_seconds_settled().unwrap_or_default() - cpu;
    let report: Value = serde_json::from_slice(&fs::read(&answer)?)?;
    Ok(Collected {
        seconds: spent.seconds,
        // The report says how long it marked in any case.
        window_ms: match mode {
            Mode::ReadOnly => report["windowUs"].as_f64().unwrap_or_default() / 1e3,
            Mode::Online => 0.0,
        },
        cpu_seconds: cpu + spent.cpu_seconds,
        resident_mib: (resident, peer.server.peak_mib().unwrap_or_default()),
        freed: before.without(Stored::below(&directory.join("root"))),
        report,
    })
}

/// The command that has ours collect.
pub fn gc(programs: &Programs, directory: &Path, mode: Mode) -> Command {
    let mut command = programs.ours();
    command.args(["gc", "--json", "--mode", mode.name(), "--root"]).arg(directory.join("root"));
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Collects with docker-registry, with what is kept in `directory`: it is ended before, as its manual says that nothing may be
/// pushed meanwhile, and started again afterwards.
pub fn collect_docker_registry(
    programs: &Programs,
    peer: Peer,
    directory: &Path,
) -> io::Result<(Peer, Collected)> {
    let before = Stored::below(&directory.join("root"));
    drop(peer);
    let mut command = programs.docker_registry("garbage-collect", directory)?;
    let log = File::create(directory.join("collected.log"))?;
    command.arg("--delete-untagged").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let spent = child::run(&mut command)?;
    let freed = before.without(Stored::below(&directory.join("root")));
    let peer = programs.start(Kind::DockerRegistry, directory, &[])?;
    let collected = Collected {
        seconds: spent.seconds,
        window_ms: spent.seconds * 1e3,
        cpu_seconds: spent.cpu_seconds,
        resident_mib: (0.0, spent.peak_mib),
        freed,
        report: Value::Null,
    };
    Ok((peer, collected))
}

impl Collected {
    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "seconds": self.seconds,
            "windowMilliseconds": self.window_ms,
            "cpuSeconds": self.cpu_seconds,
            "residentMibBefore": self.resident_mib.0,
            "peakMib": self.resident_mib.1,
            "filesRemoved": self.freed.files,
            "bytesFreed": self.freed.bytes,
            "report": self.report,
        })
    }

    /// For people: one line.
    pub fn line(&self) -> String {
        let mut line = format!(
            "{:>8.2} s  paused {:>9.1} ms  {:>6.2} CPU-s  peak {:>4.0} MiB  {:>7} files, {:>5.0} MB less",
            self.seconds,
            self.window_ms,
            self.cpu_seconds,
            self.resident_mib.1,
            self.freed.files,
            self.freed.bytes as f64 / 1e6,
        );
        if self.report.is_object() {
            let ms = |name: &str| self.report[name].as_f64().unwrap_or_default() / 1e3;
            let contents = self.report["removed"]["contents"]["count"].as_u64().unwrap_or_default();
            line += &format!(
                "  (mark {:.0}, sweep {:.0}, files {:.0}, longest batch {:.1} ms; {contents} contents)",
                ms("markUs"),
                ms("sweepUs"),
                ms("filesUs"),
                ms("longestBatchUs"),
            );
        }
        line
    }
}

/// What is in a directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    /// Files.
    pub files: i64,
    /// Bytes of the disk.
    pub bytes: i64,
}

impl Stored {
    /// What there is. What vanishes meanwhile counts for nothing.
    fn below(path: &Path) -> Self {
        let Ok(metadata) = path.symlink_metadata() else { return Self::default() };
        let own = Self { files: i64::from(metadata.is_file()), bytes: metadata.blocks() as i64 * 512 };
        let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
        entries
            .map(|entry| Self::below(&entry.path()))
            .fold(own, |all, one| Self { files: all.files + one.files, bytes: all.bytes + one.bytes })
    }

    fn without(self, other: Self) -> Self {
        Self { files: self.files - other.files, bytes: self.bytes - other.bytes }
    }
}
