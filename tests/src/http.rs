//! An HTTP/1.1 client over a plain socket, for full control over what is sent and when.
//!
//! What comes back is read strictly: a response that is framed wrongly is an error, and so is one that doesn't come.

use std::fmt::{self, Write as _};
use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;

use crate::PATIENCE;

/// What a request carries after its head.
#[derive(Clone, Debug, Default)]
pub enum Body {
    /// Nothing, and no header that says so.
    #[default]
    None,
    /// Bytes after a `Content-Length`.
    Sized(Vec<u8>),
    /// Pieces in chunked coding.
    Chunked(Vec<Vec<u8>>),
}

/// A request as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method, as it is written.
    pub method: String,
    /// The target, as it is written: path and query as a rule.
    pub target: String,
    /// The header fields beside `Host` and those that frame the body.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &str, target: impl Into<String>) -> Self {
        Self { method: method.into(), target: target.into(), headers: Vec::new(), body: Body::None }
    }

    /// Adds a header field.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body, to be sent with its length.
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Sized(bytes.into());
        self
    }

    /// Sets the body, to be sent in chunked coding, one chunk for each of the pieces.
    pub fn chunked<'a>(mut self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        self.body = Body::Chunked(pieces.into_iter().map(Into::into).collect());
        self
    }

    /// The head: request line, header fields and the empty line.
    pub fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: registry.test\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        match &self.body {
            Body::None => {}
            Body::Sized(bytes) => {
                let _ = write!(head, "Content-Length: {}\r\n", bytes.len());
            }
            Body::Chunked(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        head + "\r\n"
    }

    /// The body as it goes over the wire.
    pub fn framed_body(&self) -> Vec<u8> {
        match &self.body {
            Body::None => Vec::new(),
            Body::Sized(bytes) => bytes.clone(),
            Body::Chunked(pieces) => {
                let mut framed = Vec::new();
                for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                    framed.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    framed.extend_from_slice(piece);
                    framed.extend_from_slice(b"\r\n");
                }
                framed.extend_from_slice(b"0\r\n\r\n");
                framed
            }
        }
    }

    /// The whole request, for tests that send several at once or a part of one.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head().into_bytes();
        bytes.extend_from_slice(&self.framed_body());
        bytes
    }
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// The header fields, in the order of their arrival.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header field that comes once at most.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values =
            self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        let first = values.next();
        assert!(values.next().is_none(), "more than one {name} in {:?}", self.headers);
        first
    }

    /// The members of a header field that is a comma-separated list, over all its lines.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        lines.flat_map(|(_, v)| v.split(',').map(str::trim)).filter(|member| !member.is_empty()).collect()
    }

    /// The value of a header field that has to be there.
    #[track_caller]
    pub fn must(&self, name: &str) -> &str {
        match self.header(name) {
            Some(value) => value,
            None => panic!("no {name} in the response {} {:?}", self.status, self.headers),
        }
    }
}

/// A response: head and body.
#[derive(Clone)]
pub struct Response {
    /// Status and header fields.
    pub head: Head,
    /// The body, with its coding taken off.
    pub body: Vec<u8>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())
    }
}

impl std::ops::Deref for Response {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl Response {
    /// Fails the test unless the status is one of these.
    #[track_caller]
    pub fn expect_any(self, statuses: &[u16]) -> Self {
        assert!(statuses.contains(&self.status), "expected {statuses:?}, got {}", self.summary());
        self
    }

    /// Fails the test unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        self.expect_any(&[status])
    }

    /// Fails the test unless this is an error with that status and that code of the specification.
    #[track_caller]
    pub fn expect_error(self, status: u16, code: &str) -> Self {
        let this = self.expect(status);
        let codes = this.error_codes();
        assert!(codes.iter().any(|found| found == code), "expected {code}, got {}", this.summary());
        this
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(e) => panic!("no JSON ({e}): {}", self.summary()),
        }
    }

    /// The codes of an error document; fails the test if the body is none as the specification wants it. What is not
    /// the client's fault has no code there, so after a 5xx any code will do.
    #[track_caller]
    pub fn error_codes(&self) -> Vec<String> {
        let media_type = self.must("Content-Type").split(';').next().unwrap_or_default().trim();
        assert_eq!(media_type, "application/json", "of {}", self.summary());
        let document = self.json();
        let errors = document["errors"].as_array().filter(|errors| !errors.is_empty());
        let Some(errors) = errors else { panic!("no list of errors: {}", self.summary()) };
        let code = |error: &Value| match error["code"].as_str() {
            Some(code) if SPEC_CODES.contains(&code) || self.status >= 500 => code.to_owned(),
            _ => panic!("no code of the specification: {}", self.summary()),
        };
        errors.iter().map(code).collect()
    }

    /// The response in short, for messages.
    pub fn summary(&self) -> String {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(600)]);
        format!("{} {:?}, {} bytes: {body}", self.status, self.headers, self.body.len())
    }
}

