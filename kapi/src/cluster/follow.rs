use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{BoxStream, Stream, StreamExt as _};
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use super::api_error::{describe_watch, is_gone};
use super::backoff::Backoff;
use super::seldom::Seldom;

/// How long one request of a watch lasts. It is also how long a connection that died without a word goes unnoticed, so
/// it is a part of the delay until a revoked right is gone.
pub(super) const WATCH_TIME: Duration = Duration::from_secs(60);

/// Follows objects for ever. After an error the watch goes on where it was, or lists everything again.
pub(super) fn follow<K>(
    api: Api<K>,
    what: &'static str,
    selection: Config,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    // The type's largest value is far above it.
    let config = selection.timeout(u32::try_from(WATCH_TIME.as_secs()).unwrap_or(u32::MAX));
    let watch = Watch {
        events: None,
        api,
        config,
        what,
        backoff: Backoff::api_server(),
        warnings: Seldom::default(),
    };
    futures::stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await;
        Some((event, watch))
    })
}

/// A watch, and how it went.
struct Watch<K> {
    events: Option<BoxStream<'static, watcher::Result<Event<K>>>>,
    api: Api<K>,
    config: Config,
    what: &'static str,
    backoff: Backoff,
    warnings: Seldom,
}

impl<K> Watch<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    async fn next(&mut self) -> Event<K> {
        loop {
            let (api, config) = (&self.api, &self.config);
            let events = self.events.get_or_insert_with(|| watcher(api.clone(), config.clone()).boxed());
            match events.next().await {
                Some(Ok(event)) => {
                    // A list that begins has not been answered yet.
                    if !matches!(event, Event::Init) {
                        self.backoff.reset();
                    }
                    return event;
                }
                Some(Err(error)) => {
                    // The watcher would ask for the same version again.
                    if is_gone(&error) {
                        self.events = None;
                    }
                    self.tell(&error);
                    tokio::time::sleep(self.backoff.delay()).await;
                }
                None => self.events = None,
            }
        }
    }

    fn tell(&mut self, error: &watcher::Error) {
        let error = describe_watch(error);
        if self.warnings.is_time() {
            warn!(what = self.what, error, "cannot watch; what is known stays, and the watch is tried again");
        } else {
            debug!(what = self.what, error, "cannot watch");
        }
    }
}
