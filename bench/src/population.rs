//! Small images in a few repositories, a third of which are deleted: what there is to be collected.

use std::io;
use std::net::SocketAddr;

use crate::content::digest;
use crate::http::Connection;
use crate::report::Outcome;
use crate::workload::{Image, Way, expect, pull_manifest, run};

/// Of so many images, one is deleted.
const DELETED_OF: usize = 3;

/// The images.
pub struct Population {
    images: Vec<Image>,
    repositories: usize,
    clients: usize,
}

impl Population {
    /// So many images, numbered from `first`, with layers of these lengths. `clients` push and pull them at a time.
    pub fn new(first: u64, count: usize, repositories: usize, layers: &[u64], clients: usize) -> Self {
        let images = (first..).take(count).map(|number| Image::new(number, layers)).collect();
        Self { images, repositories: repositories.max(1), clients }
    }

    /// Pushes all images.
    pub fn push(&self, address: SocketAddr) -> Result<(), String> {
        let outcome = run(address, self.clients, self.images.len(), |connection, number| {
            self.images[number].push(connection, &self.repository(number), &tag(number), Way::Put)
        });
        first_failure(&outcome, "pushing")
    }

    /// Deletes every third image by its digest, which is what all registries know how to do.
    pub fn delete(&self, address: SocketAddr) -> Result<(), String> {
        let dead: Vec<usize> = (0..self.images.len()).filter(|number| !is_alive(*number)).collect();
        let outcome = run(address, self.clients, dead.len(), |connection, index| {
            let (repository, reference) = (self.repository(dead[index]), self.digest(dead[index]));
            let target = format!("/v2/{repository}/manifests/{reference}");
            expect(connection.request("DELETE", &target, "", b"")?, 202, "DELETE of a manifest")?;
            Ok(0)
        });
        first_failure(&outcome, "deleting")
    }

    /// Pulls what is alive, each byte of it looked at, and looks in vain for what is not.
    pub fn verify(&self, address: SocketAddr) -> Outcome {
        run(address, self.clients, self.images.len(), |connection, number| {
            let repository = self.repository(number);
            if is_alive(number) {
                self.pull_whole(connection, &repository, number)
            } else {
                let gone = pull_manifest(&repository, &self.digest(number));
                connection.pull(&crate::crowd::Request { status: 404, ..gone })?;
                Ok(0)
            }
        })
    }

    fn pull_whole(&self, connection: &mut Connection, repository: &str, number: usize) -> io::Result<u64> {
        let image = &self.images[number];
        let target = |kind, reference: &str| format!("/v2/{repository}/{kind}/{reference}");
        let accept = format!("Accept: {}\r\n", crate::workload::IMAGE);
        let mut pull = |target: &str, digest_wanted: &str| -> io::Result<u64> {
            let answer = expect(connection.request("GET", target, &accept, b"")?, 200, target)?;
            if digest(&answer.body) != digest_wanted {
                return Err(io::Error::other(format!(
                    "{target} has other bytes than those that were pushed"
                )));
            }
            Ok(answer.body.len() as u64)
        };
        let mut bytes = pull(&target("manifests", &tag(number)), &self.digest(number))?;
        for blob in image.layers.iter().chain([&image.config]) {
            bytes += pull(&target("blobs", &blob.digest), &blob.digest)?;
        }
        Ok(bytes)
    }

    fn repository(&self, number: usize) -> String {
        format!("bench/collect-{}", number % self.repositories)
    }

    fn digest(&self, number: usize) -> String {
        digest(&self.images[number].manifest)
    }
}

fn is_alive(number: usize) -> bool {
    !number.is_multiple_of(DELETED_OF)
}

fn tag(number: usize) -> String {
    format!("t{number}")
}

fn first_failure(outcome: &Outcome, what: &str) -> Result<(), String> {
    match outcome.failures.first() {
        Some(failure) => Err(format!("{what} failed: {failure}")),
        None => Ok(()),
    }
}
