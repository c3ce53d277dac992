//! `opened`: compressed formats, taken apart by `containers`, and what is in them coded by the other methods.
//!
//! All that was opened in a segment is put together by its class: members of an archive are small, and a model would start anew
//! for each. What did not open and pictures as lepton codes them are kept as they are. Of the methods that it is given room for
//! (`Room`) the strongest that all the text has room in codes it, so that a segment keeps its decode budget however much its
//! containers expand; where zstd is smaller, it is zstd. Pixels of PNG are coded by `picture` as far as there is time for it and it
//! makes them smallest (`pixels`): photographs always, drawings where it does.
//!
//! A segment stands alone, and is opened by its own bytes; where it goes on with a stream that began before it, its payload
//! holds what the stream may repeat. Cost: that of its text by the method that codes it, and 20 to 80 ns per byte of text to
//! open it and to close it. Idea: C. Schneider, precomp, and D. Steinke, preflate.

mod layout;
mod pixels;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::sound::encode_samples;
use super::{Basis, Coded, Declined, Error, Model, classify, is_nucleotides_alone, model, stands_alone};
use crate::base::{Class, MethodId, ModelId, SEGMENT_BYTES_MAX};
use crate::containers::{self, Before, Kind, Limits, Stream, StreamBefore};
use layout::{Group, Head, Part};

/// Bytes of text that are opened in one segment at most, whatever the budget. Its payload claims no more.
pub const TEXT_BYTES_MAX: usize = 4 << 20;
/// Of a segment at least this part lies in containers that open; where it is less, nothing is gained on what codes all of it.
const OPENED_PART: usize = 16;
/// Bytes by which the class of a text is told.
const SAMPLE_BYTES: usize = 64 << 10;
/// Shorter texts are of no class.
const CLASSED_BYTES_MIN: usize = 200;
/// Less text of a class than this is put together with others: to begin one costs a hundredth of a second, both ways.
const GROUP_BYTES_MIN: usize = 6 << 10;

/// Bytes of text that a method decodes within the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub method: MethodId,
    pub text_bytes: usize,
}

/// What methods decode in about two seconds before anything was measured, the strongest first.
const USUAL: [Room; 5] = [
    Room { method: MethodId::Primed, text_bytes: 1 << 20 },
    Room { method: MethodId::Swift, text_bytes: 3 << 20 },
    Room { method: MethodId::Zstd, text_bytes: TEXT_BYTES_MAX },
    Room { method: MethodId::Sound, text_bytes: 1 << 20 },
    Room { method: MethodId::Picture, text_bytes: 1 << 20 },
];

/// Compressed formats, opened.
pub struct Opened;

/// What is coded together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kept {
    Side,
    Text(Class),
    Pixels(u32, u8),
    /// Samples of so many channels, of so many bytes.
    Samples(u8, u8),
    AsIs,
}

impl Kept {
    /// Text of no class.
    const OTHERS: Kept = Kept::Text(Class::Unknown);
}

fn kept(stream: &Stream) -> Kept {
    match stream.kind {
        Kind::Frame | Kind::Corrections => Kept::Side,
        Kind::Packed | Kind::Lepton => Kept::AsIs,
        Kind::Pixels { row, pixel } => Kept::Pixels(row, pixel),
        Kind::Samples { channels, width } => Kept::Samples(channels, width),
        Kind::Text => match classify(stream.bytes.get(..SAMPLE_BYTES).unwrap_or(&stream.bytes)) {
            Class::Incompressible | Class::Container | Class::Jpeg => Kept::AsIs,
            _ if stream.bytes.len() < CLASSED_BYTES_MIN => Kept::OTHERS,
            class => Kept::Text(class),
        },
    }
}

/// One part of a group, by the smallest of what may code it.
fn coded(bytes: &[u8], kept: Kept, method: MethodId) -> Part {
    let class = match kept {
        Kept::Text(class) => class,
        Kept::Side | Kept::Pixels(..) | Kept::Samples(..) | Kept::AsIs => Class::Binary,
    };
    let smaller = |best: Part, id: MethodId| match model(id).encode(bytes, class, Basis::default()) {
        Ok(coded) if coded.payload.len() < best.payload.len() => Part { method: id, payload: coded.payload },
        Ok(_) | Err(_) => best,
    };
    let mut best = Part { method: MethodId::Raw, payload: bytes.to_vec() };
    if kept == Kept::AsIs {
        return best;
    }
    if let Kept::Samples(channels, width) = kept {
        return match encode_samples(bytes, channels, width) {
            Ok(coded) => Part { method: MethodId::Sound, payload: coded.payload },
            Err(_) => best,
        };
    }
    if method != MethodId::Zstd {
        // The room for text is that of the method, which another must not be slower than.
        let in_time = model(MethodId::Genome).decode_rate_guess() >= model(method).decode_rate_guess();
        let bases = class == Class::Nucleotides && in_time;
        best = if bases { smaller(best, MethodId::Genome) } else { best };
        best = if bases && is_nucleotides_alone(bytes) { best } else { smaller(best, method) };
    }
    // It gains a third on what its quick level makes, and costs as much as models do.
    let quick = super::zstd::quick_bytes(bytes);
    if method == MethodId::Zstd || quick.is_some_and(|quick| quick * 2 <= best.payload.len() * 3) {
        best = smaller(best, MethodId::Zstd);
    }
    best
}

