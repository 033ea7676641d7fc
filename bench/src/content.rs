//! Content that is unique, costs nothing to make, and whose digest is known before it is sent.

use std::io::{self, IoSlice, Write};
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

/// Bytes that all content repeats, but for a number at the start of each piece.
const PIECE: usize = 1 << 20;

/// What makes a piece unlike all others: the run, the content, the piece.
const STAMP: usize = 32;

fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut noise = vec![0; PIECE];
        getrandom::fill(&mut noise).expect("the kernel gives random bytes");
        noise
    })
}

/// A number that no other run uses.
fn run_number() -> [u8; 8] {
    let mut number = [0; 8];
    number.copy_from_slice(&noise()[..8]);
    number
}

/// A blob.
#[derive(Clone, Debug)]
pub struct Content {
    number: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Its digest.
    pub digest: String,
}

impl Content {
    /// The blob of this number: another one in each run.
    pub fn new(number: u64, len: u64) -> Self {
        let mut hashing = Hashing(Sha256::new());
        let content = Self { number, len, digest: String::new() };
        content.write(b"", &mut hashing).expect("a hasher takes all");
        Self { digest: format!("sha256:{}", hex::encode(hashing.0.finalize())), ..content }
    }

    /// Writes `head` and its bytes: to a socket in as few segments as they fit in, as clients that buffer do.
    pub fn write(&self, head: &[u8], to: &mut impl Write) -> io::Result<()> {
        let mut head = head;
        let mut left = self.len;
        let mut piece = 0_u64;
        loop {
            let mut stamp = [0; STAMP];
            stamp[..8].copy_from_slice(&run_number());
            stamp[8..16].copy_from_slice(&self.number.to_le_bytes());
            stamp[16..24].copy_from_slice(&piece.to_le_bytes());
            let len = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let stamped = len.min(STAMP);
            let slices = [head, &stamp[..stamped], &noise()[stamped..len]];
            write_all(to, &mut slices.map(IoSlice::new))?;
            head = b"";
            left -= len as u64;
            piece += 1;
            if left == 0 {
                return Ok(());
            }
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(b"", &mut bytes).expect("memory takes all");
        bytes
    }
}

fn write_all(to: &mut impl Write, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match to.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut slices, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A hasher that is written to.
struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The digest of bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_the_bytes_that_are_written() {
        for len in [0, 1, 31, 32, 33, (1 << 20) - 1, 1 << 20, (1 << 20) + 5, 3 << 20] {
            let content = Content::new(7, len);
            assert_eq!(content.bytes().len() as u64, len);
            assert_eq!(content.digest, digest(&content.bytes()));
        }
    }

    #[test]
    fn each_number_is_other_content() {
        assert_ne!(Content::new(1, 100).digest, Content::new(2, 100).digest);
    }
}
