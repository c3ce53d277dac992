//! A segment's payload: lanes, parts of equal length that are coded each by itself.
//!
//! Lanes are decoded in lockstep, one token of each at a time, so that one pass over the weights serves all. Each is also
//! readable alone, and when others are damaged.
//!
//! ```text
//! offset  width      field
//!      0      1      version: 1, or 2 for models of bytes
//!      1      1      bytes of a lane, as the power of two: 10 to 16; the last lane may be shorter
//!      2      1      of version 2 alone, form: the channels less 1 in bits 0 and 1, the beginning in the others
//!      .  1 to 3     for each lane: bytes of its code (LEB128)
//!      .      4      for each lane: CRC32C of its plain bytes
//!      .             codes, one after the other, to the end
//! ```
//! Numbers are little-endian. A code is that of `ShareEncoder`: the tokens of the lane, as `memory` asks about them; after an
//! escape, a byte of equal shares. A lane begins as a text does. When its stream has read as many tokens as the context has,
//! it forgets them, and goes on with the token that begins a text and the last token.
//!
//! Models of bytes have other lanes in two ways. Of several channels, each byte of a lane belongs to one in turn (red, green, blue),
//! and the stream reads one channel after the other, each from its own beginning. And a stream that has read as many tokens as
//! the context has begins anew as if nothing had been before, as such models were shown files.
//!
//! Lanes share nothing. A text that all of them look for repeats in, beside what each has said itself, was tried: with that of
//! the prior which is most like the segment, lanes of 4 KiB became 2 % smaller for Rust, 4 to 9 % for logs, HTML and JSON of a
//! volume that was trained, and 1 to 2 % larger for Python and XML; with 32 KiB of the same file just before, 0 to 11 %
//! smaller. What short lanes lack is what the model itself would have read.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cdf::{Shares, spread};
use super::memory::Memory;
use super::pair::Mate;
use super::patches::Reading;
use super::step::{ROWS_MAX, Row, Work};
use super::tokens::Symbol;
use super::{LanguageModel, ModelKind};
use crate::base::{crc32c, put_varint, take_varint};
use crate::entropy::{ShareDecoder, ShareEncoder};
use crate::models::Error;

const VERSION: u8 = 1;
const VERSION_OF_BYTES: u8 = 2;
/// Most channels.
const CHANNELS_MAX: usize = 4;
/// Bytes from the middle of a segment by which its form is chosen: the number of channels, and what it begins with.
const CHANNEL_SAMPLE: usize = 32 << 10;
const BEGINNING_SAMPLE: usize = 256;
/// Shortest and longest lanes, bytes.
pub const LANE_BYTES_MIN: usize = 1 << 10;
pub const LANE_BYTES_MAX: usize = 1 << 16;
/// Lanes that are decoded in lockstep: two rows of each fit a step.
pub(super) const LANES_AT_ONCE: usize = ROWS_MAX / 2;
/// About what a payload says of a lane before its code, bytes.
const LANE_HEADER_BYTES: usize = 6;

/// Plain bytes of the lanes of a payload, of which the last may be shorter. `None` for bytes that are no payload.
pub fn lane_bytes(payload: &[u8]) -> Option<usize> {
    match payload {
        [VERSION | VERSION_OF_BYTES, power @ 10..=16, ..] => Some(1 << power),
        _ => None,
    }
}

/// How the bytes of lanes are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Form {
    /// 1 to `CHANNELS_MAX`.
    channels: usize,
    /// Which of the tokens that a stream can begin with.
    beginning: usize,
}

/// That of text.
const PLAIN: Form = Form { channels: 1, beginning: 0 };

impl Form {
    /// That of a payload, and what comes behind it.
    fn split(payload: &[u8]) -> Option<(Form, &[u8])> {
        match payload {
            [VERSION, _, rest @ ..] => Some((PLAIN, rest)),
            [VERSION_OF_BYTES, _, form, rest @ ..] => {
                Some((Form { channels: usize::from(form & 3) + 1, beginning: usize::from(form >> 2) }, rest))
            }
            _ => None,
        }
    }

    fn to_byte(self) -> u8 {
        (self.channels - 1) as u8 | (self.beginning as u8) << 2
    }

    /// Bytes of each channel of a lane.
    fn lens(self, lane_len: usize) -> impl Iterator<Item = usize> {
        (0..self.channels.min(lane_len)).map(move |n| (lane_len - n).div_ceil(self.channels))
    }

