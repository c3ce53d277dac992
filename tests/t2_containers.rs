//! Containers: what opens closes bit for bit, whatever is done to it; and the method that codes what is in them.

mod common;

use std::time::Instant;

use common::Dice;
use common::packed::{self, Zip, every_kind};
use tersefs::base::{Class, MethodId, ModelId, crc32c};
use tersefs::containers::{self, Before, CutLimits, DEPTH_MAX, Declined, Kind, Limits, Opened, StreamBefore};
use tersefs::models::{Basis, Model};

const LIMITS: Limits = Limits { text_bytes: 2 << 20 };

/// Opens; what opens has to close.
fn check(name: &str, bytes: &[u8], before: Option<&Before>) -> Result<Opened, Declined> {
    let opened = containers::open(bytes, before, LIMITS)?;
    let again = containers::close(&opened.recipe, &opened.streams, bytes.len(), LIMITS.text_bytes);
    assert!(again.as_deref() == Ok(bytes), "{name}: {:?}", again.err());
    Ok(opened)
}

#[test]
fn every_kind_opens_and_closes() {
    for (name, bytes) in every_kind() {
        let opened = check(name, &bytes, None).unwrap_or_else(|why| panic!("{name}: {why:?}"));
        println!("{name}: {} of {} bytes", opened.opened_bytes, bytes.len());
        assert!(opened.opened_bytes * 10 > bytes.len() * 8, "{name}");
        let has = |f: fn(Kind) -> bool| opened.streams.iter().any(|s| f(s.kind) && !s.bytes.is_empty());
        assert!(has(|kind| matches!(kind, Kind::Text | Kind::Pixels { .. } | Kind::Lepton)), "{name}");
        assert_eq!(has(|kind| kind == Kind::Lepton), name.starts_with("jpeg"), "{name}");
        let rows = has(|kind| matches!(kind, Kind::Pixels { row: 271, pixel: 3 }));
        let with_it =
            ["png", "cpio", "ar", "mail"].contains(&name) || name.starts_with("zip") || name.starts_with("tar");
        assert_eq!(rows, with_it, "{name}");
    }
}

/// What follows from a text is not kept: checksums and lengths of members, of chunks, of streams.
#[test]
fn checksums_are_computed_again() {
    let text = packed::prose(&mut Dice::new(4), 20_000);
    let crc = crc32fast::hash(&text);
    for (name, bytes, times) in [
        ("gzip", packed::gzip(&text, 6), 0),
        ("zip", packed::zip(&[("a", &text)], Zip::Plain), 1),
        ("descriptors", packed::zip(&[("a", &text)], Zip::Descriptors), 1),
    ] {
        let opened = check(name, &bytes, None).unwrap();
        let frame = &opened.streams[0].bytes;
        // In the directory of a zip archive it stays.
        assert_eq!(frame.windows(4).filter(|w| **w == crc.to_le_bytes()).count(), times, "{name}");
    }
}

#[test]
fn what_does_not_open_is_declined() {
    let mut dice = Dice::new(8);
    let noise: Vec<u8> = (0..100_000).map(|_| dice.next() as u8).collect();
    assert_eq!(check("nothing", b"", None), Err(Declined::NothingFound));
    assert!(check("noise", &noise, None).is_err());
    assert!(check("text", &packed::prose(&mut dice, 50_000), None).is_err());
    let text = packed::prose(&mut dice, 50_000);
    assert!(check("encrypted", &packed::zip(&[("a", &text)], Zip::Encrypted), None).is_err());
    // Four components, arithmetic coding, twelve bits.
    for (at, value) in [(9, 4), (1, 0xc9), (4, 12)] {
        let mut picture = packed::JPEG.to_vec();
        let frame = picture.windows(2).position(|w| w == b"\xff\xc0").unwrap();
        picture[frame + at] = value;
        assert!(check("jpeg", &picture, None).is_err());
    }
    // Said of the head alone, behind which nothing else is tried.
    let frame = packed::JPEG.windows(2).position(|w| w == b"\xff\xc0").unwrap();
    let mut head = packed::JPEG[..frame + 30].to_vec();
    head[frame + 9] = 4;
    assert_eq!(check("four colours", &head, None), Err(Declined::FourColours));
}

