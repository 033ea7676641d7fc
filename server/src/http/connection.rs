//! A connection over HTTP/1.1: one request after the other, each answered before the next one is read.

use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use engine::buffer::{Buffer, BufferPool};
use engine::runtime::{AsyncReadRent, AsyncWriteRent, TcpStream, UnixStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderValue, Method, StatusCode, Version};

use super::body::{Http1Body, Progress};
use super::head::{self, BadHead, Head};
use super::watchdog::{Wait, Watchdog, Watched};
use super::{Body, BodyError, LocalFuture, Request, RequestId, Response, clock, send};

/// The rest of a body that was refused is received up to this many bytes, to keep the connection.
const DRAIN_BYTES_MAX: u64 = 256 << 10;

/// What is received and thrown away of a connection that is being closed, so that the peer gets to read the answer
/// instead of a reset.
const LINGER_BYTES_MAX: usize = 64 << 20;

/// How long that takes at most.
const LINGER: Duration = Duration::from_secs(5);

/// What a request may cost before its answer is known.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a head may take from its first byte.
    pub head_time: Duration,
    /// How long a connection may wait for its next request.
    pub idle_time: Duration,
    /// How long a body, either way, may make no progress.
    pub body_time: Duration,
    /// Bytes of a head.
    pub head_size: usize,
    /// Header fields.
    pub headers: usize,
}

/// Answers requests.
pub trait Service {
    /// Answers one request.
    fn call<'a>(&'a self, request: Request<'a>) -> LocalFuture<'a, Response>;

    /// The answer to a request that cannot be understood.
    fn refuse(&self, id: RequestId, status: StatusCode, message: &str) -> Response;

    /// A new request's name.
    fn next_id(&self) -> RequestId;

    /// Whether connections end with the answer that is being sent, because the program does.
    fn is_stopping(&self) -> bool;
}

/// A byte stream that a connection works over.
pub trait Transport: AsyncReadRent + AsyncWriteRent + AsRawFd {
    /// The socket itself, where bytes that are written to it reach the peer as they are, so that a file can be sent
    /// without passing through this process.
    fn plain_socket(&self) -> Option<&TcpStream>;

    /// Waits until the socket has something to receive, its end among it. May be dropped at any time.
    fn heard(&self) -> impl Future<Output = io::Result<()>>;
}

impl Transport for TcpStream {
    fn plain_socket(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn heard(&self) -> impl Future<Output = io::Result<()>> {
        self.readable(false)
    }
}

impl Transport for UnixStream {
    fn plain_socket(&self) -> Option<&TcpStream> {
        None
    }

    fn heard(&self) -> impl Future<Output = io::Result<()>> {
        self.readable(false)
    }
}

/// Bytes that were received and not used yet.
pub(super) struct Input {
    buffers: BufferPool,
    buffer: Option<Buffer>,
    used: usize,
}

impl Input {
    fn new(buffers: BufferPool) -> Self {
        Self { buffers, buffer: None, used: 0 }
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[self.used..])
    }

    /// The first bytes, at most `most`.
    pub(super) fn take(&self, most: usize) -> &[u8] {
        let bytes = self.bytes();
        &bytes[..most.min(bytes.len())]
    }

    /// Forgets the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.used += count;
        if self.bytes().is_empty() {
            // Nothing is kept for a connection that waits, or that receives a long body.
            self.buffer = None;
            self.used = 0;
        }
    }

    /// Puts bytes in front of all others. An error where there is no memory for them.
    pub(super) fn put_back(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        let needed = bytes.len() + self.bytes().len();
        let mut joined = self.buffers.take_whole(needed).ok_or(BodyError::Truncated)?;
        joined.append(bytes);
        joined.append(self.bytes());
        self.buffer = Some(joined);
        self.used = 0;
        Ok(())
    }

    /// A buffer with what is there, and room for more; `None` where there is too much for any.
    fn grow(&mut self) -> Option<Buffer> {
        match self.buffer.take() {
            Some(buffer) if self.used == 0 && buffer.free() > 0 => Some(buffer),
            before => {
                let unused = before.as_ref().map_or(&[][..], |buffer| &buffer[self.used..]);
                let mut larger = self.buffers.take_whole(unused.len() + 1)?;
                larger.append(unused);
                self.used = 0;
                Some(larger)
            }
        }
    }
}

/// A connection.
pub struct Connection<S, V> {
    /// Dropped before the socket is closed, which it may shut down.
    watched: Watched,
    stream: S,
    input: Input,
    limits: Rc<Limits>,
    service: Rc<V>,
}

impl<S: Transport, V: Service> Connection<S, V> {
    /// A connection over `stream`.
    pub fn new(
        stream: S,
        buffers: BufferPool,
        limits: Rc<Limits>,
        service: Rc<V>,
        watchdog: &Watchdog,
    ) -> Self {
        let watched = watchdog.add(stream.as_raw_fd());
        Self { watched, stream, input: Input::new(buffers), limits, service }
    }

    /// Answers requests until the peer or the program ends the connection.
    pub async fn run(mut self) {
        loop {
            let head = match self.read_head().await {
                Ok(Some(head)) => head,
                Ok(None) => return,
                Err(refused) => return self.refuse(refused.status, refused.message).await,
            };
            if !self.answer(head).await {
                return;
            }
        }
    }

