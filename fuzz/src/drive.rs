//! Runs targets without libFuzzer, so with any compiler: seeds, changed at random, for so many seconds each.
//!
//! `cargo run --release -- SECONDS [TARGET...]`. Seeds are what tests open, and files in `corpus/TARGET`; what fails lies in
//! `artifacts` then, and is shown by `cargo run --release -- FILE TARGET`.

#[path = "../../tests/common/packed.rs"]
mod packed;

use std::time::{Duration, Instant};
use std::{env, fs, panic, process};

use targets::{TARGETS, payload_of, recipe_of, run};

/// What takes more memory fails, MiB: the bounds of all libraries together, and seeds.
const PEAK_MIB_MAX: u64 = 1024;

/// What `packed` makes files by: as that of the tests.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let x = self.0 >> 17;
        x ^ x >> 23
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides.max(1)
    }

    pub fn text(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < len {
            out.extend_from_slice([&b"the "[..], b"segment ", b"of ", b"bytes\n", b"never "][self.roll(5) as usize]);
        }
        out.truncate(len);
        out
    }
}

/// Files of the tests that a target begins from.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let of_media = matches!(target, "media" | "payload");
    let mut seeds: Vec<Vec<u8>> =
        if of_media { media() } else { packed::every_kind().into_iter().map(|(_, bytes)| bytes).collect() };
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/containers");
    let corpus = format!("{}/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let containers = (!of_media).then_some(root);
    for path in
        containers.into_iter().chain([corpus.as_str()]).filter_map(|root| fs::read_dir(root).ok()).flatten().flatten()
    {
        seeds.extend(fs::read(path.path()));
    }
    if target == "zstd" {
        let text = packed::prose(&mut Dice::new(3), 20_000);
        seeds.extend([1, 3, 19].iter().map(|level| zstd_of(&text, *level)));
    }
    // Of each its own kind first, and small ones: there is more done in the same time.
    seeds.retain(|seed| seed.len() < 80_000);
    let fronts = TARGETS.iter().find(|(name, _)| *name == target).map_or(&[][..], |(_, fronts)| fronts);
    let own = |seed: &Vec<u8>| fronts.iter().any(|front| seed.starts_with(&front[..front.len().min(4)]));
    if seeds.iter().any(own) && !fronts.contains(&&b""[..]) {
        seeds.retain(own);
    }
    match target {
        "recipe" => seeds.iter().filter_map(|seed| recipe_of(seed)).collect(),
        "payload" => seeds.iter().filter_map(|seed| payload_of(seed)).collect(),
        _ => seeds,
    }
}

/// Sound, pictures and video, short and with little noise.
fn media() -> Vec<Vec<u8>> {
    let mut dice = Dice::new(9);
    let mut wave = |n: usize| ((n as f64 * 0.07).sin() * 3000.0) as i32 + dice.roll(40) as i32;
    let waves: Vec<i32> = (0..2400).map(&mut wave).collect();
    let wav = |kind: u16, channels: u16, width: u16, samples: Vec<u8>| {
        let frame = channels * width;
        let mut out = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
        [kind, channels].iter().for_each(|n| out.extend(n.to_le_bytes()));
        [16_000, 16_000 * u32::from(frame)].iter().for_each(|n| out.extend(n.to_le_bytes()));
        [frame, 8 * width].iter().for_each(|n| out.extend(n.to_le_bytes()));
        out.extend(b"data");
        out.extend((samples.len() as u32).to_le_bytes());
        [out, samples].concat()
    };
    let bytes = |each: &dyn Fn(i32) -> Vec<u8>| waves.iter().flat_map(|x| each(*x)).collect::<Vec<u8>>();
    let pixels: Vec<u8> = (0..9000).map(|n| (n % 90 + n / 90 + n * n % 5) as u8).collect();
    let frames = |n: usize| [b"FRAME\n".to_vec(), pixels[n * 7..n * 7 + 48 * 48 * 3 / 2].to_vec()].concat();
    vec![
        wav(1, 1, 1, bytes(&|x| vec![(x >> 6) as u8 ^ 0x80])),
        wav(1, 2, 2, bytes(&|x| (x as i16).to_le_bytes().to_vec())),
        wav(1, 1, 3, bytes(&|x| (x * 16).to_le_bytes()[..3].to_vec())),
        wav(1, 2, 4, bytes(&|x| (x << 12).to_le_bytes().to_vec())),
        wav(3, 1, 4, bytes(&|x| (x as f32 / 32768.0).to_le_bytes().to_vec())),
        [
            b".snd\0\0\0\x18\xff\xff\xff\xff\0\0\0\x03\0\0\x3e\x80\0\0\0\x01".to_vec(),
            bytes(&|x| (x as i16).to_be_bytes().to_vec()),
        ]
        .concat(),
        [b"P5 90 100 255\n".to_vec(), pixels.clone()].concat(),
        [b"P6 30 100 255\n".to_vec(), pixels.clone()].concat(),
        [b"P5 45 100 65535\n".to_vec(), pixels.clone()].concat(),
        [b"P5 90 100 255\n".to_vec(), pixels.iter().map(|x| x & 0xc0).collect()].concat(),
        [b"YUV4MPEG2 W48 H48 F25:1 C420jpeg\n".to_vec(), frames(0), frames(1), frames(2)].concat(),
    ]
}

