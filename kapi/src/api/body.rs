//! Bodies of answers, and of requests.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream::{Stream, TryStreamExt as _};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, Limited, StreamBody};
use hyper::body::Frame;
use serde::Serialize;

use super::status::Refusal;

/// The body of an answer: all at once, or little by little. One that fails is cut off, so that the client does not take a
/// part for the whole.
pub type Body = UnsyncBoxBody<Bytes, CutOff>;

/// An answer cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("the answer is cut off: {0}")]
pub struct CutOff(pub String);

/// Bytes of a request's body: the kube-apiserver's limit.
pub const REQUEST_BYTES_MAX: usize = 3 << 20;

/// A body of bytes that are there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(never).boxed_unsync()
}

fn never(never: Infallible) -> CutOff {
    match never {}
}

/// A body that is written piece by piece.
pub fn pieces(pieces: impl Stream<Item = Result<Bytes, CutOff>> + Send + 'static) -> Body {
    StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync()
}

/// An answer in JSON.
pub fn json(status: StatusCode, content: Body) -> Response<Body> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 200 and an object.
pub fn object(object: &impl Serialize) -> Result<Response<Body>, Refusal> {
    json_or_internal(serde_json::to_vec(object))
}

/// 200 and what was serialized.
pub fn json_or_internal(content: serde_json::Result<Vec<u8>>) -> Result<Response<Body>, Refusal> {
    match content {
        Ok(content) => Ok(json(StatusCode::OK, full(content))),
        Err(error) => Err(unwritten(&error)),
    }
}

/// JSON has a place for all that is written here, so that this is a mistake of the program.
pub fn unwritten(error: &serde_json::Error) -> Refusal {
    tracing::error!(%error, "an answer cannot be written");
    Refusal::internal("the answer cannot be written")
}

/// A refusal as an answer.
pub fn refusal(refusal: &Refusal) -> Response<Body> {
    // A Status is strings and numbers.
    let content = serde_json::to_vec(refusal.status()).unwrap_or_default();
    let mut response = json(refusal.code(), full(content));
    if let Some(seconds) = refusal.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Text for probes and people.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Reads the body of a request.
pub async fn read<B>(body: B) -> Result<Bytes, Refusal>
where
    B: hyper::body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    match Limited::new(body, REQUEST_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refusal::body_too_large(REQUEST_BYTES_MAX))
        }
        Err(error) => Err(Refusal::bad_request(format!("the request's body cannot be read: {error}"))),
    }
}
