//! Runs the program as a process of its own, and makes sure that it ends with the test.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::Client;
use crate::http::{Connection, Request};
use crate::private::Private;
use crate::process::{self, Process, ShowOnFailure};

/// The program under test: `PAYLOAD_REGISTRY_BIN` if set, else what the workspace builds, in this test's profile.
#[track_caller]
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| match std::env::var_os("PAYLOAD_REGISTRY_BIN") {
        Some(path) => Some(path.into()),
        None => process::build("payload-registry"),
    });
    program.as_deref().expect("the server builds")
}

/// Whether the program was built with optimisation, as far as its path tells.
pub fn is_release() -> bool {
    program().components().any(|part| part.as_os_str() == "release")
}

/// The program as a command, with none of the settings that this process happens to have in its environment.
#[track_caller]
pub fn command() -> Command {
    process::command(program())
}

/// Makes the calling process fail with `EPERM` wherever it asks for a ring.
fn forbid_io_uring() -> io::Result<()> {
    const RETURN_EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const IO_URING_SETUP: u32 = libc::SYS_io_uring_setup as u32;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the number of the system call
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, IO_URING_SETUP),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, RETURN_EPERM),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter live until the call returns.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How to start the program.
#[derive(Clone, Debug)]
pub struct Launch {
    listen: String,
    root: Option<PathBuf>,
    config: Option<String>,
    env: Vec<(String, String)>,
    has_io_uring: bool,
}

impl Default for Launch {
    fn default() -> Self {
        // So that all of the tests can be run in this way, too.
        let has_io_uring =
            std::env::var_os("PAYLOAD_REGISTRY_TEST_IO_URING").is_none_or(|value| value != "off");
        Self { listen: "127.0.0.1:0".into(), root: None, config: None, env: Vec::new(), has_io_uring }
    }
}

impl Launch {
    /// A loopback address with a free port, an empty root, no configuration.
    pub fn new() -> Self {
        Self::default()
    }

    /// The address to listen on.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = address.into();
        self
    }

    /// The directory to keep everything in, instead of a fresh one.
    pub fn root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = Some(root.into());
        self
    }

    /// The text of the configuration file.
    pub fn config(mut self, text: impl Into<String>) -> Self {
        self.config = Some(text.into());
        self
    }

    /// A variable of the environment.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Lets the kernel refuse io_uring to the program, as most container runtimes do. All tests can be run like that:
    /// `PAYLOAD_REGISTRY_TEST_IO_URING=off`.
    pub fn without_io_uring(mut self) -> Self {
        self.has_io_uring = false;
        self
    }

    /// Starts the program and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Server {
        let dir = TempDir::with_prefix("payload-registry-test-").expect("a directory for the test");
        let root = self.root.clone().unwrap_or_else(|| dir.path().join("root"));
        let mut process = self.run(dir.path(), &root);
        let show = ShowOnFailure::new("server", &process.log);
        match process.listening("http") {
            Some(address) => Server { launch: self, process, address, root, show: Some(show), _dir: dir },
            None => panic!("the server does not listen"),
        }
    }

    /// Starts the program, expecting it to give up by itself, and gives how it ended.
    #[track_caller]
    pub fn refusal(self) -> Refusal {
        let dir = TempDir::with_prefix("payload-registry-test-").expect("a directory for the test");
        let root = self.root.clone().unwrap_or_else(|| dir.path().join("root"));
        let mut process = self.run(dir.path(), &root);
        let _show = ShowOnFailure::new("server", &process.log);
        if let Some(address) = process.listening("http") {
            panic!("the server started, and listens on {address}");
        }
        Refusal { status: process.wait(), output: process.log.text() }
    }

    #[track_caller]
    fn run(&self, dir: &Path, root: &Path) -> Process {
        let mut command = command();
        command.arg("serve").arg("--listen").arg(&self.listen).arg("--root").arg(root);
        if let Some(text) = &self.config {
            let path = dir.join("config.yaml");
            std::fs::write(&path, text).expect("a file in the test's own directory");
            command.arg("--config").arg(path);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if !self.has_io_uring {
            // SAFETY: between fork and exec only system calls are made, which is safe there.
            unsafe {
                command.pre_exec(forbid_io_uring);
            }
        }
        Process::start(command)
    }
}

/// How the program ended when it didn't want to start.
#[derive(Debug)]
pub struct Refusal {
    /// Its exit status.
    pub status: ExitStatus,
    /// All that it wrote.
    pub output: String,
}

