//! Chunked transfer coding (RFC 9112, section 7.1), taken out of a body in place.

use super::BodyError;

/// Longest line of a chunk's size with its extensions, and of all trailers together, in bytes.
const LINE_MAX: usize = 4096;

/// Where in the coding the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a chunk's size; how many digits there were.
    Size { size: u64, digits: usize },
    /// In what follows the size on its line, which has no meaning for us.
    Extension { size: u64 },
    /// Behind the carriage return of a size's line.
    SizeEnd { size: u64 },
    /// In a chunk.
    Data { left: u64 },
    /// Behind a chunk: carriage return, then line feed.
    DataEnd { has_return: bool },
    /// At the start of a line of the trailers, or behind the carriage return of an empty one.
    TrailerStart { has_return: bool },
    /// In a line of the trailers.
    Trailer { has_return: bool },
    /// Behind the coding's end.
    Done,
}

/// Decodes a body piece by piece.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Bytes of the current line, or of the trailers.
    line: usize,
}

/// What a piece was turned into.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Bytes of the body, now at the start of the piece.
    pub(super) body: usize,
    /// Bytes of the piece that belong to the coding; what follows them is the next request's.
    pub(super) coded: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, line: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Moves the body's bytes in `piece` to its start.
    pub(super) fn decode(&mut self, piece: &mut [u8]) -> Result<Decoded, BodyError> {
        let (mut read, mut body) = (0, 0);
        while read < piece.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len() - read);
                piece.copy_within(read..read + count, body);
                read += count;
                body += count;
                let left = left - count as u64;
                self.state =
                    if left > 0 { State::Data { left } } else { State::DataEnd { has_return: false } };
            } else {
                self.framing(piece[read])?;
                read += 1;
            }
        }
        Ok(Decoded { body, coded: read })
    }

    /// Takes one byte that is not the body's. Line feeds without a carriage return are refused: where two readers
    /// disagree about the end of a line, a request can be smuggled.
    fn framing(&mut self, byte: u8) -> Result<(), BodyError> {
        self.line += 1;
        if self.line > LINE_MAX {
            return Err(BodyError::Malformed);
        }
        self.state = match (self.state, byte) {
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).ok_or(BodyError::Malformed)?;
                if size >> 60 != 0 {
                    return Err(BodyError::Malformed);
                }
                State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(BodyError::Malformed),
            (State::Size { size, .. }, b'\r') => State::SizeEnd { size },
            (State::Size { size, .. }, b';' | b' ' | b'\t') => State::Extension { size },
            (State::Extension { size }, b'\r') => State::SizeEnd { size },
            (State::Extension { size }, b'\t' | b' '..=0x7e | 0x80..) => State::Extension { size },
            (State::SizeEnd { size }, b'\n') => {
                self.line = 0;
                if size == 0 { State::TrailerStart { has_return: false } } else { State::Data { left: size } }
            }
            (State::DataEnd { has_return: false }, b'\r') => State::DataEnd { has_return: true },
            (State::DataEnd { has_return: true }, b'\n') => {
                self.line = 0;
                State::Size { size: 0, digits: 0 }
            }
            (State::TrailerStart { has_return: false }, b'\r') => State::TrailerStart { has_return: true },
            (State::TrailerStart { has_return: true }, b'\n') => State::Done,
            (
                State::TrailerStart { has_return: false } | State::Trailer { has_return: false },
                b'\t' | b' '..=0x7e | 0x80..,
            ) => State::Trailer { has_return: false },
            (State::Trailer { has_return: false }, b'\r') => State::Trailer { has_return: true },
            (State::Trailer { has_return: true }, b'\n') => State::TrailerStart { has_return: false },
            _ => return Err(BodyError::Malformed),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes `coded` in pieces of the given sizes; the body, and what was left over.
    fn decode(coded: &[u8], pieces: &[usize]) -> Result<(Vec<u8>, Vec<u8>), BodyError> {
        let (mut decoder, mut body, mut rest) = (Decoder::new(), Vec::new(), Vec::new());
        let mut sizes = pieces.iter().copied().cycle();
        let mut coded = coded;
        while !coded.is_empty() {
            let (piece, after) = coded.split_at(sizes.next().unwrap_or(1).clamp(1, coded.len()));
            let mut piece = piece.to_vec();
            let decoded = decoder.decode(&mut piece)?;
            body.extend_from_slice(&piece[..decoded.body]);
            rest.extend_from_slice(&piece[decoded.coded..]);
            coded = after;
        }
        if decoder.is_done() { Ok((body, rest)) } else { Err(BodyError::Truncated) }
    }

    proptest! {
        #[test]
        fn any_body_in_any_chunks_and_pieces(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
            pieces in prop::collection::vec(1usize..40, 1..5),
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut coded = Vec::new();
            for chunk in &chunks {
                coded.extend_from_slice(format!("{:x};a=b\r\n", chunk.len()).as_bytes());
                coded.extend_from_slice(chunk);
                coded.extend_from_slice(b"\r\n");
            }
            coded.extend_from_slice(b"0\r\nx: y\r\n\r\n");
            coded.extend_from_slice(&rest);
            prop_assert_eq!(decode(&coded, &pieces), Ok((chunks.concat(), rest)));
        }

        #[test]
        fn no_bytes_make_it_panic(coded in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&coded, &[7]);
        }
    }

    #[test]
    fn malformed_codings_are_refused() {
        for coded in [
            "\r\n",
            "g\r\n",
            "1\na",
            "1\r\nab",
            "1\r\na\n0\r\n\r\n",
            "-1\r\n",
            "0x1\r\na\r\n",
            "11111111111111111\r\n",
            "1\r\r\n",
            "0\r\nx\ny\r\n\r\n",
            " 1\r\na",
            "1;a\nb\r\n",
        ] {
            assert_eq!(decode(coded.as_bytes(), &[100]), Err(BodyError::Malformed), "{coded:?}");
        }
        let long = format!("1;{}\r\n", "a".repeat(LINE_MAX));
        assert_eq!(decode(long.as_bytes(), &[100]), Err(BodyError::Malformed));
        assert_eq!(decode(b"5\r\nabc", &[100]), Err(BodyError::Truncated));
    }
}
