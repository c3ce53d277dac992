//! Frames of FLAC: what opens closes bit for bit, whatever is done to it; where they are cut; and the method that codes them.

mod common;

use common::Dice;
use common::packed;
use tersefs::base::{Class, MethodId, ModelId};
use tersefs::containers::{self, CutLimits, Declined, Kind, Limits, Opened};
use tersefs::models::Basis;

const LIMITS: Limits = Limits { text_bytes: 2 << 20 };

const STEREO: &[u8] = include_bytes!("containers/stereo.flac");
const MONO_8: &[u8] = include_bytes!("containers/mono8.flac");
const SIX_24: &[u8] = include_bytes!("containers/six24.flac");
const MONO: &[u8] = include_bytes!("containers/mono.flac");
/// Bytes before the first frame.
const HEAD_BYTES: usize = 42;

const FILES: [(&str, &[u8], u8, u8); 4] = [
    ("stereo", STEREO, 2, 2),
    ("mono, 8 bits", MONO_8, 1, 1),
    ("six channels, 24 bits", SIX_24, 6, 3),
    ("mono", MONO, 1, 2),
];

/// Opens; what opens has to close.
fn check(name: &str, bytes: &[u8]) -> Result<Opened, Declined> {
    let opened = containers::open(bytes, None, LIMITS)?;
    let again = containers::close(&opened.recipe, &opened.streams, bytes.len(), LIMITS.text_bytes);
    assert!(again.as_deref() == Ok(bytes), "{name}: {:?}", again.err());
    Ok(opened)
}

/// Samples of each stream of them.
fn samples(opened: &Opened) -> Vec<(u8, u8, usize)> {
    let of = |stream: &containers::Stream| match stream.kind {
        Kind::Samples { channels, width } => Some((channels, width, stream.bytes.len())),
        _ => None,
    };
    opened.streams.iter().filter_map(of).collect()
}

#[test]
fn frames_of_every_kind_open_to_their_samples() {
    for (name, file, channels, width) in FILES {
        let opened = check(name, file).unwrap();
        let known = [14_000 * 4, 14_000, 3_000 * 18, 9_000 * 2];
        let expected = FILES.iter().zip(known).find(|(of, _)| of.0 == name).unwrap().1;
        assert_eq!(samples(&opened), [(channels, width, expected)], "{name}");
        // What is kept beside the samples and the head of the file is little.
        let beside = opened.recipe.len() + opened.streams[..3].iter().map(|s| s.bytes.len()).sum::<usize>();
        println!("{name}: {beside} bytes beside the samples, of {}", file.len());
        assert!(beside < 200 && opened.opened_bytes + HEAD_BYTES == file.len(), "{name}: {beside}");
    }
    // In another file, one behind the other, and with something between.
    let zip = packed::zip(&[("a.flac", STEREO), ("b.flac", MONO)], packed::Zip::Stored);
    assert_eq!(samples(&check("zip", &zip).unwrap()).len(), 2);
    let row = [STEREO, b"and something else", &STEREO[HEAD_BYTES..], MONO_8].concat();
    assert_eq!(samples(&check("row", &row).unwrap()).len(), 3);
}

/// A frame that is not as it was stays as it is, and the others open.
#[test]
fn frames_that_are_damaged_stay_as_they_are() {
    let mut dice = Dice::new(3);
    let (mut exact, mut declined) = (0, 0);
    for (name, file, ..) in FILES {
        for n in 0..40 {
            let mut bad = file.to_vec();
            let at = dice.roll(file.len() as u64) as usize;
            match n % 4 {
                0 => bad.truncate(at),
                1 => bad[at] ^= 1 << dice.roll(8),
                2 => drop(bad.drain(at..(at + 20).min(file.len()))),
                _ => drop(bad.splice(at..at, (0..30).map(|_| dice.next() as u8))),
            }
            match check(name, &bad) {
                Ok(_) => exact += 1,
                Err(_) => declined += 1,
            }
        }
    }
    println!("{exact} exact, {declined} declined");
    assert!(exact > 40 && declined > 10);
    // The checksum of the second of four frames, of which the last is shorter and has another head.
    let marks: Vec<usize> = (0..STEREO.len()).filter(|at| STEREO[*at..].starts_with(b"\xff\xf8\xc5")).collect();
    assert_eq!(marks.len(), 3, "{marks:?}");
    let mut bad = STEREO.to_vec();
    bad[marks[2] - 1] ^= 1;
    let opened = check("checksum", &bad).unwrap();
    assert_eq!(opened.opened_bytes, STEREO.len() - HEAD_BYTES - (marks[2] - marks[1]));
    assert_eq!(samples(&opened).len(), 2);
}

