//! What a lane has said before: tokens that followed the same tokens.
//!
//! A language model knows what is likely; a log, a table or a program repeats itself in ways of its own. Before a token is
//! coded by its share, a few candidates are asked about: is it what came after the last six tokens, four, three, two, one,
//! the last time? An answer costs what its probability says, which is mixed, as in paq, from the model's own share and from
//! how often such candidates were right. A candidate that is not the token loses its share, so that nothing is said twice:
//! shares and answers together are one distribution that sums to the whole exactly. All of it is integers.

use super::cdf::Shares;
use crate::entropy::{INPUTS, Mixer, ShareDecoder, ShareEncoder, StateMap, squash, stretch};

/// Tokens of the contexts, the longest first.
const ORDERS: [usize; 5] = [6, 4, 3, 2, 1];
/// The context that a match starts from, and its tokens.
const MATCH_ORDER: usize = 1;
/// A match is not looked back at further, tokens.
const MATCH_MAX: usize = 32;
/// Candidates that are asked about.
const CANDIDATES: usize = 3;
/// An answer's whole.
const WHOLE: u64 = 1 << 16;
/// Inputs of the model's own share: it weighs more at first than what came before.
const OWN_INPUTS: usize = 3;
const USED_INPUTS: usize = OWN_INPUTS + ORDERS.len() + 1;
/// First weight of an input in each of three rows, 1/16384.
const FIRST_WEIGHT: i16 = 1274;
const MIXER_RATE: i32 = 14;
/// Slowest learning of how often candidates are right, 1/n.
const LIMIT: u32 = 127;
/// Buckets: how often a context was right in succession, and the share of the model.
const TRUSTS: usize = 16;
const STATES: usize = TRUSTS * 4;
/// Rows of the mixer, by candidate, by length of the match, by contexts that agree.
const LENGTH_ROWS: usize = 8;
const ROWS: usize = CANDIDATES + LENGTH_ROWS + ORDERS.len() + 1;

/// What followed a context.
#[derive(Clone, Copy, Debug)]
struct Followed {
    /// Where, in the lane.
    at: u32,
    /// Times in succession that it was the same.
    trust: u8,
}

/// A candidate that is asked about.
#[derive(Clone, Debug)]
struct Question {
    inputs: [i16; INPUTS],
    /// State of each context that has it for its candidate, and of the match.
    states: [Option<usize>; ORDERS.len() + 1],
}

/// What a lane has said so far.
#[derive(Debug)]
pub(super) struct Memory {
    tokens: Vec<u32>,
    /// Where the token after a context stands, and one more, by a hash of the context: what came last is found, and another
    /// context of the same hash is not taken for it.
    contexts: [Vec<u32>; ORDERS.len()],
    /// For each token, how often each context was right in succession when it came.
    trusts: Vec<[u8; ORDERS.len()]>,
    /// Where the match goes on, and how long it is.
    follows: usize,
    length: usize,
    mixer: Mixer,
    /// For each context, and for the match: how often it is right.
    right: [StateMap<STATES>; ORDERS.len() + 1],
    found: [Option<Followed>; ORDERS.len()],
}

/// Slots of the contexts of an order: twice as many as there can be.
const fn slots(tokens_max: usize) -> usize {
    2 * tokens_max.next_power_of_two()
}

/// The slot of a context, of so many, a power of two.
fn slot(context: &[u32], slots: usize) -> usize {
    let hash = context.iter().fold(1u32, |hash, token| (hash ^ token).wrapping_mul(0x9E37_79B1).rotate_left(15));
    hash.wrapping_mul(0x85EB_CA6B) as usize >> 8 & (slots - 1)
}

impl Memory {
    /// Of a lane that has said nothing, and will say `tokens_max` tokens at most.
    pub fn new(tokens_max: usize) -> Memory {
        // Before anything is known: long contexts are right more often, and those that were right before.
        let first = |input: usize| {
            let longest: i32 = [500, 300, 0, -300, -600, 300].get(input).copied().unwrap_or(0);
            StateMap::new(move |state| squash(longest + 60 * (state % TRUSTS) as i32))
        };
        Memory {
            tokens: Vec::new(),
            contexts: std::array::from_fn(|_| vec![0; slots(tokens_max)]),
            trusts: Vec::new(),
            follows: 0,
            length: 0,
            mixer: Mixer::new(ROWS, USED_INPUTS, FIRST_WEIGHT),
            right: std::array::from_fn(first),
            found: [None; ORDERS.len()],
        }
    }

