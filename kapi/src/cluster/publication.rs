use std::sync::Arc;

use interface::Call;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::backoff::Backoff;
use super::seldom::Seldom;
use crate::registry::Registry;

/// Something that the registry is to know, always as it is here: all rules, or all namespaces.
///
/// What is published is sent until the registry has it; only the newest counts. Nothing is sent before the first was
/// published, so a registry is never told a part.
#[derive(Debug)]
pub(super) struct Publication<C> {
    what: &'static str,
    offer: watch::Sender<Offer<C>>,
    delivered: watch::Sender<u64>,
}

/// What is to be sent.
#[derive(Debug)]
struct Offer<C> {
    call: Option<Arc<C>>,
    /// Counts what was published.
    version: u64,
    /// Counts that, and requests to send it once more.
    round: u64,
}

impl<C: Call<Answer = ()> + PartialEq> Publication<C> {
    /// Nothing has been published.
    pub(super) fn new(what: &'static str) -> Self {
        let offer = Offer { call: None, version: 0, round: 0 };
        Self { what, offer: watch::Sender::new(offer), delivered: watch::Sender::new(0) }
    }

    /// Publishes this in place of the last; nothing happens where it is the same.
    pub(super) fn publish(&self, call: C) {
        self.offer.send_if_modified(|offer| {
            if offer.call.as_deref() == Some(&call) {
                return false;
            }
            offer.call = Some(Arc::new(call));
            offer.version += 1;
            offer.round += 1;
            true
        });
    }

    /// The registry has lost it, or never had it: sends it once more, if there is anything yet.
    pub(super) fn repeat(&self) {
        self.offer.send_if_modified(|offer| {
            let is_something = offer.call.is_some();
            offer.round += u64::from(is_something);
            is_something
        });
    }

    /// What was published last, once there is something.
    pub(super) async fn latest(&self) -> Arc<C> {
        let mut offer = self.offer.subscribe();
        loop {
            if let Some(call) = &offer.borrow_and_update().call {
                return Arc::clone(call);
            }
            // The sender is `self`'s, so this cannot fail.
            let _ = offer.changed().await;
        }
    }

    /// Waits until something else than `seen` is published, and gives it.
    pub(super) async fn next(&self, seen: &Arc<C>) -> Arc<C> {
        let mut offer = self.offer.subscribe();
        loop {
            let latest = offer.borrow_and_update().call.clone();
            match latest {
                Some(call) if !Arc::ptr_eq(&call, seen) => return call,
                // As above.
                _ => drop(offer.changed().await),
            }
        }
    }

    /// Waits until the registry has what was published last, and gives it.
    pub(super) async fn delivered(&self) -> Arc<C> {
        let mut delivered = self.delivered.subscribe();
        loop {
            {
                let version = *delivered.borrow_and_update();
                let offer = self.offer.borrow();
                if let Some(call) = offer.call.as_ref().filter(|_| offer.version == version) {
                    return Arc::clone(call);
                }
            }
            // As above.
            let _ = delivered.changed().await;
        }
    }

