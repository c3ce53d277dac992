//! What is coded when and with what: pure functions from what is known to what to do.

use super::sharing::Place;
use super::similar::Sketch;
use super::types::Piece;
use crate::base::{ByteRange, Class, Ino, PlainHash};
use crate::codec::Policy;

/// Runs of one grid cell beyond this are coded as one, holes included.
const RUNS_PER_CELL_MAX: usize = 64;
/// Files in one bundle.
pub const FILES_PER_BUNDLE_MAX: usize = 1024;
/// Space that one more segment may take in a pack, bytes; larger ones are tried when less is free, and given back.
pub(super) const SEGMENT_STORED_BYTES_MAX: u64 = 512 << 10;
/// Longest pause before a file that could not be coded is tried again, milliseconds.
const BACKOFF_MS_MAX: u64 = 3_600_000;

/// What keeps a staged file from being coded now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Readiness {
    Now,
    /// Look again at this monotonic time, milliseconds.
    At(u64),
}

/// When to look again at a file that somebody may still write to, monotonic milliseconds.
pub(super) fn after_writers(now_ms: u64, quiet_ms: u64) -> u64 {
    now_ms + quiet_ms.max(500)
}

/// A file is coded when nobody may write to it and it has been quiet for a while. Draining waits for writers only.
pub(super) fn readiness(has_writers: bool, changed_ms: u64, quiet_ms: u64, now_ms: u64, drain: bool) -> Readiness {
    if has_writers {
        return Readiness::At(after_writers(now_ms, quiet_ms));
    }
    let quiet_at = changed_ms.saturating_add(quiet_ms);
    if drain || quiet_at <= now_ms { Readiness::Now } else { Readiness::At(quiet_at) }
}

/// Pause before the next try after `attempts` failures, milliseconds: doubling from one second.
pub(super) fn backoff_ms(attempts: u32) -> u64 {
    (1000u64 << attempts.min(12)).min(BACKOFF_MS_MAX)
}

/// A file goes into a bundle with others when it is this small: a segment of its own would start cold.
pub fn is_small(staged_bytes: u64, segment_bytes: u32) -> bool {
    staged_bytes <= u64::from(segment_bytes) / 4
}

/// A small file that waits to be bundled.
#[derive(Clone, Debug)]
pub(super) struct SmallFile {
    pub ino: Ino,
    pub class: Class,
    pub policy: Policy,
    pub pieces: Vec<Piece>,
    pub bytes: u64,
    /// Hash of its content, where it is looked for in the volume.
    pub hash: Option<PlainHash>,
    pub sketch: Sketch,
    /// A segment of the volume that it is likely to repeat.
    pub reference: Option<Place>,
}

impl SmallFile {
    /// As `bundle` asks.
    pub fn about(&self) -> (Class, Policy, u64) {
        (self.class, self.policy, self.bytes)
    }
}

/// Small files that are coded together.
#[derive(Debug)]
pub struct Bundle<F> {
    pub class: Class,
    pub policy: Policy,
    pub files: Vec<F>,
    /// The next file did not fit in.
    pub full: bool,
}

/// Puts small files together that lie side by side and are of one class and policy, up to a segment each. `about` tells
/// class, policy and bytes of a file, `segment_bytes` how long the segments of a class and policy are.
pub fn bundle<F>(
    files: Vec<F>,
    about: impl Fn(&F) -> (Class, Policy, u64),
    segment_bytes: impl Fn(Class, &Policy) -> u32,
) -> Vec<Bundle<F>> {
    let mut out: Vec<Bundle<F>> = Vec::new();
    let mut bytes = 0;
    for file in files {
        let (class, policy, len) = about(&file);
        let begun = out.last_mut().filter(|b| (b.class, b.policy) == (class, policy));
        let limit = u64::from(segment_bytes(class, &policy));
        match begun {
            Some(b) if bytes + len <= limit && b.files.len() < FILES_PER_BUNDLE_MAX => {
                bytes += len;
                b.files.push(file);
            }
            begun => {
                begun.into_iter().for_each(|b| b.full = true);
                bytes = len;
                out.push(Bundle { class, policy, files: vec![file], full: false });
            }
        }
    }
    out
}