/// The plain bytes of a payload, and what was before them where they go on with a stream.
fn closed(payload: &[u8], raw_len: usize) -> Result<(Vec<u8>, Option<StreamBefore>), Error> {
    let (head, mut reader) = layout::Reader::new(payload, raw_len)?;
    let mut groups = reader.groups(&head)?;
    let mut streams = Vec::with_capacity(head.streams.len());
    for (kind, group) in &head.streams {
        const LESS: Error = Error::Corrupt("a stream of an opened segment is longer than what it lies in");
        let (bytes, at) = groups.get_mut(group.number).ok_or(LESS)?;
        let end = at.checked_add(group.len).ok_or(LESS)?;
        streams.push(Stream { kind: *kind, bytes: bytes.get(*at..end).ok_or(LESS)?.to_vec() });
        *at = end;
    }
    containers::close_slice(&head.recipe, &streams, raw_len, TEXT_BYTES_MAX).map_err(|e| match e {
        containers::OUT_OF_MEMORY => Error::OutOfMemory(e.0),
        _ => Error::Corrupt(e.0),
    })
}

impl Opened {
    /// What the bytes behind a segment go on with, as far as its payload tells: the stream that is cut where it ends. Costs what
    /// decoding it does.
    pub fn before_behind(payload: &[u8], raw_len: usize) -> Option<Before> {
        let (plain, before) = closed(payload, raw_len).ok()?;
        containers::before_behind(&plain, before.as_ref())
    }

    /// What decoding a payload decodes: methods, and plain bytes of each, as far as they are there; any bytes may be given.
    pub fn parts(payload: &[u8]) -> impl Iterator<Item = (MethodId, u32)> {
        layout::parts(payload).map(|(method, plain_len, _)| (method, plain_len as u32))
    }

