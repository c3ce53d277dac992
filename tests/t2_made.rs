//! Frames of zstd and blocks of xz that their libraries make again. What opens closes bit for bit, whatever is done to it.

mod common;

use common::{Dice, packed};
use liblzma::stream::{Action, Check, Filters, LzmaOptions, PRESET_EXTREME, Status, Stream};
use tersefs::base::{Class, MethodId, ModelId};
use tersefs::containers::{self, CutLimits, Declined, Kind, Limits, Opened};
use tersefs::models::Basis;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, compress_bound, zstd_sys::ZSTD_EndDirective};

const LIMITS: Limits = Limits { text_bytes: 4 << 20 };
/// 60,000 bytes of prose in three blocks, by the threads of xz 5.4.1.
const BLOCKS: &[u8] = include_bytes!("containers/blocks.xz");

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

/// How a frame is made.
#[derive(Clone, Copy, Debug)]
struct How {
    level: i32,
    threads: u32,
    sum: bool,
    /// Its text is handed over all at once, or in pieces of so many bytes, of which it was said before how many come or not.
    pieces: Option<(usize, bool)>,
}

const AT_ONCE: How = How { level: 3, threads: 0, sum: true, pieces: None };

fn zstd(text: &[u8], how: How) -> Vec<u8> {
    let mut encoder = CCtx::create();
    let mut set = |parameter| encoder.set_parameter(parameter).unwrap();
    set(CParameter::CompressionLevel(how.level));
    set(CParameter::ChecksumFlag(how.sum));
    if how.threads > 0 {
        set(CParameter::NbWorkers(how.threads));
    }
    let mut out = Vec::with_capacity(compress_bound(text.len()) + 100);
    let Some((len, told)) = how.pieces else {
        encoder.compress2(&mut out, text).unwrap();
        return out;
    };
    if told {
        encoder.set_pledged_src_size(Some(text.len() as u64)).unwrap();
    }
    for piece in text.chunks(len) {
        let mut input = InBuffer::around(piece);
        while input.pos() < piece.len() {
            let at = out.len();
            let mut output = OutBuffer::around_pos(&mut out, at);
            encoder.compress_stream2(&mut output, &mut input, ZSTD_EndDirective::ZSTD_e_continue).unwrap();
        }
    }
    loop {
        let at = out.len();
        let mut output = OutBuffer::around_pos(&mut out, at);
        if encoder.end_stream(&mut output).unwrap() == 0 {
            return out;
        }
    }
}

#[test]
fn frames_of_every_level_open_to_their_text() {
    let mut dice = Dice::new(1);
    let text = packed::prose(&mut dice, 600_000);
    for level in (1..=22).chain([-1, -5]) {
        // The slow ones of little.
        let lens: &[usize] = if level < 16 { &[20, 9_000, 131_072, 600_000] } else { &[9_000, 150_000] };
        for len in lens {
            for (threads, pieces) in [(0, None), (0, Some((50_000, false))), (2, Some((131_072, true)))] {
                if level > 19 && matches!(pieces, Some((_, false))) {
                    continue;
                }
                let how = How { level, threads, sum: level % 2 == 0, pieces };
                let file = zstd(&text[..*len], how);
                let opened = check("zstd", &file).unwrap_or_else(|why| panic!("{how:?} {len}: {why:?}"));
                assert!(texts(&opened) == text[..*len], "{how:?} {len}");
                let beside = opened.recipe.len() + opened.streams[..3].iter().map(|s| s.bytes.len()).sum::<usize>();
                assert!(beside < 20, "{how:?} {len}: {beside}");
            }
        }
    }
}

