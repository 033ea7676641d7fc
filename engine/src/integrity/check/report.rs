use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::collection::Examined;
use crate::metadata::FindingKind;

/// Findings of one kind that a report has as examples, and errors that it quotes.
pub const FINDING_EXAMPLES_MAX: usize = 20;

/// What was found of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Found {
    /// How often.
    pub count: u64,
    /// The first of them, at most [`FINDING_EXAMPLES_MAX`].
    pub examples: Vec<String>,
}

/// What a check has found: made for people and machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckReport {
    /// When it began: milliseconds since the Unix epoch, UTC.
    pub began_at_ms: u64,
    /// When it ended.
    pub ended_at_ms: u64,
    /// Whether what was wrong was to be put right.
    pub repair: bool,
    /// What it looked at.
    pub examined: Examined,
    /// What it found.
    pub findings: BTreeMap<FindingKind, Found>,
    /// Files that nothing names and that are too young: most are on their way to be named.
    pub young_strays: u64,
    /// How many things were put right.
    pub repaired: u64,
    /// How many faults are left ([`FindingKind::is_fault`]); without repair, all that were found.
    pub left: u64,
    /// Some of these, where something was put right.
    pub left_examples: Vec<String>,
    /// How many things could not be looked at, or not be put right.
    pub errors: u64,
    /// What was wrong with the first of them; at most [`FINDING_EXAMPLES_MAX`].
    pub error_texts: Vec<String>,
}

impl CheckReport {
    /// How many faults were found; what is only worth knowing does not count.
    pub fn faults(&self) -> u64 {
        self.findings.iter().filter(|(kind, _)| kind.is_fault()).map(|(_, found)| found.count).sum()
    }

    pub(super) fn add(&mut self, kind: FindingKind, text: String) {
        let found = self.findings.entry(kind).or_default();
        found.count += 1;
        if found.examples.len() < FINDING_EXAMPLES_MAX {
            found.examples.push(text);
        }
    }

    /// Some of the faults.
    pub(super) fn examples(&self) -> Vec<String> {
        let faults = self.findings.iter().filter(|(kind, _)| kind.is_fault());
        faults.flat_map(|(_, found)| &found.examples).take(FINDING_EXAMPLES_MAX).cloned().collect()
    }

    pub(super) fn error(&mut self, text: String) {
        tracing::warn!("check: {text}");
        self.errors += 1;
        if self.error_texts.len() < FINDING_EXAMPLES_MAX {
            self.error_texts.push(text);
        }
    }
}
