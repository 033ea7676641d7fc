//! The servers that are compared: how each is started on a port of its own with an empty root, and how it is stopped.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::server::Server;
use crate::store::Store;

/// How long a server may take until it accepts connections, and how long until it has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// payload-registry.
    Ours,
    /// `docker-registry`, which is distribution.
    DockerRegistry,
    /// nginx with the blobs and manifests as files, for pulls.
    Nginx,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ours => "payload-registry",
            Self::DockerRegistry => "docker-registry",
            Self::Nginx => "nginx",
        })
    }
}

/// The programs of servers, and how they are started.
#[derive(Args, Clone, Debug)]
pub struct Programs {
    /// The program of payload-registry; without this, the one beside this program.
    #[arg(long, value_name = "FILE")]
    ours: Option<PathBuf>,
    /// A further argument for payload-registry; may be given several times.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    ours_option: Vec<String>,
    /// Directory on the filesystem that is to be measured; a directory is made in it, and removed at the end.
    #[arg(long, value_name = "DIRECTORY", default_value_os_t = std::env::temp_dir())]
    pub directory: PathBuf,
    /// The CPUs that servers may use, as `taskset --cpu-list` takes them; run this program itself by `taskset` on others.
    #[arg(long, value_name = "LIST")]
    server_cpus: Option<String>,
}

/// A server that runs until this is dropped.
pub struct Peer {
    /// What it is.
    pub kind: Kind,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its processes.
    pub server: Server,
    /// Where it finds content.
    pub store: Store,
    process: Child,
}

impl Programs {
    /// Starts a server that keeps everything below `directory`, which is made where it is not there, with these variables in its
    /// environment.
    pub fn start(&self, kind: Kind, directory: &Path, variables: &[(&str, &str)]) -> io::Result<Peer> {
        fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        let address = free_address()?;
        let mut command = match kind {
            Kind::Ours => {
                let mut command = self.ours();
                command.args(["serve", "--listen", &address.to_string(), "--root"]);
                command.arg(directory.join("root")).args(&self.ours_option);
                command
            }
            Kind::DockerRegistry => {
                let mut command = self.docker_registry("serve", &directory)?;
                command.env("REGISTRY_HTTP_ADDR", address.to_string());
                command
            }
            Kind::Nginx => {
                let mut command = self.command("nginx".as_ref());
                let settings = nginx_settings(&directory, address, self.cpu_count())?;
                command.arg("-p").arg(&directory).arg("-c").arg(settings);
                command
            }
        };
        command.envs(variables.iter().copied());
        let log = File::create(directory.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{:?} does not start: {error}", command.get_program()))
        })?;
        let store = match kind {
            Kind::Nginx => Store::Files(directory.join("root"), address),
            _ => Store::Registry(address),
        };
        let mut peer = Peer { kind, address, server: Server::default(), store, process };
        peer.wait_until_it_listens(&directory)?;
        peer.server = Server::new(&[peer.process.id()]);
        Ok(peer)
    }

    /// The program of payload-registry.
    pub fn ours(&self) -> Command {
        let beside = || Some(std::env::current_exe().ok()?.with_file_name("payload-registry"));
        let program = self.ours.clone().or_else(beside).unwrap_or_else(|| "payload-registry".into());
        self.command(program.as_os_str())
    }

    /// A command of docker-registry for what is kept below `directory`.
    pub fn docker_registry(&self, name: &str, directory: &Path) -> io::Result<Command> {
        let mut command = self.command("docker-registry".as_ref());
        command.arg(name).arg(docker_registry_settings(directory)?);
        command.env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", directory.join("root"));
        Ok(command)
    }

    /// How many CPUs servers may use: nginx would take all for its own that there are.
    fn cpu_count(&self) -> usize {
        let Some(cpus) = &self.server_cpus else {
            return thread::available_parallelism().map_or(1, usize::from);
        };
        let count = |range: &str| -> Option<usize> {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (last.trim().parse::<usize>().ok()? + 1).checked_sub(first.trim().parse().ok()?)
        };
        cpus.split(',').filter_map(count).sum::<usize>().max(1)
    }

    fn command(&self, program: &std::ffi::OsStr) -> Command {
        match &self.server_cpus {
            Some(cpus) => {
                // taskset becomes the program, so that the process is that of the server.
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", cpus]).arg(program);
                command
            }
            None => Command::new(program),
        }
    }
}

impl Peer {
    fn wait_until_it_listens(&mut self, directory: &Path) -> io::Result<()> {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.process.try_wait()?;
            if ended.is_some() || began.elapsed() > PATIENCE {
                let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("{} does not listen; it said: {log}", self.kind)));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let began = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if began.elapsed() > PATIENCE {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn docker_registry_settings(directory: &Path) -> io::Result<PathBuf> {
    let path = directory.join("settings.yml");
    let settings = "\
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: /nowhere}, delete: {enabled: true}}
http: {addr: \"127.0.0.1:0\"}
";
    fs::write(&path, settings)?;
    Ok(path)
}

fn nginx_settings(directory: &Path, address: SocketAddr, workers: usize) -> io::Result<PathBuf> {
    let root = directory.join("root");
    fs::create_dir_all(&root)?;
    let path = directory.join("nginx.conf");
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {}/temporary;\n", directory.display()))
        .concat();
    // The worker runs as who started it, so that it may read the files; nginx only warns when that is not root.
    let settings = format!(
        "\
daemon off;
user root;
worker_processes {workers};
pid {directory}/pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  keepalive_requests 1000000000;
  default_type application/vnd.oci.image.manifest.v1+json;
{temporary}  server {{
    listen {address} backlog=1024;
    root {root};
  }}
}}
",
        directory = directory.display(),
        root = root.display(),
    );
    fs::write(&path, settings)?;
    Ok(path)
}
