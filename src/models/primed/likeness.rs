//! How alike data is: the shares of its triples of bytes, by a hash, in few bins. What is of one language, format or program
//! has much the same shares, whatever it says.
//!
//! Only the encoder asks: it chooses a prior by it, which the payload then names.

/// Bins that triples fall into.
const BINS: usize = 256;
/// Triples looked at, at most, at even distances.
const LOOKED_AT_MAX: usize = 64 << 10;

/// Square roots of the shares, so that the product of two of them is the Bhattacharyya coefficient; 255 is a share of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Likeness([u8; BINS]);

impl Likeness {
    /// Bytes of its form on disk.
    pub const BYTES: usize = BINS;

    /// That of some bytes.
    pub fn of(bytes: &[u8]) -> Likeness {
        let mut counts = [0u64; BINS];
        let stride = bytes.len().div_ceil(LOOKED_AT_MAX).max(1);
        for three in bytes.windows(3).step_by(stride) {
            let [a, b, c] = *three else { continue };
            let hash = u32::from_le_bytes([a, b, c, 0]).wrapping_mul(0x9E37_79B1);
            if let Some(count) = counts.get_mut((hash >> 24) as usize) {
                *count += 1;
            }
        }
        let total = counts.iter().sum::<u64>().max(1);
        Likeness(counts.map(|count| (count * 255 * 255 / total).isqrt() as u8))
    }

    /// As `to_bytes` wrote it.
    pub fn from_bytes(bytes: [u8; BINS]) -> Likeness {
        Likeness(bytes)
    }

    pub fn to_bytes(&self) -> [u8; BINS] {
        self.0
    }

    /// The direction of its vector, of length 1; zeros where there was nothing to look at.
    pub fn direction(&self) -> Vec<f32> {
        let length = self.0.iter().map(|v| f32::from(*v).powi(2)).sum::<f32>().sqrt().max(1.0);
        self.0.iter().map(|v| f32::from(*v) / length).collect()
    }

    /// 1 for what is the same, 0 for what has no triple in common.
    pub fn cosine(&self, other: &Likeness) -> f32 {
        self.direction().iter().zip(other.direction()).map(|(a, b)| a * b).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_kind_is_nearer_than_another() {
        let [english, tables, json] = [
            include_bytes!("../../../tests/data/eng").as_slice(),
            include_bytes!("../../../tests/data/nci").as_slice(),
            include_bytes!("../../../tests/data/json").as_slice(),
        ];
        let halves = |bytes: &'static [u8]| {
            let (a, b) = bytes.split_at(bytes.len() / 2);
            (Likeness::of(a), Likeness::of(b))
        };
        let all = [halves(english), halves(tables), halves(json)];
        for (n, (a, b)) in all.iter().enumerate() {
            for (_, (other, _)) in all.iter().enumerate().filter(|(m, _)| *m != n) {
                assert!(a.cosine(b) > a.cosine(other) + 0.05, "{n}: {} {}", a.cosine(b), a.cosine(other));
            }
            assert!((a.cosine(a) - 1.0).abs() < 1e-3);
        }
    }

    #[test]
    fn nothing_is_like_nothing() {
        for bytes in [b"".as_slice(), b"a", b"ab"] {
            assert_eq!(Likeness::of(bytes).cosine(&Likeness::of(b"some text")), 0.0);
        }
        let one = Likeness::of(&[7; 100_000]);
        assert_eq!(one, Likeness::from_bytes(one.to_bytes()));
        assert!((one.cosine(&Likeness::of(&[7; 3])) - 1.0).abs() < 1e-3);
    }
}
