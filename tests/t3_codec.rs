//! The codec: what is chosen, what is refused, and that nothing passes which fails its hash.

mod common;

use common::Dice;
use tersefs::base::{Class, MethodId, SEGMENT_BYTES_MAX, plain_hash};
use tersefs::codec::{self, Basis, Encoded, Error, Library, Policy, classify, segment_bytes, train_from};
use tersefs::format::Coding;

fn encode(raw: &[u8], class: Class, policy: &Policy) -> Result<Encoded, Error> {
    codec::encode(raw, class, policy, Basis::default())
}

fn decode(coding: &Coding, payload: &[u8]) -> Result<Vec<u8>, Error> {
    codec::decode(coding, payload, Basis::default())
}

fn noise(len: usize) -> Vec<u8> {
    let mut dice = Dice::new(5);
    (0..len).map(|_| dice.next() as u8).collect()
}

#[test]
fn noise_is_stored_raw_without_trying() {
    let raw = noise(256 << 10);
    assert_eq!(classify(&raw), Class::Incompressible);
    // Also when nothing was said of its class.
    let started = std::time::Instant::now();
    let coded = encode(&raw, Class::Unknown, &Policy::default()).unwrap();
    assert_eq!((coded.coding.method, coded.payload.len()), (MethodId::Raw as u16, raw.len()));
    println!("noise: {:.0} MB/s", raw.len() as f64 / 1e6 / started.elapsed().as_secs_f64());
    assert!(decode(&coded.coding, &coded.payload).unwrap() == raw);
}

#[test]
fn the_smallest_method_wins_within_the_policy() {
    let raw = Dice::new(1).text(100_000);
    let size = |policy: &Policy| {
        let coded = encode(&raw, Class::Text, policy).unwrap();
        assert!(decode(&coded.coding, &coded.payload).unwrap() == raw);
        (MethodId::from_u16(coded.coding.method).unwrap(), coded.payload.len())
    };
    let (best, best_len) = size(&Policy::default());
    assert_eq!(best, MethodId::Primed);
    let (before, _) = size(&Policy { only: Some(MethodId::Cm), ..Policy::default() });
    assert_eq!(before, MethodId::Cm);
    let (zstd, zstd_len) = size(&Policy { only: Some(MethodId::Zstd), ..Policy::default() });
    assert_eq!(zstd, MethodId::Zstd);
    assert!(best_len < zstd_len);
    let (raw_id, raw_len) = size(&Policy { only: Some(MethodId::Raw), ..Policy::default() });
    assert_eq!((raw_id, raw_len), (MethodId::Raw, raw.len()));
    // A budget that the context model cannot keep leaves zstd.
    let (hurried, _) = size(&Policy { decode_ms: Some(2), ..Policy::default() });
    assert_eq!(hurried, MethodId::Zstd);
}

#[test]
fn bytes_that_fail_their_hash_are_never_returned() {
    let raw = Dice::new(2).text(3000);
    let mut dice = Dice::new(3);
    for only in MethodId::ALL {
        let coded = encode(&raw, Class::Text, &Policy { only: Some(only), ..Policy::default() }).unwrap();
        for _ in 0..200 {
            let mut payload = coded.payload.clone();
            let at = dice.roll(payload.len() as u64) as usize;
            payload[at] ^= 1 << dice.roll(8);
            match decode(&coded.coding, &payload) {
                Err(Error::Corrupt { .. }) => {}
                // A bit of padding may not matter; wrong bytes do.
                Ok(plain) => assert!(plain == raw),
                Err(e) => panic!("{e}"),
            }
        }
        let mut wrong = coded.coding.clone();
        wrong.plain_hash[3] ^= 1;
        assert!(matches!(decode(&wrong, &coded.payload), Err(Error::Corrupt { .. })));
        wrong = coded.coding.clone();
        wrong.raw_len -= 1;
        assert!(decode(&wrong, &coded.payload).is_err());
        wrong = coded.coding.clone();
        (wrong.method, wrong.revision) = (900, 3);
        let refused = decode(&wrong, &coded.payload);
        assert!(matches!(refused, Err(Error::UnknownMethod { method: 900, revision: 3 })), "{refused:?}");
        wrong = coded.coding.clone();
        wrong.raw_len = u32::MAX;
        assert!(matches!(decode(&wrong, &coded.payload), Err(Error::BadLength { .. })));
    }
}

#[test]
fn lengths_are_bounded() {
    assert!(matches!(encode(&[], Class::Text, &Policy::default()), Err(Error::BadLength { .. })));
    let large = vec![0; SEGMENT_BYTES_MAX as usize + 1];
    assert!(matches!(encode(&large, Class::Text, &Policy::default()), Err(Error::BadLength { .. })));
    let one = encode(b"x", Class::Text, &Policy::default()).unwrap();
    assert_eq!(one.payload, b"x");
    assert!(Class::ALL.iter().all(|c| segment_bytes(*c) <= SEGMENT_BYTES_MAX));
}

