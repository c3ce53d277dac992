//! Every model of the table: exact round trips, damaged payloads, repeatability, golden bytes, bits per byte.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::Dice;
use common::packed::{gzip, keep_golden, prose, put_golden_of};
use tersefs::base::{Class, MethodId, ModelId, SEGMENT_BYTES_MAX, crc32c};
use tersefs::models::{Basis, Error, Library, MODELS, Model, starts_from_priors};

/// Real data: cuts named in tests/data/README.md.
fn cuts() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut cuts: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .filter(|e| e.path().extension().is_none_or(|x| x != "md"))
        .map(|e| (e.file_name().to_string_lossy().into_owned(), std::fs::read(e.path()).unwrap()))
        .collect();
    cuts.sort();
    assert!(cuts.len() >= 5);
    cuts
}

fn noise(len: usize) -> Vec<u8> {
    let mut dice = Dice::new(5);
    (0..len).map(|_| dice.next() as u8).collect()
}

/// Nucleotides: a sequence of some names, with lower case, runs of N and repeats, or reads with qualities.
fn nucleotides(dice: &mut Dice, len: usize, reads: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 200);
    let mut row =
        |of: &[u8], len: u64| -> Vec<u8> { (0..len).map(|_| of[dice.roll(of.len() as u64) as usize]).collect() };
    let genome = row(b"ACGT", 3000);
    while out.len() < len {
        let n = out.len();
        let (from, digits) = (n % 2800, row(b"0123456789", 4));
        let name = format!("run:{}:{} part {}", n / 5000, String::from_utf8_lossy(&digits), n % 3);
        if reads {
            let mut bases = genome[from..from + 100].to_vec();
            bases[n % 100] = b'N';
            let qualities = row(b"IIIIIIIIIIHHHGF@+#", 100);
            let [bases, qualities] = [&bases, &qualities].map(|row| String::from_utf8_lossy(row));
            out.extend_from_slice(format!("@{name}\n{bases}\n+\n{qualities}\n").as_bytes());
        } else {
            let bases = [row(b"ACGT", 900), genome[from..from + 200].to_ascii_lowercase(), vec![b'N'; n % 90]].concat();
            out.extend_from_slice(format!(">{name}\n").as_bytes());
            bases.chunks(70).for_each(|line| out.extend_from_slice(&[line, b"\n"].concat()));
        }
    }
    out.truncate(len);
    out
}

/// Sound: two waves that go up and down by whole numbers, with noise, in samples of so many bytes; those of a byte are unsigned.
fn sound(dice: &mut Dice, len: usize, width: usize, channels: usize, big: bool) -> Vec<u8> {
    let mut waves: Vec<[i64; 2]> = (0..channels as i64).map(|n| [9_000 + 700 * n, 0]).collect();
    let mut out = Vec::with_capacity(len + 24);
    while out.len() < len {
        for wave in &mut waves {
            wave[1] -= wave[0] / 300;
            wave[0] += wave[1] / 2 + dice.roll(40) as i64 - 20;
            let sample = match width {
                1 => (wave[0] >> 8) + 128,
                2 => wave[0],
                _ => (wave[0] << 6) + dice.roll(256) as i64,
            };
            let bytes = &sample.to_le_bytes()[..width];
            if big { out.extend(bytes.iter().rev()) } else { out.extend(bytes) }
        }
    }
    out.truncate(len);
    out
}

/// A file of sound with pieces that nobody knows before and behind the samples.
fn wav(samples: &[u8], width: usize, channels: usize) -> Vec<u8> {
    let piece = |name: &[u8], bytes: &[u8]| [name, &(bytes.len() as u32).to_le_bytes(), bytes].concat();
    let (frame, rate) = ((width * channels) as u16, 44_100u32);
    let fmt = [
        &1u16.to_le_bytes()[..],
        &(channels as u16).to_le_bytes(),
        &rate.to_le_bytes(),
        &(rate * u32::from(frame)).to_le_bytes(),
        &frame.to_le_bytes(),
        &(8 * width as u16).to_le_bytes(),
    ];
    let pieces = [
        piece(b"JUNK", &[7; 20]),
        piece(b"fmt ", &fmt.concat()),
        piece(b"data", samples),
        piece(b"LIST", b"INFOwhatever"),
    ];
    piece(b"RIFF", &[b"WAVE", &pieces.concat()[..]].concat())
}

/// A picture: light that changes slowly, with noise, in pixels of so many values of so many bytes, and bytes beside each row.
fn picture(
    dice: &mut Dice,
    (width, rows): (usize, usize),
    planes: usize,
    bytes: usize,
    big: bool,
    beside: usize,
) -> Vec<u8> {
    let mut light: Vec<i64> = (0..width as i64).map(|x| 9_000 + 40 * ((x / 7) % 90 - x % 50)).collect();
    let mut out = Vec::with_capacity(rows * (width * planes * bytes + beside));
    for _ in 0..rows {
        let mut change = 0;
        for light in &mut light {
            change = change * 7 / 8 + dice.roll(301) as i64 - 150;
            *light += change + (9_000 - *light) / 32;
            for plane in 0..planes as i64 {
                let value = *light + 1_500 * plane + dice.roll(40) as i64;
                let value = if bytes == 1 { (value >> 7) + 75 } else { value };
                let [low, high, ..] = value.clamp(0, 65_535).to_le_bytes();
                match (bytes, big) {
                    (1, _) => out.push(low),
                    (_, true) => out.extend([high, low]),
                    (_, false) => out.extend([low, high]),
                }
            }
        }
        out.extend(vec![0; beside]);
    }
    out
}

/// The same as a file.
fn pgm(dice: &mut Dice, len: usize) -> Vec<u8> {
    let width = if len < 5_000 { 20 } else { 300 };
    let mut file = format!("P5\n# a picture\n{width} {}\n255\n", len / width).into_bytes();
    file.extend(picture(dice, (width, len / width + 1), 1, 1, false, 0));
    file.truncate(len);
    file
}

/// Frames of planes of some sizes, of light that moves two columns and a row from one to the next, with noise, a line before each.
fn frames(dice: &mut Dice, planes: &[(usize, usize)], frames: usize, line: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in 0..frames {
        out.extend_from_slice(line);
        for (plane, (width, rows)) in planes.iter().enumerate() {
            for at in 0..width * rows {
                let (x, y) = (at % width + 2 * frame, at / width + frame);
                let light = 70 + 40 * plane + (x * 5 % 97).abs_diff(48) + (x * y / 9 % 53) + (y * 3 % 61);
                out.push((light as u64 + dice.roll(4)) as u8);
            }
        }
    }
    out
}

/// An AVI of frames that are not compressed, with a piece of sound between them.
fn avi(pixels: &[u8], (width, rows): (usize, usize), bits: u32, colours: &[u8; 4]) -> Vec<u8> {
    let piece = |name: &[u8], bytes: &[u8]| [name, &(bytes.len() as u32).to_le_bytes(), bytes].concat();
    let numbers = |of: &[u32]| -> Vec<u8> { of.iter().flat_map(|n| n.to_le_bytes()).collect() };
    let like = [numbers(&[40, width as u32, rows as u32, bits << 16 | 1]), colours.to_vec(), vec![0; 20]].concat();
    let video = [b"strl".to_vec(), piece(b"strh", &[b"vids", &[0; 52][..]].concat()), piece(b"strf", &like)].concat();
    let head = [b"hdrl".to_vec(), piece(b"avih", &[0; 56]), piece(b"LIST", &video)].concat();
    let mut movie = b"movi".to_vec();
    for frame in pixels.chunks(pixels.len() / 3) {
        movie.extend(piece(b"00db", frame));
        movie.extend(piece(b"01wb", b"sound"));
        movie.push(0);
    }
    piece(
        b"RIFF",
        &[b"AVI ".to_vec(), piece(b"LIST", &head), piece(b"LIST", &movie), piece(b"idx1", &[7; 40])].concat(),
    )
}

/// Methods of one kind of data.
const FOR_A_KIND: [MethodId; 5] =
    [MethodId::Genome, MethodId::Opened, MethodId::Sound, MethodId::Picture, MethodId::Video];

/// Data of the kind that a model is for.
fn suitable(model: &dyn Model, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(3);
    match model.id() {
        MethodId::Genome => nucleotides(&mut dice, len, true),
        MethodId::Opened => {
            let mut members = Vec::new();
            while members.len() < len {
                members.append(&mut gzip(&prose(&mut dice, 8_000), 6));
            }
            members.truncate(len);
            members
        }
        MethodId::Sound => sound(&mut dice, len, 2, 2, false),
        MethodId::Picture => pgm(&mut dice, len),
        MethodId::Video => {
            let size = if len < 5_000 { (32, 16) } else { (96, 80) };
            let mut file = format!("YUV4MPEG2 W{} H{} Cmono\n", size.0, size.1).into_bytes();
            file.extend(frames(&mut dice, &[size], 1 + len / (size.0 * size.1), b"FRAME\n"));
            file.truncate(len);
            file
        }
        _ => dice.text(len),
    }
}

