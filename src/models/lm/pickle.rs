//! Checkpoints of PyTorch: a zip archive of a pickle, which says what tensors there are, and a file of elements for each storage.
//! They are read as a file of safetensors that is put together of their parts, so that only one format is loaded, and kept.
//!
//! A pickle is a program. Here it makes nothing but numbers, texts, lists and what it says of tensors; what else it asks for is
//! passed over, and nothing of it is ever run. All that it makes stands in one list, so that nothing is nested, and what is named
//! again is not copied: a pickle takes memory in proportion to its length. (candle's reader copies what is named again, which
//! doubles with each line of some pickles, panics at some, and reads files by their paths alone.)

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::rc::Rc;

use zip::{CompressionMethod, ZipArchive};

use super::LoadError;

/// Longest pickle, bytes: one of 200 tensors takes 30 KB, and thrice that with what an optimizer knew of them.
const PICKLE_BYTES_MAX: u64 = 1 << 20;
/// Longest text that is a name, bytes; what is longer names nothing.
const NAME_BYTES_MAX: usize = 1024;
/// Most tensors, and most dimensions of one.
const TENSORS_MAX: usize = 16_384;
const DIMENSIONS_MAX: usize = 8;
/// Where a checkpoint has its weights beside other things.
const STATES: [&str; 2] = ["model", "state_dict"];
/// Masks, which are of no use, and are as large as some weights.
const IDLE: [&str; 2] = [".attn.bias", ".attn.masked_bias"];

/// A file made of some bytes and of parts of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spliced {
    /// What it begins with.
    pub head: Vec<u8>,
    /// Where in the other file what comes next is, and its length, bytes.
    pub parts: Vec<(u64, u64)>,
}

/// What a pickle makes. Numbers are places in the list of all.
#[derive(Clone, Debug)]
enum Node {
    Number(i64),
    Text(Rc<str>),
    /// A module and a name in it.
    Named(Rc<str>, Rc<str>),
    List(Vec<usize>),
    Pairs(Vec<(usize, usize)>),
    Storage {
        kind: &'static str,
        bytes_each: u64,
        key: Rc<str>,
    },
    Tensor(Tensor),
    Other,
}

#[derive(Clone, Debug)]
struct Tensor {
    storage: usize,
    /// Elements before its first.
    offset: u64,
    shape: Vec<u64>,
    strides: Vec<u64>,
}

/// Storages by the names that PyTorch has for them: what safetensors calls their elements, and bytes of each.
const STORAGES: [(&str, &str, u64); 10] = [
    ("FloatStorage", "F32", 4),
    ("HalfStorage", "F16", 2),
    ("BFloat16Storage", "BF16", 2),
    ("DoubleStorage", "F64", 8),
    ("LongStorage", "I64", 8),
    ("IntStorage", "I32", 4),
    ("ShortStorage", "I16", 2),
    ("CharStorage", "I8", 1),
    ("ByteStorage", "U8", 1),
    ("BoolStorage", "BOOL", 1),
];

fn malformed(what: impl std::fmt::Display) -> LoadError {
    LoadError::Malformed(format!("its pickle {what}"))
}

/// Reads a pickle.
struct Machine<'a> {
    rest: &'a [u8],
    nodes: Vec<Node>,
    stack: Vec<usize>,
    marks: Vec<usize>,
    memo: HashMap<u32, usize>,
}

