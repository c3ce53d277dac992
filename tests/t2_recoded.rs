//! Streams that their encoder makes again: blocks of bzip2, and deflate by zlib-rs. What opens closes bit for bit, whatever is done
//! to it.

mod common;

use std::io::Write;

use common::{Dice, packed};
use tersefs::base::{Class, MethodId, ModelId};
use tersefs::containers::{self, CutLimits, Declined, Kind, Limits, Opened};
use tersefs::models::Basis;

const LIMITS: Limits = Limits { text_bytes: 2 << 20 };
/// Prose of these tests, by bzip2 1.0.8.
const NOTES: &[u8] = include_bytes!("containers/notes.bz2");
/// A crate that was packed by a version of zlib-rs that ends streams in other bytes.
const CRATE: &[u8] = include_bytes!("containers/constant_time_eq.crate");

fn bzip2(text: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(level));
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn gzip(text: &[u8], level: i32) -> Vec<u8> {
    let mut encoder = zlib_rs::Deflate::new(level, false, 15);
    let mut out = vec![0; text.len() + 1000];
    let status = encoder.compress(text, &mut out, zlib_rs::DeflateFlush::Finish).unwrap();
    assert_eq!(status, zlib_rs::Status::StreamEnd);
    out.truncate(encoder.total_out() as usize);
    let tail = [crc32fast::hash(text).to_le_bytes(), (text.len() as u32).to_le_bytes()].concat();
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255], &out[..], &tail].concat()
}

/// Opens; what opens has to close.
fn check(name: &str, bytes: &[u8]) -> Result<Opened, Declined> {
    let opened = containers::open(bytes, None, LIMITS)?;
    let again = containers::close(&opened.recipe, &opened.streams, bytes.len(), LIMITS.text_bytes);
    assert!(again.as_deref() == Ok(bytes), "{name}: {:?}", again.err());
    Ok(opened)
}

fn texts(opened: &Opened) -> Vec<u8> {
    opened.streams.iter().filter(|s| s.kind == Kind::Text).flat_map(|s| s.bytes.clone()).collect()
}

/// Bytes kept beside texts.
fn beside(opened: &Opened) -> usize {
    opened.recipe.len() + opened.streams[..3].iter().map(|s| s.bytes.len()).sum::<usize>()
}

#[test]
fn bzip2_opens_to_its_text() {
    let mut dice = Dice::new(1);
    for (level, len) in [(1, 250_000), (1, 40), (2, 199_000), (5, 30_000), (9, 1_100_000)] {
        let text = packed::prose(&mut dice, len);
        let file = bzip2(&text, level);
        let opened = check("bzip2", &file).unwrap();
        assert!(texts(&opened) == text && beside(&opened) < 64, "level {level}: {}", beside(&opened));
    }
    // Runs, which are told of by their lengths before all else, also where a block ends.
    let mut runs = Vec::new();
    while runs.len() < 300_000 {
        let len = if dice.roll(40) == 0 { 250 + dice.roll(300) } else { 1 + dice.roll(9) };
        runs.resize(runs.len() + len as usize, b'a' + dice.roll(26) as u8);
    }
    assert!(texts(&check("runs", &bzip2(&runs, 1)).unwrap()) == runs);
    let opened = check("of a program", NOTES).unwrap();
    assert_eq!((texts(&opened).len(), opened.opened_bytes + 14), (400_000, NOTES.len()));
}

#[test]
fn several_streams_and_what_is_behind_them() {
    let mut dice = Dice::new(2);
    let (a, b) = (packed::prose(&mut dice, 120_000), packed::prose(&mut dice, 30_000));
    let row = [bzip2(&a, 1), bzip2(&b, 9), b"and something else".to_vec()].concat();
    assert!(texts(&check("row", &row).unwrap()) == [&a[..], &b].concat());
    // In an archive, and an archive in it.
    let zip = packed::zip(&[("a.bz2", &bzip2(&a, 9)), ("b", &b)], packed::Zip::Stored);
    assert!(texts(&check("zip", &zip).unwrap()).starts_with(&a));
    let inner = bzip2(&packed::zip(&[("a", &a), ("b", &b)], packed::Zip::Plain), 9);
    assert!(texts(&check("bzip2 of a zip", &inner).unwrap()).starts_with(&a));
    // The sum of the checksums is no part of a block, and that of a block is.
    let mut sum = bzip2(&a, 1);
    let last = sum.len() - 3;
    sum[last] ^= 8;
    assert!(texts(&check("sum", &sum).unwrap()) == a);
    let mut block = bzip2(&b, 1);
    block[11] ^= 8;
    assert!(check("block", &block).is_err());
}

#[test]
fn long_files_are_cut_between_blocks_and_each_part_opens() {
    let text = packed::prose(&mut Dice::new(3), 1_500_000);
    let file = bzip2(&text, 1);
    let (mut at, mut parts, mut found, mut lacks) = (0, 0, Vec::new(), [0; 8]);
    while at < file.len() {
        let rest = &file[at..];
        let looked_at = rest.len().min(160_000);
        let limits = CutLimits { min: 4_000, text_bytes: 250_000 };
        let cut = containers::cut(&rest[..looked_at], None, limits, looked_at == rest.len());
        assert!(cut.before.is_none() && cut.len > 0);
        let opened = check("part", &rest[..cut.len]).unwrap();
        let own = texts(&opened);
        assert!(own.len() <= 250_000 && !own.is_empty());
        found.extend_from_slice(&own);
        // How much of the block's magic is there.
        let first = u64::from_be_bytes(rest[..8].try_into().unwrap()) >> 16;
        let lack = (0..8).find(|n| first >> n == 0x3141_5926_5359 & (u64::MAX >> (16 + n)));
        lacks[lack.unwrap_or(0)] += 1;
        (at, parts) = (at + cut.len, parts + 1);
    }
    println!("{parts} parts; bits that lie before: {lacks:?}");
    assert!(found == text && parts >= 6 && lacks.iter().filter(|n| **n > 0).count() > 2);
}

