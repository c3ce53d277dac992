//! Pixels of PNG, coded as pictures: bit for bit, by whatever makes them smallest, within the time that there is for them.

mod common;

use common::{Dice, packed};
use tersefs::base::{Class, MethodId, ModelId, crc32c};
use tersefs::containers::{self, CutLimits};
use tersefs::models::{self, Basis, Declined, Error, Model, Opened, Room};

fn opened() -> &'static dyn Model {
    models::model(MethodId::Opened)
}

/// True where a part of a payload is coded as a picture.
fn has_pixels(payload: &[u8]) -> bool {
    Opened::parts(payload).any(|(method, _)| method == MethodId::Picture)
}

/// Light that changes slowly, with noise, in rows of values of so many bits, the higher byte first.
fn light(dice: &mut Dice, width: usize, height: usize, values: usize, depth: usize) -> Vec<u8> {
    let mut light: Vec<i64> = (0..width as i64).map(|x| 9_000 + 40 * ((x / 7) % 90 - x % 50)).collect();
    let mut out = Vec::with_capacity(width * height * values * depth / 8);
    for _ in 0..height {
        let mut change = 0;
        for light in &mut light {
            change = change * 7 / 8 + dice.roll(301) as i64 - 150;
            *light += change + (9_000 - *light) / 32;
            for value in 0..values as i64 {
                let value = (*light + 1_500 * value + dice.roll(40) as i64).clamp(0, 65_535);
                match depth {
                    8 => out.push(((value >> 7) + 75) as u8),
                    _ => out.extend((value as u16).to_be_bytes()),
                }
            }
        }
    }
    out
}

/// The name, type of colour, values of a pixel, and bits of each kind.
const KINDS: [(&str, u8, usize, usize); 8] = [
    ("grey", 0, 1, 8),
    ("grey of 16 bits", 0, 1, 16),
    ("colour", 2, 3, 8),
    ("colour of 16 bits", 2, 3, 16),
    ("grey and alpha", 4, 2, 8),
    ("grey and alpha of 16 bits", 4, 2, 16),
    ("colour and alpha", 6, 4, 8),
    ("colour and alpha of 16 bits", 6, 4, 16),
];

const ROOMS: [Room; 4] = [
    Room { method: MethodId::Primed, text_bytes: 1 << 20 },
    Room { method: MethodId::Swift, text_bytes: 3 << 20 },
    Room { method: MethodId::Zstd, text_bytes: 4 << 20 },
    Room { method: MethodId::Sound, text_bytes: 1 << 20 },
];

/// Codes, decodes and compares.
fn check(name: &str, raw: &[u8], basis: Basis<'_>, pixels: usize) -> Result<Vec<u8>, Declined> {
    let room = Room { method: MethodId::Picture, text_bytes: pixels };
    let rooms: Vec<Room> = ROOMS.into_iter().chain((pixels > 0).then_some(room)).collect();
    let payload = Opened::encode_for(raw, basis, &rooms)?.payload;
    assert!(payload.len() < raw.len() && (pixels > 0 || !has_pixels(&payload)), "{name}");
    let plain = opened().decode(&payload, raw.len(), 1, ModelId::NONE, Basis::default());
    assert!(plain.as_deref() == Ok(raw), "{name}: {:?}", plain.err());
    Ok(payload)
}

#[test]
fn pixels_of_every_kind_are_coded_as_pictures() {
    let mut dice = Dice::new(1);
    for (name, colour, values, depth) in KINDS {
        for (how, width) in [(packed::Png::Plain, 150), (packed::Png::WrongCrc, 133)] {
            let pixels = light(&mut dice, width, 130, values, depth);
            let png = packed::png_of(&pixels, width, (depth, colour), how);
            let payload = check(name, &png, Basis::default(), 1 << 20).unwrap();
            assert!(has_pixels(&payload), "{name}");
            let before = check(name, &png, Basis::default(), 0).map_or(png.len(), |payload| payload.len());
            println!("{name}: {} of {}, as text {before}", payload.len(), png.len());
            assert!(payload.len() < before, "{name}: {} of {before}", payload.len());
        }
    }
}