impl Refusal {
    /// Fails the test unless the program ended with an error status and a message that mentions each of `words`,
    /// rather than with a panic or a signal.
    #[track_caller]
    pub fn mentions(self, words: &[&str]) {
        assert!(matches!(self.status.code(), Some(code) if code != 0), "{}: {}", self.status, self.output);
        assert!(!self.output.contains("panicked at"), "{}", self.output);
        for word in words {
            assert!(self.output.contains(word), "no {word:?} in: {}", self.output);
        }
    }
}

/// Runs one of the program's commands to its end, in `dir`.
#[track_caller]
pub fn run(args: &[&str], dir: &Path) -> Refusal {
    let output = command().args(args).current_dir(dir).output().expect("the program runs");
    let text = [output.stdout, output.stderr].concat();
    Refusal { status: output.status, output: String::from_utf8_lossy(&text).into_owned() }
}

/// A running server, with a root of its own. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    launch: Launch,
    process: Process,
    address: SocketAddr,
    root: PathBuf,
    show: Option<ShowOnFailure>,
    _dir: TempDir,
}

impl Server {
    /// Starts a server with the default settings.
    #[track_caller]
    pub fn start() -> Self {
        Launch::new().start()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory it keeps everything in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How many bytes of the disk its root takes.
    pub fn disk_usage(&self) -> u64 {
        usage(&self.root)
    }

    /// How many files and sockets it has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// Whether it uses io_uring.
    pub fn has_io_uring(&self) -> bool {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).into_iter().flatten().flatten();
        files
            .filter_map(|file| file.path().read_link().ok())
            .any(|target| target.as_os_str() == "anon_inode:[io_uring]")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A registry client without credentials.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Its private interface, on the socket in the root.
    pub fn private(&self) -> Private {
        Private::unix(self.root.join("private.sock"))
    }

    /// All that it has written since it was started.
    pub fn log(&self) -> String {
        self.process.log.text()
    }

    /// A plain connection.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Fails the test unless every thread of the server answers: with one connection open per try, so many tries that
    /// a thread would have to be missed again and again by chance.
    #[track_caller]
    pub fn assert_alive(&self) {
        let mut connections: Vec<_> = (0..24).map(|_| self.connect()).collect();
        let ping = Request::new("GET", "/v2/");
        for connection in &mut connections {
            connection.send(&ping);
        }
        for connection in &mut connections {
            match connection.receive("GET") {
                Ok(response) => drop(response.expect_any(&[200, 401])),
                Err(e) => panic!("a thread of the server does not answer: {e}"),
            }
        }
    }

    /// Asks it to end (SIGTERM), and doesn't wait.
    pub fn ask_to_end(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.wait()
    }

    /// Kills it (SIGKILL).
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.wait();
    }

    /// Starts it again on the same root, after it has ended. The port is another one.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.process.ended(), "the server still runs");
        self.process = self.launch.run(self._dir.path(), &self.root);
        self.show = Some(ShowOnFailure::new("server", &self.process.log));
        self.address = self.process.listening("http").expect("the server listens again");
    }
}

/// The bytes on the disk of a file, or of all that is in a directory. What vanishes meanwhile counts for nothing.
fn usage(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    metadata.blocks() * 512 + entries.map(|entry| usage(&entry.path())).sum::<u64>()
}

/// A server that the tests of one file share: it starts when the first of them needs it, and ends with the last.
#[derive(Debug)]
pub struct Shared {
    launch: fn() -> Launch,
    server: Mutex<Weak<Server>>,
}

impl Shared {
    /// A server that is started in this way.
    pub const fn new(launch: fn() -> Launch) -> Self {
        Self { launch, server: Mutex::new(Weak::new()) }
    }

    /// The running server.
    #[track_caller]
    pub fn get(&self) -> Lease {
        let mut shared = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let server = shared.upgrade().unwrap_or_else(|| {
            let mut server = (self.launch)().start();
            server.show = None;
            Arc::new(server)
        });
        *shared = Arc::downgrade(&server);
        Lease { _show: ShowOnFailure::new("server", &server.process.log), server }
    }
}

/// One test's hold of a [`Shared`] server.
#[derive(Debug)]
pub struct Lease {
    _show: ShowOnFailure,
    server: Arc<Server>,
}

impl std::ops::Deref for Lease {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