    /// True where so many bytes of a lane have been read and a channel begins.
    fn begins(self, done: usize, lane_len: usize) -> bool {
        let mut from = 0;
        self.lens(lane_len).any(|len| {
            from += len;
            from - len == done
        })
    }

    /// The bytes of a lane, channel after channel.
    fn apart(self, lane: &[u8]) -> Vec<u8> {
        (0..self.channels).flat_map(|n| lane.iter().skip(n).step_by(self.channels)).copied().collect()
    }

    /// The other way round.
    fn together(self, channels: Vec<u8>) -> Vec<u8> {
        if self.channels == 1 {
            return channels;
        }
        let mut lane = vec![0; channels.len()];
        let places = (0..self.channels).flat_map(|n| (n..channels.len()).step_by(self.channels));
        for (byte, place) in channels.iter().zip(places) {
            lane.get_mut(place).into_iter().for_each(|to| *to = *byte);
        }
        lane
    }
}

/// The number of channels that bytes seem to have: that at whose distance they differ the least. Fewer unless more are clearly
/// better.
pub(super) fn channels_of(raw: &[u8]) -> usize {
    let middle = raw.len().saturating_sub(CHANNEL_SAMPLE) / 2;
    let sample = raw.get(middle..).unwrap_or(raw);
    let sample = sample.get(..CHANNEL_SAMPLE).unwrap_or(sample);
    let bits = |distance: usize| {
        let mut counts = [0u32; 256];
        for (before, now) in sample.iter().zip(sample.iter().skip(distance)) {
            counts[usize::from(now.wrapping_sub(*before))] += 1;
        }
        let total = f64::from(counts.iter().sum::<u32>().max(1));
        counts.iter().filter(|n| **n > 0).map(|n| -f64::from(*n) * (f64::from(*n) / total).log2()).sum::<f64>() / total
    };
    let one = (1, bits(1) * 0.97);
    (2..=CHANNELS_MAX).map(|n| (n, bits(n))).fold(one, |a, b| if b.1 < a.1 { b } else { a }).0
}

/// A lane as it is in a payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane<'a> {
    form: Form,
    code: &'a [u8],
    /// Plain bytes, and their checksum.
    len: usize,
    crc: u32,
}

fn put_number(n: usize, out: &mut Vec<u8>) {
    put_varint(out, n as u64);
}

/// Reads a number of at most three bytes.
fn number(bytes: &mut &[u8]) -> Option<usize> {
    take_varint(bytes, 3).map(|n| n as usize)
}

/// The lanes of a payload.
pub(super) fn split(payload: &[u8], raw_len: usize) -> Option<Vec<Lane<'_>>> {
    let lane_bytes = lane_bytes(payload)?;
    let count = raw_len.div_ceil(lane_bytes);
    let (form, mut rest) = Form::split(payload)?;
    let lens: Vec<usize> = (0..count).map(|_| number(&mut rest)).collect::<Option<_>>()?;
    let (crcs, mut codes) = rest.split_at_checked(count * 4)?;
    let mut lanes = Vec::with_capacity(count);
    for ((n, len), crc) in lens.into_iter().enumerate().zip(crcs.as_chunks::<4>().0) {
        let (code, after) = codes.split_at_checked(len)?;
        codes = after;
        lanes.push(Lane { form, code, len: lane_bytes.min(raw_len - n * lane_bytes), crc: u32::from_le_bytes(*crc) });
    }
    codes.is_empty().then_some(lanes)
}

/// CRC32C of the plain bytes of a lane, as its payload has it; `None` where there is no such lane.
pub fn lane_check(payload: &[u8], raw_len: usize, lane: usize) -> Option<u32> {
    split(payload, raw_len)?.get(lane).map(|lane| lane.crc)
}

/// Numbers below `count`, from the middle on and so that the first few are spread over all.
fn spread_order(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|n| n.reverse_bits().wrapping_sub(1));
    order
}

/// Bytes that `lanes` lanes of `plain` bytes may have taken if all `raw_len` are to come below: as many as their part of it,
/// and more the fewer they are, since others may differ. One may take a quarter more, many a fiftieth.
fn fair_bytes(lanes: usize, plain: usize, raw_len: usize, below: usize) -> usize {
    let part = below as f64 * plain as f64 / raw_len.max(1) as f64;
    ((part * (1.02 + 0.23 / lanes as f64)) as usize).min(below)
}

