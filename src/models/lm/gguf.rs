//! Reads the file format GGUF, versions 2 and 3 (specification: ggml, docs/gguf.md): metadata, then tensors of several kinds,
//! each made plain a row at a time.
//!
//! Everything in a file is doubted: lengths are bounded before memory is taken, and every fault says where it is.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use super::LoadError;
use super::load::{EachRow, Tensors};

const MAGIC: &[u8; 4] = b"GGUF";
/// Bytes of metadata: a vocabulary of 256 Ki tokens with its merges takes 10 MiB.
const METADATA_BYTES_MAX: u64 = 128 << 20;
const ENTRIES_MAX: u64 = 1 << 16;
/// Elements of a row, and rows: those of no known model come near.
pub(super) const ROW_ELEMENTS_MAX: u64 = 1 << 20;
pub(super) const ROWS_MAX: u64 = 1 << 20;
const DIMENSIONS_MAX: u32 = 4;

/// A value of the metadata. Numbers of all widths are one.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    Number(f64),
    Bytes(Vec<u8>),
    Numbers(Vec<f64>),
    Texts(Vec<Vec<u8>>),
}

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl Kind {
    fn of(number: u32) -> Option<Kind> {
        Some(match number {
            0 => Kind::F32,
            1 => Kind::F16,
            2 => Kind::Q4_0,
            3 => Kind::Q4_1,
            6 => Kind::Q5_0,
            7 => Kind::Q5_1,
            8 => Kind::Q8_0,
            12 => Kind::Q4K,
            13 => Kind::Q5K,
            14 => Kind::Q6K,
            30 => Kind::Bf16,
            _ => return None,
        })
    }

    /// Elements that are stored together, and the bytes they take.
    fn unit(self) -> (usize, usize) {
        match self {
            Kind::F32 => (1, 4),
            Kind::F16 | Kind::Bf16 => (1, 2),
            Kind::Q4_0 => (32, 18),
            Kind::Q4_1 => (32, 20),
            Kind::Q5_0 => (32, 22),
            Kind::Q5_1 => (32, 24),
            Kind::Q8_0 => (32, 34),
            Kind::Q4K => (256, 144),
            Kind::Q5K => (256, 176),
            Kind::Q6K => (256, 210),
        }
    }

    /// Appends the elements of whole units.
    pub fn plain(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            Kind::F32 => out.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))),
            Kind::F16 => out.extend(bytes.as_chunks::<2>().0.iter().map(|b| half(*b))),
            Kind::Bf16 => {
                out.extend(bytes.as_chunks::<2>().0.iter().map(|[a, b]| f32::from_le_bytes([0, 0, *a, *b])));
            }
            Kind::Q4_0 => bytes.as_chunks::<18>().0.iter().for_each(|[d0, d1, q @ ..]| {
                let d = half([*d0, *d1]);
                out.extend(q.iter().map(|q| (f32::from(q & 15) - 8.0) * d));
                out.extend(q.iter().map(|q| (f32::from(q >> 4) - 8.0) * d));
            }),
            Kind::Q4_1 => bytes.as_chunks::<20>().0.iter().for_each(|[d0, d1, m0, m1, q @ ..]| {
                let (d, m) = (half([*d0, *d1]), half([*m0, *m1]));
                out.extend(q.iter().map(|q| f32::from(q & 15) * d + m));
                out.extend(q.iter().map(|q| f32::from(q >> 4) * d + m));
            }),
            Kind::Q5_0 => bytes.as_chunks::<22>().0.iter().for_each(|[d0, d1, h0, h1, h2, h3, q @ ..]| {
                let (d, high) = (half([*d0, *d1]), u32::from_le_bytes([*h0, *h1, *h2, *h3]));
                out.extend(fives(q, high).map(|q| (q - 16.0) * d));
            }),
            Kind::Q5_1 => bytes.as_chunks::<24>().0.iter().for_each(|[d0, d1, m0, m1, h0, h1, h2, h3, q @ ..]| {
                let (d, m, high) = (half([*d0, *d1]), half([*m0, *m1]), u32::from_le_bytes([*h0, *h1, *h2, *h3]));
                out.extend(fives(q, high).map(|q| q * d + m));
            }),
            Kind::Q8_0 => bytes.as_chunks::<34>().0.iter().for_each(|[d0, d1, q @ ..]| {
                let d = half([*d0, *d1]);
                out.extend(q.iter().map(|q| f32::from(*q as i8) * d));
            }),
            Kind::Q4K => bytes.as_chunks::<144>().0.iter().for_each(|unit| {
                let [d0, d1, m0, m1, rest @ ..] = unit;
                let Some((scales, q)) = rest.split_first_chunk::<12>() else { return };
                let (d, min) = (half([*d0, *d1]), half([*m0, *m1]));
                for (pair, q) in pairs(scales).zip(q.as_chunks::<32>().0) {
                    let [(s1, m1), (s2, m2)] = pair.map(|(s, m)| (d * f32::from(s), min * f32::from(m)));
                    out.extend(q.iter().map(|q| s1 * f32::from(q & 15) - m1));
                    out.extend(q.iter().map(|q| s2 * f32::from(q >> 4) - m2));
                }
            }),
            Kind::Q5K => bytes.as_chunks::<176>().0.iter().for_each(|unit| {
                let [d0, d1, m0, m1, rest @ ..] = unit;
                let Some((scales, rest)) = rest.split_first_chunk::<12>() else { return };
                let Some((high, q)) = rest.split_first_chunk::<32>() else { return };
                let (d, min) = (half([*d0, *d1]), half([*m0, *m1]));
                for ((pair, q), n) in pairs(scales).zip(q.as_chunks::<32>().0).zip(0..) {
                    let [(s1, m1), (s2, m2)] = pair.map(|(s, m)| (d * f32::from(s), min * f32::from(m)));
                    let fifth = |h: &u8, bit: u32| (h >> bit & 1) << 4;
                    out.extend(q.iter().zip(high).map(|(q, h)| s1 * f32::from((q & 15) + fifth(h, 2 * n)) - m1));
                    out.extend(q.iter().zip(high).map(|(q, h)| s2 * f32::from((q >> 4) + fifth(h, 2 * n + 1)) - m2));
                }
            }),
            Kind::Q6K => bytes.as_chunks::<210>().0.iter().for_each(|unit| {
                let Some((low, rest)) = unit.split_first_chunk::<128>() else { return };
                let Some((high, rest)) = rest.split_first_chunk::<64>() else { return };
                let Some((scales, d)) = rest.split_first_chunk::<16>() else { return };
                let d = d.first_chunk::<2>().map_or(0.0, |d| half(*d));
                let halves =
                    low.as_chunks::<64>().0.iter().zip(high.as_chunks::<32>().0).zip(scales.as_chunks::<8>().0);
                for ((low, high), scales) in halves {
                    for part in 0..4usize {
                        let low = low.iter().skip(part % 2 * 32).take(32);
                        for (((low, high), l), shift) in low.zip(high).zip(0..).zip(std::iter::repeat(part / 2 * 4)) {
                            let scale: usize = l / 16;
                            let s = scales.get(scale + 2 * part).map_or(0.0, |s| f32::from(*s as i8));
                            let q = (low >> shift & 15) | (high >> (2 * part) & 3) << 4;
                            out.push(d * s * (f32::from(q) - 32.0));
                        }
                    }
                }
            }),
        }
    }
}