impl Machine<'_> {
    fn take(&mut self, len: usize) -> Result<&[u8], LoadError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| malformed("was cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// A number of so many bytes, the lowest first.
    fn number(&mut self, len: usize) -> Result<u64, LoadError> {
        Ok(self.take(len)?.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    fn text(&mut self, len: u64) -> Result<String, LoadError> {
        let len = usize::try_from(len).map_err(|_| malformed("was cut off"))?;
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    fn line(&mut self) -> Result<String, LoadError> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| malformed("was cut off"))?;
        let line = self.text(end as u64)?;
        self.take(1)?;
        Ok(line)
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn pop(&mut self) -> Result<usize, LoadError> {
        self.stack.pop().ok_or_else(|| malformed("takes what is not there"))
    }

    fn top(&self) -> Result<usize, LoadError> {
        self.stack.last().copied().ok_or_else(|| malformed("takes what is not there"))
    }

    /// All since the last mark.
    fn marked(&mut self) -> Result<Vec<usize>, LoadError> {
        let from = self.marks.pop().filter(|from| *from <= self.stack.len());
        from.map(|from| self.stack.split_off(from)).ok_or_else(|| malformed("takes what is not there"))
    }

    fn list(&mut self, len: usize) -> Result<(), LoadError> {
        let from = self.stack.len().checked_sub(len).ok_or_else(|| malformed("takes what is not there"))?;
        let items = self.stack.split_off(from);
        self.push(Node::List(items));
        Ok(())
    }

    fn node(&self, at: usize) -> &Node {
        self.nodes.get(at).unwrap_or(&Node::Other)
    }

    fn items(&self, at: usize) -> &[usize] {
        if let Node::List(items) = self.node(at) { items } else { &[] }
    }

    fn numbers(&self, at: usize) -> Option<Vec<u64>> {
        let number = |at: &usize| if let Node::Number(n) = self.node(*at) { u64::try_from(*n).ok() } else { None };
        Some(self.items(at)).filter(|items| items.len() <= DIMENSIONS_MAX)?.iter().map(number).collect()
    }

    /// ("storage", its class, its file, where it was, its elements).
    fn storage(&self, at: usize) -> Node {
        let &[_, class, key, ..] = self.items(at) else { return Node::Other };
        let (Node::Named(_, class), Node::Text(key)) = (self.node(class), self.node(key)) else { return Node::Other };
        let known = STORAGES.iter().find(|(name, ..)| *name == &**class);
        known.map_or(Node::Other, |(_, kind, bytes_each)| Node::Storage {
            kind,
            bytes_each: *bytes_each,
            key: key.clone(),
        })
    }

    /// (storage, offset, shape, strides, ...).
    fn tensor(&self, arguments: &[usize]) -> Node {
        let &[storage, offset, shape, strides, ..] = arguments else { return Node::Other };
        let (Node::Number(offset), Some(shape), Some(strides)) =
            (self.node(offset), self.numbers(shape), self.numbers(strides))
        else {
            return Node::Other;
        };
        u64::try_from(*offset).map_or(Node::Other, |offset| Node::Tensor(Tensor { storage, offset, shape, strides }))
    }

    /// What a function makes of its arguments: of those that checkpoints use. It may be a node that is there.
    fn call(&self, function: usize, arguments: usize) -> Result<usize, Node> {
        let Node::Named(module, name) = self.node(function) else { return Err(Node::Other) };
        let arguments = self.items(arguments);
        match (&**module, &**name) {
            ("collections", "OrderedDict" | "defaultdict") => Err(Node::Pairs(Vec::new())),
            ("torch._utils", "_rebuild_tensor_v2") => Err(self.tensor(arguments)),
            ("torch._utils", "_rebuild_parameter") => arguments.first().copied().ok_or(Node::Other),
            // (how it is made, its type, the arguments of that, ...)
            ("torch._tensor", "_rebuild_from_type_v2") => {
                Err(arguments.get(2).map_or(Node::Other, |at| self.tensor(self.items(*at))))
            }
            _ => Err(Node::Other),
        }
    }

    fn put(&mut self, pairs: &[usize]) -> Result<(), LoadError> {
        let to = self.top()?;
        if let Some(Node::Pairs(all)) = self.nodes.get_mut(to) {
            all.extend(pairs.as_chunks::<2>().0.iter().map(|[name, value]| (*name, *value)));
        }
        Ok(())
    }

    fn append(&mut self, more: &[usize]) -> Result<(), LoadError> {
        let to = self.top()?;
        if let Some(Node::List(all)) = self.nodes.get_mut(to) {
            all.extend_from_slice(more);
        }
        Ok(())
    }

    fn remember(&mut self, name: u32) -> Result<(), LoadError> {
        let at = self.top()?;
        self.memo.insert(name, at);
        Ok(())
    }

    fn recall(&mut self, name: u64) -> Result<(), LoadError> {
        let at = u32::try_from(name).ok().and_then(|name| self.memo.get(&name));
        self.stack.push(*at.ok_or_else(|| malformed("names what it has not made"))?);
        Ok(())
    }

    /// Goes through all of it: what it made.
    fn run(&mut self) -> Result<usize, LoadError> {
        loop {
            match self.number(1)? as u8 {
                b'.' => return self.pop(),
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b')' | b']' => self.push(Node::List(Vec::new())),
                b'}' => self.push(Node::Pairs(Vec::new())),
                b't' | b'l' => {
                    let items = self.marked()?;
                    self.push(Node::List(items));
                }
                b'd' => {
                    let items = self.marked()?;
                    self.push(Node::Pairs(Vec::new()));
                    self.put(&items)?;
                }
                0x85 => self.list(1)?,
                0x86 => self.list(2)?,
                0x87 => self.list(3)?,
                b'q' => {
                    let name = self.number(1)? as u32;
                    self.remember(name)?;
                }
                b'r' => {
                    let name = self.number(4)? as u32;
                    self.remember(name)?;
                }
                0x94 => self.remember(self.memo.len() as u32)?,
                b'h' => {
                    let name = self.number(1)?;
                    self.recall(name)?;
                }
                b'j' => {
                    let name = self.number(4)?;
                    self.recall(name)?;
                }
                op @ (b'X' | 0x8c | b'U' | b'T' | b'B' | b'C') => {
                    let len = self.number(if matches!(op, 0x8c | b'U' | b'C') { 1 } else { 4 })?;
                    let text = self.text(len)?;
                    self.push(if text.len() <= NAME_BYTES_MAX { Node::Text(text.into()) } else { Node::Other });
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Node::Named(module.into(), name.into()));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let node = match (self.node(module), self.node(name)) {
                        (Node::Text(module), Node::Text(name)) => Node::Named(module.clone(), name.clone()),
                        _ => Node::Other,
                    };
                    self.push(node);
                }
                b'J' => {
                    let n = self.number(4)? as u32 as i32;
                    self.push(Node::Number(n.into()));
                }
                b'K' => {
                    let n = self.number(1)?;
                    self.push(Node::Number(n as i64));
                }
                b'M' => {
                    let n = self.number(2)?;
                    self.push(Node::Number(n as i64));
                }
                0x8a => {
                    let len = self.number(1)? as usize;
                    let bytes = self.take(len)?;
                    // The sign is that of the highest bit.
                    let fill = if bytes.last().is_some_and(|byte| *byte > 127) { -1 } else { 0 };
                    let n = bytes.iter().rev().fold(fill, |n, byte| n << 8 | i64::from(*byte));
                    self.push(if len <= 8 { Node::Number(n) } else { Node::Other });
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Node::Other);
                }
                b'N' | 0x88 | 0x89 => self.push(Node::Other),
                b'Q' => {
                    let at = self.pop()?;
                    self.push(self.storage(at));
                }
                b'R' => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    match self.call(function, arguments) {
                        Ok(at) => self.stack.push(at),
                        Err(node) => self.push(node),
                    }
                }
                0x81 => {
                    let _ = (self.pop()?, self.pop()?);
                    self.push(Node::Other);
                }
                b'b' | b'0' => drop(self.pop()?),
                b'2' => self.stack.push(self.top()?),
                b's' => {
                    let (value, name) = (self.pop()?, self.pop()?);
                    self.put(&[name, value])?;
                }
                b'u' => {
                    let items = self.marked()?;
                    self.put(&items)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.marked()?;
                    self.append(&items)?;
                }
                other => return Err(malformed(format_args!("has an operation {other:#04x}, which is not known"))),
            }
        }
    }

    /// The tensors of what was made, by their names: of its part that is called so, where there is one.
    fn tensors(&self, root: usize) -> Vec<(&str, &Tensor)> {
        let pairs = |at: usize| if let Node::Pairs(pairs) = self.node(at) { pairs.as_slice() } else { &[] };
        let named = |at: usize| if let Node::Text(name) = self.node(at) { &**name } else { "" };
        let part = pairs(root).iter().find(|(name, value)| STATES.contains(&named(*name)) && !pairs(*value).is_empty());
        let of = |(name, value): &(usize, usize)| match self.node(*value) {
            Node::Tensor(tensor) => Some((named(*name), tensor)),
            _ => None,
        };
        pairs(part.map_or(root, |(_, value)| *value)).iter().filter_map(of).collect()
    }
}

