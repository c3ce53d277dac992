//! Every model of the table: exact round trips, damaged payloads, repeatability, golden bytes, bits per byte.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::Dice;
use common::packed::{gzip, prose};
use tersefs::base::{Class, MethodId, ModelId, SEGMENT_BYTES_MAX, crc32c};
use tersefs::models::{Basis, Error, Library, MODELS, Model};

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
    ];
    inputs.extend(cuts().into_iter().map(|(_, data)| data));
    for model in alone() {
        for raw in &inputs {
            for class in [Class::Text, Class::Markup, Class::Log, Class::Binary] {
                check(model, class, raw);
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

#[test]
fn damaged_payloads_give_errors_or_bounded_bytes() {
    let mut dice = Dice::new(3);
    for model in alone() {
        let raw = suitable(model, 20_000);
        let payload = encode(model, &raw, Class::Text).unwrap();
        for _ in 0..60 {
            let mut bad = payload.clone();
            match dice.roll(3) {
                0 => bad.truncate(dice.roll(payload.len() as u64) as usize),
                1 => {
                    let at = dice.roll(bad.len() as u64) as usize;
                    bad[at] ^= 1 << dice.roll(8);
                }
                _ => bad = noise(dice.roll(5000) as usize),
            }
            if let Ok(plain) = decode(model, &bad, raw.len()) {
                assert_eq!(plain.len(), raw.len());
            }
        }
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

const SWIFT: [(&str, u8, usize, u32); 13] = [
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
];

const PRIMED: [(&str, u8, usize, u32); 13] = [
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
];

const STRONG: [(&str, u8, usize, u32); 13] = [
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
                for other in 0..=model.revision() + 1 {
                    match model.decode(bytes, raw.len(), other, id, basis) {
                        // What a volume taught is named by its hash, whatever the revision.
                        Ok(plain) => assert!(plain == raw && (other >= revision || bytes[0] == 255), "{}", bytes[0]),
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
        let expected = if channels > 2 { Class::Binary } else { Class::Sound };
        assert_eq!(tersefs::codec::classify(&cut[..32 << 10]), expected, "{width} {channels}");
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
    (2816, 1574585280),
    (3180, 513265153),
    (21181, 990790054),
    (21236, 1407875977),
    (21236, 118800857),
    (29421, 303649374),
    (29498, 1174775645),
    (21795, 3062990477),
];

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
    // Their first byte is one of a checksum.
    let opened = decode_golden(include_bytes!("golden/opened-1"), 1);
    assert!(opened.len() == 11 && opened.iter().all(|(method, _)| *method == 8), "{opened:?}");
    let frames = decode_golden(include_bytes!("golden/opened-2-frames"), 1);
    let recoded = decode_golden(include_bytes!("golden/opened-2-recoded"), 1);
    assert!(recoded.len() == 5 && recoded.iter().all(|(method, _)| *method == 8), "{recoded:?}");
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
        // Text is not what models of nucleotides and of sound are for, nor a container.
        for model in alone().filter(|m| !matches!(m.id(), MethodId::Genome | MethodId::Opened | MethodId::Sound)) {
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
