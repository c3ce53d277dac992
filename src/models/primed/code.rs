//! Machine code of x86 with the addresses that calls and jumps lead to, instead of their distances.
//!
//! A function is called from many places: each call has another distance, all have the same address. Every operand is
//! changed by itself: three of its four bytes, which become its address within the segment, highest byte first. What says
//! that there is an operand (the bytes before it, and its fourth byte) stays, so that the way back finds the same
//! operands, whatever the bytes are.
//!
//! Idea: the E8E9 filter of zpaq (M. Mahoney), with the operands that are relative to the instruction pointer besides.

/// Bytes of an operand.
const OPERAND: usize = 4;
/// Operands below which a segment is not taken for code: one in so many bytes.
const SPARSE: usize = 1024;

/// Whether a distance begins at `at`: of a call or a jump, or of an address relative to the instruction pointer.
fn is_operand(bytes: &[u8], at: usize) -> bool {
    let Some([before @ .., _, _, _, top]) = bytes.get(..at + OPERAND) else { return false };
    if *top != 0 && *top != 0xff {
        return false;
    }
    match *before {
        [.., 0xe8 | 0xe9] | [.., 0x0f, 0x80..=0x8f] => true,
        // A 64-bit load, store, sum or comparison with what lies a distance after the instruction, or its address.
        [.., 0x48 | 0x4c, 0x8b | 0x8d | 0x89 | 0x3b | 0x03, mode] => mode & 0xc7 == 5,
        _ => false,
    }
}

/// The distance whose first byte is at `at`, and the address that it leads to: 24 bits each.
fn distance(bytes: &[u8], at: usize) -> Option<(u32, u32)> {
    let [a, b, c] = *bytes.get(at..)?.first_chunk::<3>()?;
    let distance = u32::from_le_bytes([a, b, c, 0]);
    Some((distance, distance.wrapping_add((at + OPERAND) as u32) & 0xff_ffff))
}

/// Turns distances into addresses.
pub(super) fn forward(bytes: &mut [u8]) {
    // From the end, and back from the start: each change is undone in the state that it left.
    for at in (1..bytes.len()).rev() {
        if is_operand(bytes, at) {
            let Some((_, address)) = distance(bytes, at) else { continue };
            let [_, high @ ..] = address.to_be_bytes();
            bytes[at..at + 3].copy_from_slice(&high);
        }
    }
}

/// Turns addresses into distances.
pub(super) fn back(bytes: &mut [u8]) {
    for at in 1..bytes.len() {
        if is_operand(bytes, at) {
            let address = u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]]);
            let [low @ .., _] = address.wrapping_sub((at + OPERAND) as u32).to_le_bytes();
            bytes[at..at + 3].copy_from_slice(&low);
        }
    }
}

/// How many more distances there are than addresses, where a segment looks like code; 0 where it does not.
pub(super) fn saves(bytes: &[u8]) -> usize {
    saved((1..bytes.len()).filter(|at| is_operand(bytes, *at)).filter_map(|at| distance(bytes, at)), bytes.len())
}

/// How many fewer different addresses there are than distances in the operands of a segment of `len` bytes, each a distance
/// and its address; 0 where they are too sparse for code.
pub(super) fn saved(operands: impl Iterator<Item = (u32, u32)>, len: usize) -> usize {
    let (mut distances, mut addresses): (Vec<u32>, Vec<u32>) = operands.unzip();
    if distances.len() <= len / SPARSE {
        return 0;
    }
    for values in [&mut distances, &mut addresses] {
        values.sort_unstable();
        values.dedup();
    }
    distances.len().saturating_sub(addresses.len())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Checks that bytes come back, whichever way is gone first: whether they are others in between.
    pub fn come_back(plain: &[u8], forward: fn(&mut [u8]), back: fn(&mut [u8])) -> bool {
        let mut bytes = plain.to_vec();
        forward(&mut bytes);
        let changed = bytes != plain;
        back(&mut bytes);
        assert_eq!(bytes, plain);
        back(&mut bytes);
        forward(&mut bytes);
        assert_eq!(bytes, plain);
        changed
    }

    #[test]
    fn any_bytes_come_back() {
        let mut x = 5u64;
        let mut changed = 0;
        for n in 0..400 {
            // Few values, so that operands are frequent, overlap each other and reach the end.
            let values = [0xe8, 0xe9, 0, 0xff, 0x0f, 0x84, 0x48, 0x8d, 5, 7, 1, 0xfe];
            let plain: Vec<u8> = (0..n)
                .map(|_| {
                    x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    if n % 5 == 0 { (x >> 56) as u8 } else { values[(x >> 33) as usize % values.len()] }
                })
                .collect();
            changed += usize::from(come_back(&plain, forward, back));
        }
        assert!(changed > 200, "{changed}");
    }

    #[test]
    fn calls_of_one_function_become_alike_and_pay() {
        let mut bytes = Vec::new();
        for n in 0..200u32 {
            bytes.extend_from_slice(&[0x90; 20]);
            bytes.push(0xe8);
            let end = bytes.len() as u32 + 4;
            bytes.extend_from_slice(&(70_000 + n % 3 - end).to_le_bytes());
        }
        assert!(saves(&bytes) > 100 && saves(&[0; 5000]) == 0 && saves(b"text") == 0);
        forward(&mut bytes);
        let calls: Vec<&[u8]> = bytes.chunks(25).map(|c| &c[21..]).collect();
        assert!(calls.iter().enumerate().all(|(n, c)| *c == [1, 0x11, 0x70 + n as u8 % 3, 0]));
        assert_eq!(saves(&bytes), 0);
    }
}
