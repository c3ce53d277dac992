//! What is opened keeps the decode budget, whatever is believed of the speed of methods. Alone in its program: speeds are those of
//! a process.

mod common;

use common::{Dice, packed};
use tersefs::base::{Class, MethodId};
use tersefs::codec::{self, Basis, Policy};

/// Data that decodes at a multiple of the usual speed makes a method be taken for faster than it is for text.
#[test]
fn what_is_closed_too_slowly_is_coded_by_a_faster_method() {
    let rows = b"0123456789\n".repeat(95_000);
    for _ in 0..4 {
        let coded = codec::encode(&rows, Class::Text, &Policy::default(), Basis::default()).unwrap();
        assert!(codec::decode(&coded.coding, &coded.payload, Basis::default()).unwrap() == rows);
    }
    let policy = Policy { decode_ms: Some(700), ..Policy::default() };
    let raw = packed::gzip(&packed::prose(&mut Dice::new(9), 1_500_000), 6);
    let coded = codec::encode(&raw, Class::Container, &policy, Basis::default()).unwrap();
    assert_eq!(coded.coding.method, MethodId::Opened as u16);
    assert!(codec::decode(&coded.coding, &coded.payload, Basis::default()).unwrap() == raw);
}

/// What a segment takes goes by what is in it, of which there is more than of its own bytes.
#[test]
fn what_is_opened_is_told_by_its_text() {
    let text = packed::prose(&mut Dice::new(10), 100_000);
    let raw = packed::gzip(&text, 9);
    let coded = codec::encode(&raw, Class::Container, &Policy::default(), Basis::default()).unwrap();
    assert_eq!(coded.coding.method, MethodId::Opened as u16);
    let by_text = codec::predicted_payload_ms(MethodId::Opened, &coded.payload, coded.coding.raw_len);
    let by_file = codec::predicted_decode_ms(MethodId::Opened, coded.coding.raw_len);
    assert!(text.len() > 2 * raw.len() && by_text > 2 * by_file, "{by_text} ms against {by_file}");
    // Nor need a payload be whole, or one at all.
    for cut in 0..coded.payload.len() {
        assert!(codec::predicted_payload_ms(MethodId::Opened, &coded.payload[..cut], 1) <= by_text);
        codec::predicted_payload_ms(MethodId::Opened, &coded.payload[cut..], 1);
    }
}
