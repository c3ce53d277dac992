//! Rules of the configuration: files are coded by their paths, kinds and ages, attributes count before rules, and files that
//! come of age are coded anew without anything happening to their bytes.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{Dice, Files, check, code_all, fresh, holds, open, options, put, read, remove};
use tersefs::base::{Class, Ino};
use tersefs::codec::{DECODE_MS_MAX, Policy, Tier};
use tersefs::host::{SimDisk, Survival};
use tersefs::volume::{
    Adjustable, Caller, Error, OpenFor, RecodeReport, Rule, Rules, SetAttr, SetTime, Time, Volume, VolumeOptions,
    XattrMode,
};
use tersefs::workers::Workers;

const ROOT: Caller = Caller { uid: 0, gid: 0 };
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// Nothing is decided by how fast this machine is.
fn policy() -> Policy {
    Policy { decode_ms: Some(DECODE_MS_MAX), ..Policy::default() }
}

fn opened(disk: &SimDisk, rules: &[Rule]) -> Arc<Volume> {
    try_open(disk, rules).unwrap()
}

fn try_open(disk: &SimDisk, rules: &[Rule]) -> Result<Arc<Volume>, Error> {
    let rules = Arc::new(Rules::new(rules.to_vec()).unwrap());
    // Without the cache, so that what is on disk is what is read.
    let options = VolumeOptions { policy: policy(), rules, cache_bytes: Some(0), ..options(None) };
    open(disk, options, &Arc::new(Workers::new(1)))
}

fn rule(path: &str) -> Rule {
    Rule { path: Some(path.parse().unwrap()), ..Rule::default() }
}

/// Fast at first, the usual method after an hour, the strongest after a week.
fn ladder() -> [Rule; 3] {
    let after = |older_s, tier| Rule { older_s, tier: Some(tier), ..Rule::default() };
    [after(None, Tier::Fast), after(Some(HOUR), Tier::Balanced), after(Some(7 * DAY), Tier::Deep)]
}

fn write(volume: &Arc<Volume>, parent: Ino, name: &str, data: &[u8]) -> Ino {
    let open = OpenFor { read: true, write: true, append: false, truncate: false };
    let (attr, opened) = volume.create(parent, name.as_bytes(), 0o644, &ROOT, open).unwrap();
    volume.write(attr.ino, opened.handle, 0, data).unwrap();
    volume.release(attr.ino, opened.handle).unwrap();
    attr.ino
}

fn age(volume: &Volume, ino: Ino, seconds: u64) -> Result<(), Error> {
    let secs = tersefs::host::now().0 - seconds as i64;
    let mtime = Some(SetTime::To(Time { secs, nanos: 0 }));
    volume.setattr(ino, &SetAttr { mtime, ..SetAttr::default() })?;
    volume.flush()
}

fn methods(volume: &Volume, ino: Ino) -> BTreeSet<String> {
    volume.report(ino).unwrap().segments.into_iter().map(|s| s.method).collect()
}

#[track_caller]
fn is_coded_by(volume: &Volume, ino: Ino, method: &str) {
    assert_eq!(methods(volume, ino), BTreeSet::from([method.to_string()]));
}

/// A whole walk.
fn walk(volume: &Arc<Volume>, mut between: impl FnMut()) -> Result<RecodeReport, Error> {
    let mut run = volume.plan_ladder().expect("a rule goes by age");
    let mut steps = 0;
    while !run.is_done() {
        volume.ladder_step(&mut run)?;
        between();
        steps += 1;
        assert!(steps < 10_000, "a walk does not come to an end");
    }
    Ok(run.report)
}

