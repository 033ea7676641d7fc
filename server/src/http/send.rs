//! Sending an answer: its head, and a body from memory or from a file.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use engine::Content;
use engine::buffer::{Buffer, BufferPool};
use engine::disk::DiskFile;
use engine::runtime::{self, AsyncWriteRentExt, TcpStream};
use http::{HeaderMap, StatusCode};
use rustix::io::Errno;

use super::ResponseBody;
use super::connection::Transport;
use super::watchdog::{Wait, Watched};

/// Bodies up to this size are sent together with their head.
const JOINED_BYTES_MAX: usize = 16 << 10;

/// Bytes of a file that are sent at a time, where they are in the page cache: as much as one call takes in a tenth of a
/// millisecond or two. Larger calls cost no less, and keep the other connections waiting.
const WINDOW_BYTES: u64 = 2 << 20;

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
                self.send_file(&file, start, len).await
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

    /// Sends a part of a file: what is in the page cache right from there, and the rest through a buffer that io_uring
    /// fills, so that no call waits for the disk.
    async fn send_file(&mut self, file: &Rc<dyn DiskFile>, start: u64, len: u64) -> io::Result<()> {
        let (mut offset, end) = (start, start + len);
        let mut buffer = None;
        while offset < end {
            let window = (end - offset).min(WINDOW_BYTES);
            let sent = match (self.stream.plain_socket(), file.descriptor()) {
                (Some(socket), Some(descriptor)) if file.is_cached(offset, window) => {
                    buffer = None;
                    self.send_cached(socket, descriptor, offset, window).await?
                }
                _ => {
                    let empty = buffer.take().unwrap_or_else(|| self.buffers.take(READ_BYTES));
                    let (sent, emptied) = self.send_through(file, empty, offset, window).await?;
                    buffer = Some(emptied);
                    sent
                }
            };
            offset += sent;
        }
        Ok(())
    }

    /// Sends a window of a file that is in the page cache.
    async fn send_cached(
        &self,
        socket: &TcpStream,
        file: BorrowedFd<'_>,
        offset: u64,
        window: u64,
    ) -> io::Result<u64> {
        let _nonblocking = Nonblocking::new(socket)?;
        let (mut offset, end) = (offset, offset + window);
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            match rustix::fs::sendfile(borrow(socket), file, Some(&mut offset), left) {
                Ok(0) => return Err(is_shorter()),
                Ok(_) => self.watched.wait(Wait::Writing, self.limit),
                Err(Errno::AGAIN) => {
                    self.watched.wait(Wait::Writing, self.limit);
                    socket.writable(false).await?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Others on this thread have their turn, also when the peer takes all at once.
        runtime::yield_now().await;
        Ok(window)
    }

    /// Sends the start of a window through a buffer of this process; gives the buffer back, emptied.
    async fn send_through(
        &mut self,
        file: &Rc<dyn DiskFile>,
        buffer: Buffer,
        offset: u64,
        window: u64,
    ) -> io::Result<(u64, Buffer)> {
        let most = usize::try_from(window).unwrap_or(usize::MAX);
        let (count, buffer) = file.read_at(buffer, most, offset).await;
        let count = count?;
        if count == 0 {
            return Err(is_shorter());
        }
        self.watched.wait(Wait::Writing, self.limit);
        let (sent, mut buffer) = self.stream.write_all(buffer).await;
        sent?;
        buffer.truncate(0);
        Ok((count as u64, buffer))
    }
}

/// The head has promised more: the connection ends, so that the client sees that something is wrong.
fn is_shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a blob's file is shorter than the blob")
}

fn borrow(socket: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the socket is open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// Makes a socket non-blocking for a while. On io_uring the runtime's sockets block, and its operations want that.
struct Nonblocking<'a>(Option<&'a TcpStream>);

impl<'a> Nonblocking<'a> {
    fn new(socket: &'a TcpStream) -> io::Result<Self> {
        if !runtime::has_io_uring() {
            return Ok(Self(None));
        }
        rustix::io::ioctl_fionbio(borrow(socket), true)?;
        Ok(Self(Some(socket)))
    }
}

impl Drop for Nonblocking<'_> {
    fn drop(&mut self) {
        if let Some(socket) = self.0 {
            // What could be set can be unset; the socket is the same.
            let _ = rustix::io::ioctl_fionbio(borrow(socket), false);
        }
    }
}
