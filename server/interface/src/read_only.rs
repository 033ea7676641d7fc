use serde::{Deserialize, Serialize};

use crate::call;

/// Makes the registry read-only, or extends the time for which it is. Answers when the writes that were running have
/// ended, or had their time to do so. Fails with [`Reason::Conflict`](crate::Reason::Conflict) where another owner keeps it read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetReadOnly {
    /// Who asks: a name that tells holders apart.
    pub owner: String,
    /// Why, for those who are turned away.
    pub reason: String,
    /// Seconds after which it takes writes again by itself; a week at most.
    pub lasting_seconds: u64,
    /// Seconds that running writes get to end.
    pub drain_seconds: u64,
}

/// Lets the registry take writes again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClearReadOnly {
    /// Who asks. Fails with [`Reason::Conflict`](crate::Reason::Conflict) where that is not the owner; `None`: whoever it is.
    pub owner: Option<String>,
}

/// Asks whether the registry is read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetReadOnly {}

/// Whether the registry is read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadOnlyState {
    /// The hold on writes; `None`: it takes them.
    pub hold: Option<Hold>,
    /// Writes that are running.
    pub running_writes: u64,
}

/// Who keeps the registry read-only, why and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Who.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Since when (RFC 3339).
    pub since: String,
    /// When it ends by itself (RFC 3339).
    pub until: String,
}

call!(SetReadOnly, "read-only/set", ReadOnlyState);
call!(ClearReadOnly, "read-only/clear", ReadOnlyState);
call!(GetReadOnly, "read-only/get", ReadOnlyState);