fn zstd_of(text: &[u8], level: i32) -> Vec<u8> {
    zstd::bulk::compress(text, level).unwrap_or_default()
}

fn changed(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seeds[dice.roll(seeds.len() as u64) as usize].clone();
    for _ in 0..=dice.roll(6) {
        let at = dice.roll(bytes.len() as u64) as usize;
        // The heads most of all.
        let at = if dice.roll(3) == 0 { at.min(60) } else { at };
        match dice.roll(6) {
            _ if bytes.is_empty() => bytes.push(dice.next() as u8),
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << dice.roll(8),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, dice.next() as u8][dice.roll(6) as usize],
            3 => drop(bytes.drain(at..bytes.len().min(at + 1 + dice.roll(30) as usize))),
            4 => {
                let more: Vec<u8> = (0..dice.roll(40)).map(|_| dice.next() as u8).collect();
                drop(bytes.splice(at..at, more));
            }
            _ => {
                let other = &seeds[dice.roll(seeds.len() as u64) as usize];
                let from = dice.roll(other.len() as u64) as usize;
                let more = other[from..other.len().min(from + dice.roll(2000) as usize)].to_vec();
                drop(bytes.splice(at..at, more));
            }
        }
    }
    bytes
}

/// The most memory that this process had so far, MiB; 0 where it is not told.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")?.trim().parse::<u64>().ok());
    peak.unwrap_or(0) >> 10
}

fn main() {
    let mut words = env::args().skip(1);
    let first = words.next().expect("seconds for each target, or a file and its target");
    let named: Vec<String> = words.collect();
    let Ok(seconds) = first.parse::<u64>() else {
        return run(named.first().expect("the target of the file"), &fs::read(&first).expect("a file"));
    };
    let wanted = |name: &str| named.is_empty() || named.iter().any(|wanted| wanted == name);
    let seed = env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for (target, _) in TARGETS.iter().filter(|(name, _)| wanted(name)) {
        let (seeds, mut dice) = (seeds(target), Dice::new(seed));
        let (started, mut count, mut slowest) = (Instant::now(), 0u64, Duration::ZERO);
        while started.elapsed().as_secs() < seconds {
            let bytes = changed(&seeds, &mut dice);
            let one = Instant::now();
            let failed = panic::catch_unwind(|| run(target, &bytes)).is_err();
            let peak = peak_mib();
            if failed || peak > PEAK_MIB_MAX {
                let path = format!("{}/artifacts/{target}-{count}", env!("CARGO_MANIFEST_DIR"));
                fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/artifacts")).unwrap();
                fs::write(&path, &bytes).unwrap();
                eprintln!("{target}: {path}, {peak} MiB at most");
                process::exit(1);
            }
            (count, slowest) = (count + 1, slowest.max(one.elapsed()));
        }
        let slowest = slowest.as_secs_f64();
        println!(
            "{target}: {count} from {} seeds, the slowest {slowest:.2} s, {} MiB at most",
            seeds.len(),
            peak_mib()
        );
    }
}
