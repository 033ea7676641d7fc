//! Runs programs of this workspace as processes of their own, and makes sure that they end with the test.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::{PATIENCE, eventually};

/// A program as a command, with none of the settings that this process happens to have in its environment.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PAYLOAD_REGISTRY_"))
    {
        command.env_remove(name);
    }
    command
}

/// Builds a program into the directory that this very test was built into: `<target>/<profile>/deps/<test>`. As one of the
/// workspace, so that dependencies have the features that they have in the tests' build, and are not built once more.
pub(crate) fn build(binary: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile_dir = test.ancestors().nth(2).expect("a test lies two levels below its profile's directory");
    let target_dir = profile_dir.parent().expect("a profile's directory lies in the target directory");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--workspace", "--bin", binary, "--profile", profile, "--target-dir"])
        .arg(target_dir)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .expect("cargo runs");
    status.success().then(|| profile_dir.join(binary))
}

/// Starts a process that is killed when this one ends, however it ends.
fn spawn(mut command: Command) -> io::Result<Child> {
    // The kernel sends the signal when the *thread* that started the process ends, and a test's thread ends with the
    // test; so one thread that never ends starts them all.
    static STARTER: LazyLock<Sender<(Command, Sender<io::Result<Child>>)>> = LazyLock::new(|| {
        let (jobs, queue) = mpsc::channel::<(Command, Sender<io::Result<Child>>)>();
        thread::spawn(move || {
            for (mut command, reply) in queue {
                let _ = reply.send(command.spawn());
            }
        });
        jobs
    });
    // SAFETY: between fork and exec only a system call is made, which is safe there.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let (reply, answer) = mpsc::channel();
    STARTER.send((command, reply)).expect("the starter lives as long as the process");
    answer.recv().expect("the starter answers each job")
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// The lines of its standard output; ends with the output.
    lines: Mutex<mpsc::Receiver<String>>,
    /// What it writes.
    pub(crate) log: Log,
    /// The threads that fill the log; they end with the process.
    readers: Vec<thread::JoinHandle<()>>,
}

impl Process {
    /// Starts the program.
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command).expect("the program runs");
        let log = Log::default();
        let (sender, lines) = mpsc::channel();
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let readers = vec![
            log.follow(stdout, move |line| drop(sender.send(line.to_owned()))),
            log.follow(stderr, |_| ()),
        ];
        Self { child, lines: Mutex::new(lines), log, readers }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the line that says where it listens: "listening on `scheme`://…"; none if it ends before.
    #[track_caller]
    pub(crate) fn listening(&mut self, scheme: &str) -> Option<SocketAddr> {
        let marker = format!("listening on {scheme}://");
        let lines = self.lines.get_mut().unwrap_or_else(PoisonError::into_inner);
        loop {
            let line = match lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("the program neither listens nor ends: {}", self.log.text())
                }
            };
            let address = line.split_once(&marker).map(|(_, rest)| rest);
            if let Some(address) = address {
                let end = address
                    .find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)))
                    .unwrap_or(address.len());
                let mut address: SocketAddr = match address[..end].parse() {
                    Ok(address) => address,
                    Err(_) => panic!("an address behind {marker:?}: {line}"),
                };
                if address.ip().is_unspecified() {
                    address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
                }
                return Some(address);
            }
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status =
            eventually("the program ends", || self.child.try_wait().expect("a child can be waited for"));
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has written so far, standard output and standard error together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<String>>);

impl Log {
    /// Takes in what comes out of a pipe, and hands each line on.
    fn follow<F>(&self, pipe: impl Read + Send + 'static, on_line: F) -> thread::JoinHandle<()>
    where
        F: Fn(&str) + Send + 'static,
    {
        let log = Arc::clone(&self.0);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                *log.lock().unwrap_or_else(PoisonError::into_inner) += &format!("{line}\n");
                on_line(&line);
            }
        })
    }

    /// All of it.
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Shows what a process wrote from here on, if the test fails.
#[derive(Debug)]
pub(crate) struct ShowOnFailure {
    program: &'static str,
    log: Log,
    from: usize,
}

impl ShowOnFailure {
    /// Watches the log of a program of that name.
    pub(crate) fn new(program: &'static str, log: &Log) -> Self {
        Self { program, log: log.clone(), from: log.text().len() }
    }
}

impl Drop for ShowOnFailure {
    fn drop(&mut self) {
        if thread::panicking() {
            let text = self.log.text();
            let from = text.floor_char_boundary(self.from.max(text.len().saturating_sub(20_000)));
            eprintln!("the {} wrote:\n{}", self.program, &text[from..]);
        }
    }
}
