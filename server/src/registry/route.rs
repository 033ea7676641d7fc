//! Which end-point a path names (OCI distribution specification, "Endpoints").

use std::borrow::Cow;

use engine::metadata::UploadId;
use engine::oci::{Digest, RepositoryName, Tag};
use http::StatusCode;
use percent_encoding::percent_decode_str;

use super::error::{Code, Refusal};

/// A manifest's name: its digest, or a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    Digest(Digest),
    Tag(Tag),
}

impl Reference {
    fn parse(text: &str) -> Result<Self, Refusal> {
        // No tag has a colon, and every digest has one.
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Tag(tag) => tag.fmt(f),
        }
    }
}

/// An end-point, with what its path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Base,
    Catalog,
    Tags(RepositoryName),
    Manifest(RepositoryName, Reference),
    Blob(RepositoryName, Digest),
    Uploads(RepositoryName),
    /// `None`: what stands in the place of an id is none, so there is no such session.
    Upload(RepositoryName, Option<UploadId>),
    Referrers(RepositoryName, Digest),
    Health,
    Ready,
    Metrics,
    /// A call of administration, by its path.
    Administration(String),
}

/// Labels of end-points in the metrics.
pub(crate) const ROUTE_LABELS: [&str; 11] = [
    "base",
    "catalog",
    "tags",
    "manifest",
    "blob",
    "uploads",
    "upload",
    "referrers",
    "operations",
    "none",
    "administration",
];

impl Route {
    /// Index of its label in [`ROUTE_LABELS`]; `None`: a path that is no end-point.
    pub(crate) fn label(route: Option<&Self>) -> usize {
        match route {
            Some(Self::Base) => 0,
            Some(Self::Catalog) => 1,
            Some(Self::Tags(_)) => 2,
            Some(Self::Manifest(..)) => 3,
            Some(Self::Blob(..)) => 4,
            Some(Self::Uploads(_)) => 5,
            Some(Self::Upload(..)) => 6,
            Some(Self::Referrers(..)) => 7,
            Some(Self::Health | Self::Ready | Self::Metrics) => 8,
            None => 9,
            Some(Self::Administration(_)) => 10,
        }
    }

    /// Finds the end-point of a path. A name may contain the words that the end-points are made of, so they are
    /// looked for from the end.
    pub(crate) fn parse(path: &str) -> Result<Self, Refusal> {
        let path: Cow<'_, str> = percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| Refusal::bad_request(Code::NameInvalid, "the path is no UTF-8 text"))?;
        match &*path {
            "/v2" | "/v2/" => return Ok(Self::Base),
            "/v2/_catalog" => return Ok(Self::Catalog),
            "/healthz" => return Ok(Self::Health),
            "/readyz" => return Ok(Self::Ready),
            "/metrics" => return Ok(Self::Metrics),
            _ => {}
        }
        let unknown = || {
            Refusal::new(
                StatusCode::NOT_FOUND,
                Code::Unsupported,
                "there is no such end-point; images are below /v2/",
            )
        };
        if let Some(call) = path.strip_prefix("/admin/v1/") {
            return Ok(Self::Administration(call.to_owned()));
        }
        let rest = path.strip_prefix("/v2/").ok_or_else(unknown)?;
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(name.parse()?));
        }
        if let Some(name) =
            rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads"))
        {
            return Ok(Self::Uploads(name.parse()?));
        }
        let (parent, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        if let Some(name) = parent.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload(name.parse()?, last.parse().ok()));
        }
        if let Some(name) = parent.strip_suffix("/manifests") {
            return Ok(Self::Manifest(name.parse()?, Reference::parse(last)?));
        }
        if let Some(name) = parent.strip_suffix("/blobs") {
            return Ok(Self::Blob(name.parse()?, last.parse()?));
        }
        if let Some(name) = parent.strip_suffix("/referrers") {
            return Ok(Self::Referrers(name.parse()?, last.parse()?));
        }
        Err(unknown())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn end_points_are_found() {
        let name = |text: &str| text.parse::<RepositoryName>().expect("valid");
        let digest: Digest = DIGEST.parse().expect("valid");
        for (path, route) in [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/a/b/tags/list".to_owned(), Route::Tags(name("a/b"))),
            (
                "/v2/a/manifests/v1".to_owned(),
                Route::Manifest(name("a"), Reference::Tag("v1".parse().expect("valid"))),
            ),
            (format!("/v2/a/manifests/{DIGEST}"), Route::Manifest(name("a"), Reference::Digest(digest))),
            (
                format!("/v2/a/manifests/{}", DIGEST.replace(':', "%3A")),
                Route::Manifest(name("a"), Reference::Digest(digest)),
            ),
            (format!("/v2/a/blobs/{DIGEST}"), Route::Blob(name("a"), digest)),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads".to_owned(), Route::Uploads(name("a"))),
            (format!("/v2/a/referrers/{DIGEST}"), Route::Referrers(name("a"), digest)),
            ("/v2/blobs/uploads/tags/list".to_owned(), Route::Tags(name("blobs/uploads"))),
            (
                "/v2/manifests/manifests/manifests".to_owned(),
                Route::Manifest(name("manifests"), Reference::Tag("manifests".parse().expect("valid"))),
            ),
        ] {
            assert_eq!(Route::parse(&path).expect(&path), route, "{path}");
        }
    }

    #[test]
    fn other_paths_are_refused() {
        for path in [
            "/",
            "/v1/",
            "/v2/a",
            "/v2/a/b",
            "/v2/../a/tags/list",
            "/v2/%2e%2e/tags/list",
            "/v2//tags/list",
            "/v2/A/tags/list",
            "/v2/a/manifests/",
            "/v2/a/manifests/.x",
            "/v2/a/blobs/x",
            "/v2/a/blobs/sha256:00",
            "/v2/a/referrers/x",
            "/v2/%ff/tags/list",
            "/v2/tags/list",
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "/v2/[ -~]{0,80}") {
            let _ = Route::parse(&path);
        }
    }
}
