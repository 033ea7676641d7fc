//! Runs the Kubernetes component as a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::authority::{Authority, Certificate};
use crate::process::{self, Process, ShowOnFailure};

/// The name that the API server knows the component by, and its certificate is for.
pub const SERVER_NAME: &str = "payload-registry.d8-payload-registry.svc";

/// The host that users know the registry by.
pub const REGISTRY_HOST: &str = "payload-registry.example.com";

/// The program under test: `PAYLOAD_REGISTRY_KAPI_BIN` if set, else what the workspace builds, in this test's profile.
#[track_caller]
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| match std::env::var_os("PAYLOAD_REGISTRY_KAPI_BIN") {
        Some(path) => Some(path.into()),
        None => process::build("payload-registry-kapi"),
    });
    program.as_deref().expect("the component builds")
}

/// The program as a command, with none of the settings that this process happens to have in its environment.
#[track_caller]
pub fn command() -> Command {
    let mut command = process::command(program());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"KAPI_")) {
        command.env_remove(name);
    }
    command.env_remove("KUBECONFIG");
    command
}

/// How to start the component.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The registry's private interface: `unix:<path>`, or `<host>:<port>` for TLS.
    pub registry: String,
    /// The kubeconfig of its service account.
    pub kubeconfig: PathBuf,
    /// Where to listen.
    pub listen: String,
    /// What else to say on the command line.
    pub args: Vec<String>,
}

/// The running component. Dropping it kills it.
#[derive(Debug)]
pub struct Kapi {
    launch: Launch,
    process: Process,
    address: SocketAddr,
    authority: Authority,
    dir: TempDir,
    _show: ShowOnFailure,
}

impl Launch {
    /// Starts it, with a serving certificate of an authority of its own, and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Kapi {
        let dir = TempDir::with_prefix("payload-registry-kapi-").expect("a directory for the component");
        let authority = Authority::new("payload-registry-ca");
        authority.issue_server(&[SERVER_NAME]).write(dir.path(), "tls");
        let (process, address) = self.run(dir.path());
        let show = ShowOnFailure::new("Kubernetes component", &process.log);
        Kapi { launch: self, process, address, authority, dir, _show: show }
    }

    #[track_caller]
    fn run(&self, dir: &Path) -> (Process, SocketAddr) {
        let mut command = command();
        command
            .args([
                "--listen",
                &self.listen,
                "--registry-address",
                &self.registry,
                "--registry-host",
                REGISTRY_HOST,
            ])
            .arg("--tls-cert-file")
            .arg(dir.join("tls.crt"))
            .arg("--tls-key-file")
            .arg(dir.join("tls.key"))
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            // Nobody else has to notice that it ends.
            .args(["--drain-seconds", "0"])
            .args(&self.args);
        let mut process = Process::start(command);
        let _show = ShowOnFailure::new("Kubernetes component", &process.log);
        let address = process.listening("https").expect("the component listens");
        (process, address)
    }
}

impl Kapi {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The authority that its certificate is from.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Gives it another certificate.
    pub fn replace_certificate(&mut self, authority: Authority, certificate: &Certificate) {
        certificate.write(self.dir.path(), "tls");
        self.authority = authority;
    }

    /// All that it has written.
    pub fn log(&self) -> String {
        self.process.log.text()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait()
    }

    /// Kills it (SIGKILL).
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait();
    }

    /// Starts it again, after it has ended. The port is another one, unless one was asked for.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.process.ended(), "the component still runs");
        let (process, address) = self.launch.run(self.dir.path());
        self._show = ShowOnFailure::new("Kubernetes component", &process.log);
        (self.process, self.address) = (process, address);
    }
}
