//! Where content that is going to be pulled is put beforehand: into a registry by pushing it, or below the directory
//! that a static file server has as its root.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::content::{Content, digest};
use crate::crowd::{self, Request};
use crate::http::Connection;
use crate::report::Outcome;
use crate::workload::{Image, Way, pull_blob, push_blob, run};

/// Pushes at a time while content is being put.
const CLIENTS: usize = 8;

/// A place for content.
#[derive(Clone, Debug)]
pub enum Store {
    /// A registry.
    Registry(SocketAddr),
    /// The root of a static file server: paths below it are those of the distribution protocol.
    Files(PathBuf, SocketAddr),
}

impl Store {
    /// Puts a blob, and reads it once, so that the page cache has it.
    pub fn put_blob(&self, repository: &str, blob: &Content) -> Result<(), String> {
        match self {
            Self::Registry(address) => {
                all(*address, 1, |connection, _| push_blob(connection, repository, blob, Way::Put))?;
            }
            Self::Files(root, _) => put_file(root, repository, "blobs", &blob.digest, &blob.bytes())?,
        }
        self.pull(vec![pull_blob(repository, &blob.digest)])
    }

    /// Puts an image with these tags, and pulls it once, so that the page cache has it.
    pub fn put_image(&self, repository: &str, image: &Image, tags: &[String]) -> Result<(), String> {
        let Some(first) = tags.first() else { return Ok(()) };
        match self {
            Self::Registry(address) => {
                // The first push brings the blobs; for the others a HEAD finds them.
                all(*address, 1, |connection, _| image.push(connection, repository, first, Way::Put))?;
                all(*address, tags.len(), |connection, number| {
                    image.push(connection, repository, &tags[number], Way::Put)
                })?;
            }
            Self::Files(root, _) => {
                for blob in image.layers.iter().chain([&image.config]) {
                    put_file(root, repository, "blobs", &blob.digest, &blob.bytes())?;
                }
                for reference in tags.iter().chain([&digest(&image.manifest)]) {
                    put_file(root, repository, "manifests", reference, &image.manifest)?;
                }
            }
        }
        self.pull(image.pull(repository, first))
    }

    fn pull(&self, requests: Vec<Request>) -> Result<(), String> {
        let (Self::Registry(address) | Self::Files(_, address)) = self;
        prepared(crowd::run(*address, 1, 1, |_| requests.clone()))
    }
}

/// Does it `count` times.
fn all(
    address: SocketAddr,
    count: usize,
    operation: impl Fn(&mut Connection, usize) -> io::Result<u64> + Sync,
) -> Result<(), String> {
    prepared(run(address, CLIENTS.min(count), count, operation))
}

/// The first failure is the error.
fn prepared(outcome: Outcome) -> Result<(), String> {
    match outcome.failures.into_iter().next() {
        Some(failure) => Err(format!("the preparation failed: {failure}")),
        None => Ok(()),
    }
}

fn put_file(root: &Path, repository: &str, kind: &str, name: &str, bytes: &[u8]) -> Result<(), String> {
    let directory = root.join("v2").join(repository).join(kind);
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(directory.join(name), bytes))
        .map_err(|error| format!("cannot write {name} below {}: {error}", directory.display()))
}
