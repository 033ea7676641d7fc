//! The workloads: what is prepared for each, and what of it is measured.

use std::iter;
use std::net::SocketAddr;

use bytesize::ByteSize;
use clap::Subcommand;

use crate::content::Content;
use crate::crowd::{self, Request};
use crate::report::{Figures, Run};
use crate::server::Server;
use crate::store::Store;
use crate::workload::{Image, Way, blobs, pull_blob, pull_manifest, pull_range, push_blob, run};

/// What is done to a registry.
#[derive(Clone, Debug, Subcommand)]
pub enum Scenario {
    /// Push blobs of unique content.
    Push {
        /// Size of a blob.
        #[arg(long, default_value = "256MiB")]
        size: ByteSize,
        /// Blobs in all.
        #[arg(long, default_value_t = 4)]
        count: usize,
        /// Pushes at a time.
        #[arg(long, default_value_t = 1)]
        clients: usize,
        /// How they are uploaded.
        #[arg(long, value_enum, default_value = "put")]
        way: Way,
    },
    /// Pull blobs, many times.
    Pull {
        /// Size of a blob.
        #[arg(long, default_value = "256MiB")]
        size: ByteSize,
        /// Pulls in all.
        #[arg(long, default_value_t = 16)]
        count: usize,
        /// Pulls at a time.
        #[arg(long, default_value_t = 1)]
        clients: usize,
        /// Different blobs that are pulled.
        #[arg(long, default_value_t = 1)]
        blobs: usize,
        /// Pull pieces of this size by `Range`, one after the other, instead of whole blobs.
        #[arg(long)]
        range: Option<ByteSize>,
    },
    /// Many nodes pull an image of one layer of 256 MiB and twelve smaller blobs at once.
    Nodes {
        /// Nodes.
        #[arg(long, default_value_t = 64)]
        nodes: usize,
    },
    /// Push images of small layers.
    Images {
        /// Images in all.
        #[arg(long, default_value_t = 1000)]
        count: usize,
        /// Pushes at a time.
        #[arg(long, default_value_t = 8)]
        clients: usize,
        /// Layers of an image.
        #[arg(long, default_value_t = 3)]
        layers: usize,
        /// Size of a layer.
        #[arg(long, default_value = "2KiB")]
        size: ByteSize,
        /// How blobs are uploaded.
        #[arg(long, value_enum, default_value = "put")]
        way: Way,
        /// All into one repository, instead of a new one for each.
        #[arg(long)]
        same_repository: bool,
    },
    /// Get a manifest by its tag.
    Manifests {
        /// Requests in all.
        #[arg(long, default_value_t = 100_000)]
        count: usize,
        /// Connections.
        #[arg(long, default_value_t = 64)]
        clients: usize,
        /// Tags that the repository has.
        #[arg(long, default_value_t = 10)]
        tags: usize,
    },
    /// List the tags of a repository, whole and a page of 100.
    Tags {
        /// Tags that the repository has.
        #[arg(long, default_value_t = 10_000)]
        tags: usize,
        /// Lists in all, of each kind.
        #[arg(long, default_value_t = 200)]
        count: usize,
        /// Connections.
        #[arg(long, default_value_t = 2)]
        clients: usize,
    },
    /// Pushes and pulls of small images at once, three pulls to a push.
    Mixed {
        /// Operations in all.
        #[arg(long, default_value_t = 1000)]
        count: usize,
        /// Clients.
        #[arg(long, default_value_t = 10)]
        clients: usize,
        /// Size of the layer.
        #[arg(long, default_value = "1MiB")]
        size: ByteSize,
    },
}

impl Scenario {
    /// Whether a server of static files can do it.
    pub fn is_static(&self) -> bool {
        matches!(self, Self::Pull { .. } | Self::Nodes { .. } | Self::Manifests { .. })
    }

