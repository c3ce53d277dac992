//! Why a segment is coded by its method and by none that makes data smaller: what stands against each of these. Told
//! afterwards, by the policy that holds now and the speeds measured so far.

use std::fmt;

use super::{Policy, predicted_decode_ms};
use crate::base::{Class, MethodId};
use crate::models::{BY_STRENGTH, suits};

/// What stands against a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// The tier does not have it.
    Tier,
    /// Another method was asked for by name.
    Only(MethodId),
    /// The volume has no model for such data.
    NoLanguageModel,
    /// A segment would take so long to decode, milliseconds, and may take so long.
    Budget { ms: u32, max: u32 },
    /// It would not make the data smaller than what was taken.
    NotSmaller,
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Against::Tier => f.write_str("the tier does not have it"),
            Against::Only(method) => write!(f, "the volume is told to use {} alone", method.name()),
            Against::NoLanguageModel => f.write_str("the volume has no model for such data"),
            Against::Budget { ms, max } => write!(f, "it takes {ms} ms to decode, and {max} ms are allowed"),
            Against::NotSmaller => f.write_str("it makes this data no smaller"),
        }
    }
}

/// Methods that make most data of a class smaller than `method` does, the strongest first, with what stands against each where
/// a segment of `raw_len` plain bytes is coded under a policy.
pub fn against_stronger(class: Class, raw_len: u32, method: MethodId, policy: &Policy) -> Vec<(MethodId, Against)> {
    let stronger = BY_STRENGTH.into_iter().take_while(|id| *id != method);
    // The older form of the default method is nothing that anybody misses.
    let missed = stronger.filter(|id| suits(*id, class) && (*id != MethodId::Cm || policy.allows(*id)));
    missed.map(|id| (id, against(id, class, raw_len, policy))).collect()
}

fn against(id: MethodId, class: Class, raw_len: u32, policy: &Policy) -> Against {
    let ms = predicted_decode_ms(id, super::policy::cold_bytes(id, raw_len));
    match policy.only {
        Some(only) if only != id => Against::Only(only),
        _ if policy.tries(id, class) && ms > policy.decode_ms_max() => {
            Against::Budget { ms, max: policy.decode_ms_max() }
        }
        _ if policy.tries(id, class) => Against::NotSmaller,
        _ if (Policy { language: true, bytes: true, ..*policy }).tries(id, class) => Against::NoLanguageModel,
        _ => Against::Tier,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Tier;

    #[test]
    fn each_stronger_method_has_what_stands_against_it() {
        let of = |class, method, policy: &Policy| against_stronger(class, 1 << 20, method, policy);
        let balanced = Policy::of(Tier::Balanced);
        // Of text by the default method: the two of the tier deep.
        assert_eq!(
            of(Class::Text, MethodId::Primed, &balanced),
            [(MethodId::Language, Against::Tier), (MethodId::Strong, Against::Tier)]
        );
        // Nothing is stronger for nucleotides, and nothing is missed of the older form.
        assert_eq!(of(Class::Nucleotides, MethodId::Genome, &balanced), []);
        let fast = Policy::of(Tier::Fast);
        assert!(
            of(Class::Text, MethodId::Zstd, &fast).iter().all(|(id, a)| *id != MethodId::Cm && *a == Against::Tier)
        );
        let deep = Policy::of(Tier::Deep);
        assert_eq!(
            of(Class::Text, MethodId::Primed, &deep),
            [(MethodId::Language, Against::NoLanguageModel), (MethodId::Strong, Against::NotSmaller)]
        );
        let tight = Policy { decode_ms: Some(1), ..deep };
        let predicted = |policy: &Policy| -> Vec<(MethodId, Against)> {
            let found = of(Class::Binary, MethodId::Zstd, policy);
            found.into_iter().filter(|(id, _)| *id != MethodId::Language).collect()
        };
        let found = predicted(&tight);
        assert!(found.iter().all(|(_, a)| matches!(a, Against::Budget { max: 1, .. })), "{found:?}");
        let only = Policy { only: Some(MethodId::Zstd), ..balanced };
        let found = predicted(&only);
        assert!(found.iter().all(|(_, a)| *a == Against::Only(MethodId::Zstd)) && found.len() == 3, "{found:?}");
    }
}
