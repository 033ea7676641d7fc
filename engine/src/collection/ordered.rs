//! Many digests, each with a value, in little memory.

use crate::oci::{Algorithm, Digest};

/// Digests, each with a value, that can be looked up once they are in order: the order of the keys in the metadata. A
/// digest takes as many bytes as it has.
#[derive(Clone, Debug)]
pub(super) struct Ordered<T> {
    short: Vec<([u8; 32], T)>,
    long: Vec<([u8; 64], T)>,
}

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self { short: Vec::new(), long: Vec::new() }
    }
}

impl<T: Copy> Ordered<T> {
    pub(super) fn push(&mut self, digest: &Digest, value: T) {
        match digest.algorithm() {
            Algorithm::Sha256 => self.short.push((bytes(digest), value)),
            Algorithm::Sha512 => self.long.push((bytes(digest), value)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there are of each length, for [`Ordered::cut`].
    pub(super) fn lens(&self) -> (usize, usize) {
        (self.short.len(), self.long.len())
    }

    /// Forgets what was pushed since there were so many; they were not put in order in between.
    pub(super) fn cut(&mut self, (short, long): (usize, usize)) {
        self.short.truncate(short);
        self.long.truncate(long);
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.short.extend(other.short);
        self.long.extend(other.long);
    }

    /// Puts the digests in order; where there are several of one, by their values.
    pub(super) fn sort(&mut self)
    where
        T: Ord,
    {
        self.short.sort_unstable();
        self.long.sort_unstable();
    }

    /// The one that is at `index` in the order.
    pub(super) fn get(&self, index: usize) -> Option<(Digest, T)> {
        match index.checked_sub(self.short.len()) {
            None => self.short.get(index).map(|(value, with)| (digest(Algorithm::Sha256, value), *with)),
            Some(index) => {
                self.long.get(index).map(|(value, with)| (digest(Algorithm::Sha512, value), *with))
            }
        }
    }

    /// Where the digest is in the order; any of its places, where it is there several times.
    pub(super) fn find(&self, digest: &Digest) -> Option<usize> {
        match digest.algorithm() {
            Algorithm::Sha256 => {
                let wanted = bytes(digest);
                self.short.binary_search_by(|(value, _)| value.cmp(&wanted)).ok()
            }
            Algorithm::Sha512 => {
                let wanted = bytes(digest);
                let found = self.long.binary_search_by(|(value, _)| value.cmp(&wanted)).ok();
                found.map(|index| self.short.len() + index)
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Digest, T)> {
        let short = self.short.iter().map(|(value, with)| (digest(Algorithm::Sha256, value), *with));
        short.chain(self.long.iter().map(|(value, with)| (digest(Algorithm::Sha512, value), *with)))
    }
}

fn bytes<const LEN: usize>(digest: &Digest) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes.copy_from_slice(digest.value());
    bytes
}

fn digest(algorithm: Algorithm, value: &[u8]) -> Digest {
    match Digest::new(algorithm, value) {
        Some(digest) => digest,
        None => unreachable!("the arrays are as long as the algorithms' values"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::ContentHasher;

    #[test]
    fn digests_are_found_where_the_order_has_them() {
        let mut digests: Vec<Digest> = (0..50u8)
            .flat_map(|number| Algorithm::ALL.map(|algorithm| ContentHasher::digest(algorithm, &[number])))
            .collect();
        let mut ordered = Ordered::default();
        digests.iter().for_each(|digest| ordered.push(digest, digest.value()[0]));
        ordered.sort();
        digests.sort_unstable();
        assert_eq!(ordered.iter().map(|(digest, _)| digest).collect::<Vec<_>>(), digests);
        assert_eq!(ordered.len(), digests.len());
        for (index, digest) in digests.iter().enumerate() {
            assert_eq!(ordered.find(digest), Some(index));
            assert_eq!(ordered.get(index), Some((*digest, digest.value()[0])));
        }
        assert_eq!(ordered.find(&ContentHasher::digest(Algorithm::Sha256, b"other")), None);
        assert_eq!(ordered.get(100), None);
    }
}
