use serde::{Deserialize, Serialize};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Content is read and hashed. Counts bytes.
    Scrub,
    /// Rows of the metadata are compared with each other. Counts rows.
    Rows,
    /// Rows and files are compared. Counts directories.
    Files,
    /// What is wrong is put right. Counts findings.
    Repair,
    /// Rows are written to an export. Counts rows.
    Export,
    /// Rows are read from an export. Counts bytes of its file.
    Restore,
    /// Files that the export does not know are hashed. Counts files.
    Adopt,
}

/// How far something is.
///
/// Whoever is told it answers whether that goes on; a break ends it where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// How much of that is done.
    pub done: u64,
    /// How much there is to do, as far as it is known.
    pub total: u64,
}
