use engine::EngineError;
use engine::metadata::{RepositoryId, Snapshot};
use engine::oci::Digest;
use interface::{GetTag, Reason, TagDetails};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{TagFacts, denied, repository_and_tag, unknown};
use crate::private::refusal::Refusal;
use crate::private::service::Context;
use crate::private::sight::{Sight, caller_name};

/// Bytes of an image's configuration that is read for this.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The types of images' configurations.
const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// A tag with what it points at.
pub(in crate::private) async fn get(context: &Context, call: GetTag) -> Result<TagDetails, Refusal> {
    let GetTag { caller, namespace, name } = &call;
    let (repository, tag) = repository_and_tag(namespace, name).ok_or_else(|| unknown(namespace, name))?;
    let sight = Sight::of(&context.shared, caller)?;
    if !sight.view().may_get(namespace, repository.path()) {
        return Err(denied(namespace, repository.path(), caller_name(caller), "get"));
    }
    let snapshot = context.core.metadata().snapshot()?;
    let id = snapshot.repository(&repository)?.ok_or_else(|| unknown(namespace, name))?;
    let record = snapshot.tag(id, &tag)?.ok_or_else(|| unknown(namespace, name))?;
    let manifest = snapshot.manifest(id, &record.digest)?;
    let manifest = manifest.ok_or(EngineError::Missing(record.digest))?;

    let bytes = context.core.read_manifest(&snapshot, &record.digest).await?;
    let text = String::from_utf8(bytes.into()).map_err(|_| {
        Refusal::new(Reason::Internal, format!("the manifest {} of {repository} is no text", record.digest))
    })?;
    let config = match manifest.config {
        Some(config) if has_image_config(&text) => read_config(context, &snapshot, id, &config).await?,
        _ => None,
    };
    Ok(TagDetails {
        sequence: snapshot.sequence(),
        tag: TagFacts::new(&repository, tag.as_str(), &record).into_tag(),
        media_type: manifest.media_type,
        manifest: text,
        config,
    })
}

/// Whether a manifest is one of an image, by the type of its configuration.
fn has_image_config(manifest: &str) -> bool {
    #[derive(Deserialize)]
    struct Manifest {
        config: Config,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        media_type: String,
    }
    serde_json::from_str::<Manifest>(manifest)
        .is_ok_and(|manifest| IMAGE_CONFIGS.contains(&manifest.config.media_type.as_str()))
}

/// An image's configuration; `None` where it is too large, is no JSON object, or is lost.
async fn read_config(
    context: &Context,
    snapshot: &Snapshot,
    repository: RepositoryId,
    digest: &Digest,
) -> Result<Option<String>, Refusal> {
    match snapshot.blob(repository, digest)? {
        Some(record) if record.size <= CONFIG_BYTES_MAX => {}
        _ => return Ok(None),
    }
    let blob = match context.core.open_blob(repository, digest).await {
        Ok(Some(blob)) => blob,
        Ok(None) => return Ok(None),
        Err(error @ EngineError::Missing(_)) => {
            tracing::warn!(%error, "an image's configuration is lost; its tags are shown without");
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let bytes = context.core.read(blob).await?;
    let text = String::from_utf8(bytes.into()).ok();
    let is_object = |text: &String| {
        text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
    };
    Ok(text.filter(is_object))
}