/// Cut off, with bytes changed, left out and put in: exact or declined.
#[test]
fn damaged_containers_are_exact_or_declined() {
    let mut dice = Dice::new(21);
    let (mut exact, mut declined) = (0, 0);
    let deep = packed::png(&mut dice, 80, 90, packed::Png::Deep);
    for (name, bytes) in every_kind().into_iter().chain([("png of 16 bits", deep)]) {
        for _ in 0..12 {
            let mut bad = bytes.clone();
            match dice.roll(4) {
                0 => bad.truncate(dice.roll(bytes.len() as u64) as usize),
                1 => (0..=dice.roll(3)).for_each(|_| bad[dice.roll(bytes.len() as u64) as usize] ^= 1 << dice.roll(8)),
                2 => drop(bad.drain(dice.roll(bytes.len() as u64) as usize..).take(20).count()),
                _ => {
                    let at = dice.roll(bytes.len() as u64) as usize;
                    bad.splice(at..at, (0..30).map(|_| dice.next() as u8));
                }
            }
            match check(name, &bad, None) {
                Ok(_) => exact += 1,
                Err(_) => declined += 1,
            }
        }
    }
    println!("{exact} exact, {declined} declined");
    assert!(exact > 50);
}

/// Any recipe with any streams closes to an error or to bytes.
#[test]
fn damaged_recipes_and_streams_close_to_errors_or_bytes() {
    let mut dice = Dice::new(22);
    let mut errors = 0;
    for (name, bytes) in every_kind() {
        let opened = check(name, &bytes, None).unwrap();
        for _ in 0..25 {
            let mut bad = opened.clone();
            let stream = dice.roll(bad.streams.len() as u64) as usize;
            let target = match dice.roll(3) {
                0 => &mut bad.recipe,
                1 => &mut bad.streams[2].bytes,
                _ => &mut bad.streams[stream].bytes,
            };
            if !target.is_empty() {
                let at = dice.roll(target.len() as u64) as usize;
                match dice.roll(3) {
                    0 => target.truncate(at),
                    1 => target[at] = dice.next() as u8,
                    _ => target[at..].iter_mut().for_each(|b| *b = dice.next() as u8),
                }
            }
            match containers::close(&bad.recipe, &bad.streams, bytes.len(), LIMITS.text_bytes) {
                Ok(other) => assert_eq!(other.len(), bytes.len()),
                Err(e) => errors += usize::from(!e.to_string().is_empty()),
            }
        }
    }
    assert!(errors > 150, "{errors}");
}

/// What expands without end stays as it is, and so does what is nested without end.
#[test]
fn bombs_are_left_alone() {
    let zeros = vec![0u8; 64 << 20];
    let bomb = packed::zip(&[("zeros", &zeros)], Zip::Plain);
    let started = Instant::now();
    let opened = check("bomb", &bomb, None);
    let text = opened.map_or(0, |o| o.streams.iter().map(|s| s.bytes.len()).sum());
    assert!(text < 4 << 20 && started.elapsed().as_secs() < 20, "{text} bytes");
    // A row of heads of streams, each to be looked at.
    let heads = b"stream\nx\x9c\xed\xbd".repeat(30_000);
    assert!(check("heads", &heads, None).is_err() && started.elapsed().as_secs() < 30);
    let mut nested = packed::prose(&mut Dice::new(3), 5_000);
    for _ in 0..3 * DEPTH_MAX {
        nested = packed::zip(&[("inner.zip", &nested)], Zip::Plain);
    }
    check("nested", &nested, None).unwrap();
}

