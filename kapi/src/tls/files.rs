use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, fs, io};

/// How often files are looked at. Kubernetes puts new content in place by changing a symbolic link two folders up; looking
/// is simpler than following that, and certificates are replaced long before they end.
const PERIOD: Duration = Duration::from_secs(5);

/// Files that are read again when they change.
#[derive(Debug)]
pub struct Files<const N: usize> {
    paths: [PathBuf; N],
    /// What was read last, whether it was of use or not.
    last: [Vec<u8>; N],
}

/// A file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {error}")]
pub struct UnreadableFile {
    path: PathBuf,
    error: io::Error,
}

impl<const N: usize> Files<N> {
    /// Reads files for the first time.
    pub fn read(paths: [&Path; N]) -> Result<Self, UnreadableFile> {
        let paths = paths.map(Path::to_owned);
        let last = read_all(&paths)?;
        Ok(Self { paths, last })
    }

    /// The content of each, in the order in which they were named.
    pub fn contents(&self) -> &[Vec<u8>; N] {
        &self.last
    }

    /// Gives every new content to `apply`, for as long as it is polled. What cannot be read or is of no use is logged, once
    /// for each content, and changes nothing: the last good one stays.
    pub async fn follow<E: fmt::Display>(mut self, mut apply: impl FnMut(&[Vec<u8>; N]) -> Result<(), E>) {
        let mut ticks = tokio::time::interval(PERIOD);
        let mut is_readable = true;
        loop {
            ticks.tick().await;
            match self.refresh() {
                Ok(false) => is_readable = true,
                Ok(true) => {
                    is_readable = true;
                    match apply(&self.last) {
                        Ok(()) => tracing::info!(files = ?self.paths, "changed files are in force"),
                        Err(error) => {
                            tracing::error!(files = ?self.paths, %error, "changed files are of no use, the former content stays in force");
                        }
                    }
                }
                Err(error) if is_readable => {
                    is_readable = false;
                    tracing::error!(%error, "the former content stays in force");
                }
                Err(_) => {}
            }
        }
    }

    /// Reads again, and says whether anything is different.
    fn refresh(&mut self) -> Result<bool, UnreadableFile> {
        let contents = read_all(&self.paths)?;
        let is_new = contents != self.last;
        self.last = contents;
        Ok(is_new)
    }
}

fn read_all<const N: usize>(paths: &[PathBuf; N]) -> Result<[Vec<u8>; N], UnreadableFile> {
    let mut contents = [const { Vec::new() }; N];
    for (path, content) in paths.iter().zip(&mut contents) {
        *content = fs::read(path).map_err(|error| UnreadableFile { path: path.clone(), error })?;
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::os::unix::fs::symlink;
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn new_content_behind_a_symbolic_link_is_found_and_a_missing_file_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for (name, content) in [("a", "one"), ("b", "two")] {
            fs::create_dir(path(name)).expect("a folder");
            fs::write(path(name).join("file"), content).expect("a file");
        }
        let point_at = |name: &str| {
            symlink(name, path("next")).expect("a link");
            fs::rename(path("next"), path("data")).expect("a link in place");
        };
        point_at("a");
        let files = Files::read([&path("data").join("file")]).expect("content");
        assert_eq!(files.contents(), &[b"one".to_vec()]);

        let seen = Mutex::new(Vec::new());
        let follow = files.follow(|contents| {
            seen.lock().expect("not poisoned").push(contents[0].clone());
            Ok::<_, Infallible>(())
        });
        let script = async {
            tokio::time::sleep(PERIOD * 2).await;
            fs::remove_file(path("data")).expect("no link");
            tokio::time::sleep(PERIOD * 2).await;
            point_at("b");
            tokio::time::sleep(PERIOD * 2).await;
        };
        tokio::select! {
            () = follow => unreachable!("it follows for ever"),
            () = script => {}
        }
        assert_eq!(*seen.lock().expect("not poisoned"), [b"two"]);
    }
}
