//! Settings from files: the flags of `tersefs mount`, as TOML.
//!
//! A key is a flag without its dashes, and its value is held against the same table, so that names, meaning and checks are
//! those of the flag. What a flag says counts before what STORE/tersefs.toml says, and that before /etc/tersefs/NAME.toml, or
//! the file of `--config`. The file of a store, which may come from anywhere, sets how its files are coded and nothing of the
//! machine.
//!
//! Rules are tables, `[[rule]]`, with a line for each of `match`, `class`, `older`, `tier`, `decode-ms` and `nocompress`; as a
//! flag, the same lines with commas between them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::FromArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use toml::de::{DeTable, DeValue};

use super::Failure;
use super::args::{self, Args, MountArgs, Verb};
use crate::base::Class;
use crate::codec::DECODE_MS_MAX;
use crate::host;
use crate::volume::{RULES_MAX, Rule, parse_age};

/// Directory of the files that are found by the name of a volume.
const DIRECTORY: &str = "/etc/tersefs";
/// File of a store.
const OF_STORE: &str = "tersefs.toml";
/// Longest file, bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Flags that make no sense in a file: they say how the program is called.
const NOT_SETTINGS: [&str; 6] = ["config", "daemon", "detached", "help", "rebuild-index", "verbose"];
/// What the file of a store may set.
const OF_THE_VOLUME: [&str; 12] = [
    "atime",
    "decode-ms",
    "method",
    "no-coding",
    "no-sharing",
    "no-training",
    "parity",
    "quiet-seconds",
    "rule",
    "scrub-days",
    "seal-seconds",
    "tier",
];

/// A setting of a file, as a flag.
#[derive(Debug, PartialEq)]
struct Setting {
    key: String,
    flag: String,
}

/// What a file says.
#[derive(Debug, Default, PartialEq)]
struct Settings {
    flags: Vec<Setting>,
    store: Option<PathBuf>,
    mountpoint: Option<PathBuf>,
}

/// What is set for a mount: `line`, the command line, which is `args`, with what files say before its flags.
pub(super) fn read(line: &[OsString], args: &MountArgs) -> Result<MountArgs, Failure> {
    let named = args.mountpoint.is_none() && args.config.is_none();
    let file = match (&args.config, &args.store) {
        (Some(file), _) => Some(file.clone()),
        (None, Some(name)) if named && name.components().count() == 1 => Some(file_of(name)),
        _ => None,
    };
    let mut etc = Settings::default();
    if let Some(file) = &file {
        let text = host::read_text(file, FILE_BYTES_MAX).map_err(|e| {
            let hint = if named {
                "; give a store and a mountpoint, or the name of a volume that has such a file"
            } else {
                ""
            };
            Failure(format!("{}: {e}{hint}", file.display()))
        })?;
        etc = parse(&file.display().to_string(), &text, false)?;
    }
    let given = if named { None } else { args.store.clone() };
    let missing = |what: &str| Failure(format!("no {what} is given: `tersefs mount STORE MOUNTPOINT`"));
    let store = given.or(etc.store).ok_or_else(|| missing("store"))?;
    let mountpoint = args.mountpoint.clone().or(etc.mountpoint).ok_or_else(|| missing("mountpoint"))?;
    let mut flags = etc.flags;
    let own = store.join(OF_STORE);
    if host::exists(&own) {
        let shown = own.display().to_string();
        let text = host::read_text(&own, FILE_BYTES_MAX).map_err(|e| Failure(format!("{shown}: {e}")))?;
        flags.extend(parse(&shown, &text, true)?.flags);
    }
    // Behind the verb, the first word that is no flag: of flags that come twice the last counts.
    let at = line.iter().skip(1).position(|word| word == "mount").map_or(line.len(), |at| at + 2);
    let mut whole = line.to_vec();
    whole.splice(at..at, flags.into_iter().map(|setting| setting.flag.into()));
    let matches = args::command().try_get_matches_from(whole).map_err(|e| Failure(e.to_string()))?;
    match Args::from_arg_matches(&matches).map_err(|e| Failure(e.to_string()))?.verb {
        Verb::Mount(mount) if mount.rule.len() > RULES_MAX => {
            Err(Failure(format!("there are {} rules in all; at most {RULES_MAX} can be", mount.rule.len())))
        }
        Verb::Mount(mount) => Ok(MountArgs { store: Some(store), mountpoint: Some(mountpoint), ..mount }),
        _ => Err(Failure("this is not a mount".into())),
    }
}

