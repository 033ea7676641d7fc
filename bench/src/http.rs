//! A client that costs little: blocking sockets, one request at a time, bodies of answers thrown away by the kernel.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;

use rustix::net::RecvFlags;

use crate::content::Content;

/// A connection to the registry that is measured.
pub struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

/// An answer; its body was read, or thrown away.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `Location`.
    pub location: Option<String>,
    /// Length of the body in bytes.
    pub body_len: u64,
    /// The body, where it was asked for.
    pub body: Vec<u8>,
}

/// What becomes of an answer's body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// It is kept.
    Keep,
    /// The kernel throws it away, so that receiving costs as little as it can.
    Discard,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, buffer: Vec::new(), scratch: vec![0; 1 << 20] })
    }

    /// Sends a request whose body is in memory.
    pub fn request(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> io::Result<Answer> {
        self.request_for(method, target, headers, body, Body::Keep)
    }

    /// Sends a request whose body is in memory, and says what becomes of the answer's.
    pub fn request_for(
        &mut self,
        method: &str,
        target: &str,
        headers: &str,
        body: &[u8],
        kept: Body,
    ) -> io::Result<Answer> {
        let mut request = self.head(method, target, headers, body.len() as u64).into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request)?;
        self.answer(method == "HEAD", kept)
    }

    /// Sends a request with a blob as its body.
    pub fn send(&mut self, method: &str, target: &str, blob: &Content) -> io::Result<Answer> {
        let head = self.head(method, target, "Content-Type: application/octet-stream\r\n", blob.len);
        blob.write(head.as_bytes(), &mut self.stream)?;
        self.answer(false, Body::Keep)
    }

    fn head(&self, method: &str, target: &str, headers: &str, len: u64) -> String {
        // Some registries answer with whole addresses.
        let path = match target.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => target,
        };
        let length = if matches!(method, "GET" | "HEAD") {
            String::new()
        } else {
            format!("Content-Length: {len}\r\n")
        };
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}{length}\r\n", self.address)
    }

    fn answer(&mut self, is_head: bool, kept: Body) -> io::Result<Answer> {
        self.buffer.clear();
        let head_len = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let count = self.stream.read(&mut self.scratch[..16 << 10])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&self.scratch[..count]);
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_len]).into_owned();
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("not understood: {head}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
        let field = |name: &str| {
            head.lines().skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let body_len: u64 = match field("content-length") {
            _ if is_head || status == 204 || status == 304 => 0,
            Some(length) => length.parse().map_err(|_| malformed())?,
            None if field("transfer-encoding").is_some() => {
                return self.chunked(status, field("location"), head_len);
            }
            None => 0,
        };
        let mut body = self.buffer.split_off(head_len);
        let mut left = body_len.saturating_sub(body.len() as u64);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.scratch.len());
            let count = if kept == Body::Keep {
                let count = self.stream.read(&mut self.scratch[..most])?;
                body.extend_from_slice(&self.scratch[..count]);
                count
            } else {
                rustix::net::recv(self.stream.as_fd(), &mut self.scratch[..most], RecvFlags::TRUNC)?.1
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= count as u64;
        }
        Ok(Answer { status, location: field("location"), body_len, body })
    }

    /// Some registries answer lists in chunks, which are small.
    fn chunked(&mut self, status: u16, location: Option<String>, head_len: usize) -> io::Result<Answer> {
        let mut coded = self.buffer.split_off(head_len);
        while !coded.ends_with(b"0\r\n\r\n") {
            let count = self.stream.read(&mut self.scratch)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            coded.extend_from_slice(&self.scratch[..count]);
        }
        Ok(Answer { status, location, body_len: coded.len() as u64, body: coded })
    }
}
