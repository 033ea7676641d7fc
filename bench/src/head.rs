//! The head of an answer: what a client has to know of it.

use std::io;

/// The longest head that is taken.
const LEN_MAX: usize = 16 << 10;

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Its length in bytes, with the empty line.
    pub len: usize,
    /// The status.
    pub status: u16,
    /// `Location`.
    pub location: Option<String>,
    /// What follows.
    pub body: Framing,
    /// Whether the server ends the connection after the answer.
    pub closes: bool,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// As many as its chunks have.
    Chunked,
}

impl Head {
    /// Reads the head at the start of `received`; nothing when that does not have all of it yet. The answer to a HEAD
    /// has no body, whatever its head says.
    pub fn parse(received: &[u8], is_head: bool) -> io::Result<Option<Self>> {
        let Some(len) = received.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else {
            return match received.len() {
                0..LEN_MAX => Ok(None),
                _ => Err(invalid("a head without an end")),
            };
        };
        let text = String::from_utf8_lossy(&received[..len]);
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| invalid(&text))?;
        let field = |name: &str| {
            text.lines().skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let body = match field("content-length") {
            _ if is_head || matches!(status, 204 | 304) => Framing::Length(0),
            Some(length) => Framing::Length(length.parse().map_err(|_| invalid(&text))?),
            None if field("transfer-encoding").is_some() => Framing::Chunked,
            None => Framing::Length(0),
        };
        Ok(Some(Self {
            len,
            status,
            location: field("location").map(str::to_owned),
            body,
            closes: field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
        }))
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not understood: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_all_of_it_is_there() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: close\r\n\r\nhello";
        assert_eq!(Head::parse(&bytes[..30], false).expect("it may go on"), None);
        let head = Head::parse(bytes, false).expect("it is well-formed").expect("it is whole");
        assert_eq!((head.len, head.status, head.body), (bytes.len() - 5, 200, Framing::Length(5)));
        assert!(head.closes);
    }

    #[test]
    fn the_answer_to_a_head_has_no_body() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        let head = Head::parse(bytes, true).expect("it is well-formed").expect("it is whole");
        assert_eq!(head.body, Framing::Length(0));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        assert!(Head::parse(b"SSH-2.0-x\r\n\r\n", false).is_err());
        assert!(Head::parse(&[b'x'; LEN_MAX], false).is_err());
    }
}