/// Rows of heads, each of which asks for all that is behind it to be looked at: the work is bounded, for cutting as for opening.
#[test]
fn heads_without_end_are_given_up() {
    let mut frame = b"\xff\xd8\xff\xc0\0\x11\x08\0\x40\0\x40\x03\x01\x22\0\x02\x11\x01\x03\x11\x01".to_vec();
    frame.extend_from_slice(b"\xff\xda\0\x02");
    let mut chunk = b"\x89PNG\r\n\x1a\n\0\x08\0\0tEXt".to_vec();
    chunk.extend_from_slice(&[b'x'; 20]);
    let stored = b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x00\x01\xff\xfe";
    let heads: [(&str, Vec<u8>); 4] = [
        ("pictures", frame.repeat((1 << 20) / frame.len())),
        ("chunks", chunk.repeat((1 << 20) / chunk.len())),
        ("names", b"\x1f\x8b\x08\x08\x01\x01\x01\x01\x01\x01".repeat(100_000)),
        ("stored", stored.repeat((1 << 20) / stored.len())),
    ];
    let started = Instant::now();
    for (name, bytes) in heads {
        assert!(check(name, &bytes, None).is_err(), "{name}");
        let cut = containers::cut(&bytes, None, CutLimits { min: 64 << 10, text_bytes: 1 << 20 }, false);
        println!("{name}: {:.1} s, {} bytes", started.elapsed().as_secs_f64(), cut.len);
        assert!(cut.len >= 64 << 10 && cut.len <= bytes.len() && started.elapsed().as_secs() < 60, "{name}");
    }
}

/// What closing is asked for is bounded too, whatever a store says: corrections that never end, pictures larger than any.
#[test]
fn closing_ends_whatever_it_is_given() {
    let text = packed::prose(&mut Dice::new(5), 60_000);
    let opened = check("gzip", &packed::gzip(&text, 6), None).unwrap();
    let started = Instant::now();
    for fill in [0u8, 255, 0x55] {
        let mut bad = opened.clone();
        bad.streams[2].bytes.fill(fill);
        assert!(containers::close(&bad.recipe, &bad.streams, 30_000, LIMITS.text_bytes).is_err());
    }
    // The same head, and a row of scans of nothing.
    let mut picture = packed::JPEG.to_vec();
    let at = picture.windows(2).position(|w| w == b"\xff\xda").unwrap();
    let head = picture[at..at + 14].to_vec();
    picture.splice(at..at, head.repeat(100));
    assert!(check("scans", &picture, None).is_err());
    assert!(started.elapsed().as_secs() < 60);
}

/// A stream that began before: it opens from a block on where what was before is known, at any bit.
#[test]
fn slices_of_a_stream_open_from_a_block_on() {
    let mut dice = Dice::new(6);
    let text = packed::prose(&mut dice, 1_800_000);
    let stream = packed::deflated(&text, 6);
    let (mut at, mut done, mut before) = (0, 0, StreamBefore::default());
    let mut bits = [false; 8];
    while at < stream.len() {
        let walk = containers::walk(&before, &stream[at..], 200_000).unwrap();
        assert!(walk.consumed > 0, "one block is more than the limit");
        let end = at + walk.consumed;
        // A checksum comes behind the last.
        let slice = if walk.end == containers::End::Done {
            [&stream[at..end], &[0xff; 8]].concat()
        } else {
            stream[at..end].to_vec()
        };
        let opened = check("slice", &slice, Some(&Before::Stream(before.clone()))).unwrap();
        assert!(opened.opened_bytes + 3 > walk.consumed, "{} of {}", opened.opened_bytes, walk.consumed);
        let found = opened.streams.iter().find(|s| s.kind == Kind::Text).unwrap();
        let window = before.window.len();
        assert!(found.bytes[..window] == text[done - window..done] && found.bytes.len() > window + 10_000);
        bits[usize::from(before.bits)] = true;
        (at, done, before) = (end, done + walk.text_bytes, walk.before);
        assert!((walk.end == containers::End::Done) == (at == stream.len()));
    }
    assert_eq!(done, text.len());
    assert!(bits.iter().filter(|met| **met).count() > 3, "{bits:?}");
    // With another window it is other bytes, or does not open.
    let other = Before::Stream(StreamBefore { window: vec![7; 1000], bits: 3, lead: 5 });
    check("other", &stream[..200_000], Some(&other)).ok();
}

