//! What kind of data a sample is, from its bytes alone: magic numbers, shares of byte classes, markers of formats.
//!
//! Cheap: one pass over at most 64 KiB. A wrong answer costs some bytes, never data.

use super::{begins_as_picture, begins_as_sound, begins_as_video, is_nucleotides, picture_part, sound_part};
use crate::base::Class;
use crate::containers;

/// First bytes of formats that are compressed already.
const COMPRESSED: [&[u8]; 16] = [
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"OggS",
    b"ID3",
    b"\xff\xfb",
    b"\x1a\x45\xdf\xa3",
    b"GIF8",
    b"wOFF",
    b"wOF2",
    b"\x04\x22\x4d\x18",
    b"LZIP",
    b"\xff\x4f\xff\x51",
    b"\x00\x00\x00\x0cJXL",
    b"\xff\x0a",
];

/// First bytes of formats that can be opened. So can a bare zlib stream, as git keeps objects.
const CONTAINERS: [&[u8]; 10] = [
    b"\x28\xb5\x2f\xfd",
    b"\xfd7zXZ\0",
    b"fLaC",
    b"BZh",
    b"\x89PNG\r\n",
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
    b"%PDF-1.",
    b"\x78\x01",
    b"\x78\x9c",
];

/// Bits per byte of order 0 above which a sample is taken for random.
const RANDOM_BITS: f64 = 7.94;

/// Tells the kind of data from its first bytes (pass up to 64 KiB, or a whole small file).
pub fn classify(sample: &[u8]) -> Class {
    if sample.is_empty() {
        return Class::Unknown;
    }
    if sample.starts_with(b"\x7fELF") || sample.starts_with(b"MZ") {
        return Class::Exec;
    }
    if begins_as_sound(sample) {
        return Class::Sound;
    }
    if begins_as_picture(sample) {
        return Class::Picture;
    }
    if begins_as_video(sample) {
        return Class::Video;
    }
    if sample.starts_with(b"\xff\xd8\xff") {
        return Class::Jpeg;
    }
    if CONTAINERS.iter().any(|m| sample.starts_with(m)) || containers::begins_plain(sample) {
        return Class::Container;
    }
    // Mails are for the most part what is attached to them.
    if containers::holds_base64(sample, 2) {
        return Class::Container;
    }
    let mut counts = [0u32; 256];
    for byte in sample {
        counts[usize::from(*byte)] += 1;
    }
    let looks_packed = COMPRESSED.iter().any(|m| sample.starts_with(m))
        || sample.get(4..8) == Some(b"ftyp")
        || (sample.starts_with(b"RIFF") && sample.get(8..12) == Some(b"WEBP"));
    let entropy = order0_bits(&counts, sample.len());
    if sample.len() >= 1024 && looks_packed && entropy > 7.5 {
        return Class::Incompressible;
    }
    if sample.len() >= 1024 && entropy > RANDOM_BITS && !is_smooth(sample) {
        return samples_class(sample).unwrap_or(Class::Incompressible);
    }
    let total = sample.len() as u64;
    let sum = |f: &dyn Fn(u8) -> bool| -> u64 {
        (0u8..=255).filter(|b| f(*b)).map(|b| u64::from(counts[usize::from(b)])).sum()
    };
    let controls = sum(&|b| b < 32 && !matches!(b, b'\n' | b'\r' | b'\t' | 0x0c | 0x1b));
    if controls * 50 > total || (sum(&|b| b >= 128) * 4 > total && !mostly_utf8(sample)) {
        return samples_class(sample).unwrap_or(Class::Binary);
    }
    if is_nucleotides(sample) {
        return Class::Nucleotides;
    }
    text_class(sample, &counts)
}

/// Pictures and sound that nobody has compressed: what a sample is coded smaller as. Sound repeats itself like rows.
fn samples_class(sample: &[u8]) -> Option<Class> {
    match (picture_part(sample), sound_part(sample)) {
        (Some(picture), Some(sound)) if sound < picture => Some(Class::Sound),
        (Some(_), _) => Some(Class::Picture),
        (None, sound) => sound.map(|_| Class::Sound),
    }
}

/// True where bytes are nearer to those a few places before than bytes that have nothing to do with each other are, which
/// differ by 64 on average: loud sound and bright pictures, where every byte is as frequent as any other.
fn is_smooth(sample: &[u8]) -> bool {
    [1, 2, 3, 4, 6].into_iter().any(|lag| {
        let pairs = sample.iter().zip(sample.iter().skip(lag));
        let differ: usize = pairs.map(|(a, b)| usize::from((a.wrapping_sub(*b) as i8).unsigned_abs())).sum();
        differ < (sample.len() - lag) * 60
    })
}

/// Shannon entropy of single bytes.
fn order0_bits(counts: &[u32; 256], len: usize) -> f64 {
    let n = len as f64;
    counts.iter().filter(|c| **c > 0).map(|c| f64::from(*c) / n).map(|p| -p * p.log2()).sum()
}

