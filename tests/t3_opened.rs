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
