//! HTTP as the registry needs it: requests whose body is received straight into the engine's buffers, answers whose
//! body is sent straight from a file.
//!
//! [`Request`] and [`Response`] know nothing of the protocol's version, and the connection works over any byte stream.

mod body;
mod chunked;
mod clock;
mod connection;
mod head;
mod send;
mod tls;
mod watchdog;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use engine::Content;
use engine::buffer::Buffer;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

pub use connection::{Connection, Limits, Service, Transport};
pub use tls::TlsStream;
pub use watchdog::Watchdog;

/// A future that stays on its thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A request, as far as it has come: the body is received when it is asked for.
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The path as it was sent, percent-encoded, without the query.
    pub path: String,
    /// The query as it was sent, without the question mark; empty where there is none.
    pub query: String,
    /// The version of the protocol.
    pub version: Version,
    /// The header fields.
    pub headers: HeaderMap,
    /// Names this request in logs and in the answer.
    pub id: RequestId,
    /// The body.
    pub body: &'a mut dyn Body,
}

/// Names a request, uniquely within a process and hardly ever twice among processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub u64);

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A request's body.
pub trait Body {
    /// Bytes still to come; `None` where only the end will tell (chunked transfer coding).
    fn remaining(&self) -> Option<u64>;

    /// Receives into the free part of `buffer` until it is full or the body ends, and says whether the body has
    /// ended. With an error the buffer has what came before it.
    fn fill(&mut self, buffer: Buffer) -> LocalFuture<'_, (Result<bool, BodyError>, Buffer)>;

    /// Waits until something comes from the peer behind what was received: the end of the connection, as a rule. Once a body
    /// has come to its end, that tells a call which waits for something else that nobody waits for its answer. May be
    /// dropped at any time.
    fn interrupted(&mut self) -> LocalFuture<'_, ()>;
}

/// Why a body did not come to its end. None of them leaves the connection usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection ended, or nothing came for too long, before the body's end.
    #[error("the body ended before its promised length")]
    Truncated,
    /// The chunked transfer coding is malformed.
    #[error("the body's chunked transfer coding is malformed")]
    Malformed,
}

/// An answer.
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The header fields, but for those of the connection: length, date, and whether it stays open.
    pub headers: HeaderMap,
    /// The body.
    pub body: ResponseBody,
}

/// An answer's body.
pub enum ResponseBody {
    /// Nothing.
    Empty,
    /// Bytes in memory.
    Bytes(Bytes),
    /// A part of stored content.
    Content {
        /// The content.
        content: Content,
        /// Where the part begins.
        start: u64,
        /// Its length in bytes.
        len: u64,
    },
}

impl ResponseBody {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Content { len, .. } => *len,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Response {
    /// An answer without a body.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: ResponseBody::Empty }
    }

    /// With a header field. A value that no field can have (it would split the head) is left out.
    pub fn with(mut self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        if let Ok(value) = value.try_into() {
            self.headers.insert(name, value);
        }
        self
    }

    /// With a body of a media type.
    pub fn with_body(self, media_type: &str, body: impl Into<Bytes>) -> Self {
        let mut response = self.with(http::header::CONTENT_TYPE, media_type);
        response.body = ResponseBody::Bytes(body.into());
        response
    }
}