#[test]
fn files_are_cut_between_frames_and_each_part_opens() {
    let long = [STEREO, &STEREO[HEAD_BYTES..].repeat(4)].concat();
    let (mut at, mut parts, mut opened_bytes) = (0, 0, 0);
    while at < long.len() {
        let rest = &long[at..];
        let looked_at = rest.len().min(60_000);
        let limits = CutLimits { min: 4_000, text_bytes: 40_000 };
        let cut = containers::cut(&rest[..looked_at], None, limits, looked_at == rest.len());
        assert!(cut.before.is_none() && cut.len > 0);
        let opened = check("part", &rest[..cut.len]).unwrap();
        assert!(containers::text_bytes(&opened.streams) <= 40_000 + HEAD_BYTES);
        (at, parts, opened_bytes) = (at + cut.len, parts + 1, opened_bytes + opened.opened_bytes);
    }
    assert!(parts >= 7 && opened_bytes == long.len() - HEAD_BYTES, "{opened_bytes} in {parts}");
    // No frame fits: nothing opens, and nothing is cut short for it.
    let limits = CutLimits { min: 4_000, text_bytes: 9_000 };
    assert!(containers::cut(&long, None, limits, true).len >= 4_000);
    assert!(containers::open(&STEREO[HEAD_BYTES..], None, Limits { text_bytes: 9_000 }).is_err());
}

/// Whatever is said of frames: an error or bytes.
#[test]
fn damaged_recipes_and_samples_close_to_errors_or_bytes() {
    let mut dice = Dice::new(9);
    let mut errors = 0;
    for (name, file, ..) in FILES {
        let opened = check(name, file).unwrap();
        for n in 0..60 {
            let mut bad = opened.clone();
            let last = bad.streams.len() - 1;
            let target = match n % 3 {
                0 => &mut bad.recipe,
                1 => &mut bad.streams[1].bytes,
                _ => &mut bad.streams[last].bytes,
            };
            let at = dice.roll(target.len() as u64) as usize;
            match dice.roll(3) {
                0 => target.truncate(at),
                1 => target[at] ^= 1 << dice.roll(8),
                _ => target[at..].iter_mut().for_each(|b| *b = dice.next() as u8),
            }
            if n % 5 == 4 {
                bad.streams[last].kind = Kind::Samples { channels: dice.roll(12) as u8, width: dice.roll(6) as u8 };
            }
            match containers::close(&bad.recipe, &bad.streams, file.len(), LIMITS.text_bytes) {
                Ok(other) => assert_eq!(other.len(), file.len()),
                Err(e) => errors += usize::from(!e.to_string().is_empty()),
            }
        }
    }
    assert!(errors > 150, "{errors}");
}

fn coded(raw: &[u8]) -> Vec<u8> {
    let model = tersefs::models::model(MethodId::Opened);
    let payload = model.encode(raw, Class::Container, Basis::default()).unwrap().payload;
    let plain = model.decode(&payload, raw.len(), 1, ModelId::NONE, Basis::default());
    assert!(plain.as_deref() == Ok(raw));
    payload
}

