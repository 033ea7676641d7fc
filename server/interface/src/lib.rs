//! The private interface of the registry: what its Kubernetes component says to it.
//!
//! The server serves it on a listener of its own, a Unix socket or TLS with client certificates, and is the only one
//! that decides what is stored and who may do what. The component brings what the server cannot know (rules,
//! namespaces, whose token this is) and asks for what is stored. Every call begins there: the server never connects to
//! anybody.
//!
//! A call is `POST /v1/<path>` with a JSON body, and answers 200 with a JSON body, or an error's status with a
//! [`Failure`]. Calls that wait for something say so, and for how long ([`WAIT_SECONDS_MAX`]).

mod authority;
#[cfg(feature = "client")]
pub mod client;
mod failure;
mod namespaces;
mod object_name;
mod read_only;
mod reviews;
mod tags;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use authority::{Namespace, Rule, SetNamespaces, SetRules, Subject, Verb};
pub use failure::{Failure, Reason};
pub use namespaces::{ListPrefixes, Prefixes, PurgeNamespace, Purged};
pub use object_name::{InvalidObjectName, ObjectName};
pub use read_only::{ClearReadOnly, GetReadOnly, Hold, ReadOnlyState, SetReadOnly};
pub use reviews::{AnswerReview, NextReviews, PendingReview, PendingWork, Verdict};
pub use tags::{
    Caller, Change, ChangeKind, Changes, DeleteAllTags, DeleteTag, DeletedTags, GetTag, ListTags, Position,
    Preconditions, Tag, TagDetails, TagPage, WatchTags,
};

/// Seconds that a call may wait at most for something to happen.
pub const WAIT_SECONDS_MAX: u64 = 30;

/// A call: the request's type names its path and what answers it.
pub trait Call: Serialize + DeserializeOwned {
    /// The path, below `/v1/`.
    const PATH: &'static str;
    /// What a successful call answers.
    type Answer: Serialize + DeserializeOwned;
}

/// Says which call a type is.
macro_rules! call {
    ($request:ty, $path:literal, $answer:ty) => {
        impl crate::Call for $request {
            const PATH: &'static str = $path;
            type Answer = $answer;
        }
    };
}
pub(crate) use call;