/// Blocks that have far more text than a segment may have stay closed; the stream behind them opens again.
#[test]
fn a_stream_opens_again_behind_what_is_too_much() {
    let mut dice = Dice::new(16);
    let limits = CutLimits { min: 64 << 10, text_bytes: 300_000 };
    for parts in [[600_000, 30_000_000, 600_000], [0, 20_000_000, 900_000], [700_000, 5_000_000, 0]] {
        let [front, zeros, back] = parts;
        let text = [packed::prose(&mut dice, front), vec![0; zeros], packed::prose(&mut dice, back)].concat();
        let file = packed::gzip(&text, 6);
        let (mut at, mut before, mut opened_bytes) = (0, None, 0);
        while at < file.len() {
            let rest = &file[at..file.len().min(at + (1 << 20))];
            let all = at + rest.len() == file.len();
            let cut = containers::cut(rest, before.as_ref(), limits, all);
            assert!(cut.len > 0 && cut.len <= rest.len());
            let opened = containers::open(&rest[..cut.len], before.as_ref(), Limits { text_bytes: limits.text_bytes });
            if let Ok(opened) = opened {
                let closed = containers::close(&opened.recipe, &opened.streams, cut.len, limits.text_bytes).unwrap();
                assert!(closed == rest[..cut.len]);
                opened_bytes += opened.opened_bytes;
            }
            (at, before) = (at + cut.len, cut.before);
        }
        let closed = file.len() - opened_bytes;
        println!("{parts:?}: {closed} of {} bytes stay closed", file.len());
        // The zeros, and the blocks that they begin and end in.
        assert!(closed < zeros / 1000 + (96 << 10), "{parts:?}: {closed} of {}", file.len());
    }
}

/// A picture longer than a segment is cut behind whole rows of blocks, at any bit, and with restart markers where their numbers
/// begin anew; each part opens by itself.
#[test]
fn slices_of_a_picture_open_by_themselves() {
    for (name, picture, looked_at, parts_min) in
        [("picture", packed::FIGURE, 12_000, 3), ("picture with restarts", packed::RESTARTS, 16_000, 2)]
    {
        let (mut at, mut before, mut opened_bytes, mut parts) = (0, None, 0, 0);
        while at < picture.len() {
            let rest = &picture[at..];
            let looked_at = looked_at.min(rest.len());
            let limits = CutLimits { min: 100, text_bytes: 1 << 20 };
            let cut = containers::cut(&rest[..looked_at], before.as_ref(), limits, looked_at == rest.len());
            // What is very short takes more than it saves.
            let opened = check(name, &rest[..cut.len], before.as_ref());
            (at, before) = (at + cut.len, cut.before);
            parts += 1;
            let opened = match opened {
                Err(_) if cut.len < 1000 => continue,
                opened => opened.unwrap_or_else(|why| panic!("{name}: {why:?}")),
            };
            let lepton = opened.streams.iter().filter(|s| s.kind == Kind::Lepton).map(|s| s.bytes.len()).sum::<usize>();
            println!("{name}: {} opened of {}, {lepton} as lepton codes it", opened.opened_bytes, cut.len);
            opened_bytes += opened.opened_bytes;
        }
        assert!(parts >= parts_min && opened_bytes * 10 > picture.len() * 8, "{name}: {opened_bytes} in {parts}");
        // With another's bits, or in another place, it is other bytes, or does not open.
        for from in [10, 700, 1500] {
            let limits = CutLimits { min: 100, text_bytes: 1 << 20 };
            let other = containers::cut(&picture[..looked_at], None, limits, false).before;
            check(name, &picture[from..], other.as_ref()).ok();
        }
    }
}