const DAMAGED: Error = Error::Corrupt("a lane is damaged");

/// A lane that is being decoded.
struct Reader<'a> {
    /// Its number, and what it is to become.
    number: usize,
    lane: Lane<'a>,
    stream: usize,
    decoder: ShareDecoder<'a>,
    memory: Memory,
    /// Bytes, channel after channel.
    out: Vec<u8>,
    /// Read next.
    token: u32,
}

impl LanguageModel {
    /// Codes a segment in lanes of `lane_bytes`, a power of two from `LANE_BYTES_MIN` to `LANE_BYTES_MAX`. `None` when the
    /// payload does not come below `below` bytes, or when `stop` is set meanwhile.
    ///
    /// Lanes from inside come first and tell about the others: what will clearly not come below is given up after one or a
    /// few, and what is below anyhow loses nothing.
    ///
    /// # Blocking
    /// Some milliseconds for each token. Returns within a tenth of a second or so after `stop` is set.
    pub fn encode(&self, raw: &[u8], lane_bytes: usize, below: usize, stop: &AtomicBool) -> Option<Vec<u8>> {
        assert!(lane_bytes.is_power_of_two() && (LANE_BYTES_MIN..=LANE_BYTES_MAX).contains(&lane_bytes));
        let mut streams = self.streams(1);
        let (mut work, mut shares) = (Work::default(), Shares::default());
        let form = self.form_for(raw, &mut streams, &mut work, &mut shares);
        let mut lanes: Vec<(&[u8], Vec<u8>)> = raw.chunks(lane_bytes).map(|lane| (lane, Vec::new())).collect();
        let (mut plain, mut coded) = (0, 0);
        for (done, n) in spread_order(lanes.len()).into_iter().enumerate() {
            let Some((lane, code)) = lanes.get_mut(n) else { continue };
            plain += lane.len();
            let left = fair_bytes(done + 1, plain, raw.len(), below).checked_sub(coded + LANE_HEADER_BYTES)?;
            *code = self.encode_lane(lane, form, &mut streams, &mut work, &mut shares, left, stop)?;
            coded += code.len() + LANE_HEADER_BYTES;
        }
        let mut payload = vec![VERSION, lane_bytes.trailing_zeros() as u8];
        if self.is_of_bytes() {
            payload = vec![VERSION_OF_BYTES, lane_bytes.trailing_zeros() as u8, form.to_byte()];
        }
        lanes.iter().for_each(|(_, code)| put_number(code.len(), &mut payload));
        lanes.iter().for_each(|(lane, _)| payload.extend(crc32c(lane).to_le_bytes()));
        lanes.iter().for_each(|(_, code)| payload.extend(code));
        (payload.len() < below).then_some(payload)
    }

    /// True where every byte is a token.
    fn is_of_bytes(&self) -> bool {
        self.kind != ModelKind::Text
    }

    /// The token that begins lanes of a form.
    fn start(&self, form: Form) -> u32 {
        self.tokens.start + form.beginning as u32
    }

    /// True for forms that lanes of the model can have.
    fn takes(&self, form: Form) -> bool {
        form.beginning < self.beginnings() && (self.is_of_bytes() || form.channels == 1)
    }

