//! The protocol's types, parsed once at the edge: a value of one of these types cannot be malformed.
//!
//! Grammar and terms follow the OCI distribution specification ("Pulling manifests") and the OCI image
//! specification ("Descriptor", "Image manifest", "Image index").

mod digest;
mod hasher;
pub mod manifest;
pub mod media_type;
mod name;
mod strict_json;
mod tag;

pub use digest::{Algorithm, Digest, DigestError};
pub use hasher::{ContentHasher, HashState};
pub use manifest::{Descriptor, Manifest, ManifestError};
pub use name::{NameError, RepositoryName};
pub use tag::{Tag, TagError};