/// Where the settings of a volume of this name are.
fn file_of(name: &Path) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{}.toml", name.display()))
}

/// The store of a volume that is given by its name; `None` where there is no file of it, or no name is given but a path.
pub(super) fn store_named(name: &Path) -> Result<Option<PathBuf>, Failure> {
    let file = file_of(name);
    if name.components().count() != 1 || !host::exists(&file) {
        return Ok(None);
    }
    let shown = file.display().to_string();
    let text = host::read_text(&file, FILE_BYTES_MAX).map_err(|e| Failure(format!("{shown}: {e}")))?;
    Ok(parse(&shown, &text, false)?.store)
}

/// Reads the text of a file. `of_store` is true for one that lies in a store.
fn parse(file: &str, text: &str, of_store: bool) -> Result<Settings, Failure> {
    let line_of = |at: usize| text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1;
    let wrong = |at: usize, why: String| Failure(format!("{file}:{}: {why}", line_of(at)));
    let table = DeTable::parse(text).map_err(|e| wrong(e.span().map_or(0, |s| s.start), e.message().to_string()))?;
    let mut entries: Vec<_> = table.into_inner().into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut settings = Settings::default();
    for (key, value) in entries {
        let (at, name) = (key.span().start, key.get_ref().to_string());
        if let ("rule", DeValue::Array(rules)) = (name.as_str(), value.get_ref()) {
            if rules.len() > RULES_MAX {
                return Err(wrong(at, format!("there are {} rules; at most {RULES_MAX} can be", rules.len())));
            }
            for rule in rules {
                let DeValue::Table(fields) = rule.get_ref() else {
                    return Err(wrong(rule.span().start, "a rule is a table, [[rule]]".into()));
                };
                rule_of(fields).map_err(|(at, why)| wrong(at.unwrap_or(rule.span().start), why))?;
                settings.flags.push(Setting { key: name.clone(), flag: format!("--rule={}", in_a_line(fields)) });
            }
            continue;
        }
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(n) if n.radix() == 10 => n.as_str().to_string(),
            DeValue::Float(n) => n.as_str().to_string(),
            DeValue::Boolean(yes) => yes.to_string(),
            DeValue::Integer(_) | DeValue::Array(_) | DeValue::Table(_) | DeValue::Datetime(_) => {
                return Err(wrong(at, format!("`{name}` is not a text, a decimal number, true or false")));
            }
        };
        if of_store && !OF_THE_VOLUME.contains(&name.as_str()) {
            let which = OF_THE_VOLUME.join(", ");
            return Err(wrong(at, format!("`{name}` cannot be set in a store, where only these can: {which}")));
        }
        match name.as_str() {
            "store" => settings.store = Some(text.into()),
            "mountpoint" => settings.mountpoint = Some(text.into()),
            _ => {
                let flag = format!("--{name}={text}");
                check(&name, &flag).map_err(|why| wrong(at, why))?;
                settings.flags.push(Setting { key: name, flag });
            }
        }
    }
    Ok(settings)
}

/// Reads a rule of the command line.
pub(super) fn rule(text: &str) -> Result<Rule, String> {
    let line = format!("rule = {{ {text} }}");
    let table = DeTable::parse(&line).map_err(|e| e.message().to_string())?.into_inner();
    match table.iter().map(|(key, value)| (key.get_ref().as_ref(), value.get_ref())).collect::<Vec<_>>().as_slice() {
        [("rule", DeValue::Table(fields))] => rule_of(fields).map_err(|(_, why)| why),
        _ => Err("a rule is one list, like: match = \"*.log\", tier = \"deep\"".into()),
    }
}

