use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::State;
use super::failure::Failure;
use super::resource::Resource;
use super::selector::Selector;

/// What somebody watches.
#[derive(Debug)]
pub(super) struct Watch {
    pub resource: &'static Resource,
    pub namespace: Option<String>,
    pub selector: Selector,
    /// Changes after this version; none: what there is, and all changes after it.
    pub after: Option<u64>,
    /// Whether the end of what there is has to be told.
    pub sends_initial_end: bool,
    pub wants_bookmarks: bool,
    pub is_metadata_only: bool,
    pub seconds: u64,
}

impl Watch {
    /// The events, line by line.
    pub fn stream(
        self,
        state: Arc<State>,
    ) -> Result<impl Stream<Item = Result<Frame<Bytes>, Infallible>>, Failure> {
        let mut first = Vec::new();
        let after = match self.after {
            Some(after) => {
                state.store.changes(self.resource, self.namespace.as_deref(), after)?;
                after
            }
            None => {
                let (objects, version) = state.store.list(self.resource, self.namespace.as_deref());
                for object in objects.into_iter().filter(|object| self.selector.matches(object)) {
                    first.push(self.event("ADDED", object));
                }
                if self.sends_initial_end {
                    first.push(self.bookmark(version, json!({"k8s.io/initial-events-end": "true"})));
                }
                version
            }
        };
        let end = tokio::time::Instant::now() + Duration::from_secs(self.seconds);
        let (versions, epoch) = (state.store.version.subscribe(), state.watch_epoch.subscribe());
        let seed = (self, state, after, first, versions, epoch);
        Ok(stream::unfold(Some(seed), move |seed| async move {
            let (watch, state, mut after, first, mut versions, mut epoch) = seed?;
            let mut lines = first;
            while lines.is_empty() {
                versions.borrow_and_update();
                match state.store.changes(watch.resource, watch.namespace.as_deref(), after) {
                    Ok((changes, version)) => {
                        lines.extend(changes.iter().filter_map(|change| watch.change(change)));
                        // Bookmarks come at once after changes of others: as often as may be, to be seen in tests.
                        if lines.is_empty() && version > after && watch.wants_bookmarks {
                            lines.push(watch.bookmark(version, Value::Null));
                        }
                        after = version;
                    }
                    Err(failure) => {
                        let line = json!({"type": "ERROR", "object": failure.status()}).to_string() + "\n";
                        return Some((Ok(Frame::data(line.into())), None));
                    }
                }
                if lines.is_empty() {
                    tokio::select! {
                        changed = versions.changed() => changed.ok()?,
                        _ = epoch.changed() => return None,
                        () = tokio::time::sleep_until(end) => return None,
                    }
                }
            }
            let data = Bytes::from(lines.concat());
            Some((Ok(Frame::data(data)), Some((watch, state, after, Vec::new(), versions, epoch))))
        }))
    }

    /// What a change is for those who see only what is selected.
    fn change(&self, change: &super::store::Change) -> Option<String> {
        let was = change.before.as_ref().is_some_and(|object| self.selector.matches(object));
        let is = !change.is_deletion && self.selector.matches(&change.object);
        match (was, is) {
            (false, false) => None,
            (false, true) => Some(self.event("ADDED", change.object.clone())),
            (true, true) => Some(self.event("MODIFIED", change.object.clone())),
            (true, false) => {
                let mut object = change.before.clone()?;
                object["metadata"]["resourceVersion"] = change.version.to_string().into();
                Some(self.event("DELETED", object))
            }
        }
    }

    fn event(&self, kind: &str, object: Value) -> String {
        let object = if self.is_metadata_only { super::metadata_only(&object) } else { object };
        json!({"type": kind, "object": object}).to_string() + "\n"
    }

    fn bookmark(&self, version: u64, annotations: Value) -> String {
        let mut object = json!({
            "apiVersion": self.resource.api_version(), "kind": self.resource.kind,
            "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null},
        });
        if !annotations.is_null() {
            object["metadata"]["annotations"] = annotations;
        }
        self.event("BOOKMARK", object)
    }
}