/// Blocks that do not shrink, of one byte, and of parts that differ, where an encoder ends blocks earlier.
#[test]
fn frames_of_any_data_open() {
    let mut dice = Dice::new(2);
    let noise: Vec<u8> = (0..300_000).map(|_| dice.next() as u8).collect();
    let mixed: Vec<u8> = (0..40)
        .flat_map(|n| if n % 3 == 0 { noise[n * 100..][..17_000].to_vec() } else { packed::prose(&mut dice, 40_000) })
        .collect();
    let mut opened = 0;
    for (name, data) in [("zeros", vec![0; 300_000]), ("noise", noise), ("mixed", mixed), ("none", Vec::new())] {
        for threads in [0, 3] {
            for pieces in [None, Some((131_072, true)), Some((131_072, false))] {
                for level in [1, 3, 7, 16] {
                    let file = zstd(&data, How { level, threads, sum: true, pieces });
                    match check(name, &file) {
                        Ok(found) if name == "mixed" => assert!(found.opened_bytes == file.len()),
                        Ok(_) => {}
                        // What threads would take of it is more than is seen.
                        Err(why) if level < 16 || threads == 0 => {
                            assert!(name != "mixed", "{level} {threads} {pieces:?}: {why:?}");
                        }
                        Err(_) => {}
                    }
                    opened += 1;
                }
            }
        }
    }
    assert!(opened > 90);
}

#[test]
fn several_frames_are_cut_between_and_what_is_in_them_opens() {
    let mut dice = Dice::new(3);
    let members: Vec<(String, Vec<u8>)> =
        (0..9).map(|n| (format!("m{n}.txt"), packed::prose(&mut dice, 30_000))).collect();
    let members: Vec<(&str, &[u8])> = members.iter().map(|(name, text)| (name.as_str(), &text[..])).collect();
    let tar = packed::tar(&members);
    let opened = check("tar.zst", &zstd(&tar, AT_ONCE)).unwrap();
    assert!(members.iter().all(|(_, text)| opened.streams.iter().any(|s| s.bytes == *text)));
    // As pzstd and seekable files have them: each behind a frame that is skipped.
    let text = packed::prose(&mut dice, 900_000);
    let skipped = b"\x50\x2a\x4d\x18\x04\0\0\0\x12\x34\0\0";
    let file: Vec<u8> = text.chunks(100_000).flat_map(|t| [&skipped[..], &zstd(t, AT_ONCE)].concat()).collect();
    let (mut at, mut parts, mut found) = (0, 0, Vec::new());
    while at < file.len() {
        let rest = &file[at..];
        let looked_at = rest.len().min(150_000);
        let limits = CutLimits { min: 4_000, text_bytes: 250_000 };
        let cut = containers::cut(&rest[..looked_at], None, limits, looked_at == rest.len());
        let own = texts(&check("part", &rest[..cut.len]).unwrap());
        assert!(cut.before.is_none() && own.len() <= 250_000 && !own.is_empty());
        found.extend_from_slice(&own);
        (at, parts) = (at + cut.len, parts + 1);
    }
    assert!(found == text && parts >= 4, "{parts}");
}

fn encoded(mut encoder: Stream, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 8 + 1000);
    while encoder.process_vec(&text[encoder.total_in() as usize..], &mut out, Action::Finish).unwrap()
        != Status::StreamEnd
    {}
    out
}

fn xz(text: &[u8], preset: u32, check: Check) -> Vec<u8> {
    encoded(Stream::new_easy_encoder(preset, check).unwrap(), text)
}

