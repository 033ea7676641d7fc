use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A Unix socket's file. Removed when it is dropped, unless it is somebody else's by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    directory: OwnedFd,
    name: OsString,
    identity: Identity,
}

/// Tells a socket's file from one that took its place: device, inode, and, as inodes are used again, when it was made.
type Identity = (u64, u64, i64, u64);

impl SocketFile {
    /// Listens on a socket at `path` that only this user can open. What a process left there that is no more is
    /// replaced.
    ///
    /// # Errors
    /// Another process listens there, something is there that is no socket, or the filesystem has no sockets.
    pub(super) fn listen(path: &Path) -> io::Result<(Self, UnixListener)> {
        let name = path.file_name().ok_or_else(|| io::Error::other("the path ends in no file name"))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(parent, flags, Mode::empty())?;
        // An address has room for 108 bytes, whatever the directory's path.
        let address = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        remove_stale(&directory, name, &address)?;

        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The file gets the socket's mode as it comes to exist: nobody else can open it in between.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(&address)?)?;
        rustix::net::listen(&socket, BACKLOG)?;
        let identity = identity(&stat(&directory, name)?);
        Ok((Self { directory, name: name.to_owned(), identity }, UnixListener::from(socket)))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = stat(&self.directory, &self.name).is_ok_and(|stat| identity(&stat) == self.identity);
        if is_ours && let Err(error) = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            tracing::warn!(%error, "the socket of the private interface cannot be removed");
        }
    }
}

fn remove_stale(directory: &OwnedFd, name: &OsStr, address: &Path) -> io::Result<()> {
    let stat = match stat(directory, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        answer => answer?,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something is there that is no socket"));
    }
    match UnixStream::connect(address) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Ok(rustix::fs::unlinkat(directory, name, AtFlags::empty())?)
        }
        Err(error) => Err(error),
    }
}

fn stat(directory: &OwnedFd, name: &OsStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino, stat.st_mtime, stat.st_mtime_nsec)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_socket_deep_below_comes_and_goes() {
        let root = tempfile::tempdir().expect("a directory");
        let deep = root.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).expect("a directory");
        let path = deep.join("private.sock");
        let (file, listener) = SocketFile::listen(&path).expect("listens");
        let metadata = std::fs::symlink_metadata(&path).expect("a file");
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
        let error = SocketFile::listen(&path).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        // A process that dies leaves its file.
        drop(listener);
        let (newer, _listener) = SocketFile::listen(&path).expect("replaced");
        drop(file);
        assert!(path.exists(), "the file is the newer one's");
        drop(newer);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("file");
        std::fs::write(&path, "text").expect("a file");
        let error = SocketFile::listen(&path).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).expect("still there"), b"text");
    }
}
