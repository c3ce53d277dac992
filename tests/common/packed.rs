//! Files of compressed formats, made for tests.

#![allow(dead_code)]

use super::Dice;

/// Words and numbers that compress to a third.
pub fn prose(dice: &mut Dice, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 40);
    while out.len() < len {
        out.extend_from_slice(&dice.text(12));
        (0..5).for_each(|_| out.push(b'a' + dice.roll(26) as u8));
        out.push(if dice.roll(9) == 0 { b'\n' } else { b' ' });
    }
    out.truncate(len);
    out
}

pub fn deflated(text: &[u8], level: u8) -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec(text, level)
}

pub fn gzip(text: &[u8], level: u8) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 8, 1, 2, 3, 4, 0, 3];
    out.extend_from_slice(b"notes.txt\0");
    out.extend_from_slice(&deflated(text, level));
    out.extend_from_slice(&crc32fast::hash(text).to_le_bytes());
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out
}

pub fn zlib(text: &[u8], level: u8) -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec_zlib(text, level)
}

/// How a zip archive has its members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zip {
    Plain,
    /// Checksum and lengths come behind the data.
    Descriptors,
    /// Nothing is deflated.
    Stored,
    /// As if it were encrypted.
    Encrypted,
}

pub fn zip(members: &[(&str, &[u8])], how: Zip) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, text) in members {
        let data = if how == Zip::Stored { text.to_vec() } else { deflated(text, 6) };
        let flags = match how {
            Zip::Descriptors => 8u16,
            Zip::Encrypted => 1,
            Zip::Plain | Zip::Stored => 0,
        };
        let method = if how == Zip::Stored { 0u16 } else { 8 };
        let fields: Vec<u8> = [crc32fast::hash(text), data.len() as u32, text.len() as u32]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect();
        let at = out.len() as u32;
        let mut head = 20u16.to_le_bytes().to_vec();
        [flags, method, 0x6000, 0x5a21].iter().for_each(|n| head.extend_from_slice(&n.to_le_bytes()));
        let mut tail = (name.len() as u16).to_le_bytes().to_vec();
        tail.extend_from_slice(&[0, 0]);
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&head);
        out.extend_from_slice(if how == Zip::Descriptors { &[0; 12] } else { &fields });
        out.extend_from_slice(&tail);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&data);
        if how == Zip::Descriptors {
            out.extend_from_slice(b"PK\x07\x08");
            out.extend_from_slice(&fields);
        }
        directory.extend_from_slice(b"PK\x01\x02\x14\0");
        directory.extend_from_slice(&head);
        directory.extend_from_slice(&fields);
        directory.extend_from_slice(&tail);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&at.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let (count, at) = (members.len() as u16, out.len() as u32);
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}

/// A tar archive as POSIX has it, with a directory and an end.
pub fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |name: &str, kind: u8, data: &[u8]| {
        let mut head = vec![0u8; 512];
        let mut field = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
        field(0, name);
        field(100, "0000644\0");
        field(108, "0001750\0");
        field(116, "0001750\0");
        field(124, &format!("{:011o}", data.len()));
        field(136, "14721345602");
        field(148, "        ");
        field(257, "ustar\x0000");
        field(265, "someone");
        field(297, "users");
        head[156] = kind;
        let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
    };
    put("tree/", b'5', b"");
    members.iter().for_each(|(name, data)| put(&format!("tree/{name}"), b'0', data));
    out.resize(out.len() + 1024, 0);
    out
}

/// A cpio archive as kernels boot from.
pub fn cpio(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, (name, data)) in members.iter().chain(&[("TRAILER!!!", &b""[..])]).enumerate() {
        let fields = [n + 700, 0o100644, 0, 0, 1, 0x6725_1234, data.len(), 8, 1, 0, 0, name.len() + 1, 0];
        out.extend_from_slice(b"070701");
        fields.iter().for_each(|n| out.extend_from_slice(format!("{n:08X}").as_bytes()));
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// An ar archive, as Debian's packages are.
pub fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, data) in members {
        out.extend_from_slice(
            format!("{name:<16}{:<12}0     0     100644  {:<10}`\n", 1_700_000_000, data.len()).as_bytes(),
        );
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(2), b'\n');
    }
    out
}