/// Runs of data of a cell, merged; too many become one.
pub(super) fn merge_runs(mut runs: Vec<ByteRange>) -> Vec<ByteRange> {
    runs.sort();
    let mut out: Vec<ByteRange> = Vec::new();
    for run in runs {
        match out.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => out.push(run),
        }
    }
    match (out.first(), out.last()) {
        (Some(first), Some(last)) if out.len() > RUNS_PER_CELL_MAX => {
            vec![ByteRange { start: first.start, end: last.end }]
        }
        _ => out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Generation;
    use crate::codec::Tier;

    fn small(ino: u64, class: Class, bytes: u64) -> SmallFile {
        let piece = Piece { ino: Ino(ino), generation: Generation(1), range: ByteRange { start: 0, end: bytes } };
        SmallFile {
            ino: Ino(ino),
            class,
            policy: Policy::default(),
            pieces: vec![piece],
            bytes,
            hash: None,
            sketch: Sketch::default(),
            reference: None,
        }
    }

    #[test]
    fn bundles_by_class_and_never_beyond_a_segment() {
        let mut files: Vec<_> =
            (0..10).map(|n| small(n, if n % 2 == 0 { Class::Text } else { Class::Json }, 30)).collect();
        files.sort_by_key(|f| f.class);
        let bundles = bundle(files, SmallFile::about, |_, _| 100);
        assert_eq!(bundles.len(), 4);
        for Bundle { class, files, .. } in &bundles {
            assert!(files.iter().map(|f| f.bytes).sum::<u64>() <= 100);
            assert!(files.iter().all(|f| (f.ino.0 % 2 == 0) == (*class == Class::Text)));
        }
        assert_eq!(bundles.iter().map(|b| b.full).collect::<Vec<_>>(), [true, false, true, false]);
    }

    #[test]
    fn files_of_different_policies_share_no_bundle() {
        let policy = |n: u64| match n % 3 {
            0 => Policy::of(Tier::Fast),
            1 => Policy { decode_ms: Some(20), ..Policy::default() },
            _ => Policy::default(),
        };
        let mut files: Vec<_> = (0..30).map(|n| SmallFile { policy: policy(n), ..small(n, Class::Text, 10) }).collect();
        files.sort_by_key(|f| (f.policy, f.ino));
        let bundles = bundle(files, SmallFile::about, |_, policy| if policy.decode_ms.is_some() { 20 } else { 1000 });
        assert_eq!(bundles.iter().map(|b| b.files.len()).sum::<usize>(), 30);
        // Each policy cuts by its own measure: ten files in one segment, or two in each of five.
        assert_eq!(bundles.len(), 1 + 1 + 5);
        assert!(bundles.iter().all(|b| b.files.iter().all(|file| policy(file.ino.0) == b.policy)));
    }

    #[test]
    fn writers_and_fresh_files_wait() {
        assert_eq!(readiness(true, 0, 3000, 10_000, true), Readiness::At(13_000));
        assert_eq!(readiness(false, 9_000, 3000, 10_000, false), Readiness::At(12_000));
        assert_eq!(readiness(false, 9_000, 3000, 10_000, true), Readiness::Now);
        assert_eq!(readiness(false, 7_000, 3000, 10_000, false), Readiness::Now);
        assert!(backoff_ms(0) == 1000 && backoff_ms(40) == BACKOFF_MS_MAX);
    }

    #[test]
    fn runs_merge_and_are_bounded() {
        let r = |start, end| ByteRange { start, end };
        assert_eq!(merge_runs(vec![r(5, 9), r(0, 5), r(12, 14), r(13, 20)]), [r(0, 9), r(12, 20)]);
        assert_eq!(merge_runs((0..100).map(|n| r(n * 10, n * 10 + 5)).collect()), [r(0, 995)]);
    }
}
