//! Rules of the configuration: how files are coded by their paths, their kind of data and their age.
//!
//! # What holds for a file
//! Tier, decode budget, and whether it stays plain are looked up each for itself. The first that says it counts:
//! 1. the attribute of the file, or of the nearest directory above that has it (wishes.rs);
//! 2. the last rule that matches the file;
//! 3. the setting of the volume, and where there is none, of the tier.
//!
//! Age is the time since the content was last modified (mtime). What is coded already is coded anew when it comes to an age
//! that a rule speaks of (ladder.rs); everything else counts for what is coded from then on.

use std::str::FromStr;

use glob::{MatchOptions, Pattern};

use crate::base::{Class, crc32c};
use crate::codec::Tier;

/// Rules of a volume, and bytes of a pattern: each is held against each file that is coded.
pub const RULES_MAX: usize = 256;
const PATTERN_BYTES_MAX: usize = 1024;
/// Longest age, seconds: a hundred years.
const AGE_S_MAX: u64 = 100 * 366 * 86_400;

/// A pattern of paths from the root of the volume. `*`, `?` and `[a-z]` stand for what is within a name, `**` for any
/// directories. Without a slash before its end it is held against names in all directories; one that ends in a slash
/// matches what is below such directories.
///
/// It is held against names one by one: over a whole path the library tries every place of every star again at each slash, which
/// for some patterns and paths never ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Any directories, or none; at the end of a pattern what is below, however deep.
    Any,
    Name(Pattern),
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<PathPattern, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes"));
        }
        let (body, below) = text.strip_suffix('/').map_or((text, false), |body| (body, true));
        let from_root = body.trim_start_matches('/');
        if from_root.is_empty() {
            return Err("a pattern names files, like \"*.log\" or \"logs/**\"".into());
        }
        let mut parts = if body.contains('/') { Vec::new() } else { vec![Part::Any] };
        for name in from_root.split('/') {
            parts.push(match name {
                "**" => Part::Any,
                "" => return Err(format!("pattern {text:?}: there is no name between two slashes")),
                _ if name.contains("**") => {
                    return Err(format!("pattern {text:?}: ** stands for directories, and alone between slashes"));
                }
                _ => Part::Name(Pattern::new(name).map_err(|e| format!("pattern {text:?}: {}", e.msg))?),
            });
        }
        parts.extend(below.then_some(Part::Any));
        Ok(PathPattern(parts))
    }
}

impl PathPattern {
    /// Holds it against a path without its first slash. Takes as long as names times parts.
    pub fn matches(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').collect();
        // Of the first names which numbers of them the parts so far match.
        let mut matched = vec![false; names.len() + 1];
        matched[0] = true;
        for (n, part) in self.0.iter().enumerate() {
            let mut next = vec![false; names.len() + 1];
            match part {
                Part::Any => {
                    // What is below a directory is not the directory.
                    let last = n + 1 == self.0.len();
                    let mut any = false;
                    for (from, to) in matched.iter().zip(&mut next) {
                        *to = any || (*from && !last);
                        any |= *from;
                    }
                }
                Part::Name(pattern) => {
                    for ((from, name), to) in matched.iter().zip(&names).zip(next.iter_mut().skip(1)) {
                        *to = *from && pattern.matches_with(name, MatchOptions::default());
                    }
                }
            }
            matched = next;
        }
        matched.last().copied().unwrap_or(false)
    }
}

/// An age, seconds, as "90s", "30m", "12h", "7d" or "4w".
pub fn parse_age(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no age: give a whole number and a unit, like 90s, 30m, 12h, 7d or 4w");
    let unit = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(b'd') => 86_400,
        Some(b'w') => 7 * 86_400,
        Some(_) | None => return Err(wrong()),
    };
    let digits = text.get(..text.len() - 1).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
    let number: u64 = digits.and_then(|d| d.parse().ok()).ok_or_else(wrong)?;
    number.checked_mul(unit).filter(|s| (1..=AGE_S_MAX).contains(s)).ok_or_else(wrong)
}

/// One rule: what it is for, and what it says. What is not given is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub path: Option<PathPattern>,
    pub class: Option<Class>,
    /// Files modified no later than so many seconds ago.
    pub older_s: Option<u64>,
    pub tier: Option<Tier>,
    pub decode_ms: Option<u32>,
    /// The bytes stay plain, or do not though a rule before says so.
    pub plain: Option<bool>,
}