/// The error codes of the OCI distribution specification, all of them, and the one for quotas.
pub const SPEC_CODES: [&str; 15] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
    "QUOTA_EXCEEDED",
];

/// A connection to the server. Everything that takes longer than [`PATIENCE`] is an error.
#[derive(Debug)]
pub struct Connection<S = TcpStream> {
    stream: BufReader<S>,
}

impl Connection {
    /// Connects.
    pub fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Connects, and fails the test where that fails.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        match Self::try_open(address) {
            Ok(connection) => connection,
            Err(e) => panic!("cannot connect to {address}: {e}"),
        }
    }

    /// A second handle, to write while another thread reads.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: BufReader::new(self.stream.get_ref().try_clone()?) })
    }

    /// Says that nothing more will be sent; responses can still be read.
    pub fn finish_sending(&mut self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }
}

impl<S: Read + Write> Connection<S> {
    /// A connection over a stream that has its own limits on waiting.
    pub fn over(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads bytes as they come, into all of `buffer`.
    pub fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(buffer)
    }

    /// Sends a request. A server may answer and close before it has read all of a body, so a failing write is no
    /// error as long as a response comes.
    pub fn send(&mut self, request: &Request) {
        let _ = self.write(request.head().as_bytes()).and_then(|()| self.write(&request.framed_body()));
    }

    /// Sends a request and reads the response to it.
    pub fn exchange(&mut self, request: &Request) -> io::Result<Response> {
        self.send(request);
        self.receive(&request.method)
    }

    /// Reads everything up to the end of the connection. A reset counts as an end; silence doesn't.
    #[track_caller]
    pub fn read_to_close(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Err(e) if is_timeout(&e) => {
                panic!("the connection stays open; so far came {:?}", String::from_utf8_lossy(&rest))
            }
            _ => rest,
        }
    }

    /// Reads the head of the next response, an interim one (1xx) too.
    pub fn receive_head(&mut self) -> io::Result<Head> {
        let status_line = self.line()?;
        let mut words = status_line.splitn(3, ' ');
        let version = words.next().unwrap_or_default();
        let status = words.next().and_then(|s| s.parse().ok()).filter(|s| (100..600).contains(s));
        let (Some(status), "HTTP/1.1") = (status, version) else {
            return Err(invalid(format!("no status line: {status_line:?}")));
        };
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Head { status, headers });
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(invalid(format!("no header: {line:?}")));
            };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// Reads the final response to a request with that method; interim ones are skipped.
    pub fn receive(&mut self, method: &str) -> io::Result<Response> {
        let head = loop {
            let head = self.receive_head()?;
            if head.status >= 200 {
                break head;
            }
        };
        let mut body = Vec::new();
        let coding = head.header("Transfer-Encoding");
        let length = head.header("Content-Length");
        if method == "HEAD" || matches!(head.status, 204 | 304) {
            // Whatever the head says of a length, there is no body.
        } else if let Some(coding) = coding {
            if !coding.eq_ignore_ascii_case("chunked") || length.is_some() {
                return Err(invalid(format!("framed badly: {head:?}")));
            }
            while self.chunk(&mut body)? {}
        } else if let Some(length) = length {
            let length: usize = length.parse().map_err(|_| invalid(format!("Content-Length: {length}")))?;
            body.resize(length, 0);
            self.stream.read_exact(&mut body)?;
        } else {
            self.stream.read_to_end(&mut body)?;
        }
        Ok(Response { head, body })
    }

    /// Appends one chunk to `body`; false if it was the last one.
    fn chunk(&mut self, body: &mut Vec<u8>) -> io::Result<bool> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| invalid(format!("chunk size {line:?}")))?;
        let start = body.len();
        body.resize(start + size, 0);
        self.stream.read_exact(&mut body[start..])?;
        // After the last chunk come trailers, if any, and an empty line; after the others just the line's end.
        while !self.line()?.is_empty() {
            if size > 0 {
                return Err(invalid("a chunk is longer than its size says".to_owned()));
            }
        }
        Ok(size > 0)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        if self.stream.read_until(b'\n', &mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        match line.strip_suffix(b"\r\n").map(|line| String::from_utf8(line.into())) {
            Some(Ok(line)) => Ok(line),
            _ => Err(invalid(format!("no line of HTTP: {:?}", String::from_utf8_lossy(&line)))),
        }
    }
}

/// Whether a read or write failed for want of an answer, rather than because the connection ended.
pub fn is_timeout(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}
