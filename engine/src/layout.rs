//! Names below the root (`docs/on-disk-format.md` has the picture).

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::metadata::{BlobLocation, FileId};
use crate::oci::{Algorithm, Digest};

/// The metadata's file.
pub const METADATA: &str = "metadata.redb";

/// The metadata of an earlier time, to rebuild it from.
pub const EXPORT: &str = "metadata.export";

/// The same while it is being written.
pub const EXPORT_UNFINISHED: &str = "metadata.export.unfinished";

/// Held locked by the process that has the root open.
const LOCK: &str = "lock";

/// Made and removed at start, to see what the filesystem can do.
pub const PROBE: &str = "probe";

/// Content on its way.
pub const UPLOADS: &str = "uploads";

/// The directories of the blobs' files.
pub const BLOBS: &str = "blobs";

/// Damaged files.
pub const QUARANTINE: &str = "quarantine";

/// Where the file of damaged content is kept, or the bytes of content that had no file.
pub fn quarantine(digest: &Digest, location: BlobLocation) -> String {
    let name = format!("{QUARANTINE}/{}-{}", digest.algorithm().name(), digest.hex());
    match location {
        BlobLocation::File(file) => format!("{name}.{file}"),
        BlobLocation::Inline => format!("{name}.inline"),
    }
}

/// The file of an upload session's content.
pub fn upload(file: FileId) -> String {
    format!("{UPLOADS}/{file}")
}

/// The directory of a blob's file. 256 of them: a million blobs is four thousand names in each.
pub fn blob_directory(digest: &Digest) -> String {
    blob_directory_of(digest.algorithm(), digest.value()[0])
}

/// The directory of all blobs whose digests begin with the byte `first`.
pub fn blob_directory_of(algorithm: Algorithm, first: u8) -> String {
    format!("{BLOBS}/{}/{first:02x}", algorithm.name())
}

/// The file of a blob: named after its digest, for people and for a rebuild of the metadata, and after its
/// incarnation, so that the file of a deleted blob is never the file of the same content pushed again.
pub fn blob(digest: &Digest, file: FileId) -> String {
    format!("{}/{}.{file}", blob_directory(digest), digest.hex())
}

/// What the name of a blob's file says, in the directories of `algorithm`; `None` where it is no such name.
pub fn parse_blob(algorithm: Algorithm, name: &str) -> Option<(Digest, FileId)> {
    let (hex, file) = name.split_once('.')?;
    Some((format!("{}:{hex}", algorithm.name()).parse().ok()?, file.parse().ok()?))
}

/// Why a root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Another process has it.
    #[error(
        "another process has {0} open; a root belongs to one registry at a time: stop the other one, or give this one another --root"
    )]
    Locked(String),
    /// It is no registry's.
    #[error(
        "there is no {0}: say by --root where the registry's root is, or, where it has lost that file, put it back or rebuild it from its export"
    )]
    NoMetadata(String),
    /// It cannot be made, read or written.
    #[error("cannot use {path} as the root: {source}; it must be a directory that this user can write to")]
    Io {
        /// The path that failed.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The root's open directory, and the lock that keeps other processes out for as long as it lives.
#[derive(Debug)]
pub struct Root {
    /// The directory.
    pub directory: std::os::fd::OwnedFd,
    /// Closed last.
    pub lock: File,
}

/// An error where `root` has no metadata; for those who must not make an empty registry there.
pub fn look_for_metadata(root: &Path) -> Result<(), RootError> {
    let path = root.join(METADATA);
    let text = path.display().to_string();
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(RootError::NoMetadata(text)),
        Err(source) => Err(RootError::Io { path: text, source }),
    }
}

/// Makes what is missing of the layout below `root`, and locks it.
pub fn prepare(root: &Path) -> Result<Root, RootError> {
    let at = |path: &Path| {
        let path = path.display().to_string();
        move |source: io::Error| RootError::Io { path, source }
    };
    let make = |path: &Path| {
        DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(at(path))?;
        Ok::<_, RootError>(())
    };
    make(root)?;
    let lock_path = root.join(LOCK);
    let lock =
        File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(at(&lock_path))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(RootError::Locked(root.display().to_string())),
        // A filesystem without locks: better to run than not to.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOLCK) => {
            tracing::warn!(root = %root.display(), "the filesystem has no locks: make sure that only one registry uses this root");
        }
        Err(error) => return Err(at(&lock_path)(error.into())),
    }
    make(&root.join(UPLOADS))?;
    for algorithm in Algorithm::ALL {
        let parent = root.join(BLOBS).join(algorithm.name());
        let complete = parent.join("ff").is_dir();
        for first in 0..=u8::MAX {
            if complete {
                break;
            }
            make(&parent.join(format!("{first:02x}")))?;
        }
        if !complete {
            sync(&parent).map_err(at(&parent))?;
        }
    }
    for path in [root.join(BLOBS), root.to_path_buf()] {
        sync(&path).map_err(at(&path))?;
    }
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root, flags, Mode::empty()).map_err(|error| at(root)(error.into()))?;
    Ok(Root { directory, lock })
}

/// Whether there are files of blobs, or an export of metadata: it is no new root.
pub fn has_content(root: &Path) -> io::Result<bool> {
    if root.join(EXPORT).exists() {
        return Ok(true);
    }
    for algorithm in Algorithm::ALL {
        for first in 0..=u8::MAX {
            if std::fs::read_dir(root.join(blob_directory_of(algorithm, first)))?.next().is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
