//! What the registry has to know of a manifest: what it refers to, and how it is listed as a referrer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::strict_json::UniqueKeys;
use super::{Digest, media_type};

/// Most descriptors that one manifest may hold; bounds the edges written in one transaction.
pub const DESCRIPTORS_MAX: usize = 50_000;

/// Why a manifest is refused. Each text says what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, a repeated key, nested too deep, or a field of the wrong type.
    #[error("the manifest is not valid JSON of its type: {0}")]
    Json(#[from] serde_json::Error),
    /// Docker schema 1 and other types that cannot be stored.
    #[error(
        "manifests of type {0:?} are not supported; push an OCI image manifest or index, or Docker schema 2"
    )]
    Type(String),
    /// `Content-Type` and the field `mediaType` contradict each other.
    #[error(
        "the Content-Type says {header:?} and the manifest's mediaType says {body:?}; they must be the same"
    )]
    TypeMismatch {
        /// What the header says.
        header: String,
        /// What the manifest says.
        body: String,
    },
    /// Neither the header nor the body tells the type.
    #[error("the manifest's type is not known: send it as Content-Type, or as mediaType in the manifest")]
    NoType,
    /// `schemaVersion` other than 2.
    #[error("schemaVersion is {0}; only 2 is supported")]
    SchemaVersion(u64),
    /// A manifest without what its type requires.
    #[error("a manifest of type {media_type:?} needs the field {field:?}")]
    MissingField {
        /// The manifest's type.
        media_type: String,
        /// The field that it lacks.
        field: &'static str,
    },
    /// More descriptors than [`DESCRIPTORS_MAX`].
    #[error("the manifest has more than {DESCRIPTORS_MAX} descriptors")]
    TooManyDescriptors,
}

/// A reference to content (OCI image specification, "Descriptor"); fields the registry has no use for are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Type of the content.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Length of the content in bytes.
    pub size: u64,
    /// Type of the artifact, where the content is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Where else the content can be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
}

impl Descriptor {
    /// Whether the content must be in the repository before the manifest is taken: all but layers that are
    /// distributed by somebody else.
    fn is_required(&self) -> bool {
        let elsewhere = self.urls.as_ref().is_some_and(|urls| !urls.is_empty());
        !(elsewhere || media_type::is_non_distributable(&self.media_type))
    }
}

/// What a manifest says, as far as the registry has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Type of the manifest, without parameters.
    pub media_type: String,
    /// What it is listed under among the referrers: its `artifactType`, else the type of its config.
    pub artifact_type: Option<String>,
    /// The manifest that this one is about.
    pub subject: Option<Descriptor>,
    /// The config, for an image.
    pub config: Option<Descriptor>,
    /// Blobs that must be in the repository: config and layers, each once.
    pub blobs: Vec<Digest>,
    /// Blobs that need not be in the repository, because their descriptor says where else to get them.
    pub foreign_blobs: Vec<Digest>,
    /// Manifests of an index, each once. An index may also list blobs that are no manifests (build caches do).
    pub children: Vec<Digest>,
    /// Free key-value pairs of the manifest itself.
    pub annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    /// The layers of an OCI artifact manifest.
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Parses a manifest that was sent with `content_type` (`None`: no such header).
    pub fn parse(content_type: Option<&str>, body: &[u8]) -> Result<Self, ManifestError> {
        serde_json::from_slice::<UniqueKeys>(body)?;
        let fields: Fields = serde_json::from_slice(body)?;
        let media_type = fields.resolve_type(content_type)?;
        if let Some(version) = fields.schema_version
            && version != 2
        {
            return Err(ManifestError::SchemaVersion(version));
        }
        let needs = |present: bool, field| {
            if present {
                Ok(())
            } else {
                Err(ManifestError::MissingField { media_type: media_type.clone(), field })
            }
        };
        match media_type.as_str() {
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
                needs(fields.config.is_some(), "config")?;
                needs(fields.layers.is_some(), "layers")?;
            }
            media_type::OCI_INDEX | media_type::DOCKER_LIST => {
                needs(fields.manifests.is_some(), "manifests")?
            }
            _ => {}
        }

        let layers = fields.layers.unwrap_or_default();
        let artifact_blobs = fields.blobs.unwrap_or_default();
        let manifests = fields.manifests.unwrap_or_default();
        if layers.len() + artifact_blobs.len() + manifests.len() > DESCRIPTORS_MAX {
            return Err(ManifestError::TooManyDescriptors);
        }
        let (required, foreign): (Vec<_>, Vec<_>) =
            fields.config.iter().chain(&layers).chain(&artifact_blobs).partition(|blob| blob.is_required());
        let unique = |descriptors: &mut dyn Iterator<Item = &Descriptor>| {
            let mut digests: Vec<Digest> = descriptors.map(|descriptor| descriptor.digest).collect();
            digests.sort_unstable();
            digests.dedup();
            digests
        };
        let artifact_type = fields
            .artifact_type
            .filter(|artifact_type| !artifact_type.is_empty())
            .or_else(|| fields.config.as_ref().map(|config| config.media_type.clone()));
        Ok(Self {
            media_type,
            artifact_type,
            subject: fields.subject,
            blobs: unique(&mut required.into_iter()),
            foreign_blobs: unique(&mut foreign.into_iter()),
            children: unique(&mut manifests.iter()),
            config: fields.config,
            annotations: fields.annotations,
        })
    }
}

