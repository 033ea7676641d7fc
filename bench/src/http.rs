//! A client that pushes: a blocking socket, one request at a time. Those that only pull are a [`crate::crowd`].

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::content::Content;
use crate::crowd::Request;
use crate::head::{Framing, Head};

/// How long a server may be silent.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the registry that is measured.
pub struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    /// The last answer's bytes.
    received: Vec<u8>,
    scratch: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `Location`.
    pub location: Option<String>,
    /// The body, with the marks of its chunks where it has some.
    pub body: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { address, stream: connect(address)?, received: Vec::new(), scratch: vec![0; 64 << 10] })
    }

    /// Sends a request whose body is in memory.
    pub fn request(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> io::Result<Answer> {
        let mut request = head(self.address, method, target, headers, body.len() as u64).into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request)?;
        self.answer(method == "HEAD")
    }

    /// Sends a request with a blob as its body.
    pub fn send(&mut self, method: &str, target: &str, blob: &Content) -> io::Result<Answer> {
        let head = head(self.address, method, target, "Content-Type: application/octet-stream\r\n", blob.len);
        blob.write(head.as_bytes(), &mut self.stream)?;
        self.answer(false)
    }

    /// Sends a request without a body, and gives the length of the answer's; its bytes are read.
    pub fn pull(&mut self, request: &Request) -> io::Result<u64> {
        let answer = self.request(request.method, &request.target, &request.headers, b"")?;
        if answer.status != request.status {
            let Request { target, status, .. } = request;
            return Err(io::Error::other(format!("{target} answered {} instead of {status}", answer.status)));
        }
        Ok(answer.body.len() as u64)
    }

    fn answer(&mut self, is_head: bool) -> io::Result<Answer> {
        self.received.clear();
        let head = loop {
            if let Some(head) = Head::parse(&self.received, is_head)? {
                break head;
            }
            self.receive()?;
        };
        let is_whole = |received: &[u8]| match head.body {
            Framing::Length(len) => (received.len() - head.len) as u64 >= len,
            Framing::Chunked => received[head.len..].ends_with(b"0\r\n\r\n"),
        };
        while !is_whole(&self.received) {
            self.receive()?;
        }
        if head.closes {
            self.stream = connect(self.address)?;
        }
        let body = self.received.split_off(head.len);
        Ok(Answer { status: head.status, location: head.location, body })
    }

    fn receive(&mut self) -> io::Result<()> {
        match self.stream.read(&mut self.scratch)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.received.extend_from_slice(&self.scratch[..count]);
                Ok(())
            }
        }
    }
}

/// A connection without delays.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The head of a request.
pub fn head(address: SocketAddr, method: &str, target: &str, headers: &str, len: u64) -> String {
    // Some registries answer with whole addresses.
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    let length = match method {
        "GET" | "HEAD" => String::new(),
        _ => format!("Content-Length: {len}\r\n"),
    };
    format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}{length}\r\n")
}
