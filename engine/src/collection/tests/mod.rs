//! Collection as its callers see it.

mod deaths;
mod figures;
mod memory_files;
mod model;
mod process;
mod races;
mod random;

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::metadata::{NewContent, PutManifest, TagCondition, Transaction};
use crate::oci::{Algorithm, ContentHasher, Digest, Manifest, RepositoryName, Tag, media_type};
use crate::{Engine, EngineOptions, Environment};

fn options(root: &Path) -> EngineOptions {
    EngineOptions {
        root: root.to_path_buf(),
        direct_writes: false,
        reserve_bytes: 0,
        cache_bytes: crate::metadata::CACHE_SIZE_DEFAULT,
        buffer_bytes: 32 << 20,
        upload_expiry: Duration::from_secs(3600),
        quotas: crate::Quotas::default(),
    }
}

fn engine(root: &Path) -> Engine {
    Engine::open(options(root), Environment::system()).expect("opens")
}

/// Nothing is too young.
fn at_once(mode: Mode) -> CollectionOptions {
    let age = Duration::ZERO;
    CollectionOptions {
        mode,
        untagged_age: age,
        blob_age: age,
        stray_age: age,
        ..CollectionOptions::default()
    }
}

fn name(text: &str) -> RepositoryName {
    text.parse().expect("a name")
}

fn digest(text: &str) -> Digest {
    ContentHasher::digest(Algorithm::Sha256, text.as_bytes())
}

fn image(blobs: &[Digest]) -> Manifest {
    Manifest {
        media_type: media_type::OCI_MANIFEST.into(),
        artifact_type: None,
        subject: None,
        config: None,
        blobs: blobs.to_vec(),
        foreign_blobs: Vec::new(),
        children: Vec::new(),
        annotations: None,
    }
}
