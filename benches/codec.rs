//! Ratio and speed of the codec on files, beside other compressors in the same run.
//!
//! `cargo bench --bench codec -- FILE...` (without files: the cuts in tests/data). For each file: its class, bytes in
//! independent segments with 100 bytes for each header, by the method before (`cm`) and by the default one, MB/s of one
//! core for coding (without verification) and decoding, by which priors; then `xz -9e`, `zstd -19` and `zpaq -m5` of the
//! whole file where they are installed, with their processor time; then the default method by the sizes of cm, xz and zpaq,
//! and its speed of decoding by that of zpaq. Set `BENCH_PEERS=0` to leave the others out, `BENCH_METHOD` to a method to
//! measure it in place of the default one.

use std::collections::BTreeMap;

use tersefs::base::{Class, MethodId, ModelId};
use tersefs::codec;
use tersefs::models::{self, Basis};
use tersefs::tools::Peer;

/// Estimate of the record around a payload, bytes.
const HEADER_BYTES: usize = 100;

/// User and system seconds of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

struct Row {
    bytes: usize,
    encode_s: f64,
    decode_s: f64,
    methods: BTreeMap<&'static str, usize>,
}

fn ours(data: &[u8], class: Class, only: Option<MethodId>) -> Row {
    let mut row = Row { bytes: 0, encode_s: 0.0, decode_s: 0.0, methods: BTreeMap::new() };
    for raw in data.chunks(codec::segment_bytes(class) as usize) {
        let started = cpu_seconds();
        let mut best: Option<(MethodId, Vec<u8>)> = None;
        let tried = only.map_or(vec![MethodId::Primed, MethodId::Zstd], |id| vec![id]);
        for id in tried {
            if let Ok(p) = models::model(id).encode(raw, class, Basis::default())
                && best.as_ref().is_none_or(|(_, b)| p.payload.len() < b.len())
            {
                best = Some((id, p.payload));
            }
        }
        row.encode_s += cpu_seconds() - started;
        let (id, payload) = best.unwrap_or((MethodId::Raw, raw.to_vec()));
        let model = models::model(id);
        let started = cpu_seconds();
        let plain =
            model.decode(&payload, raw.len(), model.revision(), ModelId::NONE, Basis::default()).expect("decodes");
        row.decode_s += cpu_seconds() - started;
        assert!(plain == raw, "exact");
        row.bytes += payload.len() + HEADER_BYTES;
        let how = match (id, payload.first()) {
            (MethodId::Primed, Some(prior)) => models::prior_name(*prior).unwrap_or("?"),
            _ => id.name(),
        };
        *row.methods.entry(how).or_default() += 1;
    }
    row
}

fn main() {
    let mut files: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if files.is_empty() {
        let cuts = std::fs::read_dir("tests/data").expect("tests/data");
        files =
            cuts.flatten().map(|e| e.path().to_string_lossy().into_owned()).filter(|p| !p.ends_with(".md")).collect();
        files.sort();
    }
    let peers = std::env::var("BENCH_PEERS").map_or(true, |v| v != "0");
    let only = std::env::var("BENCH_METHOD").ok().and_then(|m| MethodId::ALL.into_iter().find(|i| i.name() == m));
    println!(
        "{:<14} {:>9} {:>8} {:>9} {:>9} {:>6} {:>6} {:>6} | {:>9} {:>9} {:>9} {:>6} {:>6} | {:>6} {:>6} {:>6} {:>6}  by",
        "file",
        "bytes",
        "class",
        "cm",
        "ours",
        "bpb",
        "enc",
        "dec",
        "xz -9e",
        "zstd -19",
        "zpaq -m5",
        "z enc",
        "z dec",
        "/cm",
        "/xz",
        "/zpaq",
        "x zpaq"
    );
    for file in files {
        let Ok(data) = std::fs::read(&file) else {
            eprintln!("cannot read {file}");
            continue;
        };
        let class = codec::classify(data.get(..64 << 10).unwrap_or(&data));
        // What is built once for each prior is no part of the speed.
        let _ = ours(data.get(..64 << 10).unwrap_or(&data), class, only);
        let (old, row) = (ours(&data, class, Some(MethodId::Cm)), ours(&data, class, only));
        let mb = data.len() as f64 / 1e6;
        let name = file.rsplit('/').next().unwrap_or(&file);
        print!(
            "{:<14} {:>9} {:>8} {:>9} {:>9} {:>6.3} {:>6.2} {:>6.2} | ",
            name,
            data.len(),
            class.name().get(..8).unwrap_or(class.name()),
            old.bytes,
            row.bytes,
            row.bytes as f64 * 8.0 / data.len() as f64,
            mb / row.encode_s,
            mb / row.decode_s
        );
        let part = |whole: usize| format!("{:>6.3}", row.bytes as f64 / whole as f64);
        if peers {
            let of = |peer: Peer| peer.run(&data).ok();
            let (xz, zstd, zpaq) = (of(Peer::Xz), of(Peer::Zstd), of(Peer::Zpaq));
            let (xz, zstd) = [xz, zstd].map(|t| t.map(|t| t.coded_bytes as usize)).into();
            let zpaq = zpaq.map(|t| (t.coded_bytes as usize, t.encode_s, t.decode_s));
            let size = |v: Option<usize>| v.map_or("-".to_string(), |n| n.to_string());
            print!("{:>9} {:>9} {:>9} ", size(xz), size(zstd), size(zpaq.map(|z| z.0)));
            let (enc, dec) = zpaq.map_or((f64::NAN, f64::NAN), |(_, enc, dec)| (enc, dec));
            print!("{:>6.3} {:>6.3} | {} ", mb / enc, mb / dec, part(old.bytes));
            print!("{} {} ", xz.map_or("-".to_string(), part), zpaq.map_or("-".to_string(), |z| part(z.0)));
            print!("{:>6.1} ", dec / row.decode_s);
        } else {
            print!("{} ", part(old.bytes));
        }
        println!(" {}", row.methods.iter().map(|(how, n)| format!("{how} {n}")).collect::<Vec<_>>().join(", "));
    }
    let (_, peak) = tersefs::host::memory();
    println!("peak memory {} MiB", peak >> 20);
}