/// Drawings, a palette, noise, rows that are woven, too short, or less than a byte a pixel: the smallest is kept, and it is exact.
#[test]
fn what_is_no_photograph_is_no_larger() {
    let mut dice = Dice::new(2);
    let flat: Vec<u8> = (0..90_000usize).map(|n| [7, 200, 90][(n % 300 / 40 + n / 3000) % 3]).collect();
    let letters: Vec<u8> =
        packed::prose(&mut dice, 4000).iter().flat_map(|b| [b & 3, b >> 2 & 3, b >> 4].repeat(10)).collect();
    let noise: Vec<u8> = (0..60_000).map(|_| dice.roll(7) as u8 * 3).collect();
    let photograph = light(&mut dice, 100, 200, 3, 8);
    for (name, pixels, width, kind, how) in [
        ("flat", &flat, 100, (8, 2), packed::Png::Plain),
        ("flat, in grey", &flat, 300, (8, 0), packed::Png::Plain),
        ("letters", &letters, 240, (8, 3), packed::Png::Plain),
        ("letters in rows of few pixels", &letters, 3, (8, 0), packed::Png::Plain),
        ("noise", &noise, 100, (8, 6), packed::Png::Plain),
        ("woven", &photograph, 100, (8, 2), packed::Png::Interlaced),
        ("small", &photograph[..6_000].to_vec(), 20, (8, 2), packed::Png::Plain),
    ] {
        let png = packed::png_of(pixels, width, kind, how);
        let [with, without] = [1 << 20, 0].map(|room| check(name, &png, Basis::default(), room));
        let [with, without] = [with, without].map(|coded| coded.map_or(png.len(), |payload| payload.len()));
        println!("{name}: {with}, as text {without}, of {}", png.len());
        assert!(with <= without, "{name}: {with} {without}");
    }
    // Pictures of a kind are coded together, others apart.
    let kinds: Vec<(String, Vec<u8>)> = (0..12)
        .map(|n| {
            let pixels = light(&mut dice, 90 + n / 4, 90, 3, 8);
            (format!("{n}.png"), packed::png_of(&pixels, 90 + n / 4, (8, 2), packed::Png::Plain))
        })
        .collect();
    let members: Vec<(&str, &[u8])> = kinds.iter().map(|(name, png)| (name.as_str(), &png[..])).collect();
    assert!(has_pixels(&check("tar", &packed::tar(&members), Basis::default(), 1 << 20).unwrap()));
}

/// Pixels that there is no time for are coded as text.
#[test]
fn there_is_time_for_what_is_coded_as_a_picture() {
    let mut dice = Dice::new(3);
    let png = packed::png_of(&light(&mut dice, 600, 700, 3, 8), 600, (8, 2), packed::Png::Plain);
    let lens: Vec<usize> = [0, 30_000, 400_000, 900_000, 1_300_000]
        .map(|room| check("large", &png, Basis::default(), room).map_or(png.len(), |payload| payload.len()))
        .to_vec();
    println!("{lens:?} of {}", png.len());
    assert!(lens.is_sorted_by(|a, b| a >= b) && lens[0] == lens[1] && lens[4] * 10 < lens[0] * 9, "{lens:?}");
    assert!(lens[3] < lens[2] && lens[2] < lens[1] && lens[4] < lens[3], "in part: {lens:?}");
}

#[test]
fn slices_of_photographs_are_coded_as_pictures() {
    let mut dice = Dice::new(4);
    let picture = packed::png_of(&light(&mut dice, 500, 700, 3, 8), 500, (8, 2), packed::Png::Plain);
    let limits = CutLimits { min: 100, text_bytes: 150_000 };
    let (mut at, mut before, mut stored, mut by_picture, mut parts) = (0, None, 0, 0, 0);
    while at < picture.len() {
        let rest = &picture[at..];
        let looked_at = rest.len().min(120_000);
        let cut = containers::cut(&rest[..looked_at], before.as_ref(), limits, looked_at == rest.len());
        let basis = Basis { before: before.as_ref(), ..Basis::default() };
        let payload = check("slice", &rest[..cut.len], basis, 1 << 20);
        by_picture += usize::from(payload.as_ref().is_ok_and(|payload| has_pixels(payload)));
        stored += payload.map_or(cut.len, |payload| payload.len());
        (at, before, parts) = (at + cut.len, cut.before, parts + 1);
    }
    println!("{stored} of {} in {parts} parts, {by_picture} of pixels", picture.len());
    assert!(parts >= 4 && by_picture + 1 >= parts && stored * 100 < picture.len() * 90);
}

