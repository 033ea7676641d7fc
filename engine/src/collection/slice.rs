//! A part of all digests: where more is marked than there is memory for, collection goes over the store several times.

use crate::oci::Digest;

/// Links that are marked at a time, at most, as far as digests are spread evenly: 40 bytes of memory each.
pub(crate) const MARKS_MAX: u64 = 1 << 21;

/// One of several parts of equal size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    index: u64,
    of: u64,
}

impl Slice {
    /// So many slices that each has about `marks_max` of `count` links.
    pub(super) fn all(count: u64, marks_max: u64) -> impl Iterator<Item = Self> {
        let of = count.div_ceil(marks_max.max(1)).clamp(1, 1 << 16);
        (0..of).map(move |index| Self { index, of })
    }

    /// Whether the digest is in this part.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        let value = digest.value();
        let number = u64::from(u16::from_be_bytes([value[0], value[1]]));
        (number * self.of) >> 16 == self.index
    }

    pub(super) fn is_first(&self) -> bool {
        self.index == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, ContentHasher};

    #[test]
    fn each_digest_is_in_one_slice() {
        assert_eq!(Slice::all(0, 10).count(), 1);
        for (count, max) in [(10, 10), (11, 10), (95, 10), (1 << 40, 1)] {
            let slices: Vec<Slice> = Slice::all(count, max).collect();
            assert!(slices[0].is_first());
            for number in 0..50u8 {
                let digest = ContentHasher::digest(Algorithm::Sha256, &[number]);
                assert_eq!(slices.iter().filter(|slice| slice.has(&digest)).count(), 1);
            }
        }
    }
}
