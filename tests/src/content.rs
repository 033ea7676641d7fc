//! Blobs, digests, descriptors and manifests.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

/// Media type of an OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an uncompressed OCI layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of the empty configuration that artifacts use.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Media type of a Docker schema 2 manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of a Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A digest function: from content to the digest as it is written.
pub type Digest = fn(&[u8]) -> String;

/// The digest functions of the specification.
pub const DIGESTS: [Digest; 2] = [sha256, sha512];

/// The SHA-256 digest as it is written.
pub fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

/// The SHA-512 digest as it is written.
pub fn sha512(content: &[u8]) -> String {
    format!("sha512:{}", hex::encode(Sha512::digest(content)))
}

/// `length` bytes that don't repeat, different for each `seed` and always the same for one.
pub fn bytes(seed: &str, length: usize) -> Vec<u8> {
    let start = Sha256::digest(seed.as_bytes());
    let mut state = u64::from_le_bytes(start[..8].try_into().expect("eight bytes")) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        out.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(length);
    out
}

/// A descriptor of some content.
pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(content), "size": content.len()})
}

/// An OCI image manifest, as JSON to be changed further.
pub fn image(config: Value, layers: Vec<Value>) -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers})
}

/// An OCI image index, as JSON to be changed further.
pub fn index<'a>(manifests: impl IntoIterator<Item = &'a Manifest>) -> Value {
    let manifests: Vec<Value> = manifests.into_iter().map(Manifest::descriptor).collect();
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
}

/// The configuration of an artifact, which is always the same.
pub const EMPTY_CONFIG: &[u8] = b"{}";

/// An artifact manifest with an empty configuration and no layers; `marker` makes it differ from others.
pub fn artifact(artifact_type: &str, marker: &str) -> Value {
    let mut document = image(descriptor(OCI_EMPTY, EMPTY_CONFIG), Vec::new());
    document["artifactType"] = artifact_type.into();
    document["annotations"] = json!({"org.example.marker": marker});
    document
}

/// A manifest of any kind: its exact bytes, and its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The type it is pushed with.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Manifest {
    /// A manifest of the type that the document itself names.
    pub fn new(document: &Value) -> Self {
        let media_type = document["mediaType"].as_str().expect("a document with a mediaType");
        Self { media_type: media_type.into(), bytes: document.to_string().into_bytes() }
    }

    /// Its SHA-256 digest.
    pub fn digest(&self) -> String {
        sha256(&self.bytes)
    }

    /// A descriptor that points to it.
    pub fn descriptor(&self) -> Value {
        descriptor(&self.media_type, &self.bytes)
    }
}