/// Whatever is said of them: an error or bytes.
#[test]
fn damaged_pixels_give_errors_or_bytes() {
    let mut dice = Dice::new(5);
    let mut errors = 0;
    for (name, colour, values, depth) in KINDS {
        let png = packed::png_of(&light(&mut dice, 70, 60, values, depth), 70, (depth, colour), packed::Png::Plain);
        let payload = check(name, &png, Basis::default(), 1 << 20).unwrap();
        // The head of the picture's part, too: it lies behind that of the segment and what is no pixel.
        let part = payload.iter().position(|b| *b == MethodId::Picture as u8).unwrap_or(0);
        for n in 0..40 {
            let mut bad = payload.clone();
            let from = if n % 2 == 0 { 5 } else { part.min(bad.len() - 20) };
            let reach = if n % 4 == 1 { 16 } else { (bad.len() - from) as u64 };
            let at = from + dice.roll(reach) as usize;
            match dice.roll(3) {
                0 => bad.truncate(at.max(6)),
                1 => bad[at] ^= 1 << dice.roll(8),
                _ => bad[at..].iter_mut().take(9).for_each(|b| *b = dice.next() as u8),
            }
            let crc = crc32c(&bad[4..]);
            bad[..4].copy_from_slice(&crc.to_le_bytes());
            match opened().decode(&bad, png.len(), 1, ModelId::NONE, Basis::default()) {
                Ok(plain) => assert_eq!(plain.len(), png.len()),
                Err(e) => {
                    assert!(!matches!(e, Error::Stopped), "{name}");
                    errors += 1;
                }
            }
        }
    }
    assert!(errors > 40, "{errors}");
}

/// Writes what `golden/opened-4-pixels` holds, where it is asked for: once for a revision.
#[test]
fn golden_payloads_of_pixels_are_made() {
    let mut dice = Dice::new(6);
    let kind = |dice: &mut Dice, (colour, values, depth): (u8, usize, usize), how| {
        let width = if depth == 8 { 150 } else { 90 };
        packed::png_of(&light(dice, width, 120, values, depth), width, (depth, colour), how)
    };
    let flat: Vec<u8> = (0..90_000usize).map(|n| [7, 200, 90][(n % 300 / 40 + n / 3000) % 3]).collect();
    let whole = packed::png_of(&light(&mut dice, 200, 300, 3, 8), 200, (8, 2), packed::Png::Plain);
    let limits = CutLimits { min: 100, text_bytes: 60_000 };
    let first = containers::cut(&whole[..50_000], None, limits, false);
    let second = containers::cut(&whole[first.len..], first.before.as_ref(), limits, true);
    let raws = [
        (None, kind(&mut dice, (0, 1, 8), packed::Png::Plain)),
        (None, kind(&mut dice, (2, 3, 8), packed::Png::WrongCrc)),
        (None, kind(&mut dice, (6, 4, 8), packed::Png::Plain)),
        (None, kind(&mut dice, (4, 2, 8), packed::Png::Plain)),
        (None, kind(&mut dice, (0, 1, 16), packed::Png::Plain)),
        (None, kind(&mut dice, (2, 3, 16), packed::Png::Plain)),
        (None, packed::png_of(&flat, 300, (8, 0), packed::Png::Plain)),
        (first.before.as_ref(), whole[first.len..][..second.len].to_vec()),
    ];
    let mut out = Vec::new();
    for (before, raw) in raws {
        let coded = opened().encode(&raw, Class::Container, Basis { before, ..Basis::default() }).unwrap();
        let plain = opened().decode(&coded.payload, raw.len(), 1, ModelId::NONE, Basis::default());
        assert!(plain.as_deref() == Ok(&raw[..]) && has_pixels(&coded.payload), "{} bytes", raw.len());
        packed::put_golden(&raw, &coded.payload, &mut out);
    }
    packed::keep_golden("TERSEFS_GOLDEN_PIXELS", &out);
}
