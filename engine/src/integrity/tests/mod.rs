//! Integrity as its callers see it, on a real filesystem.

mod check;
mod figures;
mod rebuild;
mod scrub;
mod unreadable;
mod why;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::environment::{Clock, Environment};
use crate::layout;
use crate::metadata::{
    BlobLocation, BlobRecord, Damage, FileId, INLINE_SIZE_MAX, ManifestRefusal, NewContent, PutManifest,
    TagCondition, Timestamp,
};
use crate::oci::{Algorithm, ContentHasher, Digest, Manifest, RepositoryName, Tag, media_type};
use crate::{Core, Engine, EngineOptions, runtime};

/// A clock that goes on by a second each time somebody looks at it.
#[derive(Debug)]
struct SteppingClock(AtomicU64);

impl Clock for SteppingClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.fetch_add(1000, Ordering::Relaxed))
    }
}

fn open(root: &Path, direct: bool) -> Engine {
    let options = EngineOptions {
        root: root.to_path_buf(),
        direct_writes: direct,
        reserve_bytes: 0,
        cache_bytes: 1 << 20,
        buffer_bytes: 32 << 20,
        upload_expiry: Duration::from_secs(3600),
        quotas: crate::Quotas::default(),
    };
    // Near the time that files get.
    let clock = Arc::new(SteppingClock(AtomicU64::new(Environment::system().clock.now().0)));
    Engine::open(options, Environment { clock, ..Environment::system() }).expect("opens")
}

fn on<T>(engine: &Engine, work: impl AsyncFnOnce(Core) -> T) -> T {
    let done = async {
        let core = engine.core().expect("a ring");
        let done = work(core.clone()).await;
        // What a push leaves behind is removed a moment later.
        while !core.files_in_use().is_empty() {
            runtime::sleep(Duration::from_millis(1)).await;
        }
        done
    };
    runtime::run(done).expect("a runtime")
}

fn name(text: &str) -> RepositoryName {
    text.parse().expect("a name")
}

fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

/// Bytes that differ from one place to the next, and from one number to the next.
fn bytes(number: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((i ^ number << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// Pushes a blob as clients do; whether it was known.
fn push(engine: &Engine, repository: &str, content: &[u8]) -> (Digest, bool) {
    push_as(engine, repository, content, Algorithm::Sha256)
}

fn push_as(engine: &Engine, repository: &str, content: &[u8], algorithm: Algorithm) -> (Digest, bool) {
    let digest = ContentHasher::digest(algorithm, content);
    let was_known = on(engine, async |core| {
        let mut upload = core.upload_at_once(&name(repository), algorithm);
        let mut left = content;
        loop {
            let remaining = Some(left.len() as u64);
            let mut buffer = upload.buffer(remaining).await.expect("a buffer");
            left = &left[buffer.append(left)..];
            upload.write(buffer, Some(left.len() as u64)).await.expect("written");
            if left.is_empty() {
                break;
            }
        }
        upload.finish(digest).await.expect("stored").was_known
    });
    (digest, was_known)
}

/// Puts a blob where a push would put it, without all that a push needs: for those who need many.
fn place(engine: &Engine, repository: &str, content: &[u8]) -> Digest {
    let digest = ContentHasher::digest(Algorithm::Sha256, content);
    let (repository, size, now) = (name(repository), content.len() as u64, Timestamp(1));
    let new = match content.len() {
        ..=INLINE_SIZE_MAX => NewContent::Inline(content.to_vec().into()),
        _ => {
            let file = FileId(Environment::system().entropy.random());
            let path = engine.shared().options.root.join(layout::blob(&digest, file));
            std::fs::write(path, content).expect("written");
            NewContent::File(file)
        }
    };
    let commit = engine.metadata().write_blocking(move |transaction| {
        transaction.commit_blob(&repository, &digest, size, new, None, now)
    });
    commit.expect("committed");
    digest
}

/// The bytes of a blob, where a client would get it.
fn fetch(engine: &Engine, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
    let snapshot = engine.metadata().snapshot().expect("open");
    let id = snapshot.repository(&name(repository)).expect("readable")?;
    match snapshot.blob(id, digest).expect("readable")?.location {
        BlobLocation::Inline => Some(snapshot.content(digest, 0).expect("readable").expect("there").to_vec()),
        BlobLocation::File(file) => {
            let path = engine.shared().options.root.join(layout::blob(digest, file));
            Some(std::fs::read(path).expect("readable"))
        }
    }
}

/// An image of these blobs, with its bytes.
fn image(blobs: &[Digest], subject: Option<&Digest>) -> Vec<u8> {
    let descriptor = |media_type: &str, digest: &Digest| serde_json::json!({"mediaType": media_type, "digest": digest, "size": 1});
    let layers: Vec<_> = blobs.iter().skip(1).map(|digest| descriptor("a/layer", digest)).collect();
    let mut manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor("a/config", &blobs[0]),
        "layers": layers,
    });
    if let Some(subject) = subject {
        manifest["subject"] = descriptor(media_type::OCI_MANIFEST, subject);
    }
    serde_json::to_vec(&manifest).expect("json")
}

fn index(children: &[Digest]) -> Vec<u8> {
    let manifests: Vec<_> = children
        .iter()
        .map(|digest| serde_json::json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": 1}))
        .collect();
    let index =
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
    serde_json::to_vec(&index).expect("json")
}

fn put(engine: &Engine, repository: &str, content: &[u8], tags: &[&str]) -> Result<Digest, ManifestRefusal> {
    let digest = ContentHasher::digest(Algorithm::Sha256, content);
    let (repository, content) = (name(repository), content.to_vec());
    let tags: Vec<Tag> = tags.iter().map(|text| tag(text)).collect();
    let answer = engine.metadata().write_blocking(move |transaction| {
        let manifest = Manifest::parse(None, &content).expect("a manifest");
        let put = PutManifest {
            digest,
            manifest: &manifest,
            size: content.len() as u64,
            content: NewContent::Inline(content.into()),
            tags: &tags,
            condition: &TagCondition::Any,
            now: Timestamp(1),
        };
        transaction.put_manifest(&repository, put)
    });
    answer.expect("committed").map(|_| digest)
}

/// A blob as a client gets it; `None`: it is told that it is not there.
fn pull(engine: &Engine, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
    on(engine, async |core| {
        let id =
            core.metadata().snapshot().expect("open").repository(&name(repository)).expect("readable")?;
        let blob = core.open_blob(id, digest).await.expect("readable")?;
        Some(core.read(blob).await.expect("readable").to_vec())
    })
}

fn record(engine: &Engine, digest: &Digest) -> Option<BlobRecord> {
    engine.metadata().snapshot().expect("open").stored_blob(digest).expect("readable")
}

/// Where the file of a blob is.
fn path(engine: &Engine, root: &Path, digest: &Digest) -> PathBuf {
    match record(engine, digest).expect("stored").location {
        BlobLocation::File(file) => root.join(layout::blob(digest, file)),
        BlobLocation::Inline => panic!("{digest} has no file"),
    }
}

/// Another byte at `at` of a file.
fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
}

fn cut(path: &Path, len: u64) {
    std::fs::File::options().write(true).open(path).expect("opens").set_len(len).expect("cut");
}

fn on_and_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
