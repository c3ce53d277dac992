//! Base64: bytes as letters, in lines as mail and PEM have it, or in one long run as in JSON and `data:` URLs. The form: RFC 4648,
//! section 4.
//!
//! A run begins where lines do, or where bytes begin that were cut out of one; what is behind its last whole four letters stays
//! letters.

/// Letters in a run at least: hashes and keys stay as they are.
const LETTERS_MIN: usize = 768;
/// Letters of a line at least.
const LINE_MIN: usize = 40;
/// Bytes by which it is told whether a run is base64, and how many letters must differ in them: hexadecimal digits, nucleotides and
/// proteins are made of letters too.
const SAMPLE_BYTES: usize = 1024;
const DIFFERENT_MIN: u32 = 24;
/// What is between lines.
pub(super) const ENDS: [&[u8]; 4] = [b"\n", b"\r\n", b"\\n", b"\\r\\n"];

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// The bits of a letter; 64 of none.
const VALUES: [u8; 256] = {
    let mut out = [64; 256];
    let mut n = 0;
    while n < 64 {
        out[LETTERS[n] as usize] = n as u8;
        n += 1;
    }
    out
};

/// How letters lie in lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Lines {
    /// Letters of the first, which may have been cut; of the others but the last, which may be shorter. Zeroes: of one line.
    pub first: usize,
    pub len: usize,
    /// Which of `ENDS` is between them.
    pub end: usize,
}

/// A run that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub start: usize,
    pub end: usize,
    pub lines: Lines,
    pub data: Vec<u8>,
}

fn value(byte: u8) -> Option<u8> {
    VALUES.get(usize::from(byte)).copied().filter(|value| *value < 64)
}

/// Letters from an offset on.
fn letters(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..).unwrap_or_default().iter().take_while(|b| value(**b).is_some()).count()
}

/// What is between lines at an offset.
fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    ENDS.iter().position(|end| rest.starts_with(end))
}

/// The lines that begin at an offset with `first` letters, and where they end.
fn lines_at(bytes: &[u8], at: usize, first: usize) -> Option<(Lines, usize)> {
    let end = line_end(bytes, at + first)?;
    let between = ENDS.get(end)?;
    let len = letters(bytes, at + first + between.len());
    // Of a first line that was cut what is left of its last four letters begins before it.
    if len < LINE_MIN || !len.is_multiple_of(4) || first > len {
        return None;
    }
    let mut to = at + first;
    while bytes.get(to..)?.starts_with(between) {
        let line = letters(bytes, to + between.len()).min(len);
        // Three letters and less are the end of a run that is padded, or none of it.
        if line < 4 && bytes.get(to + between.len() + line) != Some(&b'=') {
            break;
        }
        to += between.len() + line;
        if line < len {
            break;
        }
    }
    Some((Lines { first, len, end }, to))
}

/// True where the first letters spread as those of coded bytes do.
fn is_coded(bytes: &[u8]) -> bool {
    let mut met = 0u64;
    bytes.iter().take(SAMPLE_BYTES).filter_map(|b| value(*b)).for_each(|value| met |= 1 << value);
    let some = |from: u32, to: u32| met >> from & ((1 << (to - from)) - 1) != 0;
    met.count_ones() >= DIFFERENT_MIN && some(0, 26) && some(26, 52) && some(52, 62)
}

/// The next run from an offset on.
pub(super) fn find(bytes: &[u8], mut at: usize) -> Option<Run> {
    loop {
        // A line has a letter in each place: most text is passed over by looking at the last.
        let line = bytes.get(at..at.checked_add(LINE_MIN)?)?;
        let of_line = line.iter().rev().take_while(|b| value(**b).is_some()).count();
        let start = at + LINE_MIN - of_line;
        if of_line == 0 {
            at = start;
            continue;
        }
        let first = letters(bytes, start);
        let sample = bytes.get(start..).unwrap_or_default();
        if first >= LINE_MIN
            && is_coded(sample)
            && let Some(run) = run(bytes, start, first)
        {
            return Some(run);
        }
        at = start + first + 1;
    }
}

/// The run that begins at `start` with `first` letters before something else.
fn run(bytes: &[u8], start: usize, first: usize) -> Option<Run> {
    // Of a line end that is written as such the last letter may be there.
    let behind = || lines_at(bytes, start + 1, first - 1).filter(|(lines, _)| lines.first == lines.len);
    let (lines, end) = match lines_at(bytes, start, first) {
        Some(found) => found,
        None => behind().unwrap_or((Lines::default(), start + first)),
    };
    let start = if lines.len > 0 { start + first - lines.first } else { start };
    let cut = if lines.len > 0 { lines.first % 4 } else { 0 };
    let lines = Lines { first: lines.first.saturating_sub(cut), ..lines };
    let start = start + cut;
    let mut letters = Vec::new();
    let (mut rest, mut line) = (bytes.get(start..end)?, if lines.len > 0 { lines.first } else { end - start });
    while !rest.is_empty() {
        let (of_line, behind) = rest.split_at_checked(line).unwrap_or((rest, &[]));
        letters.extend(of_line.iter().filter_map(|b| value(*b)));
        rest = behind.get(ENDS.get(lines.end)?.len()..).unwrap_or_default();
        line = lines.len;
    }
    if letters.len() < LETTERS_MIN {
        return None;
    }
    let padding = match bytes.get(end..).unwrap_or_default() {
        [b'=', b'=', ..] if letters.len() % 4 == 2 => 2,
        [b'=', ..] if letters.len() % 4 == 3 => 1,
        _ => 0,
    };
    let whole = letters.len() / 4 * 4;
    let (fours, last) = letters.split_at_checked(whole)?;
    let mut data: Vec<u8> = fours.chunks(4).flat_map(three).collect();
    let mut last_bytes = three(last).to_vec();
    last_bytes.truncate(3 - padding);
    // The bits that are not used are zeroes, or they would not come back.
    let mut end = end - last.len();
    if padding > 0 && letters_of(&last_bytes).zip(last).all(|(a, b)| value(a) == Some(*b)) {
        data.extend_from_slice(&last_bytes);
        end += last.len() + padding;
    }
    (written_len(data.len(), lines) == Some(end - start)).then_some(Run { start, end, lines, data })
}

