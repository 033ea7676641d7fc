//! The calls of administration beside those of read-only mode, which are in the crate `interface`: what the commands say to a
//! running registry. The reports in them are the engine's.

use engine::collection::{CollectionReport, Mode};
use engine::integrity::{CheckReport, ExportReport, ScrubReport, Usage, Why};
use interface::Call;
use serde::{Deserialize, Serialize};

/// A kind of work that is done by one at a time, on a thread of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    /// Collection of garbage.
    Collection,
    /// Reading all content again.
    Scrub,
    /// Comparing rows and files.
    Check,
    /// Writing the metadata to one file.
    Export,
}

impl Task {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Collection, Self::Scrub, Self::Check, Self::Export];

    /// Its name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Collection => "collection",
            Self::Scrub => "scrub",
            Self::Check => "check",
            Self::Export => "export",
        }
    }
}

/// What a task is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Work {
    /// Collect garbage.
    Collection(CollectionRequest),
    /// Read all content again.
    Scrub(ScrubRequest),
    /// Compare rows and files.
    Check(CheckRequest),
    /// Write the metadata to one file.
    Export(ExportRequest),
}

impl Work {
    /// The kind.
    pub const fn task(&self) -> Task {
        match self {
            Self::Collection(_) => Task::Collection,
            Self::Scrub(_) => Task::Scrub,
            Self::Check(_) => Task::Check,
            Self::Export(_) => Task::Export,
        }
    }
}

/// How garbage is to be collected. What is not said is as the settings have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CollectionRequest {
    /// Whether writing is paused while it marks.
    pub mode: Option<Mode>,
    /// Whether nothing is changed.
    pub dry_run: bool,
    /// Seconds for which manifests stay that nothing keeps.
    pub untagged_age_seconds: Option<u64>,
    /// Seconds for which blobs stay that no manifest needs.
    pub blob_age_seconds: Option<u64>,
}

/// How content is to be read again. What is not said is as the settings have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScrubRequest {
    /// Bytes a second; 0: as many as it can.
    pub bytes_per_second: Option<u64>,
    /// Whether it begins at the beginning also where an earlier one was not finished.
    pub afresh: bool,
}

/// How rows and files are to be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckRequest {
    /// Whether what is wrong is put right.
    pub repair: bool,
}

/// How the metadata is to be written to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExportRequest {
    /// Bytes a second; 0: as many as it can; `None`: a rate that leaves the disk to others.
    pub bytes_per_second: Option<u64>,
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What it is doing: a word.
    pub phase: String,
    /// How much of that is done.
    pub done: u64,
    /// How much there is to do, as far as it is known.
    pub total: u64,
}

/// A task that is running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Tells it from all others, also from those of earlier processes.
    pub id: String,
    /// Who has begun it.
    pub by: String,
    /// When: milliseconds since the Unix epoch, UTC.
    pub began_at_ms: u64,
    /// What it does.
    pub work: Work,
    /// How far it is; `None`: it has not said so yet.
    pub progress: Option<Progress>,
}

/// A task that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// What it was while it ran.
    pub id: String,
    /// Who had begun it.
    pub by: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It was done, as far as the report says.
    Done(Box<Report>),
    /// It has not begun, or not come to its end: a sentence.
    Failed(String),
}

/// What a task has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// A collection of garbage.
    Collection(CollectionReport),
    /// A scrub.
    Scrub(ScrubReport),
    /// A check.
    Check(CheckReport),
    /// An export.
    Export(ExportReport),
}

/// What is known of the tasks of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskState {
    /// Another one whenever something has changed.
    pub version: u64,
    /// The one that is running.
    pub running: Option<Running>,
    /// The last one that has ended since the registry was started.
    pub last: Option<Ended>,
}

/// Begins a task. Fails with [`Conflict`](interface::Reason::Conflict) where one of its kind is running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartTask {
    /// Who asks: a text for people.
    pub by: String,
    /// What it is to do.
    pub work: Work,
}

/// Looks at the tasks of a kind, as soon as there is something new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchTask {
    /// The kind.
    pub task: Task,
    /// The version that is known; 0: none.
    pub after: u64,
    /// Seconds to wait for another one, [`WAIT_SECONDS_MAX`](interface::WAIT_SECONDS_MAX) at most.
    pub wait_seconds: u64,
}

/// Ends the task of a kind that is running, at its next step. Answers before it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StopTask {
    /// The kind.
    pub task: Task,
}

/// The last collections, newest first, those of earlier processes among them; dry runs are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListCollections {}

/// The last scrub, or how far the one is that is running or was interrupted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetScrub {}

/// Asks what keeps some content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AskWhy {
    /// The digest, of a blob or a manifest.
    pub digest: String,
}

/// Asks who has how much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetUsage {}

/// An upload session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upload {
    /// Its id.
    pub id: String,
    /// The repository that is pushed to.
    pub repository: String,
    /// Bytes that it has.
    pub bytes: u64,
    /// When it was begun: milliseconds since the Unix epoch, UTC; `None`: that was not written down yet.
    pub started_at_ms: Option<u64>,
    /// When it made progress last, as far as that was written down.
    pub touched_at_ms: Option<u64>,
    /// Whether a request is writing to it.
    pub is_busy: bool,
}

/// Lists the upload sessions, by repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListUploads {}

/// Ends an upload session, and frees what it has; answers what it was. Fails with
/// [`Conflict`](interface::Reason::Conflict) while a request is writing to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelUpload {
    /// Its id.
    pub id: String,
}

/// Says which call a type is.
macro_rules! call {
    ($request:ty, $path:literal, $answer:ty) => {
        impl Call for $request {
            const PATH: &'static str = $path;
            type Answer = $answer;
        }
    };
}

call!(StartTask, "tasks/start", Running);
call!(WatchTask, "tasks/watch", TaskState);
call!(StopTask, "tasks/stop", TaskState);
call!(ListCollections, "collections/list", Vec<CollectionReport>);
call!(GetScrub, "scrub/get", Option<ScrubReport>);
call!(AskWhy, "why", Why);
call!(GetUsage, "usage", Usage);
call!(ListUploads, "uploads/list", Vec<Upload>);
call!(CancelUpload, "uploads/cancel", Upload);