/// True when most of the sample is valid UTF-8.
fn mostly_utf8(sample: &[u8]) -> bool {
    let valid: usize = sample.utf8_chunks().map(|c| c.valid().len()).sum();
    valid * 20 >= sample.len() * 19
}

fn text_class(sample: &[u8], counts: &[u32; 256]) -> Class {
    let n = sample.len() as f64;
    let share = |bytes: &[u8]| -> f64 { bytes.iter().map(|b| f64::from(counts[usize::from(*b)])).sum::<f64>() / n };
    let start = sample.trim_ascii_start();
    let brackets = share(b"{}[]");
    if (start.starts_with(b"{") || start.starts_with(b"[")) && share(b"\":,") > 0.05 {
        return Class::Json;
    }
    if share(b"<>") > 0.012 && count(sample, b"</") > 0 && share(b"<>") > share(b"(){};") * 0.8 {
        return Class::Markup;
    }
    if share(b"\"") > 0.04 && share(b":") > 0.015 && brackets > 0.003 && share(b";()") < 0.01 {
        return Class::Json;
    }
    let lines = f64::from(counts[usize::from(b'\n')]) + 1.0;
    let digits = share(b"0123456789");
    let separators = share(b",\t;|");
    if lines > 3.0 && (digits > 0.12 || (separators > 0.06 && digits > 0.04)) {
        return Class::Log;
    }
    if share(b"(){};=_") > 0.045 {
        return Class::Source;
    }
    Class::Text
}

/// Occurrences of a short marker.
fn count(sample: &[u8], marker: &[u8]) -> usize {
    sample.windows(marker.len()).filter(|w| *w == marker).count()
}

/// Plain bytes per segment of a class: a power of two from 64 KiB to 1 MiB. Data that repeats over long distances is
/// given long segments, since each starts knowing nothing.
pub fn segment_bytes(class: Class) -> u32 {
    match class {
        Class::Json | Class::Nucleotides | Class::Sound | Class::Picture | Class::Video | Class::Jpeg => 1 << 20,
        Class::Markup | Class::Log => 512 << 10,
        // What is in a container is several times as long.
        Class::Unknown
        | Class::Text
        | Class::Source
        | Class::Exec
        | Class::Binary
        | Class::Incompressible
        | Class::Container => 256 << 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sample: &[u8], expected: Class) {
        assert_eq!(classify(sample), expected, "{}", String::from_utf8_lossy(&sample[..sample.len().min(40)]));
    }

    #[test]
    fn formats_are_told_apart() {
        check(b"{\"name\": \"tersefs\", \"list\": [1, 2, 3], \"nested\": {\"a\": \"b\"}}", Class::Json);
        check(b"<html><head><title>x</title></head><body><p>Hello there.</p></body></html>", Class::Markup);
        check(b"It was the best of times, it was the worst of times, it was the age of wisdom.", Class::Text);
        check(b"fn main() { let x = foo(1); bar(x); }\nfn bar(y: u32) { println!(\"{}\", y); }\n", Class::Source);
        check(b"2024-01-02 10:11:12 INFO a\n2024-01-02 10:11:13 INFO b\n2024-01-02 10:11:14 WARN c\n", Class::Log);
        check(b"\x7fELF\x02\x01\x01\0\0\0", Class::Exec);
        check(&[0, 1, 2, 3, 0, 0, 0, 5, 0, 1], Class::Binary);
        check(b"\x1f\x8b\x08\0\0\0\0\0\0\x03", Class::Container);
        check(b"%PDF-1.7\n", Class::Container);
        check(b"\xff\xd8\xff\xe0", Class::Jpeg);
        check(b"", Class::Unknown);
    }

    #[test]
    fn noise_is_incompressible_unless_it_is_smooth() {
        let mut x = 1u64;
        let mut next = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 40) as u16
        };
        // Samples of 16 bits that wander all over, slower than their lower bytes.
        let mut level = 0u16;
        let mut sound = Vec::new();
        while sound.len() < 65536 {
            level = level.wrapping_add(next() % 1001).wrapping_sub(500);
            sound.extend_from_slice(&level.to_le_bytes());
        }
        check(&sound, Class::Sound);
        for (n, byte) in sound.iter_mut().enumerate() {
            *byte ^= (next() >> 8) as u8 * (n % 2) as u8;
        }
        check(&sound, Class::Incompressible);
        // Smooth or not, what is packed stays as it is.
        let packed = [b"OggS".as_slice(), &sound].concat();
        check(&packed, Class::Incompressible);
    }

    #[test]
    fn noise_is_incompressible_and_segments_are_bounded() {
        let mut x = 1u64;
        let noise: Vec<u8> = (0..65536)
            .map(|_| {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (x >> 40) as u8
            })
            .collect();
        check(&noise, Class::Incompressible);
        for class in Class::ALL {
            let n = segment_bytes(class);
            assert!(n.is_power_of_two() && (64 << 10..=crate::base::SEGMENT_BYTES_MAX).contains(&n));
        }
    }
}