#[test]
fn blocks_of_every_preset_open_to_their_text() {
    let mut dice = Dice::new(11);
    let text = packed::prose(&mut dice, 400_000);
    for preset in (0..=9).flat_map(|preset| [preset, preset | PRESET_EXTREME]) {
        for (len, check_of) in [(10, Check::Crc64), (30_001, Check::Crc32), (400_000, Check::Sha256)] {
            let file = xz(&text[..len], preset, check_of);
            let opened = check("xz", &file).unwrap_or_else(|why| panic!("{preset} {len}: {why:?}"));
            assert!(texts(&opened) == text[..len], "{preset} {len}");
            let beside = opened.recipe.len() + opened.streams[..3].iter().map(|s| s.bytes.len()).sum::<usize>();
            assert!(beside < 110, "{preset} {len}: {beside}");
        }
    }
    // A dictionary of no preset, what does not shrink, and nothing.
    let mut options = LzmaOptions::new_preset(6).unwrap();
    let mut filters = Filters::new();
    filters.lzma2(options.dict_size(96 << 10));
    let file = encoded(Stream::new_stream_encoder(&filters, Check::None).unwrap(), &text);
    assert!(texts(&check("dictionary", &file).unwrap()) == text);
    let mut mixed: Vec<u8> = (0..200_000).map(|_| dice.next() as u8).collect();
    mixed.extend_from_slice(&text);
    assert_eq!(check("mixed", &xz(&mixed, 6, Check::Crc64)).unwrap().streams[3].bytes.len(), mixed.len());
    assert!(check("nothing", &xz(b"", 6, Check::Crc64)).is_err());
    // A filter before it, and what no preset makes.
    let mut filters = Filters::new();
    filters.x86().lzma2(&LzmaOptions::new_preset(6).unwrap());
    let filtered = encoded(Stream::new_stream_encoder(&filters, Check::Crc64).unwrap(), &text);
    assert!(check("filtered", &filtered).is_err());
    let mut options = LzmaOptions::new_preset(6).unwrap();
    let mut filters = Filters::new();
    filters.lzma2(options.nice_len(17));
    let other = encoded(Stream::new_stream_encoder(&filters, Check::Crc64).unwrap(), &text);
    assert!(check("other", &other).is_err());
}

#[test]
fn several_blocks_of_xz_are_cut_between() {
    let opened = check("blocks", BLOCKS).unwrap();
    let text = texts(&opened);
    assert_eq!((text.len(), opened.streams.iter().filter(|s| s.kind == Kind::Text).count()), (60_000, 3));
    let limits = CutLimits { min: 1_000, text_bytes: 25_000 };
    let (mut at, mut parts, mut found) = (0, 0, Vec::new());
    while at < BLOCKS.len() {
        let rest = &BLOCKS[at..];
        let cut = containers::cut(rest, None, limits, true);
        if let Ok(opened) = check("part", &rest[..cut.len]) {
            found.extend_from_slice(&texts(&opened));
        }
        (at, parts) = (at + cut.len, parts + 1);
    }
    assert!(found == text && parts == 3, "{parts}: {}", found.len());
    // Two streams, and one in an archive.
    let row = [BLOCKS, b"\0\0\0\0", BLOCKS].concat();
    assert_eq!(texts(&check("row", &row).unwrap()), [&text[..], &text].concat());
    let ar = packed::ar(&[("control.tar.xz", &xz(&packed::tar(&[("a", &text[..9_000])]), 6, Check::Crc64))]);
    assert!(check("ar", &ar).unwrap().streams.iter().any(|s| s.bytes == text[..9_000]));
}

