//! Small models of images and of bytes, made by the tests themselves, in the layouts that iGPT and bGPT are published in.

#![allow(dead_code)]

/// A tensor: its name, shape and elements.
pub type Tensor = (String, Vec<usize>, Vec<f32>);

pub const WIDTH: usize = 64;
pub const HIDDEN: usize = 128;
pub const HEADS: usize = 2;
pub const LAYERS: usize = 2;
/// Grey values that an image is read of at a time.
pub const PIXELS: usize = 200;
pub const PATCH: usize = 16;
/// Patches that are read at a time: a beginning, data, and one that ends it.
pub const PATCHES: usize = 20;

/// The `config.json` of `igpt`.
pub const CONFIG: &str = r#"{ "model_type": "imagegpt", "n_head": 2, "n_embd": 64, "n_layer": 2, "n_positions": 200, "vocab_size": 257,
    "activation_function": "quick_gelu", "layer_norm_epsilon": 1e-05, "scale_attn_weights": true }"#;

fn noise(seed: u64) -> impl FnMut(usize, f32) -> Vec<f32> {
    let mut x = seed;
    move |len, scale| {
        let mut next = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((x >> 40) as i32 - (1 << 23)) as f32 / (1 << 23) as f32
        };
        (0..len).map(|_| (next() + next() + next()) * scale).collect()
    }
}

fn layers(
    out: &mut Vec<Tensor>,
    prefix: &str,
    count: usize,
    centred: bool,
    noise: &mut impl FnMut(usize, f32) -> Vec<f32>,
) {
    for n in 0..count {
        let name = |what: &str| format!("{prefix}h.{n}.{what}");
        for norm in ["ln_1", "ln_2"] {
            let weights = noise(WIDTH, 0.3).iter().map(|x| x + 1.0).collect();
            out.push((name(&format!("{norm}.weight")), vec![WIDTH], weights));
            if centred {
                out.push((name(&format!("{norm}.bias")), vec![WIDTH], noise(WIDTH, 0.2)));
            }
        }
        for (what, inputs, outputs) in [
            ("attn.c_attn", WIDTH, 3 * WIDTH),
            ("attn.c_proj", WIDTH, WIDTH),
            ("mlp.c_fc", WIDTH, HIDDEN),
            ("mlp.c_proj", HIDDEN, WIDTH),
        ] {
            let scale = 1.6 / (inputs as f32).sqrt();
            out.push((name(&format!("{what}.weight")), vec![inputs, outputs], noise(inputs * outputs, scale)));
            out.push((name(&format!("{what}.bias")), vec![outputs], noise(outputs, 0.1)));
        }
        // What older versions of the library transformers save beside weights.
        out.push((name("attn.bias"), vec![1, 1, 4, 4], vec![1.0; 16]));
        out.push((name("attn.masked_bias"), vec![], vec![-1e4]));
    }
    out.push((format!("{prefix}ln_f.weight"), vec![WIDTH], noise(WIDTH, 0.2).iter().map(|x| x + 1.0).collect()));
    if centred {
        out.push((format!("{prefix}ln_f.bias"), vec![WIDTH], noise(WIDTH, 0.2)));
    }
}

/// An iGPT of noise, of so many grey values.
pub fn igpt_of(values: usize) -> Vec<Tensor> {
    let (mut noise, mut out) = (noise(7), Vec::new());
    let prefix = "transformer.";
    out.push((format!("{prefix}wte.weight"), vec![values + 1, WIDTH], noise((values + 1) * WIDTH, 0.5)));
    out.push((format!("{prefix}wpe.weight"), vec![PIXELS, WIDTH], noise(PIXELS * WIDTH, 0.2)));
    layers(&mut out, prefix, LAYERS, false, &mut noise);
    out.push(("lm_head.weight".into(), vec![values, WIDTH], noise(values * WIDTH, 0.35)));
    out
}

pub fn igpt() -> Vec<Tensor> {
    igpt_of(256)
}

/// A bGPT of noise, of heads of 64 elements.
pub fn bgpt() -> Vec<Tensor> {
    let (mut noise, mut out) = (noise(11), Vec::new());
    let of_patches = "patch_level_decoder.base.";
    let columns = PATCH * 257;
    out.push(("patch_level_decoder.patch_embedding.weight".into(), vec![WIDTH, columns], noise(WIDTH * columns, 0.2)));
    out.push(("patch_level_decoder.patch_embedding.bias".into(), vec![WIDTH], noise(WIDTH, 0.2)));
    out.push((format!("{of_patches}wte.weight"), vec![1, WIDTH], noise(WIDTH, 0.2)));
    out.push((format!("{of_patches}wpe.weight"), vec![PATCHES, WIDTH], noise(PATCHES * WIDTH, 0.2)));
    layers(&mut out, of_patches, LAYERS, true, &mut noise);
    let of_bytes = "byte_level_decoder.base.transformer.";
    let table = noise(257 * WIDTH, 0.4);
    out.push((format!("{of_bytes}wte.weight"), vec![257, WIDTH], table.clone()));
    out.push((format!("{of_bytes}wpe.weight"), vec![PATCH + 1, WIDTH], noise((PATCH + 1) * WIDTH, 0.2)));
    layers(&mut out, of_bytes, 1, true, &mut noise);
    // Tied, and saved twice.
    out.push(("byte_level_decoder.base.lm_head.weight".into(), vec![257, WIDTH], table));
    out
}

