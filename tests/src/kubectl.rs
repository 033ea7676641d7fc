//! Runs the real `kubectl`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::LazyLock;

use serde_json::Value;

use crate::tools::tool;

/// `kubectl`, as somebody.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    /// What goes before each command's own arguments.
    args: Vec<String>,
}

/// What a command came to.
#[derive(Debug)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Kubectl {
    /// `kubectl` with that kubeconfig. What it caches is kept beside that file.
    pub fn new(kubeconfig: impl Into<PathBuf>) -> Self {
        Self { kubeconfig: kubeconfig.into(), args: Vec::new() }
    }

    /// The same with arguments that go before those of each command.
    pub fn with(&self, args: &[&str]) -> Self {
        let args = self.args.iter().cloned().chain(args.iter().map(|&arg| arg.to_owned())).collect();
        Self { kubeconfig: self.kubeconfig.clone(), args }
    }

    /// A command, not started yet.
    #[track_caller]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        let home = self.kubeconfig.parent().unwrap_or(Path::new("/"));
        command
            .args(["--cache-dir", &self.kubeconfig.with_extension("cache").to_string_lossy()])
            .args(&self.args)
            .args(args)
            .current_dir(home)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", home);
        for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(proxy);
        }
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().expect("kubectl runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Output { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs a command that works, and gives its standard output.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "kubectl {args:?}: {}{}", output.stdout, output.stderr);
        output.stdout
    }

    /// Runs a command that works, and gives its standard output as JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[args, &["-o", "json"]].concat());
        match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(e) => panic!("kubectl {args:?}: no JSON ({e}): {text}"),
        }
    }

    /// Runs a command that fails, and gives its standard error.
    #[track_caller]
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "kubectl {args:?}: {}{}", output.stdout, output.stderr);
        output.stderr
    }

    /// Runs a command with something on its standard input.
    #[track_caller]
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        use std::process::Stdio;
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl runs");
        let mut stdin = child.stdin.take().expect("piped");
        // Who fails early does not read all of it.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("kubectl ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Output { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// The program: `PAYLOAD_REGISTRY_TEST_KUBECTL`, or what is installed, or what Debian has.
#[track_caller]
fn program() -> PathBuf {
    match std::env::var_os("PAYLOAD_REGISTRY_TEST_KUBECTL") {
        Some(path) => path.into(),
        None => tool("kubectl", "kubernetes-client"),
    }
}

/// The minor version of the program: 32 for 1.32.
pub fn minor_version() -> u32 {
    static VERSION: LazyLock<u32> = LazyLock::new(|| {
        let output = Command::new(program()).args(["version", "--client", "-o", "json"]).output();
        let output = output.expect("kubectl runs");
        let version: Value = serde_json::from_slice(&output.stdout).expect("kubectl tells its version");
        let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
        minor.trim_end_matches('+').parse().expect("a minor version")
    });
    *VERSION
}