/// The bytes of four letters.
fn three(four: &[u8]) -> [u8; 3] {
    let bits = four.iter().chain([&0; 4]).take(4).fold(0u32, |bits, value| bits << 6 | u32::from(*value));
    let [_, a, b, c] = bits.to_be_bytes();
    [a, b, c]
}

/// The letters of up to three bytes, padding among them.
fn letters_of(three: &[u8]) -> impl Iterator<Item = u8> {
    let len = three.len();
    let bits = three.iter().chain([&0; 3]).take(3).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
    (0..4).map(move |n| {
        let letter = LETTERS.get((bits >> (18 - 6 * n)) as usize & 63).copied().unwrap_or(b'=');
        if n as usize > len { b'=' } else { letter }
    })
}

/// Bytes that data of `len` bytes takes in lines.
pub(super) fn written_len(len: usize, lines: Lines) -> Option<usize> {
    let letters = len.div_ceil(3).checked_mul(4)?;
    if lines.len == 0 {
        return Some(letters);
    }
    let behind = letters.saturating_sub(lines.first).div_ceil(lines.len);
    letters.checked_add(behind.checked_mul(ENDS.get(lines.end)?.len())?)
}

/// Writes data in lines.
pub(super) fn write(data: &[u8], lines: Lines, out: &mut Vec<u8>) {
    let end = ENDS.get(lines.end).copied().unwrap_or_default();
    let mut room = if lines.len > 0 { lines.first } else { usize::MAX };
    for letter in data.chunks(3).flat_map(letters_of) {
        if room == 0 {
            out.extend_from_slice(end);
            room = lines.len;
        }
        out.push(letter);
        room -= 1;
    }
}

/// True where a good part of some bytes is in runs.
pub fn holds(bytes: &[u8], part: usize) -> bool {
    let (mut at, mut found) = (0, 0);
    while let Some(run) = find(bytes, at) {
        found += run.end - run.start;
        at = run.end;
        if found * part > bytes.len() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut x = 1u64;
        let mut next = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 40) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn check(before: &str, lines: Lines, len: usize, behind: &str) -> Option<Run> {
        let data = noise(len);
        let mut text = before.as_bytes().to_vec();
        write(&data, lines, &mut text);
        text.extend_from_slice(behind.as_bytes());
        let run = find(&text, 0)?;
        let mut again = text[..run.start].to_vec();
        write(&run.data, run.lines, &mut again);
        again.extend_from_slice(&text[run.end..]);
        assert!(again == text, "{before:?} {lines:?} {len} {behind:?}");
        Some(run)
    }

    #[test]
    fn runs_are_found_and_written_again() {
        let lines = |first, len, end| Lines { first, len, end };
        for len in [600, 601, 602, 5700, 5701, 5757] {
            for end in 0..ENDS.len() {
                for len_of_line in [64, 76] {
                    let of_line = lines(len_of_line, len_of_line, end);
                    let run = check("Content: base64\r\n\r\n", of_line, len, "\r\n--x").unwrap();
                    assert_eq!((run.data.len(), run.lines), (len, of_line));
                }
            }
            let run = check("\"data:image/png;base64,", Lines::default(), len, "\"}").unwrap();
            assert_eq!((run.data.len(), run.lines), (len, Lines::default()));
        }
        // Cut off: in the middle of a line, and of four letters, at both ends.
        let mut text = Vec::new();
        write(&noise(9000), lines(76, 76, 1), &mut text);
        for from in 0..90 {
            let run = find(&text[from..text.len() - from], 0).unwrap();
            assert!(run.data.len() > 8800 && run.start < 120, "{from}: {} {}", run.start, run.data.len());
            let mut again = Vec::new();
            write(&run.data, run.lines, &mut again);
            assert!(again == text[from..][run.start..run.end]);
        }
    }

    #[test]
    fn what_is_short_or_of_other_letters_is_left_alone() {
        assert_eq!(check("key: ", Lines::default(), 300, "\n"), None);
        let hex: String = noise(3000).iter().map(|b| format!("{b:02x}")).collect();
        let bases: String = noise(6000).iter().map(|b| char::from(b"ACGT"[usize::from(*b) % 4])).collect();
        let fasta: String = bases.as_bytes().chunks(60).map(|l| format!("{}\n", String::from_utf8_lossy(l))).collect();
        let prose = "It was the best of times, it was the worst of times. ".repeat(200);
        for text in [hex, bases, fasta, prose] {
            assert_eq!(find(text.as_bytes(), 0), None);
        }
        // Bits that no encoder sets do not come back.
        let text = format!("{}QUJ=", "QUJDabc0".repeat(200));
        let run = find(text.as_bytes(), 0);
        assert!(run.is_none_or(|run| run.end <= text.len() - 4));
    }

    #[test]
    fn a_part_of_a_text_is_enough() {
        let mut text = "A mail. ".repeat(40).into_bytes();
        write(&noise(2000), Lines { first: 76, len: 76, end: 1 }, &mut text);
        assert!(holds(&text, 16) && !holds(&text[..400], 16) && !holds(&noise(9000), 16));
    }
}