#[test]
fn damage_stays_as_it_is_and_bombs_are_left_alone() {
    let mut dice = Dice::new(4);
    let text = packed::prose(&mut dice, 300_000);
    let file = zstd(&text, AT_ONCE);
    let (mut exact, mut declined) = (0, 0);
    for n in 0..60 {
        let mut bad = [&file[..], b"and more", BLOCKS, &zstd(&text[..5_000], AT_ONCE)].concat();
        let at = dice.roll(bad.len() as u64) as usize;
        match n % 4 {
            0 => bad.truncate(at),
            1 => bad[at] ^= 1 << dice.roll(8),
            2 => {
                let to = (at + 20).min(bad.len());
                drop(bad.drain(at..to));
            }
            _ => drop(bad.splice(at..at, (0..30).map(|_| dice.next() as u8))),
        }
        match check("damaged", &bad) {
            Ok(_) => exact += 1,
            Err(_) => declined += 1,
        }
    }
    println!("{exact} exact, {declined} declined");
    assert!(exact > 20 && declined > 2);
    // Not what any level makes.
    let mut other = zstd(&text[..60_000], How { level: 1, ..AT_ONCE });
    let last = other.len() - 1;
    other[last] ^= 1;
    assert_eq!(check("checksum", &other), Err(Declined::Foreign));
    let started = std::time::Instant::now();
    let bomb = zstd(&vec![0; 200 << 20], AT_ONCE);
    assert_eq!(check("bomb", &bomb), Err(Declined::TooLarge));
    let many = zstd(&vec![0; 4 << 20], How { level: 1, ..AT_ONCE }).repeat(500);
    let opened = check("many", &many);
    assert!(opened.map_or(0, |opened| texts(&opened).len()) <= LIMITS.text_bytes + many.len());
    let heads = [&file[..20], b"some more"].concat().repeat(40_000);
    check("heads", &heads).ok();
    containers::cut(&heads, None, CutLimits { min: 64 << 10, text_bytes: 1 << 20 }, false);
    let bomb = xz(&vec![0; 60 << 20], 0, Check::Crc32);
    assert!(check("bomb of xz", &bomb).is_err());
    let heads = [&BLOCKS[..40], b"some more"].concat().repeat(40_000);
    check("heads", &heads).ok();
    containers::cut(&heads, None, CutLimits { min: 64 << 10, text_bytes: 1 << 20 }, false);
    let heads = [&file[..200], b"some more"].concat().repeat(4_000);
    check("heads", &heads).ok();
    println!("{:.1} s", started.elapsed().as_secs_f64());
    assert!(started.elapsed().as_secs() < 60);
}

/// Whatever is said of them: an error or bytes.
#[test]
fn damaged_recipes_and_texts_close_to_errors_or_bytes() {
    let mut dice = Dice::new(6);
    let text = packed::prose(&mut dice, 210_000);
    let mut errors = 0;
    let files = [1, 3, 9, 19].map(|level| zstd(&text, How { level, ..AT_ONCE }));
    for file in files.into_iter().chain([BLOCKS.to_vec(), xz(&text, 1, Check::Crc64)]) {
        let opened = check("whole", &file).unwrap();
        for n in 0..30 {
            let mut bad = opened.clone();
            let last = bad.streams.len() - 1;
            let target = if n % 2 == 0 { &mut bad.recipe } else { &mut bad.streams[last].bytes };
            let at = dice.roll(target.len() as u64) as usize;
            match dice.roll(3) {
                0 => target.truncate(at),
                1 => target[at] ^= 1 << dice.roll(8),
                _ => target[at..].iter_mut().for_each(|b| *b = dice.next() as u8),
            }
            match containers::close(&bad.recipe, &bad.streams, file.len(), LIMITS.text_bytes) {
                Ok(other) => assert_eq!(other.len(), file.len()),
                Err(e) => errors += usize::from(!e.to_string().is_empty()),
            }
        }
    }
    assert!(errors > 30, "{errors}");
}

/// Writes what `golden/opened-3-made` holds, where it is asked for: once for a revision.
#[test]
fn golden_payloads_are_made() {
    let mut dice = Dice::new(7);
    let text = packed::prose(&mut dice, 40_000);
    let quick = How { level: -1, threads: 0, sum: false, pieces: Some((131_072, false)) };
    let strong = How { level: 19, threads: 1, sum: true, pieces: Some((131_072, true)) };
    let raws = [
        [zstd(&text, AT_ONCE), zstd(&text[..5000], quick)].concat(),
        zstd(&packed::zip(&[("a", &text)], packed::Zip::Plain), strong),
        BLOCKS.to_vec(),
        xz(&packed::tar(&[("a", &text[..9_000])]), 9 | PRESET_EXTREME, Check::Sha256),
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
    packed::keep_golden("TERSEFS_GOLDEN_MADE", &out);
}