/// Models that code with nothing known. A language model is brought by somebody: `t4_language` and its own tests hold it to the
/// same.
fn alone() -> impl Iterator<Item = &'static dyn Model> {
    MODELS.into_iter().filter(|model| model.id() != MethodId::Language)
}

/// Codes with nothing known.
fn encode(model: &dyn Model, raw: &[u8], class: Class) -> Option<Vec<u8>> {
    model.encode(raw, class, Basis::default()).ok().map(|coded| coded.payload)
}

fn decode(model: &dyn Model, payload: &[u8], raw_len: usize) -> Result<Vec<u8>, Error> {
    model.decode(payload, raw_len, model.revision(), ModelId::NONE, Basis::default())
}

/// Encodes and decodes; a model that declines loses nothing.
fn check(model: &dyn Model, class: Class, raw: &[u8]) {
    if let Some(payload) = encode(model, raw, class) {
        let plain = decode(model, &payload, raw.len()).expect("its own payload decodes");
        assert!(plain == raw, "{} on {} bytes of {}", model.id().name(), raw.len(), class.name());
        assert!(payload.len() < raw.len() || model.id() == MethodId::Raw);
    }
}

#[test]
fn round_trips() {
    let mut dice = Dice::new(9);
    let mut inputs: Vec<Vec<u8>> = vec![
        vec![0],
        vec![255; 2],
        b"abc".to_vec(),
        vec![7; 100_000],
        noise(10_000),
        dice.text(150_000),
        (0..=255u8).cycle().take(70_000).collect(),
        [dice.text(30_000), noise(3000), vec![0; 40_000]].concat(),
        nucleotides(&mut dice, 50_000, false),
        nucleotides(&mut dice, 50_000, true),
        suitable(tersefs::models::model(MethodId::Opened), 40_000),
        sound(&mut dice, 40_001, 2, 2, false),
        wav(&sound(&mut dice, 30_000, 3, 1, false), 3, 1),
        picture(&mut dice, (211, 70), 3, 1, false, 1),
        pgm(&mut dice, 30_001),
        suitable(tersefs::models::model(MethodId::Video), 30_001),
    ];
    inputs.extend(cuts().into_iter().map(|(_, data)| data));
    for model in alone() {
        // Which priors and which forms are tried goes by class: that of bytes of any kind, and the others in turn.
        let by_class = starts_from_priors(model.id()) || model.id() == MethodId::Opened;
        let others = [Class::Text, Class::Markup, Class::Log].into_iter().cycle();
        for (raw, other) in inputs.iter().zip(others) {
            check(model, Class::Binary, raw);
            if by_class {
                check(model, other, raw);
            }
        }
    }
}

#[test]
fn the_largest_segment() {
    for model in alone() {
        check(model, Class::Text, &suitable(model, SEGMENT_BYTES_MAX as usize));
    }
    let sequence = nucleotides(&mut Dice::new(2), SEGMENT_BYTES_MAX as usize, false);
    check(tersefs::models::model(MethodId::Genome), Class::Nucleotides, &sequence);
}

/// Damages a payload so many times: what comes out is as long as it should be, or an error.
fn decodes_damaged(model: &dyn Model, payload: &[u8], raw_len: usize, times: usize) {
    let mut dice = Dice::new(3);
    for _ in 0..times {
        let mut bad = payload.to_vec();
        match dice.roll(4) {
            0 => bad.truncate(dice.roll(payload.len() as u64) as usize),
            kind @ 1..=2 => {
                let at = dice.roll(if kind == 1 { bad.len() as u64 } else { 12 }) as usize;
                bad[at] ^= 1 << dice.roll(8);
            }
            _ => bad = noise(dice.roll(5000) as usize),
        }
        if let Ok(plain) = decode(model, &bad, raw_len) {
            assert_eq!(plain.len(), raw_len);
        }
    }
}

#[test]
fn damaged_payloads_give_errors_or_bounded_bytes() {
    for model in alone() {
        let raw = suitable(model, 20_000);
        let payload = encode(model, &raw, Class::Text).unwrap();
        decodes_damaged(model, &payload, raw.len(), 60);
        assert!(
            model.decode(&payload, raw.len(), 999, ModelId::NONE, Basis::default()).is_err(),
            "an unknown revision"
        );
    }
}

#[test]
fn threads_and_what_came_before_do_not_matter() {
    let mut data = cuts();
    data.push(("reads".into(), nucleotides(&mut Dice::new(4), 90_000, true)));
    data.push(("members".into(), suitable(tersefs::models::model(MethodId::Opened), 60_000)));
    data.push(("sound".into(), sound(&mut Dice::new(4), 60_000, 2, 2, false)));
    data.push(("picture".into(), picture(&mut Dice::new(4), (200, 100), 3, 1, false, 0)));
    data.push(("video".into(), suitable(tersefs::models::model(MethodId::Video), 40_000)));
    data.push(("sequence".into(), nucleotides(&mut Dice::new(4), 90_000, false)));
    for model in alone() {
        let alone: Vec<_> = data.iter().map(|(_, d)| encode(model, d, Class::Text)).collect();
        std::thread::scope(|s| {
            for start in 0..3 {
                let (data, alone) = (&data, &alone);
                s.spawn(move || {
                    for n in 0..data.len() {
                        let at = (start + n) % data.len();
                        assert!(encode(model, &data[at].1, Class::Text) == alone[at], "{}", model.id().name());
                    }
                });
            }
        });
    }
}

/// The context model's bytes. A change here needs a new revision, and the old one must keep decoding.
#[test]
fn golden_bytes_of_the_context_model() {
    let model = tersefs::models::model(MethodId::Cm);
    let mut dice = Dice::new(77);
    let raw = dice.text(5000);
    for (class, expected) in
        [(Class::Text, GOLDEN[0]), (Class::Json, GOLDEN[1]), (Class::Log, GOLDEN[2]), (Class::Exec, GOLDEN[3])]
    {
        let payload = encode(model, &raw, class).unwrap();
        assert_eq!((payload.len(), crc32c(&payload)), expected, "{}: the coded bytes have changed", class.name());
    }
}

const GOLDEN: [(usize, u32); 4] = [(563, 1921815974), (553, 2549107909), (559, 1709236957), (563, 2174870257)];

/// The bytes of the primed model, by class: its predictor and its priors. A change here needs a new revision, and the old
/// one must keep decoding.
#[test]
fn golden_bytes_of_the_primed_model() {
    let mut dice = Dice::new(77);
    let raw = dice.text(5000);
    let found = [MethodId::Swift, MethodId::Primed, MethodId::Strong].map(|method| {
        let coded = |class: Class| {
            let payload = encode(tersefs::models::model(method), &raw, class).unwrap();
            (class.name(), payload[0], payload.len(), crc32c(&payload))
        };
        Class::ALL.map(coded)
    });
    assert_eq!(found, [SWIFT, PRIMED, STRONG], "the coded bytes have changed");
}

/// The profiles of the predictor, the strongest first: each codes real data to no more than the next one.
#[test]
fn profiles_rank_as_they_promise() {
    for (name, data) in cuts().into_iter().filter(|(_, data)| data.len() > 10_000) {
        let class = tersefs::codec::classify(&data);
        let sizes = [MethodId::Strong, MethodId::Primed, MethodId::Swift, MethodId::Zstd].map(|method| {
            let model = tersefs::models::model(method);
            let payload = encode(model, &data, class).unwrap();
            assert!(decode(model, &payload, data.len()).unwrap() == data, "{name}: {}", method.name());
            payload.len()
        });
        println!("{name:<5} strong, primed, swift, zstd: {sizes:?}");
        assert!(sizes.is_sorted(), "{name}: {sizes:?}");
    }
    let [strong, usual, swift] = [MethodId::Strong, MethodId::Primed, MethodId::Swift].map(tersefs::models::model);
    assert!(strong.memory_bytes() > usual.memory_bytes() && usual.memory_bytes() > 2 * swift.memory_bytes());
    assert!(strong.decode_rate_guess() < usual.decode_rate_guess());
    assert!(usual.decode_rate_guess() < swift.decode_rate_guess());
}