/// Numbers of five bits, the fifth of each in `high`.
fn fives(q: &[u8; 16], high: u32) -> impl Iterator<Item = f32> {
    let low = q.map(|q| q & 15).into_iter().chain(q.map(|q| q >> 4));
    low.zip(0..).map(move |(q, n)| f32::from(q + (high >> n & 1) as u8 * 16))
}

/// The eight scales and minima of six bits each, in pairs.
fn pairs(packed: &[u8; 12]) -> impl Iterator<Item = [(u8, u8); 2]> {
    let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = *packed;
    let first = |a: u8, b: u8| (a & 63, b & 63);
    let last = |a: u8, b: u8, c: u8| ((c & 15) | a >> 6 << 4, c >> 4 | b >> 6 << 4);
    [
        [first(a0, b0), first(a1, b1)],
        [first(a2, b2), first(a3, b3)],
        [last(a0, b0, c0), last(a1, b1, c1)],
        [last(a2, b2, c2), last(a3, b3, c3)],
    ]
    .into_iter()
}

/// A number of 16 bits (IEEE 754 binary16).
fn half(bytes: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(bytes));
    let (sign, exponent, fraction) = (bits >> 15 << 31, bits >> 10 & 31, bits & 1023);
    match exponent {
        // 2^-24 times the fraction: exact.
        0 => f32::from_bits(sign | (fraction as f32 * f32::from_bits(0x3380_0000)).to_bits()),
        31 => f32::from_bits(sign | 0x7F80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// A tensor of the file: `rows` rows of `columns` elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tensor {
    pub kind: Kind,
    pub columns: usize,
    pub rows: usize,
    /// From the beginning of the tensors, bytes.
    pub offset: u64,
}

impl Tensor {
    /// Bytes of a row.
    pub fn row_bytes(&self) -> u64 {
        let (unit, bytes) = self.kind.unit();
        (self.columns / unit * bytes) as u64
    }
}

/// A file, its metadata read.
pub(super) struct Gguf<R> {
    file: R,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Tensor>,
    /// Where the tensors begin.
    data: u64,
}

impl<R> Gguf<R> {
    /// A value of the metadata.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.metadata.get(name)
    }
}

