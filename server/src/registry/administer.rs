//! Calls of administration over the public listener: from those with a token of the cluster's whom its rules let do that.

use http::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use interface::Reason;

use super::Registry;
use crate::access::Identity;
use crate::administration;
use crate::http::{Request, Response};
use crate::private::Refusal;

impl Registry {
    /// POST of a call.
    pub(super) async fn administer(&self, call: &str, request: Request<'_>) -> Response {
        let id = request.id;
        let response = match self.administer_as(call, request).await {
            Ok(answer) => Response::new(StatusCode::OK).with_body("application/json", answer),
            Err(AdministerError::Nobody(message)) => {
                let mut response = Refusal::new(Reason::Denied, message).into_response();
                response.status = StatusCode::UNAUTHORIZED;
                response.with(WWW_AUTHENTICATE, "Bearer realm=\"administration\"")
            }
            Err(AdministerError::Refused(refusal)) => {
                if refusal.0.reason == Reason::Internal {
                    tracing::error!(request = %id, call, error = %refusal.0, "a call of administration failed");
                }
                refusal.into_response()
            }
        };
        response.with(CACHE_CONTROL, "no-store")
    }

    async fn administer_as(&self, call: &str, request: Request<'_>) -> Result<Vec<u8>, AdministerError> {
        let identity = self.identify(&request).await?;
        self.require_administer(&identity)?;
        if request.method != Method::POST {
            return Err(Refusal::invalid("calls are made by POST").into());
        }
        let context = administration::Context {
            core: &self.core,
            administration: &self.shared.administration,
            user: Some(identity.name()),
            request: request.id,
        };
        Ok(administration::dispatch(&context, call, request.body).await?)
    }

    async fn identify(&self, request: &Request<'_>) -> Result<Identity, AdministerError> {
        let nobody = |error: &dyn std::fmt::Display| AdministerError::Nobody(error.to_string());
        let header = super::login::only_authorization(&request.headers).map_err(|error| nobody(&error))?;
        self.shared.authenticator.authenticate(header).await.map_err(|error| match error.is_failure() {
            true => Refusal::unavailable(error.to_string()).into(),
            false => nobody(&error),
        })
    }

    /// An error unless the cluster's rules let the caller administer. Users of the settings never may: who has the settings
    /// has the private interface.
    fn require_administer(&self, identity: &Identity) -> Result<(), AdministerError> {
        let denied = |message: String| Err(Refusal::new(Reason::Denied, message).into());
        let elsewhere = "administer this registry over its private interface";
        match identity {
            Identity::Anonymous if self.shared.authority.is_enabled() => Err(AdministerError::Nobody(
                "log in with a token of the cluster to administer the registry".to_owned(),
            )),
            Identity::Anonymous => denied(elsewhere.to_owned()),
            Identity::StaticUser(name) => {
                denied(format!("{name} is a user of the settings, and may not; {elsewhere}"))
            }
            Identity::ClusterUser(user) => match self.shared.authority.rules() {
                Some(rules) if rules.of(&user.name, &user.groups).may_administer() => Ok(()),
                Some(_) => denied(format!(
                    "{} may not administer the registry: that takes the verb administer on payloadrepositoryaccesses in the whole cluster",
                    user.name
                )),
                None => Err(Refusal::unavailable("the access rules of the cluster are not known yet").into()),
            },
        }
    }
}

/// Why a call is not answered.
enum AdministerError {
    /// 401: nobody knows who calls.
    Nobody(String),
    Refused(Refusal),
}

impl From<Refusal> for AdministerError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