    /// Prepares it, does it, and measures the doing; each `round` has content of its own.
    pub fn measure(
        &self,
        address: SocketAddr,
        store: &Store,
        server: &Server,
        round: usize,
    ) -> Result<Vec<Figures>, String> {
        let first = (round as u64) << 32;
        Ok(match self {
            Self::Push { size, count, clients, way } => {
                let blobs = blobs(first, *count, size.as_u64());
                let measured = Run::begin(server);
                let outcome = run(address, *clients, *count, |connection, number| {
                    push_blob(connection, "bench/push", &blobs[number], *way)
                });
                vec![measured.end(&format!("push {count} x {size} by {clients}, {way:?}"), outcome)]
            }
            Self::Pull { size, count, clients, blobs: different, range } => {
                let blobs = blobs(first, *different.max(&1), size.as_u64());
                for blob in &blobs {
                    store.put_blob("bench/pull", blob)?;
                }
                let measured = Run::begin(server);
                let outcome = crowd::run(address, *clients, *count, |number| {
                    vec![pull(&blobs[number % blobs.len()], *range, number)]
                });
                let range = range.map_or_else(String::new, |range| format!(", ranges of {range}"));
                let of = if blobs.len() > 1 { format!(" of {}", blobs.len()) } else { String::new() };
                vec![measured.end(&format!("pull {count} x {size}{of} by {clients}{range}"), outcome)]
            }
            Self::Nodes { nodes } => {
                let sizes: Vec<u64> =
                    iter::once(256 << 20).chain((0..12).map(|size| 1 << (10 + size))).collect();
                let image = Image::new(first, &sizes);
                store.put_image("bench/nodes", &image, &["latest".to_owned()])?;
                let measured = Run::begin(server);
                let outcome = crowd::run(address, *nodes, *nodes, |_| image.pull("bench/nodes", "latest"));
                vec![measured.end(&format!("{nodes} nodes pull an image"), outcome)]
            }
            Self::Images { count, clients, layers, size, way, same_repository } => {
                let images: Vec<Image> = (0..*count as u64)
                    .map(|number| Image::new(first + number, &vec![size.as_u64(); *layers]))
                    .collect();
                let measured = Run::begin(server);
                let outcome = run(address, *clients, *count, |connection, number| {
                    let own = format!("bench/image-{round}-{number}");
                    let repository = if *same_repository { "bench/images" } else { &own };
                    images[number].push(connection, repository, &format!("v{round}-{number}"), *way)
                });
                let into = if *same_repository { ", one repository" } else { "" };
                let name = format!("push images {layers} x {size} by {clients}, {way:?}{into}");
                vec![measured.end(&name, outcome)]
            }
            Self::Manifests { count, clients, tags } => {
                let tags = (*tags).max(1);
                let repository = format!("bench/manifests-{tags}");
                store.put_image(&repository, &Image::new(first, &[100]), &tag_names(tags))?;
                let measured = Run::begin(server);
                let mut outcome = crowd::run(address, *clients, *count, |number| {
                    vec![pull_manifest(&repository, &format!("t{}", number % tags))]
                });
                outcome.bytes = 0;
                vec![measured.end(&format!("get a manifest, {tags} tags, by {clients}"), outcome)]
            }
            Self::Tags { tags, count, clients } => {
                let tags = (*tags).max(1);
                let repository = format!("bench/tags-{tags}");
                store.put_image(&repository, &Image::new(first, &[100]), &tag_names(tags))?;
                let list = |(name, query)| {
                    let target = format!("/v2/{repository}/tags/list{query}");
                    let measured = Run::begin(server);
                    let mut outcome = crowd::run(address, *clients, *count, |_| {
                        vec![Request::get(target.clone(), String::new())]
                    });
                    outcome.bytes = 0;
                    measured.end(&format!("list {tags} tags, {name}"), outcome)
                };
                [("whole", ""), ("a page of 100", "?n=100&last=t5")].map(list).into()
            }
            Self::Mixed { count, clients, size } => {
                let known = Image::new(first, &[size.as_u64()]);
                store.put_image("bench/mixed", &known, &["latest".to_owned()])?;
                let pushed: Vec<Image> = (1..=*count as u64 / 4 + 1)
                    .map(|number| Image::new(first + number, &[size.as_u64()]))
                    .collect();
                let measured = Run::begin(server);
                let outcome = run(address, *clients, *count, |connection, number| match number % 4 {
                    0 => {
                        let repository = format!("bench/mixed-{round}-{number}");
                        pushed[number / 4].push(connection, &repository, "latest", Way::Put)
                    }
                    _ => known
                        .pull("bench/mixed", "latest")
                        .iter()
                        .try_fold(0, |bytes, request| Ok(bytes + connection.pull(request)?)),
                });
                vec![measured.end(&format!("mixed 25/75, {size} by {clients}"), outcome)]
            }
        })
    }
}

/// A blob, or a piece of it: each time the next one.
fn pull(blob: &Content, range: Option<ByteSize>, number: usize) -> Request {
    let Some(range) = range.filter(|_| blob.len > 0) else { return pull_blob("bench/pull", &blob.digest) };
    let len = range.as_u64().clamp(1, blob.len);
    let start = (number as u64 * len) % (blob.len - len + 1);
    pull_range("bench/pull", &blob.digest, start, len)
}

/// `t0`, `t1` and so on.
fn tag_names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("t{number}")).collect()
}