/// Letters of base64, in lines of some length, or in one where that is 0.
pub fn base64(data: &[u8], line: usize, end: &str) -> Vec<u8> {
    let letters: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let mut text = String::new();
    for three in data.chunks(3) {
        let bits = three.iter().chain(&[0; 3]).take(3).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        (0..4)
            .for_each(|n| text.push(if n > three.len() { '=' } else { letters[(bits >> (18 - 6 * n)) as usize & 63] }));
    }
    let line = if line == 0 { text.len() } else { line };
    text.as_bytes().chunks(line).collect::<Vec<_>>().join(end.as_bytes())
}

/// A mail with attachments.
pub fn mail(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"From: somebody\r\nSubject: what you asked for\r\n\r\n".to_vec();
    for (name, data) in members {
        out.extend_from_slice(format!("--x\r\nContent-Disposition: attachment; filename={name}\r\n\r\n").as_bytes());
        out.extend_from_slice(&base64(data, 76, "\r\n"));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"--x--\r\n");
    out
}

/// How a PNG is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Png {
    Plain,
    Interlaced,
    Deep,
    /// A checksum of its data is wrong.
    WrongCrc,
}

/// A drawing in colour, its rows filtered in turn, its data in chunks.
pub fn png(dice: &mut Dice, width: usize, height: usize, how: Png) -> Vec<u8> {
    png_dotted(dice, width, height, how, 150)
}

/// The same with a dot in so many bytes of a row.
pub fn png_dotted(dice: &mut Dice, width: usize, height: usize, how: Png, bytes: usize) -> Vec<u8> {
    let depth = if how == Png::Deep { 16 } else { 8 };
    let row = width * 3 * depth / 8;
    let mut pixels = Vec::new();
    for y in 0..height {
        let mut line: Vec<u8> = (0..row).map(|x| ((x / 40 + y / 16) * 37) as u8).collect();
        (0..row / bytes).for_each(|_| line[dice.roll(row as u64) as usize] = dice.next() as u8);
        pixels.extend(line);
    }
    png_of(&pixels, width, (depth, 2), how)
}

/// Pixels of so many bits a value and a type of colour (PNG's number), their rows filtered in turn.
pub fn png_of(pixels: &[u8], width: usize, (depth, colour): (usize, u8), how: Png) -> Vec<u8> {
    let values = [1, 0, 3, 1, 2, 0, 4][usize::from(colour)];
    let (row, pixel) = (width * values * depth / 8, values * depth / 8);
    let mut rows = Vec::new();
    let mut above = vec![0u8; row];
    for (y, line) in pixels.chunks_exact(row).enumerate() {
        let filter = (y % 5) as u8;
        rows.push(filter);
        for x in 0..row {
            let left = |of: &[u8]| if x >= pixel { of[x - pixel] } else { 0 };
            let (a, b, c) = (i16::from(left(line)), i16::from(above[x]), i16::from(left(&above)));
            let nearest = [a, b, c].into_iter().min_by_key(|n| (a + b - c - n).abs()).unwrap();
            let predicted = [0, a, b, (a + b) / 2, nearest][usize::from(filter)] as u8;
            rows.push(line[x].wrapping_sub(predicted));
        }
        above.copy_from_slice(line);
    }
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |name: &[u8], data: &[u8], wrong: bool| {
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        let checked = [name, data].concat();
        out.extend_from_slice(&checked);
        out.extend_from_slice(&(crc32fast::hash(&checked) ^ u32::from(wrong)).to_be_bytes());
    };
    let mut head = (width as u32).to_be_bytes().to_vec();
    head.extend_from_slice(&((pixels.len() / row) as u32).to_be_bytes());
    head.extend_from_slice(&[depth as u8, colour, 0, 0, u8::from(how == Png::Interlaced)]);
    chunk(b"IHDR", &head, false);
    zlib(&rows, 6).chunks(3000).for_each(|data| chunk(b"IDAT", data, how == Png::WrongCrc));
    chunk(b"IEND", b"", false);
    out
}

