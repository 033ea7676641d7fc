//! Logging in: by Basic with each request, or by a token (Docker registry token authentication).
//!
//! Where everybody must log in, clients are asked for Basic, which every one of them knows. Where everybody may read and
//! users may do more, they are asked for a token: clients look for a challenge in the answer to `/v2/` alone, and the
//! token's end-point is the one that serves both those who have credentials and those who have none.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use engine::oci::RepositoryName;
use http::header::{AUTHORIZATION, CACHE_CONTROL, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::json;

use super::error::{Code, Refusal};
use super::{Registry, Shared, query};
use crate::access::{Action, AuthenticationError, Grant, Identity, Login, SERVICE};
use crate::http::{Request, Response};

/// Where tokens are issued.
pub(super) const TOKEN_PATH: &str = "/token";

const FORWARDED_PROTOCOL: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Scopes that one token is asked for at most.
const SCOPES_MAX: usize = 100;

/// Bytes of a form that asks for a token.
const FORM_BYTES_MAX: usize = 16 << 10;

impl Registry {
    /// Who sent a request.
    pub(super) async fn authenticate(&self, request: &Request<'_>) -> Result<Identity, Refusal> {
        let headers = &request.headers;
        let header = only_authorization(headers)
            .map_err(|message| self.shared.unauthorized(headers, None, message))?;
        self.shared.authenticator.authenticate(header).await.map_err(|error| {
            failure(error).unwrap_or_else(|| self.shared.unauthorized(headers, None, &error.to_string()))
        })
    }

    /// GET and POST of a token. Scopes that are not granted come back with fewer actions, or none.
    pub(super) async fn token(&self, mut request: Request<'_>) -> Result<Response, Refusal> {
        let form = match request.method {
            Method::GET => std::mem::take(&mut request.query),
            Method::POST => self.receive_form(&mut request).await?,
            _ => return Err(super::wrong_method(&request.method, "GET, POST")),
        };
        // Some clients put the credentials into the form (OAuth 2, grant type "password").
        let in_form = query::parameter(&form, "username").zip(query::parameter(&form, "password"));
        let in_form = in_form.map(|(user, password)| BASE64_STANDARD.encode(format!("{user}:{password}")));
        let in_form =
            in_form.and_then(|credentials| HeaderValue::try_from(format!("Basic {credentials}")).ok());
        if in_form.is_none()
            && query::parameter(&form, "grant_type").is_some_and(|kind| kind == "refresh_token")
        {
            return Err(Refusal::bad_request(
                Code::Unsupported,
                "no refresh tokens are issued here; log in again",
            ));
        }
        let header = only_authorization(&request.headers).map_err(basic_challenge)?.or(in_form.as_ref());
        let login = match header {
            Some(header) => self.shared.authenticator.authenticate_for_token(header).await,
            None => Ok(Login { identity: Identity::Anonymous, user: String::new() }),
        };
        let Login { identity, user } =
            login.map_err(|error| failure(error).unwrap_or_else(|| basic_challenge(&error.to_string())))?;
        if !self.shared.policy.may_see_catalog(&identity) {
            return Err(basic_challenge("log in to get a token"));
        }
        let account = query::parameter(&form, "account").filter(|account| !account.is_empty());
        if identity.is_authenticated() && account.is_some_and(|account| account != user) {
            return Err(Refusal::bad_request(Code::Unauthorized, "the account is not the user who logs in"));
        }
        let scopes = query::parameters(&form, "scope");
        let scopes: Vec<String> =
            scopes.flat_map(|scopes| scopes.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
        let access = scopes.iter().filter(|scope| !scope.is_empty()).take(SCOPES_MAX);
        let access = access.filter_map(|scope| self.shared.grant(&identity, scope)).collect();
        let issued = self.shared.authenticator.tokens().issue(&identity, access).ok_or_else(|| {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, "no token can be made")
        })?;
        let issued_at =
            jiff::Timestamp::from_second(i64::try_from(issued.issued_at).unwrap_or(0)).unwrap_or_default();
        let body = json!({
            "token": issued.token,
            "access_token": issued.token,
            "expires_in": issued.expires_in,
            "issued_at": issued_at.to_string(),
        });
        Ok(Response::new(StatusCode::OK)
            .with_body("application/json", body.to_string())
            .with(CACHE_CONTROL, "no-store"))
    }

    async fn receive_form(&self, request: &mut Request<'_>) -> Result<String, Refusal> {
        let (ended, form) = request.body.fill(self.core.buffers().take(FORM_BYTES_MAX)).await;
        if !ended? {
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                Code::SizeInvalid,
                "the form is too large",
            ));
        }
        String::from_utf8(form.to_vec())
            .map_err(|_| Refusal::bad_request(Code::Unsupported, "the form is no text"))
    }
}