/// A picture of more pixels than there is room for is cut between the blocks of its stream, wherever in chunks and rows that is.
#[test]
fn slices_of_pixels_open_by_themselves() {
    let mut dice = Dice::new(53);
    for (name, how) in
        [("png", packed::Png::Plain), ("wrong", packed::Png::WrongCrc), ("woven", packed::Png::Interlaced)]
    {
        let picture = packed::png_dotted(&mut dice, 500, 900, how, 15);
        let limits = CutLimits { min: 100, text_bytes: 100_000 };
        let (mut at, mut before, mut opened_bytes, mut parts, mut pixels) = (0, None, 0, 0, 0);
        while at < picture.len() {
            let rest = &picture[at..];
            let looked_at = rest.len().min(60_000);
            let cut = containers::cut(&rest[..looked_at], before.as_ref(), limits, looked_at == rest.len());
            let opened = check(name, &rest[..cut.len], before.as_ref());
            // Damaged, it is exact or declined.
            let mut bad = rest[..cut.len].to_vec();
            bad[dice.roll(cut.len as u64) as usize] ^= 1 << dice.roll(8);
            check(name, &bad, before.as_ref()).ok();
            (at, before, parts) = (at + cut.len, cut.before, parts + 1);
            let Ok(opened) = opened else {
                assert!(cut.len < 1000, "{name}: {} bytes do not open", cut.len);
                continue;
            };
            let rows = opened.streams.iter().filter(|s| matches!(s.kind, Kind::Pixels { row: 1501, pixel: 3 }));
            pixels += rows.map(|s| s.bytes.len()).sum::<usize>();
            opened_bytes += opened.opened_bytes;
        }
        println!("{name}: {opened_bytes} of {} in {parts} parts, {pixels} of pixels", picture.len());
        assert!(parts >= 5 && opened_bytes * 20 > picture.len() * 19, "{name}");
        // What slices may repeat is in them again.
        assert_eq!(pixels > 1_350_000, how != packed::Png::Interlaced, "{name}: {pixels}");
        // With what another cut left it is other bytes, or does not open.
        let first = containers::cut(&picture[..60_000.min(picture.len())], None, limits, false);
        for from in [first.len + 1, first.len / 2, 40] {
            check(name, &picture[from..], first.before.as_ref()).ok();
        }
        // Pixels are what they are: the first rows are those of the whole.
        if how == packed::Png::Plain {
            let whole = containers::open(&picture, None, LIMITS).unwrap();
            let all = &whole.streams.iter().find(|s| matches!(s.kind, Kind::Pixels { .. })).unwrap().bytes;
            let second = containers::cut(&picture[first.len..][..60_000], first.before.as_ref(), limits, false);
            let opened = check(name, &picture[first.len..][..second.len], first.before.as_ref()).unwrap();
            let part = &opened.streams.iter().find(|s| matches!(s.kind, Kind::Pixels { .. })).unwrap().bytes;
            assert!(
                all.chunks(1500).any(|row| row == &part[..1500]) && all.windows(9000).any(|w| w == &part[1500..10_500])
            );
        }
    }
}

/// Members of plain containers stand alone, wherever bytes begin and end.
#[test]
fn members_are_found_in_any_part_of_a_container() {
    let mut dice = Dice::new(51);
    let noise: Vec<u8> = (0..9000).map(|_| dice.next() as u8).collect();
    let texts: Vec<(String, Vec<u8>)> = (0..40)
        .map(|n| (format!("file-{n}.txt"), packed::prose(&mut dice, 1000 + 97 * n)))
        .chain([("empty".into(), Vec::new()), ("noise".into(), noise)])
        .collect();
    let members: Vec<(&str, &[u8])> = texts.iter().map(|(name, text)| (name.as_str(), &text[..])).collect();
    for (name, bytes) in
        [("tar", packed::tar(&members)), ("cpio", packed::cpio(&members)), ("ar", packed::ar(&members))]
    {
        for part in [0..bytes.len(), 777..bytes.len(), 0..bytes.len() - 20_000, 31_111..70_003] {
            let opened = check(name, &bytes[part.clone()], None).unwrap();
            let whole = |text: &[u8]| opened.streams.iter().any(|s| s.kind == Kind::Text && s.bytes == text);
            let found = texts.iter().filter(|(_, text)| whole(text)).count();
            println!("{name} {part:?}: {found} members in {} streams", opened.streams.len());
            let there = texts.iter().filter(|(_, text)| {
                text.len() > 900 && text.len() < 9000 && bytes[part.clone()].windows(text.len()).any(|w| w == text)
            });
            let there = there.count();
            assert!(found + 1 >= there && there > 8, "{name} {part:?}: {found} of {there}");
            // Heads take a part of what they are long.
            let heads = opened.streams[0].bytes.len() + opened.recipe.len();
            assert!(heads < 80 * (found + 2) + 2000, "{name} {part:?}: {heads} bytes");
        }
    }
}