#[test]
fn a_segment_names_the_prior_that_it_needs() {
    // Words of its own, which no prior of the program knows.
    let words = |seed: u64, len: usize| -> Vec<u8> {
        let mut dice = Dice::new(seed);
        (0..len).flat_map(|_| format!("qx{:x} ", dice.roll(500) * 7919 + 99_991).into_bytes()).collect()
    };
    let library = Library::default();
    library.add(&train_from(Class::Text, 1, &words(1, 8000)).unwrap()).unwrap();
    let raw = words(2, 4000);
    let alone = encode(&raw, Class::Text, &Policy::default()).unwrap();
    let taught = codec::encode(&raw, Class::Text, &Policy::default(), Basis::of(&library)).unwrap();
    assert_eq!(alone.coding.model, [0; 16]);
    assert_eq!(taught.coding.model, library.priors()[0].id.0);
    assert!(taught.payload.len() < alone.payload.len() * 9 / 10, "{} {}", taught.payload.len(), alone.payload.len());
    assert!(codec::decode(&taught.coding, &taught.payload, Basis::of(&library)).unwrap() == raw);
    // Without its prior it is an error that says which one, never wrong bytes.
    let error = decode(&taught.coding, &taught.payload).unwrap_err();
    assert!(matches!(error, Error::MissingModel { id } if id.0 == taught.coding.model));
    assert!(error.to_string().contains(&library.priors()[0].id.to_string()), "{error}");
    let mut wrong = taught.coding.clone();
    wrong.model = [0; 16];
    assert!(matches!(codec::decode(&wrong, &taught.payload, Basis::of(&library)), Err(Error::Corrupt { .. })));
    wrong = alone.coding.clone();
    wrong.model = taught.coding.model;
    assert!(matches!(codec::decode(&wrong, &alone.payload, Basis::of(&library)), Err(Error::Corrupt { .. })));
}

/// A reference is used where it pays, named by its hash, and asked for by it.
#[test]
fn a_reference_is_named_and_must_be_the_one() {
    let mut dice = Dice::new(21);
    let reference = noise_of_hex(&mut dice, 30_000);
    let mut raw = reference.clone();
    raw.splice(9000..9100, *b"something else, and a little shorter");
    for only in [None, Some(MethodId::Zstd), Some(MethodId::Raw)] {
        let policy = Policy { only, ..Policy::default() };
        let basis = Basis { reference: Some(&reference), ..Basis::default() };
        let alone = encode(&raw, Class::Text, &policy).unwrap();
        let coded = codec::encode(&raw, Class::Text, &policy, basis).unwrap();
        assert_eq!(alone.coding.reference, None);
        if only == Some(MethodId::Raw) {
            assert!(coded.coding == alone.coding && coded.payload == alone.payload);
            continue;
        }
        assert_eq!(coded.coding.reference, Some(plain_hash(&reference)), "{only:?}");
        assert!(coded.payload.len() * 20 < alone.payload.len(), "{only:?}: {}", coded.payload.len());
        assert!(codec::decode(&coded.coding, &coded.payload, basis).unwrap() == raw);
        // One that is not asked for does no harm.
        assert!(codec::decode(&alone.coding, &alone.payload, basis).unwrap() == raw);
        let other = Basis { reference: Some(&raw), ..Basis::default() };
        for wrong in [Basis::default(), other] {
            let outcome = codec::decode(&coded.coding, &coded.payload, wrong);
            assert!(matches!(outcome, Err(Error::MissingReference { hash }) if hash == plain_hash(&reference)));
        }
        // A header that lies about it: an error, whatever comes out of the payload.
        let lies = [
            (Coding { reference: None, ..coded.coding.clone() }, &coded.payload),
            (Coding { reference: Some(plain_hash(&raw)), ..coded.coding.clone() }, &coded.payload),
            (Coding { reference: Some(plain_hash(&reference)), ..alone.coding.clone() }, &alone.payload),
        ];
        for (coding, payload) in lies {
            for basis in [Basis::default(), basis, other] {
                // A frame of zstd that was coded from none may be given any.
                let plain = codec::decode(&coding, payload, basis);
                assert!(plain.is_err() || plain.is_ok_and(|plain| plain == raw && payload == &alone.payload));
            }
        }
    }
    // One that has nothing to do with it is left out, and so is one that saves little.
    let other = noise_of_hex(&mut dice, 30_000);
    let alone = encode(&raw, Class::Text, &Policy::default()).unwrap();
    for reference in [&other[..], &raw[..2000], &[]] {
        let basis = Basis { reference: Some(reference), ..Basis::default() };
        let coded = codec::encode(&raw, Class::Text, &Policy::default(), basis).unwrap();
        assert_eq!(coded.coding, alone.coding);
        assert!(coded.payload == alone.payload, "as if there were none");
    }
    // What shrinks by no method may be there all the same.
    let random = noise(40_000);
    let basis = Basis { reference: Some(&random), ..Basis::default() };
    let coded = codec::encode(&random[100..39_000], Class::Incompressible, &Policy::default(), basis).unwrap();
    assert!(coded.coding.reference.is_some() && coded.payload.len() < 1000, "{}", coded.payload.len());
}

/// Digits at random: they shrink to half, and repeat nothing.
fn noise_of_hex(dice: &mut Dice, len: usize) -> Vec<u8> {
    (0..len).map(|_| b"0123456789abcdef"[dice.roll(16) as usize]).collect()
}
