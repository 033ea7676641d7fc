//! Runs the commands that administer a registry.

use std::path::Path;
use std::process::{Child, Output, Stdio};

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::eventually;
use crate::server::{Server, command};

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    /// What it was asked for.
    arguments: Vec<String>,
    /// How it ended; `None`: by a signal.
    pub code: Option<i32>,
    /// Its answer.
    pub stdout: String,
    /// What it said beside.
    pub stderr: String,
}

impl Ended {
    fn new(arguments: &[&str], output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Fails the test unless it ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        let Self { arguments, stdout, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "{arguments:?}\n{stdout}\n{stderr}");
        self
    }

    /// Its answer, which is one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// Runs a command to its end, on the registry that has, or had, this root.
#[track_caller]
pub fn on_root(root: &Path, arguments: &[&str]) -> Ended {
    let output = command().args(arguments).arg("--root").arg(root).stdin(Stdio::null()).output();
    Ended::new(arguments, output.expect("the program runs"))
}

/// The same for a server.
#[track_caller]
pub fn on(server: &Server, arguments: &[&str]) -> Ended {
    on_root(server.root(), arguments)
}

/// The answer of a command that must be done, as JSON.
#[track_caller]
pub fn answer(server: &Server, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    on(server, &arguments).expect(0).json()
}

/// Runs a command without a root.
#[track_caller]
pub fn anywhere(arguments: &[&str]) -> Ended {
    Ended::new(arguments, command().args(arguments).stdin(Stdio::null()).output().expect("the program runs"))
}

/// A command that is running. Dropping it kills it.
#[derive(Debug)]
pub struct Running(Option<Started>);

#[derive(Debug)]
struct Started {
    arguments: Vec<String>,
    child: Child,
    stderr: NamedTempFile,
}

/// Begins a command on a server, and does not wait for its end.
#[track_caller]
pub fn begin(server: &Server, arguments: &[&str]) -> Running {
    let stderr = NamedTempFile::new().expect("a file");
    let mut command = command();
    command.args(arguments).arg("--root").arg(server.root()).stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.stderr(stderr.reopen().expect("a file")).spawn().expect("the program runs");
    let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    Running(Some(Started { arguments, child, stderr }))
}

impl Running {
    /// Waits until it has said `text` on its standard error.
    #[track_caller]
    pub fn wait_until_it_says(&self, text: &str) {
        let started = self.0.as_ref().expect("it has not ended");
        eventually(text, || {
            let said = std::fs::read_to_string(&started.stderr).expect("text");
            said.contains(text).then_some(())
        });
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let Started { arguments, child, stderr } = self.0.take().expect("it is taken once");
        let mut output = child.wait_with_output().expect("a child can be waited for");
        output.stderr = std::fs::read(&stderr).expect("what it says");
        Ended::new(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(started) = &mut self.0 {
            let _ = started.child.kill();
            let _ = started.child.wait();
        }
    }
}
