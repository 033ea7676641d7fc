//! A private interface over TLS: the files of both ends, and where it is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::authority::{Certificate, replace_file};
use crate::eventually;
use crate::server::{Launch, Server};

/// The files of a private interface over TLS.
#[derive(Debug)]
pub struct PrivateTls {
    directory: TempDir,
}

impl PrivateTls {
    /// The server's certificate, and the authorities (PEM) of those who may call.
    pub fn new(server: &Certificate, client_ca: &str) -> Self {
        let files = Self { directory: TempDir::with_prefix("payload-registry-tls-").expect("a directory") };
        server.write(files.directory.path(), "server");
        files.write("ca.crt", client_ca);
        files
    }

    /// Where a file is: of the server, `server.crt`, `server.key`, `ca.crt`; of the component, `component.crt`,
    /// `component.key`, `servers.crt`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Replaces a file.
    pub fn write(&self, name: &str, text: &str) {
        replace_file(&self.path(name), text);
    }

    /// Says what the component shows, and whom it takes for the registry (PEM).
    pub fn equip_component(&self, certificate: &Certificate, servers: &str) {
        self.write("servers.crt", servers);
        certificate.write(self.directory.path(), "component");
    }

    /// A server that serves it, on a free port.
    pub fn launch(&self, launch: Launch) -> Launch {
        let set = |launch: Launch, name: &str, path: &Path| {
            launch.env(&format!("PAYLOAD_REGISTRY_PRIVATE_{name}"), path.display().to_string())
        };
        let launch = set(launch, "LISTEN", Path::new("127.0.0.1:0"));
        let launch = set(launch, "TLS_CERTIFICATE", &self.path("server.crt"));
        let launch = set(launch, "TLS_KEY", &self.path("server.key"));
        set(launch, "TLS_CLIENT_CA", &self.path("ca.crt"))
    }

    /// What the component is told of its files.
    pub fn component_args(&self) -> Vec<String> {
        let flag = |flag: &str, name: &str| format!("--registry-{flag}-file={}", self.path(name).display());
        vec![flag("ca", "servers.crt"), flag("cert", "component.crt"), flag("key", "component.key")]
    }
}

/// Where a server's private interface listens, out of its log.
#[track_caller]
pub fn private_address(server: &Server) -> SocketAddr {
    let line = eventually("the log says where", || {
        let log = server.log();
        log.lines().find(|line| line.contains("private interface over TLS")).map(str::to_owned)
    });
    let start = line.find("127.0.0.1:").expect("an address");
    let end = line[start..].find(|c: char| !(c.is_ascii_digit() || ".:".contains(c)));
    line[start..start + end.unwrap_or(line.len() - start)].parse().expect("an address")
}