#[test]
fn samples_are_coded_as_sound() {
    let sound = tersefs::models::model(MethodId::Sound);
    for (name, file, channels, width) in FILES {
        let payload = coded(file);
        println!("{name}: {} of {}", payload.len(), file.len());
        assert!(payload.len() < file.len(), "{name}");
        let opened = check(name, file).unwrap();
        let raw = &opened.streams.last().unwrap().bytes;
        // As a file of the same samples would be.
        let pieces = [
            (
                *b"fmt ",
                [&[1, 0, channels, 0, 0x40, 0x1f, 0, 0, 0, 0, 0, 0, channels * width, 0, 8 * width, 0][..]].concat(),
            ),
            (*b"data", raw.iter().map(|b| if width == 1 { b ^ 0x80 } else { *b }).collect()),
        ];
        let mut wave = b"RIFF\0\0\0\0WAVE".to_vec();
        for (kind, bytes) in pieces {
            wave.extend_from_slice(&kind);
            wave.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            wave.extend_from_slice(&bytes);
        }
        let alone = sound.encode(&wave, Class::Sound, Basis::default()).unwrap().payload.len();
        assert!(payload.len() < alone + 250, "{name}: {} against {alone}", payload.len());
    }
    assert_eq!(tersefs::codec::classify(STEREO), Class::Container);
}

/// Writes what `golden/opened-2-frames` holds, where it is asked for: once for a revision.
#[test]
fn golden_payloads_are_made() {
    let mut out = Vec::new();
    for (_, raw, ..) in FILES.into_iter().skip(1) {
        packed::put_golden(raw, &coded(raw), &mut out);
    }
    packed::keep_golden("TERSEFS_GOLDEN_FRAMES", &out);
}

/// Damage that the checksum does not see, as it was put right: an error or bytes.
#[test]
fn forged_payloads_give_errors_or_bytes() {
    let mut dice = Dice::new(31);
    let model = tersefs::models::model(MethodId::Opened);
    for (name, file, ..) in FILES {
        let payload = coded(file);
        for n in 0..24 {
            let mut bad = payload.clone();
            let reach = if n % 2 == 0 { 80 } else { bad.len() as u64 - 4 };
            bad[4 + dice.roll(reach) as usize] = dice.next() as u8;
            let crc = tersefs::base::crc32c(&bad[4..]);
            bad[..4].copy_from_slice(&crc.to_le_bytes());
            if let Ok(plain) = model.decode(&bad, file.len(), 1, ModelId::NONE, Basis::default()) {
                assert_eq!(plain.len(), file.len(), "{name}");
            }
        }
    }
}

/// Files of a directory, coded as a volume codes them: bytes that they take, and what decoding takes.
///
/// `TERSEFS_FILES=DIR cargo test --release --test t2_frames -- --ignored --nocapture real_files`
#[test]
#[ignore = "needs a directory of files"]
fn real_files_are_coded() {
    let root = std::env::var("TERSEFS_FILES").expect("TERSEFS_FILES names a directory");
    let policy = tersefs::codec::Policy::default();
    let mut paths: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        let class = tersefs::codec::classify(&bytes[..bytes.len().min(64 << 10)]);
        let bounds = tersefs::codec::bounds(class, &policy);
        let (mut at, mut before, mut coded_bytes, mut seconds, mut slowest) = (0, None, 0, 0.0, 0.0f64);
        let (mut opened_bytes, mut encoding) = (0, 0.0);
        while at < bytes.len() {
            let rest = &bytes[at..];
            let cut = tersefs::codec::first_cut(rest, bounds, rest.len() as u64, (before.as_ref(), &policy));
            let raw = &rest[..cut.len];
            let basis = Basis { before: before.as_ref(), ..Basis::default() };
            let started = std::time::Instant::now();
            let coded = tersefs::codec::encode(raw, class, &policy, basis).unwrap();
            encoding += started.elapsed().as_secs_f64();
            let started = std::time::Instant::now();
            assert!(tersefs::codec::decode(&coded.coding, &coded.payload, Basis::default()).unwrap() == raw);
            let took = started.elapsed().as_secs_f64();
            (seconds, slowest) = (seconds + took, slowest.max(took));
            let is_opened = coded.coding.method == MethodId::Opened as u16;
            opened_bytes += if is_opened { raw.len() } else { 0 };
            coded_bytes += coded.payload.len();
            (at, before) = (at + cut.len, cut.before);
        }
        println!(
            "{}: {} of {} bytes ({:.3}), {opened_bytes} in opened segments; encoded in {encoding:.1} s, decoded in {seconds:.1} s, a segment in {slowest:.2} s at most",
            path.display(),
            coded_bytes,
            bytes.len(),
            coded_bytes as f64 / bytes.len() as f64
        );
    }
}