    /// Codes a segment, with the text in the strongest method that has room for all of it; `rooms` names them in that order.
    ///
    /// # Errors
    /// `Foreign` where nothing of account opens; `DoesNotShrink`.
    pub fn encode_for(raw: &[u8], basis: Basis<'_>, rooms: &[Room]) -> Result<Coded, Declined> {
        let (others, rooms): (Vec<Room>, Vec<Room>) =
            rooms.iter().partition(|room| matches!(room.method, MethodId::Sound | MethodId::Picture));
        let room_of = |method| others.iter().find(|room| room.method == method).map_or(0, |room| room.text_bytes);
        let sound_max = room_of(MethodId::Sound);
        let text_bytes = rooms.iter().map(|room| room.text_bytes).max().unwrap_or(0).min(TEXT_BYTES_MAX);
        let open = |text_bytes: usize| {
            containers::open(raw, basis.before, Limits { text_bytes }).map_err(|why| match why {
                containers::Declined::Failed | containers::Declined::OutOfMemory => Declined::Failed,
                containers::Declined::NothingFound
                | containers::Declined::Foreign
                | containers::Declined::TooLarge
                | containers::Declined::Differs
                | containers::Declined::FourColours => Declined::Foreign,
            })
        };
        let sampled = |opened: &containers::Opened| {
            let samples = opened.streams.iter().filter(|stream| matches!(stream.kind, Kind::Samples { .. }));
            samples.map(|stream| stream.bytes.len()).sum::<usize>()
        };
        let mut opened = open(text_bytes)?;
        if sampled(&opened) > sound_max {
            opened = open(text_bytes.min(sound_max))?;
        }
        if opened.opened_bytes * OPENED_PART < raw.len() {
            return Err(Declined::Foreign);
        }
        // What samples take of the time is not there for text.
        let samples = sampled(&opened);
        let needed = containers::text_bytes(&opened.streams).saturating_sub(samples);
        let free = (sound_max - samples.min(sound_max)) as u64;
        let left = |room: usize| (room as u64 * free / sound_max.max(1) as u64) as usize;

        let mut numbers: BTreeMap<Kept, usize> = BTreeMap::new();
        let mut together: Vec<(Kept, Vec<u8>)> = Vec::new();
        let mut head = Head { recipe: opened.recipe, streams: Vec::with_capacity(opened.streams.len()) };
        let mut totals: BTreeMap<Kept, usize> = BTreeMap::new();
        let kinds: Vec<Kept> = opened.streams.iter().map(kept).collect();
        for (kept, stream) in kinds.iter().zip(&opened.streams) {
            *totals.entry(*kept).or_default() += stream.bytes.len();
        }
        for (kept, stream) in kinds.into_iter().zip(&opened.streams) {
            let few = totals.get(&kept).is_none_or(|total| *total < GROUP_BYTES_MIN);
            let kept = if few && matches!(kept, Kept::Text(_) | Kept::Pixels(..) | Kept::Samples(..)) {
                Kept::OTHERS
            } else {
                kept
            };
            let number = match numbers.entry(kept) {
                Entry::Occupied(number) => *number.get(),
                Entry::Vacant(place) => {
                    together.push((kept, Vec::new()));
                    *place.insert(together.len() - 1)
                }
            };
            if let Some((_, bytes)) = together.get_mut(number) {
                bytes.extend_from_slice(&stream.bytes);
            }
            head.streams.push((stream.kind, Group { number, len: stream.bytes.len() }));
        }
        let time = pixels::Time { text: needed, pixels: left(room_of(MethodId::Picture)) };
        let models = rooms.iter().rev().filter(|room| room.method != MethodId::Zstd);
        let mut room = time.room_beside(models.map(|room| left(room.text_bytes)).next().unwrap_or(0));
        let by_picture = together.iter().map(|(kept, bytes)| match kept {
            Kept::Pixels(row, pixel) => pixels::coded(bytes, *row, *pixel, &mut room),
            Kept::Side | Kept::Text(_) | Kept::Samples(..) | Kept::AsIs => Vec::new(),
        });
        let by_picture: Vec<Vec<pixels::Rows>> = by_picture.collect();
        let surely: Vec<&pixels::Rows> = by_picture.iter().flatten().filter(|rows| rows.sure).collect();
        let spare = |room: &Room| time.spare(&surely, left(room.text_bytes));
        let room = rooms.iter().find(|room| needed == 0 || spare(room) >= 0).or(rooms.last());
        let method = room.map_or(MethodId::Zstd, |room| room.method);
        let text_max = room.map_or(0, |room| left(room.text_bytes));
        let mut spare = room.map_or(0, spare);

        let mut out = layout::Writer::new(containers::REVISION, &head, |bytes| coded(bytes, Kept::Side, method));
        for ((kept, bytes), by_picture) in together.iter().zip(&by_picture) {
            let mut rest = &bytes[..];
            for rows in by_picture {
                let (plain, behind) = rest.split_at(rows.len);
                let takes = time.more_than_text(rows, text_max);
                if rows.sure {
                    out.part(plain.len(), &rows.part);
                } else {
                    let other = coded(plain, *kept, method);
                    let smaller = rows.part.payload.len() < other.payload.len() && takes <= spare;
                    out.part(plain.len(), if smaller { &rows.part } else { &other });
                    spare -= if smaller { takes } else { 0 };
                }
                rest = behind;
                if out.len() >= raw.len() {
                    return Err(Declined::DoesNotShrink);
                }
            }
            // The samples of one time stay together.
            let unit = if let Kept::Samples(channels, width) = kept { channels * width } else { 1 };
            let part_bytes = SEGMENT_BYTES_MAX as usize / usize::from(unit.max(1)) * usize::from(unit.max(1));
            for part in rest.chunks(part_bytes) {
                out.part(part.len(), &coded(part, *kept, method));
                if out.len() >= raw.len() {
                    return Err(Declined::DoesNotShrink);
                }
            }
        }
        Ok(Coded::alone(out.finish()))
    }
}

impl Model for Opened {
    fn id(&self) -> MethodId {
        MethodId::Opened
    }

    fn revision(&self) -> u16 {
        1
    }

    fn memory_bytes(&self) -> u64 {
        // The text, as it is and in groups; tokens of it; coefficients of a picture; and the method that codes it.
        let models = [MethodId::Primed, MethodId::Sound, MethodId::Picture].map(|method| model(method).memory_bytes());
        let models = models.into_iter().max().unwrap_or(0);
        8 * TEXT_BYTES_MAX as u64 + (144 << 20) + models
    }

    fn decode_rate_guess(&self) -> u64 {
        // Of text it is that of the method that codes it, which is chosen so that a segment keeps the budget.
        model(MethodId::Primed).decode_rate_guess()
    }

    fn prepare(&self, payload: &[u8], _model: ModelId, _basis: Basis<'_>) {
        for (method, _, part) in layout::parts(payload) {
            model(method).prepare(part, ModelId::NONE, Basis::default());
        }
    }

    fn encode(&self, raw: &[u8], _class: Class, basis: Basis<'_>) -> Result<Coded, Declined> {
        Opened::encode_for(raw, basis, &USUAL)
    }

    fn decode(
        &self,
        payload: &[u8],
        raw_len: usize,
        revision: u16,
        model: ModelId,
        basis: Basis<'_>,
    ) -> Result<Vec<u8>, Error> {
        stands_alone(model, basis)?;
        if revision != 1 {
            return Err(Error::UnknownRevision(revision));
        }
        closed(payload, raw_len).map(|(plain, _)| plain)
    }
}