    /// Codes a token.
    pub fn encode(&mut self, token: u32, shares: &mut Shares, encoder: &mut ShareEncoder) {
        let candidates = self.candidates();
        for (n, candidate) in candidates.into_iter().flatten().enumerate() {
            let (question, p) = self.ask(n, candidate, shares);
            let hit = candidate == token;
            match hit {
                true => encoder.encode(0, p, WHOLE),
                false => encoder.encode(p, WHOLE - p, WHOLE),
            }
            self.learn(&question, hit);
            if hit {
                return self.push(token);
            }
            shares.remove(candidate);
        }
        shares.encode(token, encoder);
        self.push(token);
    }

    /// Reads a token.
    pub fn decode(&mut self, shares: &mut Shares, decoder: &mut ShareDecoder<'_>) -> u32 {
        let candidates = self.candidates();
        for (n, candidate) in candidates.into_iter().flatten().enumerate() {
            let (question, p) = self.ask(n, candidate, shares);
            let hit = decoder.place(WHOLE) < p;
            match hit {
                true => decoder.pass(0, p, WHOLE),
                false => decoder.pass(p, WHOLE - p, WHOLE),
            }
            self.learn(&question, hit);
            if hit {
                self.push(candidate);
                return candidate;
            }
            shares.remove(candidate);
        }
        let token = shares.decode(decoder);
        self.push(token);
        token
    }

    /// Bytes that one takes, of a lane of so many tokens.
    pub const fn bytes(tokens_max: usize) -> usize {
        let tokens = tokens_max.next_power_of_two() * (size_of::<u32>() + ORDERS.len());
        size_of::<Memory>() + slots(tokens_max) * size_of::<u32>() * ORDERS.len() + tokens
    }

    /// The last tokens, of a context of an order.
    fn context(&self, order: usize) -> Option<&[u32]> {
        self.tokens.get(self.tokens.len().checked_sub(order)?..)
    }

    /// What followed a context the last time.
    fn follower(&self, n: usize) -> Option<Followed> {
        let (order, contexts) = (*ORDERS.get(n)?, self.contexts.get(n)?);
        let context = self.context(order)?;
        let at = contexts.get(slot(context, contexts.len()))?.checked_sub(1)?;
        let then = self.tokens.get((at as usize).checked_sub(order)?..at as usize)?;
        let trust = *self.trusts.get(at as usize)?.get(n)?;
        (then == context).then_some(Followed { at, trust })
    }

    /// What follows the match, and the contexts from the longest on; each once.
    fn candidates(&mut self) -> [Option<u32>; CANDIDATES] {
        let (mut out, mut count) = ([None; CANDIDATES], 0);
        self.found = std::array::from_fn(|n| self.follower(n));
        let matched = (self.length > 0).then_some(self.follows as u32);
        for at in matched.into_iter().chain(self.found.iter().flatten().map(|f| f.at)) {
            let Some(token) = self.tokens.get(at as usize) else { continue };
            if !out.contains(&Some(*token))
                && let Some(place) = out.get_mut(count)
            {
                *place = Some(*token);
                count += 1;
            }
        }
        out
    }

    /// The probability, of `WHOLE`, that a candidate is the token.
    fn ask(&mut self, n: usize, token: u32, shares: &Shares) -> (Question, u64) {
        let own = shares.probability(token);
        let likely = usize::from(own > 1 << 10) + usize::from(own > 1 << 13) + usize::from(own > 3 << 14);
        let mut question = Question { inputs: [0; INPUTS], states: [None; ORDERS.len() + 1] };
        let of = |at: u32| self.tokens.get(at as usize) == Some(&token);
        for (state, found) in question.states.iter_mut().zip(&self.found) {
            *state = found.filter(|f| of(f.at)).map(|f| usize::from(f.trust) + TRUSTS * likely);
        }
        let longest = question.states.iter().take(ORDERS.len()).position(Option::is_some).unwrap_or(ORDERS.len());
        let mut length_row = 0;
        if self.length > 0 && of(self.follows as u32) {
            question.states[ORDERS.len()] = Some((self.length / 2).min(TRUSTS - 1) + TRUSTS * likely);
            length_row = (usize::BITS - self.length.leading_zeros()) as usize;
        }
        let (own_inputs, others) = question.inputs.split_at_mut(OWN_INPUTS);
        own_inputs.fill(stretch(own) as i16);
        for ((input, state), map) in others.iter_mut().zip(question.states).zip(&self.right) {
            *input = state.map_or(0, |state| stretch(map.p(state)) as i16);
        }
        let rows = [n, CANDIDATES + length_row.min(LENGTH_ROWS - 1), CANDIDATES + LENGTH_ROWS + longest];
        let p = squash(self.mixer.mix(&question.inputs, rows));
        (question, u64::from(p.max(1)))
    }