/// Letters are opened in the middle too, with any line ends, and what is in them.
#[test]
fn base64_is_opened_with_what_is_in_it() {
    let mut dice = Dice::new(52);
    let text = packed::prose(&mut dice, 60_000);
    let inner = packed::gzip(&text, 6);
    let forms = [(76, "\r\n"), (76, "\n"), (64, "\n"), (0, ""), (76, "\\n")];
    for (line, end) in forms {
        let letters = packed::base64(&inner, line, end);
        let bytes = [b"{\"body\": \"".to_vec(), letters, b"\", \"and\": [1, 2, 3]}\r\n".to_vec()].concat();
        assert!(containers::holds_base64(&bytes, 2));
        let opened = check("letters", &bytes, None).unwrap();
        assert!(opened.streams.iter().any(|s| s.kind == Kind::Text && s.bytes == text), "{line} {end:?}");
        for from in [1000, 1001, 1039, 1077] {
            let opened = check("cut off", &bytes[from..bytes.len() - from], None).unwrap();
            assert!(opened.opened_bytes * 10 > (bytes.len() - 2 * from) * 9, "{line} {end:?} {from}");
        }
    }
    // A key stays as it is.
    let key = packed::base64(&inner[..400], 64, "\n");
    assert!(!containers::holds_base64(&key, 16) && check("key", &key, None).is_err());
}

fn opened() -> &'static dyn Model {
    tersefs::models::model(MethodId::Opened)
}

#[test]
fn what_is_in_containers_is_coded_by_the_other_methods() {
    for (name, bytes) in every_kind() {
        let coded = opened().encode(&bytes, tersefs::codec::classify(&bytes), Basis::default());
        let Ok(coded) = coded else {
            assert!(bytes.len() < 1000, "{name}");
            continue;
        };
        println!("{name}: {} of {}", coded.payload.len(), bytes.len());
        // Of a small one most is what closing needs.
        let percent = if bytes.len() > 2000 { 92 } else { 100 };
        assert!(
            coded.payload.len() * 100 < bytes.len() * percent,
            "{name}: {} of {}",
            coded.payload.len(),
            bytes.len()
        );
        let plain = opened().decode(&coded.payload, bytes.len(), 1, ModelId::NONE, Basis::default());
        assert!(plain.as_deref() == Ok(&bytes[..]), "{name}");
    }
}