    /// The form that a segment is to be coded in. Any that the model takes would do.
    fn form_for<'n>(&'n self, raw: &[u8], streams: &mut Reading, work: &mut Work<'n>, shares: &mut Shares) -> Form {
        let channels = if self.kind == ModelKind::Image { channels_of(raw) } else { 1 };
        let middle = raw.len().saturating_sub(BEGINNING_SAMPLE) / 2;
        let sample = raw.get(middle..).unwrap_or(raw);
        let sample = sample.get(..BEGINNING_SAMPLE).unwrap_or(sample);
        let never = AtomicBool::new(false);
        let mut tried = |beginning| {
            let form = Form { channels, beginning };
            self.encode_lane(sample, form, streams, work, shares, usize::MAX, &never)
                .map_or(usize::MAX, |code| code.len())
        };
        let beginning = match self.beginnings() {
            1 => 0,
            count => (0..count).min_by_key(|beginning| tried(*beginning)).unwrap_or(0),
        };
        Form { channels, beginning }
    }

    #[allow(clippy::too_many_arguments)]
    fn encode_lane<'n>(
        &'n self,
        lane: &[u8],
        form: Form,
        streams: &mut Reading,
        work: &mut Work<'n>,
        shares: &mut Shares,
        bytes_max: usize,
        stop: &AtomicBool,
    ) -> Option<Vec<u8>> {
        let bytes = form.apart(lane);
        let (mut encoder, mut memory) = (ShareEncoder::default(), Memory::new(lane.len()));
        let mut rest = bytes.as_slice();
        for len in form.lens(lane.len()) {
            let channel;
            (channel, rest) = rest.split_at(len);
            self.encode_channel(channel, form, streams, work, shares, (&mut encoder, &mut memory), bytes_max, stop)?;
        }
        Some(encoder.finish())
    }

    #[allow(clippy::too_many_arguments)]
    fn encode_channel<'n>(
        &'n self,
        bytes: &[u8],
        form: Form,
        streams: &mut Reading,
        work: &mut Work<'n>,
        shares: &mut Shares,
        (encoder, memory): (&mut ShareEncoder, &mut Memory),
        bytes_max: usize,
        stop: &AtomicBool,
    ) -> Option<()> {
        let symbols = self.tokens.cut(bytes);
        let row = |token| Row { stream: 0, token };
        let (start, context) = (self.start(form), self.context());
        // The token before each symbol is read for it; that of the last symbol itself is not.
        let mut before = start;
        let mut rest = symbols.as_slice();
        let mut len = 0;
        while !rest.is_empty() {
            let mut rows = Vec::with_capacity(ROWS_MAX);
            if len == 0 || len == context {
                streams.clear(0);
                len = 0;
                if self.is_of_bytes() {
                    before = start;
                }
                rows.extend((before != start).then_some(row(start)));
            }
            let extra = rows.len();
            let room = ROWS_MAX.min(context - len) - extra;
            let (now, after) = rest.split_at(room.min(rest.len()));
            rest = after;
            for symbol in now {
                rows.push(row(before));
                before = self.read_next(*symbol);
            }
            len += rows.len();
            self.step(&rows, streams, work);
            for (n, symbol) in now.iter().enumerate() {
                spread(self.path, work.logits(&self.network, extra + n), shares);
                memory.encode(self.read_next(*symbol), shares, encoder);
                if let Symbol::Byte(byte) = symbol {
                    encoder.encode(u64::from(*byte), 1, 256);
                }
            }
            if encoder.bytes() > bytes_max || stop.load(Ordering::Relaxed) {
                return None;
            }
        }
        Some(())
    }

    /// Tokens that a text is read as.
    pub fn tokens(&self, raw: &[u8]) -> u64 {
        self.tokens.cut(raw).len() as u64
    }

    /// The token that a stream reads for a symbol.
    fn read_next(&self, symbol: Symbol) -> u32 {
        match symbol {
            Symbol::Token(token) => token,
            Symbol::Byte(_) => self.tokens.start,
        }
    }

    /// Gives back the `raw_len` bytes of a payload. Any bytes may be given.
    ///
    /// # Errors
    /// `Corrupt` when any lane is, or when `stop` is set meanwhile.
    ///
    /// # Blocking
    /// Some milliseconds for each token. Returns within some milliseconds for each lane after `stop` is set.
    pub fn decode(&self, payload: &[u8], raw_len: usize, stop: &AtomicBool) -> Result<Vec<u8>, Error> {
        let lanes = lane_bytes(payload).map_or(0, |bytes| raw_len.div_ceil(bytes));
        self.decode_lanes(payload, raw_len, 0..lanes, stop)
    }

    /// Gives back the bytes of some lanes of a payload, one after the other; of the others only what the header says of them
    /// has to be right. Any bytes may be given.
    ///
    /// # Errors
    /// `Corrupt` when the header or one of the lanes is, when there are no such lanes, or when `stop` is set meanwhile.
    ///
    /// # Blocking
    /// As `decode`.
    pub fn decode_lanes(
        &self,
        payload: &[u8],
        raw_len: usize,
        lanes: Range<usize>,
        stop: &AtomicBool,
    ) -> Result<Vec<u8>, Error> {
        let all = split(payload, raw_len).ok_or(Error::Corrupt("its lanes do not fit it"))?;
        let lanes = all.get(lanes).ok_or(Error::Corrupt("it has no such lane"))?;
        if !lanes.iter().all(|lane| self.takes(lane.form)) {
            return Err(Error::Corrupt("its lanes are those of another kind of model"));
        }
        let mut streams = self.streams(LANES_AT_ONCE);
        // One that is read alone is waited for.
        let texts = match lanes {
            [_] => std::thread::scope(|scope| {
                let mut work = Work::of(Mate::start(scope, self.path));
                self.read(lanes, stop, &mut streams, &mut work)
            }),
            _ => self.read(lanes, stop, &mut streams, &mut Work::default()),
        };
        texts.map(|lanes| lanes.concat())
    }

    /// Decodes lanes in lockstep, as many at a time as there are streams, and room for what they read.
    pub(super) fn read<'n>(
        &'n self,
        lanes: &[Lane<'_>],
        stop: &AtomicBool,
        streams: &mut Reading,
        work: &mut Work<'n>,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let mut texts = vec![Vec::new(); lanes.len()];
        let mut waiting: Vec<(usize, Lane<'_>)> = lanes.iter().copied().enumerate().rev().collect();
        let mut idle: Vec<usize> = (0..LANES_AT_ONCE).rev().collect();
        // Those that began first come first.
        let mut readers: Vec<Reader<'_>> = Vec::new();
        let mut at_once = LANES_AT_ONCE;
        let (mut shares, mut rows, mut lasts) = (Shares::default(), Vec::new(), Vec::new());
        loop {
            while readers.len() < at_once
                && let Some(stream) = idle.pop()
                && let Some((number, lane)) = waiting.pop()
            {
                readers.push(Reader {
                    number,
                    lane,
                    stream,
                    decoder: ShareDecoder::new(lane.code),
                    memory: Memory::new(lane.len),
                    out: Vec::with_capacity(lane.len),
                    token: self.start(lane.form),
                });
            }
            if readers.is_empty() {
                return Ok(texts);
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Corrupt("it was not read to the end"));
            }
            // A model's context fits, so that the first always goes on. The last wait, and begin anew when others have ended.
            while readers.len() > 1
                && readers.iter().map(|r| streams.wants(r.stream, 2)).sum::<usize>() > streams.room()
            {
                if let Some(reader) = readers.pop() {
                    streams.end(reader.stream);
                    idle.push(reader.stream);
                    waiting.push((reader.number, reader.lane));
                    at_once = readers.len();
                }
            }
            rows.clear();
            lasts.clear();
            for reader in &mut readers {
                let (stream, form, start) = (reader.stream, reader.lane.form, self.start(reader.lane.form));
                let channel_begins = self.is_of_bytes() && form.begins(reader.out.len(), reader.lane.len);
                if streams.len(stream) == self.context() || channel_begins {
                    streams.clear(stream);
                    if self.is_of_bytes() {
                        reader.token = start;
                    }
                }
                if streams.len(stream) == 0 && reader.token != start {
                    rows.push(Row { stream, token: start });
                }
                rows.push(Row { stream, token: reader.token });
                lasts.push(rows.len() - 1);
            }
            self.step(&rows, streams, work);
            for (row, reader) in lasts.iter().zip(&mut readers) {
                spread(self.path, work.logits(&self.network, *row), &mut shares);
                reader.read(self, &mut shares)?;
            }
            let mut n = 0;
            while let Some(reader) = readers.get(n) {
                if reader.out.len() < reader.lane.len {
                    n += 1;
                    continue;
                }
                let reader = readers.remove(n);
                let text = reader.lane.form.together(reader.out);
                if !reader.decoder.is_at_end() || crc32c(&text) != reader.lane.crc {
                    return Err(DAMAGED);
                }
                streams.end(reader.stream);
                idle.push(reader.stream);
                if let Some(place) = texts.get_mut(reader.number) {
                    *place = text;
                }
            }
        }
    }
}

impl Reader<'_> {
    /// Reads what comes after the token that was read.
    ///
    /// # Errors
    /// `Corrupt` when it is more than the lane has.
    fn read(&mut self, model: &LanguageModel, shares: &mut Shares) -> Result<(), Error> {
        self.token = self.memory.decode(shares, &mut self.decoder);
        if self.token == model.tokens.start {
            let byte = self.decoder.place(256);
            self.decoder.pass(byte, 1, 256);
            self.out.push(byte as u8);
            return Ok(());
        }
        let bytes = model.tokens.bytes(self.token);
        // Every step gives a byte at least, so that the length bounds the work.
        if bytes.is_empty() || self.out.len() + bytes.len() > self.lane.len {
            return Err(DAMAGED);
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}