const SWIFT: [(&str, u8, usize, u32); 15] = [
    ("unknown", 13, 663, 431682793),
    ("text", 13, 663, 431682793),
    ("markup", 16, 662, 3856474320),
    ("source", 13, 663, 431682793),
    ("json", 17, 636, 726519474),
    ("log", 18, 597, 1465628921),
    ("exec", 19, 681, 2686952397),
    ("binary", 0, 624, 1405077144),
    ("incompressible", 0, 624, 833432647),
    ("nucleotides", 18, 597, 1465628921),
    ("container", 0, 624, 833432647),
    ("jpeg", 0, 624, 833432647),
    ("sound", 0, 624, 1405077144),
    ("picture", 0, 624, 1405077144),
    ("video", 0, 624, 1405077144),
];

const PRIMED: [(&str, u8, usize, u32); 15] = [
    ("unknown", 13, 584, 1954679594),
    ("text", 13, 584, 1954679594),
    ("markup", 16, 574, 3647718217),
    ("source", 13, 584, 1954679594),
    ("json", 17, 597, 3932142310),
    ("log", 18, 555, 914417954),
    ("exec", 19, 596, 3796480035),
    ("binary", 0, 577, 3927048830),
    ("incompressible", 0, 591, 748381200),
    ("nucleotides", 18, 555, 914417954),
    ("container", 0, 591, 748381200),
    ("jpeg", 0, 591, 748381200),
    ("sound", 0, 577, 3927048830),
    ("picture", 0, 577, 3927048830),
    ("video", 0, 577, 3927048830),
];

const STRONG: [(&str, u8, usize, u32); 15] = [
    ("unknown", 13, 571, 854862640),
    ("text", 13, 571, 854862640),
    ("markup", 16, 565, 2163355531),
    ("source", 13, 571, 854862640),
    ("json", 17, 590, 2335530903),
    ("log", 18, 549, 1490797953),
    ("exec", 19, 574, 3105176303),
    ("binary", 0, 572, 424392656),
    ("incompressible", 0, 575, 1398076702),
    ("nucleotides", 18, 549, 1490797953),
    ("container", 0, 575, 1398076702),
    ("jpeg", 0, 575, 1398076702),
    ("sound", 0, 572, 424392656),
    ("picture", 0, 572, 424392656),
    ("video", 0, 572, 424392656),
];

/// Decodes the payloads of a file of `tests/golden`, whose README says what is in it, as those of `revision`; later ones
/// decode them too, earlier ones refuse. Returns methods and numbers of priors that they name.
fn decode_golden(file: &[u8], revision: u16) -> BTreeSet<(u8, u8)> {
    let (mut rest, mut found) = (file, BTreeSet::new());
    let (mut raw, mut reference, mut library, mut named) = (&[][..], None, Library::default(), ModelId::NONE);
    while let Some(([tag, len @ ..], bytes)) = rest.split_first_chunk::<5>() {
        let (bytes, after) = bytes.split_at(u32::from_le_bytes(*len) as usize);
        rest = after;
        match tag {
            b'R' => (raw, reference) = (bytes, None),
            b'F' => reference = Some(bytes),
            b'P' => {
                library = Library::default();
                named = library.add(bytes).unwrap();
            }
            method => {
                let model = tersefs::models::model(MethodId::from_u16(u16::from(*method)).unwrap());
                let id = if bytes[0] == 255 { named } else { ModelId::NONE };
                let basis = Basis { reference, ..Basis::of(&library) };
                // Payloads of these say what they are by their first byte, which a later revision has more of.
                let says = matches!(model.id(), MethodId::Primed | MethodId::Swift | MethodId::Strong);
                for other in 0..=model.revision() + 1 {
                    match model.decode(bytes, raw.len(), other, id, basis) {
                        Ok(plain) if other == revision => assert!(plain == raw, "{} {}", *method, bytes[0]),
                        // What a volume taught is named by its hash, whatever the revision.
                        Ok(plain) if says => {
                            assert!(plain == raw && (other >= revision || bytes[0] == 255), "{}", bytes[0])
                        }
                        Ok(_) => assert!((1..=model.revision()).contains(&other), "{} as of {other}", *method),
                        Err(_) if other != revision && !says => {}
                        Err(e) => assert!(other < revision || other > model.revision(), "{} {e}", bytes[0]),
                    }
                }
                found.insert((*method, bytes[0]));
            }
        }
    }
    found
}

/// Samples of every width, order and number of channels come back, coded as what they are wherever they are cut, and heads
/// and whatever is behind the samples with them.
#[test]
fn sound_is_found_and_comes_back() {
    let model = tersefs::models::model(MethodId::Sound);
    let mut found = Vec::new();
    for (width, channels, big) in [
        (1, 1, false),
        (1, 2, false),
        (2, 1, false),
        (2, 2, false),
        (2, 2, true),
        (3, 1, false),
        (3, 2, true),
        (2, 6, false),
    ] {
        let mut dice = Dice::new(width as u64 * 10 + channels as u64);
        let samples = sound(&mut dice, 60_000 + width * channels, width, channels, big);
        // From the middle of a file, at any byte.
        let cut = &samples[7..samples.len() - 2];
        let payload = encode(model, cut, Class::Sound).unwrap_or_else(|| panic!("{width} {channels} {big}"));
        assert!(decode(model, &payload, cut.len()).unwrap() == cut);
        let (bytes, order, others) = (payload[0] & 3, payload[0] >> 2 & 1, payload[0] >> 4);
        assert_eq!((bytes, order), (width as u8 - 1, u8::from(big)));
        // One channel is coded as two as well.
        assert!(usize::from(others) + 1 == channels || channels == 1, "{width} {channels}: {others}");
        // Samples that lie apart are as likely fields of records.
        let is_sound = tersefs::codec::classify(&cut[..32 << 10]) == Class::Sound;
        assert_eq!(is_sound, channels <= 2, "{width} {channels}");
        found.push((payload.len(), crc32c(&payload)));
        if !big {
            let file = wav(&samples, width, channels);
            let payload = encode(model, &file, Class::Sound).unwrap();
            assert!(decode(model, &payload, file.len()).unwrap() == file);
            assert_eq!(payload[0] >> 4, channels as u8 - 1);
            assert_eq!(tersefs::codec::classify(&file[..100]), Class::Sound, "by its head");
        }
    }
    assert_eq!(found, SOUND, "the coded bytes have changed");
}

const SOUND: [(usize, u32); 8] = [
    (2817, 1555509518),
    (3145, 3066760458),
    (21193, 1107152523),
    (21236, 1554852318),
    (21236, 486803798),
    (29441, 2054140746),
    (29495, 3367093683),
    (21811, 3902451737),
];