impl Shared {
    /// What the caller gets of a scope such as `repository:team/app:pull,push`; `None` where it is malformed.
    fn grant(&self, identity: &Identity, scope: &str) -> Option<Grant> {
        let (kind, rest) = scope.split_once(':')?;
        let (name, wanted) = rest.rsplit_once(':')?;
        let wanted: Vec<&str> = wanted.split(',').collect();
        let actions = match kind {
            "repository" => {
                let repository: RepositoryName = name.parse().ok()?;
                let is_wanted =
                    |action: &Action| wanted.contains(&action.scope_name()) || wanted.contains(&"*");
                let allowed = Action::ALL.into_iter().filter(is_wanted);
                let allowed = allowed.filter(|action| self.policy.allows(identity, &repository, *action));
                allowed.map(|action| action.scope_name().to_owned()).collect()
            }
            "registry" if name == "catalog" && self.policy.may_see_catalog(identity) => vec!["*".to_owned()],
            _ => Vec::new(),
        };
        Some(Grant { kind: kind.to_owned(), name: name.to_owned(), actions })
    }

    /// Whether some may do something without a login and others more with one.
    pub(super) fn has_both_kinds(&self) -> bool {
        self.authenticator.has_logins() && self.policy.may_see_catalog(&Identity::Anonymous)
    }

    /// 401, with a challenge that the client can answer. `wanted`: what it was about to do.
    pub(super) fn unauthorized(
        &self,
        headers: &HeaderMap,
        wanted: Option<(&RepositoryName, Action)>,
        message: &str,
    ) -> Refusal {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).filter(|host| is_host(host));
        let by_token = self.authority.is_enabled() || self.has_both_kinds();
        let Some(host) = host.filter(|_| by_token) else { return basic_challenge(message) };
        let is_https = headers.get(FORWARDED_PROTOCOL).is_some_and(|scheme| scheme.as_bytes() == b"https");
        let scheme = if is_https { "https" } else { "http" };
        let mut challenge = format!("Bearer realm=\"{scheme}://{host}{TOKEN_PATH}\",service=\"{SERVICE}\"");
        if let Some((repository, action)) = wanted {
            let actions = match action {
                Action::Pull => "pull",
                Action::Push => "pull,push",
                Action::Delete => "delete",
            };
            challenge += &format!(",scope=\"repository:{repository}:{actions}\"");
        }
        Refusal::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message).with(WWW_AUTHENTICATE, challenge)
    }
}

/// The `Authorization` header; an error where there is more than one.
pub(super) fn only_authorization(headers: &HeaderMap) -> Result<Option<&HeaderValue>, &'static str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next();
    match values.next() {
        None => Ok(value),
        Some(_) => Err("the request has more than one Authorization"),
    }
}

/// 503 where the registry, and not the credentials, is at fault.
fn failure(error: AuthenticationError) -> Option<Refusal> {
    error
        .is_failure()
        .then(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, error.to_string()))
}

/// A host that may stand within quotes.
fn is_host(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
}

fn basic_challenge(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message)
        .with(WWW_AUTHENTICATE, "Basic realm=\"payload-registry\", charset=\"UTF-8\"")
}
