use super::super::MetadataError;
use super::super::keys::{self, OfRepository};
use super::super::records::{RepositoryId, Timestamp};
use super::super::rows::{RepositoryRow, Row as _};
use super::super::snapshot::repository_id;
use super::super::tables::{row, scan_prefix};
use super::{Transaction, lower};
use crate::oci::RepositoryName;

impl Transaction<'_> {
    /// The repository of this name.
    pub fn repository(&self, name: &RepositoryName) -> Result<Option<RepositoryId>, MetadataError> {
        row(&*self.tables.names, name.as_str().as_bytes(), repository_id)
    }

    /// Removes a repository that holds no manifest, no blob and no tag; whether there was such a one.
    pub fn remove_repository_if_empty(&mut self, name: &RepositoryName) -> Result<bool, MetadataError> {
        let Some(id) = self.repository(name)? else { return Ok(false) };
        for kind in [OfRepository::Link, OfRepository::Manifest, OfRepository::Tag] {
            if scan_prefix(&*self.tables.repositories, &keys::of_repository(id, kind))?.next().is_some() {
                return Ok(false);
            }
        }
        self.change();
        self.tables.names.remove(name.as_str().as_bytes())?;
        self.tables.repositories.remove(keys::of_repository(id, OfRepository::Identity).as_slice())?;
        lower(&mut self.state.statistics.repositories, 1);
        self.count(id.namespace(), |usage| usage.repositories = usage.repositories.saturating_sub(1))?;
        Ok(true)
    }

    /// The repository of this name, made where there is none. Called once all checks are through.
    pub(super) fn ensure_repository(
        &mut self,
        name: &RepositoryName,
        now: Timestamp,
    ) -> Result<RepositoryId, MetadataError> {
        if let Some(id) = self.repository(name)? {
            return Ok(id);
        }
        let identity = RepositoryRow { name: name.as_str(), created_at: now }.encode()?;
        let id = self.new_repository_id(name)?;
        self.change();
        let key = keys::of_repository(id, OfRepository::Identity);
        self.tables.names.insert(name.as_str().as_bytes(), id.0.to_be_bytes().as_slice())?;
        self.tables.repositories.insert(key.as_slice(), identity.as_slice())?;
        self.state.statistics.repositories += 1;
        self.count(id.namespace(), |usage| usage.repositories += 1)?;
        Ok(id)
    }
}