/// Writes what `golden/opened-1` holds, where it is asked for: once for a revision.
#[test]
fn golden_payloads_are_made() {
    let mut dice = Dice::new(41);
    let text = packed::prose(&mut dice, 5000);
    let inner = packed::zip(&[("a", &text[..3000]), ("b", &text[2000..])], Zip::Plain);
    let stream = packed::deflated(&packed::prose(&mut dice, 300_000), 6);
    let walks = (100_000..200_000)
        .step_by(20_000)
        .map(|room| containers::walk(&StreamBefore::default(), &stream, room).unwrap());
    let walk = walks.into_iter().find(|walk| walk.before.bits > 0).unwrap();
    let next = containers::walk(&walk.before, &stream[walk.consumed..], 140_000).unwrap();
    let before = Before::Stream(walk.before);
    let limits = CutLimits { min: 100, text_bytes: 1 << 20 };
    let first = containers::cut(&packed::FIGURE[..12_000], None, limits, false);
    let picture = first.before.unwrap();
    let second = containers::cut(&packed::FIGURE[first.len..][..12_000], Some(&picture), limits, false);
    let figure = (picture, first.len, second.len);
    let raws = [
        (None, [packed::gzip(&text, 6), packed::gzip(&text[..900], 9)].concat()),
        (None, packed::zlib(&text, 1)),
        (None, inner.clone()),
        (None, packed::zip(&[("a", &text)], Zip::Descriptors)),
        (None, packed::zip(&[("inner.zip", &inner)], Zip::Stored)),
        (None, packed::png(&mut dice, 150, 70, packed::Png::Plain)),
        (None, packed::png(&mut dice, 180, 90, packed::Png::WrongCrc)),
        (None, packed::pdf(&mut dice, 6)),
        (None, packed::JPEG.to_vec()),
        (Some(&figure.0), packed::FIGURE[figure.1..][..figure.2].to_vec()),
        (Some(&before), stream[walk.consumed..walk.consumed + next.consumed].to_vec()),
    ];
    let mut out = Vec::new();
    for (before, raw) in raws {
        let coded = opened().encode(&raw, Class::Container, Basis { before, ..Basis::default() });
        let coded = coded.unwrap_or_else(|why| panic!("{} bytes: {why:?}", raw.len()));
        let plain = opened().decode(&coded.payload, raw.len(), 1, ModelId::NONE, Basis::default());
        assert!(plain.as_deref() == Ok(&raw[..]));
        packed::put_golden(&raw, &coded.payload, &mut out);
    }
    packed::keep_golden("TERSEFS_GOLDEN_OPENED", &out);
}

/// Writes what `golden/opened-2-members` holds, where it is asked for: once for a revision.
#[test]
fn golden_payloads_of_members_are_made() {
    let mut dice = Dice::new(42);
    let [a, b] = [6000, 2500].map(|len| packed::prose(&mut dice, len));
    let inner = packed::gzip(&a[..3000], 6);
    let members: [(&str, &[u8]); 4] = [("a.txt", &a), ("b/c.txt", &b), ("none", b""), ("inner.gz", &inner)];
    let tar = packed::tar(&members);
    // A slice from the midst of a picture.
    let picture = packed::png_dotted(&mut dice, 300, 500, packed::Png::Plain, 15);
    let limits = CutLimits { min: 100, text_bytes: 60_000 };
    let first = containers::cut(&picture, None, limits, false);
    let second = containers::cut(&picture[first.len..], first.before.as_ref(), limits, false);
    let raws = [
        (None, tar.clone()),
        (None, tar[..7000].to_vec()),
        (None, packed::gzip(&tar, 6)),
        (None, packed::cpio(&members)),
        (None, packed::ar(&members)),
        (None, packed::mail(&members)),
        (None, [b"{\"body\": \"".to_vec(), packed::base64(&a, 0, ""), b"\"}".to_vec()].concat()),
        (first.before.as_ref(), picture[first.len..][..second.len].to_vec()),
    ];
    let mut out = Vec::new();
    for (before, raw) in raws {
        let coded = opened().encode(&raw, Class::Container, Basis { before, ..Basis::default() });
        let coded = coded.unwrap_or_else(|why| panic!("{} bytes: {why:?}", raw.len()));
        let plain = opened().decode(&coded.payload, raw.len(), 1, ModelId::NONE, Basis::default());
        assert!(plain.as_deref() == Ok(&raw[..]));
        packed::put_golden(&raw, &coded.payload, &mut out);
    }
    packed::keep_golden("TERSEFS_GOLDEN_MEMBERS", &out);
}