    /// Tells the peer that there are too many connections, and ends this one.
    pub async fn turn_away(mut self) {
        let message = "too many connections; try again in a few seconds";
        self.refuse(StatusCode::SERVICE_UNAVAILABLE, message).await;
    }

    /// Answers what cannot be answered otherwise; the connection ends with it.
    async fn refuse(&mut self, status: StatusCode, message: &str) {
        let id = self.service.next_id();
        let response = self.service.refuse(id, status, message);
        if self.send(response, &Method::GET, Version::HTTP_11, id, false).await {
            self.linger().await;
        }
    }

    /// `Ok(None)`: the connection has ended between two requests.
    async fn read_head(&mut self) -> Result<Option<Head>, BadHead> {
        let mut has_begun = false;
        loop {
            let bytes = self.input.bytes();
            if !bytes.is_empty() {
                if !has_begun {
                    has_begun = true;
                    self.watched.wait(Wait::Reading, self.limits.head_time);
                }
                if let Some((head, len)) = head::parse(bytes, self.limits.headers)? {
                    self.input.consume(len);
                    self.watched.work();
                    return Ok(Some(head));
                }
                if bytes.len() >= self.limits.head_size {
                    return Err(BadHead {
                        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                        message: "the request's head is too large",
                    });
                }
            } else {
                if self.service.is_stopping() {
                    return Ok(None);
                }
                self.watched.wait(Wait::Idle, self.limits.idle_time);
            }
            let Some(buffer) = self.input.grow() else { return Ok(None) };
            let (count, tail) = self.stream.read(buffer.tail(usize::MAX)).await;
            self.input.buffer = Some(tail.into_buffer());
            match count {
                Ok(0) | Err(_) if has_begun && self.watched.has_expired() => {
                    return Err(BadHead {
                        status: StatusCode::REQUEST_TIMEOUT,
                        message: "the request's head did not come to its end in time",
                    });
                }
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
        }
    }

    /// Answers one request; whether another one may follow.
    async fn answer(&mut self, head: Head) -> bool {
        let id = self.service.next_id();
        let (method, version, may_stay) = (head.method.clone(), head.version, head.keep_alive);
        let mut progress = Progress::new(&head);
        let response = {
            let mut body = Http1Body {
                stream: &mut self.stream,
                input: &mut self.input,
                watched: &self.watched,
                limit: self.limits.body_time,
                progress: &mut progress,
            };
            let request = Request {
                method: head.method,
                path: head.path,
                query: head.query,
                version,
                headers: head.headers,
                id,
                body: &mut body,
            };
            self.service.call(request).await
        };
        let stays = may_stay
            && !self.service.is_stopping()
            && (progress.is_done() || progress.is_worth_draining(DRAIN_BYTES_MAX));
        // The answer first: the client may be waiting for it before it goes on sending, or stops.
        if !self.send(response, &method, version, id, stays).await {
            return false;
        }
        if stays && (progress.is_done() || self.drain(&mut progress).await) {
            return true;
        }
        self.linger().await;
        false
    }

    /// Receives the rest of a body that nobody wants; whether it ended in time.
    async fn drain(&mut self, progress: &mut Progress) -> bool {
        let mut received = 0;
        while !progress.is_done() && received <= DRAIN_BYTES_MAX {
            let buffer = self.input.buffers.take(engine::buffer::SIZES[1]);
            let mut body = Http1Body {
                stream: &mut self.stream,
                input: &mut self.input,
                watched: &self.watched,
                limit: self.limits.body_time,
                progress,
            };
            let (result, buffer) = body.fill(buffer).await;
            received += buffer.len() as u64;
            if result.is_err() {
                return false;
            }
        }
        progress.is_done()
    }

    /// Sends an answer; whether that worked.
    async fn send(
        &mut self,
        response: Response,
        method: &Method,
        version: Version,
        id: RequestId,
        stays: bool,
    ) -> bool {
        let Response { status, mut headers, body } = response;
        headers.insert(DATE, clock::date());
        let has_body = status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
        // The answer to HEAD says the length of what GET would send.
        if has_body && !headers.contains_key(CONTENT_LENGTH) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        if let Ok(id) = HeaderValue::try_from(id.to_string()) {
            headers.insert("x-request-id", id);
        }
        if !stays {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        } else if version == Version::HTTP_10 {
            headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        let mut head = BytesMut::with_capacity(512);
        send::encode_head(&mut head, status, &headers);
        let body = if has_body && *method != Method::HEAD { body } else { super::ResponseBody::Empty };
        let sender = send::Sender {
            stream: &mut self.stream,
            buffers: &self.input.buffers,
            watched: &self.watched,
            limit: self.limits.body_time,
        };
        match sender.send(head, body).await {
            Ok(()) => {
                self.watched.work();
                true
            }
            Err(error) => {
                tracing::debug!(request = %id, %error, "the answer could not be sent to its end");
                false
            }
        }
    }

    /// Ends the connection so that the peer gets to read the last answer.
    async fn linger(&mut self) {
        self.watched.wait(Wait::Reading, LINGER);
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut buffer = self.input.buffers.take(engine::buffer::SIZES[1]);
        let mut received = 0;
        while received < LINGER_BYTES_MAX {
            buffer.truncate(0);
            let (count, tail) = self.stream.read(buffer.tail(usize::MAX)).await;
            buffer = tail.into_buffer();
            match count {
                Ok(0) | Err(_) => return,
                Ok(count) => received += count,
            }
        }
    }
}