#[test]
fn damage_stays_as_it_is_and_bombs_are_left_alone() {
    let mut dice = Dice::new(4);
    let files = [bzip2(&packed::prose(&mut dice, 250_000), 1), gzip(&packed::prose(&mut dice, 60_000), 9)];
    let (mut exact, mut declined) = (0, 0);
    for n in 0..60 {
        let mut bad = files[n % 2].clone();
        let at = dice.roll(bad.len() as u64) as usize;
        match dice.roll(4) {
            0 => bad.truncate(at),
            1 => bad[at] ^= 1 << dice.roll(8),
            2 => drop(bad.drain(at..(at + 20).min(files[n % 2].len()))),
            _ => drop(bad.splice(at..at, (0..30).map(|_| dice.next() as u8))),
        }
        match check("damaged", &bad) {
            Ok(_) => exact += 1,
            Err(_) => declined += 1,
        }
    }
    println!("{exact} exact, {declined} declined");
    assert!(exact > 15 && declined > 2);
    let started = std::time::Instant::now();
    let bomb = bzip2(&vec![0; 40 << 20], 9);
    assert!(check("bomb", &bomb).is_err());
    let heads = [&bzip2(b"x", 9)[..14], b"some more"].concat().repeat(40_000);
    check("heads", &heads).ok();
    containers::cut(&heads, None, CutLimits { min: 64 << 10, text_bytes: 1 << 20 }, false);
    assert!(started.elapsed().as_secs() < 60);
}

#[test]
fn streams_of_zlib_rs_need_nothing_but_their_level() {
    let mut dice = Dice::new(5);
    for level in 1..=9 {
        for len in [3_000, 400_000] {
            let text = packed::prose(&mut dice, len);
            let file = gzip(&text, level);
            let opened = check("gzip", &file).unwrap();
            assert!(texts(&opened) == text, "level {level}");
            println!("level {level}, {len} bytes: {} of corrections", opened.streams[2].bytes.len());
            assert!(opened.streams[2].bytes.len() < 40 + file.len() / 90, "level {level}");
        }
    }
    let text = packed::prose(&mut dice, 300_000);
    let whole = gzip(&text, 9);
    let opened = check("zlib-rs", &whole).unwrap();
    assert_eq!(opened.streams[2].bytes, [9]);
    // By an older version, which ends it otherwise.
    let opened = check("crate", CRATE).unwrap();
    assert!((2..20).contains(&opened.streams[2].bytes.len()), "{}", opened.streams[2].bytes.len());
    assert!(opened.opened_bytes * 100 > CRATE.len() * 98);
}

/// Whatever is said of them: an error or bytes.
#[test]
fn damaged_recipes_and_texts_close_to_errors_or_bytes() {
    let mut dice = Dice::new(6);
    let text = packed::prose(&mut dice, 210_000);
    let mut errors = 0;
    for file in [bzip2(&text, 1), gzip(&text, 9), CRATE.to_vec()] {
        let opened = check("whole", &file).unwrap();
        for n in 0..30 {
            let mut bad = opened.clone();
            let last = bad.streams.len() - 1;
            let target = match n % 3 {
                0 => &mut bad.recipe,
                1 => &mut bad.streams[if n % 2 == 0 { 2 } else { 0 }].bytes,
                _ => &mut bad.streams[last].bytes,
            };
            if !target.is_empty() {
                let at = dice.roll(target.len() as u64) as usize;
                match dice.roll(3) {
                    0 => target.truncate(at),
                    1 => target[at] ^= 1 << dice.roll(8),
                    _ => target[at..].iter_mut().for_each(|b| *b = dice.next() as u8),
                }
            }
            match containers::close(&bad.recipe, &bad.streams, file.len(), LIMITS.text_bytes) {
                Ok(other) => assert_eq!(other.len(), file.len()),
                Err(e) => errors += usize::from(!e.to_string().is_empty()),
            }
        }
    }
    assert!(errors > 30, "{errors}");
}

/// Writes what `golden/opened-2-recoded` holds, where it is asked for: once for a revision.
#[test]
fn golden_payloads_are_made() {
    let mut dice = Dice::new(7);
    let text = packed::prose(&mut dice, 40_000);
    let two = bzip2(&packed::prose(&mut dice, 210_000), 1);
    let limits = CutLimits { min: 100, text_bytes: 110_000 };
    let first = containers::cut(&two, None, limits, false).len;
    let second = containers::cut(&two[first..], None, limits, false).len;
    let raws = [
        [bzip2(&text, 9), bzip2(&text[..5000], 1)].concat(),
        two[first..][..second].to_vec(),
        bzip2(&packed::zip(&[("a", &text)], packed::Zip::Plain), 3),
        gzip(&text, 9),
        CRATE.to_vec(),
    ];
    let model = tersefs::models::model(MethodId::Opened);
    let mut out = Vec::new();
    for raw in raws {
        let payload = model.encode(&raw, Class::Container, Basis::default()).unwrap().payload;
        let plain = model.decode(&payload, raw.len(), 1, ModelId::NONE, Basis::default());
        assert!(plain.as_deref() == Ok(&raw[..]));
        println!("{} of {} bytes", payload.len(), raw.len());
        packed::put_golden(&raw, &payload, &mut out);
    }
    packed::keep_golden("TERSEFS_GOLDEN_RECODED", &out);
}