#[test]
fn files_are_coded_by_path_kind_and_age() {
    let disk = fresh();
    let rules = [
        Rule { tier: Some(Tier::Fast), ..rule("logs/**/*.log") },
        Rule { tier: Some(Tier::Fast), class: Some(Class::Json), ..Rule::default() },
        Rule { tier: Some(Tier::Fast), older_s: Some(30 * DAY), ..Rule::default() },
        Rule { plain: Some(true), ..rule("*.iso") },
        Rule { plain: Some(false), ..rule("small.iso") },
    ];
    let volume = opened(&disk, &rules);
    let logs = volume.mkdir(Ino::ROOT, b"logs", 0o755, &ROOT).unwrap().ino;
    let deep = volume.mkdir(logs, b"deep", 0o755, &ROOT).unwrap().ino;
    let mut dice = Dice::new(5);
    let mut text = |len| dice.text(len);
    let fast = [write(&volume, logs, "a.log", &text(90_000)), write(&volume, deep, "b.log", &text(900))];
    let usual = [
        write(&volume, Ino::ROOT, "a.log", &text(90_000)),
        write(&volume, logs, "a.txt", &text(900)),
        write(&volume, Ino::ROOT, "small.iso", &text(90_000)),
    ];
    let json = "{\"id\": 17, \"name\": \"of a thing\", \"tags\": [\"a\", \"b\"]}\n".repeat(2000);
    let json = write(&volume, Ino::ROOT, "things", json.as_bytes());
    let old = write(&volume, Ino::ROOT, "old", &text(90_000));
    age(&volume, old, 31 * DAY).unwrap();
    let plain = write(&volume, deep, "x.iso", &text(90_000));
    // An attribute counts before a rule.
    let own = write(&volume, logs, "own.log", &text(90_000));
    volume.setxattr(own, b"user.tersefs.tier", b"balanced", XattrMode::Set).unwrap();
    code_all(&volume, || ()).unwrap();
    for ino in fast.into_iter().chain([json, old]) {
        is_coded_by(&volume, ino, "zstd");
    }
    for ino in usual.into_iter().chain([own]) {
        is_coded_by(&volume, ino, "primed");
    }
    is_coded_by(&volume, plain, "staged or hole");
    let report = |ino| volume.report(ino).unwrap().policy;
    assert_eq!((report(fast[1]).tier_from.as_str(), report(json).tier_from.as_str()), ("rule 1", "rule 2"));
    assert_eq!((report(old).tier_from.as_str(), report(own).tier_from.as_str()), ("rule 3", "own"));
    assert_eq!((report(plain).stays_plain, report(plain).stays_plain_from.as_str()), (true, "rule 4"));
    assert_eq!((report(usual[2]).stays_plain, report(usual[2]).stays_plain_from.as_str()), (false, "rule 5"));
    // A moved file is of its new path; other rules count from now on.
    volume.rename(deep, b"b.log", Ino::ROOT, b"b.txt", tersefs::volume::RenameMode::Replace).unwrap();
    assert_eq!(report(fast[1]).tier_from, "volume");
    assert!(volume.plan_coding(8, true).is_empty() && volume.backlog().files == 0);
    volume.adjust(Adjustable { policy: policy(), quiet_ms: 0, seal_ms: 0, rules: Arc::default() });
    code_all(&volume, || ()).unwrap();
    is_coded_by(&volume, plain, "primed");
    volume.close().unwrap();
    check(&disk);
}

#[test]
fn names_of_a_large_directory_are_found_whatever_becomes_of_it() {
    let disk = fresh();
    let volume = opened(&disk, &[Rule { decode_ms: Some(77), ..rule("*.yes") }]);
    let mut inos = Vec::new();
    for n in 0..3000 {
        let name = format!("{n}.{}", if n % 3 == 0 { "yes" } else { "no" });
        inos.push((write(&volume, Ino::ROOT, &name, b""), name));
    }
    let mut dice = Dice::new(9);
    for _ in 0..200 {
        let (ino, name) = dice.pick(&inos).unwrap().clone();
        let is = |name: &str| if name.ends_with("yes") { "rule 1" } else { "volume" };
        assert_eq!(volume.report(ino).unwrap().policy.decode_ms_from, is(&name), "{name}");
        if dice.roll(3) == 0 {
            let new = format!("{}.{}", dice.next(), if dice.roll(2) == 0 { "yes" } else { "no" });
            let mode = tersefs::volume::RenameMode::NoReplace;
            volume.rename(Ino::ROOT, name.as_bytes(), Ino::ROOT, new.as_bytes(), mode).unwrap();
            assert_eq!(volume.report(ino).unwrap().policy.decode_ms_from, is(&new), "{new}");
            inos.iter_mut().filter(|(i, _)| *i == ino).for_each(|(_, name)| name.clone_from(&new));
        }
    }
    volume.close().unwrap();
}

