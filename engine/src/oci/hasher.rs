use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256, Sha512};

use super::{Algorithm, Digest};

/// Hashes content as it arrives, with a state that can be stored and taken up again.
#[derive(Clone, Debug)]
pub enum ContentHasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

/// A hash state as it is stored with an upload session: what was hashed need not be read again.
///
/// The layout belongs to the `sha2` crate and is not promised to stay, so it goes with a version of ours
/// ([`HashState::VERSION`]); a state of another version is refused, and the content is then hashed anew.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HashState {
    version: u8,
    algorithm: u8,
    state: Vec<u8>,
}

impl HashState {
    /// Version of the state's layout; raised whenever the major version of `sha2` changes.
    pub const VERSION: u8 = 1;
}

impl ContentHasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// The digest of `content` in one go.
    pub fn digest(algorithm: Algorithm, content: &[u8]) -> Digest {
        let mut hasher = Self::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Adds `content`.
    pub fn update(&mut self, content: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(content),
            Self::Sha512(hasher) => hasher.update(content),
        }
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Digest {
        let mut value = [0; 64];
        let algorithm = self.algorithm();
        match self {
            Self::Sha256(hasher) => value[..32].copy_from_slice(&hasher.finalize()),
            Self::Sha512(hasher) => value.copy_from_slice(&hasher.finalize()),
        }
        Digest::new(algorithm, &value[..algorithm.size()]).expect("the length is the algorithm's")
    }

    /// The state, to be stored.
    pub fn save(&self) -> HashState {
        let state = match self {
            Self::Sha256(hasher) => hasher.serialize().to_vec(),
            Self::Sha512(hasher) => hasher.serialize().to_vec(),
        };
        HashState { version: HashState::VERSION, algorithm: self.algorithm() as u8, state }
    }

    /// Takes a stored state up again; `None` where it was stored by another version.
    pub fn restore(saved: &HashState) -> Option<Self> {
        if saved.version != HashState::VERSION {
            return None;
        }
        let algorithm = Algorithm::ALL.into_iter().find(|a| *a as u8 == saved.algorithm)?;
        Some(match algorithm {
            Algorithm::Sha256 => {
                Self::Sha256(Sha256::deserialize(&saved.state.as_slice().try_into().ok()?).ok()?)
            }
            Algorithm::Sha512 => {
                Self::Sha512(Sha512::deserialize(&saved.state.as_slice().try_into().ok()?).ok()?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_state_goes_on_where_it_was() {
        let content: Vec<u8> = (0..100_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
        for algorithm in Algorithm::ALL {
            for cut in [0, 1, 63, 64, 127, 128, 4097, content.len()] {
                let mut first = ContentHasher::new(algorithm);
                first.update(&content[..cut]);
                let mut second = ContentHasher::restore(&first.save()).expect("own version");
                second.update(&content[cut..]);
                assert_eq!(second.finish(), ContentHasher::digest(algorithm, &content));
            }
        }
    }

    #[test]
    fn a_state_of_another_version_is_refused() {
        let mut saved = ContentHasher::new(Algorithm::Sha256).save();
        saved.version += 1;
        assert!(ContentHasher::restore(&saved).is_none());
        saved.version = HashState::VERSION;
        saved.state.pop();
        assert!(ContentHasher::restore(&saved).is_none());
    }

    #[test]
    fn known_digests() {
        assert_eq!(
            ContentHasher::digest(Algorithm::Sha256, b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