/// Samples of four bytes, whole numbers and floats, are coded as what they were made of, wherever they are cut, and by every head.
#[test]
fn sound_of_four_bytes_is_found_and_comes_back() {
    let model = tersefs::models::model(MethodId::Sound);
    let made_of = sound(&mut Dice::new(5), 40_000, 2, 2, false);
    let of_two = encode(model, &made_of, Class::Sound).unwrap().len();
    let samples: Vec<i32> = made_of.chunks(2).map(|b| i16::from_le_bytes([b[0], b[1]]).into()).collect();
    let mut dice = Dice::new(6);
    let mut wide = |low: u32| -> Vec<i32> {
        samples.iter().map(|x| x << 16 | ((dice.roll(1 << 16) as i32) & ((1 << low) - 1)) << (16 - low)).collect()
    };
    let whole = |x: &[i32]| -> Vec<u8> { x.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let floats = |x: &[f32]| -> Vec<u8> { x.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let parts: Vec<f32> = samples.iter().map(|x| *x as f32 / 32_768.0).collect();
    let mixed: Vec<f32> = parts.iter().enumerate().map(|(n, x)| x * (0.3 + n as f32 * 1e-6)).collect();
    // What is coded, its format, and bytes that it may take beside those of its samples of 16 bits.
    let kinds = [
        ("16 of 32 bits", whole(&wide(0)), false, 50),
        ("24 of 32 bits", whole(&wide(8)), false, 21_000),
        ("32 bits", whole(&wide(16)), false, 42_000),
        ("floats of 16 bits", floats(&parts), true, 250),
        ("floats", floats(&mixed), true, 40_000),
    ];
    let swapped = |x: &[u8]| -> Vec<u8> { x.chunks(4).flat_map(|b| [b[3], b[2], b[1], b[0]]).collect() };
    for (name, bytes, float, beside) in kinds {
        let heads = [
            ("none", bytes[7..].to_vec(), false),
            ("none, highest first", swapped(&bytes)[5..].to_vec(), true),
            ("wav", wav_of(&bytes, if float { 3 } else { 1 }, b"RIFF"), false),
            ("rf64", wav_of(&bytes, if float { 3 } else { 1 }, b"RF64"), false),
            ("aifc", aifc(&swapped(&bytes), if float { b"fl32" } else { b"in32" }), true),
            ("au", au(&swapped(&bytes), if float { 6 } else { 5 }), true),
        ];
        for (head, file, big) in heads {
            let payload = encode(model, &file, Class::Sound).unwrap_or_else(|| panic!("{name}, {head}"));
            assert!(decode(model, &payload, file.len()).unwrap() == file, "{name}, {head}");
            assert_eq!(payload[0], 0x13 | u8::from(big) << 2 | u8::from(float) << 3, "{name}, {head}");
            assert!(payload.len() < of_two + beside + 150, "{name}, {head}: {} of {of_two}", payload.len());
            if head != "none" && head != "none, highest first" {
                assert_eq!(tersefs::codec::classify(&file[..2000]), Class::Sound, "{name}, {head}");
            }
            if head == "wav" {
                decodes_damaged(model, &payload, file.len(), 8);
            }
        }
    }
}

/// A file of two channels of four bytes; one that says its length elsewhere, as files beyond 4 GiB do, has none where it is short.
fn wav_of(samples: &[u8], kind: u8, name: &[u8; 4]) -> Vec<u8> {
    let mut file = wav(samples, 4, 2);
    let at = |file: &[u8], name: &[u8]| file.windows(4).position(|w| w == name).unwrap();
    let fmt = at(&file, b"fmt ") + 8;
    file[fmt] = kind;
    if name == b"RF64" {
        file[..8].copy_from_slice(b"RF64\xff\xff\xff\xff");
        let data = at(&file, b"data") + 4;
        file[data..data + 4].fill(255);
        // Nothing stands behind samples without a length.
        file.truncate(data + 4 + samples.len());
        file.splice(12..12, [&b"ds64\x1c\0\0\0"[..], &[0; 28]].concat());
    }
    file
}

fn aifc(samples: &[u8], kind: &[u8; 4]) -> Vec<u8> {
    let piece = |name: &[u8], bytes: &[u8]| [name, &(bytes.len() as u32).to_be_bytes(), bytes].concat();
    let frames = (samples.len() as u32 / 8).to_be_bytes();
    let common = [&[0, 2][..], &frames, &[0, 32], &[64, 14, 172, 68, 0, 0, 0, 0, 0, 0], kind, b"\0\0"].concat();
    let pieces = [piece(b"COMM", &common), piece(b"SSND", &[&[0; 8], samples].concat())].concat();
    piece(b"FORM", &[b"AIFC", &pieces[..]].concat())
}

fn au(samples: &[u8], kind: u32) -> Vec<u8> {
    let fields = [24, samples.len() as u32, kind, 44_100, 2];
    [b".snd".to_vec(), fields.iter().flat_map(|n| n.to_be_bytes()).collect(), samples.to_vec()].concat()
}

/// What is kept of revision 2: TERSEFS_GOLDEN_SOUND names the file.
#[test]
fn golden_sound_is_made() {
    let model = tersefs::models::model(MethodId::Sound);
    let wave =
        |seed: u64, len: usize, width: usize, channels: usize| sound(&mut Dice::new(seed), len, width, channels, false);
    let halves: Vec<i32> = wave(4, 8_000, 2, 1).chunks(2).map(|b| i16::from_le_bytes([b[0], b[1]]).into()).collect();
    let mut floats: Vec<f32> = halves.iter().map(|x| *x as f32 / 32_768.0).collect();
    let of_two: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
    floats.iter_mut().for_each(|x| *x *= 0.7);
    floats.splice(2_000..2_000, [0.0, -0.0, f32::NAN, f32::INFINITY, 1e-40, 3.5e-9]);
    let highest_first: Vec<u8> = floats.iter().flat_map(|x| x.to_be_bytes()).collect();
    let longer: Vec<u8> =
        halves.iter().enumerate().flat_map(|(n, x)| ((x << 16) | (n as i32 % 251)).to_be_bytes()).collect();
    let raws = [
        wave(1, 9_001, 1, 1),
        wav(&wave(2, 16_000, 2, 2), 2, 2),
        wave(3, 12_000, 2, 1).chunks(2).flat_map(|b| [0, b[0], b[1]]).collect(),
        aifc(&longer, b"in32"),
        au(&highest_first, 6),
        wav_of(&of_two, 3, b"RIFF"),
    ];
    let mut out = Vec::new();
    for raw in raws {
        let payload = encode(model, &raw, Class::Sound).unwrap();
        assert!(decode(model, &payload, raw.len()).unwrap() == raw);
        put_golden_of(9, &raw, &payload, &mut out);
    }
    keep_golden("TERSEFS_GOLDEN_SOUND", &out);
}

/// Low bits that no sample has cost nothing.
#[test]
fn bits_that_samples_lack_cost_nothing() {
    let model = tersefs::models::model(MethodId::Sound);
    let made_of = sound(&mut Dice::new(7), 30_000, 2, 1, false);
    let of_two = encode(model, &made_of, Class::Sound).unwrap().len();
    let three: Vec<u8> = made_of.chunks(2).flat_map(|b| [0, b[0], b[1]]).collect();
    let of_three = encode(model, &wav(&three, 3, 1), Class::Sound).unwrap().len();
    assert!(of_three < of_two + 120, "{of_three} {of_two}");
}

/// What is no sound is not taken for it, and files of sound that are no whole numbers are left to others.
#[test]
fn what_is_no_sound_is_declined() {
    let model = tersefs::models::model(MethodId::Sound);
    let mut floats = wav(&sound(&mut Dice::new(1), 40_000, 2, 2, false), 2, 2);
    let kind = floats.windows(4).position(|w| w == b"fmt ").unwrap() + 8;
    floats[kind] = 3;
    let mut others = vec![("floats".to_string(), floats), ("noise".into(), noise(60_000))];
    others.extend(cuts());
    for (name, data) in others {
        assert!(encode(model, &data, Class::Sound).is_none(), "{name}");
        assert!(tersefs::codec::classify(&data) != Class::Sound, "{name}");
    }
    // Heads that end early or say nonsense.
    let file = wav(&sound(&mut Dice::new(1), 30_000, 2, 1, false), 2, 1);
    for len in [0, 4, 12, 20, 40, 60, 79, 80, 90, 200] {
        check(model, Class::Sound, &file[..len.max(1)]);
    }
    for at in 0..90 {
        let mut bad = file.clone();
        bad[at] = 255;
        check(model, Class::Sound, &bad[..4000]);
    }
}

/// Whole segments by the policy: sound is coded by its own method, and by what is for any data where it repeats itself.
#[test]
fn sound_goes_to_the_smallest_method() {
    let samples = sound(&mut Dice::new(8), 100_000, 2, 2, false);
    let policy = tersefs::codec::Policy { decode_ms: Some(60_000), ..Default::default() };
    for (raw, expected) in [(samples.clone(), MethodId::Sound), (samples[..1000].repeat(100), MethodId::Primed)] {
        let coded = tersefs::codec::encode(&raw, Class::Sound, &policy, Basis::default()).unwrap();
        assert_eq!(MethodId::from_u16(coded.coding.method), Some(expected));
        assert!(tersefs::codec::decode(&coded.coding, &coded.payload, Basis::default()).unwrap() == raw);
    }
    let fast = tersefs::codec::Policy::of(tersefs::codec::Tier::Fast);
    let coded = tersefs::codec::encode(&samples, Class::Sound, &fast, Basis::default()).unwrap();
    assert_eq!(coded.coding.method, MethodId::Zstd as u16);
}

/// Pixels of every kind come back, coded as what they are wherever they are cut.
#[test]
fn pictures_are_found_and_come_back() {
    let model = tersefs::models::model(MethodId::Picture);
    let mut found = Vec::new();
    for (size, planes, bytes, big, beside) in [
        ((331, 200), 1, 1, false, 0),
        ((171, 200), 3, 1, false, 0),
        ((131, 160), 3, 1, false, 2),
        ((111, 150), 4, 1, false, 0),
        ((201, 150), 1, 2, false, 0),
        ((201, 150), 1, 2, true, 0),
        ((101, 150), 3, 2, true, 0),
    ] {
        let mut dice = Dice::new(planes as u64 * 10 + bytes as u64);
        let pixels = picture(&mut dice, size, planes, bytes, big, beside);
        // From the middle of a file, at any byte.
        let cut = &pixels[1013..pixels.len() - 501];
        let name = format!("{size:?} {planes} {bytes} {big} {beside}");
        let payload = encode(model, cut, Class::Picture).unwrap_or_else(|| panic!("{name}"));
        assert!(decode(model, &payload, cut.len()).unwrap() == cut, "{name}");
        let row = usize::from(payload[1] & 127) | usize::from(payload[2]) << 7;
        assert_eq!(row, size.0 * planes * bytes + beside, "{name}");
        let flags = (bytes as u8 - 1) | u8::from(big) << 1 | (planes as u8 - 1) << 3;
        assert_eq!(payload[0] & 0x3b, flags, "{name}");
        assert_eq!(tersefs::codec::classify(cut), Class::Picture, "{name}");
        found.push((payload.len(), crc32c(&payload)));
    }
    assert_eq!(found, PICTURES, "the coded bytes have changed");
}

const PICTURES: [(usize, u32); 7] = [
    (14902, 2269312532),
    (14095, 1202017921),
    (9929, 259778833),
    (7928, 899054505),
    (31632, 365914217),
    (31632, 2723915879),
    (38870, 2692120635),
];

/// Heads of files say what pixels are like.
#[test]
fn heads_of_pictures_are_read() {
    let model = tersefs::models::model(MethodId::Picture);
    let u32s = |numbers: &[u32]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_le_bytes()).collect() };
    let bmp = [b"BM".to_vec(), u32s(&[0, 0, 54, 40, 61, 50, 24 << 16 | 1, 0, 0, 0, 0, 0, 0])].concat();
    let entry = |tag: u32, value: u32| u32s(&[4 << 16 | tag, 1, value]);
    let entries = [entry(256, 61), entry(258, 8), entry(259, 1), entry(273, 84), entry(277, 3), entry(284, 1)].concat();
    let tiff = [b"II*\0\x08\0\0\0\x06\0".to_vec(), entries, u32s(&[0])].concat();
    let mut npy = b"\x93NUMPY\x01\0\x76\0{'descr': '<u2', 'fortran_order': False, 'shape': (50, 61), }".to_vec();
    npy.resize(128, b' ');
    let mut fits = b"SIMPLE  =                    T".to_vec();
    fits.resize(80, b' ');
    for card in
        ["BITPIX  =                   16", "NAXIS   =                    2", "NAXIS1  =                   61", "END"]
    {
        fits.extend(format!("{card:<80}").bytes());
    }
    fits.resize(2880, b' ');
    let mut nifti = vec![0; 352];
    nifti[..4].copy_from_slice(&348u32.to_le_bytes());
    nifti[40..44].copy_from_slice(&[3, 0, 61, 0]);
    nifti[70] = 4;
    nifti[108..112].copy_from_slice(&352f32.to_le_bytes());
    nifti[344..348].copy_from_slice(b"n+1\0");
    let mut dicom = vec![0; 128];
    dicom.extend(b"DICM\x28\0\x11\0US\x02\0\x3d\0\x28\0\0\x01US\x02\0\x10\0");
    dicom.extend(b"\xe0\x7f\x10\0OW\0\0");
    dicom.extend((61u32 * 50 * 2).to_le_bytes());
    let pam = b"P7\nWIDTH 61\nHEIGHT 50\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n".to_vec();
    for (name, head, planes, bytes, big, beside) in [
        ("bmp", bmp, 3, 1, false, 1),
        ("tiff", tiff, 3, 1, false, 0),
        ("npy", npy, 1, 2, false, 0),
        ("fits", fits, 1, 2, true, 0),
        ("nifti", nifti, 1, 2, false, 0),
        ("dicom", dicom, 1, 2, false, 0),
        ("pam", pam, 4, 1, false, 0),
        ("ppm", b"P6 61 50 255\n".to_vec(), 3, 1, false, 0),
        ("pgm", b"P5 61 50 1023\n".to_vec(), 1, 2, true, 0),
    ] {
        let pixels = picture(&mut Dice::new(5), (61, 50), planes, bytes, big, beside);
        let file = [&head[..], &pixels, b"behind"].concat();
        assert_eq!(tersefs::codec::classify(&file), Class::Picture, "{name}");
        let payload = encode(model, &file, Class::Picture).unwrap_or_else(|| panic!("{name}"));
        assert!(decode(model, &payload, file.len()).unwrap() == file, "{name}");
        let row = usize::from(payload[1] & 127) | usize::from(payload[2]) << 7;
        assert_eq!(row, 61 * planes * bytes + beside, "{name}");
        assert_eq!(usize::from(payload[0] >> 3 & 7) + 1, planes, "{name}");
        // Wherever a file ends, and whatever its head says.
        for len in (1..head.len() + 40).step_by(1 + head.len() / 20) {
            check(model, Class::Picture, &file[..len]);
        }
        for at in (0..head.len().min(400)).step_by(1 + head.len().min(400) / 30) {
            let mut bad = file[..(head.len() + 900).min(file.len())].to_vec();
            bad[at] ^= 0xff;
            check(model, Class::Picture, &bad);
        }
    }
}

