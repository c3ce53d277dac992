//! Speed of a language model on this machine, by the processor time that tokens take.
//!
//! `cargo bench --bench language -- MODEL FILE` codes the first 128 KiB of the file in lanes of 4 KiB, some hundred tokens less
//! or more than a context of 1,024, and reads them in lockstep: 1, 8, 16 and 32 of them (`LANES=16,32` for others). For each it
//! prints tokens of one core's second, user and system time of all threads counted, tokens of a second of the clock, and plain
//! kilobytes of either; and a hash of the payload, by which two builds are compared. `PAYLOAD=FILE` keeps the payload, and reads
//! it where it is there.
//!
//! `EXACT=KIB` codes so much in lanes of 1 KiB by one thread, decodes it by two, one lane and seven at a time, by all instructions
//! that the machine has (an eighth of it by the slow ones), and says what was compared. It ends with an error where a byte differs.
//! With `tiny` for a model, one of two layers that is made up here, slow instructions decode all of it too.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tersefs::models::{LanguageModel, load_language_model};

#[path = "../tests/common/llama.rs"]
mod llama;

const LANE_BYTES: usize = 4 << 10;
const BYTES: usize = 128 << 10;

/// User and system seconds of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Prints how fast something was.
fn timed<T>(what: &str, tokens: u64, bytes: usize, run: impl FnOnce() -> T) -> T {
    let (cpu, clock) = (cpu_seconds(), Instant::now());
    let out = run();
    let (cpu, clock) = ((cpu_seconds() - cpu).max(1e-9), clock.elapsed().as_secs_f64());
    let of =
        |seconds: f64| format!("{:>7.1} tokens, {:>6.2} KB", tokens as f64 / seconds, bytes as f64 / 1e3 / seconds);
    println!("{what:<16} {:>6} tokens  a second of one core {}  of the clock {}", tokens, of(cpu), of(clock));
    out
}

fn encoded(model: &LanguageModel, raw: &[u8]) -> Vec<u8> {
    let kept = std::env::var("PAYLOAD").ok();
    if let Some(payload) = kept.as_ref().and_then(|file| std::fs::read(file).ok()) {
        return payload;
    }
    let payload = timed("encode", model.tokens(raw), raw.len(), || {
        model.encode(raw, LANE_BYTES, usize::MAX, &AtomicBool::new(false)).expect("no bound")
    });
    if let Some(file) = kept {
        std::fs::write(file, &payload).expect("the payload is kept");
    }
    payload
}

/// Decodes what was coded by every kind of instructions, in batches, by two threads; one part in `slow` of it by those that are
/// not the fastest.
fn prove(model: &mut LanguageModel, raw: &[u8], slow: usize) {
    const LANE: usize = 1 << 10;
    let never = AtomicBool::new(false);
    let payload = timed("encode, 1 thread", model.tokens(raw), raw.len(), || {
        model.encode(raw, LANE, usize::MAX, &never).expect("no bound")
    });
    println!("{}: {} of {} bytes, {}", model.facts().path, payload.len(), raw.len(), blake3::hash(&payload));
    for (n, instructions) in LanguageModel::instructions().into_iter().enumerate() {
        model.use_instructions(instructions).expect("the machine has them");
        let model = &*model;
        let part = raw.get(..raw.len() / if n == 0 { 1 } else { slow }).unwrap_or(raw);
        let lanes = part.len().div_ceil(LANE);
        for batch in [1, 7] {
            let tokens = part.chunks(LANE).map(|lane| model.tokens(lane)).sum();
            let what = format!("{instructions}, {batch} at a time");
            let wrong: usize = timed(&what, tokens, part.len(), || {
                std::thread::scope(|scope| {
                    let of_thread = |thread: usize| {
                        let firsts = (0..lanes).step_by(batch).skip(thread).step_by(2);
                        firsts.map(move |first| first..(first + batch).min(lanes))
                    };
                    let wrong = |lanes: std::ops::Range<usize>| {
                        let plain = &raw[lanes.start * LANE..(lanes.end * LANE).min(raw.len())];
                        let got = model.decode_lanes(&payload, raw.len(), lanes, &never);
                        let differ = |got: Vec<u8>| got.iter().zip(plain).filter(|(a, b)| a != b).count();
                        got.map_or(plain.len(), differ)
                    };
                    let threads: Vec<_> =
                        (0..2).map(|t| scope.spawn(move || of_thread(t).map(wrong).sum::<usize>())).collect();
                    threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
                })
            });
            println!("{what}, 2 threads: {} bytes, {wrong} differ", part.len());
            assert!(wrong == 0, "{wrong} bytes differ");
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let [model, file] = args.as_slice() else {
        println!("language: give it a model, a GGUF file or `tiny`, and a file of text");
        return;
    };
    let is_tiny = model == "tiny";
    let mut model = match is_tiny {
        true => load_language_model(std::io::Cursor::new(llama::tiny().bytes()), None),
        false => load_language_model(std::fs::File::open(model).expect("model"), None),
    }
    .expect("a model");
    tersefs::host::give_memory_back();
    let raw = std::fs::read(file).expect("file");
    if let Some(kib) = std::env::var("EXACT").ok().and_then(|kib| kib.parse::<usize>().ok()) {
        return prove(&mut model, raw.get(..kib << 10).unwrap_or(&raw), if is_tiny { 1 } else { 8 });
    }
    let raw = raw.get(..BYTES).unwrap_or(&raw);
    let payload = encoded(&model, raw);
    println!("{}: {} of {} bytes, {}", model.facts().path, payload.len(), raw.len(), blake3::hash(&payload));
    let lanes = std::env::var("LANES").unwrap_or("1,8,16,32".to_string());
    for count in lanes.split(',').filter_map(|n| n.parse::<usize>().ok()) {
        let count = count.min(raw.len().div_ceil(LANE_BYTES));
        let plain = raw.get(..count * LANE_BYTES).unwrap_or(raw);
        let tokens = plain.chunks(LANE_BYTES).map(|lane| model.tokens(lane)).sum();
        let out = timed(&format!("decode {count:>2} lanes"), tokens, plain.len(), || {
            model.decode_lanes(&payload, raw.len(), 0..count, &AtomicBool::new(false)).expect("decodes")
        });
        assert!(out == plain, "exact");
    }
    println!("peak memory {} MiB", tersefs::host::memory().1 >> 20);
}
