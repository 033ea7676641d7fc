//! A registry client for the tests: each request on a connection of its own, and each error looked at closely.

use std::net::SocketAddr;

use crate::content::{EMPTY_CONFIG, Manifest, OCI_CONFIG, OCI_LAYER, bytes, descriptor, image, sha256};
use crate::http::{Connection, Request, Response};

/// The ways in which the specification lets a client push a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One POST with the content.
    Post,
    /// POST, then PUT with the content.
    PostPut,
    /// POST, then PUT with the content in chunked coding.
    PostPutStreamed,
    /// POST, PATCHes with `Content-Range`, PUT without content.
    Patches,
    /// POST, PATCHes with `Content-Range`, PUT with the last chunk.
    PatchesAndPut,
    /// POST, one PATCH in chunked coding without `Content-Range`, PUT without content: what docker does.
    Streamed,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Post,
        Self::PostPut,
        Self::PostPutStreamed,
        Self::Patches,
        Self::PatchesAndPut,
        Self::Streamed,
    ];
}

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    authorization: Option<String>,
}

impl Client {
    /// A client without credentials.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, authorization: None }
    }

    /// The same client with a user's name and password.
    pub fn with_basic(&self, user: &str, password: &str) -> Self {
        self.with_authorization(&format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
    }

    /// The same client with that `Authorization` header.
    pub fn with_authorization(&self, value: &str) -> Self {
        Self { authorization: Some(value.into()), ..self.clone() }
    }

    /// Sends a request and reads the response; fails the test if none comes, or if an error isn't reported as the
    /// specification wants it.
    #[track_caller]
    pub fn send(&self, request: Request) -> Response {
        match self.try_send(request.clone()) {
            Ok(response) => response,
            Err(e) => panic!("no response to {} {}: {e}", request.method, request.target),
        }
    }

    /// The same for a server that may end at any moment.
    #[track_caller]
    pub fn try_send(&self, mut request: Request) -> std::io::Result<Response> {
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let response = Connection::try_open(self.address)?.exchange(&request)?;
        if (400..500).contains(&response.status) && request.method != "HEAD" {
            response.error_codes();
        }
        if matches!(response.status, 429 | 503) {
            response.must("Retry-After");
        }
        Ok(response)
    }

    /// Sends a request whose errors are not those of the specification, and reads the response.
    #[track_caller]
    pub fn send_call(&self, mut request: Request) -> Response {
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        match Connection::open(self.address).exchange(&request) {
            Ok(response) => response,
            Err(e) => panic!("no response to {} {}: {e}", request.method, request.target),
        }
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, target: impl Into<String>) -> Response {
        self.send(Request::new("GET", target))
    }

    /// HEAD.
    #[track_caller]
    pub fn head(&self, target: impl Into<String>) -> Response {
        self.send(Request::new("HEAD", target))
    }

    /// DELETE.
    #[track_caller]
    pub fn delete(&self, target: impl Into<String>) -> Response {
        self.send(Request::new("DELETE", target))
    }

    /// POST without a body.
    #[track_caller]
    pub fn post(&self, target: impl Into<String>) -> Response {
        self.send(Request::new("POST", target).body(""))
    }

    /// PATCH with a body of known length and no `Content-Range`.
    #[track_caller]
    pub fn patch(&self, target: impl Into<String>, body: &[u8]) -> Response {
        self.send(Request::new("PATCH", target).body(body))
    }

    /// PATCH with the bytes of `content` that the range names.
    #[track_caller]
    pub fn patch_range(
        &self,
        target: impl Into<String>,
        content: &[u8],
        range: std::ops::Range<usize>,
    ) -> Response {
        self.send(range_of(Request::new("PATCH", target), content, range))
    }

    /// PUT.
    #[track_caller]
    pub fn put(&self, target: impl Into<String>, body: &[u8]) -> Response {
        self.send(Request::new("PUT", target).body(body))
    }

    /// Opens an upload session, and gives its location.
    #[track_caller]
    pub fn begin_upload(&self, repository: &str) -> String {
        location(&self.post(format!("/v2/{repository}/blobs/uploads/")).expect(202))
    }

    /// How many bytes an upload session holds. One that holds a single byte cannot be told from an empty one, and is
    /// taken for that.
    #[track_caller]
    pub fn upload_size(&self, session: &str) -> usize {
        let status = self.get(session).expect(204);
        let last: Option<usize> = status.must("Range").strip_prefix("0-").and_then(|last| last.parse().ok());
        match last {
            Some(0) => 0,
            Some(last) => last + 1,
            None => panic!("Range of {}", status.summary()),
        }
    }

    /// Pushes a blob in one of the possible ways, and gives the last response, whatever it is.
    #[track_caller]
    pub fn push_blob_by(&self, way: Way, repository: &str, content: &[u8], digest: &str) -> Response {
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        if way == Way::Post {
            return self.send(Request::new("POST", with_query(&uploads, "digest", digest)).body(content));
        }
        let algorithm = digest.split(':').next().unwrap_or_default();
        let mut session =
            location(&self.post(with_query(&uploads, "digest-algorithm", algorithm)).expect(202));
        // Three pieces of unequal size; fewer where the content is short.
        let (first, second) = (content.len() / 2, content.len() / 2 + content.len() / 3);
        let mut ranges = vec![0..first, first..second, second..content.len()];
        ranges.retain(|range| !range.is_empty());
        let pieces = ranges.iter().map(|range| &content[range.clone()]);
        let mut last = Request::new("PUT", "");
        match way {
            Way::Post => {}
            Way::PostPut => last = last.body(content),
            Way::PostPutStreamed => last = last.chunked(pieces),
            Way::Streamed => {
                let patched = self.send(Request::new("PATCH", &session).chunked(pieces)).expect(202);
                assert_eq!(patched.must("Range"), range_up_to(content.len()));
                session = location(&patched);
                last = last.body("");
            }
            Way::Patches | Way::PatchesAndPut => {
                let in_put = if way == Way::PatchesAndPut { ranges.pop() } else { None };
                for range in ranges {
                    let patched = self.patch_range(&session, content, range.clone()).expect(202);
                    assert_eq!(patched.must("Range"), range_up_to(range.end));
                    session = location(&patched);
                }
                last = match in_put {
                    Some(range) => range_of(last, content, range),
                    None => last.body(""),
                };
            }
        }
        last.target = with_query(&session, "digest", digest);
        self.send(last)
    }

    /// Pushes a blob, and gives its digest.
    #[track_caller]
    pub fn push_blob(&self, repository: &str, content: &[u8]) -> String {
        let digest = sha256(content);
        self.push_blob_by(Way::PostPut, repository, content, &digest).expect(201);
        digest
    }

    /// Pushes a manifest, and gives the response, whatever it is.
    #[track_caller]
    pub fn put_manifest(&self, repository: &str, reference: &str, manifest: &Manifest) -> Response {
        self.send(put_manifest(repository, reference, manifest))
    }

    /// Pushes a manifest.
    #[track_caller]
    pub fn push_manifest(&self, repository: &str, reference: &str, manifest: &Manifest) {
        self.put_manifest(repository, reference, manifest).expect(201);
    }

    /// Pushes an image of a configuration and two layers, all made from `seed`, and gives its manifest.
    #[track_caller]
    pub fn push_image(&self, repository: &str, reference: &str, seed: &str) -> Manifest {
        let config = format!(r#"{{"architecture":"amd64","os":"linux","author":"{seed}"}}"#).into_bytes();
        let layers = [bytes(&format!("{seed}/0"), 3000), bytes(&format!("{seed}/1"), 70_000)];
        for blob in layers.iter().chain([&config]) {
            self.push_blob(repository, blob);
        }
        let layers = layers.iter().map(|layer| descriptor(OCI_LAYER, layer)).collect();
        let manifest = Manifest::new(&image(descriptor(OCI_CONFIG, &config), layers));
        self.push_manifest(repository, reference, &manifest);
        manifest
    }

    /// Pushes the configuration that artifacts share.
    #[track_caller]
    pub fn push_empty_config(&self, repository: &str) {
        self.push_blob(repository, EMPTY_CONFIG);
    }

    /// Fails the test unless the blob can be pulled and is exactly this.
    #[track_caller]
    pub fn assert_blob(&self, repository: &str, digest: &str, content: &[u8]) {
        let response = self.get(format!("/v2/{repository}/blobs/{digest}")).expect(200);
        assert_eq!(response.must("Docker-Content-Digest"), digest);
        assert!(
            response.body == content,
            "{digest} has {} bytes, pushed were {}",
            response.body.len(),
            content.len()
        );
    }

    /// Fails the test unless the manifest can be pulled by that reference and is exactly this.
    #[track_caller]
    pub fn assert_manifest(&self, repository: &str, reference: &str, manifest: &Manifest) {
        let response = self.get(format!("/v2/{repository}/manifests/{reference}")).expect(200);
        assert_eq!(response.must("Content-Type"), manifest.media_type);
        assert_eq!(response.body, manifest.bytes, "the bytes of {repository}:{reference}");
    }

    /// The tags of a repository, all of them in one list.
    #[track_caller]
    pub fn tags(&self, repository: &str) -> Vec<String> {
        strings(&self.get(format!("/v2/{repository}/tags/list")).expect(200).json()["tags"])
    }
}

/// The request that pushes a manifest.
pub fn put_manifest(repository: &str, reference: &str, manifest: &Manifest) -> Request {
    Request::new("PUT", format!("/v2/{repository}/manifests/{reference}"))
        .header("Content-Type", &manifest.media_type)
        .body(manifest.bytes.clone())
}

/// The members of a JSON array of strings.
#[track_caller]
pub fn strings(array: &serde_json::Value) -> Vec<String> {
    let Some(members) = array.as_array() else { panic!("no array: {array}") };
    members.iter().map(|member| member.as_str().expect("a string").to_owned()).collect()
}

/// Path and query of a response's `Location`.
#[track_caller]
pub fn location(response: &Response) -> String {
    relative(response.must("Location"))
}

/// The target of the next page, if the response names one.
#[track_caller]
pub fn next_page(response: &Response) -> Option<String> {
    let link = response.header("Link")?;
    let target = link.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let Some((target, r#"; rel="next""#)) = target else { panic!("Link: {link}") };
    Some(relative(target))
}

/// An absolute URL without its scheme and host; anything else as it is.
fn relative(url: &str) -> String {
    match url.split_once("://").map(|(_, rest)| rest) {
        Some(rest) => rest[rest.find('/').unwrap_or(rest.len())..].to_owned(),
        None => url.to_owned(),
    }
}

/// Adds a parameter to a target's query, percent-encoded as a client's library does.
pub fn with_query(target: &str, name: &str, value: &str) -> String {
    let separator = if target.contains('?') { '&' } else { '?' };
    format!("{target}{separator}{name}={}", percent_encoded(value))
}

/// Percent-encodes all but the characters that never need it.
pub fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The `Range` of a session that holds so many bytes: `0-<last>`, and `0-0` for none.
pub fn range_up_to(size: usize) -> String {
    format!("0-{}", size.saturating_sub(1))
}

/// Gives a request the bytes of `content` that the range names, and the `Content-Range` that says so.
fn range_of(request: Request, content: &[u8], range: std::ops::Range<usize>) -> Request {
    let content_range = format!("{}-{}", range.start, range.end - 1);
    request.header("Content-Range", content_range).body(&content[range])
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if digit <= group.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_the_vectors_of_rfc_4648() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (text, encoded) in vectors {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn absolute_locations_become_relative() {
        for (url, target) in [("http://a:1/b?c=d", "/b?c=d"), ("/b?c=d", "/b?c=d"), ("https://a", "")] {
            assert_eq!(relative(url), target);
        }
    }
}
