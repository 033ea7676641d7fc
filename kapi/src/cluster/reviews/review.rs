use std::time::Duration;

use interface::Verdict;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::api::PostParams;
use kube::core::Request;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::cluster::claims::Claims;
use crate::cluster::confidential;
use crate::cluster::seldom::Seldom;

/// How long the API server may take for a review. Someone waits at the other end, who is told to come again after it.
const REVIEW_TIME: Duration = Duration::from_secs(5);

/// Where reviews are made.
const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Asks the API server whose tokens are.
pub(super) struct Reviewer {
    client: Client,
    audience: String,
    warnings: Seldom,
}

impl Reviewer {
    /// `audience` is the registry's own.
    pub(super) fn new(client: Client, audience: &str) -> Self {
        Self { client, audience: audience.to_owned(), warnings: Seldom::default() }
    }

    /// Whose the token is. Only a clear no of the API server is [`Verdict::Refused`].
    pub(super) async fn review(&self, token: &str) -> Verdict {
        // The API server calls that a malformed request.
        if token.is_empty() {
            return Verdict::Refused;
        }
        let claims = Claims::of(token);
        // Tokens for the registry alone name its audience, and are good for it alone. All others must be good for the
        // API server: it is what they are checked against when no audience is named.
        let audience =
            claims.as_ref().filter(|claims| claims.is_for(&self.audience)).map(|_| &*self.audience);
        let expires_at = claims.as_ref().and_then(Claims::expires_at);
        match timeout(REVIEW_TIME, self.ask(token, audience)).await {
            Ok(Ok(status)) => {
                self.warnings.reset();
                verdict(status, audience, expires_at)
            }
            Ok(Err(error)) => {
                self.tell(&error.to_string());
                unavailable("the Kubernetes API server does not say whose the token is; try again")
            }
            Err(_) => {
                self.tell(&format!("the API server does not answer within {REVIEW_TIME:?}"));
                unavailable("the Kubernetes API server takes too long to say whose the token is; try again")
            }
        }
    }

    fn tell(&self, error: &str) {
        if self.warnings.is_time() {
            warn!(error, "tokens cannot be reviewed; nobody can log in with one");
        } else {
            debug!(error, "a token cannot be reviewed");
        }
    }

    async fn ask(
        &self,
        token: &str,
        audience: Option<&str>,
    ) -> Result<TokenReviewStatus, confidential::ConfidentialError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: audience.map(|audience| vec![audience.to_owned()]),
            },
            ..TokenReview::default()
        };
        let unsent =
            |error| confidential::ConfidentialError::Answer(format!("the review cannot be sent: {error}"));
        let body = serde_json::to_vec(&review).map_err(|error| unsent(error.to_string()))?;
        let request = Request::new(TOKEN_REVIEWS)
            .create(&PostParams::default(), body)
            .map_err(|error| unsent(error.to_string()))?;
        let review: TokenReview = confidential::send(&self.client, request).await?;
        review.status.ok_or_else(|| unsent("the answer has no status".to_owned()))
    }
}

fn unavailable(message: &str) -> Verdict {
    Verdict::Unavailable { message: message.to_owned() }
}

/// What the API server's answer means, where `audience` was asked for.
fn verdict(status: TokenReviewStatus, audience: Option<&str>, expires_at: Option<u64>) -> Verdict {
    if status.authenticated != Some(true) {
        // Why is for those who run the cluster, and it may quote what the token says of itself.
        debug!(error = status.error, "a token is refused");
        return Verdict::Refused;
    }
    // An authenticator that knows nothing of audiences says yes to a token for anybody; it does not name ours then.
    let audiences = status.audiences.unwrap_or_default();
    if audience.is_some_and(|audience| !audiences.iter().any(|one| one == audience)) {
        warn!(?audiences, "a token is refused: the API server does not confirm that it is for the registry");
        return Verdict::Refused;
    }
    let user = status.user.unwrap_or_default();
    match user.username {
        Some(name) if !name.is_empty() => Verdict::User {
            name,
            uid: user.uid.filter(|uid| !uid.is_empty()),
            groups: user.groups.unwrap_or_default(),
            expires_at,
        },
        _ => {
            warn!("a token is refused: the API server names no user");
            Verdict::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(status: Value, audience: Option<&str>) -> Verdict {
        verdict(serde_json::from_value(status).expect("a status"), audience, Some(7))
    }

    fn user(name: &str, uid: Option<&str>, groups: &[&str]) -> Verdict {
        Verdict::User {
            name: name.to_owned(),
            uid: uid.map(str::to_owned),
            groups: groups.iter().map(ToString::to_string).collect(),
            expires_at: Some(7),
        }
    }

    #[test]
    fn who_a_status_names() {
        let status = json!({
            "authenticated": true, "audiences": ["https://kubernetes.default.svc"],
            "user": {"username": "ann", "uid": "1", "groups": ["devs", "system:authenticated"]},
        });
        let ann = user("ann", Some("1"), &["devs", "system:authenticated"]);
        assert_eq!(of(status.clone(), None), ann);
        assert_eq!(of(status, Some("payload-registry")), Verdict::Refused, "it is for somebody else");
        let without_uid = json!({"authenticated": true, "user": {"username": "ann", "uid": ""}});
        assert_eq!(of(without_uid.clone(), None), user("ann", None, &[]));
        assert_eq!(of(without_uid, Some("payload-registry")), Verdict::Refused, "no audience is confirmed");
        let both = json!({"authenticated": true, "audiences": ["a", "payload-registry"], "user": {"username": "ann"}});
        assert_eq!(of(both, Some("payload-registry")), user("ann", None, &[]));
    }

    #[test]
    fn whatever_is_no_clear_yes_is_refused() {
        for status in [
            json!({}),
            json!({"authenticated": false, "user": {"username": "ann"}}),
            json!({"user": {"username": "ann"}}),
            json!({"authenticated": false, "error": "token has expired"}),
            json!({"authenticated": true}),
            json!({"authenticated": true, "user": {"username": ""}}),
        ] {
            assert_eq!(of(status.clone(), None), Verdict::Refused, "{status}");
        }
    }
}
