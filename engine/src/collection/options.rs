//! What can be asked of a collection, and what it tells while it works.

use std::ops::ControlFlow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::retention::RetentionRule;

/// How old is old enough, where nothing else is asked for: longer than any push takes.
pub const AGE_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// How old a file must be that nothing names.
pub const STRAY_AGE_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// Whether writing is paused while marking. Both are equally safe: what is deleted is looked at again when it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Writing is paused until everything is marked; [`CollectionHooks::enter_window`] does it.
    #[default]
    ReadOnly,
    /// Nothing is paused.
    Online,
}

/// What can be set of a collection.
#[derive(Clone, Debug)]
pub struct CollectionOptions {
    /// Whether writing is paused while marking.
    pub mode: Mode,
    /// Only count what would be removed.
    pub dry_run: bool,
    /// Manifests that nothing keeps stay for this long after they were pushed.
    pub untagged_age: Duration,
    /// Blobs that no manifest needs stay linked for this long after they were pushed or mounted; and as long as a push
    /// to their repository is going on that began before that.
    pub blob_age: Duration,
    /// Files that nothing names stay for this long after they were last changed.
    pub stray_age: Duration,
    /// Which tags are kept; all of them, where no rule fits.
    pub retention: Vec<RetentionRule>,
    /// How long it rests after each batch of deletions, in hundredths of the time that the batch took. 0: not at all.
    pub rest_percent: u32,
}

impl Default for CollectionOptions {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            dry_run: false,
            untagged_age: AGE_DEFAULT,
            blob_age: AGE_DEFAULT,
            stray_age: STRAY_AGE_DEFAULT,
            retention: Vec::new(),
            rest_percent: 0,
        }
    }
}

/// What a collection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Finding out what is not needed. Counts manifests, links and contents.
    Mark,
    /// Removing tags, manifests, links and contents, and the files of these. Counts tags, manifests and links.
    Sweep,
    /// Looking for files that nothing names. Counts directories.
    Strays,
}

/// How far a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// How much of that is done.
    pub done: u64,
    /// How much there is to do, as far as it is known.
    pub total: u64,
}

/// Points of a collection between which something can happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Writing is paused (in the mode that does that), nothing was marked.
    Entered,
    /// Some of the rows were looked at.
    Marking,
    /// Everything is marked, writing is still paused.
    Marked,
    /// Writing goes on, nothing was deleted.
    Left,
    /// A batch is about to be queued: what is in it cannot be leased now.
    Doomed,
    /// A batch is committed; its files are there, and can be leased.
    Committed,
    /// A file was removed.
    FileRemoved,
    /// The files of a batch are removed.
    FilesRemoved,
    /// A file was found that nothing names; it is about to be removed.
    StrayFound,
    /// All is done, and not yet recorded.
    Done,
}

/// How its surroundings take part in a collection. It runs on a thread of its own, and waits for each call.
pub trait CollectionHooks {
    /// Pauses writing, in [`Mode::ReadOnly`]; an error is why the collection does not take place.
    fn enter_window(&self) -> Result<(), String> {
        Ok(())
    }

    /// Lets writing go on. Called once after each `enter_window` that succeeded, whatever happens.
    fn leave_window(&self) {}

    /// Takes notice of how far it is. Called some hundred times for each phase at most.
    fn progress(&self, _progress: Progress) {}

    /// Whether it goes on; [`ControlFlow::Break`] ends it where it is. For the end of the process, and for tests.
    fn at(&self, _step: Step) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A collection that nobody looks at.
impl CollectionHooks for () {}
