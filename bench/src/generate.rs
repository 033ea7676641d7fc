//! A large store: the metadata of many images, in batches, as pushes would have left it; files of the blobs are not made.

use std::path::Path;
use std::time::Instant;

use engine::metadata::{
    FileId, Metadata, MetadataError, NewContent, PutManifest, TagCondition, Timestamp, Transaction,
};
use engine::oci::{Algorithm, ContentHasher, Digest, Manifest, RepositoryName, media_type};

/// Layers of each image; an image is that many blobs and one more, its config.
const LAYERS: u64 = 3;

/// Images that one repository has.
const IMAGES_PER_REPOSITORY: u64 = 100;

/// Images that are written in one transaction.
const BATCH: u64 = 500;

/// Why a store could not be filled.
#[derive(Debug)]
pub enum GenerateError {
    /// The root is there already, or cannot be made.
    Root(std::io::Error),
    /// The metadata.
    Metadata(MetadataError),
}

impl std::fmt::Display for GenerateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root(error) => write!(f, "{error}"),
            Self::Metadata(error) => write!(f, "{error}"),
        }
    }
}

/// Makes `root` with the metadata of about `blobs` blobs, in so many `namespaces`.
pub fn generate(root: &Path, blobs: u64, namespaces: u64) -> Result<(), GenerateError> {
    std::fs::create_dir(root).map_err(GenerateError::Root)?;
    let metadata =
        Metadata::open_file(root.join("metadata.redb"), 256 << 20).map_err(GenerateError::Metadata)?;
    let images = blobs.div_ceil(LAYERS + 1);
    let of_namespace = images.div_ceil(namespaces);
    let began = Instant::now();
    for first in (0..images).step_by(BATCH as usize) {
        let last = (first + BATCH).min(images);
        let write = move |transaction: &mut Transaction<'_>| {
            (first..last).try_for_each(|image| put_image(transaction, image / of_namespace, image))
        };
        metadata.write_blocking(write).map_err(GenerateError::Metadata)?;
        if first % (BATCH * 50) == 0 {
            eprintln!(
                "{} of {blobs} blobs after {:.0} s",
                first * (LAYERS + 1),
                began.elapsed().as_secs_f64()
            );
        }
    }
    Ok(())
}

fn put_image(transaction: &mut Transaction<'_>, namespace: u64, image: u64) -> Result<(), MetadataError> {
    let name = format!("generated-{namespace}/app-{}", image / IMAGES_PER_REPOSITORY);
    let repository: RepositoryName = name.parse().expect("a name");
    let now = Timestamp(image);
    let blob = |number: u64| ContentHasher::digest(Algorithm::Sha256, &(image * 16 + number).to_le_bytes());
    for number in 0..=LAYERS {
        let mut file = [0; 16];
        file.copy_from_slice(&blob(number).value()[..16]);
        transaction.commit_blob(
            &repository,
            &blob(number),
            1 << 20,
            NewContent::File(FileId(file)),
            None,
            now,
        )?;
    }
    let descriptor = |kind: &str, digest: Digest| serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": 1 << 20});
    let body = serde_json::json!({
        "schemaVersion": 2,
        "config": descriptor("config.v1+json", blob(0)),
        "layers": (1..=LAYERS).map(|number| descriptor("layer.v1.tar+gzip", blob(number))).collect::<Vec<_>>(),
    });
    let body = body.to_string().into_bytes();
    let manifest = Manifest::parse(Some(media_type::OCI_MANIFEST), &body).expect("a manifest");
    let put = PutManifest {
        digest: ContentHasher::digest(Algorithm::Sha256, &body),
        manifest: &manifest,
        size: body.len() as u64,
        content: NewContent::Inline(body.into()),
        tags: &[format!("v{image}").parse().expect("a tag")],
        condition: &TagCondition::Any,
        now,
    };
    transaction.put_manifest(&repository, put)?.expect("all that it refers to was stored before");
    Ok(())
}