    /// Sends what is published, for ever.
    pub(super) async fn keep_sending(&self, registry: &Registry) {
        let mut offer = self.offer.subscribe();
        let mut backoff = Backoff::registry();
        let warnings = Seldom::default();
        let mut sent_round = 0;
        loop {
            let (call, version, round) = {
                // As above.
                let Ok(offer) =
                    offer.wait_for(|offer| offer.call.is_some() && offer.round != sent_round).await
                else {
                    return;
                };
                (offer.call.clone(), offer.version, offer.round)
            };
            let Some(call) = call else { continue };
            match registry.call(&*call).await {
                Ok(()) => {
                    debug!(what = self.what, version, "the registry knows");
                    sent_round = round;
                    self.delivered.send_replace(version);
                    backoff.reset();
                    warnings.reset();
                }
                Err(error) => {
                    if warnings.is_time() {
                        warn!(what = self.what, %error, "the registry cannot be told; it is tried again");
                    }
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::sync::Mutex;

    use bytes::Bytes;
    use http::{Request, Response, StatusCode};
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use interface::{Namespace, SetNamespaces};
    use tokio::net::UnixListener;

    use super::*;
    use crate::registry::Address;

    /// Something that answers as a registry does: with these statuses first, and 200 then. It notes what it is sent.
    struct Stand {
        statuses: Mutex<VecDeque<StatusCode>>,
        received: watch::Sender<Vec<SetNamespaces>>,
    }

    impl Stand {
        fn serve(statuses: &[StatusCode]) -> (Arc<Self>, Registry, tempfile::TempDir) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("private.sock");
            let listener = UnixListener::bind(&path).expect("a socket");
            let statuses = Mutex::new(statuses.iter().copied().collect());
            let stand = Arc::new(Self { statuses, received: watch::Sender::new(Vec::new()) });
            let serving = Arc::clone(&stand);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let stand = Arc::clone(&serving);
                    let service = service_fn(move |request| Arc::clone(&stand).answer(request));
                    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                }
            });
            (stand, Registry::new(Address::Unix(path)), folder)
        }

        async fn answer(
            self: Arc<Self>,
            request: Request<Incoming>,
        ) -> Result<Response<Full<Bytes>>, Infallible> {
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let call = serde_json::from_slice(&body).expect("a call");
            self.received.send_modify(|received| received.push(call));
            let status = self.statuses.lock().expect("a lock").pop_front().unwrap_or(StatusCode::OK);
            let mut response = Response::new(Full::new(Bytes::from_static(b"null")));
            *response.status_mut() = status;
            Ok(response)
        }

        async fn has_received(&self, count: usize) -> Vec<SetNamespaces> {
            let mut received = self.received.subscribe();
            let enough = received.wait_for(|received| received.len() >= count).await;
            enough.expect("the sender lives").clone()
        }
    }

    fn namespaces(name: &str) -> SetNamespaces {
        SetNamespaces { namespaces: vec![Namespace { name: name.to_owned(), is_terminating: false }] }
    }

    fn sending(registry: Registry) -> Arc<Publication<SetNamespaces>> {
        let publication = Arc::new(Publication::new("namespaces"));
        let sender = Arc::clone(&publication);
        tokio::spawn(async move { sender.keep_sending(&registry).await });
        publication
    }

    #[tokio::test]
    async fn what_is_published_arrives_in_spite_of_failures() {
        let away = StatusCode::SERVICE_UNAVAILABLE;
        let (stand, registry, _folder) = Stand::serve(&[away, away]);
        let publication = sending(registry);
        publication.publish(namespaces("a"));
        assert_eq!(*publication.delivered().await, namespaces("a"));
        assert_eq!(stand.has_received(3).await, [namespaces("a"), namespaces("a"), namespaces("a")]);
    }

    #[tokio::test]
    async fn only_the_newest_counts_and_nothing_is_sent_twice_unless_asked_for() {
        let (stand, registry, _folder) = Stand::serve(&[StatusCode::SERVICE_UNAVAILABLE]);
        let publication = sending(registry);
        // Nothing has been published yet: there is nothing to repeat.
        publication.repeat();
        publication.publish(namespaces("a"));
        stand.has_received(1).await;
        publication.publish(namespaces("b"));
        publication.publish(namespaces("c"));
        assert_eq!(*publication.delivered().await, namespaces("c"));
        publication.publish(namespaces("c"));
        publication.publish(namespaces("d"));
        assert_eq!(*publication.delivered().await, namespaces("d"));
        let received = stand.has_received(3).await;
        assert_eq!(received, [namespaces("a"), namespaces("c"), namespaces("d")]);
        publication.repeat();
        assert_eq!(stand.has_received(4).await[3..], [namespaces("d")]);
    }

    #[tokio::test]
    async fn the_next_is_another_one() {
        let publication = Publication::new("namespaces");
        publication.publish(namespaces("a"));
        let first = publication.latest().await;
        publication.repeat();
        publication.publish(namespaces("b"));
        assert_eq!(*publication.next(&first).await, namespaces("b"));
    }
}