impl Rule {
    /// True when it is for a file. What is not known of one (`None`) does not match.
    fn matches(&self, path: Option<&str>, class: Option<Class>, age_s: i64) -> bool {
        self.older_s.is_none_or(|older| i64::try_from(older).is_ok_and(|older| age_s >= older))
            && self.class.is_none_or(|wanted| class == Some(wanted))
            && self.path.as_ref().is_none_or(|pattern| path.is_some_and(|path| pattern.matches(path)))
    }
}

/// What rules say of a file, each with the number of its rule, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub tier: Option<(Tier, usize)>,
    pub decode_ms: Option<(u32, usize)>,
    pub plain: Option<(bool, usize)>,
}

/// All rules of a volume, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// # Errors
    /// When there are more than `RULES_MAX`.
    pub fn new(rules: Vec<Rule>) -> Result<Rules, String> {
        if rules.len() > RULES_MAX {
            return Err(format!("there are {} rules; at most {RULES_MAX} can be", rules.len()));
        }
        Ok(Rules(rules))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when paths of files must be known.
    pub(super) fn ask_paths(&self) -> bool {
        self.0.iter().any(|rule| rule.path.is_some())
    }

    /// True when files that stay plain may stop doing so as they grow older.
    pub(super) fn ends_plain_by_age(&self) -> bool {
        self.0.iter().any(|rule| rule.older_s.is_some() && rule.plain == Some(false))
    }

    /// The lowest age that a rule speaks of, seconds.
    pub fn first_age_s(&self) -> Option<u64> {
        self.0.iter().filter_map(|rule| rule.older_s).min()
    }

    /// What holds for a file by the rules: of those that match, the last that says it.
    pub(super) fn say(&self, path: Option<&str>, class: Option<Class>, age_s: i64) -> Said {
        let mut said = Said::default();
        for (n, rule) in (1..).zip(&self.0).filter(|(_, rule)| rule.matches(path, class, age_s)) {
            said.tier = rule.tier.map(|tier| (tier, n)).or(said.tier);
            said.decode_ms = rule.decode_ms.map(|ms| (ms, n)).or(said.decode_ms);
            said.plain = rule.plain.map(|plain| (plain, n)).or(said.plain);
        }
        said
    }

    /// True when a file that was modified at `modified` came to an age that a rule for it speaks of after `since` and until
    /// `now`; all seconds since 1970. `path` is asked for where it matters.
    pub(super) fn came_of_age(
        &self,
        modified: i64,
        since: i64,
        now: i64,
        path: impl FnOnce() -> Option<String>,
    ) -> bool {
        let crossed = |rule: &&Rule| {
            rule.older_s.is_some_and(|older| {
                let at = modified.saturating_add_unsigned(older);
                since < at && at <= now
            })
        };
        let mut rules = self.0.iter().filter(crossed).peekable();
        if rules.peek().is_none() {
            return false;
        }
        let path = if self.ask_paths() { path() } else { None };
        // Of what kind its bytes are each segment says.
        rules.any(|rule| rule.path.as_ref().is_none_or(|p| path.as_deref().is_some_and(|path| p.matches(path))))
    }

    /// Another number for other rules, but for one in four thousand millions.
    pub(super) fn fingerprint(&self) -> u32 {
        crc32c(format!("{self:?}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let parsed: PathPattern = pattern.parse().unwrap();
        for path in yes {
            assert!(parsed.matches(path), "{pattern} {path}");
        }
        for path in no {
            assert!(!parsed.matches(path), "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_are_of_paths_from_the_root() {
        check("*.log", &["a.log", "x/y/.log", "x/b.log"], &["a.log/b", "a.logs"]);
        check("logs/**/*.log", &["logs/a.log", "logs/x/y/a.log"], &["a.log", "x/logs/a.log", "logs/a.txt"]);
        check("/logs/*", &["logs/a", "logs/.a"], &["logs/x/a", "x/logs/a"]);
        check("build/", &["build/a", "x/build/y/z"], &["build", "builds/a"]);
        check("/build/", &["build/a", "build/y/z"], &["x/build/y"]);
        check("a/**", &["a/b", "a/b/c"], &["a", "b/a/c"]);
        check("**", &["a", "a/b"], &[]);
        check("v[0-9]?.bin", &["v12.bin", "x/v0_.bin"], &["va1.bin", "v1/.bin"]);
        check("a/**/b/**/c", &["a/b/c", "a/x/b/y/z/c", "a/b/b/c"], &["a/c", "a/b", "a/b/c/d"]);
        check("é*", &["été", "x/é"], &["e"]);
        for bad in ["", "/", "//", "a//b", "a**", "a/***", "[a", "x".repeat(PATTERN_BYTES_MAX + 1).as_str()] {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad}");
        }
        // Nothing that somebody writes into the settings of a store takes long to hold against a name.
        let slow: PathPattern = "*a*a*a*a*a*a*a*a*a*a*b".parse().unwrap();
        assert!(!slow.matches(&"a".repeat(255)));
        assert!(!slow.matches(&format!("{}/f", "a".repeat(255))));
        assert!(!slow.matches(&vec!["a".repeat(255); 16].join("/")));
    }

    #[test]
    fn ages_have_a_unit() {
        assert_eq!(parse_age("90s"), Ok(90));
        assert_eq!(parse_age("7d"), Ok(604_800));
        assert_eq!((parse_age("2w"), parse_age("3h"), parse_age("5m")), (Ok(1_209_600), Ok(10_800), Ok(300)));
        for bad in ["", "d", "7", "7 d", "-7d", "+7d", "1.5h", "7y", "0s", "99999999999999999999d", "9999999w", "é"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }

    fn rules() -> Rules {
        let of = |path: &str| Some(path.parse().unwrap());
        Rules::new(vec![
            Rule { tier: Some(Tier::Fast), ..Rule::default() },
            Rule { older_s: Some(3600), tier: Some(Tier::Balanced), ..Rule::default() },
            Rule { older_s: Some(86_400), class: Some(Class::Log), tier: Some(Tier::Deep), ..Rule::default() },
            Rule { path: of("hot/"), tier: Some(Tier::Fast), decode_ms: Some(20), ..Rule::default() },
            Rule { path: of("*.iso"), plain: Some(true), ..Rule::default() },
        ])
        .unwrap()
    }

    #[test]
    fn the_last_rule_that_matches_counts_each_for_itself() {
        let rules = rules();
        let tier = |path, class, age_s| rules.say(path, class, age_s).tier;
        assert_eq!(tier(None, None, 0), Some((Tier::Fast, 1)));
        assert_eq!(tier(Some("a"), Some(Class::Log), 3599), Some((Tier::Fast, 1)));
        assert_eq!(tier(Some("a"), Some(Class::Log), 3600), Some((Tier::Balanced, 2)));
        assert_eq!(tier(Some("a"), Some(Class::Log), 86_400), Some((Tier::Deep, 3)));
        assert_eq!(tier(Some("a"), Some(Class::Text), 86_400), Some((Tier::Balanced, 2)));
        assert_eq!(tier(Some("a"), None, 86_400), Some((Tier::Balanced, 2)));
        // A file from the future is fresh.
        assert_eq!(tier(Some("a"), Some(Class::Log), -5), Some((Tier::Fast, 1)));
        let hot = rules.say(Some("hot/x.iso"), Some(Class::Log), 86_400);
        assert_eq!(hot, Said { tier: Some((Tier::Fast, 4)), decode_ms: Some((20, 4)), plain: Some((true, 5)) });
        assert_eq!(Rules::default().say(Some("a"), None, 0), Said::default());
        assert!(Rules::new(vec![Rule::default(); RULES_MAX + 1]).is_err());
    }

    #[test]
    fn a_file_comes_of_age_once() {
        let rules = rules();
        let at = |since, now| rules.came_of_age(1000, since, now, || Some("a".into()));
        assert!(!at(0, 4599) && at(0, 4600) && at(4599, 4600) && !at(4600, 4700));
        assert!(at(4600, 87_400) && !at(87_400, 1 << 40));
        let hot = Rules::new(vec![Rule {
            path: Some("hot/".parse().unwrap()),
            older_s: Some(10),
            tier: Some(Tier::Deep),
            ..Rule::default()
        }])
        .unwrap();
        assert!(hot.came_of_age(0, 0, 10, || Some("hot/a".into())));
        assert!(!hot.came_of_age(0, 0, 10, || Some("a".into())) && !hot.came_of_age(0, 0, 10, || None));
        // The path is asked for only of files that may have come of age.
        assert!(!hot.came_of_age(0, 0, 9, || panic!("nobody asked")));
        assert_ne!(hot.fingerprint(), rules.fingerprint());
        assert_eq!(rules.fingerprint(), self::rules().fingerprint());
    }
}