#[test]
fn files_climb_as_they_come_of_age() {
    let disk = fresh();
    let volume = opened(&disk, &ladder());
    let mut dice = Dice::new(11);
    // Real text, on which the strongest method gains enough to be worth it.
    let source = concat!(include_str!("../src/volume/coding.rs"), include_str!("../src/volume/mod.rs"));
    let small: [&[u8]; 3] = [&dice.text(900), &dice.text(800), &dice.text(120_000)];
    let content: Vec<Vec<u8>> = std::iter::once(source.as_bytes()).chain(small).map(<[u8]>::to_vec).collect();
    let inos: Vec<Ino> = (0..4).map(|n| write(&volume, Ino::ROOT, &format!("f{n}"), &content[n])).collect();
    let bound = inos[3];
    volume.setxattr(bound, b"user.tersefs.tier", b"fast", XattrMode::Set).unwrap();
    code_all(&volume, || ()).unwrap();
    inos.iter().for_each(|ino| is_coded_by(&volume, *ino, "zstd"));
    let walked = walk(&volume, || ()).unwrap();
    assert_eq!((walked.segments_looked_at, walked.segments_recoded), (0, 0), "nothing is an hour old");

    // The first walk by other rules, as those of the test are, looks at all ages; so a new volume is opened where time passes.
    let volume = remount(volume, &disk);
    for ino in &inos {
        age(&volume, *ino, 2 * HOUR).unwrap();
    }
    let walked = walk(&volume, || ()).unwrap();
    assert!(walked.segments_recoded >= 2 && walked.after_bytes < walked.before_bytes, "{walked:?}");
    inos[..3].iter().for_each(|ino| is_coded_by(&volume, *ino, "primed"));
    is_coded_by(&volume, bound, "zstd");
    assert_eq!(walk(&volume, || ()).unwrap().segments_looked_at, 0, "all was looked at");

    let volume = remount(volume, &disk);
    age(&volume, inos[0], 8 * DAY).unwrap();
    // One of two that share a segment is young: it stays as it is.
    age(&volume, inos[1], 8 * DAY).unwrap();
    age(&volume, bound, 8 * DAY).unwrap();
    walk(&volume, || ()).unwrap();
    is_coded_by(&volume, inos[0], "strong");
    is_coded_by(&volume, inos[1], "primed");
    is_coded_by(&volume, bound, "zstd");
    for (ino, content) in inos.iter().zip(&content) {
        assert!(read(&volume, *ino, 0, 1 << 20).unwrap() == *content);
    }
    assert_eq!(volume.audit().unwrap(), [""; 0]);
    volume.close().unwrap();
    check(&disk);
}

/// Opens a volume anew, with nothing remembered of walks.
fn remount(volume: Arc<Volume>, disk: &SimDisk) -> Arc<Volume> {
    use tersefs::host::Disk;
    common::shut(volume);
    disk.remove("ladder.json").unwrap();
    opened(disk, &ladder())
}

#[test]
fn a_walk_that_is_cut_off_is_gone_on_with_and_other_rules_begin_anew() {
    let disk = fresh();
    let volume = opened(&disk, &ladder());
    let ino = write(&volume, Ino::ROOT, "f", &Dice::new(3).text(100_000));
    code_all(&volume, || ()).unwrap();
    age(&volume, ino, 2 * HOUR).unwrap();
    let mut run = volume.plan_ladder().unwrap();
    volume.ladder_step(&mut run).unwrap();
    // Rules are read anew while it goes on: it ends, and is not taken for done.
    let mut rules = ladder().to_vec();
    rules.pop();
    let rules = Arc::new(Rules::new(rules).unwrap());
    volume.adjust(Adjustable { policy: policy(), quiet_ms: 0, seal_ms: 0, rules });
    volume.ladder_step(&mut run).unwrap();
    assert!(run.is_done());
    is_coded_by(&volume, ino, "zstd");
    assert_eq!(walk(&volume, || ()).unwrap().segments_recoded, 1);
    is_coded_by(&volume, ino, "primed");
    // Without rules by age there is nothing to walk for.
    volume.adjust(Adjustable { policy: policy(), quiet_ms: 0, seal_ms: 0, rules: Arc::default() });
    assert!(volume.plan_ladder().is_none() && volume.ladder_pause_s().is_none());
    volume.close().unwrap();
}