/// Pixels of any number and any kind come back, drawn ones too.
#[test]
fn pictures_of_any_size_come_back() {
    let model = tersefs::models::model(MethodId::Picture);
    let mut dice = Dice::new(12);
    for n in 0..80usize {
        let (width, rows) = ([1, 2, 3, 4, 5, 8, 9, 33][n % 8], [1, 2, 3, 30][n / 8 % 4]);
        let (planes, bytes) = (1 + n % 4, 1 + n / 3 % 2);
        let len = width * rows * planes * bytes;
        let mut pixels: Vec<u8> = match n % 3 {
            // Extremes, noise, and few values that go on.
            0 => (0..len).map(|_| [0, 255][dice.roll(2) as usize]).collect(),
            1 => noise(len),
            _ => (0..len).map(|n| (n / 40 * 50) as u8).collect(),
        };
        pixels.extend(noise(n % 5));
        let most = if bytes == 1 { 255 } else { 65_535 };
        let file = format!("P7\nWIDTH {width}\nHEIGHT {rows}\nDEPTH {planes}\nMAXVAL {most}\nENDHDR\n");
        check(model, Class::Picture, &[file.as_bytes(), &pixels].concat());
    }
    let drawn: Vec<u8> = (0..90_000usize).map(|n| [7, 200, 90][(n % 300 / 40 + n / 3000) % 3]).collect();
    let file = [b"P6 100 300 255\n", &drawn[..]].concat();
    let payload = encode(model, &file, Class::Picture).unwrap();
    assert!(payload[0] & 64 != 0 && payload.len() < 900, "{}", payload.len());
    assert!(decode(model, &payload, file.len()).unwrap() == file);
}

/// What has no rows is not taken for a picture.
#[test]
fn what_is_no_picture_is_declined() {
    let model = tersefs::models::model(MethodId::Picture);
    let mut others = cuts();
    others.push(("noise".into(), noise(60_000)));
    others.push(("reads".into(), nucleotides(&mut Dice::new(4), 60_000, true)));
    for (name, data) in others {
        assert!(encode(model, &data, Class::Picture).is_none(), "{name}");
        assert!(tersefs::codec::classify(&data) != Class::Picture, "{name}");
    }
    let policy = tersefs::codec::Policy { decode_ms: Some(60_000), ..Default::default() };
    let pixels = picture(&mut Dice::new(8), (300, 100), 3, 1, false, 0);
    let coded = tersefs::codec::encode(&pixels, Class::Picture, &policy, Basis::default()).unwrap();
    assert_eq!(MethodId::from_u16(coded.coding.method), Some(MethodId::Picture));
    assert!(tersefs::codec::decode(&coded.coding, &coded.payload, Basis::default()).unwrap() == pixels);
}

