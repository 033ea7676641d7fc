use http::Request;
use kube::Client;
use serde::de::DeserializeOwned;

use super::api_error::{describe, unreadable};

/// Why a request whose answer holds a secret brought nothing. No word of what was sent or answered is in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfidentialError {
    /// The API server refused, or cannot be reached.
    #[error("{}", describe(.0))]
    Request(#[from] kube::Error),
    /// The answer is not what it should be.
    #[error("{0}")]
    Answer(String),
}

/// Sends a request whose answer holds a secret. The client's own way would log an answer that it cannot read.
pub(super) async fn send<T: DeserializeOwned>(
    client: &Client,
    request: Request<Vec<u8>>,
) -> Result<T, ConfidentialError> {
    let text = client.request_text(request).await?;
    serde_json::from_str(&text).map_err(|error| ConfidentialError::Answer(unreadable(&error)))
}