/// Random changes, coding, ageing and walks, against a map of what files hold.
fn play(seed: u64, prepare: impl FnOnce(&SimDisk)) -> (SimDisk, Files, Result<(), Error>) {
    let disk = fresh();
    let volume = opened(&disk, &ladder());
    let mut files = Files::new();
    let mut dice = Dice::new(seed);
    for n in 0..4 {
        let (name, data) = (format!("old {n}"), dice.text(if n == 0 { 20_000 } else { 1500 }));
        put(&volume, &name, &data).unwrap();
        files.insert(name, data);
    }
    code_all(&volume, || ()).unwrap();
    volume.sync().unwrap();
    prepare(&disk);
    let mut body = || -> Result<(), Error> {
        for (n, ages) in [2 * HOUR, 8 * DAY].into_iter().enumerate() {
            for name in files.keys().filter(|name| name.starts_with("old")) {
                age(&volume, volume.lookup(Ino::ROOT, name.as_bytes())?.ino, ages)?;
            }
            let mut steps = 0;
            let mut run = volume.plan_ladder().unwrap();
            while !run.is_done() {
                volume.ladder_step(&mut run)?;
                steps += 1;
                if steps % 3 == 1 && steps < 12 {
                    let name = format!("new {n} {steps}");
                    put(&volume, &name, &dice.text(2000))?;
                    code_all(&volume, || ())?;
                    remove(&volume, &name)?;
                }
            }
            common::gc_all(&volume, 100_000, || ())?;
            holds(&volume, &Files::new(), "");
            for (name, data) in &files {
                let ino = volume.lookup(Ino::ROOT, name.as_bytes())?.ino;
                assert!(read(&volume, ino, 0, 1 << 20)? == *data, "{name}");
            }
        }
        volume.close()
    };
    let outcome = body();
    (disk, files, outcome)
}

#[test]
fn a_power_cut_at_every_sync_of_a_walk_loses_nothing() {
    let mut start = 0;
    let (disk, _, outcome) = play(1, |d| start = d.syncs());
    outcome.expect("the script runs");
    let mut cases = 0;
    for n in start + 1..=disk.syncs() {
        let (cut, files, outcome) = play(1, |d| d.cut_power_at_sync(n));
        if outcome.is_ok() {
            continue;
        }
        let images = [Survival::Synced, Survival::Kernel, Survival::Random(n)];
        if let Some(image) = images.into_iter().nth((n % 3) as usize) {
            let case = format!("sync {n}, {image:?}");
            let left = cut.survivor(image);
            let volume = try_open(&left, &ladder()).unwrap_or_else(|e| panic!("{case}: {e}"));
            let judge = || {
                for (name, data) in &files {
                    let ino =
                        volume.lookup(Ino::ROOT, name.as_bytes()).unwrap_or_else(|e| panic!("{case}: {name}: {e}")).ino;
                    let found = read(&volume, ino, 0, 1 << 20).unwrap_or_else(|e| panic!("{case}: {name}: {e}"));
                    assert!(found == *data, "{case}: {name} is not what it was");
                }
                assert_eq!(volume.audit().unwrap(), [""; 0], "{case}");
            };
            judge();
            code_all(&volume, || ()).unwrap();
            walk(&volume, || ()).unwrap_or_else(|e| panic!("{case}: {e}"));
            judge();
            volume.close().unwrap();
            check(&left);
            cases += 1;
        }
    }
    assert!(cases > 15, "{cases} cuts prove nothing");
}