/// Frames of every kind come back, coded as what they are wherever a file is cut between them.
#[test]
fn video_is_found_and_comes_back() {
    let model = tersefs::models::model(MethodId::Video);
    let mut found = Vec::new();
    for (n, (colours, (width, rows), planes)) in [
        ("mono", (90, 50), vec![(90, 50)]),
        ("420jpeg", (90, 50), vec![(90, 50), (45, 25), (45, 25)]),
        ("420", (91, 51), vec![(91, 51), (46, 26), (46, 26)]),
        ("422", (80, 48), vec![(80, 48), (40, 48), (40, 48)]),
        ("444", (80, 48), vec![(80, 48); 3]),
    ]
    .into_iter()
    .enumerate()
    {
        let head = format!("YUV4MPEG2 W{width} H{rows} F25:1 Ip C{colours} XSOMETHING\n").into_bytes();
        let cut = frames(&mut Dice::new(n as u64), &planes, 5, b"FRAME\n");
        let file = [&head[..], &cut].concat();
        assert_eq!(tersefs::codec::classify(&file), Class::Video, "{colours}");
        let payloads = [&cut, &file].map(|raw| {
            let payload = encode(model, raw, Class::Video).unwrap_or_else(|| panic!("{colours}"));
            assert!(decode(model, &payload, raw.len()).unwrap() == *raw, "{colours}");
            let kind = [0, 1, 1, 2, 3][n];
            // Three planes of one size may be taken for one, where nobody says.
            if n < 4 || raw.starts_with(b"YUV") {
                assert_eq!(&payload[..4], &[kind, width as u8, rows as u8, 5], "{colours}");
            }
            payload
        });
        // Where it moved from is worth more than all that is around it.
        let alone: usize = cut.chunks(cut.len() / 5).map(|one| encode(model, one, Class::Video).unwrap().len()).sum();
        assert!(payloads[0].len() * 10 < alone * 9, "{colours}: {} and {alone}", payloads[0].len());
        found.push((payloads[0].len(), crc32c(&payloads[0])));
        // What is left of a frame, and what is behind it, stays as it is.
        check(model, Class::Video, &file[..file.len() - 100]);
        check(model, Class::Video, &[&file[..], b"behind"].concat());
    }
    for (n, (bits, colours, pixel)) in
        [(24, b"\0\0\0\0", 3), (32, b"\0\0\0\0", 4), (16, b"YUY2", 2), (16, b"UYVY", 2)].into_iter().enumerate()
    {
        let (width, rows) = (70, 40);
        let stride = (width * pixel as usize).next_multiple_of(4);
        let pixels = frames(&mut Dice::new(n as u64), &[(stride, rows)], 3, b"");
        let file = avi(&pixels, (width, rows), bits, colours);
        assert_eq!(tersefs::codec::classify(&file), Class::Video, "{bits} {colours:?}");
        let payload = encode(model, &file, Class::Video).unwrap();
        assert_eq!(&payload[..4], &[6 + n as u8, width as u8, rows as u8, 3], "{bits} {colours:?}");
        assert!(decode(model, &payload, file.len()).unwrap() == file);
        found.push((payload.len(), crc32c(&payload)));
        // From the first frame on, without a head.
        let at = file.windows(4).position(|name| name == b"00db").unwrap();
        check(model, Class::Video, &file[at..]);
        assert!(encode(model, &file[at..], Class::Video).is_some());
    }
    assert_eq!(found, VIDEOS, "the coded bytes have changed");
}

const VIDEOS: [(usize, u32); 9] = [
    (8015, 57230263),
    (12438, 2127029959),
    (12974, 614607931),
    (14103, 1017550673),
    (20748, 1437535279),
    (12708, 3523660683),
    (17487, 442188153),
    (7827, 3515654390),
    (7908, 424452615),
];

/// Values of two bytes, any number of frames, and frames of extremes and noise.
#[test]
fn video_of_any_kind_comes_back() {
    let model = tersefs::models::model(MethodId::Video);
    let mut dice = Dice::new(31);
    for n in 0..40usize {
        let (width, rows) = ([16, 17, 24, 33, 47][n % 5], [16, 19, 32][n % 3]);
        let (colours, values) = match n % 4 {
            0 => ("420p10", width * rows + 2 * (usize::div_ceil(width, 2) * usize::div_ceil(rows, 2))),
            1 => ("411", width * rows + 2 * usize::div_ceil(width, 4) * rows),
            2 => ("444alpha", 4 * width * rows),
            _ => ("mono16", width * rows),
        };
        let bytes = values * if n % 4 == 0 || n % 4 == 3 { 2 } else { 1 };
        let mut file = format!("YUV4MPEG2 W{width} H{rows} C{colours}\n").into_bytes();
        for frame in 0..1 + n % 4 {
            file.extend(b"FRAME Ip\n");
            file.extend((0..bytes).map(|at| match n % 3 {
                0 => [0, 255][dice.roll(2) as usize],
                1 => (at * 7 / bytes * 30 + frame * at % 3) as u8,
                _ => dice.roll(256) as u8 & 63,
            }));
        }
        check(model, Class::Video, &file);
        if n % 3 == 1 {
            assert!(encode(model, &file, Class::Video).is_some(), "{colours} {width} {rows}");
        }
    }
}

/// Heads that are not whole or not right are declined or coded, and nothing that is no video is taken for it.
#[test]
fn what_is_no_video_is_declined() {
    let model = tersefs::models::model(MethodId::Video);
    let planes = [(40, 32), (20, 16), (20, 16)];
    let y4m = [b"YUV4MPEG2 W40 H32\n".to_vec(), frames(&mut Dice::new(1), &planes, 3, b"FRAME\n")].concat();
    let riff = avi(&frames(&mut Dice::new(2), &[(120, 32)], 3, b""), (40, 32), 24, b"\0\0\0\0");
    for file in [y4m, riff] {
        for len in (0..file.len().min(400)).step_by(7) {
            check(model, Class::Video, &file[..len]);
        }
        for at in (0..300).step_by(4) {
            for change in [1, 0xff] {
                let mut bad = file.clone();
                bad[at] ^= change;
                if let Some(payload) = encode(model, &bad, Class::Video) {
                    assert!(decode(model, &payload, bad.len()).unwrap() == bad, "{at} {change}");
                }
            }
        }
    }
    let mut others = cuts();
    others.push(("noise".into(), noise(60_000)));
    others.push(("line".into(), b"FRAME\n".repeat(2_000)));
    others.push(("pieces".into(), b"00db\x04\0\0\0abcd".repeat(2_000)));
    others.push(("empty pieces".into(), b"00db\0\0\0\0".repeat(2_000)));
    others.push(("lists".into(), b"LIST\xff\xff\xff\xffmovi".repeat(2_000)));
    for (name, data) in others {
        assert!(encode(model, &data, Class::Video).is_none(), "{name}");
        assert!(tersefs::codec::classify(&data) != Class::Video, "{name}");
    }
}

/// Segments of a file end with a frame and are coded by the method; frames that are longer than a segment by another.
#[test]
fn segments_of_video_end_with_frames() {
    let policy = tersefs::codec::Policy { decode_ms: Some(60_000), ..Default::default() };
    let bounds = tersefs::codec::bounds(Class::Video, &policy);
    assert_eq!(bounds.ends, tersefs::codec::Ends::Frames);
    let planes = [(400, 300), (200, 150), (200, 150)];
    let mut rest = &[b"YUV4MPEG2 W400 H300\n".to_vec(), frames(&mut Dice::new(1), &planes, 8, b"FRAME\n")].concat()[..];
    let mut frames_of = Vec::new();
    while !rest.is_empty() {
        let cut = tersefs::codec::first_cut(rest, bounds, rest.len() as u64, (None, &policy));
        let (raw, behind) = rest.split_at(cut.len);
        assert!(raw.len() <= SEGMENT_BYTES_MAX as usize && (behind.is_empty() || behind.starts_with(b"FRAME")));
        frames_of.push(raw.len() / 180_006);
        if frames_of.len() == 2 {
            let coded = tersefs::codec::encode(raw, Class::Video, &policy, Basis::default()).unwrap();
            assert_eq!(MethodId::from_u16(coded.coding.method), Some(MethodId::Video));
            assert!(tersefs::codec::decode(&coded.coding, &coded.payload, Basis::default()).unwrap() == raw);
        }
        rest = behind;
    }
    assert_eq!(frames_of, [5, 3]);
    let large = [b"YUV4MPEG2 W1200 H1000 Cmono\n".to_vec(), vec![9; 2_500_000]].concat();
    let cut = tersefs::codec::first_cut(&large, bounds, large.len() as u64, (None, &policy));
    assert!(cut.len > 100_000 && cut.len <= SEGMENT_BYTES_MAX as usize, "as any other bytes");
    // Nor is such a file taken for anything else: what is cut from a frame is a picture.
    let planes = [(1280, 720), (640, 360), (640, 360)];
    let head = b"YUV4MPEG2 W1280 H720 F25:1 C420jpeg\n".to_vec();
    let large = [head, frames(&mut Dice::new(2), &planes, 1, b"FRAME\n")].concat();
    assert_eq!(tersefs::codec::classify(&large[..64 << 10]), Class::Video);
    let part = &large[200_001..500_000];
    let coded = tersefs::codec::encode(part, Class::Video, &policy, Basis::default()).unwrap();
    assert_eq!(MethodId::from_u16(coded.coding.method), Some(MethodId::Picture));
    assert!(tersefs::codec::decode(&coded.coding, &coded.payload, Basis::default()).unwrap() == part);
}