/// A rule by its fields; else what is wrong, and where.
fn rule_of(fields: &DeTable<'_>) -> Result<Rule, (Option<usize>, String)> {
    let mut rule = Rule::default();
    for (key, value) in fields {
        let name = key.get_ref().replace('_', "-");
        let wrong = |why: String| (Some(key.span().start), why);
        let text = || match value.get_ref() {
            DeValue::String(text) => Ok(text.as_ref()),
            _ => Err(wrong(format!("`{name}` of a rule is a text"))),
        };
        match name.as_str() {
            "match" => rule.path = Some(text()?.parse().map_err(wrong)?),
            "class" => {
                let class = text()?;
                let known = Class::ALL.into_iter().find(|known| known.name() == class);
                let all = Class::ALL.map(Class::name).join(", ");
                rule.class = Some(known.ok_or_else(|| wrong(format!("`class` of a rule is one of {all}")))?);
            }
            "older" => rule.older_s = Some(parse_age(text()?).map_err(wrong)?),
            "tier" => {
                let tier = text()?.parse();
                rule.tier = Some(tier.map_err(|()| wrong("`tier` of a rule is fast, balanced or deep".into()))?);
            }
            "decode-ms" => {
                let ms = match value.get_ref() {
                    DeValue::Integer(n) if n.radix() == 10 => n.as_str().parse().ok(),
                    _ => None,
                };
                let ms = ms.filter(|ms| (1..=DECODE_MS_MAX).contains(ms));
                let why = || wrong(format!("`decode-ms` of a rule is a whole number, 1 to {DECODE_MS_MAX}"));
                rule.decode_ms = Some(ms.ok_or_else(why)?);
            }
            "nocompress" => match value.get_ref() {
                DeValue::Boolean(plain) => rule.plain = Some(*plain),
                _ => return Err(wrong("`nocompress` of a rule is true or false".into())),
            },
            _ => {
                let what = "match, class, older, tier, decode-ms and nocompress";
                return Err(wrong(format!("there is no `{name}` of rules, which have {what}")));
            }
        }
    }
    if rule.tier.is_none() && rule.decode_ms.is_none() && rule.plain.is_none() {
        return Err((None, "a rule says one of tier, decode-ms and nocompress at least".into()));
    }
    Ok(rule)
}

/// The fields of a rule as they are on the command line. Only of those that `rule_of` takes.
fn in_a_line(fields: &DeTable<'_>) -> String {
    let field = |value: &DeValue<'_>| match value {
        // What JSON escapes, and how, is what TOML takes.
        DeValue::String(text) => serde_json::Value::from(text.as_ref()).to_string(),
        DeValue::Integer(n) => n.as_str().to_string(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Float(_) | DeValue::Array(_) | DeValue::Table(_) | DeValue::Datetime(_) => String::new(),
    };
    let each = fields.iter().map(|(key, value)| format!("{} = {}", key.get_ref(), field(value.get_ref())));
    each.collect::<Vec<_>>().join(", ")
}

