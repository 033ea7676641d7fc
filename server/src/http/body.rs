//! A request's body over HTTP/1.1: received from the socket right into the buffer it is wanted in.

use std::time::Duration;

use engine::buffer::Buffer;
use engine::runtime::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};

use super::chunked::Decoder;
use super::connection::{Input, Transport};
use super::head::{Framing, Head};
use super::watchdog::{Wait, Watched};
use super::{Body, BodyError, LocalFuture};

/// A body must bring this much within the limit of a wait; a sender that is slower is ended.
const PROGRESS_BYTES: usize = 16 << 10;

/// How far a request's body has come.
pub(super) struct Progress {
    framing: State,
    /// The client waits for a word before it sends the body.
    owes_continue: bool,
    has_failed: bool,
}

enum State {
    Length(u64),
    Chunked(Decoder),
}

impl Progress {
    pub(super) fn new(head: &Head) -> Self {
        let framing = match head.framing {
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Decoder::new()),
        };
        Self { framing, owes_continue: head.expects_continue, has_failed: false }
    }

    /// Whether the body was received to its end, so that the next request can follow.
    pub(super) fn is_done(&self) -> bool {
        match &self.framing {
            _ if self.has_failed => false,
            State::Length(remaining) => *remaining == 0,
            State::Chunked(decoder) => decoder.is_done(),
        }
    }

    /// Whether the rest of a body that nobody wants is worth receiving, to keep the connection.
    pub(super) fn is_worth_draining(&self, most: u64) -> bool {
        match &self.framing {
            _ if self.has_failed || self.owes_continue => false,
            State::Length(remaining) => *remaining <= most,
            State::Chunked(_) => true,
        }
    }
}

/// The body of the request that a connection is answering.
pub(super) struct Http1Body<'a, S> {
    pub(super) stream: &'a mut S,
    pub(super) input: &'a mut Input,
    pub(super) watched: &'a Watched,
    /// How long it may make no progress.
    pub(super) limit: Duration,
    pub(super) progress: &'a mut Progress,
}

impl<S: AsyncReadRent + AsyncWriteRent> Http1Body<'_, S> {
    /// Reads into the free part of `buffer`, at most `limit` bytes: what has come with the head first.
    async fn read(&mut self, mut buffer: Buffer, limit: usize) -> (Result<usize, BodyError>, Buffer) {
        let early = self.input.take(limit.min(buffer.free()));
        if !early.is_empty() {
            let count = buffer.append(early);
            self.input.consume(count);
            return (Ok(count), buffer);
        }
        if std::mem::take(&mut self.progress.owes_continue) {
            let (answer, _) = self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n".as_slice()).await;
            if answer.is_err() {
                return (Err(BodyError::Truncated), buffer);
            }
        }
        let (answer, tail) = self.stream.read(buffer.tail(limit)).await;
        let result = match answer {
            Ok(0) | Err(_) => Err(BodyError::Truncated),
            Ok(count) => Ok(count),
        };
        (result, tail.into_buffer())
    }

    async fn receive(&mut self, mut buffer: Buffer) -> (Result<bool, BodyError>, Buffer) {
        let mut received = 0;
        self.watched.wait(Wait::Reading, self.limit);
        while !self.progress.is_done() && buffer.free() > 0 {
            let limit = match &self.progress.framing {
                State::Length(remaining) => usize::try_from(*remaining).unwrap_or(usize::MAX),
                State::Chunked(_) => usize::MAX,
            };
            let before = buffer.len();
            let (count, filled) = self.read(buffer, limit).await;
            buffer = filled;
            let taken = count.and_then(|count| self.unframe(&mut buffer, before, count));
            if let Err(error) = taken {
                self.progress.has_failed = true;
                return (Err(error), buffer);
            }
            received += buffer.len() - before;
            if received >= PROGRESS_BYTES {
                received = 0;
                self.watched.wait(Wait::Reading, self.limit);
            }
        }
        self.watched.work();
        (Ok(self.progress.is_done()), buffer)
    }

    /// Takes the framing out of the `count` bytes that were received behind `before`.
    fn unframe(&mut self, buffer: &mut Buffer, before: usize, count: usize) -> Result<(), BodyError> {
        match &mut self.progress.framing {
            State::Length(remaining) => *remaining -= count as u64,
            State::Chunked(decoder) => {
                let decoded = decoder.decode(&mut buffer.filled_mut()[before..])?;
                if decoded.coded < count {
                    // The next request has come with the end of this one.
                    self.input.put_back(&buffer[before + decoded.coded..])?;
                }
                buffer.truncate(before + decoded.body);
            }
        }
        Ok(())
    }
}

impl<S: Transport> Body for Http1Body<'_, S> {
    fn remaining(&self) -> Option<u64> {
        match &self.progress.framing {
            State::Length(remaining) => Some(*remaining),
            State::Chunked(decoder) => decoder.is_done().then_some(0),
        }
    }

    fn fill(&mut self, buffer: Buffer) -> LocalFuture<'_, (Result<bool, BodyError>, Buffer)> {
        Box::pin(self.receive(buffer))
    }

    fn interrupted(&mut self) -> LocalFuture<'_, ()> {
        // Where it cannot be waited for, the connection is no longer one.
        Box::pin(async { drop(self.stream.heard().await) })
    }
}