/// Metadata as it is read, within its bound.
struct Header<'a, R> {
    file: &'a mut R,
    at: u64,
}

impl<R: Read> Header<'_, R> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], LoadError> {
        let mut bytes = [0; N];
        self.take(N as u64)?;
        self.file.read_exact(&mut bytes).map_err(LoadError::Read)?;
        Ok(bytes)
    }

    fn take(&mut self, len: u64) -> Result<(), LoadError> {
        self.at = self.at.saturating_add(len);
        if self.at > METADATA_BYTES_MAX {
            return Err(LoadError::Malformed(format!("its metadata are longer than {METADATA_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    fn u32(&mut self) -> Result<u32, LoadError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, LoadError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, LoadError> {
        let len = self.u64()?;
        self.take(len)?;
        let mut bytes = vec![0; len as usize];
        self.file.read_exact(&mut bytes).map_err(LoadError::Read)?;
        Ok(bytes)
    }

    fn name(&mut self) -> Result<String, LoadError> {
        String::from_utf8(self.bytes()?).map_err(|_| LoadError::Malformed("a name is not text".into()))
    }

    fn number(&mut self, kind: u32) -> Result<f64, LoadError> {
        Ok(match kind {
            0 | 7 => f64::from(self.array::<1>()?[0]),
            1 => f64::from(i8::from_le_bytes(self.array()?)),
            2 => f64::from(u16::from_le_bytes(self.array()?)),
            3 => f64::from(i16::from_le_bytes(self.array()?)),
            4 => f64::from(self.u32()?),
            5 => f64::from(i32::from_le_bytes(self.array()?)),
            6 => f64::from(f32::from_le_bytes(self.array()?)),
            10 => self.u64()? as f64,
            11 => i64::from_le_bytes(self.array()?) as f64,
            12 => f64::from_le_bytes(self.array()?),
            _ => return Err(LoadError::Malformed(format!("a value of the metadata is of the unknown kind {kind}"))),
        })
    }

    fn value(&mut self) -> Result<Value, LoadError> {
        match self.u32()? {
            8 => Ok(Value::Bytes(self.bytes()?)),
            9 => {
                let (kind, len) = (self.u32()?, self.u64()?);
                // Every element takes a byte at least, so that the bound of the metadata bounds their number.
                if len > METADATA_BYTES_MAX {
                    return Err(LoadError::Malformed("a list of the metadata is too long".into()));
                }
                match kind {
                    8 => (0..len).map(|_| self.bytes()).collect::<Result<_, _>>().map(Value::Texts),
                    _ => (0..len).map(|_| self.number(kind)).collect::<Result<_, _>>().map(Value::Numbers),
                }
            }
            kind => self.number(kind).map(Value::Number),
        }
    }
}

impl<R: Read + Seek> Gguf<R> {
    /// Reads the metadata and the table of tensors.
    ///
    /// # Errors
    /// Where it is no such file, or breaks a bound.
    pub fn open(mut file: R) -> Result<Gguf<R>, LoadError> {
        let file_bytes =
            file.seek(SeekFrom::End(0)).and_then(|len| file.rewind().map(|()| len)).map_err(LoadError::Read)?;
        let mut header = Header { file: &mut file, at: 0 };
        if header.array::<4>()? != *MAGIC {
            return Err(LoadError::Malformed("it does not begin as a GGUF file does".into()));
        }
        let version = header.u32()?;
        if !matches!(version, 2 | 3) {
            return Err(LoadError::Unsupported(format!("it is of version {version} of GGUF; 2 and 3 are known")));
        }
        let (tensor_count, entries) = (header.u64()?, header.u64()?);
        if tensor_count.max(entries) > ENTRIES_MAX {
            return Err(LoadError::Malformed(format!("it has more than {ENTRIES_MAX} entries or tensors")));
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..entries {
            let (name, value) = (header.name()?, header.value()?);
            metadata.insert(name, value);
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let name = header.name()?;
            let dimensions = header.u32()?;
            if dimensions == 0 || dimensions > DIMENSIONS_MAX {
                return Err(LoadError::Malformed(format!("tensor {name} has {dimensions} dimensions")));
            }
            let columns = header.u64()?;
            let mut rows = 1u64;
            for _ in 1..dimensions {
                rows = rows.saturating_mul(header.u64()?);
            }
            let number = header.u32()?;
            let offset = header.u64()?;
            let kind = Kind::of(number).ok_or_else(|| {
                LoadError::Unsupported(format!(
                    "tensor {name} is of kind {number}; convert the model to Q8_0, or to F16"
                ))
            })?;
            let (unit, _) = kind.unit();
            let whole = columns > 0 && columns <= ROW_ELEMENTS_MAX && columns.is_multiple_of(unit as u64);
            if !whole || rows == 0 || rows > ROWS_MAX {
                return Err(LoadError::Malformed(format!("tensor {name} has {rows} rows of {columns} elements")));
            }
            tensors.insert(name, Tensor { kind, columns: columns as usize, rows: rows as usize, offset });
        }
        let at = header.at;
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Number(n)) if (1.0..=65_536.0).contains(n) => *n as u64,
            Some(_) => return Err(LoadError::Malformed("its alignment is no number up to 65536".into())),
        };
        let data = at.next_multiple_of(alignment);
        let gguf = Gguf { file, metadata, tensors, data };
        for (name, tensor) in &gguf.tensors {
            let end = tensor.row_bytes().saturating_mul(tensor.rows as u64);
            if end.saturating_add(tensor.offset).saturating_add(data) > file_bytes {
                return Err(LoadError::Malformed(format!("tensor {name} ends beyond the file: it was cut off")));
            }
        }
        Ok(gguf)
    }
}

impl<R: Read + Seek> Tensors for Gguf<R> {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn extent(&self, name: &str) -> Option<(usize, usize)> {
        self.tensors.get(name).map(|t| (t.rows, t.columns))
    }

    fn rows(&mut self, name: &str, each: EachRow<'_>) -> Result<(), LoadError> {
        let Some(tensor) = self.tensors.get(name).copied() else {
            return Err(LoadError::Malformed(format!("tensor {name} is missing")));
        };
        let at = self.data.saturating_add(tensor.offset);
        self.file.seek(SeekFrom::Start(at)).map_err(LoadError::Read)?;
        read_rows(&mut self.file, name, tensor, each)
    }
}

/// Reads the rows of a tensor from where a file stands.
pub(super) fn read_rows(file: &mut impl Read, name: &str, tensor: Tensor, each: EachRow<'_>) -> Result<(), LoadError> {
    let mut bytes = vec![0; tensor.row_bytes() as usize];
    let mut row = Vec::with_capacity(tensor.columns);
    for n in 0..tensor.rows {
        file.read_exact(&mut bytes).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => LoadError::Malformed(format!("tensor {name} ends beyond the file")),
            _ => LoadError::Read(e),
        })?;
        row.clear();
        tensor.kind.plain(&bytes, &mut row);
        if row.len() != tensor.columns || row.iter().any(|x| !x.is_finite()) {
            return Err(LoadError::Malformed(format!("row {n} of tensor {name} has elements that are no numbers")));
        }
        each(n, &row)?;
    }
    Ok(())
}
