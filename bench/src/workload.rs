//! What is done to a registry.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;
use std::{io, iter};

use crate::content::{Content, digest};
use crate::crowd::Request;
use crate::http::{Answer, Connection};
use crate::report::Outcome;

/// How a blob is uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// POST, then PUT with the bytes.
    Put,
    /// POST, PATCH with the bytes, PUT: as Docker does.
    Patch,
    /// One POST with the bytes.
    Post,
}

/// Media type of an image's manifest.
pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Runs `operation` for each number below `count`, on `clients` connections. Its result is the bytes that it moved.
pub fn run(
    address: SocketAddr,
    clients: usize,
    count: usize,
    operation: impl Fn(&mut Connection, usize) -> io::Result<u64> + Sync,
) -> Outcome {
    let next = AtomicUsize::new(0);
    let client = || {
        let mut outcome = Outcome::default();
        let mut connection = None;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return outcome;
            }
            let began = Instant::now();
            let result = match connection.take() {
                Some(connection) => Ok(connection),
                None => Connection::open(address),
            };
            let result = result.and_then(|mut open| {
                let bytes = operation(&mut open, number)?;
                connection = Some(open);
                Ok(bytes)
            });
            match result {
                Ok(bytes) => {
                    outcome.latencies.push(began.elapsed());
                    outcome.bytes += bytes;
                }
                Err(error) => outcome.failures.push(error.to_string()),
            }
        }
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        running
            .into_iter()
            .map(|client| client.join().expect("clients do not panic"))
            .fold(Outcome::default(), Outcome::merge)
    })
}

/// The answer, if it has this status.
pub fn expect(answer: Answer, status: u16, what: &str) -> io::Result<Answer> {
    if answer.status == status {
        return Ok(answer);
    }
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    Err(io::Error::other(format!("{what} answered {} instead of {status}: {body}", answer.status)))
}

fn with_digest(location: &str, digest: &str) -> String {
    format!("{location}{}digest={digest}", if location.contains('?') { '&' } else { '?' })
}

/// Uploads a blob.
pub fn push_blob(connection: &mut Connection, repository: &str, blob: &Content, way: Way) -> io::Result<u64> {
    let uploads = format!("/v2/{repository}/blobs/uploads/");
    if way == Way::Post {
        expect(connection.send("POST", &with_digest(&uploads, &blob.digest), blob)?, 201, "POST of a blob")?;
        return Ok(blob.len);
    }
    let begun = expect(connection.request("POST", &uploads, "", b"")?, 202, "POST")?;
    let location =
        |answer: Answer| answer.location.ok_or_else(|| io::Error::other("an upload without Location"));
    let mut session = location(begun)?;
    if way == Way::Patch {
        let patched = connection.send("PATCH", &session, blob)?;
        session = location(expect(patched, 202, "PATCH")?)?;
        let put = connection.request("PUT", &with_digest(&session, &blob.digest), "", b"")?;
        expect(put, 201, "PUT")?;
    } else {
        let put = connection.send("PUT", &with_digest(&session, &blob.digest), blob)?;
        expect(put, 201, "PUT of a blob")?;
    }
    Ok(blob.len)
}

/// Downloads a blob.
pub fn pull_blob(repository: &str, digest: &str) -> Request {
    Request::get(format!("/v2/{repository}/blobs/{digest}"), String::new())
}

/// Downloads the bytes of a blob from `start` on, `len` of them.
pub fn pull_range(repository: &str, digest: &str, start: u64, len: u64) -> Request {
    let range = format!("Range: bytes={start}-{}\r\n", start + len.max(1) - 1);
    Request { status: 206, ..Request::get(format!("/v2/{repository}/blobs/{digest}"), range) }
}

/// Gets a manifest, by its tag or its digest.
pub fn pull_manifest(repository: &str, reference: &str) -> Request {
    Request::get(format!("/v2/{repository}/manifests/{reference}"), format!("Accept: {IMAGE}\r\n"))
}

/// Blobs, numbered from `first`.
pub fn blobs(first: u64, count: usize, len: u64) -> Vec<Content> {
    (first..).take(count).map(|number| Content::new(number, len)).collect()
}

/// An image: layers, a config, and the manifest.
#[derive(Clone, Debug)]
pub struct Image {
    /// The layers.
    pub layers: Vec<Content>,
    /// The config.
    pub config: Content,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
}

impl Image {
    /// The image of this number, with layers of these lengths.
    pub fn new(number: u64, layers: &[u64]) -> Self {
        let first = number << 16;
        let layers: Vec<_> =
            (first + 1..).zip(layers).map(|(number, len)| Content::new(number, *len)).collect();
        let config = Content::new(first, 600);
        let descriptor = |kind: &str, content: &Content| {
            serde_json::json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": content.digest, "size": content.len,
            })
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": descriptor("config.v1+json", &config),
            "layers": layers.iter().map(|layer| descriptor("layer.v1.tar+gzip", layer)).collect::<Vec<_>>(),
        });
        Self { layers, config, manifest: manifest.to_string().into_bytes() }
    }

    /// Pushes it as clients do: HEAD of each blob, its upload, the manifest.
    pub fn push(
        &self,
        connection: &mut Connection,
        repository: &str,
        tag: &str,
        way: Way,
    ) -> io::Result<u64> {
        let mut bytes = 0;
        for blob in self.layers.iter().chain(iter::once(&self.config)) {
            let target = format!("/v2/{repository}/blobs/{}", blob.digest);
            if connection.request("HEAD", &target, "", b"")?.status != 200 {
                bytes += push_blob(connection, repository, blob, way)?;
            }
        }
        let content_type = format!("Content-Type: {IMAGE}\r\n");
        let target = format!("/v2/{repository}/manifests/{tag}");
        expect(connection.request("PUT", &target, &content_type, &self.manifest)?, 201, "PUT of a manifest")?;
        Ok(bytes + self.manifest.len() as u64)
    }

    /// Pulls it as a node does: the manifest by tag and by digest, the config, the layers.
    pub fn pull(&self, repository: &str, tag: &str) -> Vec<Request> {
        let by_tag = Request { method: "HEAD", ..pull_manifest(repository, tag) };
        let manifest = pull_manifest(repository, &digest(&self.manifest));
        let blobs = iter::once(&self.config).chain(&self.layers);
        [by_tag, manifest].into_iter().chain(blobs.map(|blob| pull_blob(repository, &blob.digest))).collect()
    }
}