/// Damage that the checksum does not see, as it was put right: an error or bytes.
#[test]
fn forged_payloads_give_errors_or_bytes() {
    let mut dice = Dice::new(31);
    for (name, bytes) in every_kind().into_iter().step_by(4) {
        let payload = opened().encode(&bytes, tersefs::codec::classify(&bytes), Basis::default()).unwrap().payload;
        for n in 0..16 {
            let mut bad = payload.clone();
            // The head most of all.
            let reach = if n % 2 == 0 { 60 } else { bad.len() as u64 - 4 };
            let at = 4 + dice.roll(reach.min(bad.len() as u64 - 4)) as usize;
            bad[at] = dice.next() as u8;
            let crc = crc32c(&bad[4..]);
            bad[..4].copy_from_slice(&crc.to_le_bytes());
            if let Ok(plain) = opened().decode(&bad, bytes.len(), 1, ModelId::NONE, Basis::default()) {
                assert_eq!(plain.len(), bytes.len(), "{name}");
            }
        }
    }
}

/// Files of a directory, as they are and with damage: exact or declined, in time and memory that are bounded. Prints what was
/// opened of each kind, and the slowest.
///
/// `TERSEFS_FILES=DIR cargo test --release --test t2_containers -- --ignored --nocapture real_files`
#[test]
#[ignore = "needs a directory of files"]
fn real_files_are_exact_or_declined() {
    let root = std::env::var("TERSEFS_FILES").expect("TERSEFS_FILES names a directory");
    let mut waiting = vec![std::path::PathBuf::from(root)];
    let mut dice = Dice::new(99);
    let limits = CutLimits { min: 64 << 10, text_bytes: 1 << 20 };
    let mut kinds: std::collections::BTreeMap<String, [usize; 6]> = std::collections::BTreeMap::new();
    let mut slowest = (0.0, 0.0, String::new());
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let name = path.display().to_string();
        let kind = path.parent().and_then(|p| p.file_name()).unwrap_or_default().display().to_string();
        for damaged in 0..4 {
            let mut bytes = bytes.clone();
            if damaged > 0 && !bytes.is_empty() {
                let at = dice.roll(bytes.len() as u64) as usize;
                match damaged {
                    1 => bytes[at] ^= 1 << dice.roll(8),
                    2 => bytes.truncate(at),
                    _ => drop(bytes.splice(at..at, (0..100).map(|_| dice.next() as u8).collect::<Vec<_>>())),
                }
            }
            let (mut at, mut before) = (0, None);
            let mut counts = [usize::from(damaged == 0), bytes.len(), 0, 0, 0, 0];
            while at < bytes.len() {
                let rest = &bytes[at..];
                let looked_at = rest.len().min(1 << 20);
                let cut = containers::cut(&rest[..looked_at], before.as_ref(), limits, looked_at == rest.len());
                let started = Instant::now();
                if let Ok(opened) = containers::open(&rest[..cut.len], before.as_ref(), LIMITS) {
                    let opening = started.elapsed().as_secs_f64();
                    let text = LIMITS.text_bytes;
                    let again = containers::close(&opened.recipe, &opened.streams, cut.len, text);
                    let closing = started.elapsed().as_secs_f64() - opening;
                    assert!(again.as_deref() == Ok(&rest[..cut.len]), "{name} {damaged}: {:?}", again.err());
                    if opening + closing > slowest.0 + slowest.1 {
                        slowest = (opening, closing, format!("{name} {damaged}"));
                    }
                    counts[2] += opened.opened_bytes;
                    counts[3] += opened.recipe.len() + opened.streams[..3].iter().map(|s| s.bytes.len()).sum::<usize>();
                    counts[4] += opened.streams[2].bytes.len();
                    counts[5] += opened.streams[3..].iter().map(|s| s.bytes.len()).sum::<usize>();
                    if std::env::var("TERSEFS_EACH").is_ok() && damaged == 0 {
                        println!("{name}: {at}+{} {counts:?}", cut.len);
                    }
                }
                (at, before) = (at + cut.len, cut.before);
            }
            if damaged == 0 {
                let sums = kinds.entry(kind.clone()).or_default();
                sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
            }
        }
    }
    println!(
        "kind: files, bytes, of them opened; bytes of recipe, frame, packed and corrections, of corrections alone, of text"
    );
    kinds.iter().for_each(|(kind, counts)| println!("{kind}: {counts:?}"));
    println!("slowest: {:.2} s to open, {:.2} s to close: {}", slowest.0, slowest.1, slowest.2);
}
