//! Sending an answer: its head, and a body from memory or from a file.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use engine::Content;
use engine::buffer::BufferPool;
use engine::disk::DiskFile;
use engine::runtime::AsyncWriteRentExt;
use http::{HeaderMap, StatusCode};

use super::ResponseBody;
use super::connection::Transport;
use super::watchdog::{Wait, Watched};

/// Bodies up to this size are sent together with their head.
const JOINED_BYTES_MAX: usize = 16 << 10;

/// Bytes of a file that are read and sent at a time, where they pass through this process.
const READ_BYTES: usize = 256 << 10;

/// Writes the head of an answer, names with capitals as most servers send them.
pub(super) fn encode_head(head: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
    head.put_slice(b"HTTP/1.1 ");
    head.put_slice(status.as_str().as_bytes());
    head.put_u8(b' ');
    head.put_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    head.put_slice(b"\r\n");
    for (name, value) in headers {
        let mut starts = true;
        for byte in name.as_str().bytes() {
            head.put_u8(if starts { byte.to_ascii_uppercase() } else { byte });
            starts = byte == b'-';
        }
        head.put_slice(b": ");
        head.put_slice(value.as_bytes());
        head.put_slice(b"\r\n");
    }
    head.put_slice(b"\r\n");
}

/// What sending takes.
pub(super) struct Sender<'a, S> {
    pub(super) stream: &'a mut S,
    pub(super) buffers: &'a BufferPool,
    pub(super) watched: &'a Watched,
    /// How long it may make no progress.
    pub(super) limit: Duration,
}

impl<S: Transport> Sender<'_, S> {
    pub(super) async fn send(mut self, mut head: BytesMut, body: ResponseBody) -> io::Result<()> {
        match body {
            ResponseBody::Empty => self.write(head.freeze()).await,
            ResponseBody::Bytes(bytes) => self.write_joined(head, bytes).await,
            ResponseBody::Content { content: Content::Inline(bytes), start, len } => {
                // The range was checked against the content's size, which fits in memory.
                let bytes = bytes.slice(start as usize..(start + len) as usize);
                self.write_joined(head, bytes).await
            }
            ResponseBody::Content { content: Content::File(file), start, len } => {
                let first = head.split();
                self.write(first.freeze()).await?;
                self.copy_file(file, start, len).await
            }
        }
    }

    async fn write_joined(&mut self, mut head: BytesMut, body: Bytes) -> io::Result<()> {
        if body.len() <= JOINED_BYTES_MAX {
            head.put_slice(&body);
            return self.write(head.freeze()).await;
        }
        self.write(head.freeze()).await?;
        let mut body = body;
        while !body.is_empty() {
            let piece = body.split_to(body.len().min(READ_BYTES));
            self.write(piece).await?;
        }
        Ok(())
    }

    /// Sends a piece: progress enough to be given the limit anew.
    async fn write(&mut self, piece: Bytes) -> io::Result<()> {
        self.watched.wait(Wait::Writing, self.limit);
        self.stream.write_all(piece).await.0.map(drop)
    }

    /// Sends a part of a file through a buffer of this process.
    async fn copy_file(&mut self, file: Rc<dyn DiskFile>, start: u64, len: u64) -> io::Result<()> {
        let (mut offset, end) = (start, start + len);
        let mut buffer = self.buffers.take(READ_BYTES);
        while offset < end {
            buffer.truncate(0);
            let most = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let (count, filled) = file.read_at(buffer, most, offset).await;
            let count = count?;
            if count == 0 {
                // The head has promised more: the connection ends, so that the client sees that something is wrong.
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "a blob's file is shorter than the blob",
                ));
            }
            self.watched.wait(Wait::Writing, self.limit);
            let (sent, filled) = self.stream.write_all(filled).await;
            sent?;
            buffer = filled;
            offset += count as u64;
        }
        Ok(())
    }
}
