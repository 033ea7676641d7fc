//! Integrity: whether what is stored is what was stored, and what is to be done where it is not.
//!
//! - [`Engine::scrub`](crate::Engine::scrub) reads all content again and hashes it. What is damaged counts as not there
//!   from then on, so that clients push it again, which heals it; its file is kept aside.
//! - [`Engine::check`](crate::Engine::check) compares the rows of the metadata with each other and with the files, both
//!   ways, and repairs on request.
//! - [`Engine::export`](crate::Engine::export) writes the metadata to one file, and [`rebuild()`] makes a store of it,
//!   where the metadata is gone.
//! - [`verify()`] reads the metadata of a stopped registry and compares it with its checksums.
//! - [`Engine::why`](crate::Engine::why) and [`Engine::usage`](crate::Engine::usage) say what keeps some content, and who
//!   has how much.
//!
//! All of these take the thread that calls them until their end, beside pulls and pushes. None keeps a snapshot for
//! longer than it has to. `docs/integrity.md` is for those who run a registry.

mod check;
mod export;
mod pace;
mod progress;
mod quarantine;
mod reader;
mod rebuild;
mod scrub;
#[cfg(test)]
mod tests;
mod turn;
mod usage;
mod verify;
mod why;

pub use crate::metadata::{ExportError, FindingKind};
pub use check::{CheckError, CheckOptions, CheckReport, FINDING_EXAMPLES_MAX, Found};
pub use export::{EXPORT_RATE_DEFAULT, ExportFailure, ExportReport};
pub use progress::{Phase, Progress};
pub use quarantine::{QUARANTINE_AGE_MAX, QUARANTINE_BYTES_MAX, QUARANTINE_FILES_MAX};
pub use rebuild::{RebuildError, RebuildOptions, RebuildReport, rebuild};
pub use scrub::{
    DamageFound, REPORTED_DAMAGE_MAX, SCRUB_RATE_DEFAULT, ScrubError, ScrubOptions, ScrubReport,
};
pub(crate) use turn::Turns;
pub use usage::{Named, Share, Usage};
pub use verify::{VerifyError, verify};
pub use why::{Keeper, Keeps, Stored, WHY_KEEPERS_MAX, WHY_REPOSITORIES_MAX, Why, WhyIn};