/// Pages of a document.
pub fn pdf(dice: &mut Dice, pages: usize) -> Vec<u8> {
    let mut out = b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n".to_vec();
    for n in 0..pages {
        let text: Vec<u8> = (0..60)
            .flat_map(|y| format!("BT /F1 11 Tf 72 {} Td ({}) Tj ET\n", 720 - 11 * y, dice.roll(1 << 40)).into_bytes())
            .collect();
        let data = zlib(&text, 6);
        out.extend_from_slice(format!("{n} 0 obj <</Length {}/Filter/FlateDecode>>\nstream\n", data.len()).as_bytes());
        out.extend_from_slice(&data);
        out.extend_from_slice(b"\nendstream endobj\n");
    }
    out.extend_from_slice(b"%%EOF\n");
    out
}

pub const JPEG: &[u8] = include_bytes!("../containers/notice.jpg");
/// A larger one.
pub const FIGURE: &[u8] = include_bytes!("../containers/figure.jpg");
/// The same with restart markers.
pub const RESTARTS: &[u8] = include_bytes!("../containers/restarts.jpg");

/// One of every kind, by name.
pub fn every_kind() -> Vec<(&'static str, Vec<u8>)> {
    let mut dice = Dice::new(11);
    let [a, b, c] = [30_000, 9_000, 400].map(|len| prose(&mut dice, len));
    let picture = png(&mut dice, 90, 70, Png::Plain);
    let members: [(&str, &[u8]); 4] = [("a.txt", &a), ("b/c.txt", &b), ("d", &c), ("e.png", &picture)];
    let inner = zip(&members, Zip::Plain);
    vec![
        ("gzip", gzip(&a, 6)),
        ("gzip of level 1", gzip(&a, 1)),
        ("gzip of level 9", gzip(&b, 9)),
        ("gzip of two members", [gzip(&a, 6), gzip(&b, 6)].concat()),
        ("gzip with more behind", [gzip(&a, 6), b"and something else".to_vec()].concat()),
        ("zlib", zlib(&a, 6)),
        ("zip", inner.clone()),
        ("zip with descriptors", zip(&members, Zip::Descriptors)),
        ("zip in a zip", zip(&[("inner.zip", &inner), ("a.txt", &a)], Zip::Plain)),
        ("zip in a stored zip", zip(&[("inner.zip", &inner)], Zip::Stored)),
        ("png", picture.clone()),
        ("png with wrong checksums", png(&mut dice, 80, 90, Png::WrongCrc)),
        ("interlaced png", png(&mut dice, 80, 90, Png::Interlaced)),
        ("pdf", pdf(&mut dice, 8)),
        ("jpeg", JPEG.to_vec()),
        ("tar", tar(&members)),
        ("tar in a gzip", gzip(&tar(&members), 6)),
        ("tar in a tar", tar(&[("inner.tar", &tar(&members)), ("a.txt", &a)])),
        ("cpio", cpio(&members)),
        ("ar", ar(&members)),
        ("mail", mail(&members)),
        ("jpeg in a zip", zip(&[("notice.jpg", JPEG), ("a.txt", &a)], Zip::Plain)),
    ]
}

/// Appends what a golden file has of a payload of `opened`: what it was made of, and itself.
pub fn put_golden(raw: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    put_golden_of(8, raw, payload, out);
}

/// The same of any method by its number.
pub fn put_golden_of(method: u8, raw: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    for (tag, bytes) in [(b'R', raw), (method, payload)] {
        out.push(tag);
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    }
}

/// Writes a golden file where a variable of the environment names one.
pub fn keep_golden(variable: &str, bytes: &[u8]) {
    if let Ok(path) = std::env::var(variable) {
        std::fs::write(path, bytes).unwrap();
    }
}
