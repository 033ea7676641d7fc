//! Content that is unique, costs nothing to make, and whose digest is known before it is sent.

use std::io::{self, Write};
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

/// Bytes that all content repeats, but for a number at the start of each piece.
const PIECE: usize = 1 << 20;

fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut noise = vec![0; PIECE];
        getrandom::fill(&mut noise).expect("the kernel gives random bytes");
        noise
    })
}

/// A number that no other run uses.
fn run_number() -> u64 {
    static RUN: OnceLock<u64> = OnceLock::new();
    *RUN.get_or_init(|| u64::from_le_bytes(noise()[..8].try_into().expect("eight bytes")))
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
        content.write(&mut hashing).expect("a hasher takes all");
        Self { digest: format!("sha256:{}", hex::encode(hashing.0.finalize())), ..content }
    }

    /// Writes its bytes.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut left = usize::try_from(self.len).unwrap_or(usize::MAX);
        let mut piece = 0_u64;
        while left > 0 {
            let mut start = [0; 32];
            start[..8].copy_from_slice(&run_number().to_le_bytes());
            start[8..16].copy_from_slice(&self.number.to_le_bytes());
            start[16..24].copy_from_slice(&piece.to_le_bytes());
            let head = left.min(start.len());
            to.write_all(&start[..head])?;
            let rest = (left - head).min(PIECE - start.len());
            to.write_all(&noise()[start.len()..start.len() + rest])?;
            left -= head + rest;
            piece += 1;
        }
        Ok(())
    }
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
