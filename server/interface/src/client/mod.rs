//! The way to the registry: its private interface, over a Unix socket or TLS; or, for administration, the listener that
//! serves images, with a token.

mod connect;

use std::time::Duration;

use crate::{Call, Failure, Reason, WAIT_SECONDS_MAX};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use connect::Connect;
pub use connect::{Address, InvalidAddress, InvalidPublicAddress, TlsConfigSource, TokenSource};

/// Bytes of an answer: 100,000 tags with long names have room.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// How long a call may take beside what it was asked to wait.
const CALL_TIME: Duration = Duration::from_secs(30);

/// The registry. Cheap to clone; connections are shared and kept.
#[derive(Clone)]
pub struct Registry {
    client: Client<Connect, Full<Bytes>>,
    /// What the paths of calls are below.
    base: String,
    token: Option<TokenSource>,
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The registry said no, and why.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The registry cannot be reached, or does not speak the interface.
    #[error("the registry does not answer: {0}")]
    Unreachable(String),
    /// There is no token to call with.
    #[error("cannot read the token: {0}")]
    Token(String),
}

impl CallError {
    /// The registry's reason; `None` where it does not answer.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Failed(failure) => Some(failure.reason),
            Self::Unreachable(_) | Self::Token(_) => None,
        }
    }
}

impl Registry {
    /// The registry at `address`. Nothing is connected before the first call.
    pub fn new(address: Address) -> Self {
        let (base, token) = (address.base(), address.token().cloned());
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(Connect::new(address));
        Self { client, base, token }
    }

    /// Makes a call, and waits for its answer for as long as the call may wait and half a minute more.
    pub async fn call<C: Call>(&self, call: &C) -> Result<C::Answer, CallError> {
        self.call_within(call, CALL_TIME + Duration::from_secs(WAIT_SECONDS_MAX)).await
    }

    /// Makes a call, and waits for its answer for as long as `limit`: for calls that wait for something by themselves.
    pub async fn call_within<C: Call>(&self, call: &C, limit: Duration) -> Result<C::Answer, CallError> {
        match tokio::time::timeout(limit, self.send(call)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Unreachable(format!("no answer to {} within {limit:?}", C::PATH))),
        }
    }

    async fn send<C: Call>(&self, call: &C) -> Result<C::Answer, CallError> {
        let unreachable = |error: &dyn std::fmt::Display| CallError::Unreachable(error.to_string());
        let body = serde_json::to_vec(call).map_err(|error| unreachable(&error))?;
        let mut request = Request::post(format!("{}{}", self.base, C::PATH))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| unreachable(&error))?;
        if let Some(token) = &self.token {
            let token = token().map_err(|error| CallError::Token(error.to_string()))?;
            // The error does not repeat the token.
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
                .map_err(|_| CallError::Token("there are characters in it that no token has".to_owned()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let response = self.client.request(request).await.map_err(|error| {
            let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
            let causes: Vec<String> = causes.map(ToString::to_string).collect();
            CallError::Unreachable(format!("{error}: {}", causes.join(": ")))
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| unreachable(&error))?.to_bytes();
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| unreachable(&error));
        }
        match serde_json::from_slice::<Failure>(&body) {
            Ok(failure) => Err(failure.into()),
            Err(_) => Err(CallError::Unreachable(format!("it answers {} with {status}", C::PATH))),
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}
