use std::pin::pin;
use std::time::Duration;

use engine::metadata::TagChange;
use engine::runtime::{self, Instant};
use interface::{Change, ChangeKind, Changes, Reason, WAIT_SECONDS_MAX, WatchTags};

use super::TagFacts;
use crate::http::Body;
use crate::private::refusal::Refusal;
use crate::private::service::Context;
use crate::private::sight::{Sight, View};

/// Changes that are read at a time.
const BATCH: usize = 1000;

/// Changes of tags, as soon as there are any that the caller sees. `peer` is who waits for them.
pub(in crate::private) async fn watch(
    context: &Context,
    peer: &mut dyn Body,
    call: WatchTags,
) -> Result<Changes, Refusal> {
    if call.limit == 0 {
        return Err(Refusal::invalid("a watch takes at least one change at a time"));
    }
    let deadline = Instant::now() + Duration::from_secs(call.wait_seconds.min(WAIT_SECONDS_MAX));
    let metadata = context.core.metadata();
    let mut committed = metadata.watch();
    let mut called_off = pin!(context.called_off(peer));
    let mut found = Changes { sequence: call.after, changes: Vec::new() };
    loop {
        // Before the state is taken: what is committed after that wakes the wait below.
        committed.mark_unchanged();
        let is_behind = read(context, &call, &mut found)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if !found.changes.is_empty() || (!is_behind && left.is_zero()) {
            return Ok(found);
        }
        if is_behind {
            // Others have their turn.
            runtime::yield_now().await;
            continue;
        }
        runtime::select! {
            _ = committed.changed() => {}
            _ = runtime::sleep(left) => {}
            () = &mut called_off => return Ok(found),
        }
    }
}

/// Reads some changes after those that were read; whether there are more now.
fn read(context: &Context, call: &WatchTags, found: &mut Changes) -> Result<bool, Refusal> {
    let snapshot = context.core.metadata().snapshot()?;
    if found.sequence > snapshot.sequence() {
        let message =
            format!("the last change is {}; {} is still to come", snapshot.sequence(), found.sequence);
        return Err(Refusal::new(Reason::Future, message));
    }
    // The rules of now: they may have changed while the call waited.
    let sight = Sight::of(&context.shared, &call.caller)?;
    let view = sight.view();
    let changes = snapshot.tag_changes_since(found.sequence, BATCH)?;
    let is_behind = changes.len() == BATCH;
    for change in &changes {
        found.sequence = change.sequence;
        if is_wanted(call, &view, change) {
            found.changes.extend(told(change));
            if found.changes.len() >= call.limit as usize {
                return Ok(true);
            }
        }
    }
    if !is_behind {
        // What has changed since then was no tag.
        found.sequence = snapshot.sequence();
    }
    Ok(is_behind)
}

fn is_wanted(call: &WatchTags, view: &View<'_>, change: &TagChange) -> bool {
    let (namespace, path) = (change.repository.namespace(), change.repository.path());
    !path.is_empty()
        && call.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
        && view.sees(namespace, path)
}

/// A change as it is told; `None` for one of no tag to no tag, which nobody records.
fn told(change: &TagChange) -> Option<Change> {
    let (kind, digest) = match (change.digest, change.previous) {
        (Some(digest), None) => (ChangeKind::Added, digest),
        (Some(digest), Some(_)) => (ChangeKind::Modified, digest),
        (None, Some(previous)) => (ChangeKind::Deleted, previous),
        (None, None) => return None,
    };
    let facts = TagFacts {
        repository: &change.repository,
        tag: change.tag.as_str(),
        digest,
        created: (change.created, change.created_at),
        sequence: change.sequence,
    };
    Some(Change { kind, tag: facts.into_tag() })
}
