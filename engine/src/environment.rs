//! What the engine takes from the world besides a disk: the time and randomness. Both are parameters, so that a
//! simulation can run the same code by a seed.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::metadata::Timestamp;

/// Tells the time.
pub trait Clock: Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// Gives random bytes that cannot be guessed.
pub trait Entropy: Debug + Send + Sync {
    /// 16 random bytes.
    fn random(&self) -> [u8; 16];
}

/// Clock and randomness.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Environment {
    /// The system's clock and the kernel's randomness.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy) }
    }
}

#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }
}

#[derive(Debug)]
struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        // Without randomness upload ids could be guessed: there is no way to go on that is safe.
        getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
        bytes
    }
}