/// Holds a flag against the table; what is wrong is said of the setting.
fn check(name: &str, flag: &str) -> Result<(), String> {
    let unknown = |near: Option<&str>| {
        let near = near.map_or(String::new(), |near| format!("; is `{}` meant?", near.trim_start_matches('-')));
        Err(format!("there is no setting `{name}`{near} `tersefs mount --help` shows all"))
    };
    if NOT_SETTINGS.contains(&name) || name.len() < 2 {
        return unknown(None);
    }
    let Err(e) = args::command().try_get_matches_from(["tersefs", "mount", flag, "--", "a", "b"]) else {
        return Ok(());
    };
    if e.kind() == ErrorKind::UnknownArgument {
        return match e.get(ContextKind::SuggestedArg) {
            Some(ContextValue::String(near)) => unknown(Some(near)),
            _ => unknown(None),
        };
    }
    Err(args::first_sentence(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str, of_store: bool) -> String {
        parse("F", text, of_store).unwrap_err().0
    }

    #[test]
    fn a_file_is_flags() {
        let text = "# A volume.\nstore = '/srv/a store'\nmountpoint = \"/mnt/cold\"\n\nmemory = 1_024\ntier = \"deep\"\n\
                    quiet-seconds = 0.5\nno-coding = true\nno-training = false\nparity = \"10+1\"\n";
        let settings = parse("F", text, false).unwrap();
        assert_eq!(settings.store, Some("/srv/a store".into()));
        assert_eq!(settings.mountpoint, Some("/mnt/cold".into()));
        let flags: Vec<&str> = settings.flags.iter().map(|s| s.flag.as_str()).collect();
        assert_eq!(
            flags,
            [
                "--memory=1024",
                "--tier=deep",
                "--quiet-seconds=0.5",
                "--no-coding=true",
                "--no-training=false",
                "--parity=10+1"
            ]
        );
        assert_eq!(parse("F", "", true).unwrap(), Settings::default());
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_line() {
        assert_eq!(
            why("memory = 64\n\nmemroy = 64\n", false),
            "F:3: there is no setting `memroy`; is `memory` meant? `tersefs mount --help` shows all"
        );
        for (text, says) in [
            (
                "tier = \"cheap\"",
                "F:1: invalid value 'cheap' for 'tier <TIER>' [possible values: fast, balanced, deep]",
            ),
            ("memory = -1", "F:1: "),
            ("memory = 0x40", "F:1: `memory` is not a text"),
            ("\nmemory = [64]", "F:2: `memory` is not a text"),
            ("no-coding = 1", "F:1: invalid value '1' for 'no-coding"),
            ("[mount]\nmemory = 64", "F:1: `mount` is not a text"),
            ("memory = 64\nmemory = 65", "F:2: duplicate key"),
            ("memory 64", "F:1: "),
            ("daemon = true", "F:1: there is no setting `daemon`"),
            ("h = true", "F:1: there is no setting `h`"),
            ("\"\" = true", "F:1: there is no setting ``"),
        ] {
            let why = why(text, false);
            assert!(why.starts_with(says), "{text}: {why}");
        }
        // A store says nothing of the machine.
        for text in [
            "memory = 64",
            "nosuid = false",
            "allow-other = true",
            "store = 'a'",
            "mountpoint = '/etc'",
            "config = 'a'",
        ] {
            let why = why(text, true);
            assert!(why.contains("cannot be set in a store"), "{why}");
        }
    }

    #[test]
    fn rules_are_tables_and_lines_of_the_same() {
        let text = "tier = 'fast'\n[[rule]]\nmatch = 'a \\ \"b\"/*'\nolder = '7d'\ntier = 'deep'\n\n\
                    [[rule]]\nclass = 'log'\ndecode_ms = 20\nnocompress = false\n";
        let settings = parse("F", text, true).unwrap();
        let rules: Vec<Rule> = settings
            .flags
            .iter()
            .filter_map(|s| s.flag.strip_prefix("--rule=").map(|text| rule(text).unwrap()))
            .collect();
        let first = Rule {
            path: Some("a \\ \"b\"/*".parse().unwrap()),
            older_s: Some(7 * 86_400),
            tier: Some(crate::codec::Tier::Deep),
            ..Rule::default()
        };
        let second = Rule { class: Some(Class::Log), decode_ms: Some(20), plain: Some(false), ..Rule::default() };
        assert_eq!(rules, [first.clone(), second]);
        // Those of the command line come behind: they count before.
        let line = ["tersefs", "mount", &settings.flags[1].flag, "--rule", "tier='fast'", "a", "b"];
        let matches = args::command().try_get_matches_from(line).unwrap();
        let Verb::Mount(mount) = Args::from_arg_matches(&matches).unwrap().verb else { panic!() };
        assert_eq!(mount.rule.len(), 2);
        assert_eq!(mount.rule[0], first);
        for (text, says) in [
            ("\n[[rule]]\nmatch = 'a'", "F:2: a rule says one of"),
            ("[[rule]]\ntier = 'deep'\nolder = '7 days'", "F:3: \"7 days\" is no age"),
            ("[[rule]]\ntier = 'slow'", "F:2: `tier` of a rule is fast, balanced or deep"),
            ("[[rule]]\nclass = 'film'\ntier = 'fast'", "F:2: `class` of a rule is one of unknown, text, "),
            ("[[rule]]\nclass = 3\ntier = 'fast'", "F:2: `class` of a rule is a text"),
            ("[[rule]]\nmatch = 'a**'\ntier = 'fast'", "F:2: pattern \"a**\": "),
            ("[[rule]]\ndecode-ms = 0", "F:2: `decode-ms` of a rule is a whole number"),
            ("[[rule]]\nnocompress = 1", "F:2: `nocompress` of a rule is true or false"),
            ("[[rule]]\nglob = '*'\ntier = 'fast'", "F:2: there is no `glob` of rules"),
            ("rule = ['a']", "F:1: a rule is a table"),
            ("rule = 3", "F:1: invalid value '3' for 'rule <RULE>'"),
            ("[rule]\ntier = 'fast'", "F:1: `rule` is not a text"),
        ] {
            let why = why(text, true);
            assert!(why.starts_with(says), "{text}: {why}");
        }
        for bad in ["", "tier = 'deep' }\nstore = { a = 1", "tier", "tier = 'deep', tier = 'fast'"] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_store_may_set_is_in_the_table() {
        let command = args::command();
        let mount = command.find_subcommand("mount").unwrap();
        for name in OF_THE_VOLUME.iter().chain(&NOT_SETTINGS[..3]) {
            assert!(mount.get_arguments().any(|arg| arg.get_long() == Some(name)), "{name}");
        }
    }

    #[test]
    fn flags_count_before_the_store_and_that_before_the_file_of_the_machine() {
        let dir = host::scratch().unwrap();
        let (store, etc) = (dir.path().join("store"), dir.path().join("etc.toml"));
        host::make_directory(&store).unwrap();
        let text = format!(
            "store = {store:?}\nmountpoint = '/m'\nmemory = 100\nscrub-days = 1\nno-coding = true\ntier = 'fast'"
        );
        host::write_file(&etc, text.as_bytes()).unwrap();
        let text = b"scrub-days = 2\nno-coding = false\ntier = 'deep'";
        host::write_file(&store.join(OF_STORE), text).unwrap();
        let read = |flags: &str| {
            let line: Vec<OsString> = format!("tersefs -v mount --config={} {flags}", etc.display())
                .split_whitespace()
                .map(OsString::from)
                .collect();
            let matches = args::command().try_get_matches_from(&line).unwrap();
            let Verb::Mount(mount) = Args::from_arg_matches(&matches).unwrap().verb else { panic!() };
            read(&line, &mount).unwrap()
        };
        let mount = read("--tier balanced");
        assert_eq!((mount.store, mount.mountpoint), (Some(store.clone()), Some("/m".into())));
        assert_eq!((mount.memory, mount.scrub_days, mount.no_coding), (100, 2, false));
        assert_eq!(mount.tier, args::TierArg::Balanced);
        let mount = read("--no-coding --memory=70 -- /other /n");
        assert_eq!((mount.memory, mount.scrub_days, mount.no_coding), (70, 1, true));
        assert_eq!((mount.store, mount.mountpoint), (Some("/other".into()), Some("/n".into())));
        let mount = read("--no-coding=false --scrub-days 9");
        assert_eq!((mount.no_coding, mount.scrub_days), (false, 9));
    }
}