#[test]
fn payloads_of_older_revisions_decode() {
    // Every prior and one of a volume, in three profiles.
    let numbers = |range: std::ops::Range<u8>| -> BTreeSet<(u8, u8)> {
        (3..6).flat_map(|method| range.clone().chain([255]).map(move |number| (method, number))).collect()
    };
    assert_eq!(decode_golden(include_bytes!("golden/primed-1"), 1), numbers(0..12));
    assert_eq!(decode_golden(include_bytes!("golden/primed-2"), 2), numbers(12..25));
    let forms = decode_golden(include_bytes!("golden/primed-2-forms"), 2);
    assert_eq!(forms, (3..6).flat_map(|method| [(method, 0), (method, 19)]).collect());
    // By flags: line feeds alone, carriage returns, uracil.
    let genome = decode_golden(include_bytes!("golden/genome-1"), 1);
    assert_eq!(genome, BTreeSet::from([(6, 0), (6, 1), (6, 2)]));
    // By format: 8 bits, 16 bits of one and two channels, 24 bits, highest byte first.
    let sound = decode_golden(include_bytes!("golden/sound-1"), 1);
    assert_eq!(sound, BTreeSet::from([(9, 0), (9, 1), (9, 0x11), (9, 0x12), (9, 0x15)]));
    // 8 bits, 16 bits of two channels, 24 bits, and highest byte first whole numbers and floats of 32 bits; floats.
    let sound = decode_golden(include_bytes!("golden/sound-2"), 2);
    assert_eq!(sound, BTreeSet::from([(9, 0), (9, 0x11), (9, 2), (9, 0x17), (9, 0x1f), (9, 0x1b)]));
    // By flags: grey and drawn, colour, that drawn, 16 bits, highest byte first and signed.
    let picture = decode_golden(include_bytes!("golden/picture-1"), 1);
    assert_eq!(picture, BTreeSet::from([(10, 0x40), (10, 0x10), (10, 0x50), (10, 1), (10, 7)]));
    // By kind: grey, 4:2:0, that in two bytes, rows of three colours.
    let video = decode_golden(include_bytes!("golden/video-1"), 1);
    assert_eq!(video, BTreeSet::from([(11, 0), (11, 1), (11, 0x11), (11, 6)]));
    // Their first byte is one of a checksum.
    let opened = decode_golden(include_bytes!("golden/opened-1"), 1);
    assert!(opened.len() == 11 && opened.iter().all(|(method, _)| *method == 8), "{opened:?}");
    let members = decode_golden(include_bytes!("golden/opened-2-members"), 1);
    assert!(members.len() >= 7 && members.iter().all(|(method, _)| *method == 8), "{members:?}");
    let frames = decode_golden(include_bytes!("golden/opened-2-frames"), 1);
    let recoded = decode_golden(include_bytes!("golden/opened-2-recoded"), 1);
    assert!(recoded.len() == 5 && recoded.iter().all(|(method, _)| *method == 8), "{recoded:?}");
    let made = decode_golden(include_bytes!("golden/opened-3-made"), 1);
    assert!(made.len() == 4 && made.iter().all(|(method, _)| *method == 8), "{made:?}");
    let pixels = decode_golden(include_bytes!("golden/opened-4-pixels"), 1);
    assert!(pixels.len() == 8 && pixels.iter().all(|(method, _)| *method == 8), "{pixels:?}");
    assert!(frames.len() == 3 && frames.iter().all(|(method, _)| *method == 8), "{frames:?}");
}

#[test]
fn a_payload_names_the_prior_that_suits_it() {
    let model = tersefs::models::model(MethodId::Primed);
    for (name, data) in cuts() {
        let class = tersefs::codec::classify(&data);
        let payload = encode(model, &data, class).unwrap();
        let prior = tersefs::models::prior_name(payload[0]).unwrap();
        let expected: &[&str] = match name.as_str() {
            "eng" => &["prose2"],
            // Half of it is documentation.
            "py" => &["python2", "manual2"],
            "rs" => &["rust2"],
            "html" => &["markup2"],
            "json" => &["json2"],
            "log" | "nci" => &["log2", "table2"],
            _ => continue,
        };
        assert!(expected.contains(&prior), "{name}, class {}: {prior}", class.name());
        // Whatever prior another payload names, what comes out is bytes or an error.
        for number in [payload[0], 1, 5, 13, 16, 25, 254] {
            let mut other = payload.clone();
            other[0] = number;
            match decode(model, &other, data.len()) {
                Ok(plain) => assert!(plain.len() == data.len() && (number == payload[0]) == (plain == data)),
                Err(e) => {
                    assert!(number != payload[0], "{e}");
                    assert!(tersefs::models::prior_name(number).is_none() || e.to_string().contains("words"), "{e}");
                }
            }
        }
    }
    assert!(decode(model, &[], 10).is_err());
}

/// Letters that are no words of any prior: they come back, and a prior that leaves them as they are is at hand.
#[test]
fn text_of_other_alphabets_starts_from_priors_without_words() {
    let model = tersefs::models::model(MethodId::Primed);
    let (mut dice, words) =
        (Dice::new(5), ["και", "λόγος", "ἐν", "ἀρχῇ", "ἦν", "πρὸς", "τὸν", "θεόν", "σκοτία", "φῶς"]);
    let raw: Vec<u8> = (0..4000).flat_map(|_| format!("{} ", dice.pick(&words).unwrap()).into_bytes()).collect();
    for class in [Class::Text, Class::Markup, Class::Json] {
        let payload = encode(model, &raw, class).unwrap();
        assert!(payload[0] < 12 && payload[1] == 0, "prior {} form {}", payload[0], payload[1]);
        assert!(payload.len() * 12 < raw.len() && decode(model, &payload, raw.len()).unwrap() == raw);
    }
    // A word here and there does not matter.
    let few = [&b"the words of a text are known to the prior, and so they are numbers ".repeat(300)[..], &raw[..600]]
        .concat();
    let payload = encode(model, &few, Class::Text).unwrap();
    assert!(payload[0] >= 12 && payload[1] == 16 && decode(model, &payload, few.len()).unwrap() == few);
}

/// A prior is worth most at the start: a small file of a known kind codes to much less than it does from nothing.
#[test]
fn priors_make_small_files_smaller() {
    let (primed, cm) = (tersefs::models::model(MethodId::Primed), tersefs::models::model(MethodId::Cm));
    for (name, data) in cuts().into_iter().filter(|(name, _)| matches!(name.as_str(), "eng" | "py" | "rs" | "html")) {
        let class = tersefs::codec::classify(&data);
        let size = |m: &dyn Model| encode(m, &data[..16_000], class).unwrap().len();
        let (ours, before) = (size(primed), size(cm));
        assert!(ours * 100 < before * 90, "{name}: {ours} bytes, {before} without a prior");
    }
}

/// Text codes smaller than by any general compressor at this size; the bound is a little above what is reached.
#[test]
fn bits_per_byte() {
    let [primed, cm, zstd] = [MethodId::Primed, MethodId::Cm, MethodId::Zstd].map(tersefs::models::model);
    for (name, data) in cuts() {
        let class = tersefs::codec::classify(&data);
        let size = |m: &dyn Model| encode(m, &data, class).map_or(data.len(), |p| p.len());
        let (ours, before, theirs) = (size(primed), size(cm), size(zstd));
        let bpb = |n: usize| n as f64 * 8.0 / data.len() as f64;
        println!(
            "{name:<12} {:<8} primed {:.3} bpb, cm {:.3} bpb, zstd {:.3} bpb",
            class.name(),
            bpb(ours),
            bpb(before),
            bpb(theirs)
        );
        assert!(before * 100 < theirs * 93, "{name}: cm {before}, zstd {theirs}");
        // Chemical tables are like nothing that the priors have read, and cost nearly what they do without.
        let share = if name == "nci" { 104 } else { 96 };
        assert!(ours * 100 < before * share, "{name}: primed {ours}, cm {before}");
    }
}

/// The bytes of the model of nucleotides, of sequences and of reads. A change here needs a new revision, and the old one must
/// keep decoding.
#[test]
fn golden_bytes_of_the_genome_model() {
    let model = tersefs::models::model(MethodId::Genome);
    let found = [false, true].map(|reads| {
        let payload = encode(model, &nucleotides(&mut Dice::new(77), 20_000, reads), Class::Nucleotides).unwrap();
        (payload.len(), crc32c(&payload))
    });
    assert_eq!(found, GENOME, "the coded bytes have changed");
}

const GENOME: [(usize, u32); 2] = [(4755, 1016758299), (4088, 1469730537)];

