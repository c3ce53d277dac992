//! Payload of `cm`: one byte for the kind of contexts, then the range code to the end.

use super::Error;
use crate::base::Class;

/// Which contexts a segment was coded with. Numbers are on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    /// Prose and anything unknown.
    Text = 0,
    /// Markup and JSON: what encloses, what was the last key.
    Nested = 1,
    /// Logs and tables: column and field.
    Lines = 2,
    /// Machine code, records: bytes further back, without those between.
    Binary = 3,
}

impl Kind {
    pub fn of(class: Class) -> Kind {
        match class {
            Class::Unknown | Class::Text | Class::Source | Class::Nucleotides => Kind::Text,
            Class::Markup | Class::Json => Kind::Nested,
            Class::Log => Kind::Lines,
            Class::Exec
            | Class::Binary
            | Class::Incompressible
            | Class::Container
            | Class::Jpeg
            | Class::Sound
            | Class::Picture
            | Class::Video => Kind::Binary,
        }
    }
}

pub(super) fn join(kind: Kind, code: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(code.len() + 1);
    payload.push(kind as u8);
    payload.extend_from_slice(code);
    payload
}

pub(super) fn split(payload: &[u8]) -> Result<(Kind, &[u8]), Error> {
    let (kind, code) = payload.split_first().ok_or(Error::Corrupt("cm payload is empty"))?;
    let kind = match kind {
        0 => Kind::Text,
        1 => Kind::Nested,
        2 => Kind::Lines,
        3 => Kind::Binary,
        _ => return Err(Error::Corrupt("cm payload names contexts that do not exist")),
    };
    Ok((kind, code))
}