    /// Learns whether a candidate was the token.
    fn learn(&mut self, question: &Question, hit: bool) {
        let bit = u8::from(hit);
        self.mixer.update(&question.inputs, bit, MIXER_RATE);
        for (state, map) in question.states.iter().zip(&mut self.right) {
            state.iter().for_each(|state| map.update(*state, bit, LIMIT));
        }
    }

    /// Takes in the token that came.
    fn push(&mut self, token: u32) {
        let at = self.tokens.len();
        let mut trusts = [0; ORDERS.len()];
        for ((trust, found), n) in trusts.iter_mut().zip(self.found).zip(0..) {
            if let Some(before) = found
                && self.tokens.get(before.at as usize) == Some(&token)
            {
                *trust = (before.trust + 1).min(TRUSTS as u8 - 1);
            }
            let Some(context) = ORDERS.get(n).and_then(|order| self.context(*order)) else { continue };
            let Some(contexts) = self.contexts.get(n) else { continue };
            let slot = slot(context, contexts.len());
            if let Some(slot) = self.contexts.get_mut(n).and_then(|c| c.get_mut(slot)) {
                *slot = at as u32 + 1;
            }
        }
        self.trusts.push(trusts);
        let goes_on = self.length > 0 && self.tokens.get(self.follows) == Some(&token);
        self.tokens.push(token);
        if goes_on {
            self.length = (self.length + 1).min(MATCH_MAX);
            self.follows += 1;
            return;
        }
        let found = self.follower(MATCH_ORDER);
        self.length = 0;
        if let Some(found) = found {
            self.follows = found.at as usize;
            let (now, then) = (self.tokens.iter().rev(), self.tokens[..self.follows].iter().rev());
            self.length = now.zip(then).take(MATCH_MAX).take_while(|(a, b)| a == b).count();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cdf::spread;
    use super::super::kernels::Path;
    use super::*;

    fn coded(tokens: &[u32], logits: &[f32]) -> Vec<u8> {
        let (mut memory, mut shares, mut encoder) = (Memory::new(2000), Shares::default(), ShareEncoder::default());
        for token in tokens {
            spread(Path::Plain, logits, &mut shares);
            memory.encode(*token, &mut shares, &mut encoder);
        }
        let code = encoder.finish();
        let (mut memory, mut decoder) = (Memory::new(2000), ShareDecoder::new(&code));
        for token in tokens {
            spread(Path::Plain, logits, &mut shares);
            assert_eq!(memory.decode(&mut shares, &mut decoder), *token);
        }
        code
    }

    #[test]
    fn what_comes_again_costs_little() {
        let logits: Vec<f32> = (0..500).map(|n| (n % 7) as f32 * 0.3).collect();
        let mut x = 1u64;
        let mut noise = |len: usize| -> Vec<u32> {
            (0..len)
                .map(|_| {
                    x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (x >> 33) as u32 % 500
                })
                .collect()
        };
        let new = noise(600);
        let alone = coded(&new, &logits).len();
        let twice = coded(&[new.clone(), new].concat(), &logits).len();
        assert!(twice < alone * 106 / 100, "{alone} bytes, {twice} when it comes twice");
        let same = coded(&[9; 1000], &logits).len();
        assert!(same < 12, "{same} bytes for one token a thousand times");
        // What never comes again pays little for being asked about.
        let ideal: f64 = 600.0 * 500f64.log2() / 8.0;
        assert!((alone as f64) < ideal * 1.05, "{alone} bytes of {ideal}");
    }

    #[test]
    fn any_code_gives_tokens() {
        for seed in 0..=255u8 {
            let junk = [seed, seed ^ 85, 3, 255, seed, 0, 200, seed];
            let (mut memory, mut shares, mut decoder) =
                (Memory::new(2000), Shares::default(), ShareDecoder::new(&junk));
            for n in 0..200 {
                spread(Path::Plain, &[0.0, 5.0, n as f32 * 0.1, 1.0], &mut shares);
                assert!(memory.decode(&mut shares, &mut decoder) < 4);
            }
        }
    }
}
