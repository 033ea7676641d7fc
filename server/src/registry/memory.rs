//! A bound on what answers and manifests hold in memory, of all connections together.
//!
//! Blobs pass through bounded buffers; manifests and lists are whole in memory for as long as a slow peer takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::StatusCode;

use super::error::{Code, Refusal};
use crate::http::{Response, ResponseBody};

/// Bytes that may be held at a time.
const HELD_BYTES_MAX: usize = 256 << 20;

/// What is smaller is not worth counting: ten thousand of them are within the bounds of the connections.
const COUNTED_BYTES_MIN: usize = 16 << 10;

/// Bytes that are held now.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<AtomicUsize>);

/// Some of them; given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    memory: Memory,
    count: usize,
}

impl Memory {
    /// Takes `count` bytes of the bound; an error where there are no more.
    pub(super) fn hold(&self, count: u64) -> Result<Option<Held>, Refusal> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count < COUNTED_BYTES_MIN {
            return Ok(None);
        }
        let add = |held: usize| held.checked_add(count).filter(|sum| *sum <= HELD_BYTES_MAX || held == 0);
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => Ok(Some(Held { memory: self.clone(), count })),
            Err(_) => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                Code::Unavailable,
                "too many large manifests and lists are on their way; try again in a few seconds",
            )),
        }
    }

    /// Counts an answer's body, if it is in memory, until it is sent.
    pub(super) fn bound(&self, mut response: Response) -> Result<Response, Refusal> {
        let len = response.body.len();
        let bytes = match &mut response.body {
            ResponseBody::Bytes(bytes) => bytes,
            ResponseBody::Content { content: engine::Content::Inline(bytes), .. } => bytes,
            _ => return Ok(response),
        };
        if let Some(held) = self.hold(len)? {
            *bytes = Bytes::from_owner(HeldBytes { bytes: std::mem::take(bytes), _held: held });
        }
        Ok(response)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.count, Ordering::Relaxed);
    }
}

struct HeldBytes {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let memory = Memory::default();
        let response = |len: usize| Response::new(StatusCode::OK).with_body("a/b", vec![0; len]);
        let half = HELD_BYTES_MAX / 2;
        let first = memory.bound(response(half)).expect("room");
        let second = memory.bound(response(half)).expect("room");
        assert!(memory.bound(response(COUNTED_BYTES_MIN)).is_err());
        assert!(memory.bound(response(100)).is_ok(), "small ones are not counted");
        drop((first, second));
        // One that is larger than the bound alone is possible where nothing else is.
        let large = memory.bound(response(2 * HELD_BYTES_MAX)).expect("alone");
        assert!(memory.bound(response(COUNTED_BYTES_MIN)).is_err());
        drop(large);
        assert!(memory.bound(response(COUNTED_BYTES_MIN)).is_ok());
    }
}