/// A bGPT that knows `places`: at each place of a patch come sixteen values, any of them.
pub fn bgpt_of_places() -> Vec<Tensor> {
    let mut out = bgpt();
    for (name, shape, elements) in &mut out {
        let tail = |end: &str| name.ends_with(end);
        if tail("c_proj.weight")
            || tail("c_proj.bias")
            || tail("ln_f.weight")
            || tail("ln_f.bias")
            || tail("wte.weight")
        {
            elements.fill(0.0);
        }
        if name.starts_with("byte_level_decoder") && name.ends_with("ln_f.weight") {
            elements.fill(1.0);
        }
        if name.starts_with("byte_level_decoder") && name.ends_with("wpe.weight") {
            elements.fill(0.0);
            (0..shape[0]).for_each(|place| elements[place * WIDTH + place] = 1.0);
        }
        if name.ends_with("lm_head.weight") {
            elements.fill(0.0);
            for place in 0..PATCH {
                for value in 0..16 {
                    elements[usize::from(value_of(place, value)) * WIDTH + place] = 1.2;
                }
            }
        }
    }
    out
}

/// One of the sixteen values of a place.
fn value_of(place: usize, value: usize) -> u8 {
    (value * 16 + place * 37 % 16 + value * value * place) as u8
}

/// What `bgpt_of_places` knows.
pub fn places(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed;
    let mut next = || {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 33) as usize % 16
    };
    (0..len).map(|n| value_of(n % PATCH, next())).collect()
}

fn bytes(elements: &[f32]) -> Vec<u8> {
    elements.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The tensors as a file of safetensors.
pub fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (String::new(), Vec::new());
    for (name, shape, elements) in tensors {
        let from = data.len();
        data.extend(bytes(elements));
        let comma = if header.is_empty() { "" } else { "," };
        header += &format!(
            "{comma}\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{from},{}]}}",
            data.len()
        );
    }
    let header = format!("{{{header}}}");
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn number(out: &mut Vec<u8>, n: usize) {
    out.push(b'J');
    out.extend((n as u32).to_le_bytes());
}

fn numbers(out: &mut Vec<u8>, ns: impl Iterator<Item = usize>) {
    out.push(b'(');
    ns.for_each(|n| number(out, n));
    out.push(b't');
}

/// The pickle of the tensors, as `torch.save` writes it: of what it saves, or of a part of that name beside others.
pub fn pickle(tensors: &[Tensor], part: Option<&str>) -> Vec<u8> {
    const EMPTY: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = vec![0x80, 2];
    if let Some(part) = part {
        out.extend(b"}q\x00(");
        text(&mut out, "epoch");
        out.extend(b"K\x07");
        text(&mut out, "min_eval_loss");
        out.extend(b"G?\xf0\0\0\0\0\0\0");
        text(&mut out, part);
    }
    out.extend(EMPTY);
    out.extend(b"q\x01(");
    for (n, (name, shape, elements)) in tensors.iter().enumerate() {
        text(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(b"ctorch\nFloatStorage\n");
        text(&mut out, &n.to_string());
        text(&mut out, "cpu");
        number(&mut out, elements.len());
        out.extend(b"tQK\x00");
        numbers(&mut out, shape.iter().copied());
        numbers(&mut out, (0..shape.len()).map(|d| shape[d + 1..].iter().product()));
        out.push(0x89);
        out.extend(EMPTY);
        out.extend(b"tR");
    }
    out.push(b'u');
    // What modules keep of their versions.
    out.push(b'}');
    text(&mut out, "_metadata");
    out.extend(EMPTY);
    out.extend(b"sb");
    out.extend(if part.is_some() { &b"u."[..] } else { b"." });
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

/// An archive of files as they are, with the padding that PyTorch puts before each.
pub fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let at = out.len() as u32;
        let pad = 63 - (out.len() + 34 + name.len() + 63) % 64;
        let sizes = [crc32(bytes), bytes.len() as u32, bytes.len() as u32].map(u32::to_le_bytes).concat();
        let head = [&[20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0][..], &sizes, &(name.len() as u16).to_le_bytes()].concat();
        out.extend([&b"PK\x03\x04"[..], &head, &(4 + pad as u16).to_le_bytes(), name.as_bytes(), b"FB"].concat());
        out.extend((pad as u16).to_le_bytes());
        out.resize(out.len() + pad, b'Z');
        out.extend(bytes);
        directory.extend([&b"PK\x01\x02\x14\x00"[..], &head, &[0; 12], &at.to_le_bytes(), name.as_bytes()].concat());
    }
    let (at, len, count) = (out.len() as u32, directory.len() as u32, (files.len() as u16).to_le_bytes());
    out.extend(directory);
    out.extend([&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &len.to_le_bytes(), &at.to_le_bytes(), &[0, 0]].concat());
    out
}

/// The tensors as PyTorch saves them.
pub fn pth(tensors: &[Tensor], part: Option<&str>) -> Vec<u8> {
    let mut files = vec![("archive/data.pkl".to_string(), pickle(tensors, part))];
    files.push(("archive/byteorder".into(), b"little".to_vec()));
    let each = tensors.iter().enumerate();
    files.extend(each.map(|(n, (.., elements))| (format!("archive/data/{n}"), bytes(elements))));
    files.push(("archive/version".into(), b"3\n".to_vec()));
    archive(&files)
}