/// What is for nucleotides is tried on them alone, and beats what is for anything, though these qualities are noise.
#[test]
fn nucleotides_are_known_and_smaller() {
    for reads in [false, true] {
        let raw = nucleotides(&mut Dice::new(78), 100_000, reads);
        assert_eq!(tersefs::codec::classify(&raw[333..]), Class::Nucleotides);
        let [genome, primed] = [MethodId::Genome, MethodId::Primed]
            .map(|id| encode(tersefs::models::model(id), &raw, Class::Nucleotides).unwrap().len());
        println!("reads {reads}: genome {genome}, primed {primed}");
        assert!(genome * 100 < primed * 96, "genome {genome}, primed {primed}");
    }
    for (name, data) in cuts() {
        let model = tersefs::models::model(MethodId::Genome);
        assert!(model.encode(&data, Class::Nucleotides, Basis::default()).is_err(), "{name}");
        assert!(tersefs::codec::classify(&data) != Class::Nucleotides, "{name}");
    }
}

/// Machine code is coded with addresses, records by their length; whatever the head says, bytes or an error come out.
#[test]
fn forms_of_bytes_come_back_and_are_named_in_the_payload() {
    let mut x = 3u64;
    let mut next = |bound: u64| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 33) % bound
    };
    let functions: Vec<u32> = (0..60).map(|_| next(1 << 20) as u32).collect();
    let mut code = Vec::new();
    while code.len() < 60_000 {
        (0..next(12)).for_each(|_| code.push([0x90, 0x55, 0x89, 0x31][next(4) as usize]));
        code.push(0xe8);
        let end = code.len() as u32 + 4;
        code.extend_from_slice(&functions[next(60) as usize].wrapping_sub(end).to_le_bytes());
    }
    // The same calls of 64-bit ARM, and pages.
    let mut arm: Vec<u8> = Vec::new();
    while arm.len() < 60_000 {
        for _ in 0..next(6) {
            arm.extend_from_slice(&[0xaa00_03e1u32, 0xf940_0000, 0x9100_4000][next(3) as usize].to_le_bytes());
        }
        let call = functions[next(60) as usize].wrapping_sub(arm.len() as u32 / 4) & 0x3ff_ffff;
        arm.extend_from_slice(&(0x9400_0000 | call).to_le_bytes());
        arm.extend_from_slice(&(0xb000_0000 | (next(3) as u32 * 32)).to_le_bytes());
    }
    let mut records: Vec<u8> = (0..300).map(|_| next(16) as u8).collect();
    while records.len() < 60_000 {
        let above = records[records.len() - 300];
        records.push((above + next(2) as u8) & 15);
    }
    // A picture of 200 pixels in a row, cut where no row begins, and sound of two channels of 16 bits.
    let mut picture: Vec<u8> = Vec::new();
    while picture.len() < 60_000 {
        let left = picture.last().map_or(100, |left| *left as u64);
        let above = picture.len().checked_sub(200).map_or(left, |at| u64::from(picture[at]));
        picture.push(((left + 3 * above) / 4 + next(9)).clamp(44, 204) as u8 - 4);
    }
    picture.remove(0);
    let loud = |n: u32| 4000.0 * (f64::from(n / 2) / 13.0).sin() + 900.0 * f64::from(n % 2);
    let sound: Vec<u8> = (0u32..30_000).flat_map(|n| (loud(n) as i16 + next(64) as i16).to_le_bytes()).collect();
    let model = tersefs::models::model(MethodId::Primed);
    for (raw, class, form) in [
        (&code, Class::Exec, &[1][..]),
        (&arm, Class::Exec, &[4]),
        (&records, Class::Binary, &[2, 44, 1]),
        (&picture, Class::Binary, &[3, 0, 200, 0, 0, 0]),
        (&sound, Class::Binary, &[3, 25, 0, 0, 0, 0]),
    ] {
        let payload = encode(model, raw, class).unwrap();
        assert_eq!(&payload[1..1 + form.len()], form, "{}", class.name());
        assert!(decode(model, &payload, raw.len()).unwrap() == *raw);
        for byte in [0, 1, 2, 3, 255] {
            for at in 1..8 {
                let mut wrong = payload.clone();
                wrong[at] = byte;
                if let Ok(plain) = decode(model, &wrong, 3000) {
                    assert_eq!(plain.len(), 3000);
                }
            }
        }
        for len in 0..10 {
            decode(model, &payload[..len], 100).ok();
        }
        if form[0] > 2 {
            let first = model.decode(&payload, raw.len(), 1, ModelId::NONE, Basis::default());
            assert!(matches!(first, Err(Error::Corrupt(what)) if what.contains("a form of bytes that came later")));
        }
    }
    // The same calls without their addresses: what the form saves.
    let plain = encode(model, &code, Class::Text).unwrap();
    assert_eq!(plain[1], 0);
    assert!(encode(model, &code, Class::Exec).unwrap().len() * 10 < plain.len() * 8, "{}", plain.len());
}

/// What a reference has costs next to nothing; a method that has no use for it codes as it does without.
#[test]
fn what_a_reference_has_is_not_coded_again() {
    for (name, data) in cuts().into_iter().filter(|(_, data)| data.len() > 10_000) {
        let class = tersefs::codec::classify(&data);
        // Versions: the same but for a line here and there, and in another order.
        let (half, third) = (data.len() / 2, data.len() / 3);
        let other =
            [&data[half..], b"\na line that is new\n", &data[..third], b"and another\n", &data[third..half]].concat();
        // Text is not what models of nucleotides, of sound and of pictures are for, nor a container.
        for model in alone().filter(|m| !FOR_A_KIND.contains(&m.id())) {
            let basis = Basis { reference: Some(&data), ..Basis::default() };
            let alone = model.encode(&other, class, Basis::default()).unwrap();
            let coded = model.encode(&other, class, basis).unwrap();
            let uses = model.id() == MethodId::Zstd || tersefs::models::starts_from_priors(model.id());
            assert!(!alone.refers && coded.refers == uses, "{}", model.id().name());
            if !coded.refers {
                assert_eq!(coded, alone);
                continue;
            }
            let decode = |payload: &[u8], reference: Option<&[u8]>| {
                let basis = Basis { reference, ..Basis::default() };
                model.decode(payload, other.len(), model.revision(), coded.model, basis)
            };
            println!("{name}: {} bytes of {}, {} alone", coded.payload.len(), other.len(), alone.payload.len());
            assert!(coded.payload.len() * 12 < alone.payload.len(), "{name}: {} bytes", coded.payload.len());
            assert!(decode(&coded.payload, Some(&data)).unwrap() == other);
            // With another reference, or none, there is an error or there are other bytes.
            for wrong in [Some(&other[..]), Some(&[]), None] {
                assert!(
                    decode(&coded.payload, wrong).is_ok_and(|plain| plain != other)
                        || decode(&coded.payload, wrong).is_err()
                );
            }
            if model.id() != MethodId::Zstd {
                assert!(matches!(decode(&coded.payload, None), Err(Error::Corrupt(_))));
                assert!(matches!(decode(&alone.payload, Some(&data)), Err(Error::Corrupt(_))));
            }
        }
    }
}

#[test]
fn methods_without_use_for_a_reference_refuse_one() {
    for model in [MethodId::Raw, MethodId::Cm, MethodId::Genome].map(tersefs::models::model) {
        let raw = suitable(model, 1000);
        let payload = encode(model, &raw, Class::Text).unwrap();
        let refers = Basis { reference: Some(&raw), ..Basis::default() };
        let with = |id, basis| model.decode(&payload, raw.len(), model.revision(), id, basis);
        assert!(with(ModelId::NONE, refers).is_err() && with(ModelId([7; 16]), Basis::default()).is_err());
        assert!(with(ModelId::NONE, Basis::default()).unwrap() == raw);
    }
}

/// The largest reference before the largest segment, and any reference before any payload.
#[test]
fn references_of_any_length() {
    let mut dice = Dice::new(31);
    let model = tersefs::models::model(MethodId::Primed);
    let reference = dice.text(SEGMENT_BYTES_MAX as usize + 10);
    for (from, len) in [(0, SEGMENT_BYTES_MAX as usize), (10, 3000), (500_000, 1)] {
        let raw = &reference[from..from + len];
        let basis = Basis { reference: Some(&reference), ..Basis::default() };
        let Ok(coded) = model.encode(raw, Class::Text, basis) else { continue };
        assert!(coded.payload.len() < 600, "{} bytes", coded.payload.len());
        let plain = model.decode(&coded.payload, len, model.revision(), coded.model, basis).unwrap();
        assert!(plain == raw, "{from} {len}");
    }
    for _ in 0..200 {
        let reference = noise(dice.roll(300) as usize);
        let basis = Basis { reference: Some(&reference), ..Basis::default() };
        let mut payload = noise(dice.roll(40) as usize);
        payload.iter_mut().take(2).for_each(|b| *b &= 0x83);
        if let Ok(plain) = model.decode(&payload, 500, model.revision(), ModelId::NONE, basis) {
            assert_eq!(plain.len(), 500);
        }
    }
}