/// True where elements stand row after row.
fn stands_in_rows(tensor: &Tensor) -> bool {
    let mut each = 1u64;
    let dimensions = tensor.shape.iter().zip(&tensor.strides).rev();
    tensor.shape.len() == tensor.strides.len()
        && dimensions.into_iter().all(|(len, stride)| {
            let fits = *len == 1 || *stride == each;
            each = each.saturating_mul(*len);
            fits
        })
}

/// Reads a checkpoint of PyTorch (`torch.save`, from version 1.6 on) as a file of safetensors: of what was saved, or of its part
/// `model` or `state_dict`, all tensors but masks.
///
/// # Errors
/// Says what is damaged or not known.
pub fn as_safetensors<R: Read + Seek>(mut file: R) -> Result<Spliced, LoadError> {
    let unusable = |e: zip::result::ZipError| match e {
        zip::result::ZipError::Io(e) => LoadError::Read(e),
        e => LoadError::Malformed(format!(
            "it is no zip archive, as PyTorch saves since version 1.6 ({e}); an older one can load it and save it anew"
        )),
    };
    let file_bytes = file.seek(SeekFrom::End(0)).map_err(LoadError::Read)?;
    let mut archive = ZipArchive::new(file).map_err(unusable)?;
    let mut prefix = None;
    for n in 0..archive.len() {
        let entry = archive.by_index_raw(n).map_err(unusable)?;
        let name = entry.name().map_err(unusable)?.into_owned();
        if name == "data.pkl" || name.ends_with("/data.pkl") {
            prefix = Some((n, name.trim_end_matches("data.pkl").to_string()));
            break;
        }
    }
    let Some((n, prefix)) = prefix else {
        return Err(LoadError::Malformed("it is a zip archive without data.pkl, and so none of PyTorch's".into()));
    };
    let mut pickle = Vec::new();
    archive
        .by_index(n)
        .map_err(unusable)?
        .take(PICKLE_BYTES_MAX + 1)
        .read_to_end(&mut pickle)
        .map_err(LoadError::Read)?;
    if pickle.len() as u64 > PICKLE_BYTES_MAX {
        return Err(malformed(format_args!("is longer than {PICKLE_BYTES_MAX} bytes")));
    }
    if let Some(n) = archive.index_for_name(&format!("{prefix}byteorder")) {
        let mut order = Vec::new();
        archive.by_index(n).map_err(unusable)?.take(16).read_to_end(&mut order).map_err(LoadError::Read)?;
        if order == b"big" {
            return Err(LoadError::Unsupported("its elements have their highest byte first".into()));
        }
    }
    let (nodes, stack) = (Vec::new(), Vec::new());
    let mut machine = Machine { rest: &pickle, nodes, stack, marks: Vec::new(), memo: HashMap::new() };
    let root = machine.run()?;
    let mut tensors = machine.tensors(root);
    tensors.retain(|(name, _)| !IDLE.iter().any(|end| name.ends_with(end)));
    if tensors.is_empty() || tensors.len() > TENSORS_MAX {
        return Err(malformed(format_args!("has {} tensors by names; known are 1 to {TENSORS_MAX}", tensors.len())));
    }
    let (mut header, mut parts, mut at) = (serde_json::Map::new(), Vec::new(), 0u64);
    for (name, tensor) in tensors {
        let strange = |what: &str| LoadError::Malformed(format!("tensor {name} {what}"));
        let Node::Storage { kind, bytes_each, key } = machine.node(tensor.storage) else {
            return Err(strange("has elements of a kind that is not known"));
        };
        if !stands_in_rows(tensor) {
            return Err(strange("does not stand row after row: save it contiguous"));
        }
        let product = |shape: &[u64]| shape.iter().try_fold(*bytes_each, |n, len| n.checked_mul(*len));
        let from = tensor.offset.checked_mul(*bytes_each);
        let (Some(len), Some(from)) = (product(&tensor.shape), from) else { return Err(strange("is too large")) };
        let Some(n) = archive.index_for_name(&format!("{prefix}data/{key}")) else {
            return Err(strange("has no elements in the archive"));
        };
        let entry = archive.by_index_raw(n).map_err(unusable)?;
        let Some(start) = entry.data_start().filter(|_| entry.compression() == CompressionMethod::Stored) else {
            return Err(strange("is compressed in the archive, which PyTorch does not do"));
        };
        if from.checked_add(len).is_none_or(|end| end > entry.size()) {
            return Err(strange("is longer than its elements in the archive"));
        }
        let (Some(end), Some(start)) = (at.checked_add(len), start.checked_add(from)) else {
            return Err(strange("is too large"));
        };
        if start.checked_add(len).is_none_or(|end| end > file_bytes) {
            return Err(strange("ends beyond the file: it was cut off"));
        }
        let fields = serde_json::json!({ "dtype": kind, "shape": tensor.shape, "data_offsets": [at, end] });
        header.insert(name.to_string(), fields);
        parts.push((start, len));
        at = end;
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    Ok(Spliced { head: [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat(), parts })
}
