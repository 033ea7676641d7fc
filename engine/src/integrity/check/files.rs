//! Files and the rows that name them, both ways.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;

use super::report::CheckReport;
use super::strays::{Stray, is_named};
use super::{Check, CheckError, Remedy};
use crate::collection::to_ms;
use crate::layout;
use crate::metadata::{BlobLocation, Damage, FileId, FindingKind, Repair, Snapshot, UploadContent, readable};
use crate::oci::{Algorithm, Digest};

/// Directories of blobs, and the one of the uploads.
const DIRECTORIES: u64 = Algorithm::ALL.len() as u64 * 256 + 1;

pub(super) struct Files<'c> {
    pub(super) check: &'c Check<'c>,
    pub(super) report: &'c mut CheckReport,
    pub(super) remedies: &'c mut Vec<Remedy>,
}

/// What is in a directory.
struct Entry {
    name: OsString,
    is_file: bool,
}

impl Files<'_> {
    pub(super) fn look(&mut self) -> Result<(), CheckError> {
        self.parents()?;
        let mut done = 0;
        for algorithm in Algorithm::ALL {
            for first in 0..=u8::MAX {
                self.blobs(algorithm, first)?;
                done += 1;
                if first % 8 == 7 {
                    self.check.directory(done, DIRECTORIES)?;
                }
            }
        }
        self.uploads()?;
        self.check.directory(DIRECTORIES, DIRECTORIES)
    }

    /// What is between the directories that have files.
    fn parents(&mut self) -> Result<(), CheckError> {
        let algorithms = Algorithm::ALL.map(Algorithm::name);
        self.only(layout::BLOBS, &|name| algorithms.contains(&name))?;
        for algorithm in algorithms {
            let is_ours =
                |name: &str| name.len() == 2 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            self.only(&format!("{}/{algorithm}", layout::BLOBS), &is_ours)?;
        }
        Ok(())
    }

    fn only(&mut self, directory: &str, is_ours: &dyn Fn(&str) -> bool) -> Result<(), CheckError> {
        for entry in self.entries(directory)?.into_iter().flatten() {
            if entry.is_file || !entry.name.to_str().is_some_and(is_ours) {
                self.strange(directory, &entry);
            }
        }
        Ok(())
    }

    fn strange(&mut self, directory: &str, entry: &Entry) {
        let text = format!("{directory}/{} is none of the registry's", entry.name.display());
        self.report.add(FindingKind::StrangeFile, text);
    }

    /// `None` where there is no such directory.
    fn entries(&mut self, directory: &str) -> Result<Option<Vec<Entry>>, CheckError> {
        let entries = match std::fs::read_dir(self.check.shared.options.root.join(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        let entries = entries.map(|entry| {
            let entry = entry?;
            Ok(Entry { name: entry.file_name(), is_file: entry.file_type()?.is_file() })
        });
        Ok(Some(entries.collect::<io::Result<_>>()?))
    }

    fn snapshot(&self) -> Result<Snapshot, CheckError> {
        Ok(self.check.shared.metadata.snapshot()?)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        self.check.shared.volume.status(name).map(|(length, _)| length)
    }

    fn remedy(&mut self, remedy: Remedy) {
        if self.check.options.repair {
            self.remedies.push(remedy);
        }
    }

    fn blobs(&mut self, algorithm: Algorithm, first: u8) -> Result<(), CheckError> {
        let directory = layout::blob_directory_of(algorithm, first);
        let Some(entries) = self.entries(&directory)? else {
            let text = format!("the directory {directory} is missing");
            self.report.add(FindingKind::DirectoryMissing, text);
            self.remedy(Remedy::MakeDirectory(directory));
            return self.named(algorithm, first);
        };
        let mut files = HashMap::new();
        for entry in entries {
            let parsed = entry.name.to_str().filter(|_| entry.is_file);
            match parsed.and_then(|name| layout::parse_blob(algorithm, name)) {
                Some((digest, file)) if digest.value()[0] == first => {
                    self.report.examined.files += 1;
                    files.insert(file, digest);
                }
                _ => self.strange(&directory, &entry),
            }
        }
        self.named(algorithm, first)?;
        self.strays(algorithm, first, files)
    }

    /// Looks at the files that rows name.
    fn named(&mut self, algorithm: Algorithm, first: u8) -> Result<(), CheckError> {
        // Rows that cannot be read were found when the rows were compared.
        let mut rows = Vec::new();
        for row in self.snapshot()?.stored_blobs_of(algorithm, first)? {
            rows.extend(readable(row)?);
        }
        for (digest, record) in rows {
            let BlobLocation::File(file) = record.location else { continue };
            let name = layout::blob(&digest, file);
            let (kind, damage, text) = match self.length(&name) {
                Ok(length) if length == record.size => continue,
                Ok(length) => {
                    let text = format!("{name} has {length} bytes, and the blob has {}", record.size);
                    (FindingKind::FileLength, Damage::Length, text)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    (FindingKind::FileMissing, Damage::Missing, format!("{name} is missing"))
                }
                Err(error) => {
                    self.report.error(format!("cannot look at {name}: {error}"));
                    continue;
                }
            };
            // Deleted or healed meanwhile, it is another row or none.
            if readable(self.snapshot()?.stored_blob(&digest))? == Some(Some(record)) {
                self.report.add(kind, text);
                self.remedy(Remedy::Row(Repair::File(digest, record, damage)));
            }
        }
        Ok(())
    }

    /// Looks for files that no row names.
    fn strays(
        &mut self,
        algorithm: Algorithm,
        first: u8,
        mut files: HashMap<FileId, Digest>,
    ) -> Result<(), CheckError> {
        for row in self.snapshot()?.stored_blobs_of(algorithm, first)? {
            let Some((digest, record)) = readable(row)? else { continue };
            if let BlobLocation::File(file) = record.location
                && files.get(&file) == Some(&digest)
            {
                files.remove(&file);
            }
        }
        for (file, digest) in files {
            // Asked first: whoever names the file says so until the row is committed.
            if self.check.shared.files_in_use.has(file) {
                continue;
            }
            if !is_named(&self.snapshot()?, &digest, file)? {
                self.stray(Stray::Blob(digest, file));
            }
        }
        Ok(())
    }

    /// A file that nothing names and nobody is about to name.
    fn stray(&mut self, stray: Stray) {
        let name = stray.name();
        let now = self.check.shared.environment.clock.now();
        // Whoever had it may have removed it.
        let Ok((length, changed_at)) = self.check.shared.volume.status(&name) else { return };
        if now.0.saturating_sub(changed_at.0) < to_ms(self.check.options.stray_age) {
            self.report.young_strays += 1;
            return;
        }
        self.report.add(FindingKind::StrayFile, format!("nothing names {name}, of {length} bytes"));
        self.remedy(Remedy::Stray(stray));
    }

    fn uploads(&mut self) -> Result<(), CheckError> {
        let Some(entries) = self.entries(layout::UPLOADS)? else {
            let text = format!("the directory {} is missing", layout::UPLOADS);
            self.report.add(FindingKind::DirectoryMissing, text);
            self.remedy(Remedy::MakeDirectory(layout::UPLOADS.to_owned()));
            return Ok(());
        };
        let mut files = HashSet::new();
        for entry in entries {
            match entry.name.to_str().filter(|_| entry.is_file).and_then(|name| name.parse::<FileId>().ok()) {
                Some(file) => {
                    self.report.examined.files += 1;
                    files.insert(file);
                }
                None => self.strange(layout::UPLOADS, &entry),
            }
        }
        files.retain(|file| !self.check.shared.files_in_use.has(*file));
        let mut uploads = Vec::new();
        let mut is_all = true;
        for upload in self.snapshot()?.uploads()? {
            let upload = readable(upload)?;
            is_all &= upload.is_some();
            uploads.extend(upload);
        }
        for (id, record) in uploads {
            let UploadContent::File(file) = record.content else { continue };
            files.remove(&file);
            let name = layout::upload(file);
            let text = match self.length(&name) {
                Ok(length) if length >= record.size => continue,
                Ok(length) => format!("{name} has {length} bytes, and the session has {}", record.size),
                Err(error) if error.kind() == io::ErrorKind::NotFound => format!("{name} is missing"),
                Err(error) => {
                    self.report.error(format!("cannot look at {name}: {error}"));
                    continue;
                }
            };
            let is_busy = self.check.shared.sessions.is_busy(id);
            if !is_busy && self.snapshot()?.upload(id)?.as_ref() == Some(&record) {
                self.report.add(FindingKind::UploadFile, text);
                self.remedy(Remedy::Row(Repair::Upload(id, Box::new(record))));
            }
        }
        // A row that cannot be read may name any of them.
        if is_all {
            files.into_iter().for_each(|file| self.stray(Stray::Upload(file)));
        }
        Ok(())
    }
}