impl Fields {
    /// The manifest's type: the header's, which the field `mediaType` must not contradict; without a header the
    /// field's, and else what the fields look like (the field is optional in OCI manifests).
    fn resolve_type(&self, content_type: Option<&str>) -> Result<String, ManifestError> {
        let header = match content_type {
            Some(header) => {
                Some(media_type::essence(header).ok_or_else(|| ManifestError::Type(header.to_owned()))?)
            }
            None => None,
        };
        let body = self.media_type.as_deref().filter(|media_type| !media_type.is_empty());
        let media_type = match (header, body) {
            (Some(header), Some(body)) if !header.eq_ignore_ascii_case(body) => {
                return Err(ManifestError::TypeMismatch { header, body: body.to_owned() });
            }
            (Some(header), _) => header,
            (None, Some(body)) => {
                media_type::essence(body).ok_or_else(|| ManifestError::Type(body.to_owned()))?
            }
            (None, None) if self.manifests.is_some() => media_type::OCI_INDEX.to_owned(),
            (None, None) if self.layers.is_some() => media_type::OCI_MANIFEST.to_owned(),
            (None, None) => return Err(ManifestError::NoType),
        };
        if media_type::is_docker_schema_1(&media_type) {
            return Err(ManifestError::Type(media_type));
        }
        Ok(media_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D1: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const D2: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn image(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,{extra}"config":{{"mediaType":"application/vnd.x","digest":"{D1}","size":0}},
                "layers":[{{"mediaType":"a/b","digest":"{D2}","size":2}},{{"mediaType":"a/b","digest":"{D2}","size":2}}]}}"#
        )
    }

    #[test]
    fn an_image_names_its_blobs_once() {
        let manifest = Manifest::parse(Some(media_type::OCI_MANIFEST), image("").as_bytes()).expect("valid");
        assert_eq!(manifest.blobs.len(), 2);
        assert_eq!(manifest.artifact_type.as_deref(), Some("application/vnd.x"));
        assert!(manifest.children.is_empty() && manifest.subject.is_none());
    }

    #[test]
    fn the_type_comes_from_the_header_the_body_or_the_fields() {
        let with_type = image(r#""mediaType":"application/vnd.oci.image.manifest.v1+json","#);
        for (header, body) in [
            (Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"), image("")),
            (None, with_type.clone()),
            (None, image("")),
        ] {
            let manifest = Manifest::parse(header, body.as_bytes()).expect("valid");
            assert_eq!(manifest.media_type, media_type::OCI_MANIFEST);
        }
        assert!(matches!(
            Manifest::parse(Some(media_type::DOCKER_MANIFEST), with_type.as_bytes()),
            Err(ManifestError::TypeMismatch { .. })
        ));
    }

    #[test]
    fn layers_that_others_distribute_are_not_required() {
        let body = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"a/b","digest":"{D1}","size":0}},"layers":[
                {{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{D2}","size":2,"urls":["https://example.org/x"]}}]}}"#
        );
        let manifest = Manifest::parse(Some(media_type::DOCKER_MANIFEST), body.as_bytes()).expect("valid");
        assert_eq!((manifest.blobs.len(), manifest.foreign_blobs.len()), (1, 1));
    }

    #[test]
    fn wrong_manifests_are_refused() {
        let deep = format!("{}{}", "{\"a\":".repeat(500), "}".repeat(500));
        for body in [
            "",
            "[]",
            "null",
            "{}",
            r#"{"schemaVersion":1,"manifests":[]}"#,
            r#"{"schemaVersion":"2","manifests":[]}"#,
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"a/b","digest":"sha256:00","size":1}]}"#,
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"a/b"}]}"#,
            r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#,
            r#"{"schemaVersion":2,"manifests":[],"annotations":{"a":"1","a":"2"}}"#,
            r#"{"schemaVersion":2,"manifests":[],"annotations":{"a":1}}"#,
            &deep,
        ] {
            assert!(Manifest::parse(Some(media_type::OCI_INDEX), body.as_bytes()).is_err(), "{body}");
        }
        let negative = image("").replace("\"size\":2", "\"size\":-2");
        assert!(Manifest::parse(Some(media_type::OCI_MANIFEST), negative.as_bytes()).is_err());
        let schema_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert!(matches!(Manifest::parse(Some(schema_1), image("").as_bytes()), Err(ManifestError::Type(_))));
    }
}
